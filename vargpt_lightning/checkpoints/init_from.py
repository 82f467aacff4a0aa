"""A model's first weights, submodule by submodule, out of checkpoints of other models.

Nothing is taken or left out in silence: a key that is missing or unused is an error unless it is named in `ignore`, and
the report has an entry for every parameter.

Shape suffixes: N rows of a table, C its width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vargpt_lightning.checkpoints.lazy_tensors import Source
from vargpt_lightning.checkpoints.published.bit_tokenizers import check_decoder, check_kind
from vargpt_lightning.models.core.config import TokenIds
from vargpt_lightning.models.core.families import FAMILIES
from vargpt_lightning.recipe.init_from import InitFrom, NewRows
from vargpt_lightning.utils.errors import UserError

if TYPE_CHECKING:
    from vargpt_lightning.checkpoints.hub import VARGPT
    from vargpt_lightning.checkpoints.open import Checkpoint

WORDS = ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight")
HEAD_BIAS = "language_model.lm_head.bias"
CLASSES = "visual_decoder.class_emb.weight"
HITS = "image_tokenizer.quantize.ema_vocab_hit_SV"
_CHUNK = 4096


def initialise(model: VARGPT, init: InitFrom, seed: int = 0) -> dict[str, Any]:
    """Put weights into a model, which may be sharded, and return the report; arguments and errors as `choose`."""
    from vargpt_lightning.checkpoints.copy import load_tensor

    chosen, report = choose(model, init, seed)
    targets = model.state_dict()
    for key, source in chosen.items():
        load_tensor(targets[key], source, key)
    return report


def choose(model: VARGPT, init: InitFrom, seed: int = 0) -> tuple[dict[str, Source], dict[str, Any]]:
    """Return a model's first weights by its names, unread, and the report (see `describe`); it may be without memory.

    Args:
        seed: of rows that are drawn.

    Raises:
        UserError: a checkpoint cannot be opened, does not fit, or lacks or exceeds what the model expects.
    """
    from vargpt_lightning.checkpoints.open import open_checkpoint

    opened: dict[str, Checkpoint] = {}
    chosen: dict[str, Source] = {}
    targets = model.state_dict()
    unused_patterns = set(init.ignore)
    report: dict[str, Any] = {"parts": {}, "parameters": {}}
    for part, where in init.places().items():
        if where not in opened:
            opened[where] = open_checkpoint(where, model.config.tokenizer.scales, sizes=False)
        name = f"init_from.{part} ({where})"
        wanted = {key for key in targets if key.startswith(f"{part}.")}
        given = {key: value for key, value in opened[where].state.items() if key.startswith(f"{part}.")}
        if not given and (not wanted or (part == "vision_tower" and not init.vision_tower and _packaged(model))):
            continue
        if not given:
            raise UserError(f"{name}: holds {', '.join(opened[where].parts)}; expected {part}")
        if part == "language_model":
            _same_tokens(opened[where], model.config.tokens, name)
            given = _tables(given, model, init.ignore, name)
        _same_settings(opened[where], part, model, name)
        if part == "image_tokenizer":
            own = {key.removeprefix(f"{part}."): value for key, value in given.items()}
            check_kind(own, model.config.tokenizer, name)
        if part == "visual_decoder":
            own = {key.removeprefix(f"{part}."): value for key, value in given.items()}
            check_decoder(own, model.config.tokenizer, name)
        taken = _fit(given, {key: targets[key] for key in wanted}, init.ignore, unused_patterns, name)
        for key, value in taken.items():
            chosen[key] = _grown(key, value, targets[key].shape, opened[where], model, init, seed, name)
        if part == "language_model" and model.config.language.tie_embeddings and WORDS[0] in chosen:
            chosen[WORDS[1]] = chosen[WORDS[0]]  # new rows too are drawn once
        report["parts"][part] = {"from": where, "path": str(opened[where].path), "layout": opened[where].layout}
    if unused_patterns:
        raise UserError(f"init_from.ignore: {sorted(unused_patterns)[0]!r} matches no missing and no unused key")
    report["parameters"] = {key: _origin(key, chosen.get(key), targets[key]) for key in targets}
    return chosen, report


def describe(report: Mapping[str, Any]) -> list[str]:
    """Return a report as lines, one for each submodule: how many numbers, from where, and which of them are new."""
    lines = []
    parameters: Mapping[str, Any] = report["parameters"]
    for part in dict.fromkeys(key.split(".")[0] for key in parameters):
        own = {key: value for key, value in parameters.items() if key.split(".")[0] == part}
        count = sum(value["numbers"] for value in own.values())
        where = report["parts"].get(part)
        fresh = [key for key, value in own.items() if value["from"] is None]
        text = f"{part:<26}{count:>15,}  " + (f"from {where['from']} ({where['layout']})" if where else "new")
        if where and fresh:
            text += f"; new: {', '.join(fresh)}"
        rows = {key: value["new_rows"] for key, value in own.items() if value.get("new_rows")}
        for key, value in rows.items():
            text += f"; {len(value)} new rows ({own[key]['rule']}) in {key.removeprefix(f'{part}.')}"
        lines.append(text)
    return lines


def _packaged(model: VARGPT) -> bool:
    """Whether the tower has the weights that come with its package, which are not stored again."""
    return model.config.vision.kind == "efficientnet_lite0" and model.config.vision.pretrained


def _fit(
    given: dict[str, Any], wanted: Mapping[str, Tensor], ignore: Iterable[str], unused: set[str], name: str
) -> dict[str, Any]:
    """What is taken of a submodule's weights; patterns that serve are struck from `unused`."""

    def ignored(key: str) -> bool:
        found = {pattern for pattern in ignore if fnmatchcase(key, pattern)}
        unused.difference_update(found)
        return bool(found)

    for key in [key for key in wanted if key not in given]:
        if not ignored(key):
            shape = tuple(wanted[key].shape)
            raise UserError(
                f"{name}: key {key} is missing, the model expects it with shape {shape}; name it in init_from.ignore "
                "if it is to start fresh"
            )
    taken = {}
    for key, value in given.items():
        other_scales = key == HITS and key in wanted and value.shape != wanted[key].shape
        if other_scales or (key in wanted and value.shape != wanted[key].shape and ignored(key)):
            continue  # a record of hits means nothing for other scales
        if key in wanted:
            taken[key] = value
        elif not ignored(key):
            raise UserError(
                f"{name}: key {key} of shape {tuple(value.shape)} has no place in the model; name it in "
                "init_from.ignore if it is not to be used"
            )
    return taken


