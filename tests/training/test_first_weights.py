"""`vargpt fit` with a section init_from: the first stage begins with these weights, and the run says where from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.tiny import tiny_config, tiny_tree, write_experiment
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.cli import main


def first_weights(folder: Path, data: dict[str, Any], **section: Any) -> tuple[Path, VARGPT]:
    torch.manual_seed(9)
    model = VARGPT(tiny_config())
    model.save_pretrained(folder / "given")
    tree = tiny_tree(data, folder / "runs")
    # no step of this stage reaches the language model, the tower or the image tokenizer
    tree["stages"] = [stage | {"steps": 1} for stage in tree["stages"] if stage["name"] == "draw"]
    tree["init_from"] = {"language_model": str(folder / "given"), "vision_tower": str(folder / "given"), **section}
    return write_experiment(folder / "tiny.yaml", tree), model


def test_the_first_stage_begins_with_them(
    tiny_data: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    file, model = first_weights(tmp_path, tiny_data)
    assert main(["fit", "-c", str(file)]) == 0
    printed = capsys.readouterr().out
    assert f"from {tmp_path / 'given'} (ours)" in printed and "visual_decoder" in printed
    run = tmp_path / "runs/tiny"
    weights, given = load_file(run / "stages/01-draw/model.safetensors"), model.state_dict()
    part = {key for key in given if key.startswith(("language_model.", "vision_tower."))}
    assert all(torch.equal(weights[key], given[key]) for key in part)
    report = json.loads((run / "init_from.json").read_text())
    assert report["parameters"].keys() == given.keys()
    assert {key for key, entry in report["parameters"].items() if entry["from"]} == part
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["init_from"]["language_model"] == str(tmp_path / "given")
    # the stage hangs on them: others are told, not skipped
    tree = yaml.safe_load(file.read_text())
    del tree["init_from"]["vision_tower"]
    write_experiment(file, tree)
    assert main(["fit", "-c", str(file)]) == 2
    assert "init_from" in capsys.readouterr().err


def test_a_wrong_section_is_told_in_one_line(
    tiny_data: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, _ = first_weights(tmp_path, tiny_data, image_tokenizer=str(tmp_path / "none.pth"))
    assert main(["fit", "-c", str(file)]) == 2
    assert "none.pth: there is no such file or folder" in capsys.readouterr().err
    for section, message in [
        ({"visual_decode": "x"}, "init_from.visual_decode is not a key; did you mean 'visual_decoder'?"),
        ({"new_rows": "zero"}, "init_from.new_rows='zero'; expected one of mean, normal, keep"),
        ({"ignore": "x"}, "init_from.ignore='x'; expected a list"),
    ]:
        tree = yaml.safe_load(file.read_text())
        tree["init_from"] = section
        write_experiment(tmp_path / "other.yaml", tree)
        assert main(["fit", "-c", str(tmp_path / "other.yaml")]) == 2
        assert message in capsys.readouterr().err
