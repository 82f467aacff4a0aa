"""The map of the rooms is the code's."""

from __future__ import annotations

import re

from tests.docs.architecture import FILE, PACKAGE, ROOT, drawn, layers

PAGE = ROOT / "docs" / "architecture.md"


def test_the_figure_is_drawn_from_the_imports() -> None:
    assert FILE.read_text("utf-8") == drawn(), "python -m tests.docs.architecture draws it anew"


def test_every_room_is_in_a_layer_and_says_what_belongs_there() -> None:
    rooms = {room for layer in layers() for room in layer}
    links = [ROOT / "callbacks", ROOT / "evaluation"]  # which the package has as links
    folders = {file.parent for top in (ROOT / PACKAGE, *links) for file in top.glob("**/__init__.py")}
    folders -= {ROOT / PACKAGE, ROOT / PACKAGE / "callbacks", ROOT / PACKAGE / "evaluation"}
    assert {*(folder.name for folder in folders if folder.parent in (ROOT, ROOT / PACKAGE)), "cli", "results"} == rooms
    for folder in folders:
        text = (folder / "__init__.py").read_text("utf-8").split('"""')
        assert len(text) > 2 and len(re.findall(r"[.;](?=\s|$)", text[1])) >= 2, f"{folder}: two sentences are wanted"


def test_the_places_that_the_page_names_exist() -> None:
    named = re.findall(r"`([a-z_]+/[a-z_/]*(?:\.py)?)`", PAGE.read_text("utf-8"))
    assert len(named) > 25
    assert not [name for name in named if not (ROOT / PACKAGE / name).exists()]
