"""Benchmarks at the end of a stage: once, with the weights it ends with, and without a trace in training."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from tests.commands.test_evaluate_benchmarks import write_benchmarks
from tests.evaluation import squares
from tests.evaluation.squares import Painter
from tests.tiny import write_experiment
from vargpt_lightning.callbacks.benchmarks import StageBenchmarks
from vargpt_lightning.callbacks.ema import EMA
from vargpt_lightning.callbacks.graceful_stop import GracefulStop
from vargpt_lightning.callbacks.metrics_log import MetricsLog
from vargpt_lightning.cli import main
from vargpt_lightning.evaluation.harness.outputs import read_rows
from vargpt_lightning.evaluation.harness.run import BenchmarkSettings
from vargpt_lightning.runs.folder import RunFolder, StageFolder
from vargpt_lightning.utils.errors import UserError


class Watched(Painter):
    """Notes in which state the module is while it answers."""

    module: Any = None

    def answer(self, requests: Any) -> Any:
        torch.rand(7)
        if self.module is not None:
            training = any(part.training for part in self.module.modules())
            self.seen = (torch.is_grad_enabled(), training, self.module.trained.weight.clone())
        return super().answer(requests)


@pytest.fixture
def folder(tmp_path: Path) -> StageFolder:
    return StageFolder(tmp_path / "02-base")


@pytest.fixture
def callback(folder: StageFolder, tmp_path: Path) -> Callable[..., StageBenchmarks]:
    data = squares.write_data(tmp_path / "data")

    def make(system: Any = None, **settings: Any) -> StageBenchmarks:
        system = system or Painter()
        return StageBenchmarks(folder, lambda: system, {squares.this(): data}, BenchmarkSettings(**settings))

    return make


def test_figures_are_logged_and_files_kept(folder: StageFolder, callback: Any, make_trainer: Any, make_loader: Any,
                                           tiny: Any) -> None:  # fmt: skip
    system = Painter()
    trainer = make_trainer([callback(system, limit=8)], max_steps=5, logger=MetricsLog(folder))
    trainer.fit(tiny(), make_loader())
    rows = {row.name: (row.step, row.value) for row in folder.metrics() if row.name.startswith("benchmark/")}
    assert rows["benchmark/squares/accuracy"] == (5, 0.5)
    assert set(rows) == {f"benchmark/squares/{name}" for name in ("accuracy", "low", "high")}
    result = json.loads((folder.path / "benchmarks/squares/result.lmms_eval.json").read_text())
    assert (result["limit"], result["figures"]["n"]) == (8, 8.0) and len(system.asked) == 8
    assert folder.record["benchmarks"]["benchmark/squares/accuracy"] == 0.5 and folder.record["benchmark_seconds"] > 0


def test_several_protocols_are_told_apart(folder: StageFolder, callback: Any, make_trainer: Any, make_loader: Any,
                                          tiny: Any) -> None:  # fmt: skip
    both = callback(protocols=("lmms_eval", "lenient"))
    make_trainer([both], max_steps=1, logger=MetricsLog(folder)).fit(tiny(), make_loader())
    rows = {row.name: row.value for row in folder.metrics()}
    assert rows["benchmark/squares/lmms_eval/accuracy"] == 0.5 and rows["benchmark/squares/lenient/accuracy"] == 1.0


def test_the_averaged_weights_answer_in_evaluation_mode(callback: Any, make_trainer: Any, make_loader: Any,
                                                        tiny: Any) -> None:  # fmt: skip
    system = Watched()
    system.module = module = tiny()
    average = EMA(0.5)
    make_trainer([callback(system), average], max_steps=4).fit(module, make_loader())
    gradients, training, weights = system.seen
    assert not gradients and not training
    assert torch.equal(weights, average.averages["trained.weight"]) and torch.equal(weights, module.trained.weight)


def test_training_is_left_as_it_was(callback: Any, make_trainer: Any, make_loader: Any, tiny: Any) -> None:
    states = []
    for callbacks in ([], [callback(Watched())]):
        module = tiny()
        torch.manual_seed(3)
        make_trainer(callbacks, max_steps=3).fit(module, make_loader())
        states.append((torch.rand(3), [part.training for part in module.modules()]))
    assert torch.equal(states[0][0], states[1][0]) and states[0][1] == states[1][1]


def test_a_stopped_fit_asks_nothing(callback: Any, make_trainer: Any, make_loader: Any, tiny: Any) -> None:
    class Signal(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
            if trainer.global_step == 1:
                signal.raise_signal(signal.SIGTERM)

    system = Painter()
    make_trainer([Signal(), GracefulStop(), callback(system)], max_steps=5).fit(tiny(), make_loader())
    assert system.asked == []


def test_weights_in_shards_are_refused(callback: Any, tiny: Any) -> None:
    from lightning.pytorch.strategies import ModelParallelStrategy

    class Sharded:
        strategy, world_size = ModelParallelStrategy(), 2

    with pytest.raises(UserError, match="ModelParallelStrategy shards the weights"):
        callback().setup(Sharded(), tiny(), "fit")


# ------------------------------------------------------------------------------------------------ through `vargpt fit`


@pytest.fixture
def experiment(tiny_experiment: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    data = write_benchmarks(tmp_path / "benchmarks")
    tiny_experiment["evaluation"]["benchmarks"] = {
        "names": ["pope"], "data": str(data), "limit": 4, "style": "plain", "stages": ["base"],
    }  # fmt: skip
    return tiny_experiment


def fit(tree: dict[str, Any], tmp_path: Path) -> int:
    return main(["fit", "-c", str(write_experiment(tmp_path / "tiny.yaml", tree))])


def test_an_experiment_asks_at_the_end_of_its_stages(experiment: dict[str, Any], tmp_path: Path) -> None:
    del experiment["stages"][2]
    assert fit(experiment, tmp_path) == 0
    run = RunFolder(tmp_path / "runs/tiny")
    tokenizer, base = run.stages()
    assert not (tokenizer.path / "benchmarks").exists()
    result = json.loads((base.path / "benchmarks/pope/result.lmms_eval.json").read_text())
    assert (result["model"], result["limit"], result["asked"]) == ("tiny/base", 4, 4)
    assert len(list(read_rows(base.path / "benchmarks/pope/scores.lmms_eval.jsonl"))) == 4
    assert {row.step for row in base.metrics() if row.name == "benchmark/pope/accuracy"} == {6}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"names": ["poppe"]}, "did you mean 'pope'"),
        (
            {"stages": ["first"]},
            "evaluation.benchmarks.stages: 'first' is not a stage; there are tokenizer, base, draw",
        ),
        ({"data": None}, "evaluation.benchmarks.data: nothing given"),
        ({"limit": 0}, "evaluation.benchmarks.limit=0; expected a whole number from 1"),
        ({"protocol": "strict"}, "protocol: 'strict'"),
        ({"style": "dutch"}, "dutch"),
        ({"names": ["pope", "gqa"]}, "expected a folder named gqa; there is mme, pope"),
        ({"size": 3}, "evaluation.benchmarks.size"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(
    changes: dict[str, Any], said: str, experiment: dict[str, Any], tmp_path: Path, capsys: Any
) -> None:
    experiment["evaluation"]["benchmarks"] |= changes
    assert fit(experiment, tmp_path) == 2
    message = capsys.readouterr().err
    assert said in message and "Traceback" not in message
    assert message.count("vargpt: error: ") == 1 and message.splitlines()[-1].startswith("vargpt: error: ")
    assert not list((tmp_path / "runs").glob("*/stages/*/metrics.csv"))
