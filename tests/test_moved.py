"""Modules by their names of earlier versions."""

from __future__ import annotations

import importlib
import sys

import pytest

from vargpt_lightning.moved import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_is_the_new_module_and_warns(old: str) -> None:
    sys.modules.pop(f"vargpt_lightning.{old}", None)
    with pytest.warns(DeprecationWarning, match=MOVED[old]):
        module = importlib.import_module(f"vargpt_lightning.{old}")
    new = importlib.import_module(f"vargpt_lightning.{MOVED[old]}")
    names = [name for name in vars(new) if not name.startswith("_")]
    assert names and all(getattr(module, name) is getattr(new, name) for name in names)
    sys.modules.pop(f"vargpt_lightning.{old}")


def test_a_name_that_never_was_is_not_there() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("vargpt_lightning.nowhere")
