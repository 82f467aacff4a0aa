"""What a cell's experiment file says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from vargpt_lightning.sweep.cells import Cell, make_cell, write_cell
from vargpt_lightning.sweep.spec import parse_sweep
from vargpt_lightning.utils.errors import UserError


@pytest.fixture
def cell(sweep_file: Callable[..., Path]) -> Callable[..., Cell]:
    def make(changes: dict[str, Any], seed: int = 0, **keys: Any) -> Cell:
        file = sweep_file(variants={"v": changes}, **keys)
        return make_cell(parse_sweep(yaml.safe_load(file.read_text()), file), {"variant": "v"}, seed)

    return make


def test_stages_are_changed_by_name_and_left_out(cell: Callable[..., Cell]) -> None:
    stages = cell({"stages.two.steps": 9, "stages.one": None}).tree["stages"]
    assert stages == [{"name": "two", "steps": 9, "train": ["x"]}], "steps take the place of epochs"
    assert "stages" not in cell({"a.b": 1}).tree
    added = cell({"stages.late.steps": 5}, base={"stages+": [{"name": "late", "steps": 1}]}).tree["stages"]
    assert [stage["name"] for stage in added] == ["one", "two", "late"] and added[-1]["steps"] == 5


def test_dotted_keys_become_a_tree_and_data_keep_their_class(cell: Callable[..., Cell]) -> None:
    tree = cell({"model.decoder.depth": 3, "model.decoder.heads": 2, "data.init_args.b": 2}, seed=7).tree
    assert tree["model"] == {"decoder": {"depth": 3, "heads": 2}} and tree["seed"] == 7
    assert tree["data"] == {"class_path": "Some", "init_args": {"b": 2}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stages.three.steps": 1}, "stages.three.steps: the base has no stage 'three'; there are one, two"),
        ({"stages.one": 4}, "expected null"),
        ({"a": 1, "a.b": 2}, "a.b: a is 1 and has no keys"),
    ],
)
def test_a_change_that_has_no_place_is_told(cell: Callable[..., Cell], changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        cell(changes)


def test_the_key_is_that_of_the_content(cell: Callable[..., Cell]) -> None:
    first = cell({"a": 1})
    assert cell({"a": 1}).key == first.key
    assert cell({"a": 1}, seed=1).key != first.key and cell({"a": 2}).key != first.key
    assert cell({"a": 1}, overrides={"b": 1}).key != first.key
    assert cell({"a": 1}, base={"model": {"width": 3}}).key != first.key
    assert cell({"a": 1}, base={"run": {"name": "else"}}).key == first.key


def test_the_file_stands_by_itself(cell: Callable[..., Cell], tmp_path: Path) -> None:
    """Its base may change before the trial is run, or be on another machine."""
    write_cell(cell({"a": 1}, base={"model": {"width": 3}}), tmp_path / "there" / "x.yaml", "title")
    (tmp_path / "base.yaml").unlink()
    tree = yaml.safe_load((tmp_path / "there" / "x.yaml").read_text())
    assert tree["a"] == 1
    assert yaml.safe_load((tmp_path / "there" / tree["base"]).read_text())["model"] == {"width": 3}


def test_the_slug_is_short_and_a_folders_name(sweep_file: Callable[..., Path]) -> None:
    file = sweep_file(grid={"sampling.cfg": [1.5], "x.path": ["a/b c"], "y.long": ["z" * 99]})
    sweep = parse_sweep(yaml.safe_load(file.read_text()), file)
    values, seed = sweep.points()[0]
    assert make_cell(sweep, {"sampling.cfg": 1.5, "x.path": "a/b c"}, seed).slug == "cfg1.5-patha_b_c-seed0"
    assert len(make_cell(sweep, values, seed).slug) <= 80
