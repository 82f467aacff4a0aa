"""What is compared: runs, folders of evaluations, files of predictions, each as the rows of one table.

A table has the columns of `results.load_runs`' predictions. A set of questions is a (source, split): the held-out
questions of runs, ("benchmarks/mme", "lmms_eval"), drawings of a prompt file. Imports no torch.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.evaluation.base.benchmark import PROTOCOLS
from vargpt_lightning.evaluation.base.files import file_stem
from vargpt_lightning.runs.predictions import COLUMNS, protocol_of, read_folders
from vargpt_lightning.utils.errors import UserError, near_path
from vargpt_lightning.utils.files import plain, read_json, read_jsonl, read_object

if TYPE_CHECKING:
    import pandas as pd

    from vargpt_lightning.evaluation.harness.run import BenchmarkSettings

QUESTIONS, DRAWINGS, PICTURES, BENCHMARK = "questions", "drawings", "pictures", "benchmarks/"
HELDOUT = {"val": "heldout", "test": "heldout"}
RULES = ("style", "scoring", "reference")  # of a result: what the same protocol may mean
OBSERVERS = ("judge", "detector", "clip", "results")  # of drawings: who looked at them

SetKey = tuple[str, str]


@dataclass(frozen=True)
class Compared:
    """One evaluated system.

    `table` has its predictions, `run` being `name`. `rules` says for each set how it was asked and scored, as far as
    this must be equal; `evaluation`, `data` and `drawings` (by benchmark) are where the pictures are.
    """

    name: str
    path: Path
    table: pd.DataFrame
    rules: Mapping[SetKey, Mapping[str, Any]] = field(default_factory=dict)
    evaluation: Path | None = None
    data: Mapping[str, Path] = field(default_factory=dict)
    drawings: Mapping[str, Path] = field(default_factory=dict)

    @property
    def sets(self) -> list[SetKey]:
        """The sets of questions that it has, in order."""
        pairs = self.table[["source", "split"]].fillna("").drop_duplicates()
        return [(str(source), str(split)) for source, split in pairs.itertuples(index=False)]


@dataclass(frozen=True)
class Scoring:
    """How files of predictions are scored: the benchmark's names, its data, where to, and the settings."""

    benchmarks: str | None
    data: Path | None
    work: Path
    settings: BenchmarkSettings


def read_systems(paths: Sequence[Path], scoring: Scoring) -> list[Compared]:
    """Read what is to be compared, in its order.

    Raises:
        UserError: fewer than two, something that is no finished evaluation, or a file without what it answers.
    """
    if len(paths) < 2:
        raise UserError(f"{len(paths)} to compare; expected two or more runs, folders of evaluations or files")
    names = names_of(paths)
    if double := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{double[0]} is given twice; expected different evaluations")
    return [_read(path, name, scoring) for path, name in zip(paths, names, strict=True)]


def names_of(paths: Sequence[Path]) -> list[str]:
    """The last parts of paths that tell them apart; a file without its ending."""
    plain_paths = [Path(os.path.abspath(path)) for path in paths]
    parts = [(path.with_suffix("") if path.is_file() else path).parts for path in plain_paths]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-count:]) for each in parts]
        if len(set(names)) == len(names):
            break
    return names


def _read(path: Path, name: str, scoring: Scoring) -> Compared:
    if path.is_file():
        return _file(path, name, scoring)
    if not path.is_dir():
        raise UserError(f"{path}: there is no such run, folder or file{near_path(path)}")
    if (path / "run.json").is_file():
        return _folders(path, name, path / "evaluation", path / "benchmarks")
    if any((path / each).is_file() for each in ("answers.jsonl", "drawings.jsonl")):
        return _folders(path, name, path, None)
    if any(path.glob("scores.*.jsonl")):
        return _only(_folders(path, name, None, path.parent), f"{BENCHMARK}{path.resolve().name}")
    if any(path.glob("*/scores.*.jsonl")):
        return _folders(path, name, None, path)
    if (path / "samples.jsonl").is_file():
        return _pictures(path, name)
    raise UserError(
        f"{path} holds no finished evaluation; expected a run, or a folder that `vargpt evaluate`, `vargpt score` or "
        "`vargpt evaluate images` wrote"
    )


