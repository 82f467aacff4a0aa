from __future__ import annotations

from vargpt_lightning.inference.picture_files import slug


def test_names_of_files_are_short_and_plain() -> None:
    assert slug("Please draw a/b: 'Ünïcode'!") == "please-draw-a-b-ünïcode"
    assert slug("?!") == "answer" and len(slug("word " * 30)) <= 40
