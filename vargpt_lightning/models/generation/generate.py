"""Interleaved answers in batches: text, no, one or several pictures, and text again.

A batch is a small state machine. All rows that write take one text step after another until each has ended or has
emitted the start token of a picture, or until the first that wants to draw has waited long enough; then all that want
to draw do so together, one pass a scale, and go on writing. Between two steps others may join. Every row has settings
of its own.

Legend: B rows of the batch, R rows of a step, T prompt length, V text vocabulary, C width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vargpt_lightning.models.core.masks import step_mask
from vargpt_lightning.models.generation.answers import (
    Answer,
    Finish,
    GenerationSettings,
    PicturePart,
    Prompt,
    TextPart,
    Watcher,
)
from vargpt_lightning.models.generation.picture_parts import draw_for, drawn_together
from vargpt_lightning.models.generation.reading import context_of, pictures_of, read_contexts
from vargpt_lightning.models.generation.rows import NobodyWaitsError, Row, stream
from vargpt_lightning.models.generation.sources import NoSources
from vargpt_lightning.models.generation.writing import choose, never_written, stop_place
from vargpt_lightning.models.language.kv_cache import LanguageCache
from vargpt_lightning.models.parts.base import Sources
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
    sources: Sources | None = None,
) -> list[Answer]:
    """Answer prompts with text and pictures; an answer depends on its own prompt and row alone.

    Args:
        model: its training mode is put back afterwards.
        decode_text: turns token ids into text.
        settings: of the prompts that have none of their own.
        watcher: is told what is written and drawn as soon as it is there, may end an answer, and may let others join.
        sources: where parts of the sampler get other models, scorers, and text as ids.

    Raises:
        UserError: a prompt is empty, does not fit into the context, or its pictures do not match its placeholders.
    """
    settings = GenerationSettings() if settings is None else settings
    answers: list[Answer] = []
    with torch.no_grad(), _evaluating(model):
        for begin in range(0, len(prompts), settings.batch_size):
            some = prompts[begin : begin + settings.batch_size]
            answers += _Batch(model, decode_text, settings, watcher, len(prompts), sources).run(some, begin)
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
        sources: Sources | None = None,
    ) -> None:
        self.watcher, self.later, self.sources = watcher, later, sources or NoSources()
        self.model, self.decode_text, self.settings = model, decode_text, settings
        self.tokens = model.tokens
        self.device = model.language_model.lm_head.weight.device
        self.rows: dict[int, Row] = {}
        self.cache: LanguageCache | None = None
        self.never = never_written(self.tokens, self.device)

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
                for rows in drawn_together([self.rows[i] for i in drawing]):
                    self._draw(rows)
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

    def _join(self, prompts: Sequence[Prompt], first: int) -> list[Row]:
        """Give prompts their rows, read them, and take each row's first token."""
        added = [self._row(prompt, first + i) for i, prompt in enumerate(prompts)]
        self._make_room(added)
        self.rows |= {row.place: row for row in added}
        self._read_prompts(added)
        return added

    def _make_room(self, added: Sequence[Row]) -> None:
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
            self.cache = self.model.language_cache(len(added), capacity)
        else:
            self.cache = self.cache.regrouped([row.slot for row in kept], len(added), capacity)
        for slot, row in enumerate([*kept, *added]):
            row.slot = slot

    def _row(self, prompt: Prompt, place: int) -> Row:
        context = context_of(self.model, prompt, place)
        settings = self.settings if prompt.settings is None else prompt.settings
        seed = settings.seed if prompt.seed is None else prompt.seed
        generator = stream(seed, place if prompt.row is None else prompt.row)
        if settings.size >= (sizes := len(self.model.schedules)):
            raise UserError(f"size: got {settings.size}, expected a number below {sizes}, the sizes of the model")
        picture = self.model.config.picture_lengths[settings.size]
        wanted = len(context) + settings.max_new_tokens + settings.max_images * (picture + 1) + 1
        room = min(wanted, self.model.config.language.max_positions)
        return Row(place, prompt, context, settings, generator, room, picture, length=len(context))

    def _read_prompts(self, rows: Sequence[Row]) -> None:
        """Run the prompts of new rows through the language model and take each row's first token."""
        assert self.cache is not None
        pictures = pictures_of(self.model, [row.prompt for row in rows])
        slots, contexts = [row.slot for row in rows], [row.context for row in rows]
        last_RC, leads = read_contexts(self.model, self.cache, slots, contexts, pictures)
        for row, lead in zip(rows, leads, strict=True):
            row.lead = lead
        chosen = self._choose(self.model.language_model.lm_head(last_RC), [row.place for row in rows])
        for row, token in zip(rows, chosen, strict=True):
            if len(row.prompt.input_ids) > len(row.context):
                self._begin_given(row)
            else:
                self._take(row, token)

    def _write(self, places: list[int]) -> None:
        """Feed each row's pending token and take its next one."""
        rows = [self.rows[i] for i in places]
        ids_R1 = torch.tensor([[row.pending] for row in rows], device=self.device)
        slots_R1 = torch.tensor([[row.length] for row in rows], device=self.device)
        embeds_R1C = self.model.language_model.embed(ids_R1)
        mask = step_mask(slots_R1, max(row.length for row in rows) + 1)
        positions_R1 = None
        if any(row.ahead for row in rows):
            positions_R1 = slots_R1 + torch.tensor([[row.ahead] for row in rows], device=self.device)
        assert self.cache is not None
        slots = [row.slot for row in rows]
        hidden_R1C = self.cache.run(embeds_R1C, slots_R1, mask, rows=slots, positions_Rn=positions_R1)
        for row in rows:
            row.length += 1
        chosen = self._choose(self.model.language_model.lm_head(hidden_R1C[:, 0]), places)
        for row, token in zip(rows, chosen, strict=True):
            self._take(row, token)

    def _choose(self, logits_RV: Tensor, places: list[int]) -> list[int]:
        """The next token of each row; no picture is begun where the answer has enough or the context no room."""
        rows = [self.rows[i] for i in places]
        return choose(self._allowed(logits_RV, rows), rows)

    def _allowed(self, logits_RV: Tensor, rows: Sequence[Row]) -> Tensor:
        """The logits in float32, -inf of what may not come next."""
        logits_RV = logits_RV.float().index_fill(1, self.never, -torch.inf)
        closed = [r for r, row in enumerate(rows) if not self._may_draw(row)]
        logits_RV[closed, self.tokens.image_gen_start] = -torch.inf
        return logits_RV

    def _may_draw(self, row: Row) -> bool:
        # Room for the start token, the picture and the end token.
        return row.drawn < row.settings.max_images and row.position + row.picture + 2 <= row.room

    def _take(self, row: Row, token: int) -> None:
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

    def _decode(self, row: Row) -> str:
        """What a row has written since its start or its last picture; the space before it is the template's."""
        return self.decode_text(list(row.text)).lstrip()

    def _begin_given(self, row: Row) -> None:
        """Let a row whose prompt ends with the start token draw."""
        row.state, row.pending = "draw", self.tokens.image_gen_start
        if not self._may_draw(row):
            expected = f"room for a picture of {row.picture} tokens in a context of {row.room}"
            raise UserError(f"prompt: got {row.length + 1} tokens that ask for a picture, expected {expected}")

    def _check_length(self, row: Row) -> None:
        if row.written >= row.settings.max_new_tokens or row.position >= row.room:
            self._finish(row, "length")

    def _finish(self, row: Row, reason: Finish) -> None:
        self._close_text(row)
        row.state, row.answer.finished = "done", reason
        del self.rows[row.place]
        if self.watcher is not None:
            self.watcher.ended(row.place, row.answer)

    def _fail(self, row: Row, error: Exception) -> None:
        if self.watcher is None or not self.watcher.failed(row.place, error):
            raise error
        row.state, row.answer.finished = "done", "stopped"
        del self.rows[row.place]

    def _close_text(self, row: Row) -> None:
        text = self._decode(row)
        if text := text[: stop_place(text, row.settings.stop)].rstrip():
            self._add(row, TextPart(text, tuple(row.text)))
        row.text = []

    def _add(self, row: Row, part: TextPart | PicturePart) -> None:
        row.answer.parts.append(part)
        if self.watcher is not None:
            self.watcher.part(row.place, part)

    def _draw(self, rows: Sequence[Row]) -> None:
        """Draw one picture in each row and close it with the end token."""
        assert self.cache is not None
        for row in rows:
            self._close_text(row)
        try:
            drawn = draw_for(self.model.at(rows[0].settings.size), self.cache, rows, self.watcher, self.sources)
        except NobodyWaitsError:
            for row in rows:
                self._finish(row, "stopped")
            return
        for r, (row, part) in enumerate(zip(rows, drawn.parts, strict=True)):
            if part is None:
                self._fail(row, drawn.failed[r])
                continue
            self._add(row, part)
            row.answer.token_ids += [self.tokens.image_gen] * row.picture + [self.tokens.image_gen_end]
            row.length += drawn.filled + 1
            row.gap += row.picture - drawn.filled
            row.drawn += 1
            row.state, row.pending, row.waited = "write", self.tokens.image_gen_end, 0
            if self.model.settings.after_image == "stop":
                self._finish(row, "picture")
            else:
                self._check_length(row)


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
