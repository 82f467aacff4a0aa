"""Texts encoded word by word from a table, where that gives exactly what the tokenizers library gives.

A BPE never joins what its first cut, or its vocabulary, keeps apart. Two kinds of tokenizer are known to be of such
pieces: the byte-level BPE that this package trains, and Llama's (spaces are "▁", which its vocabulary has only at the
beginning of entries). Others are left to the library.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Callable, Collection, Sequence
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers

_MOST = 2**15  # pieces kept, about 5 MB
_LONGEST = 32  # characters of a piece that is kept
_NOT_PLAIN = ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
_SPACE = "▁"
_WORDS = re.compile(f"{_SPACE}*[^{_SPACE}]+|{_SPACE}+")
# what `\p{L}` and the like are in ASCII; beyond it two libraries may know different editions of Unicode
_CLASSES = {r"\s\p{L}\p{N}": r"\sA-Za-z0-9", r"\p{L}": "[A-Za-z]", r"\p{N}": "[0-9]"}


class Pieces:
    """A table of pieces of text and the bytes of their token ids, for one tokenizer; at most so large, then begun anew.

    `cut` makes pieces of a text, the first of which may have `before` characters more than the text has.
    """

    def __init__(
        self, cut: Callable[[str], list[str] | None], encode: Callable[[str], list[int]], before: Callable[[str], int]
    ) -> None:
        self._cut, self._encode, self._before = cut, encode, before
        self._table: dict[str, bytes] = {}

    @classmethod
    def of(cls, tokenizer: Tokenizer, special_ids: Collection[int], pattern: str) -> Pieces | None:
        """Return the table for a tokenizer, None when it is of no kind that may be cut.

        `special_ids` are those that no text may turn into; `pattern` cuts the texts of the package's own tokenizers.
        """
        settings = json.loads(tokenizer.to_str())
        model = settings["model"]
        plain = model["type"] == "BPE" and not any(model.get(name) for name in _NOT_PLAIN)
        if not plain or not all(token["special"] for token in settings["added_tokens"]):
            return None
        known = _own(tokenizer, settings, pattern) or _llama(tokenizer, settings)
        if known is None:
            return None
        cut, encode, before = known
        special = frozenset(special_ids)

        def without_special(piece: str) -> list[int]:
            try:
                ids = encode(piece)
            except UnicodeEncodeError as error:  # half a surrogate pair
                raise _NotCuttable from error
            if not special.isdisjoint(ids):
                raise _NotCuttable
            return ids

        return cls(cut, without_special, before)

    def encode(self, spans: Sequence[str]) -> list[array[int]] | None:
        """Return the ids of the joined spans, those of each span by themselves; None when the library must do it.

        It must where a piece lies in two spans, where a text would turn into a special token, and for half a surrogate
        pair.
        """
        text = "".join(spans)
        pieces = self._cut(text)
        if pieces is None:
            return None
        try:
            found = self._ids(pieces)
        except _NotCuttable:
            return None
        if len(spans) == 1:
            return [array("q", b"".join(found))]
        result: list[array[int]] = []
        end, place, number = 0, -self._before(text), 0
        for span in spans[:-1]:
            end, first = end + len(span), number
            while place < end and end:
                place += len(pieces[number])
                number += 1
            if place > end:
                return None
            result.append(array("q", b"".join(found[first:number])))
        return [*result, array("q", b"".join(found[number:]))]

    def _ids(self, pieces: list[str]) -> list[bytes]:
        table = self._table
        try:
            return [table[piece] for piece in pieces]
        except KeyError:
            return [ids if (ids := table.get(piece)) is not None else self._learn(piece) for piece in pieces]

    def _learn(self, piece: str) -> bytes:
        ids = array("q", self._encode(piece)).tobytes()
        if len(piece) <= _LONGEST:
            if len(self._table) >= _MOST:
                self._table.clear()
            self._table[piece] = ids
        return ids


class _NotCuttable(Exception):
    """A piece that turns into a special token, or that is no text."""


Known = tuple[Callable[[str], "list[str] | None"], Callable[[str], list[int]], Callable[[str], int]]


def _own(tokenizer: Tokenizer, settings: dict[str, Any], pattern: str) -> Known | None:
    """How to cut for a byte-level BPE whose texts are cut by the pattern; ASCII alone."""
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    if settings["normalizer"] or settings["pre_tokenizer"] != {"type": "Sequence", "pretokenizers": [split, level]}:
        return None
    for name, ascii_letters in _CLASSES.items():
        pattern = pattern.replace(name, ascii_letters)
    find = re.compile(pattern, re.ASCII).findall

    def cut(text: str) -> list[str] | None:
        return find(text) if text.isascii() else None

    tokenize, letters = tokenizer.model.tokenize, _byte_letters()

    def encode(piece: str) -> list[int]:
        return [token.id for token in tokenize(piece.translate(letters))]

    return cut, encode, lambda text: 0


def _byte_letters() -> dict[int, str]:
    """What a byte-level BPE writes each ASCII character as."""
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return {byte: level.pre_tokenize_str(chr(byte))[0][0] for byte in range(128)}


def _llama(tokenizer: Tokenizer, settings: dict[str, Any]) -> Known | None:
    """How to cut for Llama's tokenizer, as it was published and as transformers makes it since its edition 5."""
    prepend, replace = {"type": "Prepend", "prepend": _SPACE}, {"type": "Replace", "pattern": {"String": " "}}
    normalizer, pre_tokenizer = settings["normalizer"], settings["pre_tokenizer"]
    old = {"type": "Sequence", "normalizers": [prepend, replace | {"content": _SPACE}]}
    new = {"type": "Metaspace", "replacement": _SPACE, "split": False}
    if normalizer == old and pre_tokenizer is None:
        always = True
    elif normalizer is None and pre_tokenizer in [new | {"prepend_scheme": scheme} for scheme in ("first", "always")]:
        always = False
    else:
        return None
    vocabulary = settings["model"]["vocab"]
    whole = settings["model"].get("byte_fallback") and all(f"<0x{byte:02X}>" in vocabulary for byte in range(256))
    if not whole or any(_SPACE in entry.lstrip(_SPACE) for entry in vocabulary):
        return None
    tokenize = tokenizer.model.tokenize

    def before(text: str) -> int:
        return int(always or text[:1] not in (" ", _SPACE))

    def cut(text: str) -> list[str]:
        return _WORDS.findall(_SPACE * before(text) + text.replace(" ", _SPACE)) if text else []

    def encode(piece: str) -> list[int]:
        return [token.id for token in tokenize(piece)]

    return cut, encode, before
