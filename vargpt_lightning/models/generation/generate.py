"""Interleaved answers in batches: text, no, one or several pictures, and text again.

A batch is a small state machine. All rows that write take one text step after another until each has ended or has
emitted the start token of a picture; then all rows that wait draw together, one pass a scale, and go on writing.

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
from vargpt_lightning.models.decoder.sampling import filter_logits, sample_indices
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
from vargpt_lightning.models.generation.drawing import draw_pictures
from vargpt_lightning.models.language.kv_cache import LanguageCache
from vargpt_lightning.models.vargpt import VARGPTModel
from vargpt_lightning.utils.errors import UserError

__all__ = ["Answer", "GenerationSettings", "PicturePart", "Prompt", "TextPart", "Watcher", "generate"]


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
        watcher: is told what is written and drawn as soon as it is there, and may end an answer.

    Raises:
        UserError: a prompt is empty, does not fit into the context, or its pictures do not match its placeholders.
    """
    settings = GenerationSettings() if settings is None else settings
    answers: list[Answer] = []
    with torch.no_grad(), _evaluating(model):
        for begin in range(0, len(prompts), settings.batch_size):
            some = prompts[begin : begin + settings.batch_size]
            answers += _Batch(model, some, begin, decode_text, settings, watcher).run()
    return answers


@dataclass
class _Row:
    """One answer in the making. The cache holds `length` tokens of it; `pending` comes next."""

    generator: torch.Generator
    length: int
    pending: int = -1
    state: Literal["write", "draw", "done"] = "write"
    written: int = 0
    drawn: int = 0
    text: list[int] = field(default_factory=list)
    answer: Answer = field(default_factory=Answer)


