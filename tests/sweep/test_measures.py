"""Figures read from run folders: of the right protocol, and numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.sweep.measures import read_measure
from vargpt_lightning.utils.errors import UserError

VALUES = {"lenient": 1900.0, "lmms_eval": 1000.0, "official": 1200.0}


def made(folder: Path, *protocols: str, asked: str | None = None) -> RunFolder:
    """A run with results of a benchmark by some protocols; `asked` is its experiment's."""
    config = "" if asked is None else f"evaluation: {{benchmarks: {{protocol: {asked}}}}}"
    run = RunFolder.start(folder / "run", config_text=config)
    (run.path / "benchmarks" / "mme").mkdir(parents=True)
    for protocol in protocols:
        result = {"headline": "perception", "scale": 1, "figures": {"perception": VALUES[protocol], "cognition": 5.0}}
        (run.path / "benchmarks" / "mme" / f"result.{protocol}.json").write_text(json.dumps(result))
    return run


def test_a_benchmarks_figure_is_of_the_experiments_protocol(tmp_path: Path) -> None:
    assert read_measure(made(tmp_path / "a", *VALUES), "benchmarks.mme") == 1000.0
    assert read_measure(made(tmp_path / "b", *VALUES, asked="official"), "benchmarks.mme.perception") == 1200.0


def test_another_protocol_is_read_when_it_is_named(tmp_path: Path) -> None:
    run = made(tmp_path, *VALUES)
    assert read_measure(run, "benchmarks.mme.lenient") == 1900.0
    assert read_measure(run, "benchmarks.mme.official.cognition") == 5.0


def test_a_result_of_another_protocol_alone_is_not_taken(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"benchmarks\.mme: .*there are benchmarks\.mme\.lenient"):
        read_measure(made(tmp_path, "lenient"), "benchmarks.mme")


def test_what_is_no_number_is_named(tmp_path: Path) -> None:
    run = made(tmp_path)
    stage = run.stage(1, "one")
    stage.log(1, {"loss": float("nan"), "fine": 1.0})
    with pytest.raises(UserError, match=r"stages\.one\.loss=nan; expected a finite number"):
        read_measure(run, "stages.one.loss")
    assert read_measure(run, "stages.one.fine:min") == 1.0
