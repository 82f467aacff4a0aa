"""Which of the words that name a combination drawings attend to: its colour's or its shape's, by layer and scale.

Legend: N layers, K scales, D drawings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vargpt_lightning.evaluation.analysis.run_plots import PRINT, new_figure
from vargpt_lightning.evaluation.analysis.word_attention import WordAttention, draw_with_attention
from vargpt_lightning.evaluation.base.plot_texts import plain_texts
from vargpt_lightning.inference.assistant import Assistant
from vargpt_lightning.utils.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

ROLES = ("colour, request", "shape, request", "colour, answer", "shape, answer")
"""The words of a combination where they stand: in the request, or in the answer's text before the drawing."""


@dataclass(frozen=True)
class NamedDrawing:
    """A drawing of one thing in a colour, with its attention to words."""

    colour: str
    shape: str
    split: str
    attention: WordAttention

    def places(self, role: str) -> list[int]:
        """The places of a role's words among the drawing's; none where the text does not say them."""
        what, _, where = role.partition(", ")
        found = self.attention
        span = range(found.prompt_words) if where == "request" else range(found.prompt_words, len(found.words))
        wanted = (self.colour if what == "colour" else self.shape).split()
        plain = [word.strip(".,:;!?\"'").casefold() for word in found.words]
        starts = [place for place in span if plain[place : place + len(wanted)] == wanted]
        return [start + step for start in starts for step in range(len(wanted))]


def draw_combinations(assistant: Assistant, verdicts: pd.DataFrame, each: int = 4, seed: int = 0) -> list[NamedDrawing]:
    """Draw requests for one thing in a colour again, `each` of seen and of unseen combinations.

    Args:
        verdicts: of `composition_plots.scene_verdicts`.

    Raises:
        UserError: none of the requests is for one thing in a colour.
    """
    rows = verdicts[verdicts["kind"] == "colour"].groupby("split", sort=True).head(each)
    if rows.empty:
        raise UserError("verdicts: no request for one thing in a colour; expected at least one")
    return [
        NamedDrawing(scene["things"][0][1], scene["things"][0][0], split, draw_with_attention(assistant, prompt, seed))
        for scene, split, prompt in zip(rows["scene"], rows["split"], rows["prompt"], strict=True)
    ]


def attention_table(drawings: Sequence[NamedDrawing]) -> pd.DataFrame:
    """The share of attention that each scale in each layer gives to each role's words.

    Returns:
        A row for each drawing, layer (from 1), scale and role: `drawing`, `split`, `layer`, `scale`, `role`, `share`.
        A role that a drawing's text does not have has no row. Words that are said twice in a role are summed.
    """
    import pandas as pd

    found = []
    for number, drawing in enumerate(drawings):
        places = {role: those for role in ROLES if (those := drawing.places(role))}
        for layer in range(len(drawing.attention.weights_NHLW)):
            shares = drawing.attention.by_scale(layer)
            for role, those in places.items():
                for scale, share in shares.iloc[:, those].sum(axis=1).items():
                    found.append((number, drawing.split, layer + 1, scale, role, float(share)))
    return pd.DataFrame(found, columns=["drawing", "split", "layer", "scale", "role", "share"])


def attention_figure(drawings: Sequence[NamedDrawing]) -> Figure:
    """A heat map for each role: layers down, scales across, per cent of attention, the mean over drawings."""
    table = attention_table(drawings)
    layers = len(drawings[0].attention.weights_NHLW)
    scales = list(drawings[0].attention.by_scale().index)
    mean = 100 * table.groupby(["role", "layer", "scale"])["share"].mean()
    top = max(1.0, float(mean.max())) if len(mean) else 1.0
    figure, panels = new_figure(2, 2, width=1.4 + 0.5 * len(scales), height=1.2 + 0.3 * layers)
    for axes, role in zip(panels, ROLES, strict=True):
        axes.grid(False)
        rows = table[table["role"] == role]
        count = rows["drawing"].nunique()
        axes.set_title(f"{role} ({count} drawings)", loc="left", fontsize=9.5, color=PRINT.ink)
        if not count:
            axes.set_axis_off()
            axes.text(0.5, 0.5, "not said", ha="center", va="center", color=PRINT.faint, transform=axes.transAxes)
            continue
        heat = mean[role].unstack("scale").reindex(columns=scales)
        axes.imshow(heat, cmap="Greens", vmin=0, vmax=top, aspect="auto")
        for row in range(layers):
            for column in range(len(scales)):
                value = float(heat.iat[row, column])
                ink = "white" if value > 0.6 * top else PRINT.ink
                axes.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=8, color=ink)
        axes.set_xticks(range(len(scales)), scales)
        axes.set_yticks(range(layers), [str(layer) for layer in range(1, layers + 1)])
        axes.set_xlabel("scale", fontsize=8.5, color=PRINT.faint)
        axes.set_ylabel("layer", fontsize=8.5, color=PRINT.faint)
    figure.suptitle("attention to the words of a combination, per cent", fontsize=10, color=PRINT.ink)
    return plain_texts(figure)
