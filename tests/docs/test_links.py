"""Every link of every page leads somewhere, and every command and option that a page speaks of is there."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs.markdown import PAGES, ROOT, anchors, every_command, links
from vargpt_lightning.cli import COMMANDS
from vargpt_lightning.commands.data import VERBS
from vargpt_lightning.recipe.stage import Stage

OTHERS = {"--help", "-h", "--debug"}
OUTSIDE = ("https", "http", "mailto")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    broken = [link for link in links(page.read_text("utf-8")) if wrong(page, link)]
    assert not broken


def wrong(page: Path, link: str) -> bool:
    """Whether a link inside the repository leads nowhere; others are not followed."""
    parts = urlsplit(link)
    if parts.scheme:
        return parts.scheme not in OUTSIDE
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not target.exists() or not target.is_relative_to(ROOT):
        return True
    return bool(parts.fragment) and (target.suffix != ".md" or parts.fragment not in anchors(target.read_text("utf-8")))


def test_wrong_links_are_seen(tmp_path: Path) -> None:
    text = "# A `b.c` _d\n## Two, words\n## Two, words\n[x](gone.md) `[no](link.md)` [a [b]](README.md#none)\n"
    assert anchors(text) == {"a-bc-_d", "two-words", "two-words-1"}
    assert links(text) == ["gone.md", "README.md#none"]
    assert all(wrong(ROOT / "README.md", link) for link in links(text)) and wrong(ROOT / "README.md", "../x.md")
    assert not wrong(ROOT / "README.md", "https://example.org/gone") and not wrong(ROOT / "README.md", "docs")


def test_every_page_of_docs_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text("utf-8")
    assert {page.name for page in ROOT.glob("docs/*.md")} - {"README.md"} <= set(links(index))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_are_there(page: Path) -> None:
    unknown = [line for line in every_command(page.read_text("utf-8")) if not known(line)]
    assert not unknown


def test_wrong_commands_are_seen() -> None:
    page = (
        "`vargpt fitt -c x` and `vargpt\nscore x --benchmarks y`\n\n```\nvargpt data pack a --out b # vargpt no\n```\n"
    )
    found = list(every_command(page))
    assert found == ["data pack a --out b", "fitt -c x", "score x --benchmarks y"]
    assert [known(line) for line in found] == [True, False, False]
    assert known("fit -c x --stages.base.steps 3 --stages.draw null") and not known("fit -c x --stages.base.stepps 3")
    assert known("evaluate export --out x") and not known("evaluate export --cfg 3")
    assert not known("data peck a") and not known("fit -c x --model.depth 3") and not known("evaluate images meassure")


def known(line: str) -> bool:
    """Whether a command and its options are there; words in capitals and brackets stand for something."""
    words = shlex.split(re.sub(r"[\[\]|;]|&&", " ", line).replace("'", ""))
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        return False
    given = {word.split("=")[0] for word in rest if re.match(r"--?[a-z]", word)} - OTHERS
    if name == "data":
        if not rest or not (rest[0].isupper() or rest[0] in VERBS or rest[0].startswith("-")):
            return False
        return given <= options(f"data.{rest[0].replace('-', '_')}" if rest[0] in VERBS else "data")
    if name == "evaluate" and rest[:1] == ["images"]:
        forms = subcommands(importlib.import_module("vargpt_lightning.commands.evaluate_images").parser())
        return len(rest) < 2 or (rest[1] in forms and given <= set(forms[rest[1]]._option_string_actions))
    if name == "evaluate" and rest[:1] == ["export"]:
        return given <= options("evaluate_export")
    if name == "sweep" and rest[:1] in (["show"], ["worker"]):
        return given <= helped("sweep", rest[0])
    if name in ("fit", "plan"):
        keys = {option: option.lstrip("-") for option in given - options(name)}
        return all(key in experiment_keys() or of_a_stage(key) for key in keys.values())
    return given <= options(name)


def of_a_stage(key: str) -> bool:
    """Whether a dotted key is `stages.NAME` or `stages.NAME.KEY` with a key that stages have."""
    first, _, *names = [*key.split("."), ""]
    return first == "stages" and bool(names) and (names[0] in Stage.__dataclass_fields__ or not names[0])


@cache
def options(module: str) -> set[str]:
    """The options of a command's parser."""
    if module == "fit":
        return {"-c", "--config", "--from"}
    if module == "data":
        return set()
    code = importlib.import_module(f"vargpt_lightning.commands.{module}")
    make = next(getattr(code, name) for name in ("parser", "build_parser", "_parser") if hasattr(code, name))
    return set(make()._option_string_actions)


@cache
def helped(name: str, verb: str) -> set[str]:
    """The options that a sub-command's help names."""
    import contextlib
    import io

    from vargpt_lightning.cli import main

    with contextlib.redirect_stdout(io.StringIO()) as said:
        main([name, verb, "--help"])
    return set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", said.getvalue()))


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (action,) = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    return dict(action.choices)


@cache
def experiment_keys() -> set[str]:
    """Every dotted key of an experiment, from the parser of `vargpt fit`."""
    from vargpt_lightning.experiment.parser import build_parser

    return {option.lstrip("-") for option in build_parser()._option_string_actions}
