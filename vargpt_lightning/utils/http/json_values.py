"""Values of a request as JSON has them: "1" and true are no numbers, and a number is no truth value."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BeforeValidator, Strict, ValidationError


def _whole(value: Any) -> Any:
    """1.0 is a whole number: some programs write no other."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Number = Annotated[float, Strict()]
Whole = Annotated[int, Strict(), BeforeValidator(_whole)]
Flag = Annotated[bool, Strict()]

# What is expected, by pydantic's kind of error; other kinds keep pydantic's own words.
_EXPECTED = {
    "float_type": "a number",
    "int_type": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "bool_type": "true or false",
    "string_type": "a text",
    "list_type": "a list",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "dict_type": "an object",
}
LONGEST = 60


def told(error: ValidationError) -> tuple[str, str]:
    """Return what a request is refused for: the path of the field, and its value with what was expected."""
    # The deepest one: of a content that is neither a text nor parts, the part that is wrong.
    worst = max(error.errors(include_url=False), key=lambda one: len(one["loc"]))
    places = [str(part) for part in worst["loc"]]
    where = ".".join(part for part in places if part not in ("str", "ImageUrl") and not part.startswith("list["))
    kind, given = worst["type"], worst.get("input")
    if kind in _EXPECTED:
        return where, f"got {_shown(given)}, expected {_EXPECTED[kind]}"
    if kind == "literal_error":
        return where, f"got {_shown(given)}, expected {worst['ctx']['expected']}"
    return where, worst["msg"]


def _shown(value: Any) -> str:
    """A value as JSON, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