def _same_tokens(checkpoint: Checkpoint, tokens: TokenIds, name: str) -> None:
    """Refuse a language model that knows a special token by another id."""
    for key, theirs in checkpoint.sections.get("tokens", {}).items():
        if theirs != getattr(tokens, key):
            raise UserError(f"{name}: its token {key} has id {theirs}, model.tokens.{key} is {getattr(tokens, key)}")


def _tables(given: dict[str, Any], model: VARGPT, ignore: Iterable[str], name: str) -> dict[str, Any]:
    """The weights with the table of words under both of its names, where the model has one for both."""
    from vargpt_lightning.checkpoints.published.layouts import with_one_table

    if model.config.language.tie_embeddings:
        return with_one_table(given, name)
    fresh = any(fnmatchcase(WORDS[1], pattern) for pattern in ignore)
    if WORDS[0] in given and WORDS[1] not in given and not fresh:
        raise UserError(
            f"{name}: key {WORDS[1]} is missing, its one table serves for both; expected tie_embeddings: true in "
            "model.language, or the key in init_from.ignore if it is to start fresh"
        )
    return given


_SETTINGS = {
    "language_model": (
        "language",
        ("family", "heads", "kv_heads", "head_width", "norm_eps", "rope_theta", "tie_embeddings", "options"),
    ),
    "vision_tower": ("vision", ("kind", "patch_size", "heads", "feature_layer", "feature", "options")),
    "image_tokenizer": ("tokenizer", ("residual_ratio", "normalize_codes", "patchify")),
    "visual_decoder": ("decoder", ("heads", "norm_eps", "shared_adaln", "qk_norm", "level_embedding", "rotary")),
}
"""Settings of a submodule that its shapes do not tell, and without which its weights mean something else."""


def _same_settings(checkpoint: Checkpoint, part: str, model: VARGPT, name: str) -> None:
    """Refuse weights of a submodule with other settings, where the checkpoint tells them."""
    section, keys = _SETTINGS.get(part, ("", ()))
    given, own = checkpoint.sections.get(section, {}), getattr(model.config, section, None)
    for key in keys:
        if key == "feature_layer" and checkpoint.layout == "qwen2_vl":
            continue  # which of its layers is read is no part of Qwen2-VL's weights
        there, here = given.get(key), getattr(own, key)
        if key == "kv_heads":
            there, here = there or given.get("heads"), here or model.config.language.heads
        elif section == "language" and key in ("family", "options"):
            there, here = _as_blocks(key, there), _as_blocks(key, here)
        if key in given and there != here and None not in (there, here):
            raise UserError(f"{name}: its {section}.{key} is {there!r}, model.{section}.{key} is {here!r}")


def _as_blocks(key: str, value: Any) -> Any:
    """A family by whose blocks it has, and its options without what weights do not depend on."""
    if key == "family":
        return FAMILIES[value].blocks or value if value in FAMILIES else value
    return {name: each for name, each in (value or {}).items() if name != "mrope_section"}


