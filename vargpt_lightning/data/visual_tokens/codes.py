"""The codes of a packed folder's drawn pictures, computed once: what they were made with, and how they are read.

DIR/visual_tokens/<hash>/index.json     made with what, of which shards, how many; written last
                         codes.npy      (R, L) uint16: a row for each picture and variant; of bits (R, L W), in words
                         pictures.npy   (P, 2) int64: a drawn picture's name (64 bits of a hash), its first row or -1
                         records.npy    (records + 1,) int64: where each record's pictures begin in pictures.npy

All three arrays are mapped into memory: any number of workers share what they read of them.

Shape suffixes: P drawn pictures, R rows, V variants, L visual tokens, D bits of a token, W words of 16 that they take.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vargpt_lightning.data.images.pictures import ENDLESS, PictureReader
from vargpt_lightning.data.loading.feature_cache import weights_hash
from vargpt_lightning.data.visual_tokens.bits import unpacked, words_of
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import plain, read_json

FOLDER_NAME, INDEX_NAME, BAD_NAME = "visual_tokens", "index.json", "bad.jsonl"
CODES_NAME, PICTURES_NAME, RECORDS_NAME = "codes.npy", "pictures.npy", "records.npy"
FORMAT_VERSION = 1
MOST_CODES = 2**16
_IDLE_SETTINGS = (
    "beta",
    "dropout",
    "entropy_weight",
    "entropy_sharpness",
)  # of the tokenizer: they matter in its training alone


@dataclass(frozen=True)
class Recipe:
    """What codes depend on: a tokenizer's weights and settings, how pictures are read, and how many variants of each.

    `rounded` is the hash of the weights rounded to bfloat16: training in bfloat16 rounds the tokenizer's too, and what
    was made of the weights as they were before then is still of this tokenizer.
    """

    weights: str
    rounded: str
    tokenizer: Mapping[str, Any]
    picture: Mapping[str, Any]
    variants: int

    @classmethod
    def of(cls, state: Mapping[str, Tensor], settings: Mapping[str, Any], reader: PictureReader) -> Recipe:
        """Return the recipe of a tokenizer, given its `encoding_state` and settings, and a reader of drawn pictures."""
        values = {name: value.detach().float() for name, value in state.items()}
        rounded = {name: value.bfloat16().float() for name, value in values.items()}
        known = {name: value for name, value in settings.items() if name not in _IDLE_SETTINGS}
        picture = {name: value for name, value in asdict(reader).items() if name != "variants"}
        vocabulary = int(settings.get("vocabulary", 2))
        if vocabulary > MOST_CODES:
            raise UserError(f"tokenizer.vocabulary={vocabulary}; visual tokens are kept for at most {MOST_CODES} codes")
        return cls(weights_hash(values), weights_hash(rounded), plain(known), plain(picture), reader.variants)

    @property
    def name(self) -> str:
        """The hash that names the folder of what is made so."""
        settled = [FORMAT_VERSION, self.weights, dict(self.tokenizer), self._picture(self.variants), self.variants]
        return hashlib.sha256(json.dumps(settled, sort_keys=True).encode()).hexdigest()[:16]

    def objection(self, made: Mapping[str, Any]) -> str | None:
        """Return what is wrong with codes whose index says that they were made so; None when they will do."""
        weights = made["weights"] == self.weights
        if not (weights or (self.weights == self.rounded == made["rounded"])):
            return f"made with another tokenizer (weights {made['weights']}, now {self.weights})"
        if changed := _difference(made["tokenizer"], self.tokenizer):
            return f"made with another tokenizer ({changed})"
        if changed := _difference(made["picture"], self._picture(self.variants, made["picture"])):
            return f"made of pictures read otherwise ({changed})"
        if self.variants >= ENDLESS:
            return f"made of {made['variants']} variants, while drawn_variants 0 asks for a new one each time"
        if made["variants"] < self.variants:
            return f"made of {made['variants']} variants of each picture, now {self.variants}"
        return None

    def _picture(self, variants: int, other: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """How pictures are read; whether variants are mirrored is nothing to who takes the pictures themselves."""
        settled = dict(self.picture)
        if variants == 1:
            settled["flip"] = False if other is None else other["flip"]
        return settled

    def to_json(self) -> dict[str, Any]:
        """Return what an index says of the recipe."""
        return {**asdict(self), "picture": self._picture(self.variants)}


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return "; ".join(f"{name} {before.get(name)!r}, now {now.get(name)!r}" for name in changed)


class VisualTokens:
    """Codes that were made of a packed folder's drawn pictures, read row by row.

    Raises UserError when the files are missing, broken, or not as many rows as their index says.
    """

    def __init__(self, folder: Path, variants: int | None = None) -> None:
        self.folder = folder
        self.index: dict[str, Any] = read_json(folder / INDEX_NAME)
        self.variants: int = self.index["made"]["variants"]
        self.bits: int | None = self.index.get("bits")
        self._taken = self.variants if variants is None else min(variants, self.variants)
        count = self.index["counts"]
        expected = {
            "codes": (count["rows"], self.index["tokens"] * words_of(self.bits)),
            "pictures": (count["pictures"], 2),
            "records": (count["records"] + 1,),
        }
        for name, shape in expected.items():
            if (found := getattr(self, name).shape) != shape:
                raise UserError(f"{folder / name}.npy: shape {found}, {INDEX_NAME} says {shape}; delete {folder}")

    @cached_property
    def codes(self) -> np.ndarray:
        """All rows (R, L), uint16; of bits (R, L W)."""
        return self._mapped(CODES_NAME)

    @cached_property
    def pictures(self) -> np.ndarray:
        """Each drawn picture's name and first row (P, 2)."""
        return self._mapped(PICTURES_NAME)

    @cached_property
    def records(self) -> np.ndarray:
        """Where each record's pictures begin (records + 1,)."""
        return self._mapped(RECORDS_NAME)

    def with_variants(self, variants: int) -> VisualTokens:
        """Return the same, giving the first so many variants of each picture."""
        return VisualTokens(self.folder, variants)

    def of_record(self, index: int, names: Sequence[str]) -> list[np.ndarray]:
        """Return the codes of a record's drawn pictures: (V, L), of bits (V, L, D), of nothing V = 0.

        Raises UserError when the record's pictures are not those that the codes were made of.
        """
        first, last = (int(value) for value in self.records[index : index + 2])
        pictures_P2 = self.pictures[first:last]
        if [name_of(name) for name in names] != pictures_P2[:, 0].tolist():
            raise UserError(
                f"{self.folder}: record {index} draws {', '.join(names) or 'nothing'}, other pictures than the visual "
                f"tokens were made of; delete {self.folder} and make them again"
            )
        rows = pictures_P2[:, 1].tolist()
        found = [self.codes[row : row + self._taken] if row >= 0 else self.codes[:0] for row in rows]
        return found if self.bits is None else [unpacked(codes_VW, self.bits) for codes_VW in found]

    def __getstate__(self) -> dict[str, Any]:
        # what is mapped does not travel to worker processes; each maps it for itself
        return {name: value for name, value in vars(self).items() if name not in ("codes", "pictures", "records")}

    def _mapped(self, name: str) -> np.ndarray:
        try:
            # a plain view: a slice of a memory map itself would be pickled together with it
            return np.asarray(np.load(self.folder / name, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError, EOFError) as error:
            raise UserError(
                f"{self.folder / name}: cannot be read ({error}); delete {self.folder} and make it again"
            ) from error


def name_of(name: str) -> int:
    """Return 64 bits that stand for a picture's name."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


@dataclass
class Search:
    """What was looked for and found: codes that will do, or why those that are there will not."""

    found: VisualTokens | None
    objections: list[str]


def find(root: Path, shards: Sequence[Mapping[str, Any]], recipe: Recipe) -> Search:
    """Look below DIR/visual_tokens for codes of these shards (as the packed folder's index lists them).

    Raises UserError for an index that cannot be read.
    """
    objections = []
    for file in sorted(root.glob(f"*/{INDEX_NAME}")):
        index = read_json(file)
        try:
            problem = recipe.objection(index["made"]) or other_shards(index, shards)
            if problem is None:
                return Search(VisualTokens(file.parent), [])
        except (KeyError, TypeError) as error:
            raise UserError(f"{file}: {error!r}; expected an index of visual tokens; delete {file.parent}") from error
        objections.append(f"{file.parent}: {problem}")
    return Search(None, objections)


def other_shards(index: Mapping[str, Any], shards: Sequence[Mapping[str, Any]]) -> str | None:
    """Return in what the shards that codes were made of differ from these; None when in nothing."""
    before = {shard["file"]: shard["sha256"] for shard in index["shards"]}
    now = {shard["file"]: shard["sha256"] for shard in shards}
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if changed or list(before) != list(now):
        return f"made of other shards ({changed[0] if changed else 'in another order'} is not what it was)"
    return None