def _file(path: Path, name: str, scoring: Scoring) -> Compared:
    """A file's predictions, scored as `vargpt score` does."""
    from vargpt_lightning.evaluation.harness.data import chosen_modules, find_data
    from vargpt_lightning.evaluation.harness.run import run_benchmark
    from vargpt_lightning.evaluation.systems.files import Predictions

    if scoring.benchmarks is None:
        raise UserError(f"{path}: a file of predictions needs --benchmarks NAME and --data DIR: what it answers")
    out = scoring.work / file_stem(str(path.resolve()))
    for module in (modules := chosen_modules(scoring.benchmarks, scoring.data, None)):
        data = find_data(modules, scoring.data, None)[module.NAME]
        run_benchmark(Predictions(path), module, data, out, scoring.settings)
    return _folders(path, name, None, out)


def _folders(path: Path, name: str, evaluation: Path | None, benchmarks: Path | None) -> Compared:
    """A run's own evaluation, and benchmarks."""
    metrics = None if evaluation is None else evaluation / "metrics.json"
    if metrics is not None and metrics.is_file() and not read_object(metrics).get("complete", True):
        raise UserError(f"{evaluation} is not complete; `vargpt evaluate` resumes it, then it can be compared")
    table = read_folders(
        {} if evaluation is None else {name: evaluation}, {} if benchmarks is None else {name: benchmarks}
    )
    own = table["source"].isin([QUESTIONS, DRAWINGS])
    table.loc[own, "split"] = table.loc[own, "split"].replace(HELDOUT)
    if table.empty:
        raise UserError(f"{path} has no answers and no drawings; expected a finished evaluation")
    files = [] if benchmarks is None else sorted(benchmarks.glob("*/result.*.json"))
    results = {(f"{BENCHMARK}{file.parent.name}", protocol_of(file)): read_object(file) for file in files}
    drawn = {
        key[0].removeprefix(BENCHMARK): Path(one["drawings"]) for key, one in results.items() if one.get("drawings")
    }
    rules = {key: _rules(result) for key, result in results.items()}
    data = {} if benchmarks is None else _data(benchmarks)
    return Compared(name, path, table, rules, evaluation, data, drawn)


def _rules(result: Mapping[str, Any]) -> dict[str, Any]:
    """What a result must share with another one; of drawings also who looked at them, and the seed."""
    found = {key: result.get(key) for key in RULES}
    if "drawings" in result:
        settings = result.get("settings") or {}
        found |= {key: settings.get(key) for key in OBSERVERS}
        found |= {"seed": (settings.get("sampling") or {}).get("seed")}
    return {key: plain(value) for key, value in found.items() if value not in (None, "", {})}


def _data(benchmarks: Path) -> dict[str, Path]:
    """Where the data of benchmarks were when they were asked."""
    from vargpt_lightning.evaluation.harness.select import FILE

    found = {file.parent.name: str(read_object(file).get("data") or "") for file in benchmarks.glob(f"*/{FILE}")}
    return {name: Path(data) for name, data in found.items() if data and Path(data).exists()}


def _only(system: Compared, source: str) -> Compared:
    return Compared(
        system.name,
        system.path,
        system.table[system.table["source"] == source].reset_index(drop=True),
        system.rules,
        data=system.data,
        drawings=system.drawings,
    )


def _pictures(path: Path, name: str) -> Compared:
    """Drawings of a prompt file, by their CLIP scores."""
    import pandas as pd

    from vargpt_lightning.evaluation.images.picture_runs import drawn_rows

    seeds = {id_: row.get("seed") for id_, row in drawn_rows(path).items()}
    rows = [
        {"run": name, "source": PICTURES, "split": "CLIP score", "kind": "", "id": str(row["id"])}
        | {"prompt": row.get("instruction") or row.get("caption"), "value": row["clip"] / 100}
        | {"files": [row["drawing"]], "seed": seeds.get(str(row["id"]))}
        for row in read_jsonl(path / "samples.jsonl")
        if isinstance(row.get("clip"), (int, float))
    ]
    if not rows:
        raise UserError(f"{path}: no drawing has a CLIP score; expected `vargpt evaluate images --metrics clip`")
    settings = (read_json(path / "images.json").get("settings") or {}) if (path / "images.json").is_file() else {}
    clip = {str(key): plain(value) for key, value in (settings.get("clip") or {}).items()}
    return Compared(
        name, path, pd.DataFrame(rows, columns=list(COLUMNS)), {(PICTURES, "CLIP score"): clip}, evaluation=path
    )


