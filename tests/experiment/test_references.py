"""References between keys: followed as the parser follows them, and a bad one is told by its key and its name."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.tiny import TREE
from vargpt_lightning.data.corpora import Packed
from vargpt_lightning.experiment.references import References
from vargpt_lightning.experiment.schema import SCHEMA
from vargpt_lightning.utils.errors import UserError


def check(path: str, value: Any, *options: str) -> None:
    tree: Any = copy.deepcopy(TREE)
    *keys, last = path.split(".")
    place = tree
    for key in keys:
        place = place[int(key)] if isinstance(place, list) else place.setdefault(key, {})
    place[last] = value
    references = References(SCHEMA, {"data": Packed})
    references.add(tree)
    references.add_options(options)
    references.check()


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("model.language.width", "${run.name}", "which is 'tiny'; expected a whole number"),
        ("model.language.width", "${model.decoder}", "which is a section; expected a whole number"),
        ("model.language.width", "${model.language.kv_heads}", "which is None; expected a whole number"),
        ("model.language.width", "${model.language.rope_theta}", "which is 10000.0; expected a whole number"),
        ("stages.0.epochs", "${stages[0].label_smoothing}", "which is 0.0; expected a number above 0"),
        ("model.language.layers", "${seed}", "which is 0; expected a whole number from 1"),
        ("model.language.width", "${model.language.width}", "lead in a circle"),
        ("model.language.width", "${model.language}", "holds the reference itself"),
        ("model.language.width", "${oops", "expected ${KEY}"),
        ("run.name", "a${", "expected ${KEY}"),
        ("run.name", "${}", "expected ${KEY}"),
        ("run.name", "${a:b}", "expected ${KEY}"),
        ("run.name", "${oc.decode:1}", "expected ${KEY}"),
        ("run.name", "${${seed}}", "expected ${KEY}"),
        ("run.name", "${seed}", "which is 0; expected a text or null"),
        ("run.name", "${stages}", "which is a section; expected a text"),
        ("run.name", "x-${data.init_args.nope}", "data.init_args.nope has no value"),
        ("run.name", "${oc.env:NOT_THERE_AT_ALL}", "no environment variable NOT_THERE_AT_ALL"),
        ("run.name", "${.x}", "run.x has no value; expected ${KEY}"),
        ("run.name", "a${.x}", "run.x has no value; expected ${KEY}"),
        ("run.name", "${.a[0]}", "run.a.0 has no value"),
        ("run.name", "${.run.name}", "run.run.name has no value"),
        ("run.name", "${..plan.corpora}", "which is a section; expected a text"),
        ("run.name", "${...run.root}", "more dots than keys above"),
        ("run.name", "${..seed.x}", "seed.x has no value"),
        ("run.name", "${..model.language.wdith}", "model.language.wdith has no value"),
        ("run.name", "${stages[9].head}", "stages.9.head has no value"),
        ("stages.0.steps", "${.stepz}", "stages.0.stepz has no value"),
        ("stages.0.steps", "${..7.batch_size}", "stages.7.batch_size has no value"),
        ("data.init_args.workers", "${.wrkers}", "data.init_args.wrkers has no value"),
        ("stages.0.steps", "${stages[1].optimizer.lr}", "which is 0.003; expected a whole number"),
        ("stages.0.optimizer.betas", ["${seed}", "${trainer.log_every}"], "expected a number from 0 to below 1"),
        ("data.init_args.workers", "${run.name}", "which is 'tiny'; expected a whole number"),
    ],
)
def test_a_bad_one_is_told_by_its_key(path: str, value: Any, named: str) -> None:
    with pytest.raises(UserError) as error:
        check(path, value)
    message = str(error.value)
    key = path.replace("stages.0", "stages.tokenizer")
    assert message.startswith(key) and named in message and "full_key" not in message


def test_a_circle_over_several_keys_is_named() -> None:
    with pytest.raises(UserError, match=r"circle: model\.language\.width, model\.decoder\.width, model"):
        check("model.language.width", "${model.decoder.width}", "--model.decoder.width", "${model.language.width}")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.decoder.width", "${model.language.width}"),
        ("model.decoder.width", "${ model.language.width }"),
        ("run.name", "${.root}"),
        ("run.name", "${..run.root}"),
        ("run.name", "${..stages[0].head}"),
        ("stages.0.steps", "${.batch_size}"),
        ("stages.0.batch_size", "${..1.accumulate}"),
        ("run.name", "a-${seed}-${run.root}"),
        ("run.name", "${stages[0].name}"),
        ("run.root", "${oc.env:HOME}/runs"),
        ("run.root", "${oc.env:NOT_THERE_AT_ALL,runs}"),
        ("run.name", "\\${seed}"),
        ("data.init_args.vocabulary", "${model.language.vocabulary}"),
        ("data.init_args.workers", "${data.init_args.shuffle_shards}"),
        ("stages.0.data.pictures", "${trainer.log_every}"),
        ("seed", "${trainer.log_every}"),
    ],
)
def test_good_ones_are_taken(path: str, value: Any) -> None:
    check(path, value, "--run.root", "here")


def test_an_option_takes_the_place_of_a_reference() -> None:
    check("model.language.width", "${run.name}", "--model.language.width", "64")
    with pytest.raises(UserError, match=r"model\.decoder\.width='\$\{seed\}', which is 0"):
        check("seed", 0, "--model.decoder.width=${seed}")
