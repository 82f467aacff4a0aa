"""A sweep's folder and its Optuna study: what is planned, who works on what, how each trial ended.

    <sweep>/plan.json              the sweep as planned last: what is measured, the cells that belong to it
    <sweep>/journal.log            the study, as Optuna's JournalStorage writes it
    <sweep>/experiments/*.yaml     the experiment file of each trial
    <sweep>/trials/<name>/         its run folder
    <sweep>/logs/<name>.log        what its process wrote
    <sweep>/claims/<number>/       the lock of who works on it (see runs/locks.py)

Optuna's state of a trial says whether it is waiting, begun or ended; a lock says whether somebody is at work on it. A
begun trial that nobody owns was killed, and the next worker takes it up.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vargpt_lightning.runs.folder import find_run_folders, now
from vargpt_lightning.runs.locks import LEASE_TIMEOUT, LeaseLock, owner
from vargpt_lightning.sweep.cells import Cell, make_cell, write_cell
from vargpt_lightning.sweep.measures import read_measures
from vargpt_lightning.sweep.spec import Measure, Pruning, Range, Sweep
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import plain, read_json, write_json

if TYPE_CHECKING:  # a third of a second, which the help need not wait for
    import optuna
    from optuna.trial import FrozenTrial

PLAN_VERSION = 1
ENDED = ("finished", "failed", "pruned")


@dataclass(frozen=True)
class Taken:
    """A trial that this process has locked."""

    number: int
    name: str
    lock: LeaseLock
    again: bool


@dataclass(frozen=True)
class Row:
    """A trial as tables show it; `state` is waiting, running, interrupted, finished, failed or pruned."""

    number: int
    key: str
    name: str
    values: dict[str, Any]
    seed: int
    changes: dict[str, Any]
    state: str
    measures: dict[str, float]
    error: str
    host: str
    seconds: float


class SweepFolder:
    """A sweep that was planned.

    Args:
        path: the sweep's folder.
        lease_timeout: seconds without a heartbeat after which a worker on another machine counts as dead.

    Raises:
        UserError: the folder is no sweep, or is one of a later release.
    """

    def __init__(self, path: Path | str, lease_timeout: float = LEASE_TIMEOUT) -> None:
        self.path, self.lease_timeout = Path(path), lease_timeout
        file = self.path / "plan.json"
        if not file.is_file():
            raise UserError(f"{self.path} is not a sweep: plan.json is missing; plan one with: vargpt sweep FILE")
        self.plan: dict[str, Any] = read_json(file)
        if self.plan.get("version") != PLAN_VERSION:
            raise UserError(f"{file} has version {self.plan.get('version')!r}; this release reads {PLAN_VERSION}")
        self.sweep = _from_plain(self.plan["sweep"])
        self._late: dict[int, tuple[dict[str, float], str]] = {}

    # ------------------------------------------------------------------------------------------------------ planning

    @classmethod
    def make(cls, sweep: Sweep, path: Path, lease_timeout: float = LEASE_TIMEOUT) -> tuple[SweepFolder, int]:
        """Plan a sweep, for the first time or again; return it with the number of trials that are new."""
        with _alone(path / "claims" / "plan", lease_timeout):
            cells = [] if sweep.sampled else [make_cell(sweep, values, seed) for values, seed in sweep.points()]
            keys = [f"slot-{number}" for number in range(sweep.trials)] or [cell.key for cell in cells]
            twice = {key for key in keys if keys.count(key) > 1}
            if twice:
                same = [cell.slug for cell in cells if cell.key in twice]
                raise UserError(f"the cells {', '.join(same[:4])} are the same experiment; expected each one once")
            _check_file(path / "plan.json", sweep)
            plan = {"version": PLAN_VERSION, "created": now(), "cwd": os.getcwd(), "cells": keys}
            write_json(path / "plan.json", {**plan, "sweep": _to_plain(sweep)})
            folder = cls(path, lease_timeout)
            return folder, folder._enqueue(cells, keys)

    def _enqueue(self, cells: list[Cell], keys: list[str]) -> int:
        there = self.study.get_trials(deepcopy=False)
        known = {trial.user_attrs.get("key") for trial in there}
        names = {trial.user_attrs.get("name") for trial in there}
        if not cells:
            new = [key for key in keys if key not in known]
            for key in new:
                self.study.enqueue_trial({}, user_attrs={"key": key})
            return len(new)
        for cell in cells:
            if cell.key in known:
                continue
            name = cell.slug if cell.slug not in names else f"{cell.slug}-{cell.key[:8]}"
            names.add(name)
            self._write(cell, name)
            attributes = {"key": cell.key, "name": name, "values": cell.values, "seed": cell.seed}
            attributes["changes"] = cell.changes
            # `cell` keeps seeds and settings apart that are equal up to Optuna's tolerance
            fixed = {"cell": cell.key, "seed": cell.seed, **{key: _scalar(value) for key, value in cell.values.items()}}
            self.study.enqueue_trial(fixed, user_attrs=attributes, skip_if_exists=True)
        return sum(cell.key not in known for cell in cells)

    def _write(self, cell: Cell, name: str) -> None:
        write_cell(cell, self.experiment(name), f"a trial of the sweep {self.sweep.name}: {name}")

    def retry(self) -> int:
        """Enqueue the failed trials once more; return how many."""
        with _alone(self.path / "claims" / "plan", self.lease_timeout):
            failed = [trial for trial in self._latest().values() if trial.state.name == "FAIL"]
            for trial in failed:
                attributes = {key: trial.user_attrs[key] for key in _KEPT if key in trial.user_attrs}
                fixed = trial.system_attrs.get("fixed_params") or trial.params
                self.study.enqueue_trial(fixed, user_attrs={**attributes, "retry_of": trial.number})
        return len(failed)

    # -------------------------------------------------------------------------------------------------------- places

    def experiment(self, name: str) -> Path:
        return self.path / "experiments" / f"{name}.yaml"

    def run(self, name: str) -> Path:
        return self.path / "trials" / name

    def log(self, name: str) -> Path:
        return self.path / "logs" / f"{name}.log"

    def reuse(self) -> list[str]:
        """The runs to take over from that are there: a sweep can be planned before them."""
        planned = Path(self.plan.get("cwd") or ".")
        return [name for name in self.sweep.reuse if any(find_run_folders(planned / Path(name).expanduser()))]

    def lock(self, number: int) -> Path:
        return self.path / "claims" / f"{number:04d}"

    # --------------------------------------------------------------------------------------------------------- study

    @cached_property
    def study(self) -> optuna.Study:
        """The study; it is made when it is not there."""
        import optuna
        from optuna.storages import JournalStorage

        from vargpt_lightning.sweep.journal import WholeLines

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", "Choices for a categorical distribution")  # lists are stored well as JSON
        storage = JournalStorage(WholeLines(str(self.path / "journal.log")))
        aim, prune = self.sweep.measures[0], self.sweep.prune
        direction: Literal["minimize", "maximize"] = "maximize" if aim.best == "max" else "minimize"
        study = optuna.create_study(
            study_name=self.sweep.name,
            storage=storage,
            direction=direction,
            load_if_exists=True,
            sampler=self._sampler(0),
            pruner=_named("pruners", prune.pruner, prune.arguments) if prune else optuna.pruners.NopPruner(),
        )
        if self.sweep.sampled and study.direction.name.lower() != direction:
            before = study.direction.name.lower()
            raise UserError(f"{self.path}: the study was begun to {before} its aim; give the sweep another name")
        return study

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """The sampler for one trial: with the same seed for all, workers would begin with the same points."""
        arguments = dict(self.sweep.sampler_arguments)
        if self.sweep.sampler not in ("QMCSampler", "BruteForceSampler"):  # these share their order
            arguments["seed"] = int(arguments.get("seed", 0)) * 100_003 + number
        return _named("samplers", self.sweep.sampler, arguments)

    def _latest(self) -> dict[str, FrozenTrial]:
        """The last trial of each planned cell, in the plan's order."""
        found = {trial.user_attrs.get("key"): trial for trial in self.study.get_trials(deepcopy=False)}
        return {key: found[key] for key in self.plan["cells"] if key in found}

    def _storage_id(self, number: int) -> int:
        return self.study.get_trials(deepcopy=False)[number]._trial_id

    # ------------------------------------------------------------------------------------------------------- working

    def take(self, passed_over: Collection[int] = ()) -> Taken | None:
        """Lock the next trial that waits, or that was begun by somebody who is dead; None when there is none."""
        for trial in self._latest().values():
            if trial.state.is_finished() or trial.number in passed_over:
                continue
            lock = LeaseLock.acquire(self.lock(trial.number), self.lease_timeout)
            if lock is None:
                continue
            try:
                if taken := self._begin(trial.number, lock):
                    return taken
            except BaseException:
                lock.release()
                raise
            lock.release()
        return None

    def _begin(self, number: int, lock: LeaseLock) -> Taken | None:
        from optuna.trial import Trial, TrialState

        frozen = self.study.get_trials(deepcopy=False)[number]
        if frozen.state.is_finished():  # it ended between the look and the lock
            return None
        if frozen.state == TrialState.WAITING:
            self.study._storage.set_trial_state_values(frozen._trial_id, TrialState.RUNNING)
        attributes = frozen.user_attrs
        if self.sweep.sampled:
            self.study.sampler = self._sampler(number)
            trial = Trial(self.study, frozen._trial_id)
            values = {key: _suggest(trial, key, choice) for key, choice in self.sweep.space.items()}
            cell = make_cell(self.sweep, values, self.sweep.seeds[0])
            name = attributes.get("name") or self._finished_as(cell) or f"trial-{number:04d}"
            self._write(cell, name)
            news = {"name": name, "values": cell.values, "seed": cell.seed, "changes": cell.changes, "cell": cell.key}
            for key, value in news.items():
                trial.set_user_attr(key, value)
        else:
            name = attributes["name"]
        return Taken(number, name, lock, again="retry_of" in attributes)

    def _finished_as(self, cell: Cell) -> str | None:
        """The name of a finished trial of the same experiment, whose figures are this one's too."""
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state.name == "COMPLETE" and trial.user_attrs.get("cell") == cell.key:
                return str(trial.user_attrs["name"])
        return None

    def report(self, number: int, step: int, value: float) -> bool:
        """Tell the pruner a value; True when the trial is to be stopped."""
        from optuna.trial import Trial

        assert self.sweep.prune is not None
        sign = 1 if self.sweep.prune.best == self.sweep.measures[0].best else -1
        trial = Trial(self.study, self._storage_id(number))
        trial.report(sign * value, step)
        return trial.should_prune()

    def end(self, taken: Taken, state: str, measures: dict[str, float], error: str = "", seconds: float = 0.0) -> None:
        """Write down how a trial ended, and give its lock back."""
        from optuna.trial import TrialState

        storage, trial_id = self.study._storage, self._storage_id(taken.number)
        facts = {"measures": measures, "error": error, "seconds": seconds, "host": os.uname().nodename}
        for key, value in facts.items():
            storage.set_trial_user_attr(trial_id, key, value)
        states = {"finished": TrialState.COMPLETE, "failed": TrialState.FAIL, "pruned": TrialState.PRUNED}
        value = measures.get(self.sweep.measures[0].name) if state == "finished" else None
        self.study.tell(taken.number, value, states[state])
        taken.lock.release()

    # ------------------------------------------------------------------------------------------------------- reading

    def rows(self) -> list[Row]:
        """The trials of the plan, each cell's last one, in the plan's order."""
        return [self._row(trial) for trial in self._latest().values()]

    def _row(self, trial: FrozenTrial) -> Row:
        known = trial.user_attrs
        state, host = _STATES[trial.state.name], known.get("host", "")
        if state in ("waiting", "running"):
            held = owner(self.lock(trial.number), self.lease_timeout)
            host = str(held.get("host", "")) if held else ""
            state = "running" if held else {"running": "interrupted"}.get(state, state)
        measures, error = known.get("measures", {}), known.get("error", "")
        if state == "finished" and any(measure.name not in measures for measure in self.sweep.measures):
            measures, error = self._measured_late(trial, measures)
        return Row(
            number=trial.number,
            key=known["key"],
            name=known.get("name", known["key"]),
            values=known.get("values", {}),
            seed=known.get("seed", self.sweep.seeds[0]),
            changes=known.get("changes", {}),
            state=state,
            measures=measures,
            error=error,
            host=host,
            seconds=known.get("seconds", 0.0),
        )

    def _measured_late(self, trial: FrozenTrial, known: dict[str, float]) -> tuple[dict[str, float], str]:
        """A finished trial's figures with those that the file asked for later, or now by their right names."""
        if trial.number not in self._late:
            name = trial.user_attrs.get("name", trial.user_attrs["key"])
            found, missing = read_measures(self.run(name), self.sweep.measures)
            self._late[trial.number] = ({**known, **found}, missing)
        return self._late[trial.number]

    def left_out(self) -> int:
        """How many trials there are of cells that the plan no longer has."""
        planned = set(self.plan["cells"])
        return sum(trial.user_attrs.get("key") not in planned for trial in self.study.get_trials(deepcopy=False))


