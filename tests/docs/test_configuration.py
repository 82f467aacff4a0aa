"""The reference of all keys is what the code says now."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.docs.configuration import PAGE, described, page, table


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text("utf-8") == page(), "run: python -m tests.docs.configuration"


def test_a_key_without_words_is_refused() -> None:
    @dataclass
    class Told:
        """Something.

        Args:
            one, two: of both,
                and more.
            three: a|b.
        """

        one: int = 1
        two: int = 1
        three: float | None = None
        four: str = ""

    known = described(Told)
    assert known == {"one": "of both, and more.", "two": "of both, and more.", "three": "a\\|b."}
    assert "| `one`, `two` | whole number | `1` | of both, and more. |" in table(Told, known | {"four": "x"}, "here")
    with pytest.raises(KeyError, match=r"Told\.four is in no docstring"):
        table(Told, known, "here")
