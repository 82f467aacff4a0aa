"""Charts: training curves of a stage, and the confusion of answers, as inline SVG that takes the page's colours.

For a page matplotlib draws in stand-in colours; they are replaced by CSS variables (--ink, --faint, --line, --s1 ..
--s6, --accent), so that one chart serves a light and a dark page. The plots of scikit-learn and torchmetrics have
neither such colours nor a column for what is none of the labels. Imports no torch.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from vargpt_lightning.evaluation.base.plot_texts import plain_texts, quiet_glyphs
from vargpt_lightning.runs.folder import MetricRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Series = Mapping[str, tuple[Sequence[int], Sequence[float]]]
SERIES_COLOURS = ("#0101f1", "#0101f2", "#0101f3", "#0101f4", "#0101f5", "#0101f6")
INK, FAINT, LINE, ACCENT, PAPER = "#0101e1", "#0101e2", "#0101e3", "#0101e4", "#0101e5"


class Palette(NamedTuple):
    """The colours of a chart: its curves, its words, what is less important, grid lines, and one colour apart."""

    series: Sequence[str]
    ink: str
    faint: str
    line: str
    accent: str


STAND_INS = Palette(SERIES_COLOURS, INK, FAINT, LINE, ACCENT)
CSS = {
    **{colour: f"var(--s{place})" for place, colour in enumerate(SERIES_COLOURS, 1)},
    **{INK: "var(--ink)", FAINT: "var(--faint)", LINE: "var(--line)", ACCENT: "var(--accent)", PAPER: "var(--paper)"},
}
PER_SCALE = re.compile(r"^(?P<base>.+?)[/_-]?scale[/_-]?(?P<scale>\d+)$")
LEFT_OUT = re.compile(r"(^|[/_])(lr|epoch|step|tokens|seconds|wait|time|memory|grad|count)([/_-]|$)|per_s|throughput")
SMOOTH_ABOVE = 60  # points


def panels(rows: Sequence[MetricRow]) -> dict[str, Series]:
    """Sorts a stage's rows into charts: losses, shares (accuracies), and what there is of each scale."""
    found: dict[str, dict[str, tuple[list[int], list[float]]]] = {}
    for row in rows:
        panel = _panel(row.name)
        if panel and math.isfinite(row.value):
            steps, values = found.setdefault(panel, {}).setdefault(row.name, ([], []))
            steps.append(row.step)
            values.append(row.value)
    order = sorted(found, key=lambda panel: (panel != "loss", "scale" in panel, panel))
    drawn = {panel: {name: points for name, points in found[panel].items() if len(points[0]) > 1} for panel in order}
    return {panel: series for panel, series in drawn.items() if series}


def _panel(name: str) -> str | None:
    """The chart that a metric belongs to; None for what is no curve to look at, such as rates and times."""
    per_scale = PER_SCALE.match(name)
    if per_scale:
        return None if name.startswith("val") else f"{_base(per_scale['base'])} of each scale"
    if LEFT_OUT.search(name):
        return None
    if re.search(r"loss|(^|/)(l1|mse)$", name):
        return "loss"
    if re.search(r"(^|/)reward_", name):
        return "reward"
    return "share" if re.search(r"accuracy|correct|share", name) else None


def _base(name: str) -> str:
    """The metric's name without its split: training and held-out values share a colour."""
    return re.sub(r"^(train|val|test)/", "", name).replace("_", " ").replace("/", " ").strip()


def curves_svg(title: str, series: Series, tag: str) -> str:
    """One chart of values over steps as inline SVG; held-out values are dashed.

    Args:
        title: what the values are.
        series: name -> steps, values; curves with many points are drawn faint with a smoothed line over them.
        tag: a word that no other chart on the page has; ids inside the SVG begin with it.
    """
    figure, axes = _figure(4.6, 2.9)
    draw_curves(axes, title, series, STAND_INS)
    return _svg(figure, tag, f"{title} over the steps of training")


def draw_curves(axes: Axes, title: str, series: Series, palette: Palette) -> None:
    """Draws values over steps; see `curves_svg`."""
    every_scale = all(PER_SCALE.match(name) for name in series)
    bases = list(dict.fromkeys(_base(name) for name in series))
    for name, (steps, values) in series.items():
        place = bases.index(_base(name))
        # Fine scales are darker than coarse ones: they are many, and they have an order.
        strength = 0.25 + 0.75 * (place + 1) / len(bases) if every_scale else 1.0
        colour = palette.accent if every_scale else palette.series[place % len(palette.series)]
        if len(values) > SMOOTH_ABOVE:
            axes.plot(steps, values, alpha=0.18 * strength, linewidth=0.8, color=colour)
        dashes = (0, (3, 1.5)) if name.startswith("val") else "solid"
        label = None if dashes != "solid" and f"train/{name[4:]}" in series else _base(name)
        axes.plot(steps, smoothed(values), alpha=strength, linewidth=1.7, linestyle=dashes, label=label, color=colour)
    _scale_axis(axes, series)
    words = ", coarse (faint) to fine (strong)" if every_scale else ""
    words += ", held-out dashed" if any(name.startswith("val") for name in series) else ""
    axes.set_title(title + words, loc="left", color=palette.ink, fontsize=9.5)
    axes.set_xlabel("steps", color=palette.faint, fontsize=8.5)
    if len(bases) > 1 and not every_scale:
        legend = axes.legend(frameon=False, fontsize=8, ncols=2, loc="best", handlelength=1.4, columnspacing=1.0)
        for text in legend.get_texts():
            text.set_color(palette.ink)


