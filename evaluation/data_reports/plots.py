"""Figures of what packed data are made of, as PNG: rings of corpora, sources and tasks, lengths, turns and pictures."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vargpt_lightning.data.packing.stats import TASKS, FolderStats, SourceStats
from vargpt_lightning.evaluation.base.plot_texts import plain_texts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#2c7a57", "#d2762a", "#3a6db3", "#9b4f8c", "#8a7a22", "#6d675d", "#5aa7a0", "#c25b6a", "#7f6bb0", "#b08a5a")
TASK_COLOURS = dict(zip(TASKS, ("#8d867a", "#3a6db3", "#d2762a", "#9b4f8c"), strict=True))
INK, FAINT, LINE = "#24211c", "#736d62", "#e5dfd3"
BINS = 40
SLICES = len(COLOURS)


def plots(folders: Sequence[FolderStats], unit: str) -> dict[str, bytes]:
    """Return the figures as PNG files by name; `unit` is what lengths are counted in."""
    sources = [source for folder in folders for source in folder.sources]
    found = {"composition": composition(folders)}
    if any(source.turns for source in sources):
        found["lengths"] = lengths(sources, unit)
        found["pictures"] = counts(sources)
    if any(source.sizes for source in sources):
        found["sizes"] = sizes(sources)
    return found


def composition(folders: Sequence[FolderStats]) -> bytes:
    """Rings of records: by folder (one alone by task), and by source with the tasks inside."""
    sources = [source for folder in folders for source in folder.sources]
    figure, axes = _figure(9.6, 4.6, 2)
    if len(folders) > 1:
        _ring(axes[0], {folder.name: folder.count for folder in folders}, COLOURS, "(a) corpora")
    else:
        _ring(axes[0], tasks_of(sources), [TASK_COLOURS[task] for task in tasks_of(sources)], "(a) tasks")
    _two_rings(axes[1], sources, "(b) sources, and their tasks inside")
    return _png(figure)


def tasks_of(sources: Sequence[SourceStats]) -> dict[str, float]:
    """Records by task: a source's count, divided as the records of it that were looked at."""
    found: Counter[str] = Counter()
    for source in sources:
        total = sum(source.tasks.values())
        for task, count in source.tasks.items():
            found[task] += source.count * count / total  # type: ignore[assignment]
    return {task: found[task] for task in TASKS if found[task]}


def _ring(axes: Axes, parts: Mapping[str, float], colours: Sequence[str], title: str, radius: float = 1.0) -> None:
    total = sum(parts.values()) or 1
    names = [f"{_short(name)}  {_number(value)} ({value / total:.1%})" for name, value in parts.items()]
    colours = [colours[place % len(colours)] for place in range(len(parts))]
    wedges = _wedges(axes, list(parts.values()), colours, radius, 0.36)
    axes.legend(
        wedges, names, loc="upper center", bbox_to_anchor=(0.5, 0.02), frameon=False, fontsize=8, labelcolor=INK,
        ncols=2 if len(names) > 4 else 1, handlelength=1, columnspacing=1.2,
    )  # fmt: skip
    axes.text(0, 0, f"{_number(total)}\nrecords", ha="center", va="center", color=INK, fontsize=11)
    axes.set_title(title, color=INK, fontsize=10.5, pad=2)


def _two_rings(axes: Axes, sources: Sequence[SourceStats], title: str) -> None:
    kept = sorted(sources, key=lambda source: -source.count)
    names = Counter(source.name for source in kept)
    parts: dict[str, float] = {}
    inner: list[tuple[str, float]] = []
    for place, source in enumerate(kept):
        name = source.name if names[source.name] == 1 else f"{source.folder}: {source.name}"
        name = name if place < SLICES - 1 or len(kept) == SLICES else "others"
        parts[name] = parts.get(name, 0) + source.count
        inner += [(task, count) for task, count in tasks_of([source]).items()]
    _ring(axes, parts, COLOURS, title)
    _wedges(axes, [count for _, count in inner], [TASK_COLOURS[task] for task, _ in inner], 0.62, 0.1)
    handles = {task: TASK_COLOURS[task] for task in TASKS if any(task == each for each, _ in inner)}
    for line, (task, colour) in enumerate(handles.items()):
        axes.text(1.08, 0.95 - 0.13 * line, f"■ {task}", color=colour, fontsize=8, ha="left", va="center")