_KEPT = ("key", "name", "values", "seed", "changes")
_STATES = {"WAITING": "waiting", "RUNNING": "running", "COMPLETE": "finished", "FAIL": "failed", "PRUNED": "pruned"}


def _check_file(plan: Path, sweep: Sweep) -> None:
    """Refuse to plan a sweep in the folder of another one, whose file is still there and says other things."""
    if not plan.is_file():
        return
    before = read_json(plan)["sweep"]
    other = before.get("file") or ""
    if other != sweep.file and Path(other).is_file() and {**before, "file": sweep.file} != plain(_to_plain(sweep)):
        raise UserError(
            f"{plan.parent} is the sweep of {other}; got {sweep.file}; expected another name for it: --name NAME"
        )


class _alone:
    """Hold a lock while the block runs; wait for others first."""

    def __init__(self, folder: Path, lease_timeout: float) -> None:
        self.folder, self.lease_timeout = folder, lease_timeout

    def __enter__(self) -> None:
        while (lock := LeaseLock.acquire(self.folder, self.lease_timeout)) is None:
            time.sleep(0.2)
        self.lock = lock

    def __exit__(self, *error: object) -> None:
        self.lock.release()


def _named(module: str, name: str, arguments: Any) -> Any:
    """Make one of Optuna's samplers or pruners by its name."""
    import optuna

    where = getattr(optuna, module)
    if name not in where.__all__ or name.startswith("Base"):
        there = [each for each in where.__all__ if each[0].isupper() and not each.startswith("Base")]
        raise UserError(f"{module[:-1]} {name!r} is unknown; there are {', '.join(there)}")
    try:
        return getattr(where, name)(**arguments)
    except (TypeError, ValueError, ImportError) as error:
        raise UserError(f"{module[:-1]} {name}: {arguments!r} is refused: {error}") from error


