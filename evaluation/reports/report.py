"""The report of a run: one HTML file with everything inside, made from the run folder alone. Imports no torch.

Whatever is missing, because the run is young or was interrupted, is left out of the page, and the page says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vargpt_lightning.evaluation.base.figures import (
    by_kind_of_split,
    heldout_drawings,
    judge_table,
    number,
    percent,
    table,
)
from vargpt_lightning.evaluation.base.protocols import TRAIN
from vargpt_lightning.evaluation.reports.composition_sheet import composition_sheet
from vargpt_lightning.evaluation.reports.edit_sheet import edit_sheet
from vargpt_lightning.evaluation.reports.report_pictures import Pictures, by_hash
from vargpt_lightning.evaluation.reports.summary import KIND_NAMES, sentence
from vargpt_lightning.runs.folder import RunFolder, StageFolder
from vargpt_lightning.utils.files import write_bytes
from vargpt_lightning.utils.heldout import ENOUGH_MARGIN, HELDOUT, heldout_scores

ATTRIBUTION = "OpenMoji - the open-source emoji and icon project. License: CC BY-SA 4.0"


def build_report(run: RunFolder | Path | str) -> Path:
    """Writes report.html into the run's folder and returns its path.

    Raises UserError when the folder is not a run.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    run = run if isinstance(run, RunFolder) else RunFolder(run)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("report.html.j2").render(**_content(run))
    write_bytes(run.report, html.encode())
    return run.report


def _content(run: RunFolder) -> dict[str, Any]:
    record, metrics, stages = run.record, run.metrics(), run.stages()
    pictures = Pictures(run)
    content: dict[str, Any] = {
        "title": run.name,
        "status": run.status,
        "lede": _lede(record, metrics, stages),
        "facts": _facts(record),
        "cards": _cards(metrics),
        "ladder": _ladder(metrics),
        "kinds": _kinds(metrics),
        "confusions": _confusions(metrics),
        "stages": _stages(record, stages, run.config_text, pictures),
        "total": duration(sum(record.get("durations", {}).values())),
        "table": table(metrics) if metrics else [],
        "features": metrics.get("features", {}).get("name", ""),
        "notes": metrics.get("notes", []),
        "same_kind": _same_kind(metrics),
        "judges": judge_table(metrics),
        "switch": metrics.get("mode_switch", {}),
        "psnr": _psnr(metrics),
        "config": run.config_text,
        "command": " ".join(record.get("command") or []),
        "benchmarks": run.benchmark_report.relative_to(run.path).as_posix() if run.benchmark_report.is_file() else "",
        "attribution": record.get("attribution", ATTRIBUTION),
        "percent": percent,
        "number": number,
    }
    content |= pictures.sections() | {"composition": composition_sheet(metrics, pictures)}
    content["edits"] = edit_sheet(metrics, pictures)
    if content["composition"]:  # it shows what the model makes of combinations that it never saw
        content |= {"hero": [], "heldout": []}
    content["examples"] = _examples(run, pictures)
    content["missing"] = _missing(run, metrics, content)
    return content


# ------------------------------------------------------------------------------------------------------- words


def duration(seconds: float | None) -> str:
    """Seconds as people say them: "48 s", "14 min 20 s", "2 h 05 min"."""
    if not seconds:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{max(whole, 1)} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def memory(amount: float | None) -> str:
    """Bytes as "1.4 GiB" or "310 MiB"."""
    if not amount:
        return "–"
    return f"{amount / 2**30:.1f} GiB" if amount >= 2**30 else f"{amount / 2**20:.0f} MiB"


def parameters(count: float) -> str:
    """A count of parameters as "12.3 million"."""
    for size, word in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if count >= size:
            return f"{count / size:.1f} {word}"
    return f"{count:.0f}"


def _lede(record: Mapping[str, Any], metrics: Mapping[str, Any], stages: Sequence[StageFolder]) -> str:
    """What was run, in a sentence or two, out of what is known."""
    count = sum((record.get("parameters") or {}).values())
    words = "One model" + (f" of {parameters(count)} parameters" if count else "")
    took = duration(sum(record.get("durations", {}).values()))
    cores = (record.get("machine") or {}).get("cores")
    where = f" on {cores} processor core{'s' if cores != 1 else ''}" if cores else ""
    if stages:
        plural = "s" if len(stages) != 1 else ""
        words += f", trained in {len(stages)} stage{plural}" + (f" and {took}" if took != "–" else "") + where
    compared = metrics.get("composition", {}).get("copies", {}).get("of")  # all that it was trained to draw
    seen = compared or metrics.get("pictures", {}).get("reference")
    if seen:
        words += (
            f". It learned from {seen:,} pictures. This is what it draws when asked, and what it says when shown one"
        )
    return " ".join(filter(None, [f"{words}.", sentence(metrics)]))


