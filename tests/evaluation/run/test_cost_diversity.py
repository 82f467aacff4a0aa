"""What drawings take, and how much those of one request differ."""

from __future__ import annotations

from mmap import mmap

import pytest
from PIL import Image

from tests.evaluation.conftest import Fake, colour_features
from vargpt_lightning.evaluation.run.cost import BatchCost
from vargpt_lightning.evaluation.run.diversity import diversity
from vargpt_lightning.evaluation.run.runner import AGAIN, REPEATED, EvaluationSettings, evaluate, repeated
from vargpt_lightning.utils.files import read_json, read_jsonl


def test_requests_are_drawn_again_with_other_seeds(world, tmp_path) -> None:
    fake = Fake()
    metrics = evaluate(fake, fake, repeats=2, settings=EvaluationSettings(draw_batch=5), **world.arguments(tmp_path))
    rows = read_jsonl(tmp_path / "repeats.jsonl")
    assert [row["of"] for row in rows][:2] == ["draw red"] * 2 and len(rows) == 16
    seeds = {(row["prompt"], row["seed"]) for row in rows} | {(each.prompt, each.seed) for each in world.drawings}
    assert len(seeds) == 24
    found = metrics["diversity"]
    assert (found["requests"], found["drawings"]) == (7, 21), "for teal it draws nothing"
    assert abs(found["distance"]) < 1e-6 < found["between"], "it draws one picture for each request"
    assert metrics["drawings"]["train"]["prompts"] == 6 and metrics["complete"], "repeats are no more requests"


def test_the_distance_is_that_of_all_pairs(tmp_path) -> None:
    rows = []
    for place, colour in enumerate(("#ff0000", "#00ff00", "#ff0000")):
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{place}.png")
        rows.append({"id": f"a{AGAIN}{place}" if place else "a", "of": "a", "files": [f"{place}.png"]})
    found = diversity(tmp_path, rows[:1], rows[1:], colour_features)
    assert found == {"requests": 1, "drawings": 3, "distance": pytest.approx(2 / 3), "between": None} | {
        key: found[key] for key in ("low", "high")
    }
    assert diversity(tmp_path, rows[:1], [], colour_features) == {}


def test_many_requests_are_drawn_again_in_part_and_spread(world) -> None:
    many = [world.drawings[0].__class__(f"d{n}", "Draw red", n) for n in range(200)]
    again = repeated(many, 3)
    assert len(again) == 3 * REPEATED and again[0].id == f"d0{AGAIN}1" and again[-1].id == f"d196{AGAIN}3"


def test_seconds_and_memory_are_of_a_single_drawing(world, tmp_path) -> None:
    with BatchCost() as cost:
        held = mmap(-1, 64 * 2**20)  # fresh pages: what an allocator has kept from before would not be counted
        for _ in range(64):
            held.write(bytes([1]) * 2**20)
    held.close()
    rows = cost.rows(["a", "b"])
    assert [row["id"] for row in rows] == ["a", "b"] and rows[0]["seconds"] == cost.seconds / 2 > 0
    assert cost.memory is None or 60e6 < cost.memory < 200e6
    fake = Fake()
    evaluate(fake, fake, **world.arguments(tmp_path))
    found = read_json(tmp_path / "cost.json")
    assert found["pictures"] == 8 and 0 < found["low"] <= found["seconds"] <= found["high"]
