"""A sweep file's mistakes are told by key, value and what was expected; its cells are all there, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from vargpt_lightning.sweep.spec import Sweep, guess_best, parse_sweep
from vargpt_lightning.utils.errors import UserError


def parse(tmp_path: Path, **keys: Any) -> Sweep:
    (tmp_path / "base.yaml").write_text("seed: 1\n")
    (tmp_path / "other.yaml").write_text("seed: 1\n")
    return parse_sweep({"base": "base.yaml", "measure": ["kid"], **keys}, tmp_path / "s.yaml")


def test_the_cells_are_all_combinations_and_the_seeds_vary_fastest(tmp_path: Path) -> None:
    variants = {"all": None, "less": {"a.b": 1}}
    sweep = parse(tmp_path, base=["base.yaml", "other.yaml"], variants=variants, grid={"x.y": [1, 2]}, seeds=3)
    points = sweep.points()
    assert len(points) == 2 * 2 * 2 * 3
    assert [seed for _, seed in points[:4]] == [0, 1, 2, 0]
    assert points[0][0] == {"base": "base", "variant": "all", "x.y": 1}
    assert len({(str(values), seed) for values, seed in points}) == 24


def test_a_sweep_of_one_base_and_nothing_else_has_a_cell_a_seed(tmp_path: Path) -> None:
    assert parse(tmp_path, seeds=[4, 5]).points() == [({}, 4), ({}, 5)]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"gird": {}}, "gird={}; expected a key among"),
        ({"base": "none.yaml"}, "base='none.yaml'; expected an experiment file beside"),
        ({"measure": []}, "measure=.*at least one metric"),
        ({"measure": {"kid": "low"}}, "measure.kid='low'; expected max or min"),
        ({"grid": {"a": 1}}, "grid.a=1; expected a list"),
        ({"grid": {"a": [1, 1]}}, "each value once"),
        ({"grid": {"seed": [1]}}, "seed=.*`seeds` sets"),
        ({"grid": {"run.root": ["x"]}}, "run.root=.*its own"),
        ({"seeds": [1, 1]}, "seeds="),
        ({"seeds": [True]}, "seeds="),
        ({"seeds": 0}, "seeds="),
        ({"keep": "some"}, "keep='some'; expected one of all, best, figures"),
        ({"name": "a/b"}, "name='a/b'"),
        ({"space": {"a": {"low": 1}}, "trials": 2}, "space.a="),
        ({"space": {"a": {"low": 2, "high": 1}}, "trials": 2}, "low below high"),
        ({"space": {"a": {"low": "1e-4", "high": 1}}, "trials": 2}, "write 1.0e-4"),
        ({"space": {"a": {"low": 1, "high": 2}}}, "trials=0"),
        ({"space": {"a": {"low": 1, "high": 2}}, "trials": 2, "grid": {"b": [1]}}, "no grid"),
        ({"space": {"a": {"low": 1, "high": 2}}, "trials": 2, "seeds": 2}, "one seed"),
        ({"trials": 3}, "trials=3"),
        ({"prune": {"stage": "x"}}, "prune=.*stage and metric"),
    ],
)
def test_a_mistake_is_told(tmp_path: Path, keys: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse(tmp_path, **keys)


def test_what_is_best_is_guessed_from_the_name_and_can_be_said(tmp_path: Path) -> None:
    assert [guess_best(path) for path in ("identification_1", "kid", "drawings.train.kid_x1000", "seconds")] == [
        "max", "min", "min", "min"
    ]  # fmt: skip
    assert guess_best("stages.base.val/loss:min") == "min" and guess_best("stages.base.train/image_loss") == "min"
    sweep = parse(tmp_path, measure={"kid": "max", "good": {"path": "x.y", "best": "min"}})
    assert [(m.name, m.path, m.best) for m in sweep.measures] == [("kid", "kid", "max"), ("good", "x.y", "min")]


def test_seeds_may_be_those_of_the_evaluation(tmp_path: Path) -> None:
    sweep = parse(tmp_path, seeds={"key": "evaluation.seed", "values": [3, 4]})
    assert (sweep.seed_key, sweep.seeds) == ("evaluation.seed", (3, 4))


def test_the_shipped_sweeps_can_be_read() -> None:
    folder = Path(__file__).resolve().parents[2] / "experiments" / "sweeps"
    for file in folder.glob("*.yaml"):
        sweep = parse_sweep(yaml.safe_load(file.read_text()), file)
        assert sweep.name == file.stem and sweep.points()
        assert file.read_text().startswith(f"# vargpt sweep experiments/sweeps/{file.name}")
