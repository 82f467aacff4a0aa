"""`vargpt data tokenize`: from a run and from files of weights, with the settings that these come with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.data.conftest import asked, drawn
from tests.tiny import png
from tests.untrained import build_model, text_tokenizer, tiny_config
from vargpt_lightning.cli import main
from vargpt_lightning.data.images.pictures import PictureReader
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.data.shards.format import write_source

WEIGHTS = "stages/02-generation/model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pictures = [drawn(f"p{n}", png(shape, "red")) for n, shape in enumerate(["disc", "box"])]
    write_source([*pictures, drawn("bad", b"nothing")], tmp_path / "packed", split="train")
    return tmp_path / "packed"


def made(folder: Path) -> dict[str, dict]:
    """The indexes of what there is, by the folder's name."""
    return {file.parent.name: json.loads(file.read_text()) for file in folder.glob("visual_tokens/*/index.json")}


def test_tokens_of_a_run_are_what_its_tokenizer_gives(
    folder: Path, finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "tokenize", str(folder), "--tokenizer", str(finished_run)]) == 0
    said = capsys.readouterr().out
    (name,) = made(folder)
    out = folder / "visual_tokens" / name
    assert said.startswith(f"{folder}: 3 drawn pictures in 1 variant, 2 maps of 21 tokens, ") and str(out) in said
    assert f"1 picture could not be decoded: {out / 'bad.jsonl'}" in said
    model = build_model(tiny_config(text_tokenizer()))
    pixels = [PictureReader(8).read(record.pictures()[0].data) for record in list(ShardDataset(folder))[:2]]
    assert np.array_equal(np.load(out / "codes.npy"), model.image_tokenizer.eval().encode(torch.stack(pixels)).numpy())


def test_files_of_the_same_weights_give_the_same(folder: Path, run_copy: Path, tmp_path: Path) -> None:
    """A stage's file in its run; weights under VAR's names, sizes given; those of a whole VARGPT checkpoint."""
    state = load_file(run_copy / WEIGHTS)
    own = {key.removeprefix("image_tokenizer."): value for key, value in state.items() if "image_tokenizer." in key}
    torch.save(own, tmp_path / "vae.pth")
    save_file({f"vae_local.{key}": value for key, value in own.items()}, tmp_path / "whole.safetensors")
    experiment = {
        "model": yaml.safe_load((run_copy / "config.yaml").read_text())["model"],
        "data": {"class_path": "vargpt_lightning.data.corpora.Packed", "init_args": {"train": {"d": str(folder)}}},
        "stages": [{"name": "draw", "train": ["visual_decoder"], "data": {"d": 1}, "steps": 1}],
    }
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(experiment))
    given = ["-c", str(tmp_path / "experiment.yaml")]
    for tokenizer in (
        [str(run_copy / WEIGHTS)],
        [str(tmp_path / "vae.pth"), *given],
        [str(tmp_path / "whole.safetensors"), *given],
    ):
        assert main(["data", "tokenize", str(folder), "--tokenizer", *tokenizer]) == 0
    assert len(made(folder)) == 1
    assert main(["data", "tokenize", str(folder), "--tokenizer", str(run_copy), "--stage", "pretrain"]) == 0
    assert len(made(folder)) == 2, "another stage's tokenizer is another"


def test_settings_are_the_runs_unless_said_otherwise(folder: Path, run_copy: Path) -> None:
    config = yaml.safe_load((run_copy / "config.yaml").read_text())
    config["data"] = {
        "class_path": "Packed",
        "init_args": {"drawn_fit": "var", "drawn_variants": 4, "drawn_flip": True},
    }
    (run_copy / "config.yaml").write_text(yaml.safe_dump(config))
    command = ["data", "tokenize", str(folder), "--tokenizer", str(run_copy)]
    for options in ([], ["--variants", "2", "--no-flip"], ["--fit", "pad", "--variants", "1"]):
        assert main([*command, *options]) == 0
    found = {
        (index["made"]["picture"]["fit"], index["made"]["variants"], index["made"]["picture"]["flip"])
        for index in made(folder).values()
    }
    assert found == {("var", 4, True), ("var", 2, False), ("pad", 1, False)}
    assert {index["counts"]["rows"] for index in made(folder).values()} == {8, 4, 2}
    config["data"]["init_args"]["drawn_variants"] = 0
    (run_copy / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(command) == 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"tokenizer": "missing"}, "missing: not found; expected a run, or a file of weights"),
        ({"tokenizer": "words.pth"}, "words.pth is not readable as"),
        ({"tokenizer": "other.safetensors"}, "holds no image tokenizer but lm_head.weight"),
        ({"tokenizer": "part.safetensors"}, "part.safetensors: key "),
        ({"folder": "seen"}, "seen: has no drawn pictures"),
        ({"options": ["--variants", "0"]}, "--variants: '0'; expected a whole number from 1"),
        ({"options": ["--batch-size", "0"]}, "--batch-size: '0'; expected a whole number from 1"),
        ({"options": ["--device", "abacus"]}, "--device: 'abacus'"),
        ({"options": ["--stage", "other"]}, "no finished stage 'other'"),
    ],
)
def test_mistakes_are_told_in_one_line(
    change: dict, told: str, folder: Path, finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = folder.parent
    (here / "words.pth").write_text("no weights")
    save_file({"lm_head.weight": torch.zeros(1)}, here / "other.safetensors")
    save_file({"quantize.embedding.weight": torch.zeros(4, 4)}, here / "part.safetensors")
    write_source([asked("a")], here / "seen", split="train")
    tokenizer = here / change["tokenizer"] if "tokenizer" in change else finished_run
    packed = here / change.get("folder", "packed")
    assert main(["data", "tokenize", str(packed), "--tokenizer", str(tokenizer), *change.get("options", [])]) == 2
    said = capsys.readouterr().err
    assert told in said and said.count("vargpt: error: ") == 1 and "Traceback" not in said
    assert not made(folder)


def test_code_in_a_pickle_is_not_run(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Sneaky:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"quantize.x": Sneaky()}, tmp_path / "bad.pth")
    assert main(["data", "tokenize", str(folder), "--tokenizer", str(tmp_path / "bad.pth")]) == 2
    assert "is not readable as plain weights" in capsys.readouterr().err and not (tmp_path / "ran").exists()
