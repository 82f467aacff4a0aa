"""What each batch is of its optimizer step: the step's tokens and pictures over all processes and accumulated batches.

A loss is the mean over all trained tokens of a step, not a mean of the processes' means. Each process therefore has to
know the step's counts before it computes the gradient of its first batch, and all have to pass through the same modules
in the same order, for sharded weights are gathered together: where a process has no picture to see or to draw and
another has, it gets an idle row whose losses count nothing.

Legend: B rows, T tokens, L visual tokens of a picture, N feature tokens of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from vargpt_lightning.models.core.losses import IGNORED
from vargpt_lightning.models.vargpt import VARGPTModel

SHARE = "share"
SEEN_KEYS = ("pixel_values", "vision_features")
DRAWN_KEYS = ("drawn_pixels", "drawn_indices")


class Counts(NamedTuple):
    """What there is to train on: answer tokens, records, and pictures by the key that holds them."""

    text: int = 0
    rows: int = 0
    pixel_values: int = 0
    vision_features: int = 0
    drawn_pixels: int = 0
    drawn_indices: int = 0

    @property
    def drawn(self) -> int:
        """Drawn pictures."""
        return self.drawn_pixels + self.drawn_indices

    @property
    def seen(self) -> int:
        """Seen pictures."""
        return self.pixel_values + self.vision_features


def total(counts: Iterable[Counts]) -> Counts:
    """Return the sums."""
    return Counts(*(sum(column) for column in zip(*counts, strict=True)))


class Share:
    """One process's batch beside those of all others; opaque to what moves a batch's tensors between devices.

    Attributes:
        own: what this batch has.
        batch: the same, of all processes' batches that are trained at the same time.
        before: of the processes before this one.
        step: of all batches of the optimizer step.
        parts: how many batches make the step, on all processes together; each one's loss is divided by it.
        covered: whether the step's last batches pass through all that the ones before them do.
    """

    __slots__ = ("batch", "before", "covered", "own", "parts", "step")

    def __init__(self, own: Counts, batch: Counts, before: Counts, step: Counts, parts: int, covered: bool) -> None:
        self.own, self.batch, self.before, self.step = own, batch, before, step
        self.parts, self.covered = parts, covered

    def text_factor(self) -> float:
        """What a mean over this batch's answer tokens is multiplied with, to be its part of the step's mean."""
        return self.own.text * self.parts / self.step.text if self.step.text else 0.0

    def image_factor(self) -> float:
        """The same for a mean over this batch's drawn pictures."""
        return self.own.drawn * self.parts / self.step.drawn if self.step.drawn else 0.0

    def row_factor(self) -> float:
        """The same for a mean over this batch's samples."""
        return self.own.rows * self.parts / self.step.rows if self.step.rows else 0.0


