"""The report of benchmarks: tables, a radar chart, a page for each benchmark and one for the drawings.

    OUT/index.html            everything in short
    OUT/tables.{md,html,tex}  measured rows beside published ones
    OUT/radar.png             of the default protocol; radar.<protocol>.png of others
    OUT/<benchmark>.html      right and wrong examples
    OUT/drawings.html         samples beside their references, best and worst by CLIP score

Made from result files and data alone; every page holds all it shows, and is written in one step. Imports no torch.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vargpt_lightning.evaluation.base.benchmark import STATUSES
from vargpt_lightning.evaluation.base.files import file_stem
from vargpt_lightning.evaluation.harness.outputs import read_rows
from vargpt_lightning.evaluation.reports.benchmark_drawings import Drawn, drawn_sections, read_drawn
from vargpt_lightning.evaluation.reports.benchmark_examples import Example, add_pictures, choose_examples, visible
from vargpt_lightning.evaluation.reports.benchmark_measured import Measured, protocols, read_measured
from vargpt_lightning.evaluation.reports.pages import Pages
from vargpt_lightning.evaluation.reports.radar import draw_radar
from vargpt_lightning.evaluation.reports.table_text import latex, markdown
from vargpt_lightning.evaluation.reports.tables import PROTOCOL_WORDS, Section, Sources, all_tables, legend
from vargpt_lightning.runs.folder import now
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import write_bytes

MANY_UNREAD = 0.1  # from this share of outputs without an answer on, the report says so
DRAWINGS = "drawings.html"


def build_benchmark_report(
    out_folders: Sequence[Path | str],
    out: Path | str,
    data: Mapping[str, Path | str] | None = None,
    examples: int = 12,
) -> Path:
    """Writes the report and returns the path of its first page.

    Args:
        out_folders: what `vargpt evaluate` wrote, one folder a system.
        out: the folder to write to.
        data: benchmark -> its data, for the pictures of the examples; without it the pages have none and say so.
        examples: right and wrong ones on a benchmark's page, for each system and protocol.

    Raises:
        UserError: a folder is missing or has neither results nor drawings, or a result file is broken.
    """
    folders, out = [Path(folder) for folder in out_folders], Path(out)
    found = read_measured(folders)
    drawn = read_drawn(folders, {each.folder.parent: each.system for each in found})
    if not found and not drawn:
        named = ", ".join(map(str, folders)) or "no folder"
        raise UserError(f"nothing to report in {named}: neither <benchmark>/result.<protocol>.json nor images.json")
    pages = Pages(out)
    sources = Sources()
    sections = [*(all_tables(found, sources) if found else []), *(drawn_sections(drawn, sources) if drawn else [])]
    write_bytes(out / "tables.md", markdown(sections, sources).encode("utf-8", "replace"))
    write_bytes(out / "tables.tex", latex(sections, sources).encode("utf-8", "replace"))
    tables = {"sections": sections, "legend": _legend(sections), "sources": sources.names}
    pages.write("tables.html", "benchmark_tables.html.j2", title="Benchmark tables", **tables)
    cards = [_benchmark_page(pages, each, data or {}, examples) for each in _by_benchmark(found)]
    if drawn:
        _drawings_page(pages, drawn)
    return pages.write(
        "index.html",
        "benchmark_index.html.j2",
        title="Benchmarks",
        radars=_radars(out, found),
        cards=cards,
        drawn=drawn,
        drawings=DRAWINGS,
        warnings=_warnings(found),
        systems=_systems(found, drawn),
        created=now(),
        **tables,
    )


def _legend(sections: Sequence[Section]) -> list[tuple[str, str]]:
    return legend(table for _, _, tables in sections for table in tables)


def _by_benchmark(found: Sequence[Measured]) -> list[list[Measured]]:
    groups: dict[str, list[Measured]] = {}
    for each in found:
        groups.setdefault(each.benchmark, []).append(each)
    order = protocols(found)
    return [sorted(group, key=lambda each: order.index(each.protocol)) for group in groups.values()]


def _radars(out: Path, found: Sequence[Measured]) -> list[dict[str, str]]:
    radars = []
    for place, protocol in enumerate(protocols(found)):
        path = out / ("radar.png" if place == 0 else f"radar.{file_stem(protocol)}.png")
        if draw_radar(path, found, protocol):
            uri = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
            radars.append({"protocol": protocol, "uri": uri, "file": path.name})
    return radars


def _warnings(found: Sequence[Measured]) -> list[str]:
    """What a reader must know before the numbers, in sentences."""
    shares: dict[str, list[str]] = {}
    for each in found:
        if each.unread >= MANY_UNREAD:
            shares.setdefault(each.title, []).append(f"{100 * each.unread:.0f} % ({each.system}, {each.protocol})")
    return [
        f"{title}: no answer was found in {', '.join(those)} of the outputs. Such a metric says as much about the form "
        "of the answers as about the model."
        for title, those in shares.items()
    ]


def _systems(found: Sequence[Measured], drawn: Sequence[Drawn]) -> list[dict[str, Any]]:
    """Each system with all that its numbers depend on, as far as the result files tell it."""
    systems: dict[str, dict[str, Any]] = {}
    for each in found:
        result = each.result
        facts = {
            "weights": result.get("digest"),
            "prompt style": result.get("style"),
            **{str(key): value for key, value in (result.get("settings") or {}).items()},
            "versions": ", ".join(f"{name} {value}" for name, value in (result.get("versions") or {}).items() if value),
            "measured": str(result.get("created") or "").replace("T", " ").split("+")[0],
            "folder": each.folder.parent,
        }
        systems.setdefault(each.system, {key: value for key, value in facts.items() if value not in (None, "")})
    for each_drawn in drawn:
        systems.setdefault(each_drawn.system, {"drawings": f"measured by {each_drawn.how}" if each_drawn.how else ""})
    return [{"name": name, "facts": list(facts.items())} for name, facts in systems.items()]


# ------------------------------------------------------------------------------------------------------- pages


def _benchmark_page(
    pages: Pages, group: Sequence[Measured], data: Mapping[str, Path | str], of_each: int
) -> dict[str, Any]:
    """Writes a benchmark's page and returns what the first page says of it."""
    sections: list[dict[str, Any]] = []
    for each in group:
        rows = read_rows(each.folder / f"scores.{each.protocol}.jsonl")
        number = each.numbers[each.benchmark]
        sections.append(
            {
                "system": each.system,
                "protocol": each.protocol,
                "number": number,
                "marks": each.marks,
                "result": each.result,
                "skipped": [visible(str(reason), 300) for reason in each.result.get("skipped_because") or ()],
                "figures": _figures(each.result["figures"]),
                "examples": choose_examples(rows, of_each),
            }
        )
    shown: list[Example] = [example for section in sections for example in section["examples"]]
    name, title = group[0].benchmark, group[0].title
    note = _fill_in(shown, name, data)
    page = f"{file_stem(name)}.html"
    statuses = [status for status in dict.fromkeys(example.status for example in shown) if status != "ok"]
    pages.write(
        page,
        "benchmark_page.html.j2",
        title=title,
        sections=sections,
        note=note,
        verdicts=[key for key in ("right", "part", "wrong") if any(example.verdict == key for example in shown)],
        statuses=(["ok"] if any(example.status == "ok" for example in shown) else []) + statuses,
        words=PROTOCOL_WORDS,
        known=STATUSES,
    )
    return {"title": title, "page": page, "sections": sections, "examples": len(shown)}


def _figures(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """All figures of a result as texts."""
    return [
        (
            name.replace("_", " "),
            "–" if value is None else f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}",
        )
        for name, value in figures.items()
        if value is None or isinstance(value, (int, float))
    ]


def _fill_in(shown: Sequence[Example], name: str, data: Mapping[str, Path | str]) -> str:
    """Adds the pictures; returns why there are none, or nothing."""
    from vargpt_lightning.evaluation import benchmarks

    if not shown:
        return "There is no file of scores, so this page has only the metrics."
    if name not in data:
        return "Without pictures: the report was made without this benchmark's data."
    try:
        add_pictures(shown, benchmarks.of_data(name, data[name]), Path(data[name]))
    except UserError as error:
        return f"Without pictures: {error}"
    return ""


def _drawings_page(pages: Pages, drawn: Sequence[Drawn]) -> None:
    sources = Sources()
    sections = drawn_sections(drawn, sources)
    pages.write(
        DRAWINGS,
        "benchmark_drawings.html.j2",
        title="Drawings",
        drawn=drawn,
        sections=sections,
        legend=_legend(sections),
        sources=sources.names,
    )
