"""The real command in a sweep: what trials have in common is trained once, and what differs in sampling not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tiny import write_experiment
from vargpt_lightning.cli import main
from vargpt_lightning.results import RunFolder


def test_trials_share_the_stages_that_they_have_in_common(
    tiny_experiment: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(__file__).resolve().parents[2]
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.chdir(tmp_path)
    write_experiment(tmp_path / "tiny.yaml", tiny_experiment)
    variants = {
        "base": {},
        "sampling": {"sampling.cfg": 3.0},
        "generation": {"stages.draw.steps": 2, "stages.draw.records": 3},
    }
    sweep = {"base": "tiny.yaml", "variants": variants, "measure": ["stages.draw.train/image_loss", "seconds"]}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(sweep, sort_keys=False))
    assert main(["sweep", "s.yaml"]) == 0

    def taken(name: str) -> dict[str, bool]:
        return {
            stage.name: "taken_from" in stage.record
            for stage in RunFolder(tmp_path / "sweeps/s/trials" / name).stages()
        }

    assert taken("base-seed0") == {"tokenizer": False, "base": False, "draw": False}
    assert taken("sampling-seed0") == {"tokenizer": True, "base": True, "draw": True}
    assert taken("generation-seed0") == {"tokenizer": True, "base": True, "draw": False}
    assert RunFolder(tmp_path / "sweeps/s/trials/sampling-seed0").record["durations"] == {}
