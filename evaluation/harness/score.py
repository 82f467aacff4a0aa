"""A benchmark's outputs scored from the files alone. Imports no torch, asks no model.

OUT/<benchmark>/scores.<protocol>.jsonl   id, value, parsed, status, output, finish, prompt, answer, group, category
OUT/<benchmark>/skipped.jsonl             id and reason of the questions that could not be asked
OUT/<benchmark>/result.<protocol>.json    the figures, and all that is needed to know how they were made
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vargpt_lightning.evaluation.base.benchmark import Benchmark, Record, Score, group_of, label_of, reference_of
from vargpt_lightning.evaluation.harness.outputs import LENGTH, Output, OutputLog, write_rows
from vargpt_lightning.evaluation.harness.select import Asked, Choice, accepts, choose
from vargpt_lightning.runs.folder import now
from vargpt_lightning.runs.provenance import package_versions, source_commit
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import plain, read_json, write_json

PACKAGES = ("vargpt-lightning", "torch", "transformers", "numpy", "pillow", "pyarrow")
IN_MEMORY = 50_000  # more records are read again each time they are gone through, and memory stays flat
ANSWER_COLUMNS = ("answer", "multiple_choice_answer", "answers", "label")
ASKING = "asking.json"  # how fast, by how many processes, in which batches: what no output depends on
CATEGORY_COLUMNS = ("category", "answer_type", "question_type_id", "topic", "subfield")


def score_benchmark(
    module: Benchmark,
    data: Path,
    folder: Path,
    protocol: str,
    *,
    allow_partial: bool = False,
    options: Mapping[str, Any] | None = None,
    into: Path | None = None,
) -> dict[str, Any]:
    """Score what was asked in OUT/<benchmark> and return what is written to result.<protocol>.json.

    Args:
        module: the benchmark.
        data: its data; pictures are not read.
        folder: OUT/<benchmark>.
        allow_partial: score although outputs are missing or groups incomplete; the result is marked.
        options: for the benchmark's `score`, such as guess="random"; those that it takes are named in the result.
        into: another folder for what is written.

    Raises:
        UserError: outputs are missing, a group is incomplete, or nothing could be asked.
    """
    asked, into = Asked.read(folder), into or folder
    rows = module.load(data, pictures=False)
    choice = choose(module, rows, asked)
    outputs = OutputLog(folder / "outputs").read(set(choice.keys.values()))
    skipped = {id_: outputs[key].skipped for id_, key in choice.keys.items() if key in outputs and outputs[key].skipped}
    answered = {id_: outputs[key] for id_, key in choice.keys.items() if key in outputs and id_ not in skipped}
    missing = len(choice.keys) - len(answered) - len(skipped)
    _check(asked, choice, answered, skipped, missing, allow_partial, folder)
    if into != folder:
        asked.write(into)
    write_rows(into / "skipped.jsonl", ({"id": id_, "reason": reason} for id_, reason in skipped.items()))

    scores: list[Score] = []
    records: Sequence[Record] = rows.take(choice.places[id_] for id_ in answered)
    if len(records) <= IN_MEMORY:
        records = list(records)
    given = {name: value for name, value in (options or {}).items() if accepts(module.score, name)}
    write_rows(
        into / f"scores.{protocol}.jsonl", _scored(module, records, answered, protocol, given, asked.style, scores)
    )
    more = {"allow_partial": allow_partial} if accepts(module.aggregate, "allow_partial") else {}
    figures = module.aggregate(records, scores, protocol=protocol, **more)
    result = {
        "benchmark": asked.benchmark,
        "title": module.TITLE,
        "protocol": protocol,
        "style": asked.style,
        "headline": module.HEADLINE,
        "scale": module.SCALE,
        "figures": figures,
        "model": asked.model,
        "digest": asked.digest,
        "settings": asked.settings,
        "max_new_tokens": asked.max_new_tokens,
        "reference": reference_of(module, protocol),
        "scoring": {name: value for name, value in given.items() if not callable(value)},
        "limit": asked.limit if asked.limit is not None and asked.limit < choice.total else None,
        "seed": asked.seed,
        "asked": len(choice.keys),
        "total": choice.total,
        "missing": missing,
        "skipped": len(skipped),
        "skipped_because": [*dict.fromkeys(skipped.values())][:20],
        "left_out": [str(reason) for reason in rows.skipped[:20]],
        "partial": bool(missing or skipped or figures.get("partial")),
        "versions": package_versions(PACKAGES) | {"commit": source_commit()},
        "created": now(),
        "rows_source": asked.source,
        "asking": read_json(folder / ASKING) if (folder / ASKING).is_file() else {},
    }
    write_json(into / f"result.{protocol}.json", result)
    written: dict[str, Any] = plain(result)
    return written


def _check(
    asked: Asked,
    choice: Choice,
    answered: Mapping[str, Output],
    skipped: Mapping[str, str],
    missing: int,
    allow_partial: bool,
    folder: Path,
) -> None:
    if missing and not allow_partial:
        first = next(id_ for id_ in choice.keys if id_ not in answered and id_ not in skipped)
        raise UserError(
            f"{asked.benchmark}: {missing} of {len(choice.keys)} outputs are missing in {folder}, such as {first!r}; "
            "the command that asked resumes where it stopped, or --allow-partial scores what there is and marks it"
        )
    if not answered:
        reason = f"; the first: {next(iter(skipped.values()))}" if skipped else ""
        raise UserError(f"{asked.benchmark}: none of {len(choice.keys)} questions has an output{reason}")


def _scored(
    module: Benchmark,
    records: Sequence[Record],
    answered: Mapping[str, Output],
    protocol: str,
    options: Mapping[str, Any],
    style: str,
    scores: list[Score],
) -> Iterator[dict[str, Any]]:
    """Score the records, put the scores into the list, and yield a row for each."""
    group, label = group_of(module), label_of(module)
    for record in records:
        id_ = str(module.record_id(record))
        said = answered[id_]
        score = score_one(module, said.output, record, protocol, options)
        if said.finish == LENGTH:
            score = score.cut_off()
        scores.append(score)
        row = {"id": id_, "value": score.value, "parsed": score.parsed, "status": score.status}
        row |= {"output": said.output, "finish": said.finish, "prompt": said.prompt}
        row |= {"label": str(label(record))} if label else {}
        row |= {"answer": _first(record, ANSWER_COLUMNS), "category": _first(record, CATEGORY_COLUMNS)}
        yield row | ({"group": str(group(record))} if group else {})


def score_one(
    module: Benchmark, output: str, record: Record, protocol: str, options: Mapping[str, Any] | None = None
) -> Score:
    """The score of one output. Raises UserError that names the question, for a key that cannot be used."""
    try:
        score: Score = module.score(output, record, protocol=protocol, **(options or {}))
    except UserError as error:
        id_ = str(module.record_id(record))
        if id_ in str(error):
            raise
        raise UserError(f"{module.NAME}, question {id_!r}: {error}") from error
    return score


def _first(record: Record, columns: tuple[str, ...]) -> Any:
    return next((record[name] for name in columns if record.get(name) is not None), None)
