"""The public API as a Lightning user writes it: no command of ours in the process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import yaml
from lightning.pytorch.cli import LightningCLI

import vargpt_lightning as vl
from tests.tiny import stage_weights, write_experiment
from vargpt_lightning.callbacks import EMA, BatchRng, LastCheckpoint, StageScheduler

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "limit_val_batches": 0,
}


@pytest.fixture
def recipe(tiny_experiment: dict[str, Any], tmp_path: Path) -> Any:
    return vl.load_experiment(write_experiment(tmp_path / "tiny.yaml", tiny_experiment))


def fit(recipe: Any, stage: Any, model: Any, cache: Path, *callbacks: pl.Callback, **settings: Any) -> pl.Trainer:
    data = vl.VARGPTDataModule(recipe.data, stage, model.config, cache=cache, seed=recipe.seed)
    named = [StageScheduler(stage), *([EMA(stage.ema)] if stage.ema else []), BatchRng(recipe.seed, stage.name)]
    settings = {"enable_checkpointing": False, "max_steps": data.total_steps, **settings}
    trainer = pl.Trainer(
        max_epochs=-1,
        accumulate_grad_batches=stage.accumulate,
        gradient_clip_val=stage.optimizer.clip or None,
        callbacks=[*named, *callbacks],
        **QUIET,
        **{key: value for key, value in settings.items() if key != "ckpt_path"},
    )
    trainer.fit(vl.VARGPTModule(model, stage), datamodule=data, ckpt_path=settings.get("ckpt_path"), weights_only=True)
    return trainer


def test_stages_by_ones_own_trainer_end_as_the_commands_do(recipe: Any, tmp_path: Path) -> None:
    run = vl.fit_stages(recipe)
    assert run.status == "finished" and run.record["config"] == recipe.files[-1]
    from vargpt_lightning.callbacks.batch_rng import seed_everything_at

    seed_everything_at(recipe.seed, "weights")
    model = vl.VARGPT(recipe.model)
    found = {}
    for stage in recipe.stages:
        fit(recipe, stage, model, tmp_path / "cache")
        found[stage.name] = {name: value.clone() for name, value in model.state_dict().items()}
    whole = {folder.split("-", 1)[1]: weights for folder, weights in stage_weights(run.path).items()}
    assert list(whole) == list(found)
    for stage, weights in whole.items():
        for name, value in weights.items():
            assert torch.equal(value, found[stage][name]), f"{stage}: {name}"


def test_the_model_answers_when_it_is_trained(recipe: Any, tmp_path: Path) -> None:
    model = vl.VARGPT(recipe.model)
    stage = recipe.stages[-1]
    data = vl.VARGPTDataModule(recipe.data, stage, model.config, cache=tmp_path / "cache")
    assistant = vl.Assistant(model.eval(), data.tokenizer)
    answer = assistant.ask("Please draw a square.", max_new_tokens=4)
    assert isinstance(answer.text, str)


class Seen(pl.Callback):
    """Keeps the ids of the records of each batch, and stops or breaks off where it is told."""

    def __init__(self, end_at: int | None = None) -> None:
        self.batches: list[tuple[str, ...]] = []
        self.end_at = end_at

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        if trainer.global_step == self.end_at:
            raise RuntimeError("killed")
        self.batches.append(tuple(record.id for record in batch["rows"].records if record is not None))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_killed_fit_resumes_with_the_batches_that_it_would_have_had(
    recipe: Any, tmp_path: Path, workers: int
) -> None:
    stage = next(stage for stage in recipe.stages if stage.head == "unified")
    recipe.data.workers = workers
    whole, first, second = Seen(), Seen(end_at=3), Seen()
    torch.manual_seed(0)
    unbroken = vl.VARGPT(recipe.model)
    start = {name: value.clone() for name, value in unbroken.state_dict().items()}
    fit(recipe, stage, unbroken, tmp_path / "a", whole)
    resumed = vl.VARGPT(recipe.model)
    resumed.load_state_dict(start)
    last = LastCheckpoint(tmp_path / "last.ckpt", 0)
    with pytest.raises(RuntimeError, match="killed"):
        fit(recipe, stage, resumed, tmp_path / "b", first, last, enable_checkpointing=True)
    resumed = vl.VARGPT(recipe.model)
    resumed.load_state_dict(start)
    fit(recipe, stage, resumed, tmp_path / "b", second, ckpt_path=last.path)
    assert [*first.batches, *second.batches] == whole.batches and len(first.batches) == 3 * stage.accumulate
    for name, value in unbroken.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_checkpoint_of_another_stages_batches_is_refused(recipe: Any, tmp_path: Path) -> None:
    one, other = recipe.stages[0], recipe.stages[1]
    config = recipe.model
    state = vl.VARGPTDataModule(recipe.data, one, config, tmp_path).state_dict()
    with pytest.raises(ValueError, match=f"stage is '{one.name}', but the data module's is '{other.name}'"):
        vl.VARGPTDataModule(recipe.data, other, config, tmp_path).load_state_dict(state)


class Own(pl.LightningModule):
    """Somebody's own module around the model, with an optimizer and a loss of its own."""

    def __init__(self, model: vl.VARGPT) -> None:
        super().__init__()
        self.vargpt = model
        self.losses: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        output = self.vargpt(batch)
        loss: torch.Tensor = sum(each for each in (output.text_loss, output.image_loss) if each is not None)  # type: ignore[assignment]
        self.losses.append(float(loss))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([each for each in self.parameters() if each.requires_grad], lr=0.05)


