"""One fit over several stages: the weights of `fit_stages`, wherever it was killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy
from safetensors.torch import load_file, save_file

import vargpt_lightning as vl
from tests.ranks import run_ranks, said
from tests.test_python_api import QUIET, Own, Seen
from tests.tiny import stage_weights, write_experiment
from vargpt_lightning.callbacks import EMA, BatchRng, LastCheckpoint, StageScheduler
from vargpt_lightning.callbacks.batch_rng import seed_everything_at
from vargpt_lightning.utils.errors import UserError

STEPS = (6, 6, 4)


@pytest.fixture
def recipe(tiny_experiment: dict[str, Any], tmp_path: Path) -> Any:
    tiny_experiment["stages"][1]["lora"] = {"rank": 2, "alpha": 4}
    return vl.load_experiment(write_experiment(tmp_path / "tiny.yaml", tiny_experiment))


def fresh(recipe: Any) -> vl.VARGPT:
    seed_everything_at(recipe.seed, "weights")
    return vl.VARGPT(recipe.model)


def fit(recipe: Any, model: vl.VARGPT, cache: Path, *more: pl.Callback, ckpt_path: Any = None, **own: Any) -> Any:
    """Train all stages of a recipe in one fit; return its trainer."""
    data = vl.VARGPTDataModule(recipe.data, recipe.stages, model.config, cache=cache, seed=recipe.seed)
    scheduler = StageScheduler(recipe.stages, seed=recipe.seed, make=own.pop("make", None))
    module = own.pop("module", None) or vl.VARGPTModule(model, recipe.stages)
    settings = {"enable_checkpointing": False, "max_epochs": len(recipe.stages), **QUIET, **own}
    trainer = pl.Trainer(
        reload_dataloaders_every_n_epochs=1, callbacks=[scheduler, EMA(), BatchRng(recipe.seed), *more], **settings
    )
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return trainer


def assert_equal(model: vl.VARGPT, weights: dict[str, torch.Tensor]) -> None:
    there = model.state_dict()
    assert set(there) == set(weights)
    for name, value in weights.items():
        assert torch.equal(there[name], value), name


class Ends(pl.Callback):
    """Keeps the weights that each stage ends with, as the next one begins."""

    def __init__(self) -> None:
        self.found: list[dict[str, torch.Tensor]] = []

    def begin_stage(self, stage: Any, first_step: int) -> None:
        self.steps = [*getattr(self, "steps", []), first_step]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.found.append({name: value.clone() for name, value in pl_module.vargpt.state_dict().items()})


def test_one_fit_ends_each_stage_as_fit_stages_does(recipe: Any, tmp_path: Path) -> None:
    run = vl.fit_stages(recipe)
    whole = list(stage_weights(run.path).values())
    model, ends = fresh(recipe), Ends()
    trainer = fit(recipe, model, tmp_path / "cache", ends, limit_val_batches=1)
    assert trainer.global_step == sum(STEPS) and ends.steps == [0, 6, 12]
    assert type(trainer.lightning_module) is vl.GenerationModule
    for weights, begun in zip(whole, [ends.found[1], ends.found[2], model.state_dict()], strict=True):
        for name, value in weights.items():
            assert torch.equal(begun.get(name, begun.get(name.replace(".weight", ".base_layer.weight"))), value), name


@pytest.fixture
def unbroken(recipe: Any, tmp_path: Path) -> tuple[dict[str, torch.Tensor], list[Any]]:
    model, seen = fresh(recipe), Seen()
    fit(recipe, model, tmp_path / "whole", seen)
    return model.state_dict(), seen.batches


@pytest.mark.parametrize("killed_at", [2, 6, 8, 12, 15])  # in each stage, and at both seams
def test_a_killed_fit_resumes_in_its_stage(recipe: Any, tmp_path: Path, unbroken: Any, killed_at: int) -> None:
    weights, batches = unbroken
    first, second, last = Seen(end_at=killed_at), Seen(), LastCheckpoint(tmp_path / "last.ckpt", 0)
    with pytest.raises(RuntimeError, match="killed"):
        fit(recipe, fresh(recipe), tmp_path / "cache", first, last, enable_checkpointing=True)
    model = fresh(recipe)
    fit(recipe, model, tmp_path / "cache", second, ckpt_path=last.path)
    assert [*first.batches, *second.batches] == batches
    assert_equal(model, weights)


def test_a_fit_resumes_from_lightnings_checkpoint_of_a_seam(recipe: Any, tmp_path: Path, unbroken: Any) -> None:
    weights, batches = unbroken
    saved = ModelCheckpoint(tmp_path / "epochs", save_top_k=-1, filename="{epoch}")
    fit(recipe, fresh(recipe), tmp_path / "cache", saved, enable_checkpointing=True)
    for epoch, steps in ((0, 6), (1, 18)):  # batches: the second stage has two a step
        model, seen = fresh(recipe), Seen()
        fit(recipe, model, tmp_path / "cache", seen, ckpt_path=tmp_path / "epochs" / f"epoch={epoch}.ckpt")
        assert seen.batches == batches[steps:]
        assert_equal(model, weights)


def two_processes(file: Path, out: Path, whole: bool) -> int:
    """One of two processes that train with ddp; the first writes the weights of one fit over all stages."""
    recipe = vl.load_experiment(file)
    if not whole:
        vl.fit_stages(recipe)
        return 0
    model = fresh(recipe)
    strategy = DDPStrategy(find_unused_parameters=True)
    trainer = fit(recipe, model, out / "cache", strategy=strategy, devices=2)
    if trainer.is_global_zero:
        save_file(model.state_dict(), out / "one.safetensors")
    return 0


def test_two_processes_go_on_together(tiny_experiment: dict[str, Any], tmp_path: Path) -> None:
    tiny_experiment["trainer"] |= {"strategy": "ddp", "devices": 2, "samples": 0, "validate": 0}
    file = write_experiment(tmp_path / "two.yaml", tiny_experiment)
    for whole in (False, True):
        log = tmp_path / f"log-{whole}"
        assert run_ranks(2, log, two_processes, file, tmp_path, whole) == [0, 0], said(log, 2)
    stages = stage_weights(Path(tiny_experiment["run"]["root"]) / "tiny")
    one = load_file(tmp_path / "one.safetensors")
    for name, value in list(stages.values())[-1].items():
        torch.testing.assert_close(one[name], value, rtol=1e-6, atol=1e-6)


def test_ones_own_module_stays_through_all_stages(recipe: Any, tmp_path: Path) -> None:
    recipe.stages[1].lora = None
    stages = recipe.stages = [stage for stage in recipe.stages if stage.head == "unified"] * 2
    stages[1] = type(stages[0])(
        **{**vars(stages[0]), "name": "again", "train": ["visual_decoder"], "data": {"pictures": 1}}
    )
    model = fresh(recipe)
    module, ends = Own(model), Ends()
    trainer = fit(recipe, model, tmp_path, ends, module=module)
    assert trainer.lightning_module is module and len(module.losses) == 24
    trained = {
        name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, ends.found[1][name])
    }
    assert trained == {"visual_decoder"}


def test_ones_own_objective_is_made_for_each_stage(recipe: Any, tmp_path: Path) -> None:
    class Mine(vl.UnifiedModule):
        pass

    recipe.stages = recipe.stages[1:]
    with pytest.raises(UserError, match=r"Mine is the module of stage 'base'; expected StageScheduler\(stages, make"):
        model = fresh(recipe)
        fit(recipe, model, tmp_path, module=Mine(model, recipe.stages[0]))
    kinds = {"unified": Mine, "generation": vl.GenerationModule}
    trainer = fit(recipe, fresh(recipe), tmp_path, make=lambda model, stage: kinds[stage.head](model, stage))
    assert type(trainer.lightning_module) is vl.GenerationModule and trainer.global_step == 10


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_epochs": 2}, r"max_epochs=2, max_steps=-1.*expected max_epochs=3"),
        ({"max_steps": 4}, r"max_steps=4.*expected max_epochs=3, max_steps=-1"),
        ({"strategy": "fsdp2"}, r"BlockSharding holds parts of weights.*or fit_stages"),
    ],
)
def test_a_trainer_that_cannot_go_on_is_refused(recipe: Any, tmp_path: Path, settings: Any, words: str) -> None:
    if "strategy" in settings:
        from vargpt_lightning.distributed.strategies import build_strategy
        from vargpt_lightning.recipe.sharding import ShardingConfig

        settings = {"strategy": build_strategy("fsdp2", ShardingConfig(), "32-true")}
    with pytest.raises(UserError, match=words):
        fit(recipe, fresh(recipe), tmp_path, **settings)


def test_frozen_bits_are_refused(recipe: Any, tmp_path: Path) -> None:
    recipe.stages[2].frozen_bits = {"language_model": 8}
    with pytest.raises(UserError, match=r"stages.draw.frozen_bits=.*expected fit_stages"):
        fit(recipe, fresh(recipe), tmp_path)


def test_a_checkpoint_of_another_plan_is_refused(recipe: Any, tmp_path: Path) -> None:
    last = LastCheckpoint(tmp_path / "last.ckpt", 0)
    with pytest.raises(RuntimeError, match="killed"):
        fit(recipe, fresh(recipe), tmp_path / "cache", Seen(end_at=2), last, enable_checkpointing=True)
    recipe.stages = recipe.stages[1:]
    with pytest.raises(UserError, match="checkpoint is of stage 'tokenizer'; expected one of base, draw"):
        fit(recipe, fresh(recipe), tmp_path / "cache", ckpt_path=last.path)
