"""Two processes train as one does, are stopped and killed, and others go on from where they were."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from tests.ends import Place, _prepare
from tests.ranks import run_ranks, said
from tests.tiny import stage_weights, tiny_stage, tiny_tree, write_corpora, write_experiment
from tests.tiny_training import tiny_model
from vargpt_lightning.checkpoints.dcp.folder import complete_folders
from vargpt_lightning.cli import main
from vargpt_lightning.distributed.fsdp2 import shard
from vargpt_lightning.distributed.strategies import BlockSharding
from vargpt_lightning.modules.base import StageModule
from vargpt_lightning.modules.vargpt_module import VARGPTModule
from vargpt_lightning.recipe.sharding import ShardingConfig
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import read_jsonl

Tree = dict[str, Any]


def tree_for(data: Tree, root: Path, batch: int, **trainer: Any) -> Tree:
    """Two stages without dropout of activations; what is dropped picture by picture stays."""
    tree = tiny_tree(data, root)
    tree["stages"] = tree["stages"][1:]
    for stage in tree["stages"]:
        stage["batch_size"] = batch
    tree["model"]["decoder"] |= {"dropout": 0.0, "drop_path": 0.0}
    tree["model"]["language"]["layers"] = 2
    tree["stages"][1]["frozen_bits"] = {"language_model": 4, "vision_tower": 8}
    tree["trainer"] |= {"samples": 0, "validate": 0, **trainer}
    return tree


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("strategies")


@pytest.fixture(scope="module")
def data(folder: Path) -> Tree:
    return write_corpora(folder / "data")


@pytest.fixture(scope="module")
def alone(folder: Path, data: Tree) -> Path:
    """One process's run with the whole batch."""
    torch.set_num_threads(1)
    tree = tree_for(data, folder / "alone", 4)
    assert main(["fit", "-c", str(write_experiment(folder / "alone.yaml", tree))]) == 0
    return folder / "alone" / "tiny"


def fit(file: Path, out: Path | None = None, place: Place | None = None, number: int = 0, peek: bool = False) -> int:
    """`vargpt fit` in one of several processes, the last of which sends itself a signal at a place.

    Args:
        out: where what the optimizer knows is written when a signal has stopped the training.
        peek: write it when training is taken up, and end.
    """
    if place is not None and int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1:
        _prepare(place, lambda: os.kill(os.getpid(), number))
    if out is not None:
        _write_states(out, peek)
    return main(["fit", "-c", str(file), "--trainer.devices", os.environ["WORLD_SIZE"]])