def _suggest(trial: Any, key: str, choice: Range) -> Any:
    if choice.choices:
        return trial.suggest_categorical(key, choice.choices)
    if choice.whole:
        return trial.suggest_int(key, choice.low, choice.high, step=int(choice.step or 1), log=choice.log)
    return trial.suggest_float(key, choice.low, choice.high, step=choice.step, log=choice.log)


def _scalar(value: Any) -> Any:
    return value if value is None or isinstance(value, (bool, int, float, str)) else repr(value)


def _to_plain(sweep: Sweep) -> dict[str, Any]:
    return {**asdict(sweep), "bases": {name: str(path) for name, path in sweep.bases.items()}}


def _from_plain(plain: dict[str, Any]) -> Sweep:
    tuples: Iterable[str] = ("seeds", "reuse", "program")
    values = {**plain, **{key: tuple(plain[key]) for key in tuples}}
    values["bases"] = {name: Path(path) for name, path in plain["bases"].items()}
    values["measures"] = tuple(Measure(**entry) for entry in plain["measures"])
    values["grid"] = {key: tuple(entry) for key, entry in plain["grid"].items()}
    values["space"] = {
        key: Range(**{**entry, "choices": tuple(entry["choices"])}) for key, entry in plain["space"].items()
    }
    values["prune"] = Pruning(**plain["prune"]) if plain["prune"] else None
    return Sweep(**values)