def reward_against_kl(rows: Sequence[MetricRow]) -> list[tuple[float, float]]:
    """Return (divergence from the reference, reward) where a stage has both, in the order of its steps.

    A divergence goes with the last training reward up to its step; before the first one the reward is 0.
    """
    rewards = [(row.step, row.value) for row in rows if row.name in ("train/reward_margin", "train/reward")]
    found = []
    for row in rows:
        if row.name == "watch/kl":
            before = [value for step, value in rewards if step <= row.step]
            found.append((row.value, before[-1] if before else 0.0))
    return found if rewards else []


def reward_svg(points: Sequence[tuple[float, float]], tag: str) -> str:
    """The chart of `reward_against_kl` as inline SVG: one point a look, joined in their order."""
    figure, axes = _figure(4.6, 2.9)
    divergences, rewards = zip(*points, strict=True)
    axes.plot(divergences, rewards, marker="o", markersize=3, linewidth=1.2, color=SERIES_COLOURS[0])
    axes.set_title("reward against divergence", loc="left", color=INK, fontsize=9.5)
    axes.set_xlabel("KL from the reference, nats a token", color=FAINT, fontsize=8.5)
    axes.set_ylabel("reward", color=FAINT, fontsize=8.5)
    return _svg(figure, tag, "reward against the divergence from the reference")


def style_axes(axes: Axes, palette: Palette) -> None:
    """Gives axes a quiet grid and no frame."""
    axes.tick_params(colors=palette.faint, labelsize=8, width=0.6, length=3)
    axes.grid(True, color=palette.line, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(palette.line)


def smoothed(values: Sequence[float]) -> list[float]:
    """A centred running mean over a fortieth of the curve; short curves stay as they are."""
    if len(values) <= SMOOTH_ABOVE:
        return list(values)
    reach = max(1, len(values) // 80)
    windows = (values[max(0, place - reach) : place + reach + 1] for place in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def _scale_axis(axes: Axes, series: Series) -> None:
    """A logarithmic axis where the values span more than a factor of thirty, else a linear one without outliers."""
    values = sorted(value for _, numbers in series.values() for value in numbers)
    low, high = values[0], values[-1]
    if low > 0 and high / low > 30:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 1000 else (1,)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        return
    # A few values at the very beginning would press the rest of the curve flat.
    cut = values[int(0.985 * (len(values) - 1))]
    if high > 3 * cut > 0:
        axes.set_ylim(top=cut * 1.15)


def confusion_svg(confusion: Mapping[str, Any], tag: str) -> str:
    """Expected answers down, given answers across; strength is the share of the row, the number the count."""
    labels, counts = confusion["labels"], confusion["counts"]
    # The column of other answers is shown only where there were any.
    across = list(confusion["columns"]) if any(row[-1] for row in counts) else list(labels)
    cell = 0.62 if len(labels) <= 4 else 0.36
    aside = 0.075 * max(len(str(label)) for label in across) + 0.25
    figure, axes = _figure(aside + cell * len(across) + 0.4, cell * len(labels) + 0.8 * aside + 0.3)
    for row, (label, numbers) in enumerate(zip(labels, counts, strict=True)):
        for column in range(len(across)):
            share = numbers[column] / max(1, sum(numbers))
            axes.add_patch(_square(column, row, share, right=across[column] == label))
            if numbers[column]:
                ink = PAPER if share > 0.55 else INK
                axes.text(column, row, str(numbers[column]), ha="center", va="center", color=ink, fontsize=8.5)
    axes.set_xlim(-0.5, len(across) - 0.5)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xticks(range(len(across)), across, rotation=45, ha="left", rotation_mode="anchor", fontsize=8.5)
    axes.set_yticks(range(len(labels)), labels, fontsize=8.5)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, colors=INK)
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return _svg(figure, tag, "confusion: right answers in rows, given answers in columns")


def _square(column: int, row: int, share: float, right: bool) -> Any:
    from matplotlib.patches import Rectangle

    colour = (ACCENT if right else SERIES_COLOURS[1]) if share else LINE
    strength = 0.15 + 0.85 * share if share else 0.45
    return Rectangle((column - 0.47, row - 0.46), 0.94, 0.92, facecolor=colour, alpha=strength, edgecolor="none")


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    style_axes(axes, STAND_INS)
    return figure, axes


def _svg(figure: Figure, tag: str, label: str) -> str:
    """The figure as an SVG element for HTML: text stays text, ids are its own, colours are CSS variables."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": tag, "font.family": "sans-serif"}):
        plain_texts(figure, keep=True)
        with warnings.catch_warnings():
            quiet_glyphs()
            figure.savefig(buffer, format="svg", transparent=True)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->|font-family: [^;\"]*;?", "", svg, flags=re.S)
    svg = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", svg)
    svg = re.sub(r'\bid="', f'id="{tag}-', svg)
    svg = re.sub(r'(url\(#|xlink:href="#)', rf"\g<1>{tag}-", svg).replace("xlink:href", "href")
    svg = re.sub("|".join(CSS), lambda match: CSS[match[0]], svg)
    # The page decides how wide it is; the drawing's own width is the most it takes.
    width = re.search(r'width="([\d.]+)pt"', svg)
    svg = re.sub(r'\s(width|height)="[\d.]+pt"', "", svg, count=2)
    style = f"max-width: {float(width[1]) * 4 / 3:.0f}px" if width else ""
    return svg.replace("<svg", f'<svg class="chart" role="img" aria-label="{label}" style="{style}"', 1).strip()