def _write_states(out: Path, peek: bool) -> None:
    import lightning.pytorch as pl

    from vargpt_lightning.callbacks.ema import EMA
    from vargpt_lightning.callbacks.graceful_stop import GracefulStop
    from vargpt_lightning.distributed.tensors import whole
    from vargpt_lightning.training import runner

    class Write(pl.Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            if peek:
                assert trainer.global_step > 0
                self.write(trainer, pl_module)
                os._exit(0)

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
            if GracefulStop.stopped(trainer):
                self.write(trainer, pl_module)

        def write(self, trainer: Any, pl_module: Any) -> None:
            optimizer = trainer.optimizers[0]
            states: dict[str, torch.Tensor] = {}
            for name, parameter in pl_module.named_parameters():
                states[name] = whole(parameter.detach())
                for kind, value in optimizer.state.get(parameter, {}).items():
                    states[f"{name}/{kind}"] = whole(value)
            (ema,) = [callback for callback in trainer.callbacks if isinstance(callback, EMA)]
            states |= {f"{name}/average": whole(value) for name, value in ema.averages.items()}
            assert len(states) > len(list(pl_module.parameters())) + len(ema.averages)
            trainer.strategy.barrier()
            if trainer.global_rank == 0:
                torch.save(states, out)

    stage_trainer = runner.stage_trainer

    def with_write(*arguments: Any) -> Any:
        trainer = stage_trainer(*arguments)
        trainer.callbacks.append(Write())
        return trainer

    runner.stage_trainer = with_write


def assert_same_losses(run: Path, other: Path) -> None:
    """Each training value of each step within 1e-4, and the weights of each stage too."""
    for one, two in zip(RunFolder(run).stages(), RunFolder(other).stages(), strict=True):
        rows = [
            {(row.step, row.name): row.value for row in stage.metrics() if row.name.startswith("train/")}
            for stage in (one, two)
        ]
        assert rows[0].keys() == rows[1].keys() and len(rows[0]) > 20
        far = {key: (value, rows[1][key]) for key, value in rows[0].items() if abs(value - rows[1][key]) > 1e-4}
        assert not far, f"{one.name}: {far}"
    for stage, weights in stage_weights(run).items():
        for name, value in stage_weights(other)[stage].items():
            torch.testing.assert_close(value, weights[name], atol=1e-4, rtol=1e-3)


def test_two_processes_with_whole_weights_train_as_one(folder: Path, data: Tree, alone: Path) -> None:
    file = write_experiment(
        folder / "ddp.yaml", tree_for(data, folder / "ddp", 2, strategy="ddp", checkpoint_seconds=600)
    )
    assert run_ranks(2, folder / "ddp-log", fit, file) == [0, 0], said(folder / "ddp-log", 2)
    assert_same_losses(alone, folder / "ddp" / "tiny")


def test_two_processes_with_sharded_weights_train_as_one_whatever_ends_them(
    folder: Path, data: Tree, alone: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Stopped by SIGTERM, then one of them killed: the run goes on, and ends where nothing had happened."""
    file = write_experiment(folder / "fsdp2.yaml", tree_for(data, folder / "fsdp2", 2, strategy="fsdp2"))
    run, log = folder / "fsdp2" / "tiny", folder / "fsdp2-log"
    stopped = run_ranks(2, log, fit, file, folder / "two.pt", Place("base", "batch", 2), signal.SIGTERM)
    assert stopped == [143, 143], said(log, 2)
    (checkpoint,) = complete_folders(run / "stages/01-base/last.ckpt")
    assert checkpoint.name == "last-00000003.dcp"
    killed = run_ranks(2, log, fit, file, None, Place("draw", "batch", 2), signal.SIGKILL, seconds=60)
    assert killed == [2, -signal.SIGKILL], said(log, 2)
    assert "stage base: resumes after step 3 of 6" in said(log, 2)
    assert "vargpt: error: another process of this run has ended" in said(log, 2)
    # one process takes up what two have left, finished stages too, with the same batch of a step
    write_experiment(file, tree_for(data, folder / "fsdp2", 2, strategy="fsdp2") | {"seed": 1})
    assert main(["fit", "-c", str(file)]) == 2
    assert "'base' was finished with other settings: seed was 0, is 1" in capfd.readouterr().err
    write_experiment(file, tree_for(data, folder / "fsdp2", 4, strategy="fsdp2"))
    assert run_ranks(1, log, fit, file) == [0], said(log, 1)
    assert "stage draw: resumes with the same global batch, divided in another way" in said(log, 1)
    assert "stage draw: resumes after step 2 of 4" in said(log, 1)
    assert_same_losses(alone, run)


@pytest.mark.parametrize(
    ("count", "before", "after"),
    [(2, "fsdp2", "fsdp2"), (1, "fsdp2", "fsdp2"), (2, "fsdp2", "single"), (1, "single", "fsdp2")],
)
def test_another_number_of_processes_takes_up_exactly_what_was_left(
    count: int, before: str, after: str, data: Tree, tmp_path: Path
) -> None:
    tree = tree_for(data, tmp_path, 2, checkpoint_seconds=600)  # the signal saves
    if (before, after) == ("fsdp2", "single"):  # of adapters alone
        tree["stages"][0]["frozen_bits"] = {"language_model": 4}
        tree["stages"][0]["lora"] = {"rank": 2, "alpha": 4, "dropout": 0.1, "targets": ["q_proj", "up_proj"]}
    first, second = (
        write_experiment(
            tmp_path / f"{name}.yaml",
            {
                **tree,
                "trainer": tree["trainer"] | {"strategy": strategy},
                "stages": [stage | {"batch_size": 4 // processes} for stage in tree["stages"]],
            },
        )
        for name, strategy, processes in (("first", before, count), ("second", after, 3 - count))
    )
    left, taken, place = tmp_path / "left.pt", tmp_path / "taken.pt", Place("base", "batch", 2)
    log = tmp_path / "log"
    assert run_ranks(count, log, fit, first, left, place, signal.SIGTERM) == [143] * count, said(log, count)
    assert run_ranks(3 - count, log, fit, second, taken, None, 0, True) == [0] * (3 - count), said(log, 3 - count)
    states, found = torch.load(left), torch.load(taken)
    assert states.keys() == found.keys()
    assert not [name for name, value in states.items() if not torch.equal(value, found[name])]


def fit_with_a_loss_that_is_none(file: Path) -> int:
    """`vargpt fit` where the second process's loss is NaN in the third step."""
    from vargpt_lightning.modules.unified import UnifiedModule

    loss_of = UnifiedModule._loss

    def changed(module: Any, *arguments: Any) -> Any:
        loss = loss_of(module, *arguments)
        return loss * float("nan") if os.environ["RANK"] == "1" and module.global_step == 2 else loss

    UnifiedModule._loss = changed  # type: ignore[method-assign]
    return fit(file)


def test_one_processs_nan_stops_all_and_the_records_of_all_are_kept(data: Tree, tmp_path: Path) -> None:
    file = write_experiment(tmp_path / "nan.yaml", tree_for(data, tmp_path, 2, strategy="fsdp2"))
    assert run_ranks(2, tmp_path / "log", fit_with_a_loss_that_is_none, file) == [2, 2], said(tmp_path / "log", 2)
    assert "stage base, step 3: the loss or the gradient is not finite" in said(tmp_path / "log", 2)
    rows = read_jsonl(tmp_path / "tiny/stages/01-base/nonfinite.jsonl")
    assert [row["process"] for row in rows] == [0, 1]
    assert "nan" in rows[1]["losses"] and "nan" not in rows[0]["losses"] and rows[0]["gradient_norm"] == "nan"
    assert all(len(row["records"]) == 4 for row in rows) and rows[0]["records"] != rows[1]["records"]
    assert [folder.name for folder in complete_folders(tmp_path / "tiny/stages/01-base/last.ckpt")] == [
        "last-00000002.dcp"
    ]


def test_settings_that_mean_nothing_are_named() -> None:
    for settings in ({"checkpointing": "some"}, {"checkpointing": "every_0"}, {"replicas": 0}, {"replicas": "racks"}):
        with pytest.raises(UserError, match=f"trainer.sharding.{next(iter(settings))}="):
            ShardingConfig(**settings)  # type: ignore[arg-type]


@contextmanager
def mesh_of_one() -> Iterator[DeviceMesh]:
    """A group of this process alone."""
    if dist.is_initialized():  # a fit of one process leaves its own
        dist.destroy_process_group()
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    try:
        yield init_device_mesh("cpu", (1,), mesh_dim_names=("shard",))
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("frozen", [False, True])
def test_blocks_that_no_batch_passes_do_not_stop_accumulation_in_mixed_precision(frozen: bool) -> None:
    model = tiny_model()
    model.requires_grad_(False)
    model.language_model.requires_grad_(True)
    model.visual_decoder.requires_grad_(not frozen)
    strategy = BlockSharding(ShardingConfig(), "bf16-mixed")
    ids = torch.arange(7, 27).view(1, 20)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids).bool(), "labels": ids}

    def step(sync: bool) -> None:
        loss = model(batch).text_loss
        strategy._lightning_module = SimpleNamespace(vargpt=model, step_is_covered=True)  # type: ignore[assignment]
        with nullcontext() if sync else strategy.block_backward_sync():
            loss.backward()

    def gradients() -> list[torch.Tensor]:
        return [each.grad.to_local().clone() for each in model.language_model.parameters()]  # type: ignore[union-attr]

    with mesh_of_one() as mesh:
        shard(model, mesh, strategy.config, "bf16-mixed")
        step(sync=False)
        step(sync=True)
        twice = gradients()
        model.zero_grad()
        step(sync=True)
        for one, two in zip(gradients(), twice, strict=True):
            assert torch.allclose(2 * one, two, rtol=1e-3, atol=1e-5)


