"""Sources as they are written on a command line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from vargpt_lightning.data.packing.job import SourceSpec
from vargpt_lightning.data.sources import names
from vargpt_lightning.utils.errors import UserError


def read_spec(text: str) -> SourceSpec:
    """Return what NAME:PATH,OPTION=VALUE,... says; values that JSON knows (numbers, true, lists) are taken as such.

    Raises:
        UserError: it is not of this form.
    """
    name, colon, rest = text.partition(":")
    path, *options = re.split(r",(?=\w+=)", rest)
    if not colon or not path or not name:
        raise UserError(f"source {text!r}: expected NAME:PATH, such as {names()[0] if names() else 'llava'}:{text}")
    values: dict[str, Any] = {}
    for option in options:
        key, _, value = option.partition("=")
        try:
            values[key] = json.loads(value)
        except ValueError:
            values[key] = value
    values = {key: str(Path(value).expanduser()) if _from_home(value) else value for key, value in values.items()}
    pictures = values.pop("pictures", None)
    return SourceSpec(name, Path(path).expanduser(), None if pictures is None else Path(str(pictures)), values)


def _from_home(value: Any) -> bool:
    # behind a comma the shell leaves it as it is
    return isinstance(value, str) and value.startswith("~")
