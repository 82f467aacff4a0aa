"""The real command in a sweep: what trials have in common is trained once, and what differs in sampling not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tiny import assert_same_weights, write_experiment
from vargpt_lightning.cli import main
from vargpt_lightning.runs.folder import RunFolder


def taken(run: Path) -> dict[str, bool]:
    """Whether each stage was reused."""
    return {stage.name: "taken_from" in stage.record for stage in RunFolder(run).stages()}


def test_runs_share_the_stages_that_they_have_in_common(
    tiny_experiment: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(__file__).resolve().parents[2]
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.chdir(tmp_path)
    write_experiment(tmp_path / "tiny.yaml", tiny_experiment)
    assert main(["fit", "-c", "tiny.yaml", "--run.name", "first"]) == 0
    other = ["--run.name", "second", "--run.reuse", "[runs]", "--sampling.cfg", "3"]
    assert main(["fit", "-c", "tiny.yaml", *other]) == 0
    assert set(taken(tmp_path / "runs/second").values()) == {True}, "what differs in sampling trains nothing"
    assert RunFolder(tmp_path / "runs/second").record["durations"] == {}
    assert_same_weights(tmp_path / "runs/first", tmp_path / "runs/second")
    variants = {"few": {"stages.draw.steps": 2, "stages.draw.records": 3}}
    sweep = {"base": "tiny.yaml", "variants": variants, "reuse": ["runs"], "measure": ["stages.draw.train/image_loss"]}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(sweep, sort_keys=False))
    assert main(["sweep", "s.yaml"]) == 0
    assert taken(tmp_path / "sweeps/s/trials/few-seed0") == {"tokenizer": True, "base": True, "draw": False}