def test_what_a_validation_has_gathered_is_freed() -> None:
    model = tiny_model().eval()
    ids = torch.arange(7, 27).view(1, 20)
    module = SimpleNamespace(vargpt=model, trainer=SimpleNamespace(strategy=None))
    with mesh_of_one() as mesh:
        shard(model, mesh, ShardingConfig(reshard=False))
        with torch.no_grad():
            model({"input_ids": ids, "attention_mask": torch.ones_like(ids).bool(), "labels": ids})
        assert not all(isinstance(each, DTensor) for each in model.parameters())
        StageModule.free_gathered(module)  # type: ignore[arg-type]
        assert all(isinstance(each, DTensor) for each in model.parameters())


def test_metrics_follow_the_device_where_parameters_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BlockSharding, "root_device", torch.device("meta"))
    strategy = BlockSharding(ShardingConfig(offload=True))
    strategy.model = module = VARGPTModule(tiny_model(), tiny_stage("draw"), 4)
    strategy.model_to_device()
    assert module.means.sums.is_meta and not any(each.is_meta for each in module.parameters())


def test_every_nth_block_is_computed_again() -> None:
    found = {name: [ShardingConfig(name).checkpoints(place) for place in range(4)] for name in ("full", "every_2")}
    assert found == {"full": [True] * 4, "every_2": [False, True, False, True]}
    assert not any(ShardingConfig().checkpoints(place) for place in range(4))
