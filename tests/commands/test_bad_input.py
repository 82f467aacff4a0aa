"""Bad input through the real command line: one line, exit code 2, and nothing that was finished is lost."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny import corpora, tiny_tree, write_corpora, write_experiment
from vargpt_lightning.cli import main
from vargpt_lightning.data.shards.format import write_source
from vargpt_lightning.data.shards.records import PicturePart, Record, Turn
from vargpt_lightning.runs.folder import RunFolder

Tree = dict[str, Any]
Refused = Callable[..., str]


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that must fail; return its one line."""

    def run(*arguments: str) -> str:
        assert main(list(arguments)) == 2
        said = capfd.readouterr().err
        lines = [line for line in said.splitlines() if line.startswith("vargpt: error: ")]
        assert len(lines) == 1, said
        assert "Traceback" not in said
        return lines[0].removeprefix("vargpt: error: ")

    return run


@pytest.fixture
def own_data(tmp_path: Path) -> Tree:
    """Corpora that a test may spoil."""
    return write_corpora(tmp_path / "data")


@pytest.fixture
def file(own_data: Tree, tmp_path: Path) -> Path:
    return write_experiment(tmp_path / "tiny.yaml", tiny_tree(own_data, tmp_path / "runs"))


@pytest.fixture(scope="module")
def finished(tiny_data: Tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a tokenizer and a stage that draws; nothing may change it."""
    folder = tmp_path_factory.mktemp("finished")
    tree = tiny_tree(tiny_data, folder)
    del tree["stages"][1]
    assert main(["fit", "-c", str(write_experiment(folder / "tiny.yaml", tree))]) == 0
    return folder / "tiny"


@pytest.fixture
def finished_copy(finished: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda tree: tree.update(modle={}), "tiny.yaml: modle is not a key; did you mean 'model'?"),
        (lambda tree: tree["model"].update(visoin={}), "tiny.yaml: model.visoin is not a key; did you mean 'vision'?"),
        (
            lambda tree: tree["stages"][1]["optimizer"].update(lrr=1),
            "tiny.yaml: stages.base.optimizer.lrr is not a key; did you mean 'lr'?",
        ),
        (
            lambda tree: tree["model"]["language"].update(width="wide"),
            "tiny.yaml: model.language.width='wide'; expected a whole number",
        ),
        (
            lambda tree: tree["stages"][1].update(train=["visual_decodr"]),
            "stages.base.train: 'visual_decodr' is not a submodule; there are language_model, vision_tower, ",
        ),
        (
            lambda tree: tree["model"]["tokens"].update(pad=9),
            "tokenizer: token pad has id 0, the model expects 9; its ids are {bos: 1, eos: 2, pad: 0, image: 3, ",
        ),
        (
            lambda tree: tree["trainer"].update(accelerator="abacus"),
            "trainer: Lightning refuses accelerator='abacus'",
        ),
        (
            lambda tree: tree["stages"][2].update(data={"questions": 1}),
            "stages.draw.data: questions have no drawn pictures to train on; corpora that have some: drawings",
        ),
        (
            lambda tree: tree["stages"][0].update(data={"questions": 1}),
            "stages.tokenizer.data: 'questions' has no drawn pictures",
        ),
    ],
    ids=["key", "nested", "stage", "type", "submodule", "tokens", "trainer", "data", "tokenizer"],
)
def test_a_mistake_in_an_experiment(
    change: Callable[[Tree], None], told: str, own_data: Tree, tmp_path: Path, refused: Refused
) -> None:
    tree = tiny_tree(own_data, tmp_path / "runs")
    change(tree)
    assert told in refused("fit", "-c", str(write_experiment(tmp_path / "tiny.yaml", tree)))


def test_a_missing_shard(file: Path, own_data: Tree, refused: Refused) -> None:
    shard = Path(own_data["train"]["drawings"]) / "shard-000000.tar"
    size = shard.stat().st_size
    shard.unlink()
    assert refused("fit", "-c", str(file)) == f"{shard}: the shard is missing; the index expects {size} bytes"


def test_a_truncated_shard(file: Path, own_data: Tree, refused: Refused) -> None:
    shard = Path(own_data["train"]["pictures"]) / "shard-000000.tar"
    size = shard.stat().st_size
    shard.write_bytes(shard.read_bytes()[:-700])
    told = refused("fit", "-c", str(file))
    assert told == f"{shard}: {size - 700} bytes, the index expects {size}: truncated or replaced"


@pytest.mark.parametrize("folder", ["nowhere", "data"])
def test_a_corpus_that_is_none(folder: str, file: Path, own_data: Tree, tmp_path: Path, refused: Refused) -> None:
    told = refused("fit", "-c", str(file), "--data.train", json.dumps({"drawings": str(tmp_path / folder)}))
    if "not a corpus" in told:  # the stages are looked at first
        tree = tiny_tree(own_data, tmp_path / "runs")
        tree["data"]["init_args"]["train"]["drawings"] = str(tmp_path / folder)
        told = refused("fit", "-c", str(write_experiment(file, tree)))
    assert told == f"{tmp_path / folder / 'index.json'}: not found; expected a folder of packed records"


def spoil(records: list[Record], *places: int) -> list[Record]:
    """The records, at these places with pictures that are none."""
    spoiled = list(records)
    for place in places:
        record = records[place]
        turns = tuple(
            Turn(
                turn.role,
                tuple(
                    PicturePart(part.use, f"bad-{place}", b"no picture") if isinstance(part, PicturePart) else part
                    for part in turn.parts
                ),
            )
            for turn in record.turns
        )
        spoiled[place] = Record(record.id, record.source, turns, record.meta)
    return spoiled


@pytest.mark.parametrize("cached", [True, False])
def test_pictures_that_are_none_are_skipped_and_counted(
    cached: bool, own_data: Tree, tmp_path: Path, capfd: Any
) -> None:
    """Of nine records two are bad; the others stand in for them, and what is evaluated leaves them out."""
    for name in ("drawings", "pictures", "questions"):
        folder = tmp_path / f"bad-{name}"
        write_source(spoil(corpora()[name][:9], 2, 5), folder, split="train")
        own_data["train"][name] = str(folder)
    tree = tiny_tree(own_data, tmp_path / "runs")
    tree["data"]["init_args"]["cache_features"] = cached
    tree["evaluation"] = {"enabled": True, "questions": 2, "drawings_limit": 2, "names": 2}
    assert main(["fit", "-c", str(write_experiment(tmp_path / "tiny.yaml", tree))]) == 0
    said = capfd.readouterr().out
    stages = RunFolder(tmp_path / "runs" / "tiny").stages()
    assert all(stage.record["skipped"] > 0 for stage in stages[1:]), "in 24 draws of nine each bad one occurs"
    assert f"stage base: {stages[1].record['skipped']} records skipped" in said
    assert "evaluation: 2 pictures cannot be decoded and are left out: bad-2" in said


def test_a_corpus_of_bad_pictures_alone(own_data: Tree, tmp_path: Path, refused: Refused) -> None:
    write_source(spoil(corpora()["drawings"][:3], 0, 1, 2), tmp_path / "bad", split="train")
    own_data["train"]["drawings"] = str(tmp_path / "bad")
    tree = tiny_tree(own_data, tmp_path / "runs")
    file = write_experiment(tmp_path / "tiny.yaml", tree)
    assert "bad: none of its 3 drawn pictures could be encoded; the first: bad-0: " in refused("fit", "-c", str(file))
    names = [stage.name for stage in RunFolder(tmp_path / "runs" / "tiny").stages() if stage.status == "finished"]
    assert names == ["tokenizer", "base"], "what was finished is kept"


def test_records_longer_than_the_context(file: Path, refused: Refused) -> None:
    told = refused("fit", "-c", str(file), "--model.language.max_positions", "8")
    assert "none of its 9 records can be used; the first: " in told and "8" in told.partition("the first: ")[2]


def test_a_prompt_longer_than_the_context(finished: Path, refused: Refused) -> None:
    told = refused("generate", str(finished), "word " * 300)
    assert "tokens" in told and "96" in told


@pytest.fixture
def weights(finished_copy: Path) -> Path:
    return finished_copy / "stages" / "02-draw" / "model.safetensors"


def test_a_checkpoint_with_missing_keys(weights: Path, finished_copy: Path, refused: Refused) -> None:
    state = load_file(weights)
    del state["visual_decoder.head.weight"]
    save_file(state, weights)
    told = refused("generate", str(finished_copy), "Draw.")
    assert str(weights) in told and "visual_decoder.head.weight" in told


def test_a_checkpoint_of_other_sizes(weights: Path, finished_copy: Path, refused: Refused) -> None:
    state = load_file(weights)
    state["visual_decoder.head.weight"] = torch.zeros(3, 3)
    save_file(state, weights)
    told = refused("generate", str(finished_copy), "Draw.")
    assert str(weights) in told and "visual_decoder.head.weight" in told and "3" in told


def test_a_checkpoint_that_is_none(weights: Path, finished_copy: Path, refused: Refused) -> None:
    weights.write_bytes(b"not at all")
    assert f"{weights} is not readable as safetensors" in refused("generate", str(finished_copy), "Draw.")


def test_weights_of_an_earlier_stage_that_cannot_be_read(
    finished_copy: Path, tiny_data: Tree, tmp_path: Path, refused: Refused
) -> None:
    """A stage is to be trained on what the one before left."""
    (finished_copy / "stages" / "01-tokenizer" / "model.safetensors").write_bytes(b"not at all")
    tree = tiny_tree(tiny_data, tmp_path)
    del tree["stages"][1]
    tree["run"]["name"] = finished_copy.name
    told = refused("fit", "-c", str(write_experiment(tmp_path / "tiny.yaml", tree)), "--from", "draw")
    assert "01-tokenizer/model.safetensors is not readable as safetensors" in told


@pytest.mark.parametrize("command", ["generate", "evaluate"])
def test_a_run_folder_that_is_not_one(command: str, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    more = ["Draw."] if command == "generate" else []
    told = refused(command, str(tmp_path), *more)
    assert str(tmp_path) in told and "run" in told


def test_a_folder_with_other_things_is_not_trained_in(file: Path, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "runs" / "tiny").mkdir(parents=True)
    (tmp_path / "runs" / "tiny" / "notes.txt").write_text("mine")
    assert "is neither empty nor a run folder" in refused("fit", "-c", str(file))
    assert [path.name for path in (tmp_path / "runs" / "tiny").iterdir()] == ["notes.txt"]


def test_an_experiment_that_is_not_there(refused: Refused, tmp_path: Path) -> None:
    assert refused("fit", "-c", str(tmp_path / "no.yaml")).endswith("no.yaml cannot be read: No such file or directory")


def test_a_broken_record_of_a_run(finished_copy: Path, tiny_data: Tree, tmp_path: Path, refused: Refused) -> None:
    (finished_copy / "run.json").write_text("{")
    tree = copy.deepcopy(tiny_tree(tiny_data, tmp_path))
    tree["run"]["name"] = finished_copy.name
    told = refused("fit", "-c", str(write_experiment(tmp_path / "tiny.yaml", tree)))
    assert "run.json is not readable as JSON" in told
