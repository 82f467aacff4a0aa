"""A stage as data: its lengths, its hashes, and what it refuses."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from vargpt_lightning.models.core.correction import SelfCorrection
from vargpt_lightning.recipe.stage import OptimizerConfig, Stage, check_stages, stage_hashes
from vargpt_lightning.utils.errors import UserError

SUBMODULES = ("image_tokenizer", "language_model", "visual_decoder")


def stage(**changes: Any) -> Stage:
    return Stage(**{"name": "one", "train": ["language_model"], "data": {"a": 1.0}, "steps": 10} | changes)


def test_steps_are_taken_as_they_are() -> None:
    assert stage(steps=7).total_steps({"a": 100}) == 7


def test_epochs_count_the_samples_of_the_corpora_that_have_a_weight() -> None:
    two = stage(steps=None, epochs=2, data={"a": 1, "b": 3, "c": 0}, batch_size=4, accumulate=2)
    assert two.total_steps({"a": 60, "b": 20, "c": 500}) == 20
    assert two.total_steps({"a": 60, "b": 20, "c": 500}, ranks=5) == 4
    assert stage(steps=None, epochs=0.01).total_steps({"a": 3}) == 1, "never none"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": ""}, "stages: name ''; expected letters, digits"),
        ({"name": "a/b"}, "stages: name 'a/b'"),
        ({"train": []}, "stages.one.train is empty: the stage would train nothing"),
        ({"epochs": 1}, "stages.one: epochs=1, steps=10; expected one of the two"),
        ({"steps": None}, "stages.one: epochs=None, steps=None; expected one of the two"),
        ({"steps": 0}, "stages.one.steps=0; expected a whole number from 1"),
        ({"batch_size": -1}, "stages.one.batch_size=-1"),
        ({"accumulate": 0}, "stages.one.accumulate=0"),
        ({"max_tokens": 0}, "stages.one.max_tokens=0; expected a whole number from 1"),
        ({"packing": True}, "stages.one.packing=true; expected max_tokens beside it"),
        ({"max_tokens": 9, "text_batch_size": 2}, "stages.one.text_batch_size=2 with max_tokens=9; expected none"),
        ({"max_tokens": 9, "decoder_alone": True}, "stages.one.decoder_alone=True with max_tokens=9; expected false"),
        (
            {"max_tokens": 9, "head": "tokenizer", "train": ["image_tokenizer"]},
            "stages.one.head=tokenizer with max_tokens=9; expected another",
        ),
        (
            {"head": "understanding", "self_correction": SelfCorrection()},
            "stages.one.self_correction with head=understanding, which draws nothing",
        ),
        ({"data": {}}, "stages.one.data={}; expected corpora with weights"),
        ({"data": {"a": 0.0}}, "one of them above 0"),
        ({"data": {"a": 1, "b": -1}}, "stages.one.data"),
        ({"ema": 1.0}, "stages.one.ema=1.0; expected a number from 0 to below 1"),
        ({"label_smoothing": -0.1}, "stages.one.label_smoothing=-0.1"),
        ({"flip": 1.5}, "stages.one.flip=1.5; expected a number from 0 to 1"),
        ({"train": ["image_tokenizer"]}, "expected the image tokenizer by itself with head tokenizer"),
        ({"head": "tokenizer"}, "expected the image tokenizer by itself with head tokenizer"),
        (
            {"head": "tokenizer", "train": ["image_tokenizer", "language_model"]},
            "expected the image tokenizer by itself",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_key_and_value(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as error:
        stage(**changes)
    assert told in str(error.value)


def test_a_plan_names_what_there_is() -> None:
    check_stages([stage()], SUBMODULES, ["a", "b"])
    check_stages([stage(data={"unheard": 1})], SUBMODULES)  # corpora are not known yet
    with pytest.raises(UserError, match=r"stages.one.data: 'c' is not a corpus; there are a, b"):
        check_stages([stage(data={"c": 1})], SUBMODULES, ["a", "b"])
    with pytest.raises(UserError, match=r"stages.one.data: 'c' is not a corpus"):
        check_stages([stage(data={"c": 1})], SUBMODULES, iter([]))
    with pytest.raises(UserError, match=r"stages.one.train: 'x' is not a submodule; there are image_tokenizer, "):
        check_stages([stage(train=["x"])], SUBMODULES)


def test_a_hash_covers_the_stage_all_before_it_and_what_they_share() -> None:
    plan = [asdict(stage(name=name)) for name in "abc"]
    hashes = stage_hashes(plan, {"seed": 0})
    assert len(set(hashes)) == 3
    assert stage_hashes([dict(each) for each in plan], {"seed": 0}) == hashes
    assert not set(stage_hashes(plan, {"seed": 1})) & set(hashes)
    plan[1] = asdict(stage(name="b", optimizer=OptimizerConfig(lr=2e-4)))
    others = stage_hashes(plan, {"seed": 0})
    assert [one == two for one, two in zip(others, hashes, strict=True)] == [True, False, False]


def test_an_epoch_of_few_records_is_short() -> None:
    assert stage(steps=None, epochs=2, batch_size=5, records=10).total_steps({"a": 100}) == 4
    assert stage(steps=None, epochs=2, batch_size=5, records=500).total_steps({"a": 100}) == 40