def _wedges(axes: Axes, values: list[float], colours: list[str], radius: float, width: float) -> list[Any]:
    style = {"width": width, "edgecolor": "white", "linewidth": 1}
    wedges = axes.pie(values, colors=colours, radius=radius, startangle=90, counterclock=False, wedgeprops=style)[0]
    return list(wedges)


def lengths(sources: Sequence[SourceStats], unit: str) -> bytes:
    """How long records are, by task, on a logarithmic axis."""
    import numpy as np

    figure, (axes,) = _figure(9.6, 3.2, 1)
    by_task = {task: [n for source in sources for n in source.lengths.get(task, [])] for task in TASKS}
    by_task = {task: values for task, values in by_task.items() if values}
    highest = max(max(values) for values in by_task.values())
    lowest = max(1, min(min(values) for values in by_task.values()))
    edges = np.geomspace(0.8 * lowest, max(highest, 2) * 1.1, BINS)
    axes.hist(
        [np.maximum(values, 1) for values in by_task.values()], bins=list(edges), stacked=True,
        label=list(by_task), color=[TASK_COLOURS[task] for task in by_task],
    )  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    # where less than a decade is shown, the small ticks are all there is to read
    narrow = highest < 10 * lowest
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:,.3g}" if narrow else "")
    axes.tick_params(which="minor", colors=FAINT, labelsize=8)
    axes.set_xlabel(f"{unit} a record", color=FAINT, fontsize=9)
    axes.set_ylabel("records looked at", color=FAINT, fontsize=9)
    axes.legend(frameon=False, fontsize=8.5, labelcolor=INK)
    return _png(figure)


def counts(sources: Sequence[SourceStats]) -> bytes:
    """How many turns a record has, and how many pictures of each use."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = _figure(9.6, 2.8, 3)
    colours = (COLOURS[0], TASK_COLOURS["understanding"], TASK_COLOURS["generation"])
    for place, (name, title) in enumerate((("turns", "turns"), ("seen", "seen pictures"), ("drawn", "drawn pictures"))):
        found = Counter(min(value, 20) for source in sources for value in getattr(source, name))
        total = sum(found.values())
        axes[place].bar(list(found), [count / total for count in found.values()], color=colours[place], width=0.8)
        axes[place].set_title(f"{title} a record", color=INK, fontsize=9.5, loc="left")
        axes[place].yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes[place].xaxis.set_major_locator(MaxNLocator(integer=True))
    return _png(figure)


def sizes(sources: Sequence[SourceStats]) -> bytes:
    """Widths and heights of pictures, one point each."""
    figure, (axes,) = _figure(9.6, 3.6, 1)
    for place, source in enumerate(source for source in sources if source.sizes):
        widths, heights = zip(*source.sizes, strict=True)
        axes.scatter(widths, heights, s=9, alpha=0.45, color=COLOURS[place % SLICES], label=_short(source.name))
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("width in pixels", color=FAINT, fontsize=9)
    axes.set_ylabel("height", color=FAINT, fontsize=9)
    legend = axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="center left", bbox_to_anchor=(1, 0.5))
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1)
    return _png(figure)


def _figure(width: float, height: float, columns: int) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = list(figure.subplots(1, columns, squeeze=False)[0])
    for each in axes:
        each.tick_params(colors=FAINT, labelsize=8, width=0.6, length=3)
        each.grid(True, color=LINE, linewidth=0.6)
        each.set_axisbelow(True)
        for side, spine in each.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(LINE)
    return figure, axes


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    plain_texts(figure).savefig(buffer, format="png", dpi=160, facecolor="white")
    return buffer.getvalue()


def _short(name: str) -> str:
    return name if len(name) <= 28 else f"{name[:27]}…"


def _number(value: float) -> str:
    """A count in few characters: 812, 12.3 K, 1.28 M."""
    for size, letter in ((1e6, " M"), (1e3, " K")):
        if value >= 10 * size or (value >= size and letter == " M"):
            return f"{value / size:.3g}{letter}"
    return f"{value:,.0f}"
