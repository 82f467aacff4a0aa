"""The writer without a network: what it makes of captions, and its seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from vargpt_lightning.data.writing.captions import Caption
from vargpt_lightning.data.writing.filters import Filters, FilterSettings
from vargpt_lightning.data.writing.seeds import DEFAULT_SEEDS, read_seeds
from vargpt_lightning.data.writing.templates import Clauses, TemplateWriter, clauses
from vargpt_lightning.utils.errors import UserError


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a photo of a tench.", Clauses("a tench", "", "", True)),
        ("A close-up photo of a red fox, its tail raised", Clauses("a red fox", "its tail raised", "", True)),
        ("There is a castle on a hill", Clauses("a castle on a hill", "", "", True)),
        ("The image shows two dogs. One is black.", Clauses("two dogs", "", "One is black", True)),
        ("Golden Gate Bridge at dusk", Clauses("Golden Gate Bridge at dusk", "", "", True)),
        ("A dog runs on the beach.", Clauses("a dog runs on the beach", "", "", False)),
        ("A lemon, an apple, and a pear", Clauses("a lemon, an apple, and a pear", "", "", True)),
        ("Dogs, cats", Clauses("Dogs, cats", "", "", True)),
    ],
)
def test_clauses(caption: str, expected: Clauses) -> None:
    assert clauses(caption) == expected


def test_texts_follow_from_seed_and_id_alone() -> None:
    captions = [Caption(f"n{number}", "p", "a tench on grass, seen from above. It is wet.") for number in range(50)]
    one, other = TemplateWriter(read_seeds(), 1), TemplateWriter(read_seeds(), 2)
    first = {caption.id: one.write(caption) for caption in captions}
    assert {caption.id: one.write(caption) for caption in reversed(captions)} == first
    assert sum(other.write(caption) != first[caption.id] for caption in captions) > 40
    assert sum(one.write(caption, 1) != first[caption.id] for caption in captions) > 40


def test_there_is_enough_variety() -> None:
    writer = TemplateWriter(read_seeds())
    same = [writer.write(Caption(f"n{number}", "p", "a tench on grass, seen from above")) for number in range(1000)]
    assert len({text.request for text in same}) > 250 and len({text.answer for text in same}) > 30
    assert len({(text.request, text.answer) for text in same}) > 900


def test_all_that_is_written_passes_the_filters() -> None:
    filters = Filters(FilterSettings(duplicates=None))
    writer = TemplateWriter(read_seeds())
    for caption in ("a tench on grass, seen from above. It is wet.", "A dog runs on the beach.", "a lemon"):
        for number in range(400):
            row = Caption(f"n{number}", "p", caption)
            written = writer.write(row)
            assert filters.reason(row, written) is None, written
            assert "{" not in written.request + written.answer and ".." not in written.request


def test_a_sentence_is_never_put_where_a_noun_belongs() -> None:
    writer = TemplateWriter(read_seeds())
    texts = [writer.write(Caption(f"n{number}", "p", "A dog runs on the beach.")) for number in range(200)]
    assert all("A dog runs on the beach" in text.request and "dog" not in text.answer for text in texts)


def changed(**fields: Any) -> str:
    return yaml.safe_dump({**yaml.safe_load(DEFAULT_SEEDS.read_text()), **fields})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (changed(prompts=["Draw it."]), r"prompts.0: has 0 of \{caption\}, expected one"),
        (changed(answers=["{caption} and {caption}"]), r"answers.0: has 2"),
        (
            changed(answers=["Here is {caption}:"]),
            r"the file: answers: each has .caption.; expected one or more without",
        ),
        (changed(captions=[]), "captions: .*at least 1"),
        (changed(colour="red"), "colour: "),
        ("[1", "is not valid YAML"),
        ("", "the file: "),
    ],
)
def test_seeds_that_will_not_do(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(UserError, match=rf"s.yaml.*: {message}"):
        read_seeds(tmp_path / "s.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        read_seeds(tmp_path / "missing.yaml")
