"""YAML as people write it, read so that no mistake is lost: a key that stands twice and endless nesting are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from vargpt_lightning.utils.errors import UserError, near_path

MERGE = "tag:yaml.org,2002:merge"
DEEPEST = 60  # of mappings and lists inside each other


class Refused(yaml.MarkedYAMLError):
    """YAML that could be read, and is not taken; `problem` says why, `problem_mark` where."""


class _Loader(yaml.SafeLoader):
    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.above: list[str | None] = []  # the anchors, or None, of what the next node is inside of

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        mark: Any = event.start_mark
        if isinstance(event, yaml.AliasEvent) and event.anchor in self.above:
            raise Refused(problem=f"*{event.anchor} holds itself", problem_mark=mark)
        if len(self.above) >= DEEPEST:
            problem = f"nested deeper than {DEEPEST} levels; expected a few"
            raise Refused(problem=problem, problem_mark=mark)
        self.above.append(getattr(event, "anchor", None))
        try:
            return super().compose_node(parent, index)
        finally:
            self.above.pop()

    def compose_mapping_node(self, anchor: Any) -> Any:
        node: Any = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
                if (key.tag, key.value) in seen:
                    problem = f"the key {key.value!r} stands there twice; expected each key once"
                    mark: Any = key.start_mark
                    raise Refused(problem=problem, problem_mark=mark)
                seen.add((key.tag, key.value))
        return node


def load_yaml(text: str) -> Any:
    """Return what a YAML text says.

    Raises:
        yaml.YAMLError: it is not valid YAML; or, as `Refused`, a mapping has a key twice, or the nesting is too deep.
    """
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def told(error: yaml.YAMLError) -> tuple[str, str]:
    """Return where a YAML error is, as `, line 3, column 5` or nothing, and what is wrong, as the end of a message."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return place, str(problem) if isinstance(error, Refused) else f"is not valid YAML: {problem or error}"


def read_yaml(
    path: Path, what: str, asked_by: str = "", missing: Callable[[Path], str] = lambda path: ""
) -> dict[str, Any]:
    """Return the keys and values of one file.

    Args:
        what: what messages call the file.
        asked_by: how they go on after its name.
        missing: gives what they say of a file that is not there; files of near names are named where it gives nothing.

    Raises:
        UserError: the file cannot be read, is no text or no YAML, or holds no keys.
    """
    try:
        tree = load_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        near = missing(path) or ("" if path.exists() else near_path(path))
        raise UserError(f"{what} {path}{asked_by} cannot be read: {error.strerror or error}{near}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{what} {path}{asked_by} is not a text file") from error
    except yaml.YAMLError as error:
        place, problem = told(error)
        raise UserError(f"{what} {path}{place}: {problem}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{what} {path}{asked_by} holds no keys; expected some, with values")
    return tree
