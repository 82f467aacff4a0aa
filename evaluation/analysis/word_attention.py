"""A drawing and the words that it was drawn by: how much each scale attends to each word, and where.

Legend: N layers, H heads, K scales, L visual tokens of all scales, W words, T tokens of the sequence, s a scale's side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from vargpt_lightning.data.text.text_tokenizer import TextTokenizer
from vargpt_lightning.evaluation.analysis.run_plots import PRINT, new_figure
from vargpt_lightning.evaluation.base.plot_texts import plain_texts
from vargpt_lightning.inference.assistant import Assistant, Conversation
from vargpt_lightning.models.core.scales import ScaleSchedule
from vargpt_lightning.models.generation.attention_maps import drawing_attention

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

PICTURE = "(picture)"


@dataclass(frozen=True)
class WordAttention:
    """A drawing with the attention of its tokens to the words before it.

    Attributes:
        image: the drawing; `scales` are the pictures after each scale.
        words: of prompt and answer, special tokens too; each may be several tokens.
        weights_NHLW: attention to each word, the sum over its tokens; what is missing from 1 went to the drawing.
        prompt_words: how many of the words are the prompt's; those after them are the answer's.
    """

    image: Image.Image
    scales: tuple[Image.Image, ...]
    words: tuple[str, ...]
    weights_NHLW: Tensor
    schedule: ScaleSchedule = field(repr=False)
    prompt_words: int = 0

    def by_scale(self, layer: int | None = None) -> pd.DataFrame:
        """The share of attention that the tokens of each scale give to each word and to the drawing itself.

        Args:
            layer: one layer; None takes the mean of all. Heads and the tokens of a scale are averaged.
        """
        import pandas as pd

        weights_LW = self._layers(layer).mean(dim=(0, 1))
        shares_KW = torch.stack([weights_LW[part].mean(dim=0) for part in self.schedule.slices])
        sides = [f"{height}×{width}" for height, width in self.schedule.shapes]
        table = pd.DataFrame(shares_KW.numpy(), index=pd.Index(sides, name="scale"), columns=list(self.words))
        table[PICTURE] = 1 - shares_KW.sum(dim=1).numpy()
        return table

    def map(self, word: int, scale: int = -1, layer: int | None = None) -> Tensor:
        """Where in a scale's map (h, w) a word, by its place, is attended to."""
        shape, part = self.schedule.shapes[scale], self.schedule.slices[scale]
        return self._layers(layer)[:, :, part, word].mean(dim=(0, 1)).view(shape)

    def _layers(self, layer: int | None) -> Tensor:
        return self.weights_NHLW if layer is None else self.weights_NHLW[layer][None]


def draw_with_attention(assistant: Assistant, request: str, seed: int = 0) -> WordAttention:
    """Draw what is asked for, and look at which words the drawing attended to.

    A model that answers without a drawing is made to draw at once, without words of its own.
    """
    conversation = Conversation()
    conversation.ask(request)
    settings = replace(assistant.settings, seed=seed, max_images=1, keep_scales=True)
    prompt = assistant.prompt(conversation, row=0)
    asked = len(prompt.input_ids)
    start = assistant.model.tokens.image_gen_start
    (answer,) = assistant.continue_all([prompt], settings)
    if not answer.pictures:
        prompt = replace(prompt, input_ids=[*prompt.input_ids, start])
        (answer,) = assistant.continue_all([prompt], settings)
    context = [*prompt.input_ids, *answer.token_ids]
    context = context[: context.index(start) + 1]
    picture = answer.pictures[0]
    weights_NHLT = drawing_attention(assistant.model, context, picture.indices).weights_NHLT.cpu()
    spans = word_spans(context, assistant.tokenizer)
    weights_NHLW = torch.stack([weights_NHLT[..., first:last].sum(-1) for _, first, last in spans], dim=-1)
    words = tuple(word for word, _, _ in spans)
    prompt_words = sum(first < asked for _, first, _ in spans)
    return WordAttention(picture.image, picture.scales, words, weights_NHLW, assistant.model.schedule, prompt_words)


def word_spans(ids: Sequence[int], tokenizer: TextTokenizer) -> list[tuple[str, int, int]]:
    """Token ids as words, each with its first token and the one after its last; special tokens are words too."""
    special = tokenizer.special_ids
    starts: list[int] = []
    before = ""
    for place in range(len(ids)):
        text = tokenizer.decode(ids[: place + 1])  # a token by itself may have no text, or lose its space
        apart = place == 0 or {ids[place - 1], ids[place]} & special
        # spaces belong to the word that follows them
        if apart or (text[len(before) :][:1].isspace() and not before[-1:].isspace()):
            starts.append(place)
        before = text
    spans = zip(starts, [*starts[1:], len(ids)], strict=True)
    return [(tokenizer.decode(ids[first:last], skip_special=False).strip(), first, last) for first, last in spans]


def scale_figure(found: WordAttention, layer: int | None = None) -> Figure:
    """A heat map: scales down, words across, the numbers per cent of the attention of a scale's tokens."""
    table = 100 * found.by_scale(layer)
    figure, (axes,) = new_figure(1, 1, width=1.2 + 0.52 * table.shape[1], height=1.3 + 0.34 * table.shape[0])
    axes.grid(False)
    axes.imshow(table, cmap="Greens", vmin=0, vmax=max(1.0, float(table.iloc[:, :-1].max().max())), aspect="auto")
    for row in range(table.shape[0]):
        for column in range(table.shape[1]):
            value = float(table.iat[row, column])
            dark = value > 0.6 * table.iloc[:, :-1].max().max()
            colour = "white" if dark else PRINT.ink
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(table.shape[1]), table.columns, rotation=45, ha="right", rotation_mode="anchor")
    for label in axes.get_xticklabels():
        label.set_parse_math(False)  # a word may hold dollars
    axes.set_yticks(range(table.shape[0]), table.index)
    axes.tick_params(colors=PRINT.ink)
    which = "mean of all layers" if layer is None else f"layer {layer + 1}"
    axes.set_title(f"attention of each scale, per cent, {which}", loc="left", fontsize=9.5, color=PRINT.ink)
    return plain_texts(figure)


def map_figure(found: WordAttention, words: Sequence[int] | None = None, columns: int = 6) -> Figure:
    """The drawing, and over it where its finest scale attends to each word; each map has a range of its own.

    Args:
        words: places of words; None takes those that the finest scale attends to most, no special tokens, and as many
            as fill two rows.
    """
    if words is None:
        shares = found.by_scale().iloc[-1, :-1].to_list()
        known = [place for place, word in enumerate(found.words) if not word.startswith("<")]
        words = sorted(sorted(known, key=lambda place: -shares[place])[: 2 * columns - 1])
    count = len(words) + 1
    across = min(columns, count)
    figure, panels = new_figure(-(-count // across), across, width=1.7, height=1.95)
    for axes in panels:
        axes.set_axis_off()
    panels[0].imshow(found.image)
    panels[0].set_title("drawing", fontsize=9)
    width, height = found.image.size
    for axes, place in zip(panels[1:], words, strict=False):
        heat = found.map(place)
        axes.imshow(found.image.convert("L"), cmap="gray", vmin=0, vmax=255)
        extent = (0, width, height, 0)
        axes.imshow(heat, cmap="magma", alpha=0.65, extent=extent, interpolation="nearest")
        low, high = 100 * float(heat.min()), 100 * float(heat.max())
        axes.set_title(f"{found.words[place]}\n{low:.1f}–{high:.1f} %", fontsize=8.5, parse_math=False)
    return plain_texts(figure)