def _grown(
    key: str,
    stored: Source,
    shape: torch.Size,
    checkpoint: Checkpoint,
    model: VARGPT,
    init: InitFrom,
    seed: int,
    name: str,
) -> Source:
    """The stored tensor, with new rows where it is a table that lacks some; else of the shape that is expected."""
    rows = stored.shape[0] if stored.shape else 0
    grows = key in (*WORDS, HEAD_BIAS, CLASSES) and stored.shape[1:] == shape[1:] and rows <= shape[0]
    if not grows and stored.shape != shape:
        raise UserError(
            f"{name}: key {key} has shape {tuple(stored.shape)}, the model expects {tuple(shape)}; name it in "
            "init_from.ignore if it is to start fresh"
        )
    if key in (*WORDS, HEAD_BIAS):
        known = checkpoint.sections.get("tokens", {})
        fresh = {getattr(model.tokens, token) for token in _DRAWN if token not in known}
        beyond = set(range(rows, shape[0]))
        fresh = beyond if init.new_rows == "keep" else fresh | beyond
        places = [*range(rows), *[None] * (shape[0] - rows)]
    elif key == CLASSES and rows < shape[0]:
        # the last row stands for no class
        fresh = set(range(rows - 1, shape[0] - 1))
        places = [*range(rows - 1), *[None] * (shape[0] - rows), rows - 1]
    else:
        return stored
    if not fresh:
        return stored
    if init.new_rows == "keep":
        raise UserError(
            f"{name}: key {key} has {rows} rows, the model {shape[0]}; with init_from.new_rows=keep there is nothing "
            "for the others: expected mean or normal"
        )
    return GrownRows(stored, key, shape, tuple(places), frozenset(fresh), init.new_rows, seed)


_DRAWN = ("image_gen_start", "image_gen_end", "image_gen")


@dataclass(frozen=True)
class GrownRows:
    """A stored table whose rows stand in other places, and which has new ones; a `Source`.

    Args:
        stored: the table (N, C), or a number for each row (N,).
        places: for each row, which stored one it is.
        fresh: rows that are new whatever stands in their places.
        rule: how these are made.
    """

    stored: Source
    key: str
    shape: torch.Size
    places: tuple[int | None, ...]
    fresh: frozenset[int]
    rule: NewRows
    seed: int = 0

    @property
    def dtype(self) -> torch.dtype:
        return self.stored.dtype

    def part(self, *where: slice) -> Tensor:
        """Return the rows of the first slice; the stored table is read for these alone, unless one of them is new."""
        rows = range(*(where[0] if where else slice(None)).indices(self.shape[0]))
        columns = where[1:]
        table_NC = torch.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        for first, last, source in self._runs(rows):
            table_NC[first:last] = self.stored.part(slice(source, source + last - first))
        for place, row in enumerate(rows):
            if row in self.fresh:
                table_NC[place] = self._new_row(row).to(self.dtype)
        return table_NC[(slice(None), *columns)] if columns else table_NC

    def _runs(self, rows: range) -> Iterator[tuple[int, int, int]]:
        """Runs of rows that stand side by side in the stored table: first and last place, first stored row."""
        begin = 0
        while begin < len(rows):
            source, end = self.places[rows[begin]], begin + 1
            while end < len(rows) and source is not None and self.places[rows[end]] == source + end - begin:
                end += 1
            if source is not None:
                yield begin, end, source
            begin = end

    def _new_row(self, row: int) -> Tensor:
        mean_C, deviation_C = self._moments
        if self.rule == "mean":
            return mean_C
        digest = hashlib.sha256(f"{self.seed}:{self.key}:{row}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        return mean_C + deviation_C * torch.randn(mean_C.shape, generator=generator, dtype=mean_C.dtype)

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation (C,) of the stored rows that stay, read a few at a time."""
        kept = sorted(source for row, source in enumerate(self.places) if source is not None and row not in self.fresh)
        total, squares = (torch.zeros(self.shape[1:], dtype=torch.float64) for _ in range(2))
        staying = torch.tensor(kept)
        for begin in range(0, self.stored.shape[0], _CHUNK):
            inside = staying[(staying >= begin) & (staying < begin + _CHUNK)] - begin
            chunk_NC = self.stored.part(slice(begin, begin + _CHUNK)).double()[inside]
            total += chunk_NC.sum(0)
            squares += chunk_NC.square().sum(0)
        mean = total / len(kept)
        return mean, (squares / len(kept) - mean.square()).clamp_min(0).sqrt()


def _origin(key: str, source: Any, target: Tensor) -> dict[str, Any]:
    """One entry of the report; `from` is None for what is new."""
    entry: dict[str, Any] = {"shape": list(target.shape), "numbers": target.numel(), "from": None}
    if isinstance(source, GrownRows):
        entry |= {"new_rows": sorted(source.fresh), "rule": source.rule}
        source = source.stored
    if source is not None:
        entry |= {"from": str(source.file), "key": source.key, "dtype": str(source.dtype).removeprefix("torch.")}
    return entry
