"""What config.json files of transformers say of a tower. Imports transformers only where one is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vargpt_lightning.utils.errors import UserError


def read_config(published: Mapping[str, Any], kind: str) -> Any:
    """Return transformers' configuration of a tower, what the file leaves out filled in.

    Args:
        published: the file, of the tower alone or of a model with the section `vision_config`.
        kind: transformers' `model_type` of the tower alone.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    section = published.get("vision_config")
    return CONFIG_MAPPING[kind].from_dict(dict(published if section is None else section))


def sizes_of(read: Any, options: tuple[str, ...]) -> dict[str, Any]:
    """Return the keys of `VisionConfig` that transformers' usual names tell, and the options unlike its defaults."""
    silent = type(read)()
    return {
        "width": read.hidden_size,
        "layers": read.num_hidden_layers,
        "heads": read.num_attention_heads,
        "patch_size": one_side(read, "patch_size"),
        "options": {key: getattr(read, key) for key in options if getattr(read, key) != getattr(silent, key)},
    }


def one_side(read: Any, key: str) -> int:
    """Return a side in pixels, which transformers lets be two.

    Raises:
        UserError: they are two different ones.
    """
    value = getattr(read, key)
    sides = set(value) if isinstance(value, list | tuple) else {value}
    if len(sides) != 1:
        raise UserError(f"config.json: {key}={value!r} is not built here; expected a square")
    return int(sides.pop())


def only(read: Any, **built: Any) -> None:
    """Raise UserError where a configuration says something else than what is built."""
    for key, value in built.items():
        if (found := getattr(read, key)) != value:
            raise UserError(f"config.json: {key}={found!r} is not built here; expected {value!r}")