def _facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    started = str(record.get("started") or "").replace("T", " ").split("+")[0]
    versions = ", ".join(f"{name} {version}" for name, version in (record.get("versions") or {}).items())
    machine = record.get("machine") or {}
    hardware = f"{machine.get('cores', '?')} cores, {memory(machine.get('memory'))}, {machine.get('platform', '')}"
    facts = [
        ("experiment", record.get("config")),
        ("started", started + " UTC" if started else None),
        ("seed", record.get("seed")),
        ("commit", record.get("commit")),
        ("machine", hardware if machine else None),
        ("peak memory", memory(record.get("peak_memory")) if record.get("peak_memory") else None),
        ("versions", versions),
    ]
    return [(name, str(value)) for name, value in facts if value not in (None, "")]


def _missing(run: RunFolder, metrics: Mapping[str, Any], content: Mapping[str, Any]) -> list[str]:
    """What a complete run would have and this one has not, in plain words."""
    found = []
    if run.status != "finished":
        again = "" if run.status == "running" else " The same command resumes."
        found.append(f"The run is {run.status}: this page shows what there is so far.{again}")
    open_stages = [stage.name for stage in run.stages() if stage.status != "finished"]
    if open_stages:
        found.append(f"Not finished: {', '.join(open_stages)}.")
    if not metrics:
        found.append("There are no metrics yet; they are computed after the last stage.")
    elif not metrics.get("complete"):
        found.append("The evaluation is not complete: its metrics are of the answers there are so far.")
    return found


# ------------------------------------------------------------------------------------------------------- metrics


