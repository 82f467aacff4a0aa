"""Every experiment that is shipped can be read, and its model can be built."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.experiment.parser import load_experiment
from vargpt_lightning.experiment.schema import Experiment
from vargpt_lightning.models.vargpt import SUBMODULES

FOLDER = Path(__file__).resolve().parents[1] / "experiments"
FILES = sorted(file for file in FOLDER.glob("*.yaml") if file.name != "base.yaml")


@pytest.fixture(scope="module")
def experiments() -> dict[str, Experiment]:
    return {file.stem: load_experiment(["-c", str(file)]) for file in FILES}


def test_there_are_experiments() -> None:
    names = {"debug", "openmoji", "openmoji_full", "own_data", "vargpt_7b", "vargpt_miniature"}
    assert names <= {file.stem for file in FILES}
    assert all(file.suffix == ".yaml" for file in FOLDER.iterdir() if file.is_file())


@pytest.mark.parametrize("name", [file.stem for file in FILES])
def test_its_model_can_be_built_and_every_stage_trains_something(name: str, experiments: dict[str, Experiment]) -> None:
    experiment = experiments[name]
    with torch.device("meta"):
        model = VARGPT(experiment.model)
    assert all(parameter.is_meta for parameter in model.parameters())
    for stage in experiment.stages:
        parts = [part for part_name in stage.train for part in SUBMODULES[part_name]]
        assert all(getattr(model, part) is not None for part in parts), stage.name
    room = experiment.model.tokenizer.schedule.num_tokens + experiment.model.vision.patches
    assert room < experiment.model.language.max_positions, "a question and a drawing fit into the context"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_opens_with_its_command_and_is_named_after_its_file(file: Path, experiments: dict[str, Experiment]) -> None:
    first, second, *_ = file.read_text().splitlines()
    assert first == f"# vargpt fit -c experiments/{file.name}"
    assert second.startswith("# "), "what it takes and gives"
    assert experiments[file.stem].run.name == file.stem
    assert experiments[file.stem].trainer.log_every > 0


def test_the_papers_model_has_its_size(experiments: dict[str, Experiment]) -> None:
    with torch.device("meta"):
        model = VARGPT(experiments["vargpt_7b"].model)
    billions = {name: sum(p.numel() for p in part.parameters()) / 1e9 for name, part in model.named_children()}
    assert billions["language_model"] == pytest.approx(6.74, abs=0.05)
    assert billions["visual_decoder"] == pytest.approx(2.0, abs=0.1)
    assert [stage.name for stage in experiments["vargpt_7b"].stages] == ["pretrain", "understanding", "generation"]
