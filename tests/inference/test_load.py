from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

import vargpt_lightning
from tests.untrained import build_model, stored, text_tokenizer, tiny_config
from vargpt_lightning.checkpoints.convert import convert
from vargpt_lightning.cli import main
from vargpt_lightning.inference.load import load_run
from vargpt_lightning.utils.errors import UserError

WEIGHTS = "stages/02-generation/model.safetensors"


def test_the_last_finished_stage_is_loaded(finished_run: Path) -> None:
    run = load_run(finished_run)
    expected = stored(build_model(tiny_config(text_tokenizer())))
    assert run.stage.name == "generation" and not run.model.training
    assert all(torch.equal(run.model.state_dict()[key], value) for key, value in expected.items())
    assert run.experiment["seed"] == 0


def test_a_stage_can_be_named(finished_run: Path) -> None:
    run = load_run(finished_run, stage="pretrain")
    assert not torch.equal(
        run.model.language_model.lm_head.weight, load_run(finished_run).model.language_model.lm_head.weight
    )


def test_an_unfinished_stage_is_passed_over(run_copy: Path) -> None:
    from vargpt_lightning.runs.folder import RunFolder

    RunFolder(run_copy).stage(2, "generation").update(status="interrupted")
    assert load_run(run_copy).stage.name == "pretrain"
    with pytest.raises(UserError, match=r"no finished stage 'generation'.*pretrain \(finished\), generation \(interr"):
        load_run(run_copy, stage="generation")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run\.json is missing"):
        load_run(tmp_path)


def test_a_missing_key_is_named_with_its_shape(run_copy: Path) -> None:
    state = load_file(run_copy / WEIGHTS)
    del state["language_model.lm_head.weight"]
    save_file(state, run_copy / WEIGHTS)
    with pytest.raises(UserError, match=r"lm_head\.weight is missing.*\(263, 32\)"):
        load_run(run_copy)


def test_another_size_is_named_with_both_shapes(run_copy: Path) -> None:
    state = load_file(run_copy / WEIGHTS)
    state["language_model.lm_head.weight"] = torch.zeros(263, 16)
    save_file(state, run_copy / WEIGHTS)
    with pytest.raises(UserError, match=r"lm_head\.weight has shape \(263, 16\), the model expects \(263, 32\)"):
        load_run(run_copy)


def test_a_missing_weight_of_the_tower_is_noticed_when_the_file_has_the_tower(run_copy: Path) -> None:
    state = load_file(run_copy / WEIGHTS)
    state["vision_tower.model._conv_stem.weight"] = torch.zeros(32, 3, 3, 3)
    save_file(state, run_copy / WEIGHTS)
    with pytest.raises(UserError, match=r"vision_tower\..* is missing"):
        load_run(run_copy)


def test_broken_weights_are_refused(run_copy: Path) -> None:
    whole = (run_copy / WEIGHTS).read_bytes()
    (run_copy / WEIGHTS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"model\.safetensors is not readable as safetensors"):
        load_run(run_copy)
    (run_copy / WEIGHTS).unlink()
    with pytest.raises(UserError, match=r"model\.safetensors is missing"):
        load_run(run_copy)


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "no such file"), ("model: [", "is not valid YAML"), ("stages: []", "the keys stages"), ("3", "no keys")],
)
def test_a_bad_configuration_is_refused(text: str | None, message: str, run_copy: Path) -> None:
    (run_copy / "config.yaml").unlink()
    if text is not None:
        (run_copy / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load_run(run_copy)


def test_a_tokenizer_with_other_ids_is_refused(run_copy: Path) -> None:
    experiment = yaml.safe_load((run_copy / "config.yaml").read_text())
    experiment["model"]["tokens"]["image"], experiment["model"]["tokens"]["eos"] = 2, 3
    (run_copy / "config.yaml").write_text(yaml.safe_dump(experiment))
    with pytest.raises(UserError, match="token eos has id 2, the model expects 3"):
        load_run(run_copy)


def test_the_experiments_sampling_is_taken(run_copy: Path) -> None:
    experiment = yaml.safe_load((run_copy / "config.yaml").read_text())
    experiment["sampling"] = {"cfg": 4.0, "top_k": None}
    (run_copy / "config.yaml").write_text(yaml.safe_dump(experiment))
    visual = load_run(run_copy).settings.visual
    assert visual is not None and (visual.cfg, visual.top_k, visual.top_p) == (4.0, 900, 0.95)
    experiment["sampling"] = {"cgf": 4.0}
    (run_copy / "config.yaml").write_text(yaml.safe_dump(experiment))
    with pytest.raises(UserError, match=r"sampling\.cgf is unknown; there are top_k"):
        load_run(run_copy)


def test_an_exported_model_is_loaded_asked_and_draws(finished_run: Path, tmp_path: Path, script: Any) -> None:
    """The ten lines of the README."""
    convert(finished_run, tmp_path / "exported")
    script("a shamrock", "Here: *")
    model = vargpt_lightning.load(tmp_path / "exported", device="cpu")
    answer = model.ask("What is it?", Image.new("RGB", (80, 60), "green"))
    assert answer.text == "a shamrock" and not answer.pictures
    script("Here: *")
    one, two, other = (model.ask("Please draw a shamrock.", seed=seed).pictures for seed in (1, 1, 2))
    assert one[0].image.size == (8, 8) and torch.equal(one[0].indices, two[0].indices)
    assert not torch.equal(one[0].indices, other[0].indices)
    run = vargpt_lightning.load(finished_run, device="cpu")
    assert torch.equal(run.ask("Please draw a shamrock.", seed=1).pictures[0].indices, one[0].indices)
    script("Here: *")
    assert main(["generate", str(tmp_path / "exported"), "Draw.", "--out", str(tmp_path / "drawn")]) == 0
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 1
    assert main(["generate", str(tmp_path / "exported"), "Draw.", "--stage", "pretrain"]) == 2


@pytest.mark.parametrize("where", [None, 5, "", " "])
def test_what_names_no_model_is_told(where: Any) -> None:
    with pytest.raises(UserError, match=f"got {where!r}, expected a run folder"):
        vargpt_lightning.load(where)
