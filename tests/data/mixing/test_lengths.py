"""Lengths of records: those of the rendered records, measured once, without reading a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.conftest import asked, drawn
from vargpt_lightning.data.mixing import lengths as subject
from vargpt_lightning.data.mixing.lengths import record_lengths
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.data.shards.format import write_source
from vargpt_lightning.data.shards.records import Record, TextPart, Turn
from vargpt_lightning.data.text.chat import ChatTemplate
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer


def records() -> list[Record]:
    system = Turn("system", (TextPart("Be kind, and never say </s> or \ud800."),))
    talk = asked("x").turns + drawn("y").turns + asked("z").turns
    return [asked("a"), drawn("b"), Record("c", "t", talk), Record("d", "t", (system, *asked("d").turns))]


@pytest.fixture
def source(tmp_path: Path) -> ShardDataset:
    # a lone surrogate cannot be stored; the tokenizer meets it below
    stored = [Record.from_json(_clean(record.to_json()), [p.data for p in record.pictures()]) for record in records()]
    write_source(stored, tmp_path / "shards", split="train", shard_bytes=4000)
    return ShardDataset(tmp_path / "shards")


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value.replace("\ud800", "?") if isinstance(value, str) else value


@pytest.mark.parametrize(("seen", "picture"), [(4, 5), (9, 30)])
def test_lengths_are_those_of_the_rendered_records(
    seen: int, picture: int, source: ShardDataset, tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    template = ChatTemplate(tokenizer, seen, picture)
    found = record_lengths(source, template, tmp_path / "kept")
    assert found.tolist() == [len(template.render(record).ids) for record in source]


def test_counts_of_texts_are_the_numbers_of_their_ids(tokenizer: TextTokenizer) -> None:
    texts = ["", "a lone \ud800 half", "</s> <image> of a user", "häßlich 漢字"]
    assert tokenizer.counts(texts) == [len(tokenizer.encode(text)) for text in texts]


def test_a_cut_record_counts_as_no_more_than_the_context(
    source: ShardDataset, tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    template = ChatTemplate(tokenizer, 4, 5)
    found = record_lengths(source, template, tmp_path, context=30)
    cut = [len(template.render(record, 30).ids) for record in source]
    assert found.max() == 30 and all(one >= other for one, other in zip(found, cut, strict=True))


def test_they_are_measured_once(
    source: ShardDataset, tokenizer: TextTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = ChatTemplate(tokenizer, 4, 5)
    first = record_lengths(source, template, tmp_path)
    monkeypatch.setattr(subject, "count_tokens", lambda *_: pytest.fail("measured again"))
    assert np.array_equal(record_lengths(source, template, tmp_path), first)
    # sizes of pictures are not part of what is kept
    record_lengths(source, ChatTemplate(tokenizer, 9, 14), tmp_path)


def test_another_tokenizer_or_other_shards_are_measured_anew(
    source: ShardDataset, tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    template, folder = ChatTemplate(tokenizer, 4, 5), tmp_path / "kept"
    record_lengths(source, template, folder)
    plain = TextTokenizer.train(["only these"], 270)
    found = record_lengths(source, ChatTemplate(plain, 4, 5), folder)
    assert found.tolist() == [len(ChatTemplate(plain, 4, 5).render(record).ids) for record in source]
    write_source([drawn("other")], tmp_path / "more", split="train")
    assert len(record_lengths(ShardDataset(tmp_path / "more"), template, folder)) == 1
    assert len(list(folder.glob("*.npy"))) == 3


def test_a_torn_file_is_measured_again(source: ShardDataset, tokenizer: TextTokenizer, tmp_path: Path) -> None:
    template = ChatTemplate(tokenizer, 4, 5)
    first = record_lengths(source, template, tmp_path)
    (file,) = tmp_path.glob("*.npy")
    file.write_bytes(file.read_bytes()[:-7])
    assert np.array_equal(record_lengths(source, template, tmp_path), first)


def test_no_picture_is_read(source: ShardDataset) -> None:
    outline = source.outline(2)
    assert outline == source[2] and all(part.data is None for part in outline.pictures())
