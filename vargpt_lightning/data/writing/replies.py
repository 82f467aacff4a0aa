"""What a language model replied, made into a request and an answer, or into the reason why it cannot be."""

from __future__ import annotations

import re
from typing import Annotated

import pydantic

from vargpt_lightning.data.writing.templates import Written

EMPTY, REFUSED, WRONG_FORM = "empty", "refused", "wrong form"

_THOUGHT = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(r"^\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*$", re.DOTALL | re.IGNORECASE)
_REFUSAL = re.compile(
    r"\b(?:i(?:['’]m| am) (?:very |so |really |truly )?(?:sorry|unable|not able|afraid)"
    r"|(?:i|we) (?:can(?:no|['’])t|can not|could(?:n['’]t| not)|won['’]t|will not|must decline|have to decline)"
    r"|as an? (?:ai|artificial|large language|language model)|my apologies|i apologi[sz]e"
    r"|(?:against|violates?) (?:my|our|the) (?:guidelines|policy|policies))",
    re.IGNORECASE,
)
Line = Annotated[str, pydantic.StringConstraints(strip_whitespace=True)]


class _Reply(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="ignore", strict=True)

    request: Line
    answer: Line


def read_reply(text: str) -> Written | str:
    """Return what the JSON object says, or a reason: empty, refused or wrong form.

    Thoughts before it, and a fence of code around it, are taken off; nothing else is mended.
    """
    bare = _THOUGHT.sub("", text)
    if fenced := _FENCE.match(bare):
        bare = fenced.group(1)
    if not bare.strip():
        return EMPTY
    try:
        reply = _Reply.model_validate_json(bare.strip())
    except (pydantic.ValidationError, ValueError):
        return REFUSED if is_refusal(bare) else WRONG_FORM
    try:
        f"{reply.request}{reply.answer}".encode()
    except UnicodeEncodeError:
        return WRONG_FORM
    return Written(" ".join(reply.request.split()), " ".join(reply.answer.split()))


def is_refusal(text: str) -> bool:
    """Whether a text declines, as assistants word it."""
    return bool(_REFUSAL.search(text))
