"""docs/samplers.md: every part with its arguments, and the package of its last section, drawn with."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from tests.installed import install, on_the_path
from tests.models.parts.drawing import plain, steered, tiny
from vargpt_lightning.models.parts import get, names

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "samplers.md").read_text("utf-8")


@pytest.mark.parametrize("name", names())
def test_every_part_has_a_row_with_its_arguments(name: str) -> None:
    rows = re.findall(rf"^\| `{name}` \|.*$", PAGE, re.MULTILINE)
    assert len(rows) == 1
    arguments = {entry.name for entry in fields(get(name).PART)}  # type: ignore[arg-type]
    assert arguments <= set(re.findall(r"`(\w+)`", rows[0]))


def test_the_page_s_own_part_is_found_and_drawn_with(tmp_path: Path) -> None:
    python, toml = (re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)[-1] for kind in ("python", "toml"))
    project = f'[project]\nname = "my-package"\nversion = "1.0"\n{toml}'
    install(tmp_path, project, {"my_package/__init__.py": "", "my_package/sharper.py": python})
    model = tiny()
    with on_the_path(tmp_path):
        assert names()[-1] == "sharper"
        found = steered(model, {"sharper": {"start": 1, "factor": 2.0}}, greedy=True).drawing
    without = plain(model, greedy=True)
    assert found.logits_BLV is not None and without.logits_BLV is not None
    assert torch.equal(found.logits_BLV, without.logits_BLV * torch.tensor([1.0] + [2.0] * 29)[:, None])
