"""The rows of a batch: one answer in the making each, with its settings, random stream and place in the cache."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal

import torch

from vargpt_lightning.models.generation.answers import Answer, GenerationSettings, Prompt


@dataclass
class Row:
    """One answer in the making. Row `slot` of the cache holds `length` tokens of it; `pending` comes next.

    `place` is the prompt's number, `room` the tokens that the whole sequence may have, `picture` the places of one of
    its pictures, `gap` how many tokens of its pictures the cache does not hold: those that a part of the sampler has
    left out, and those that fill places up. `lead` is by how much positions are larger than places in the sequence.
    """

    place: int
    prompt: Prompt
    context: list[int]
    settings: GenerationSettings
    generator: torch.Generator
    room: int
    picture: int
    slot: int = 0
    length: int = 0
    gap: int = 0
    lead: int = 0
    pending: int = -1
    state: Literal["write", "draw", "done"] = "write"
    written: int = 0
    drawn: int = 0
    waited: int = 0
    text: list[int] = field(default_factory=list)
    answer: Answer = field(default_factory=Answer)

    @property
    def position(self) -> int:
        """The tokens of its sequence so far, before `pending`."""
        return self.length + self.gap

    @property
    def ahead(self) -> int:
        """By how much positions are larger than slots of the cache."""
        return self.gap + self.lead

    @property
    def sequence(self) -> list[int]:
        """The ids of these tokens."""
        return [*self.context, *self.answer.token_ids][: self.position]


class NobodyWaitsError(Exception):
    """All rows that draw are gone."""


def stream(seed: int, row: int) -> torch.Generator:
    """Return a row's own generator: the hash keeps the streams of neighbouring seeds and rows apart."""
    digest = hashlib.sha256(f"{seed}/{row}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