def test_ones_own_module_trains_with_our_data_and_callbacks(recipe: Any, tmp_path: Path) -> None:
    stage = next(stage for stage in recipe.stages if stage.head == "unified")
    stage.steps, stage.accumulate = 8, 1
    model = vl.VARGPT(recipe.model)
    frozen = model.image_tokenizer.encoder.conv_in.weight.clone()
    module, data = Own(model), vl.VARGPTDataModule(recipe.data, stage, model.config, cache=tmp_path)
    callbacks = [StageScheduler(stage), EMA(0.9), BatchRng(0, stage.name)]
    trainer = pl.Trainer(max_steps=8, max_epochs=-1, callbacks=callbacks, enable_checkpointing=False, **QUIET)
    trainer.fit(module, datamodule=data)
    assert len(module.losses) == 8 and min(module.losses[4:]) < module.losses[0]
    assert torch.equal(model.image_tokenizer.encoder.conv_in.weight, frozen)


def test_lightnings_command_line_builds_and_trains_it(
    recipe: Any, tiny_experiment: dict[str, Any], tmp_path: Path
) -> None:
    tree = yaml.safe_load(recipe.resolved)
    stage = next(stage for stage in tree["stages"] if stage["head"] == "unified") | {"steps": 2, "epochs": None}
    config = {
        "model": {"model": {"class_path": "vargpt_lightning.VARGPTConfig", "init_args": tree["model"]}, "stage": stage},
        "data": {"data": tree["data"], "stage": stage, "model": tree["model"], "cache": str(tmp_path / "cache")},
        "trainer": {**QUIET, "max_steps": 2, "max_epochs": -1, "enable_checkpointing": False},
    }
    file = tmp_path / "cli.yaml"
    file.write_text(yaml.safe_dump(config))
    cli = LightningCLI(vl.VARGPTModule, vl.VARGPTDataModule, args=["fit", "-c", str(file)], save_config_callback=None)
    assert cli.trainer.global_step == 2
    assert type(cli.model) is vl.UnifiedModule and cli.model.stage.name == stage["name"]


def test_every_name_is_there_and_documented() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "python.md").read_text(encoding="utf-8")
    for name in vl._LAZY:
        assert getattr(vl, name).__doc__, name
        assert f"`{name}`" in page or f"`vl.{name}`" in page, f"{name} is not in docs/python.md"


def test_only_public_names_are_listed() -> None:
    assert {name for name in dir(vl) if not name.startswith("__")} == set(vl._LAZY)
    assert "load" in dir(vl) and "sys" not in dir(vl)
