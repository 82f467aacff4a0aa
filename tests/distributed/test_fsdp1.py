"""Lightning's FSDP (FSDP1) on two processes trains as one process does, is stopped, killed and goes on."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.test_strategies import assert_same_losses, fit, tree_for
from tests.ends import Place
from tests.ranks import run_ranks, said
from tests.tiny import write_corpora, write_experiment
from vargpt_lightning.cli import main
from vargpt_lightning.distributed.strategies import build_strategy
from vargpt_lightning.recipe.sharding import ShardingConfig
from vargpt_lightning.utils.errors import UserError


def flat_tree(data: dict[str, Any], root: Path, batch: int, strategy: str) -> dict[str, Any]:
    tree = tree_for(data, root, batch, strategy=strategy)
    del tree["stages"][1]["frozen_bits"]
    tree["stages"][1]["optimizer"]["name"] = "adamw"
    tree["stages"][1]["accumulate"] = 2
    tree["trainer"] |= {"validate": 2, "validation_batches": 1}
    return tree


def test_two_processes_with_flat_shards_train_as_one_whatever_ends_them(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = write_corpora(tmp_path / "data")
    alone = write_experiment(tmp_path / "alone.yaml", flat_tree(data, tmp_path / "alone", 4, "single"))
    assert main(["fit", "-c", str(alone)]) == 0
    file = write_experiment(tmp_path / "fsdp.yaml", flat_tree(data, tmp_path / "fsdp", 2, "fsdp"))
    log = tmp_path / "log"
    stopped = run_ranks(2, log, fit, file, None, Place("base", "batch", 2), signal.SIGTERM)
    assert stopped == [143, 143], said(log, 2)
    killed = run_ranks(2, log, fit, file, None, Place("draw", "batch", 2), signal.SIGKILL, seconds=60)
    assert killed == [2, -signal.SIGKILL], said(log, 2)
    assert "stage base: resumes after step 3 of 6" in said(log, 2)
    # a process with whole weights takes up what they have left, with the same batch of a step
    write_experiment(file, flat_tree(data, tmp_path / "fsdp", 4, "single"))
    assert main(["fit", "-c", str(file)]) == 0
    assert "stage draw: resumes after step 2 of 4" in capfd.readouterr().out
    assert_same_losses(tmp_path / "alone/tiny", tmp_path / "fsdp/tiny")


def test_what_flat_shards_cannot_do_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for settings in ({"offload": True}, {"replicas": 2}):
        with pytest.raises(UserError, match=f"trainer.sharding.{next(iter(settings))}=.* or trainer.strategy=fsdp2"):
            build_strategy("fsdp", ShardingConfig(**settings), "32-true")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"trainer\.precision=16-mixed with fsdp; expected 32-true or bf16-mixed"):
        build_strategy("fsdp", ShardingConfig(), "16-mixed")
    with pytest.raises(UserError, match=r"trainer\.strategy=fsdp_cpu_offload; expected fsdp, or fsdp2"):
        build_strategy("fsdp_cpu_offload", ShardingConfig(), "32-true")
    data = write_corpora(tmp_path / "data")
    changes: list[tuple[dict[str, Any], str]] = [
        ({"optimizer": {"name": "muon"}}, "stages.draw.optimizer.name=muon with trainer.strategy=fsdp"),
        ({"frozen_bits": {"language_model": 4}}, "stages.draw.frozen_bits with trainer.strategy='fsdp'"),
    ]
    for change, message in changes:
        tree = flat_tree(data, tmp_path, 2, "fsdp")
        tree["stages"][1] |= change
        assert main(["fit", "-c", str(write_experiment(tmp_path / "refused.yaml", tree))]) == 2
        assert message in capsys.readouterr().err
