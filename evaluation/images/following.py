"""A benchmark of prompt-following on a folder of drawings: what they show found out, scored, and written down.

OUT/<benchmark>/outputs/              what was found out about each picture
OUT/<benchmark>/scores.official.jsonl id, value, parsed, status, prompt, category, group (the prompt's id)
OUT/<benchmark>/result.official.json  the figures, and all that is needed to know how they were made
OUT/<benchmark>/results.jsonl         the same in the authors' form, where their summary reads one
OUT/tables.md                         the tables of all benchmarks in OUT
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from vargpt_lightning.distributed.group import Processes
from vargpt_lightning.evaluation.base.benchmark import Record, Score
from vargpt_lightning.evaluation.base.files import file_stem
from vargpt_lightning.evaluation.base.prompt_benchmark import Found, HasResultsRow, PartsOfOne, PromptBenchmark
from vargpt_lightning.evaluation.harness.outputs import write_rows
from vargpt_lightning.evaluation.harness.select import describe
from vargpt_lightning.evaluation.images.evidence import Observers, Progress, Shown, gather
from vargpt_lightning.evaluation.images.instruct_set import Prompt
from vargpt_lightning.evaluation.images.picture_lists import ALLOWED, PictureFile, list_pictures, pair
from vargpt_lightning.evaluation.images.picture_runs import SETTINGS
from vargpt_lightning.runs.folder import now
from vargpt_lightning.runs.provenance import package_versions, source_commit
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import file_sha256, plain, read_json, write_bytes, write_json

PROTOCOL = "official"
RESULT, SCORES = f"result.{PROTOCOL}.json", f"scores.{PROTOCOL}.jsonl"
PACKAGES = ("vargpt-lightning", "torch", "transformers", "open-clip-torch", "numpy", "pillow")


def prompts_of(module: PromptBenchmark, records: Sequence[Record], count: int, wording: str = "{}") -> list[Prompt]:
    """What is to be drawn: each prompt so many times, with ids that the authors' layout has, and so seeds of their own.

    Args:
        wording: of the instruction, with {} for the prompt; the caption is the prompt itself.

    Raises:
        UserError: the wording has no place for the prompt.
    """
    if "{}" not in wording:
        raise UserError(f"wording {wording!r}; expected {{}} in it, where the prompt goes")
    return [
        Prompt(id_, wording.replace("{}", record["prompt"]), record["prompt"], str(record["category"]))
        for record in records
        for id_ in module.picture_ids(record, count)
    ]


def follow(
    module: PromptBenchmark,
    records: Sequence[Record],
    drawings: Path | None,
    out: Path,
    observers: Observers | None = None,
    *,
    results: Path | None = None,
    count: int | None = None,
    left_out: Sequence[Record] = (),
    allow: Collection[str] = (),
    processes: Processes | None = None,
    progress: Progress | None = None,
    replace: bool = True,
) -> dict[str, Any]:
    """Score drawings, and return what is written to result.official.json; empty in processes other than the first.

    Args:
        records: the prompts.
        drawings: a folder of pictures, in the authors' layout or as `vargpt evaluate images sample` leaves it; None
            takes all pictures from files.
        observers: who looks at the pictures.
        results: in place of observers, what the authors' code wrote.
        count: pictures of each prompt; None takes the authors' number.
        left_out: prompts beyond a limit: their pictures are left aside.
        allow: "missing" counts pictures that are not there as 0, "unknown" leaves others in the folder aside.
        replace: write over the result of other drawings.

    Raises:
        UserError: pictures are missing, nobody is there to look, or what was found is not understood.
    """
    processes, observers = processes or Processes(), observers or Observers()
    folder = out / module.NAME
    source = "" if drawings is None else str(drawings.resolve())
    if not replace:
        _check_free(folder, source)
    shown, missing = _shown(module, records, left_out, drawings, count or module.PICTURES, allow)
    by_id: Mapping[str, Found]
    if results is not None:
        by_id = module.read_results(results, records)
        lost = [one.id for one in shown if one.id not in by_id]
        if lost and "missing" not in allow:
            raise UserError(f"{results}: {len(lost)} pictures are not in it, such as {lost[0]!r}; or --allow missing")
        missing, shown = missing | set(lost), [one for one in shown if one.id in by_id]
    else:
        by_id = gather(module, shown, observers, folder / "outputs", processes, progress)
    if not processes.first:
        return {}
    pictures = [
        {**record, "picture": id_} for record in records for id_ in module.picture_ids(record, count or module.PICTURES)
    ]
    scores = [
        Score(0.0, None, "empty") if each["picture"] in missing else module.score(by_id[each["picture"]], each)
        for each in pictures
    ]
    facts = _facts(observers, results)
    facts |= {"pictures": count or module.PICTURES, "prompts": len(records)}
    result = _result(
        module, pictures, scores, drawings, facts, len(missing), len(records), len(records) + len(left_out)
    )
    _write(module, folder, pictures, scores, by_id, {**result, "drawings": source})
    return dict(plain({**result, "drawings": source}))


def _check_free(folder: Path, source: str) -> None:
    if (folder / RESULT).is_file() and (before := read_json(folder / RESULT).get("drawings")) != source:
        raise UserError(
            f"{folder / RESULT} is of the drawings {before}, and these are {source}; expected another --out, or "
            "--replace to write over it"
        )


def _shown(
    module: PromptBenchmark,
    records: Sequence[Record],
    left_out: Sequence[Record],
    drawings: Path | None,
    count: int,
    allow: Collection[str],
) -> tuple[list[Shown], set[str]]:
    """The pictures that there are, and the ids of those that are missing."""
    owner = {id_: record for record in records for id_ in module.picture_ids(record, count)}
    if drawings is None:
        return [Shown(id_, record) for id_, record in owner.items()], set()
    aside = {name for record in left_out for id_ in module.picture_ids(record, count) for name in (id_, file_stem(id_))}
    if isinstance(module, PartsOfOne):
        aside |= {module.whole_id(record) for record in left_out}
    files = [file for file in list_pictures(drawings) if file.id not in aside]
    if isinstance(module, PartsOfOne):
        wholes = {module.whole_id(record): record for record in records}
        if files and all(file.id in wholes for file in files):
            return _parts(module, wholes, files, count, allow)
    pairs = pair([Prompt(id_, "") for id_ in owner], files, allow)
    return [Shown(file.id, owner[file.id], file.path) for file in pairs.drawings], set(pairs.missing)


def _parts(
    module: PromptBenchmark,
    wholes: Mapping[str, Record],
    files: Sequence[PictureFile],
    count: int,
    allow: Collection[str],
) -> tuple[list[Shown], set[str]]:
    """Quarters of files, each with all pictures of a prompt."""
    if count not in (1, 4):
        raise UserError(f"{module.NAME}: a file of {count} pictures; expected 1 or 4 a prompt")
    paths = {file.id: file.path for file in files}
    lost = [name for name in wholes if name not in paths]
    if lost and "missing" not in allow:
        raise UserError(f"{len(lost)} prompts have no drawing, such as {lost[0]!r}; or add --allow missing")
    shown = [
        Shown(id_, record, paths[name], None if count == 1 else place)
        for name, record in wholes.items()
        if name in paths
        for place, id_ in enumerate(module.picture_ids(record, count))
    ]
    return shown, {id_ for name in lost for id_ in module.picture_ids(wholes[name], count)}


def _facts(observers: Observers, results: Path | None) -> dict[str, Any]:
    """Who looked at the pictures. Of a file only its kind: those of two systems differ, who made them may not."""
    found: dict[str, Any] = {"results": None if results is None else "a file of the authors' code", "files": {}}
    for name in ("judge", "detector", "clip"):
        if (observer := getattr(observers, name)) is None:
            continue
        about = describe(observer)
        if not getattr(observer, "needs_pictures", True):
            found["files"][name] = {"name": about["model"], "digest": about["digest"]}
            about |= {"model": "a file", "digest": ""}
        found[name] = about
    if results is not None:
        found["files"]["results"] = {"name": results.name, "digest": file_sha256(results)[:16]}
    return found


def _result(
    module: PromptBenchmark,
    pictures: Sequence[Record],
    scores: Sequence[Score],
    drawings: Path | None,
    facts: Mapping[str, Any],
    missing: int,
    asked: int,
    total: int,
) -> dict[str, Any]:
    sampling = read_json(drawings / SETTINGS) if drawings is not None and (drawings / SETTINGS).is_file() else {}
    return {
        "benchmark": module.NAME,
        "title": module.TITLE,
        "protocol": PROTOCOL,
        "headline": module.HEADLINE,
        "scale": module.SCALE,
        "figures": module.aggregate(pictures, scores),
        "model": sampling.get("name") or (drawings.name if drawings is not None else ""),
        "digest": sampling.get("digest") or "",
        "settings": {**facts, "sampling": sampling},
        "reference": module.REFERENCE,
        "limit": asked if asked < total else None,
        "asked": asked,
        "total": total,
        "missing": missing,
        "missing_means": f"{missing} {ALLOWED['missing']}, counted as 0" if missing else "",
        "partial": bool(missing),
        "versions": package_versions(PACKAGES) | {"commit": source_commit()},
        "created": now(),
    }


def _write(
    module: PromptBenchmark,
    folder: Path,
    pictures: Sequence[Record],
    scores: Sequence[Score],
    found: Mapping[str, Found],
    result: Mapping[str, Any],
) -> None:
    rows = (
        {
            "id": each["picture"],
            "value": score.value,
            "parsed": score.parsed,
            "status": score.status,
            "prompt": each["prompt"],
            "category": each["category"],
            "group": each["id"],
        }
        for each, score in zip(pictures, scores, strict=True)
    )
    write_rows(folder / SCORES, rows)
    if isinstance(module, HasResultsRow):
        write_rows(
            folder / "results.jsonl",
            (
                module.results_row(each["picture"], found.get(each["picture"], {}), score, each)
                for each, score in zip(pictures, scores, strict=True)
            ),
        )
    write_json(folder / RESULT, result)
    _write_tables(folder.parent)


def _write_tables(out: Path) -> None:
    from vargpt_lightning.evaluation.reports.benchmark_measured import read_measured
    from vargpt_lightning.evaluation.reports.table_text import markdown
    from vargpt_lightning.evaluation.reports.tables import Sources, all_tables

    sources = Sources()
    write_bytes(out / "tables.md", markdown(all_tables(read_measured([out]), sources), sources).encode())
