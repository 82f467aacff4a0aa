"""Interleaved answers in batches: text, no, one or several pictures, and text again.

A batch is a small state machine. All rows that write take one text step after another until each has ended or has
emitted the start token of a picture, or until the first that wants to draw has waited long enough; then all that want
to draw do so together, one pass a scale, and go on writing. Between two steps others may join. Every row has settings
of its own.

Legend: B rows of the batch, R rows of a step, T prompt length, V text vocabulary, C width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vargpt_lightning.models.core.masks import attention_mask, find_pictures, step_mask
from vargpt_lightning.models.decoder.sampling import Drawing
from vargpt_lightning.models.generation.answers import (
    Answer,
    Finish,
    GenerationSettings,
    PicturePart,
    Prompt,
    TextPart,
    Watcher,
    to_images,
)
from vargpt_lightning.models.generation.drawing import draw_rows
from vargpt_lightning.models.generation.row_sampling import filter_rows, sample_rows
from vargpt_lightning.models.language.kv_cache import LanguageCache
from vargpt_lightning.models.vargpt import VARGPTModel
from vargpt_lightning.utils.errors import UserError

__all__ = [
    "Answer",
    "GenerationSettings",
    "PicturePart",
    "Prompt",
    "TextPart",
    "Watcher",
    "first_token_logits",
    "generate",
]

PATIENCE = 32  # text steps of others that a row waits for before it draws: company makes drawing cheaper


def generate(
    model: VARGPTModel,
    prompts: Sequence[Prompt],
    decode_text: Callable[[list[int]], str],
    settings: GenerationSettings | None = None,
    watcher: Watcher | None = None,
) -> list[Answer]:
    """Answer prompts with text and pictures; an answer depends on its own prompt and row alone.

    Args:
        model: its training mode is put back afterwards.
        decode_text: turns token ids into text.
        settings: of the prompts that have none of their own.
        watcher: is told what is written and drawn as soon as it is there, may end an answer, and may let others join.

    Raises:
        UserError: a prompt is empty, does not fit into the context, or its pictures do not match its placeholders.
    """
    settings = GenerationSettings() if settings is None else settings
    answers: list[Answer] = []
    with torch.no_grad(), _evaluating(model):
        for begin in range(0, len(prompts), settings.batch_size):
            some = prompts[begin : begin + settings.batch_size]
            answers += _Batch(model, decode_text, settings, watcher, len(prompts)).run(some, begin)
    return answers


def first_token_logits(
    model: VARGPTModel, prompts: Sequence[Prompt], settings: GenerationSettings | None = None
) -> Tensor:
    """The logits that the first token of each answer is chosen by, (R, V) float32; -inf of what may not begin one.

    Raises:
        UserError: as `generate` does.
    """
    settings = GenerationSettings() if settings is None else settings
    with torch.no_grad(), _evaluating(model):
        return torch.cat([
            _FirstTokens(model, settings).of(prompts[begin : begin + settings.batch_size], begin)
            for begin in range(0, len(prompts), settings.batch_size)
        ])  # fmt: skip


@dataclass
class _Row:
    """One answer in the making. Row `slot` of the cache holds `length` tokens of it; `pending` comes next.

    `place` is the prompt's number, `room` the tokens that the whole sequence may have.
    """

    place: int
    prompt: Prompt
    context: list[int]
    settings: GenerationSettings
    generator: torch.Generator
    room: int
    slot: int = 0
    length: int = 0
    pending: int = -1
    state: Literal["write", "draw", "done"] = "write"
    written: int = 0
    drawn: int = 0
    waited: int = 0
    text: list[int] = field(default_factory=list)
    answer: Answer = field(default_factory=Answer)


class _Batch:
    """The rows that are answered together, by their places, and their shared cache.

    Args:
        later: the place of the first prompt that joins.
    """

    def __init__(
        self,
        model: VARGPTModel,
        decode_text: Callable[[list[int]], str],
        settings: GenerationSettings,
        watcher: Watcher | None,
        later: int,
    ) -> None:
        self.watcher, self.later = watcher, later
        self.model, self.decode_text, self.settings = model, decode_text, settings
        self.tokens, self.L = model.tokens, model.schedule.num_tokens
        self.device = model.language_model.lm_head.weight.device
        self.rows: dict[int, _Row] = {}
        self.cache: LanguageCache | None = None
        # Ids that stand for what text cannot be; the end token stays even where it serves as padding too.
        never = {self.tokens.image, self.tokens.image_gen, self.tokens.image_gen_end, self.tokens.pad, self.tokens.bos}
        self.never = torch.tensor(sorted(never - {self.tokens.eos}), device=self.device)

    def run(self, prompts: Sequence[Prompt], first: int) -> list[Answer]:
        """Answer prompts, the first of them at place `first`, and all that join; return the answers to the former."""
        given = self._join(prompts, first)
        while True:
            if self.watcher is not None and (some := self.watcher.joining(len(self.rows))):
                self._join(some, self.later)
                self.later += len(some)
            writing, drawing = self._wanted("write"), self._wanted("draw")
            for i in drawing:
                self.rows[i].waited += 1
            if writing and not any(self.rows[i].waited > PATIENCE for i in drawing):
                self._write(writing)
            elif drawing:
                self._draw(drawing)
            elif not self.rows:
                return [row.answer for row in given]

    def _wanted(self, state: str) -> list[int]:
        """The rows in a state; those that nobody waits for end here."""
        found = sorted((row for row in self.rows.values() if row.state == state), key=lambda row: row.slot)
        if self.watcher is not None:
            for row in found:
                if self.watcher.gone(row.place):
                    self._finish(row, "stopped")
        return [row.place for row in found if row.state == state]

    def _join(self, prompts: Sequence[Prompt], first: int) -> list[_Row]:
        """Give prompts their rows, read them, and take each row's first token."""
        added = [self._row(prompt, first + i) for i, prompt in enumerate(prompts)]
        self._make_room(added)
        self.rows |= {row.place: row for row in added}
        self._read_prompts(added)
        return added

    def _make_room(self, added: Sequence[_Row]) -> None:
        """Give new rows their slots of the cache: those of rows that are done, or of a cache that holds all anew.

        No slot is ever without a row, as steps of all rows need no copies of theirs.
        """
        kept = list(self.rows.values())
        capacity = max(row.room for row in [*kept, *added])
        if self.cache is not None and self.cache.rows == len(kept) + len(added) and self.cache.capacity >= capacity:
            free = sorted(set(range(self.cache.rows)) - {row.slot for row in kept})
            for row, slot in zip(added, free, strict=True):
                row.slot = slot
            self.cache.clear(free)
            return
        if self.cache is None or not kept:
            self.cache = None  # before another is made
            self.cache = LanguageCache(self.model.language_model, len(added), capacity)
        else:
            self.cache = self.cache.regrouped([row.slot for row in kept], len(added), capacity)
        for slot, row in enumerate([*kept, *added]):
            row.slot = slot

    def _row(self, prompt: Prompt, place: int) -> _Row:
        context = self._context(prompt, place)
        settings = self.settings if prompt.settings is None else prompt.settings
        seed = settings.seed if prompt.seed is None else prompt.seed
        generator = _stream(seed, place if prompt.row is None else prompt.row)
        wanted = len(context) + settings.max_new_tokens + settings.max_images * (self.L + 1) + 1
        room = min(wanted, self.model.config.language.max_positions)
        return _Row(place, prompt, context, settings, generator, room, length=len(context))

    def _context(self, prompt: Prompt, index: int) -> list[int]:
        """The prompt's ids that are read at once: all but a start token at the end, which is drawn from."""
        ids = [int(token) for token in prompt.input_ids]
        room = self.model.config.language.max_positions
        if len(ids) >= room:
            raise UserError(f"prompt {index}: got {len(ids)} tokens, expected fewer than the context's {room}")
        context = ids[:-1] if ids and ids[-1] == self.tokens.image_gen_start else ids
        if not context:
            raise UserError(f"prompt {index}: got {len(ids)} tokens, expected some before the answer")
        return context

    def _read_prompts(self, rows: Sequence[_Row]) -> None:
        """Run the prompts of new rows through the language model and take each row's first token."""
        longest = max(len(row.context) for row in rows)
        ids_RT = torch.full((len(rows), longest), self.tokens.pad, device=self.device)
        valid_RT = torch.zeros_like(ids_RT, dtype=torch.bool)
        for r, row in enumerate(rows):
            ids_RT[r, : row.length] = torch.tensor(row.context, device=self.device)
            valid_RT[r, : row.length] = True
        layout = find_pictures(ids_RT, self.tokens, self.L)
        batch = {"input_ids": ids_RT, **self._pictures([row.prompt for row in rows])}
        embeds_RTC = self.model.embed(batch, layout, self.model.drawn_pictures(batch))
        mask = attention_mask(layout, valid_RT, self.model.schedule, self.model.settings.visual_attention)
        hidden_RTC = self._run(rows, embeds_RTC, torch.arange(longest, device=self.device).expand_as(ids_RT), mask)
        last_R = torch.tensor([row.length - 1 for row in rows], device=self.device)
        every_R = torch.arange(len(rows), device=self.device)
        logits_RV = self.model.language_model.lm_head(hidden_RTC[every_R, last_R])
        chosen = self._choose(logits_RV, [row.place for row in rows])
        for row, token in zip(rows, chosen, strict=True):
            if len(row.prompt.input_ids) > len(row.context):
                self._begin_given(row)
            else:
                self._take(row, token)

    def _run(self, rows: Sequence[_Row], embeds_RnC: Tensor, slots_Rn: Tensor, mask_R1nS: Tensor) -> Tensor:
        assert self.cache is not None
        return self.cache.run(embeds_RnC, slots_Rn, mask_R1nS, rows=[row.slot for row in rows])

    def _pictures(self, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
        """The prompts' pictures as one batch: features of the seen ones, codes of the drawn ones."""
        seen, drawn = [], []
        for prompt in prompts:
            if prompt.vision_features is not None:
                seen.append(prompt.vision_features.to(self.device))
            elif prompt.pixel_values is not None and len(prompt.pixel_values):
                seen.append(self.model.see(prompt.pixel_values.to(self.device)))
            given = {"drawn_indices": prompt.drawn_indices, "drawn_pixels": prompt.drawn_pixels}
            own = {key: value.to(self.device) for key, value in given.items() if value is not None}
            indices_QL = self.model.drawn_indices(own)
            if indices_QL is not None:
                drawn.append(indices_QL)
        pictures: dict[str, Any] = {}
        if seen:
            pictures["vision_features"] = torch.cat(seen)
        if drawn:
            pictures["drawn_indices"] = torch.cat(drawn)
        return pictures

    def _write(self, places: list[int]) -> None:
        """Feed each row's pending token and take its next one."""
        rows = [self.rows[i] for i in places]
        ids_R1 = torch.tensor([[row.pending] for row in rows], device=self.device)
        slots_R1 = torch.tensor([[row.length] for row in rows], device=self.device)
        embeds_R1C = self.model.language_model.embed(ids_R1)
        mask = step_mask(slots_R1, max(row.length for row in rows) + 1)
        hidden_R1C = self._run(rows, embeds_R1C, slots_R1, mask)
        for row in rows:
            row.length += 1
        chosen = self._choose(self.model.language_model.lm_head(hidden_R1C[:, 0]), places)
        for row, token in zip(rows, chosen, strict=True):
            self._take(row, token)

    def _choose(self, logits_RV: Tensor, places: list[int]) -> list[int]:
        """The next token of each row; no picture is begun where the answer has enough or the context no room."""
        rows = [self.rows[i] for i in places]
        logits_RV = self._allowed(logits_RV, rows)
        chosen_R = logits_RV.argmax(-1)
        if sampled := [r for r, row in enumerate(rows) if row.settings.temperature != 0]:
            own = [rows[r].settings for r in sampled]
            temperature_R1 = torch.tensor([[each.temperature] for each in own], device=self.device)
            logits_R1V = (logits_RV[sampled] / temperature_R1)[:, None]
            filtered_R1V = filter_rows(logits_R1V, [each.text_top_k for each in own], [each.text_top_p for each in own])
            chosen_R[sampled] = sample_rows(filtered_R1V, [rows[r].generator for r in sampled])[:, 0]
        return chosen_R.tolist()

    def _allowed(self, logits_RV: Tensor, rows: Sequence[_Row]) -> Tensor:
        """The logits in float32, -inf of what may not come next."""
        logits_RV = logits_RV.float().index_fill(1, self.never, -torch.inf)
        closed = [r for r, row in enumerate(rows) if not self._may_draw(row)]
        logits_RV[closed, self.tokens.image_gen_start] = -torch.inf
        return logits_RV

    def _may_draw(self, row: _Row) -> bool:
        # Room for the start token, the picture and the end token.
        return row.drawn < row.settings.max_images and row.length + self.L + 2 <= row.room

    def _take(self, row: _Row, token: int) -> None:
        """Move a row on by the token that it has just chosen."""
        row.answer.token_ids.append(token)
        row.written += 1
        row.pending = token
        if token == self.tokens.image_gen_start:
            row.state = "draw"
            return
        if token == self.tokens.eos:
            self._finish(row, "end")
            return
        row.text.append(token)
        if self.watcher is not None or row.settings.stop:
            text = self._decode(row)
            if stop_place(text, row.settings.stop) is not None:
                self._finish(row, "stop")
                return
            if self.watcher is not None:
                self.watcher.text(row.place, text)
        self._check_length(row)

    def _decode(self, row: _Row) -> str:
        """What a row has written since its start or its last picture; the space before it is the template's."""
        return self.decode_text(list(row.text)).lstrip()

    def _begin_given(self, row: _Row) -> None:
        """Let a row whose prompt ends with the start token draw."""
        row.state, row.pending = "draw", self.tokens.image_gen_start
        if not self._may_draw(row):
            expected = f"room for a picture of {self.L} tokens in a context of {row.room}"
            raise UserError(f"prompt: got {row.length + 1} tokens that ask for a picture, expected {expected}")

    def _check_length(self, row: _Row) -> None:
        if row.written >= row.settings.max_new_tokens or row.length >= row.room:
            self._finish(row, "length")

    def _finish(self, row: _Row, reason: Finish) -> None:
        self._close_text(row)
        row.state, row.answer.finished = "done", reason
        del self.rows[row.place]
        if self.watcher is not None:
            self.watcher.ended(row.place, row.answer)

    def _fail(self, row: _Row, error: Exception) -> None:
        if self.watcher is None or not self.watcher.failed(row.place, error):
            raise error
        row.state, row.answer.finished = "done", "stopped"
        del self.rows[row.place]

    def _close_text(self, row: _Row) -> None:
        text = self._decode(row)
        if text := text[: stop_place(text, row.settings.stop)].rstrip():
            self._add(row, TextPart(text, tuple(row.text)))
        row.text = []

    def _add(self, row: _Row, part: TextPart | PicturePart) -> None:
        row.answer.parts.append(part)
        if self.watcher is not None:
            self.watcher.part(row.place, part)

    def _draw(self, places: list[int]) -> None:
        """Draw one picture in each row and close it with the end token."""
        rows = [self.rows[i] for i in places]
        for row in rows:
            self._close_text(row)
        try:
            drawing, failed = self._drawing(rows)
        except _NobodyWaitsError:
            for row in rows:
                self._finish(row, "stopped")
            return
        tokenizer = self.model.image_tokenizer
        images = to_images(tokenizer.decode(drawing.f_hat_BCHW))
        keeping = [r for r, row in enumerate(rows) if row.settings.keep_scales]
        scales = [to_images(x) for x in tokenizer.progressive(drawing.idx_BL[keeping])] if keeping else []
        for r, row in enumerate(rows):
            if r in failed:
                self._fail(row, failed[r])
                continue
            own_scales = tuple(pictures[keeping.index(r)] for pictures in scales) if r in keeping else ()
            logits_LV = None
            if row.settings.keep_logits and drawing.logits_BLV is not None:
                logits_LV = drawing.logits_BLV[r].cpu()
            self._add(row, PicturePart(images[r], drawing.idx_BL[r].cpu(), own_scales, logits_LV))
            row.answer.token_ids += [self.tokens.image_gen] * self.L + [self.tokens.image_gen_end]
            row.length += self.L + 1
            row.drawn += 1
            row.state, row.pending, row.waited = "write", self.tokens.image_gen_end, 0
            if self.model.settings.after_image == "stop":
                self._finish(row, "picture")
            else:
                self._check_length(row)

    def _drawing(self, rows: Sequence[_Row]) -> tuple[Drawing, dict[int, Exception]]:
        assert self.cache is not None
        preset = self.model.sampling_settings()
        return draw_rows(
            self.model,
            self.cache,
            [row.slot for row in rows],
            [row.length for row in rows],
            [row.settings.visual or preset for row in rows],
            [row.generator for row in rows],
            self._tell_scale(rows) if self.watcher is not None else None,
            any(row.settings.keep_logits for row in rows),
        )

    def _tell_scale(self, rows: Sequence[_Row]) -> Callable[[int, Tensor], None]:
        """What passes the pictures after each scale on to the watcher, and ends a drawing that nobody waits for."""
        watcher = self.watcher
        assert watcher is not None

        def tell(k: int, f_hat_RCHW: Tensor) -> None:
            here = [r for r, row in enumerate(rows) if not watcher.gone(row.place)]
            if not here:
                raise _NobodyWaitsError
            if wanted := [r for r in here if watcher.wants_scales(rows[r].place)]:
                images = to_images(self.model.image_tokenizer.decode(f_hat_RCHW[wanted]))
                for r, image in zip(wanted, images, strict=True):
                    watcher.scale(rows[r].place, k, image)

        return tell


def stop_place(text: str, stops: Sequence[str]) -> int | None:
    """Return where the first of some texts begins in another, None where none is in it."""
    return min((place for stop in stops if (place := text.find(stop)) >= 0), default=None)


class _FirstTokens(_Batch):
    """Prompts that are read, and no more."""

    def __init__(self, model: VARGPTModel, settings: GenerationSettings) -> None:
        super().__init__(model, lambda ids: "", settings, None, 0)
        self.logits_RV = torch.empty(0)

    def of(self, prompts: Sequence[Prompt], first: int) -> Tensor:
        """What the first tokens are chosen by, (R, V)."""
        self._join(prompts, first)
        return self.logits_RV

    def _choose(self, logits_RV: Tensor, places: list[int]) -> list[int]:
        self.logits_RV = self._allowed(logits_RV, [self.rows[i] for i in places])
        return super()._choose(logits_RV, places)


class _NobodyWaitsError(Exception):
    """All rows that draw are gone."""


def _stream(seed: int, row: int) -> torch.Generator:
    """A row's own generator: the hash keeps the streams of neighbouring seeds and rows apart."""
    digest = hashlib.sha256(f"{seed}/{row}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode within; afterwards every module has its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
