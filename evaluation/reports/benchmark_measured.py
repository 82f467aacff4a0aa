"""Result files as the tables and the chart need them: who was measured, by which protocol, and what came out.

Reads result and scores files alone; imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vargpt_lightning.evaluation.base.benchmark import PROTOCOLS, mean_interval
from vargpt_lightning.evaluation.harness.outputs import read_rows
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import read_json

COLUMNS = {
    "mmbench": "MMBench",
    "seedbench": "SEED-I",
    "mmmu": "MMMU",
    "pope": "POPE",
    "pope/adversarial": "POPE adv.",
    "pope/popular": "POPE pop.",
    "pope/random": "POPE rand.",
    "mme": "MME-P",
    "gqa": "GQA",
    "textvqa": "TextVQA",
    "vqav2": "VQAv2",
    "scienceqa_img": "SQA-I",
    "okvqa": "OK-VQA",
    "vizwiz": "VizWiz",
}
MARKS = {
    "L": "limited: a part of the questions was asked",
    "P": "partial: outputs are missing, pictures could not be read, or groups are incomplete",
    "G": "guessed: some answers were drawn at random",
    "J": "judged: a judge read some of the answers",
    "T": "truncated: some answers reached the limit of new tokens",
    "S": "another prompt style than LLaVA-1.5's",
    "F": "few: fewer pictures than features, or statistics that do not say of how many; no sound metric",
}
"""Marks of measured cells; published ones have their own letters."""


@dataclass(frozen=True)
class Number:
    """A measured figure on its table's scale with its 95 % interval; any of them None where there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None


@dataclass(frozen=True)
class Measured:
    """One result file: who, what, by which protocol; `numbers` has the columns' keys."""

    system: str
    benchmark: str
    title: str
    protocol: str
    folder: Path
    result: Mapping[str, Any]
    numbers: Mapping[str, Number]

    @property
    def marks(self) -> str:
        """The letters of MARKS that hold for this result."""
        figures, result = self.result["figures"], self.result
        holds = {
            "L": result.get("limit") is not None,
            "P": bool(result.get("partial") or figures.get("partial")),
            "G": bool(figures.get("guessed")),
            "J": bool(figures.get("judged")),
            "T": bool(figures.get("truncated")),
            "S": result.get("style", "llava") != "llava",
        }
        return "".join(letter for letter, yes in holds.items() if yes)

    @property
    def unread(self) -> float:
        """The share of outputs in which no answer was found."""
        figures = self.result["figures"]
        return float((figures.get("empty") or 0) + (figures.get("unparsed") or 0)) / max(1.0, figures.get("n") or 0)


def read_measured(folders: Sequence[Path]) -> list[Measured]:
    """Every result in OUT folders, by folder and benchmark.

    Raises:
        UserError: a folder is not there, or a result file cannot be understood (it is named).
    """
    found = []
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no such folder; expected one that benchmarks were written to")
        here = [_measured(file) for file in sorted(folder.glob("*/result.*.json"))]
        found += sorted(here, key=_order)
    return _with_names(found)


def _order(each: Measured) -> tuple[int, str]:
    known = list(COLUMNS)
    return known.index(each.benchmark) if each.benchmark in known else len(known), each.benchmark


def _measured(file: Path) -> Measured:
    result = read_json(file)
    try:
        figures, scale = dict(result["figures"]), float(result["scale"])
        name, protocol = str(result["benchmark"]), str(result["protocol"])
        headline = figures[result["headline"]]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} is not a benchmark's result: {error!r}") from error
    count = figures.get("n")
    numbers = {name: _scaled(scale, headline, figures.get("low"), figures.get("high"), count)}
    if name == "pope":
        numbers |= _pope_categories(file.parent, protocol, figures, scale)
    system = str(result.get("model") or file.parent.parent.name)
    return Measured(system, name, str(result.get("title") or name), protocol, file.parent, result, numbers)


def _scaled(scale: float, value: Any, low: Any, high: Any, count: Any) -> Number:
    def scaled(number: Any) -> float | None:
        return None if number is None or not math.isfinite(number) else number * scale

    return Number(scaled(value), scaled(low), scaled(high), None if count is None else int(count))


def _pope_categories(folder: Path, protocol: str, figures: Mapping[str, Any], scale: float) -> dict[str, Number]:
    """Accuracy by category, as the published tables have it, with intervals over the questions of each."""
    values: dict[str, list[float]] = {}
    for row in read_rows(folder / f"scores.{protocol}.jsonl"):
        values.setdefault(str(row.get("category")), []).append(float(row["value"]))
    found = {}
    for key in COLUMNS:
        category = key.partition("/")[2]
        if category and f"accuracy/{category}" in figures:
            each = values.get(category, [])
            low, high = mean_interval(each)
            found[key] = _scaled(scale, figures[f"accuracy/{category}"], low, high, len(each) or None)
    return found


def _with_names(found: Sequence[Measured]) -> list[Measured]:
    """The same results; systems of one name in several folders get the folder's name beside it."""
    homes: dict[str, set[Path]] = {}
    for each in found:
        homes.setdefault(each.system, set()).add(each.folder.parent)
    named = []
    for each in found:
        system = each.system
        if len(homes[system]) > 1:
            system = f"{system} ({each.folder.parent.name})"
        style = each.result.get("style", "llava")
        system += f", {style} prompts" if style != "llava" else ""
        named.append(Measured(system, *[getattr(each, name) for name in list(Measured.__dataclass_fields__)[1:]]))
    return named


def protocols(found: Iterable[Measured]) -> list[str]:
    """The protocols that there are, the default one first."""
    there = {each.protocol for each in found}
    known = [name for name in ("lmms_eval", "lmms_eval_0.3", *PROTOCOLS) if name in there]
    return [*dict.fromkeys(known), *sorted(there - set(known))]