def _cards(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The headline metrics; rates get a bar with a tick at chance and one at the best that is possible."""
    cards = []
    drawings, baselines = metrics.get("drawings", {}).get(TRAIN, {}), metrics.get("baselines", {})
    for item in metrics.get("headline", []):
        bar = None
        if item["key"].startswith("identification_"):
            k = item["key"][-1]
            found, best = drawings["identification"], baselines.get("reconstruction", {}).get("identification", {})
            bar = {"low": found[f"low_{k}"], "high": found[f"high_{k}"], "value": found[f"rate_{k}"]}
            bar |= {"tick": found[f"chance_{k}"], "best": best.get(f"rate_{k}")}
        elif item["key"].startswith("switch_"):
            switch = metrics["mode_switch"][item["key"].removeprefix("switch_")]
            bar = {"low": switch["low"], "high": switch["high"], "value": switch["rate"], "tick": None, "best": None}
        dots = _ladder(metrics) if item["key"] == "kid" else []
        cards.append({**item, "bar": bar, "dots": dots})
    return cards


def _ladder(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """KID of the drawings among the baselines, the best first, each with its place from 0 to 1 on a widening axis."""
    steps = [row for row in table(metrics) if row["kid"] != "–"] if metrics else []
    values = [float(row["kid"].replace("−", "-")) for row in steps]
    if len(values) < 2:
        return []
    # Equal steps near zero, ever longer ones further out: what lies between real and blurred stays readable.
    widened = [(1 if value >= 0 else -1) * abs(value) ** 0.4 for value in values]
    low, high = min(widened), max(widened)
    places = [(value - low) / ((high - low) or 1) for value in widened]
    rows = [{**row, "place": place, "value": value} for row, place, value in zip(steps, places, values, strict=True)]
    return sorted(rows, key=lambda row: row["value"])


def _same_kind(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For prompts never trained on: how often the nearest real picture is of the right category."""
    figures = heldout_drawings(metrics)
    keys = [key for key in ("category", "subcategory") if f"same_{key}" in figures]
    return [{"name": KIND_NAMES[key], **figures[f"same_{key}"]} for key in keys]


def _psnr(metrics: Mapping[str, Any]) -> dict[str, str]:
    """What the tokenizer keeps of training and of held-out pictures, in dB."""
    names = {TRAIN: "training pictures", HELDOUT: "held-out pictures"}
    found = by_kind_of_split(metrics.get("reconstruction_psnr", {}))
    return {names.get(split, split): number(value) for split, value in found.items()}


def _kinds(metrics: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Scores per kind: on held-out pictures, and on training pictures."""
    known = {kind: {**score, "kind": kind} for kind, score in heldout_scores(metrics).items()}
    asked = metrics.get("questions", {})
    training = [{**by_split[TRAIN], "kind": kind} for kind, by_split in asked.items() if TRAIN in by_split]
    groups = {"heldout": list(known.values()), "train": training}
    for rows in groups.values():
        for row in rows:
            row |= {"name": KIND_NAMES.get(row["kind"], row["kind"]), "beats": row["margin"] >= ENOUGH_MARGIN}
            row["open"] = row["kind"] in metrics.get("open_kinds", [])
    return groups


def _confusions(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    from vargpt_lightning.evaluation.reports.curves import confusion_svg

    found = []
    for kind, confusion in metrics.get("confusion", {}).items():
        svg = confusion_svg(confusion, f"confusion-{kind}")
        other, big = any(row[-1] for row in confusion["counts"]), len(confusion["labels"]) > 4
        found.append({"name": KIND_NAMES.get(kind, kind), "svg": svg, "other": other, "big": big})
    return sorted(found, key=lambda item: item["big"])


def _stages(
    record: Mapping[str, Any], stages: Sequence[StageFolder], config: str, pictures: Pictures
) -> list[dict[str, Any]]:
    from vargpt_lightning.evaluation.reports.curves import curves_svg, panels, reward_against_kl, reward_svg

    durations, plan = record.get("durations", {}), _plan(config)
    total = sum(durations.values()) or 1
    rows = []
    for stage in stages:
        facts = stage.record
        seconds = durations.get(stage.name, facts.get("seconds"))
        charts = [
            curves_svg(title, series, f"curve-{stage.index}-{place}")
            for place, (title, series) in enumerate(panels(stage.metrics()).items())
        ]
        if len(points := reward_against_kl(stage.metrics())) > 1:
            charts.append(reward_svg(points, f"reward-{stage.index}"))
        samples = stage.samples()
        rows.append(
            {
                "name": stage.name,
                "status": stage.status,
                "steps": facts.get("steps"),
                "time": duration(seconds),
                "share": (seconds or 0) / total,
                "memory": memory(facts.get("peak_memory")),
                "trained": facts.get("trained") or plan.get(stage.name, []),
                "charts": charts,
                "sheet": pictures.uri(samples[-1]) if samples else None,
            }
        )
    others = [name for name in durations if name not in {stage.name for stage in stages}]
    rows += [_part(name, durations[name], total) for name in others]
    return rows


def _plan(config: str) -> dict[str, list[str]]:
    """Which submodules each stage trains, by the configuration; empty where it cannot be read."""
    import yaml

    from vargpt_lightning.utils.yaml_text import load_yaml

    try:
        stages = (load_yaml(config) or {}).get("stages") or []
        return {stage["name"]: list(stage.get("train") or []) for stage in stages}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError):
        return {}


def _part(name: str, seconds: float, total: float) -> dict[str, Any]:
    row = {"name": name, "time": duration(seconds), "share": seconds / total, "memory": "–", "status": "finished"}
    return row | {"steps": None, "trained": [], "charts": [], "sheet": None}


def _examples(run: RunFolder, pictures: Pictures, of_each: int = 2) -> list[dict[str, Any]]:
    """Questions about held-out pictures, for each kind some that were answered rightly and some that were not."""
    from vargpt_lightning.evaluation.base.exact_match import is_right

    answers = run.answers()
    heldout = [row for row in answers if row["split"] != TRAIN] or answers
    found = []
    for kind in dict.fromkeys(row["kind"] for row in heldout):
        rows = [row for row in by_hash(heldout) if row["kind"] == kind]
        for wanted in (True, False):
            chosen = [row for row in rows if is_right(row["answer"], row["expected"]) == wanted][:of_each]
            for row in chosen:
                shown = {"right": wanted, "kind": KIND_NAMES.get(kind, kind), "uri": pictures.real(row["picture"])}
                words = {key: _with_option(row[key], row.get("options") or []) for key in ("answer", "expected")}
                found.append({**row, **shown, **words})
    return found


def _with_option(answer: str, options: Sequence[str]) -> str:
    """The answer, and what its letter stands for: "C (coral)"."""
    place = "ABCDEFGHIJ".find(answer.strip().upper()) if len(answer.strip()) == 1 else -1
    return f"{answer} ({options[place]})" if 0 <= place < len(options) else answer
