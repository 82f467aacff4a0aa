"""Encoding by pieces: the ids of the tokenizers library, for every text."""

from __future__ import annotations

import random

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from vargpt_lightning.data.text.text_tokenizer import TextTokenizer

WORDS = ["dog", "Dogs", "house", "the", "street's", "(A)", "x(B)y", "12", "3.5", "...", "</s>", "<image>", "it'll"]
ODD = [" ", "  ", "\n", "\n ", "\t", "\x1c", "\x85", "\xa0", "é", "▁", "狗", "\ud800", "\x00", "²", "_", ":", " :)"]
CORPUS = ["the dog and the dogs in the house on the street's end USER: ASSISTANT: (A) it'll 12 3.5"] * 3


def llama_like(metaspace: str | None) -> TextTokenizer:
    """A BPE over "▁" with bytes for what it does not know, as Llama's is."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    cut = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.pre_tokenizer = cut
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    text = tokenizer.to_str()
    tokenizer = Tokenizer.from_str(text)
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=metaspace, split=False)
    else:
        tokenizer.pre_tokenizer = None
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Metaspace()
    return TextTokenizer(tokenizer)


KINDS = {
    "own": lambda: TextTokenizer.train(CORPUS, 330),
    "prepend": lambda: llama_like(None),
    "first": lambda: llama_like("first"),
    "always": lambda: llama_like("always"),
}


def sayings(count: int) -> list[list[str]]:
    """Texts in spans, of words and of what is odd between them."""
    chance = random.Random(0)
    pick = lambda: "".join(chance.choice(WORDS if chance.random() < 0.6 else ODD) for _ in range(chance.randrange(9)))  # noqa: E731
    return [[pick() for _ in range(chance.randrange(1, 4))] for _ in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_ids_are_the_librarys_and_lie_in_the_span_of_their_end(kind: str) -> None:
    tokens = KINDS[kind]()
    assert tokens._pieces is not None
    by_table = 0
    for spans in sayings(1500):
        ids, offsets = tokens.encode_with_offsets("".join(spans))
        where = [number for number, span in enumerate(spans) for _ in span]
        wanted: list[list[int]] = [[] for _ in spans]
        for index, (_, end) in zip(ids, offsets, strict=True):
            wanted[where[max(end - 1, 0)]].append(index)
        assert [found.tolist() for found in tokens.encode_spans(spans)] == wanted, spans
        by_table += tokens._pieces.encode(spans) is not None
    assert by_table > 300  # the rest: odd letters, and pieces over two spans


@pytest.mark.parametrize("kind", KINDS)
def test_plain_text_is_cut(kind: str) -> None:
    pieces = KINDS[kind]()._pieces
    assert pieces is not None and pieces.encode(["ASSISTANT:", " The dog, it'll be in (A) 12 houses."]) is not None


def test_a_vocabulary_with_spaces_inside_is_not_cut() -> None:
    tokenizer = Tokenizer.from_str(llama_like("first")._tokenizer.to_str())
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator(["of the of the of the"] * 9, trainer)
    tokenizer.add_special_tokens([f"<0x{byte:02X}>" for byte in range(256)])
    assert any("▁" in entry.lstrip("▁") for entry in tokenizer.get_vocab())
    assert TextTokenizer(tokenizer)._pieces is None


def test_the_table_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vargpt_lightning.data.text.text_pieces._MOST", 4)
    tokens = TextTokenizer.train(CORPUS, 330)
    text = "the dog and the dogs in the house"
    assert tokens.encode(text) == tokens.encode_with_offsets(text)[0]
    assert tokens._pieces is not None and len(tokens._pieces._table) <= 4
