"""Chat templates in Jinja, rendered in a sandbox as transformers does; nothing here knows tokens.

They come with a model from wherever it comes: a template reads what it is given and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

from vargpt_lightning.utils.errors import UserError

TODAY = datetime(2024, 7, 26)
"""What `strftime_now` says: Llama 3.1's own date. With the real one a record would have other tokens tomorrow."""
GENERATED = ("\ufdd0", "\ufdd1")
"""Around what `{% generation %}` holds, where that is asked for: code points that no text has."""
Message = Mapping[str, str]


def render_jinja(
    source: str, messages: Sequence[Message], tokens: Mapping[str, str], answer: bool, mark: bool = False
) -> str:
    """Return what a chat template makes of messages.

    Args:
        source: the template.
        messages: each with its `role` and `content`.
        tokens: the special tokens that templates know by name, such as `bos_token`.
        answer: whether the opening of the assistant's answer is added.
        mark: put `GENERATED` around what stands between `{% generation %}` and `{% endgeneration %}`.

    Raises:
        UserError: the template cannot be read, or it fails.
    """
    context = {
        "messages": [dict(message) for message in messages],
        "tools": None,
        "documents": None,
        "add_generation_prompt": answer,
        **tokens,
        _MARK: mark,
    }
    try:
        return _compiled(source).render(context)
    except RecursionError as error:
        raise UserError("chat template: it calls itself without an end") from error
    except UserError:
        raise
    except Exception as error:  # a template may do anything that Python's operators can fail at
        roles = ", ".join(message["role"] for message in messages)
        raise UserError(f"chat template: it fails for turns of {roles} ({_one_line(error)})") from error


_MARK = "mark_generated"


@lru_cache(maxsize=16)
def _compiled(source: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": _refuse,
        "strftime_now": TODAY.strftime,
        "dict": _PlainDict(),
        "namespace": _PlainNamespace,
    }
    try:
        return environment.from_string(source)
    except jinja2.TemplateError as error:
        raise UserError(f"chat template: cannot be read ({_one_line(error)})") from error


class _Generation(Extension):
    """`{% generation %}` ... `{% endgeneration %}`: what the assistant says, by the template's own word."""

    tags = {"generation"}  # noqa: RUF012 (as jinja2 declares it)

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_said", [nodes.ContextReference()])
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _said(self, context: Any, caller: Callable[[], str]) -> str:
        return caller().join(GENERATED) if context.get(_MARK) else caller()


def _to_json(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, **more: Any) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=more.get("sort_keys", False)
    )


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


class _PlainDict:
    """`dict` as templates may call it, without the attributes of Python's class."""

    def __call__(self, *values: Any, **named: Any) -> dict[str, Any]:
        return dict(*values, **named)


class _PlainNamespace(jinja2.utils.Namespace):
    """`namespace` without names that begin with an underscore, which lead out of the sandbox."""

    def __init__(*values: Any, **named: Any) -> None:
        self, *rest = values
        found = dict(*rest, **named)
        for name in found:
            _check_name(name)
        jinja2.utils.Namespace.__init__(self, found)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if str(name).startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace has no {name!r}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