# ------------------------------------------------------------------------------------------------------- which sets


def set_names(text: str | None) -> list[str]:
    """The names of sets in an option with commas between; a file that describes a benchmark stands for its name."""
    from vargpt_lightning.evaluation import benchmarks

    given = [name.strip() for name in (text or "").split(",") if name.strip() not in ("", "all")]
    return [benchmarks.get(name).NAME if Path(name).suffix in (".yaml", ".yml") else name for name in given]


def shared_sets(
    systems: Sequence[Compared], wanted: Sequence[str] = (), protocol: str | None = None
) -> tuple[list[SetKey], list[str]]:
    """The sets of questions that all systems have, one protocol a benchmark; and what is left out, in words.

    Args:
        wanted: only these: names of benchmarks, questions, drawings, pictures; questions/heldout is a part.
        protocol: of the benchmarks; by default the first that all were scored by.

    Raises:
        UserError: nothing is shared, a name is of nothing, or a benchmark was scored by different protocols.
    """
    every = list(dict.fromkeys(key for system in systems for key in system.sets))
    known = list(dict.fromkeys(name for key in every for name in _names(key)))
    if unknown := [name for name in wanted if name not in known]:
        raise UserError(f"--benchmarks {unknown[0]}: expected some of {', '.join(known)}")
    if wanted:
        every = [key for key in every if set(_names(key)) & set(wanted)]
    chosen: list[SetKey] = []
    left: list[str] = []
    for source in dict.fromkeys(source for source, _ in every):
        there = {system.name: [split for own, split in system.sets if own == source] for system in systems}
        if lacking := [name for name, splits in there.items() if not splits]:
            left.append(f"{_short(source)} is left out: {', '.join(lacking)} was not asked it")
            continue
        shared = [split for split in every_split(every, source) if all(split in own for own in there.values())]
        if source.startswith(BENCHMARK):
            shared = [_protocol(source, shared, there, protocol)]
        chosen += [(source, split) for split in shared]
    own = f"{BENCHMARK}openmoji"  # the held-out questions of runs once more
    if "openmoji" not in wanted and any(source == QUESTIONS for source, _ in chosen):
        chosen = [key for key in chosen if key[0] != own]
    if not chosen:
        each = "; ".join(f"{system.name}: {', '.join(map(title_of, system.sets))}" for system in systems)
        raise UserError(f"nothing was asked of all of them ({each}); expected evaluations on the same benchmarks")
    return chosen, left


def every_split(keys: Sequence[SetKey], source: str) -> list[str]:
    """The splits of a source, the usual protocols first."""
    found = list(dict.fromkeys(split for own, split in keys if own == source))
    return sorted(found, key=lambda split: PROTOCOLS.index(split) if split in PROTOCOLS else len(PROTOCOLS))


def _protocol(source: str, shared: Sequence[str], there: Mapping[str, Sequence[str]], protocol: str | None) -> str:
    if protocol is not None and protocol in shared:
        return protocol
    if protocol is not None or not shared:
        each = ", ".join(f"{name} by {' and '.join(splits)}" for name, splits in there.items())
        raise UserError(
            f"{_short(source)}: the protocols differ: {each}; expected {protocol or 'one'} for all: "
            f"vargpt score FOLDER --protocol {protocol or PROTOCOLS[0]}"
        )
    return shared[0]


def _names(key: SetKey) -> tuple[str, str]:
    """How a set may be asked for: its source, and its source and split."""
    return _short(key[0]), f"{_short(key[0])}/{key[1]}"


def _short(source: str) -> str:
    return source.removeprefix(BENCHMARK)


def title_of(key: SetKey) -> str:
    """The name of a set of questions for people."""
    return f"{_short(key[0])}, {key[1]}" if key[1] else _short(key[0])