class StepBatches:
    """The batches of a loader, each with its `Share` of the optimizer step; idle rows added where others need them.

    Without a length, as the loader's own: Lightning would end a resumed stage too early.

    Args:
        batches: this process's; all processes have as many.
        model: says which tokens are trained, and how large an idle picture is.
        accumulate: batches an optimizer step.
        decoder_alone: whether text is left out wherever a picture is drawn.
        processes: how many take part; their counts are exchanged once a step.
        group: of processes on the CPU; the default one without.
    """

    def __init__(
        self,
        batches: Iterable[dict[str, Any]],
        model: VARGPTModel,
        accumulate: int = 1,
        decoder_alone: bool = False,
        processes: int = 1,
        group: Any = None,
    ) -> None:
        self.batches, self.model, self.accumulate = batches, model, accumulate
        self.decoder_alone, self.processes, self.group = decoder_alone, processes, group

    def __iter__(self) -> Iterator[dict[str, Any]]:
        waiting: list[dict[str, Any]] = []
        for batch in self.batches:
            waiting.append(batch)
            if len(waiting) == self.accumulate:
                yield from self._shared(waiting)
                waiting = []
        if waiting:
            yield from self._shared(waiting)

    def _shared(self, batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
        own = [self.count(batch) for batch in batches]
        every, rank = self._exchange(own)
        together = [total(process[part] for process in every) for part in range(len(batches))]
        if self.decoder_alone:
            together = [counts._replace(text=0) if counts.drawn else counts for counts in together]
        step = total(together)
        last = together[-1]
        covered = all(
            bool(last[kind]) or not any(counts[kind] for counts in together) for kind in range(len(Counts._fields))
        )
        for part, batch in enumerate(batches):
            before = total([Counts(), *(process[part] for process in every[:rank])])
            parts = self.processes * self.accumulate
            batch[SHARE] = Share(own[part], together[part], before, step, parts, covered)
            self._add_idle_row(batch, own[part], together[part])
        return batches

    def count(self, batch: dict[str, Any]) -> Counts:
        """Return what a batch has to train on."""
        labels_BT = self.model.text_labels(batch)
        text = 0 if labels_BT is None else int((labels_BT[:, 1:] != IGNORED).sum())
        pictures = {key: len(batch[key]) for key in (*SEEN_KEYS, *DRAWN_KEYS) if batch.get(key) is not None}
        return Counts(text=text, rows=batch.get("samples", len(batch["input_ids"])), **pictures)

    def _exchange(self, own: list[Counts]) -> tuple[list[list[Counts]], int]:
        """Every process's counts of each batch, and which of them are this one's."""
        if self.processes == 1:
            return [own], 0
        mine = torch.tensor(own)
        every = [torch.empty_like(mine) for _ in range(self.processes)]
        dist.all_gather(every, mine, group=self.group)
        return [[Counts(*row) for row in counts.tolist()] for counts in every], dist.get_rank()

    def _add_idle_row(self, batch: dict[str, Any], own: Counts, all_have: Counts) -> None:
        """Append a row with what other processes' batches have and this one lacks."""
        alone = self.decoder_alone and all_have.drawn > 0
        seen = "" if alone else next((key for key in SEEN_KEYS if getattr(all_have, key) and not own.seen), "")
        drawn = next((key for key in DRAWN_KEYS if getattr(all_have, key) and not own.drawn), "")
        text = bool(all_have.text and not own.text)
        if not (seen or drawn or text):
            return
        tokens, vision = self.model.tokens, self.model.config.vision
        ids = [tokens.bos]
        ids += [tokens.image] * vision.patches if seen else []
        model = self.model.of(batch)
        length = model.picture_length
        ids += [tokens.image_gen_start, *[tokens.image_gen] * length, tokens.image_gen_end] if drawn else []
        ids.append(tokens.eos)
        labels = [IGNORED] * (len(ids) - 1) + [tokens.eos if text else IGNORED]
        targets_BT = self.model.text_labels(batch)
        if targets_BT is not None:
            # what a row with a drawn picture trains beside its labels, an idle one does not, nor new padding of others
            batch["text_targets"] = _with_row(targets_BT, labels, IGNORED)
        batch["input_ids"] = _with_row(batch["input_ids"], ids, tokens.pad)
        batch["attention_mask"] = _with_row(batch["attention_mask"], [True] * len(ids), False)
        if "segment_ids" in batch:  # of rows that hold several records
            batch["segment_ids"] = _with_row(batch["segment_ids"], [1] * len(ids), 0)
        if batch.get("labels") is not None:
            batch["labels"] = _with_row(batch["labels"], labels, IGNORED)
        shapes: dict[str, tuple[int, ...]] = {
            "pixel_values": (1, *vision.input_shape),
            "vision_features": (1, vision.patches, vision.channels),
            "drawn_pixels": (1, 3, *model.image_tokenizer.picture_shape),
            "drawn_indices": (1, *model.image_tokenizer.code_shape),
        }
        for key in (seen, drawn):
            if key:
                batch[key] = torch.zeros(shapes[key], dtype=torch.long if key == "drawn_indices" else torch.float32)


def _with_row(rows_BT: Tensor, row: list[Any], fill: Any) -> Tensor:
    """Return the rows with one more, all of them padded to the longest."""
    length = max(rows_BT.shape[1], len(row))
    wider_BT = rows_BT.new_full((len(rows_BT) + 1, length), fill)
    wider_BT[:-1, : rows_BT.shape[1]] = rows_BT
    wider_BT[-1, : len(row)] = torch.tensor(row, dtype=rows_BT.dtype)
    return wider_BT
