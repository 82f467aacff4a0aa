"""What requests may say that changes nothing: values without effect, and fields without consequence for an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vargpt_lightning.serving.limits import RefusedRequestError

# Sent by clients as a matter of course, without consequence for what is answered.
_IGNORED: tuple[str, ...] = ("user", "metadata", "store", "service_tier", "safety_identifier", "quality", "style")
_IGNORED += ("prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "parallel_tool_calls", "verbosity")
# Compared by value: 0.0 and False are 0 too.
_NOTHING: tuple[Any, ...] = (None, 0, "", [], {})
# Where something else than nothing is what a server does that does not know the parameter.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "tool_choice": (*_NOTHING, "none", "auto"),
    "function_call": (*_NOTHING, "none", "auto"),
    "reasoning_effort": (*_NOTHING, "none"),
    "response_format": (*_NOTHING, {"type": "text"}),
    "modalities": (*_NOTHING, ["text"], ["text", "image"], ["image", "text"]),
    "moderation": (*_NOTHING, "auto", "low"),
    "background": (*_NOTHING, "auto", "opaque"),
    "output_compression": (*_NOTHING, 100),
    "frame_count": (*_NOTHING, 1),
    "best_of": (*_NOTHING, 1),
    "num_beams": (*_NOTHING, 1),
    "top_k": (*_NOTHING, -1),
    "web_search_options": (None,),  # {} asks for a search
    "repetition_penalty": (None, 1),
    "repeat_penalty": (None, 1),
    "length_penalty": (None, 1),
    "typical_p": (None, 1),
    "tfs_z": (None, 1),
    "skip_special_tokens": (None, True),
    "spaces_between_special_tokens": (None, True),
    "add_generation_prompt": (None, True),
}


def check_extra(given: Mapping[str, Any] | None, where: str = "") -> None:
    """Refuse fields that ask for something that there is not; those that ask for nothing pass.

    Raises:
        RefusedRequestError: (400 unsupported_parameter) names the field, below `where`.
    """
    for key, value in (given or {}).items():
        if key not in _IGNORED and not any(value == one for one in _NEUTRAL.get(key, _NOTHING)):
            name = f"{where}{key[:60]}"
            text = f"{name} is not supported by this server; leave it out"
            raise RefusedRequestError(text, code="unsupported_parameter", param=name)
