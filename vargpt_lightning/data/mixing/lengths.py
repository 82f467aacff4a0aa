"""How many tokens each record of a corpus has, measured once for a text tokenizer and kept.

What is kept are the text's tokens and the numbers of pictures, so that a file serves models with other picture sizes
and contexts. It is named after the hashes of the shards, of the tokenizer and of the template: it cannot go stale.

Shape suffixes: N records.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vargpt_lightning.data.mixing.kept import kept
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.data.shards.records import DRAWN, SEEN, PicturePart, Record, TextPart, Turn
from vargpt_lightning.data.text.chat import ChatTemplate, spoken_texts
from vargpt_lightning.utils.counted import counted
from vargpt_lightning.utils.errors import UserError

_CHUNK = 2048  # records whose texts are encoded together
_FRAME = 2  # tokens around a drawn picture: its start and its end
# what the template makes of this stands for the template itself
_PROBE = Record(
    "",
    "",
    (
        Turn("system", (TextPart("s"),)),
        Turn("user", (PicturePart(SEEN, ""), TextPart("q"))),
        Turn("assistant", (TextPart("a"), PicturePart(DRAWN, ""), TextPart("z"))),
    ),
)


def record_lengths(
    source: ShardDataset, template: ChatTemplate, folder: Path, context: int | None = None, size: int = 0
) -> NDArray[np.int64]:
    """Return the tokens (N,) of each record as the template renders it, from `folder` or measured and kept there.

    A record longer than `context` counts as that: it will be cut, to that length or a shorter one. `size` says which
    of a model's sizes the drawn pictures are of.
    Raises UserError when the file cannot be written.
    """
    counts_N3 = _kept(source, template, folder).astype(np.int64)
    pictures = np.array([1, template.seen_tokens, template.drawn_length(size) + _FRAME])
    lengths_N = counts_N3 @ pictures
    return lengths_N if context is None else np.minimum(lengths_N, context)


def count_tokens(source: ShardDataset, template: ChatTemplate) -> NDArray[np.uint32]:
    """Return for each record its tokens outside of pictures, its seen pictures and its drawn ones: (N, 3)."""
    counts_N3, tokenizer = np.zeros((len(source), 3), np.uint32), template.tokenizer
    if tokenizer.own_chat is not None:
        for place in range(len(source)):
            counts_N3[place] = _counted_whole(source.outline(place), template)
        return counts_N3
    for first in range(0, len(source), _CHUNK):
        texts: list[str] = []
        owners: list[int] = []
        for place in range(first, min(first + _CHUNK, len(source))):
            record = source.outline(place).chosen
            spoken = list(spoken_texts(record, tokenizer.joins_turns))
            texts += spoken
            owners += [place] * len(spoken)
            answers = sum(turn.role == "assistant" for turn in record.turns)
            # the token that opens a record, and the one that closes each answer
            counts_N3[place] = 1 + answers, len(record.pictures(SEEN)), len(record.pictures(DRAWN))
        np.add.at(counts_N3[:, 0], owners, tokenizer.counts(texts))
    return counts_N3


def _counted_whole(record: Record, template: ChatTemplate) -> tuple[int, int, int]:
    """The counts of a record that a chat template writes as a whole; one that it cannot write has one token."""
    try:
        rendered = template.render(record)
    except UserError:
        return 1, 0, 0  # passed over when it is read
    seen, drawn = len(rendered.seen), len(rendered.drawn)
    visual = seen * template.seen_tokens + drawn * (template.drawn_length() + _FRAME)
    return len(rendered.ids) - visual, seen, drawn


def _kept(source: ShardDataset, template: ChatTemplate, folder: Path) -> NDArray[np.uint32]:
    told = f"{source.folder}: measuring the tokens of {counted(len(source), 'record')}, once"
    file = folder / f"{_key(source, template)}.npy"
    return kept(file, (len(source), 3), told, lambda: count_tokens(source, template))


def _key(source: ShardDataset, template: ChatTemplate) -> str:
    tokenizer = template.tokenizer  # whose fingerprint has its own chat template in it
    shards = [[shard["sha256"], shard["count"]] for shard in source.index["shards"]]
    told = json.dumps([shards, tokenizer.fingerprint, list(spoken_texts(_PROBE, tokenizer.joins_turns))])
    return hashlib.sha256(told.encode()).hexdigest()[:24]
