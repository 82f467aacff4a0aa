"""Figures of a finished run by name, read from its folder.

identification_1                 a headline metric of the evaluation, by its key
drawings.train.kid_x1000         any metric of evaluation/metrics.json, by its place
cost.seconds, cost.megabytes     what a drawing took, of evaluation/cost.json
benchmarks.mme                   a benchmark's main metric, on the scale of tables, by the protocol that the run's
                                 experiment names (lmms_eval); `benchmarks.mme.official` by another one
benchmarks.mme.perception        another metric of it; also `benchmarks.mme.official.perception`
stages.generation.val/loss       a stage's metric, its last value; with `:min`, `:max` or `:mean` of all
seconds, seconds.generation      what the run, or a part of it, took
peak_memory                      a field of run.json
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import Any

from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.sweep.spec import Measure
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import read_json
from vargpt_lightning.utils.yaml_text import load_yaml

PROTOCOLS = ("lmms_eval", "official", "lenient")
OF_ALL: dict[str, Callable[[Sequence[float]], float]] = {"min": min, "max": max, "mean": fmean}


def read_measure(run: RunFolder, path: str) -> float:
    """Return a metric.

    Raises:
        UserError: the run has none of this name, or it is no number; names those that are near.
    """
    first, _, rest = path.partition(".")
    if first == "stages":
        return _stage(run, path, rest)
    if first == "benchmarks" and rest:
        return _benchmark(run, path, rest)
    if first == "cost" and rest:
        file = run.evaluation / "cost.json"
        cost = read_json(file) if file.is_file() else {}
        return _number(cost.get(rest), path, [f"cost.{name}" for name in cost])
    if first == "seconds":
        durations = run.record.get("durations", {})
        value = sum(durations.values()) if not rest else durations.get(rest)
        return _number(value, path, list(durations))
    metrics = run.metrics()
    headline = {item.get("key"): item.get("value") for item in metrics.get("headline", [])}
    if path in headline:
        return _number(headline[path], path, list(headline))
    value = run.record.get(path, metrics)
    for name in path.split(".") if path not in run.record else ():
        value = value.get(name) if isinstance(value, dict) else None
    return _number(value, path, [*map(str, headline), *metrics])


def read_measures(path: Path, measures: Sequence[Measure]) -> tuple[dict[str, float], str]:
    """Return the metrics that a run has, by their names, and what is said about those, or the run, that are missing."""
    found: dict[str, float] = {}
    missing = []
    try:
        run = RunFolder(path)
    except UserError as error:
        return found, str(error)
    for measure in measures:
        try:
            found[measure.name] = read_measure(run, measure.path)
        except UserError as error:
            missing.append(str(error))
    return found, "; ".join(missing)


def stage_values(run: Path, stage: str, metric: str) -> list[tuple[int, float]]:
    """Return a stage's metric so far, as (step, value) in order; empty where there is none yet."""
    if not (run / "run.json").is_file():
        return []
    for folder in RunFolder(run).stages():
        if folder.name == stage:
            return [(row.step, row.value) for row in folder.metrics() if row.name == metric]
    return []


def _stage(run: RunFolder, path: str, rest: str) -> float:
    stage, _, metric = rest.partition(".")
    metric, _, how = metric.partition(":")
    values = [value for _, value in stage_values(run.path, stage, metric)]
    if not values:
        rows = {f"stages.{folder.name}.{row.name}" for folder in run.stages() for row in folder.metrics()}
        raise _missing(path, sorted(rows) or ["no stages"])
    if how and how not in OF_ALL:
        raise UserError(f"measure {path}: {how!r}; expected {', '.join(OF_ALL)} after the colon")
    return _number(OF_ALL[how](values) if how else values[-1], path, [])


def _benchmark(run: RunFolder, path: str, rest: str) -> float:
    name, _, below = rest.partition(".")
    first, _, others = below.partition(".")
    asked = _protocol(run)
    protocol, figure = (first, others) if first in PROTOCOLS else (asked, below)
    file = run.path / "benchmarks" / name / f"result.{protocol}.json"
    if not file.is_file() and first not in PROTOCOLS:  # our own questions have one rule, whatever is asked of others
        file = file.with_name("result.exact.json")
    if not file.is_file():
        there = sorted((run.path / "benchmarks").glob("*/result.*.json"))
        names = [f"benchmarks.{each.parent.name}.{each.name.split('.')[1]}" for each in there]
        raise _missing(path, names or ["no benchmarks"])
    result = read_json(file)
    value = result.get("figures", {}).get(figure or result.get("headline"))
    number = _number(value, path, list(result.get("figures", {})))
    return number if figure else number * result.get("scale", 1)


def _protocol(run: RunFolder) -> str:
    """The protocol that the run's own experiment scores by."""
    asked = load_yaml(run.config_text) if run.config_text else None
    for name in ("evaluation", "benchmarks", "protocol"):
        asked = asked.get(name) if isinstance(asked, dict) else None
    return asked if asked in PROTOCOLS else PROTOCOLS[0]


def _number(value: Any, path: str, there: list[str]) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _missing(path, there)
    if not isfinite(value):
        raise UserError(f"measure {path}={value}; expected a finite number")
    return float(value)


def _missing(path: str, there: list[str]) -> UserError:
    return UserError(f"measure {path}: the run has no such number; there are {', '.join(there[:40]) or 'none'}")
