"""The paper's recipe rehearsed: corpora from files of their true formats, packed, trained on, killed, resumed."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import ends, true_formats
from tests.tiny import assert_same_weights
from vargpt_lightning.cli import main
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.experiment.parser import load_experiment

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
FILE = EXPERIMENTS / "vargpt_miniature.yaml"
# what a size is, what the hardware is, and where the run is kept: all else must be the paper's
SIZES = {
    "model.language": {"width", "layers", "heads", "mlp", "vocabulary", "max_positions"},
    "model.vision": {"picture_size", "patch_size", "width", "layers", "heads", "mlp"},
    "model.tokenizer": {"scales", "channels", "channel_multipliers", "residual_blocks", "code_size", "vocabulary"},
    "model.decoder": {"depth", "width", "heads"},
    "model.tokens": {"image", "pad", "image_gen_start", "image_gen_end", "image_gen"},
    "trainer": {"accelerator", "devices", "strategy", "precision", "checkpoint_seconds", "log_every", "samples"},
    "run": {"name"},
}
CORPORA = {
    "imagenet-dialogues": 64,
    "llava-v1_5-mix665k": 66,
    "llava-onevision-508k": 50,
    "imagenet-instruct-130k": 13,
    "imagenet-instruct-1270k": 63,
}


def test_it_differs_from_the_papers_only_in_size() -> None:
    """Key by key, defaults and all."""
    small, large = (yaml.safe_load(load_experiment(["-c", str(EXPERIMENTS / name)]).resolved) for name in
                    (FILE.name, "vargpt_7b.yaml"))  # fmt: skip
    keys = (flat(small) | flat(large)).keys() - {"stages"}
    different = {key for key in keys if flat(small).get(key) != flat(large).get(key)}
    allowed = {f"{section}.{key}" for section, keys in SIZES.items() for key in keys}
    # what a plan counts with, and how a strategy shards, belong to the hardware; published weights to a size
    more = {key for key in different if key.startswith(("plan.", "trainer.sharding.", "init_from."))}
    assert different - more <= allowed
    assert small["data"] == large["data"]
    for one, other in zip(small["stages"], large["stages"], strict=True):
        assert {**one, "data": None} == {**other, "data": None}
        share = 1e-4 if one["mixture"] == "counts" else 1
        assert one["data"] == {name: pytest.approx(number * share, abs=0.51) for name, number in other["data"].items()}
    assert yaml.safe_load(FILE.read_text()).keys() == {"base", "run", "init_from", "trainer", "model", "stages"}


def flat(tree: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {name: tree}
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{name}.{key}".lstrip("."))
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the corpora as they are downloaded, packed below data/, and the tokenizer."""
    folder = tmp_path_factory.mktemp("miniature")
    raw = folder / "raw"
    imagenet = true_formats.write_imagenet(raw / "imagenet")
    true_formats.write_instruct(raw / "ImageNet-Instruct-130k.json", 13, 1)
    true_formats.write_instruct(raw / "ImageNet-Instruct-1270k.json", 63, 2)
    pictures = f"pictures={imagenet / 'data'}"
    sources = {
        "imagenet-dialogues": f"imagenet:{imagenet}",
        "llava-v1_5-mix665k": f"llava:{true_formats.write_llava(raw / 'llava')},pictures={raw / 'llava'}",
        "llava-onevision-508k": f"onevision:{true_formats.write_onevision(raw / 'onevision')}",
        "imagenet-instruct-130k": f"vargpt_instruct:{raw / 'ImageNet-Instruct-130k.json'},{pictures}",
        "imagenet-instruct-1270k": f"vargpt_instruct:{raw / 'ImageNet-Instruct-1270k.json'},{pictures}",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VARGPT_CACHE", str(folder / "cache"))
        for name, source in sources.items():
            assert main(["data", "pack", source, "--out", str(folder / "data" / name), "--shard-mb", "0.05"]) == 0
    true_formats.write_tokenizer(folder / "weights" / "llava-1.5-7b-hf")
    return folder


@pytest.fixture(autouse=True)
def there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("VARGPT_CACHE", str(place / "cache"))
    # a process started from there must find the package that is tested
    monkeypatch.setenv("PYTHONPATH", str(EXPERIMENTS.parent))


def test_every_row_of_the_corpora_is_packed(place: Path) -> None:
    for name, count in CORPORA.items():
        index = json.loads((place / "data" / name / "index.json").read_text())
        assert (index["count"], index["rejected"]) == (count, 0), name
        assert len(index["shards"]) > 1 or count < 20
    assert main(["data", "check", *(f"data/{name}" for name in CORPORA)]) == 0
    llava = Counter(len(record.pictures()) for record in ShardDataset("data/llava-v1_5-mix665k"))
    assert llava == {1: 55, 0: 11}
    requests = list(ShardDataset("data/imagenet-dialogues"))
    assert all("goldfish" in record.turns[0].text for record in requests if record.meta["class"] == "n01443537")
    # the same picture goes by the same name in all of them, so that its visual tokens are made once
    keys = {part.key for record in requests for part in record.pictures("drawn")}
    assert keys >= {part.key for name in ("130k", "1270k") for record in ShardDataset(f"data/imagenet-instruct-{name}")
                    for part in record.pictures("drawn")}  # fmt: skip


def test_it_trains_and_a_killed_run_ends_with_the_same_weights(place: Path, tmp_path: Path) -> None:
    words = ["fit", "-c", str(FILE), "--run.root"]
    alone = ["--data.init_args.workers", "0"]
    logs = [tmp_path / name for name in ("whole", "killed", "again")]
    assert ends.run([*words, "whole", *alone], logs[0]) == 0, logs[0].read_text()[-3000:]
    kill = ends.Place("understanding", "batch", 3)
    more = ["--data.init_args.workers", "1"]
    assert ends.run([*words, "killed", *more], logs[1], kill, signal.SIGKILL) == -signal.SIGKILL
    assert ends.run([*words, "killed", *alone], logs[2]) == 0, logs[2].read_text()[-3000:]
    said = logs[2].read_text()
    assert "stage pretrain: finished before, skipped" in said and "stage understanding: resumes after step" in said
    assert_same_weights(place / "whole" / "vargpt_miniature", place / "killed" / "vargpt_miniature")
    records = [json.loads(path.read_text()) for path in sorted((place / "whole").glob("*/stages/*/stage.json"))]
    # 64 in batches of 8 x 4, 66 + 51 + 1 in batches of 4 x 4, three times 13 + 63 in 8 x 2: the last step filled up
    assert [(record["name"], record["steps"]) for record in records] == [
        ("pretrain", 2),
        ("understanding", 8),
        ("generation", 15),
    ]
    assert all(record["skipped"] == record["cut"] == 0 for record in records)
