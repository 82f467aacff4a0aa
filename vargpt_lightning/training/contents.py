"""What each stage of an experiment depends on, and whether a stage that was trained before is the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.recipe.stage import stage_hashes
from vargpt_lightning.runs.folder import RunFolder, StageFolder
from vargpt_lightning.training.data.inputs import Input, stage_inputs
from vargpt_lightning.training.packages import packages_of

if TYPE_CHECKING:
    from vargpt_lightning.experiment.schema import Experiment

PLACES = ("train", "val", "tokenizer")  # of the data: what lies there counts, not where
CLOCK = 1.0  # seconds; the times that runs record are cut to whole ones
PARTS_OF_WEIGHTS = ("new_rows", "ignore")  # of init_from: how weights are taken, the rest says from where


@dataclass(frozen=True)
class Comparison:
    """How a stage that was trained before differs from what an experiment asks for now.

    Attributes:
        changes: one line for each difference.
        of_data: whether all of them are of the data, the tokenizer or the first weights.
        cut: whether the same batch of a step is cut over processes and time in another way.
        regrouped: whether nothing but the number of processes differs, and with it the batch of a step.
        unrecorded: whether it was trained by a version that did not record what the data held.
        gone: what cannot be compared, because it is not there any more.
    """

    changes: list[str] = field(default_factory=list)
    of_data: bool = False
    cut: bool = False
    regrouped: bool = False
    unrecorded: bool = False
    gone: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """Whether there is no difference."""
        return not self.changes


class StageContents:
    """All that the stages of an experiment depend on: settings, data by content, and the batch of a whole step.

    Args:
        processes: how many train; None takes what the section trainer says, as far as it is a number.
    """

    def __init__(self, experiment: Experiment, processes: int | None = None) -> None:
        self.experiment = experiment
        self.processes = _processes(experiment) if processes is None else processes

    @cached_property
    def inputs(self) -> dict[str, Input]:
        """The data, the tokenizer and the first weights (see `stage_inputs`)."""
        return stage_inputs(self.experiment)

    @cached_property
    def hashes(self) -> list[str]:
        """A hash for each stage of all that its result depends on, the stages before it included."""
        stages = [_of_all(_plain(stage.settings()), self.processes) for stage in self.experiment.stages]
        return stage_hashes(stages, self._basis)

    def hash_after(self, before: str | None, index: int) -> str:
        """Return a stage's hash where the stage before it has another one than expected: it stayed as it was."""
        if index == 0 or before in (None, self.hashes[index - 1]):
            return self.hashes[index]
        return stage_hashes([_of_all(self.settings(index)["stage"], self.processes)], before)[0]

    def settings(self, index: int) -> dict[str, Any]:
        """Return what a stage's result depends on, the stages before it left out, as plain JSON values."""
        return {**self._basis, "stage": _plain(self.experiment.stages[index].settings())}

    def packages(self, index: int) -> dict[str, str]:
        """Return the versions of the installed packages that a stage's code comes from (see `packages_of`)."""
        return packages_of(self.experiment, index)

    def compare(self, run: RunFolder, folder: StageFolder) -> Comparison:
        """Hold the record of a stage against what the experiment asks for at its place; keys that were not there yet
        when it was trained count as standing at their defaults.
        """
        index, record = folder.index - 1, folder.record
        before: dict[str, Any] = dict(record.get("settings") or {})
        if "inputs" in before:
            now = self.settings(index)
            found, gone = self._changed_inputs(before.pop("inputs"), now.pop("inputs"))
            unrecorded = False
        else:
            now = self._unhashed(index)
            found, gone, unrecorded = self._evidence(run, folder), [], True
        before = _filled(before, now, self._defaults(index))
        earlier = int(record.get("processes", self.processes))
        stages = [_of_all(each.get("stage", {}), count) for each, count in ((before, earlier), (now, self.processes))]
        same_batch = stages[0] == stages[1]
        if same_batch:
            changes = differences({**before, "stage": None}, {**now, "stage": None})
        else:
            changes = differences({**before, "processes": earlier}, {**now, "processes": self.processes})
            if earlier != self.processes:
                changes.append("the global batch is batch_size x accumulate x processes")
        if unrecorded and changes:  # what may have changed is nothing beside what has
            found = []
        cut = same_batch and (before["stage"] != now["stage"] or earlier != self.processes)
        regrouped = not found and not same_batch and before == now
        return Comparison([*changes, *found], bool(found) and not changes, cut, regrouped, unrecorded, gone)

    @cached_property
    def _basis(self) -> dict[str, Any]:
        basis = _plain(self.experiment.stage_basis())
        basis["data"] = {key: value for key, value in basis["data"].items() if key not in PLACES}
        if "init_from" in basis:
            basis["init_from"] = {key: basis["init_from"][key] for key in PARTS_OF_WEIGHTS}
        return {**basis, "inputs": {name: each.content for name, each in self.inputs.items()}}

    def _unhashed(self, index: int) -> dict[str, Any]:
        """What versions before recorded of a stage: paths of the data in place of what they held."""
        return _plain({**self.experiment.stage_basis(), "stage": self.experiment.stages[index].settings()})

    def _changed_inputs(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[list[str], list[str]]:
        gone = [name for name in now if now[name] is None]
        names = [name for name in dict.fromkeys([*before, *now]) if name not in gone and before.get(name) is not None]
        new = [f"{_called(name)} is new" for name in now if name not in before and name not in gone]
        changed = [name for name in names if before[name] != now.get(name)]
        return [_change(name, before[name], now.get(name)) for name in changed] + new, gone

    def _evidence(self, run: RunFolder, folder: StageFolder) -> list[str]:
        """What speaks against data being those of a stage whose record does not say what they held: other numbers of
        records, or files that are younger than the training.
        """
        counted, began, found = folder.record.get("data") or {}, _began(run, folder), []
        for name, each in self.inputs.items():
            records = (counted.get(name.removeprefix("train.")) or {}).get("records")
            now = (each.content or {}).get("records")
            if name.startswith("train.") and None not in (records, now) and records != now:
                found.append(_change(name, {"records": records}, each.content))
            elif began is None or any(file.stat().st_mtime > began + CLOCK for file in each.files if file.is_file()):
                found.append(f"{_called(name)} may be another than then: what it held was not recorded")
        return found

    def _defaults(self, index: int) -> dict[str, Any]:
        experiment = self.experiment
        sections = {"model": experiment.model, "data": experiment.data, "stage": experiment.stages[index]}
        if experiment.init_from:
            sections["init_from"] = experiment.init_from
        return {name: _defaults(value) for name, value in sections.items() if is_dataclass(value)}


def content_hashes(experiment: Experiment, processes: int | None = None) -> list[str]:
    """Return for each stage a hash of all that its result depends on; `processes` as for `StageContents`."""
    return StageContents(experiment, processes).hashes


def differences(before: Any, now: Any, key: str = "") -> list[str]:
    """Return one line for each key of two trees whose values differ: the key, what it was, what it is."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [f"{key} was {before!r}, is {now!r}"]
    lines = []
    for name in dict.fromkeys([*before, *now]):
        if before.get(name) != now.get(name):
            lines += differences(before.get(name), now.get(name), f"{key}.{name}".lstrip("."))
    return lines


def _of_all(stage: Mapping[str, Any], processes: int) -> dict[str, Any]:
    """A stage's settings with the batch of a whole step in place of one process's."""
    if not stage:
        return {}
    parts = stage["accumulate"] * processes
    if stage.get("max_tokens"):  # these batches are dealt out whole
        return {**stage, "accumulate": parts}
    sizes = {key: stage[key] * parts for key in ("batch_size", "text_batch_size") if stage.get(key)}
    return {**stage, **sizes, "accumulate": None}


def _processes(experiment: Experiment) -> int:
    devices, nodes = experiment.trainer.devices, experiment.trainer.num_nodes
    if isinstance(devices, list):
        return max(1, len(devices)) * nodes
    return max(1, int(devices) if str(devices).isdigit() else 1) * nodes


def _filled(before: Any, now: Any, defaults: Any) -> Any:
    """The settings of before, with keys that there are now, and were not then, at their defaults."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return before
    defaults = defaults if isinstance(defaults, dict) else {}
    absent = {key: defaults[key] for key in now if key not in before and key in defaults}
    return {**{key: _filled(value, now.get(key), defaults.get(key)) for key, value in before.items()}, **absent}


def _defaults(value: Any) -> dict[str, Any]:
    """The defaults of a dataclass's fields, as plain values, those of nested ones by the classes that they have."""
    found: dict[str, Any] = {}
    for each in fields(value):
        inner = getattr(value, each.name)
        if is_dataclass(inner):
            found[each.name] = _defaults(inner)
        elif each.default is not MISSING:
            found[each.name] = each.default
        elif each.default_factory is not MISSING:
            found[each.name] = each.default_factory()
    return _plain(found)


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=_as_plain))


def _as_plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def _called(name: str) -> str:
    split, _, corpus = name.partition(".")
    words = {"train": f"the corpus {corpus} (train)", "val": f"the corpus {corpus} (val)"}
    return words.get(split, f"what lies at {name}")


def _change(name: str, before: Any, now: Any) -> str:
    if now is None:
        return f"{_called(name)} was there, and is not asked for now"
    counts = [each.get("records") for each in (before, now) if isinstance(each, dict)]
    if len(set(counts)) == 2:
        return f"{_called(name)} had {counts[0]:,} records, has {counts[1]:,}"
    return f"{_called(name)} holds something else than then"


def _began(run: RunFolder, folder: StageFolder) -> float | None:
    """When the training of a stage began at the earliest, as a time stamp; None where that is not known."""
    if taken := folder.record.get("taken_from"):
        run = RunFolder(Path(taken).parents[1])
    try:
        return datetime.fromisoformat(str(run.record["started"])).timestamp()
    except (KeyError, ValueError, OSError):
        return None