class _Batch:
    """The rows that are answered together, and their shared cache."""

    def __init__(
        self,
        model: VARGPTModel,
        prompts: Sequence[Prompt],
        first: int,
        decode_text: Callable[[list[int]], str],
        settings: GenerationSettings,
        watcher: Watcher | None = None,
    ) -> None:
        self.first, self.watcher = first, watcher
        self.model, self.decode_text, self.settings = model, decode_text, settings
        self.tokens, self.L = model.tokens, model.schedule.num_tokens
        self.visual = settings.visual or model.sampling_settings()
        self.device = model.language_model.lm_head.weight.device
        self.contexts = [self._context(prompt, first + i) for i, prompt in enumerate(prompts)]
        self.prompts = prompts
        self.rows = [
            _Row(self._stream_of(prompt, first + i), len(context))
            for i, (prompt, context) in enumerate(zip(prompts, self.contexts, strict=True))
        ]
        longest = max(len(context) for context in self.contexts)
        wanted = longest + settings.max_new_tokens + settings.max_images * (self.L + 1) + 1
        self.capacity = min(wanted, model.config.language.max_positions)
        self.cache = LanguageCache(model.language_model, len(prompts), self.capacity)
        # Ids that stand for what text cannot be; the end token stays even where it serves as padding too.
        never = {self.tokens.image, self.tokens.image_gen, self.tokens.image_gen_end, self.tokens.pad, self.tokens.bos}
        self.never = torch.tensor(sorted(never - {self.tokens.eos}), device=self.device)

    def run(self) -> list[Answer]:
        """Answer all prompts."""
        self._read_prompts()
        while True:
            while writing := self._wanted("write"):
                self._write(writing)
            drawing = self._wanted("draw")
            if not drawing:
                return [row.answer for row in self.rows]
            self._draw(drawing)

    def _wanted(self, state: str) -> list[int]:
        """The rows in a state; those that nobody waits for end here."""
        rows = [i for i, row in enumerate(self.rows) if row.state == state]
        if self.watcher is not None:
            for i in rows:
                if self.watcher.gone(self.first + i):
                    self._finish(self.rows[i], "stopped")
        return [i for i in rows if self.rows[i].state == state]

    def _stream_of(self, prompt: Prompt, place: int) -> torch.Generator:
        seed = self.settings.seed if prompt.seed is None else prompt.seed
        return _stream(seed, place if prompt.row is None else prompt.row)

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

    def _read_prompts(self) -> None:
        """Run all prompts through the language model and take each row's first token."""
        longest = max(len(context) for context in self.contexts)
        ids_BT = torch.full((len(self.rows), longest), self.tokens.pad, device=self.device)
        valid_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
        for i, context in enumerate(self.contexts):
            ids_BT[i, : len(context)] = torch.tensor(context, device=self.device)
            valid_BT[i, : len(context)] = True
        layout = find_pictures(ids_BT, self.tokens, self.L)
        batch = {"input_ids": ids_BT, **self._pictures()}
        embeds_BTC = self.model.embed(batch, layout, self.model.drawn_pictures(batch))
        mask = attention_mask(layout, valid_BT, self.model.schedule, self.model.settings.visual_attention)
        slots_BT = torch.arange(longest, device=self.device).expand_as(ids_BT)
        hidden_BTC = self.cache.run(embeds_BTC, slots_BT, mask)
        last_B = torch.tensor([len(context) - 1 for context in self.contexts], device=self.device)
        every_B = torch.arange(len(self.rows), device=self.device)
        logits_BV = self.model.language_model.lm_head(hidden_BTC[every_B, last_B])
        begun = [
            self.tokens.image_gen_start if len(prompt.input_ids) > len(context) else None
            for prompt, context in zip(self.prompts, self.contexts, strict=True)
        ]
        chosen = self._choose(logits_BV, list(range(len(self.rows))))
        for row, start, token in zip(self.rows, begun, chosen, strict=True):
            if start is None:
                self._take(row, token)
            else:
                self._begin_given(row)

    def _pictures(self) -> dict[str, Tensor]:
        """The prompts' pictures as one batch: features of the seen ones, codes of the drawn ones."""
        seen, drawn = [], []
        for prompt in self.prompts:
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

    def _write(self, rows: list[int]) -> None:
        """Feed each row's pending token and take its next one."""
        ids_R1 = torch.tensor([[self.rows[i].pending] for i in rows], device=self.device)
        slots_R1 = torch.tensor([[self.rows[i].length] for i in rows], device=self.device)
        embeds_R1C = self.model.language_model.model.embed_tokens(ids_R1)
        mask = step_mask(slots_R1, int(slots_R1.max()) + 1)
        hidden_R1C = self.cache.run(embeds_R1C, slots_R1, mask, rows=rows)
        for i in rows:
            self.rows[i].length += 1
        chosen = self._choose(self.model.language_model.lm_head(hidden_R1C[:, 0]), rows)
        for i, token in zip(rows, chosen, strict=True):
            self._take(self.rows[i], token)

    def _choose(self, logits_RV: Tensor, rows: list[int]) -> list[int]:
        """The next token of each row; no picture is begun where the answer has enough or the context no room."""
        logits_RV = logits_RV.float().index_fill(1, self.never, -torch.inf)
        closed = [r for r, i in enumerate(rows) if not self._may_draw(self.rows[i])]
        logits_RV[closed, self.tokens.image_gen_start] = -torch.inf
        if self.settings.temperature == 0:
            return logits_RV.argmax(-1).tolist()
        logits_R1V = (logits_RV / self.settings.temperature)[:, None]
        filtered_R1V = filter_logits(logits_R1V, self.settings.text_top_k, self.settings.text_top_p)
        streams = [self.rows[i].generator for i in rows]
        return sample_indices(filtered_R1V, generator=streams)[:, 0].tolist()

    def _may_draw(self, row: _Row) -> bool:
        # Room for the start token, the picture and the end token.
        return row.drawn < self.settings.max_images and row.length + self.L + 2 <= self.capacity

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
        if self.watcher is not None or self.settings.stop:
            text = self._decode(row)
            if stop_place(text, self.settings.stop) is not None:
                self._finish(row, "stop")
                return
            if self.watcher is not None:
                self.watcher.text(self._place(row), text)
        self._check_length(row)

    def _decode(self, row: _Row) -> str:
        """What a row has written since its start or its last picture; the space before it is the template's."""
        return self.decode_text(list(row.text)).lstrip()

    def _begin_given(self, row: _Row) -> None:
        """Let a row whose prompt ends with the start token draw."""
        row.state, row.pending = "draw", self.tokens.image_gen_start
        if not self._may_draw(row):
            expected = f"room for a picture of {self.L} tokens in a context of {self.capacity}"
            raise UserError(f"prompt: got {row.length + 1} tokens that ask for a picture, expected {expected}")

    def _check_length(self, row: _Row) -> None:
        if row.written >= self.settings.max_new_tokens or row.length >= self.capacity:
            self._finish(row, "length")

    def _finish(self, row: _Row, reason: Finish) -> None:
        self._close_text(row)
        row.state, row.answer.finished = "done", reason

    def _close_text(self, row: _Row) -> None:
        text = self._decode(row)
        if text := text[: stop_place(text, self.settings.stop)].rstrip():
            self._add(row, TextPart(text, tuple(row.text)))
        row.text = []

    def _add(self, row: _Row, part: TextPart | PicturePart) -> None:
        row.answer.parts.append(part)
        if self.watcher is not None:
            self.watcher.part(self._place(row), part)

    def _place(self, row: _Row) -> int:
        return self.first + next(i for i, other in enumerate(self.rows) if other is row)

    def _draw(self, rows: list[int]) -> None:
        """Draw one picture in each row and close it with the end token."""
        lengths = [self.rows[i].length for i in rows]
        streams = [self.rows[i].generator for i in rows]
        for i in rows:
            self._close_text(self.rows[i])
        told = self._tell_scale(rows) if self.watcher is not None else None
        try:
            drawing = draw_pictures(self.model, self.cache, rows, lengths, self.visual, streams, on_scale=told)
        except _NobodyWaitsError:
            for i in rows:
                self._finish(self.rows[i], "stopped")
            return
        tokenizer = self.model.image_tokenizer
        images = to_images(tokenizer.decode(drawing.f_hat_BCHW))
        scales = [to_images(x) for x in tokenizer.progressive(drawing.idx_BL)] if self.settings.keep_scales else []
        for r, i in enumerate(rows):
            row = self.rows[i]
            own_scales = tuple(pictures[r] for pictures in scales)
            self._add(row, PicturePart(images[r], drawing.idx_BL[r].cpu(), own_scales))
            row.answer.token_ids += [self.tokens.image_gen] * self.L + [self.tokens.image_gen_end]
            row.length += self.L + 1
            row.drawn += 1
            row.state, row.pending = "write", self.tokens.image_gen_end
            if self.model.settings.after_image == "stop":
                self._finish(row, "picture")
            else:
                self._check_length(row)

    def _tell_scale(self, rows: list[int]) -> Callable[[int, Tensor], None]:
        """What passes the pictures after each scale on to the watcher, and ends a drawing that nobody waits for."""
        watcher = self.watcher
        assert watcher is not None

        def tell(k: int, f_hat_RCHW: Tensor) -> None:
            here = [r for r, i in enumerate(rows) if not watcher.gone(self.first + i)]
            if not here:
                raise _NobodyWaitsError
            if wanted := [r for r in here if watcher.wants_scales(self.first + rows[r])]:
                images = to_images(self.model.image_tokenizer.decode(f_hat_RCHW[wanted]))
                for r, image in zip(wanted, images, strict=True):
                    watcher.scale(self.first + rows[r], k, image)

        return tell


def stop_place(text: str, stops: Sequence[str]) -> int | None:
    """Return where the first of some texts begins in another, None where none is in it."""
    return min((place for stop in stops if (place := text.find(stop)) >= 0), default=None)


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
