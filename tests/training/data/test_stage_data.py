"""The data of a stage: the same batches wherever training begins, caches where networks are frozen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import tiny_stage
from tests.tiny_training import tiny_model, tiny_stage_data
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.training.data import features as subject
from vargpt_lightning.training.data.stage_data import StageData
from vargpt_lightning.utils.errors import UserError

MIXED = Stage("mixed", ["language_model"], {"questions": 2.0, "drawings": 1.0}, steps=12, batch_size=2)


def ids(batches: Any) -> list[list[str]]:
    return [[record.id for record in batch["rows"].records] for batch in batches]


def same(one: Any, two: Any) -> bool:
    tensors = [{name: value for name, value in each.items() if isinstance(value, torch.Tensor)} for each in (one, two)]
    return tensors[0].keys() == tensors[1].keys() and all(
        torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0]
    )


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_loader_that_starts_later_goes_on_exactly(
    accumulate: int, workers: int, tiny_data: dict[str, Any], tmp_path: Path
) -> None:
    data = tiny_stage_data(tiny_data, tmp_path, workers=workers)
    stage = Stage("mixed", ["language_model"], MIXED.data, steps=6, batch_size=2, accumulate=accumulate)
    data.prepare(tiny_model(), stage)
    whole = list(data.train_loader(stage, 6, 0))
    assert len(whole) == 6 * accumulate
    rest = list(data.train_loader(stage, 6, 4))
    assert len(rest) == 2 * accumulate
    assert all(map(same, whole[4 * accumulate :], rest))
    assert ids(whole[4 * accumulate :]) == ids(rest)


COUNTED = {"mixture": "counts", "data": {"questions": 21.0, "drawings": 5.0}}


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 1), (1, 0)])
def test_a_mixture_by_counts_goes_on_with_any_number_of_workers(
    before: int, after: int, tiny_data: dict[str, Any], tmp_path: Path
) -> None:
    """What was read ahead when a run was killed is neither lost nor had twice."""
    stage = Stage("counted", ["language_model"], epochs=2, steps=None, batch_size=2, accumulate=2, **COUNTED)
    found = []
    for workers, start in ((before, 0), (after, 5)):
        data = tiny_stage_data(tiny_data, tmp_path, workers=workers, prefetch=3)
        data.prepare(tiny_model(), stage)
        total = data.order.total_steps(stage)
        assert total == 13, "two epochs of 26 in steps of 4, their last one filled up"
        batches = iter(data.train_loader(stage, total, start))
        found.append(list(batches))
    assert len(found[0]) == 26 and len(found[1]) == 16
    assert all(map(same, found[0][10:], found[1])) and ids(found[0][10:]) == ids(found[1])


def test_how_often_records_come_is_told(stage_data: StageData) -> None:
    stage = Stage("counted", ["language_model"], epochs=2, batch_size=13, **COUNTED)
    told = stage_data.order.repeats(stage, stage_data.order.total_steps(stage))
    # 42 and 10 samples, filled up to whole batches of one kind
    assert told == {
        "questions": {"records": 9, "samples": 52, "times": 5.778},
        "drawings": {"records": 9, "samples": 13, "times": 1.444},
    }
    ranks = [ids(stage_data.train_loader(stage, 2, 0, rank, 3)) for rank in range(3)]
    drawn = sum(name.endswith("-d") for batches in ranks for batch in batches for name in batch)
    assert stage_data.order.repeats(stage, 2, 3)["drawings"]["samples"] == drawn


@pytest.mark.parametrize("key", ["workers", "prefetch", "shuffle_shards"])
def test_settings_of_reading_are_checked(key: str, tiny_data: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"data.{key}=-1; expected a whole number from [01] "):
        tiny_stage_data(tiny_data, tmp_path, **{key: -1})


def test_another_seed_gives_another_order(tiny_data: dict[str, Any], tmp_path: Path) -> None:
    orders = []
    for seed in (0, 0, 1):
        data = replace(tiny_stage_data(tiny_data, tmp_path), seed=seed)
        orders.append(ids(data.train_loader(MIXED, 12, 0)))
    assert orders[0] == orders[1] != orders[2]


def test_ranks_share_the_batches(stage_data: StageData) -> None:
    whole = ids(
        stage_data.train_loader(Stage("one", ["language_model"], {"questions": 1.0}, steps=4, batch_size=4), 4, 0)
    )
    halves = Stage("one", ["language_model"], {"questions": 1.0}, steps=4, batch_size=2)
    ranks = [ids(stage_data.train_loader(halves, 4, 0, rank, 2)) for rank in (0, 1)]
    assert [one + two for one, two in zip(*ranks, strict=True)] == whole


def test_batches_hold_records_of_one_kind(stage_data: StageData) -> None:
    """Drawn pictures make rows long; text beside them would be mostly padding."""
    stage_data.prepare(tiny_model(), MIXED)
    kinds = [{record.rpartition("-")[2] for record in batch} for batch in ids(stage_data.train_loader(MIXED, 12, 0))]
    assert all(len(kind) == 1 for kind in kinds)
    assert sum(kind == {"q"} for kind in kinds) == 8


def test_caches_hold_what_the_networks_give(stage_data: StageData) -> None:
    model = tiny_model()
    stage_data.prepare(model, MIXED)
    cached = list(stage_data.train_loader(MIXED, 12, 0))
    stage_data.corpora.cache_features = False
    stage_data.prepare(model, MIXED)
    plain = [stage_data.scaled(batch) for batch in stage_data.train_loader(MIXED, 12, 0)]
    assert ids(cached) == ids(plain)
    for one, two in zip(cached, plain, strict=True):
        if "pixel_values" in two:
            torch.testing.assert_close(one["vision_features"], model.see(two["pixel_values"]).detach())
        else:
            assert torch.equal(one["drawn_indices"], model.image_tokenizer.eval().encode(two["drawn_pixels"]))


def test_pictures_travel_as_bytes_and_arrive_as_the_reader_gives_them(stage_data: StageData) -> None:
    stage_data.corpora.cache_features = False
    stage_data.prepare(tiny_model(), MIXED)
    records = {record.id: record for source in stage_data.sources("train").values() for record in source}
    for batch in stage_data.train_loader(MIXED, 4, 0):
        name = "pixel_values" if "pixel_values" in batch else "drawn_pixels"
        reader = stage_data._seen.reader() if name == "pixel_values" else stage_data._tokens.reader
        parts = [part for row in batch["rows"].records for part in records[row.id].pictures()]
        assert batch[name].dtype == torch.uint8 and batch[name].shape[-1] == 3
        assert torch.equal(
            stage_data.scaled(batch)[name], torch.stack([reader.read(part.data, part.key) for part in parts])
        )


def test_indices_follow_the_tokenizers_weights(stage_data: StageData) -> None:
    draw = tiny_stage("draw")
    found = []
    for seed in (0, 1, 0):
        stage_data.prepare(tiny_model(seed), draw)
        found.append([batch["drawn_indices"] for batch in stage_data.train_loader(draw, 4, 0)])
    assert all(map(torch.equal, found[0], found[2])) and not all(map(torch.equal, found[0], found[1]))
    assert len(list(stage_data.cache.glob("visual_tokens/train-drawings/*/index.json"))) == 2


def test_what_a_stage_trains_is_not_cached(stage_data: StageData) -> None:
    stage_data.prepare(tiny_model(), tiny_stage("draw"))
    stage_data.prepare(tiny_model(), tiny_stage("tokenizer"))
    assert "drawn_pixels" in next(iter(stage_data.train_loader(tiny_stage("tokenizer"), 1, 0)))
    tower = Stage("tower", ["vision_tower"], {"questions": 1.0}, steps=1)
    stage_data.prepare(tiny_model(), tower)
    assert "pixel_values" in next(iter(stage_data.train_loader(tower, 1, 0)))
    questions = Stage("text", ["language_model"], {"questions": 1.0}, steps=1)
    stage_data.prepare(tiny_model(), questions)
    assert "vision_features" in next(iter(stage_data.train_loader(questions, 1, 0)))


def test_features_are_computed_once_for_all_runs(
    tiny_data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VARGPT_CACHE", str(tmp_path / "shared"))
    calls: list[int] = []
    see = VARGPT.see
    monkeypatch.setattr(VARGPT, "see", lambda model, x: calls.append(len(x)) or see(model, x))
    for name in ("one", "two"):
        tiny_stage_data(tiny_data, tmp_path / name).prepare(tiny_model(), MIXED)
    assert sum(calls) == 12, "once for each picture, held-out ones too"


def test_pictures_are_read_once(stage_data: StageData, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    pictures_of = subject.pictures_of
    monkeypatch.setattr(subject, "pictures_of", lambda source, use: calls.append(use) or pictures_of(source, use))
    for seed in (0, 1, 2):
        stage_data.prepare(tiny_model(seed), tiny_stage("draw"))
    assert calls == [], "a stage that only draws needs no features"
    for seed in (0, 1, 2):
        stage_data.prepare(tiny_model(seed), MIXED)
    assert calls.count("seen") == 2, "of the corpus that has some, for training and validation"


def test_validation_is_always_the_same_and_of_held_out_records(stage_data: StageData) -> None:
    stage_data.prepare(tiny_model(), MIXED)
    loaders = [stage_data.validation_loader(MIXED, 3) for _ in range(2)]
    assert loaders[0] is not None and loaders[1] is not None
    assert ids(loaders[0]) == ids(loaders[1]) == ids(loaders[0])
    stage_data.seed = 1
    another = stage_data.validation_loader(MIXED, 3)
    assert another is not None and ids(another) == ids(loaders[0]), "runs of other seeds are compared by it"
    held_out = {record.id for source in stage_data.sources("val").values() for record in source}
    assert {name for batch in ids(loaders[0]) for name in batch} <= held_out
    assert len(ids(loaders[0])) == 3
    assert stage_data.validation_loader(MIXED, 0) is None


def test_a_mixture_without_held_out_records_is_not_validated(tiny_data: dict[str, Any], tmp_path: Path) -> None:
    data = tiny_stage_data(tiny_data | {"val": {}}, tmp_path)
    assert data.validation_loader(MIXED, 3) is None


def test_calibration_pictures_are_training_pictures_each_once(stage_data: StageData) -> None:
    pictures = stage_data.calibration_pictures()
    assert pictures.shape == (9, 3, 8, 8) and pictures.min() >= -1 and pictures.max() <= 1
    assert torch.equal(pictures[:4], stage_data.drawn_pictures(4))
    assert len({tuple(picture.flatten().tolist()) for picture in pictures}) == 9


def test_without_a_picture_there_is_nothing_to_calibrate_with(tiny_data: dict[str, Any], tmp_path: Path) -> None:
    train = {"questions": tiny_data["train"]["questions"]}
    with pytest.raises(UserError, match="no drawn picture can be read from questions"):
        tiny_stage_data(tiny_data | {"train": train}, tmp_path).calibration_pictures()


@pytest.mark.parametrize(
    ("stage", "told"),
    [
        (
            Stage("one", ["language_model"], {"facts": 1.0}, steps=1),
            "'facts' is not a corpus; there are questions, drawings",
        ),
        (
            Stage("one", ["visual_decoder"], {"questions": 1.0, "drawings": 0.0}, steps=1, head="generation"),
            "questions have no drawn pictures to train on; corpora that have some: drawings, pictures",
        ),
        (
            Stage("one", ["image_tokenizer"], {"pictures": 1.0, "questions": 1.0}, steps=1, head="tokenizer"),
            "'questions' has no drawn pictures; expected corpora .*: drawings, pictures",
        ),
    ],
)
def test_a_mixture_that_does_not_suit_the_stage_is_refused(stage: Stage, told: str, stage_data: StageData) -> None:
    with pytest.raises(UserError, match=rf"stages.one.data: {told}"):
        stage_data.prepare(tiny_model(), stage)


def by_tokens(packing: bool, **more: Any) -> Stage:
    length: dict[str, Any] = {"epochs": 1} if "steps" not in more else {}
    data = {"questions": 1.0, "drawings": 1.0, "pictures": 1.0}
    return Stage(
        "tokens", ["language_model"], data, max_tokens=200, packing=packing, mixture="passes", **length, **more
    )


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("packing", [False, True])
def test_batches_by_token_count_have_each_record_once(packing: bool, ranks: int, stage_data: StageData) -> None:
    stage = by_tokens(packing)
    stage_data.prepare(tiny_model(), stage)
    total = stage_data.order.total_steps(stage, ranks)
    found = [list(stage_data.train_loader(stage, total, 0, rank, ranks)) for rank in range(ranks)]
    assert [len(batches) for batches in found] == [total] * ranks
    batches = [batch for step in zip(*found, strict=True) for batch in step]
    met = [name for batch in ids(batches) for name in batch]
    assert set(met) == {record.id for source in stage_data.sources("train").values() for record in source}
    assert len(met) == 27 or ranks == 2
    for batch in batches:
        rows, length = batch["input_ids"].shape
        assert rows * length <= 200 and batch["positions"] == rows * length
        assert batch["samples"] == len(batch["rows"].records) and ("segment_ids" in batch) == packing
        assert packing or batch["samples"] == rows
    if packing:
        assert sum(batch["samples"] > len(batch["input_ids"]) for batch in batches) > 1


@pytest.mark.parametrize("packing", [False, True])
def test_batches_by_token_count_go_on_exactly(packing: bool, stage_data: StageData) -> None:
    stage = by_tokens(packing, steps=9, accumulate=2)
    stage_data.prepare(tiny_model(), stage)
    whole = list(stage_data.train_loader(stage, 9, 0))
    rest = list(stage_data.train_loader(stage, 9, 5))
    assert len(whole) == 18 and len(rest) == 8
    assert all(map(same, whole[10:], rest)) and ids(whole[10:]) == ids(rest)
    drawn = stage_data.order.repeats(stage, 9)
    assert sum(each["samples"] for each in drawn.values()) == sum(map(len, ids(whole)))


def test_lengths_are_kept_beside_other_prepared_data(
    stage_data: StageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VARGPT_CACHE", str(tmp_path / "shared"))
    stage_data.order.total_steps(by_tokens(packing=True))
    assert len(list((tmp_path / "shared" / "lengths").glob("*.npy"))) == 3
