"""Modules and definitions by their names of earlier versions."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator

import pytest

from vargpt_lightning.moved import MODULES, NAMES, RENAMED, attribute


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    for name in [*MODULES, "weights", "evaluation.adapters"]:
        sys.modules.pop(f"vargpt_lightning.{name}", None)


def test_every_place_that_is_named_is_there() -> None:
    for old, places in {**MODULES, **NAMES}.items():
        for place in places.split():
            assert importlib.util.find_spec(f"vargpt_lightning.{place}"), f"{old}: {place}"


@pytest.mark.parametrize(
    ("old", "name", "now"),
    [
        ("errors", "UserError", "utils.errors"),
        ("commands.loading", "load_run", "inference.load"),
        ("commands.loading", "load_weights", "checkpoints.stage_weights"),
        ("models.config", "VARGPTConfig", "models.core.config"),
        ("models.vargpt", "VARGPT", "checkpoints.hub"),
        ("evaluation.adapters.ours", "OwnSystem", "evaluation.systems.own"),
        ("commands.experiment", "load_experiment", "experiment.parser"),
        ("results", "write_json", "utils.files"),
        ("data.packing", "write_source", "data.shards.format"),
        ("evaluation.rules.yes_no", "styled", "evaluation.rules.shared"),
    ],
)
def test_an_old_name_is_the_new_one_and_warns(old: str, name: str, now: str) -> None:
    new = getattr(importlib.import_module(f"vargpt_lightning.{now}"), name)
    with pytest.warns(DeprecationWarning, match=f"{name} is vargpt_lightning.{now}.{name} now"):
        assert attribute(f"vargpt_lightning.{old}", name) is new


def test_it_is_imported_as_it_was() -> None:
    code = "from vargpt_lightning.models import losses; from vargpt_lightning.models.config import VARGPTConfig"
    found: dict[str, object] = {}
    with pytest.warns(DeprecationWarning):
        exec(code + "; from vargpt_lightning.evaluation.adapters.ours import Speaker; loss = losses.image_loss", found)
        exec("from vargpt_lightning.data.records import *", found)
    assert {"TextPart", "PicturePart", "DRAWN"} <= found.keys()
    from vargpt_lightning.inference.assistant import Assistant
    from vargpt_lightning.models.core.losses import image_loss

    assert found["Speaker"] is Assistant and found["loss"] is image_loss and RENAMED["Speaker"] == "Assistant"


def test_a_name_that_never_was_is_not_there() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("vargpt_lightning.nowhere")
    with pytest.raises(ImportError):
        exec("from vargpt_lightning.data.packing import nothing")
