"""Every number of an experiment has a range, and what is outside of it is refused by name when the file is read."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Annotated, Any, get_args, get_origin

import pytest

from tests.tiny import TREE
from vargpt_lightning.data.corpora import Corpora, OpenMoji, Packed
from vargpt_lightning.experiment.check import ConfigCheck
from vargpt_lightning.experiment.schema import SCHEMA, EvaluationConfig, Sampling
from vargpt_lightning.models.core.config import TokenizerConfig, VARGPTConfig, VisionConfig
from vargpt_lightning.models.decoder.sampling import SamplingSettings
from vargpt_lightning.recipe.stage import OptimizerConfig, Stage
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.ranges import Range, fits, hints, ranged_keys

NO_NUMBERS = (float("nan"), float("inf"), float("-inf"), "nan", "-inf", "1e999", 10**400, -(10**400))


def numbers(kind: Any, where: str) -> Iterator[tuple[str, Any, tuple[Range, ...]]]:
    """Every whole number and number of a type, with its place, its type and its ranges."""
    inside = get_args(kind)
    if is_dataclass(kind):
        for key, below in hints(kind).items():
            yield from numbers(below, f"{where}.{key}")
    elif get_origin(kind) is Annotated and inside[0] in (int, float):
        yield where, kind, tuple(each for each in inside[1:] if isinstance(each, Range))
    elif kind in (int, float):
        yield where, kind, ()
    else:
        for each in inside:
            yield from numbers(each, where)


SCHEMAS = {key: kind for key, kind in SCHEMA.items() if key != "data"}
SCHEMAS |= {"data.OpenMoji": OpenMoji, "data.Packed": Packed}
NUMBERS = [found for key, kind in SCHEMAS.items() for found in numbers(kind, key)]


def test_every_number_of_the_schema_has_a_range() -> None:
    assert len(NUMBERS) > 100
    assert [place for place, _, ranges in NUMBERS if len(ranges) != 1] == []


def test_no_range_takes_what_is_no_number_or_lies_outside() -> None:
    for place, kind, (limits,) in NUMBERS:
        beyond = (limits.low - 1, limits.high + 1, limits.low - 1e-6)
        assert [value for value in (*NO_NUMBERS, *beyond) if fits(value, kind)] == [], place
        assert fits(int(limits.high) - 1 if limits.high > 1 else 0.5, kind), place


def checked(change: dict[str, Any]) -> None:
    """Read the tiny experiment with some keys changed."""
    tree = copy.deepcopy(TREE)
    for path, value in change.items():
        *keys, last = path.split(".")
        place: Any = tree
        for key in keys:
            place = place[int(key)] if isinstance(place, list) else place.setdefault(key, {})
        place[last] = value
    ConfigCheck(SCHEMA, {"data": Corpora}).tree(tree, "file.yaml")


NAN, INF = float("nan"), float("inf")
REFUSED = [
    *(("stages.0.optimizer.lr", value) for value in (-1, -1e-9, NAN, INF, "nan", 1e9)),
    *(("stages.0.optimizer.clip", value) for value in (-1, NAN, INF)),
    *(("stages.0.optimizer.betas", value) for value in ([0.9, 2], [2, 0.9], [0.9, 1.0], [-0.1, 0.9], [NAN, 0.9])),
    *(("stages.0.optimizer.weight_decay", value) for value in (-1, NAN)),
    *(("stages.0.schedule.warmup", value) for value in (-0.1, NAN)),
    *(("stages.0.schedule.final", value) for value in (-0.1, 1.5, NAN)),
    *(("stages.0.epochs", value) for value in (NAN, INF, 0, -1)),
    *(("stages.0.steps", value) for value in (0, -1, 10**15)),
    *(("stages.0.data.pictures", value) for value in (-1, NAN, INF)),
    *(("stages.0.text_weight", value) for value in (-1, NAN)),
    ("stages.0.lora", {"alpha": -1.0}),
    ("stages.0.lora", {"dropout": 1.0}),
    ("model.language.mlp", 0),
    ("model.language.rope_theta", 0.0),
    ("model.language.norm_eps", -1e-6),
    ("model.decoder.classes", 0),
    ("model.decoder.mlp_ratio", 0.0),
    ("model.tokenizer.dropout", 2),
    ("model.tokenizer.beta", NAN),
    ("model.tokenizer.scales", [0, 1]),
    ("model.vision.layers", 0),
    ("model.vision.patch_size", 0),
    ("model.tokens.pad", -1),
    ("trainer.checkpoint_seconds", NAN),
    ("trainer.num_nodes", 0),
    ("trainer.devices", [-1]),
    ("trainer.sharding.replicas", 0),
    ("data.init_args.workers", -1),
    *(("sampling.temperature", value) for value in (0, -1, 1e-40, 1e-300, 1e308, NAN, INF)),
    *(("sampling.cfg", value) for value in (-1, 1e308, NAN)),
    *(("sampling.top_p", value) for value in (-0.1, 1.1, NAN)),
    ("sampling.top_k", -1),
    ("evaluation.aims", {"identification_1": NAN}),
    ("evaluation.seed", -1),
    ("seed", -1),
    ("seed", 2**32),
    ("plan.efficiency", 0),
    ("plan.corpora", {"a": {"samples": 0, "text": 5}}),
]


@pytest.mark.parametrize(("path", "value"), REFUSED, ids=lambda value: str(value)[:40])
def test_it_is_refused_by_its_whole_key(path: str, value: Any) -> None:
    data = {"data": {"class_path": "Packed", "init_args": {}}} if path.startswith("data") else {}
    with pytest.raises(UserError) as error:
        checked({**data, path: value})
    key = path.replace("stages.0", "stages.tokenizer")
    assert str(error.value).startswith(f"file.yaml: {key}") and "; expected a" in str(error.value)


NEUTRAL = {
    "stages.0.optimizer": {"lr": 0, "clip": 0, "weight_decay": 0, "betas": [0, 0], "muon_lr": None},
    "stages.0.schedule": {"warmup": 0, "final": 1, "decay": 0},
    "stages.0.label_smoothing": 0,
    "stages.0.data.pictures": 0,
    "trainer.checkpoint_seconds": 0,
    "trainer.devices": -1,
    "trainer.samples": 0,
    "sampling": {"top_k": 0, "top_p": 0, "cfg": 0, "temperature": 1},
    "model.prompt_dropout": 1,
    "model.decoder.drop_path": 0,
    "evaluation.questions": 0,
}


@pytest.mark.parametrize("path", NEUTRAL)
def test_what_turns_something_off_is_taken(path: str) -> None:
    checked({path: NEUTRAL[path]})


def test_options_are_held_against_the_same_ranges() -> None:
    check = ConfigCheck(SCHEMA, {"data": Corpora})
    for words in (["--sampling.temperature", "1e-300"], ["--seed=-1"], ["--trainer.checkpoint_seconds", "nan"]):
        with pytest.raises(UserError, match="; expected a"):
            check.arguments(words)
    check.arguments(["--sampling.temperature", "0.5", "--seed", "3"])


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: OptimizerConfig(clip=-1), "optimizer.clip=-1"),
        (lambda: Stage("one", ["language_model"], {"a": NAN}, steps=1), "stages.one.data.a=nan"),
        (lambda: VisionConfig(kind="clip", picture_size=28, heads=5), "vision.heads"),
        (lambda: VisionConfig(kind="clip", picture_size=28, feature_layer=30), "vision.feature_layer"),
        (lambda: TokenizerConfig(scales=(2, 1)), "tokenizer.scales"),
        (lambda: TokenizerConfig(quant_kernel=2), "tokenizer.quant_kernel"),
        (lambda: VARGPTConfig.from_dict({"decoder": {"depth": 3, "width": 64, "heads": 5}}), "decoder.width"),
        (lambda: OpenMoji(picture_size=0), "data.picture_size=0"),
        (lambda: Sampling(temperature=0), "sampling.temperature=0"),
        (lambda: EvaluationConfig(aims={"identifcation_1": 0.5}), "'identification_1'"),
    ],
)
def test_they_are_checked_however_they_are_made(make: Any, named: str) -> None:
    with pytest.raises(UserError) as error:
        make()
    assert named in str(error.value)


def test_the_samplers_own_limits_are_no_narrower() -> None:
    for key, kind in ranged_keys(Sampling).items():
        _, _, (limits,) = next(numbers(kind, key))
        for value in (int(limits.high), limits.high if limits.above else limits.low):
            SamplingSettings(**{key: value})
