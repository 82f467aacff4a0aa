"""A benchmark from a YAML file that says which columns hold what; no Python is written for it.

    name: shapes                     # names its folder of results
    data: questions.parquet          # beside the file: .parquet, .jsonl, .tsv, or a folder that `datasets` saved
    columns: {question: text, picture: image, answer: label}
    metric: exact                    # or one of METRICS

More keys: title, split (test), prompt, max_new_tokens; more columns: id (else the row's number), category, options (of
a choice). Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vargpt_lightning.evaluation.base.benchmark import (
    OWN,
    PROTOCOLS,
    Record,
    Score,
    check_protocol,
    counts,
    mean_interval,
)
from vargpt_lightning.evaluation.base.exact_match import normalise
from vargpt_lightning.evaluation.formats.layouts import (
    Picture,
    Rows,
    find_parquet,
    image_in,
    read_jsonl,
    read_parquet,
    read_tsv,
    require,
)
from vargpt_lightning.evaluation.rules.letter_lenient import lenient_letter
from vargpt_lightning.evaluation.rules.letters import LETTER, as_list, is_missing, lettered, listed
from vargpt_lightning.evaluation.rules.shared import SHORT, by_group, check_parallel, mean, styled, unknown_style
from vargpt_lightning.evaluation.rules.vqa_accuracy import vqa_accuracy
from vargpt_lightning.evaluation.rules.vqa_normalise import eval_ai
from vargpt_lightning.evaluation.rules.yes_no import check_unique
from vargpt_lightning.utils.errors import UserError, hint
from vargpt_lightning.utils.yaml_text import read_yaml

ENDINGS = (".yaml", ".yml")
STYLES = {"llava": SHORT, "plain": ""}
KEYS = ("name", "title", "data", "split", "columns", "metric", "prompt", "max_new_tokens")
NEEDED, MORE = ("question", "picture", "answer"), ("id", "category", "options")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_NUMBER = re.compile(r"-?\d[\d,]*\.?\d*|-?\.\d+")


def _exact(output: str, answers: Sequence[str], options: Mapping[str, str]) -> Score:
    said = normalise(output)
    return Score(float(said in [normalise(answer) for answer in answers]), said)


def _contains(output: str, answers: Sequence[str], options: Mapping[str, str]) -> Score:
    said = f" {normalise(output)} "
    return Score(float(any(f" {normalise(answer)} " in said for answer in answers)), said.strip())


def _yes_no(output: str, answers: Sequence[str], options: Mapping[str, str]) -> Score:
    first = normalise(output).partition(" ")[0]
    if first not in ("yes", "no"):
        return Score(0.0, None, "unparsed")
    return Score(float(first == normalise(answers[0])), first)


def _choice(output: str, answers: Sequence[str], options: Mapping[str, str]) -> Score:
    letter = lenient_letter(output, options)
    right = answers[0].strip()
    meant = right.upper() if right.upper() in options else next((k for k, v in options.items() if v == right), None)
    return Score(float(letter == meant), letter, "ok" if letter else "unparsed")


def _number(output: str, answers: Sequence[str], options: Mapping[str, str]) -> Score:
    found = _NUMBER.findall(output)
    if not found:
        return Score(0.0, None, "unparsed")
    value = float(found[-1].replace(",", ""))
    near = (abs(value - float(answer.replace(",", ""))) <= 1e-6 * max(1.0, abs(value)) for answer in answers)
    return Score(float(any(near)), value)


def _vqa(output: str, answers: Sequence[str], options: Mapping[str, str]) -> Score:
    said = eval_ai(output)
    return Score(vqa_accuracy(said, [eval_ai(answer) for answer in answers]), said)


METRICS: dict[str, Callable[[str, Sequence[str], Mapping[str, str]], Score]] = {
    "exact": _exact,
    "contains": _contains,
    "yes_no": _yes_no,
    "choice": _choice,
    "number": _number,
    "vqa": _vqa,
}
"""How an output is scored: equal, or contained as words, up to case and punctuation; its first word is yes or no; the
letter that it means; its last number; VQA accuracy against several answers."""


@dataclass(frozen=True)
class Columns:
    """A benchmark as its file describes it; has what `base.benchmark.Benchmark` asks for."""

    file: Path
    NAME: str
    TITLE: str
    data: Path
    split: str
    columns: Mapping[str, str] = field(repr=False)
    metric: str
    words: str | None
    MAX_NEW_TOKENS: int
    HUB: None = None
    HEADLINE: str = "accuracy"
    SCALE: float = 100
    KNOWN: Sequence[str] = (OWN, *PROTOCOLS)
    NAMED: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(PROTOCOLS, OWN))

    def load(self, path: Path, /, pictures: bool = True) -> Rows:
        """The questions; the path is that of the YAML file.

        Raises:
            UserError: there are no data, a column is missing, an answer is none, or an id comes twice.
        """
        rows = self._rows(pictures)
        needed = [column for name, column in self.columns.items() if pictures or name != "picture"]
        require(rows, needed, self.data)

        def read(indices: Sequence[int] | None, with_pictures: bool) -> Iterator[Record]:
            chosen = rows if with_pictures else rows.without_pictures()
            places = range(len(rows)) if indices is None else indices
            for place, row in zip(places, chosen if indices is None else chosen.take(indices), strict=True):
                yield self._record(place, row, with_pictures)

        return check_unique(Rows(read, len(rows), str(rows.source), (), pictures), self.record_id)

    def _rows(self, pictures: bool) -> Rows:
        shown, needed = [self.columns["picture"]], [self.columns["question"], self.columns["answer"]]
        if not self.data.exists():
            raise UserError(f"{self.file}: data {self.data} are not there; expected a file or a folder")
        if self.data.suffix == ".jsonl":
            rows = read_jsonl(self.data, [*needed, *shown])
            return rows if pictures else rows.without_pictures()
        if self.data.suffix == ".tsv":
            return read_tsv(self.data, shown, needed, key=self.columns.get("id", "index"), pictures=pictures)
        if found := find_parquet(self.data, split=self.split):
            return read_parquet(found, picture_columns=shown, required=needed, pictures=pictures)
        raise UserError(f"{self.data}: no data; expected .parquet, .jsonl, .tsv, or a folder that `datasets` saved")

    def _record(self, place: int, row: Record, shown: bool) -> Record:
        """A row under the names that everything here has."""
        record: Record = {name: row.get(column) for name, column in self.columns.items()}
        record["id"] = str(record["id"]) if "id" in record else str(place)
        if is_missing(record["answer"]):
            raise UserError(f"{self.data}, question {record['id']!r}: no answer; expected text, a number or a list")
        picture = record.pop("picture")
        return {**record, "picture": self._seen(picture)} if shown else record

    def _seen(self, value: Any) -> Any:
        """A picture, where the cell is the name of its file."""
        if isinstance(value, str):
            return image_in(self.data.parent if self.data.is_file() else self.data, value)
        return [self._seen(each) for each in value] if isinstance(value, list) else value

    def record_id(self, record: Record, /) -> str:
        """The question's id, or its row's number."""
        return str(record["id"])

    def pictures(self, record: Record, /) -> list[Picture | None]:
        """The question's pictures."""
        value = record["picture"]
        return list(value) if isinstance(value, list) else [value]

    def prompt(self, record: Record, /, style: str = "llava") -> str:
        """The question, and the options of a choice; with the file's own words, else with those of the style."""
        options = listed(self._options(record))
        if self.words is not None:
            if style not in STYLES:
                raise unknown_style(style, STYLES)
            return self.words.replace("{options}", options).replace("{question}", str(record["question"]))
        asked = f"{record['question']}\n{options}" if options else str(record["question"])
        return asked + (LETTER if options and style == "llava" else styled(STYLES, style))

    def _options(self, record: Record) -> dict[str, str]:
        if self.metric != "choice":
            return {}
        found = as_list(record.get("options"))
        if not found:
            raise UserError(f"{self.data}, question {record['id']!r}: options are {record.get('options')!r}")
        return lettered(found)

    def score(self, output: str, record: Record, /, protocol: str = OWN) -> Score:
        """Score one output by the file's metric."""
        check_protocol(protocol, self.KNOWN)
        options = self._options(record)
        answers = [str(each) for each in (as_list(record["answer"]) or [record["answer"]])]
        if self.metric == "number" and (wrong := [each for each in answers if not _NUMBER.fullmatch(each)]):
            raise UserError(f"question {record['id']!r}: the answer {wrong[0]!r}; expected a number")
        if not output.strip():
            return Score(0.0, None, "empty")
        return METRICS[self.metric](output, answers, options)

    def aggregate(self, records: Sequence[Record], scores: Sequence[Score], /, protocol: str = OWN) -> dict[str, float]:
        """The mean score, that of each category, the counts, and the interval over questions."""
        check_protocol(protocol, self.KNOWN)
        check_parallel(records, scores)
        values = [each.value for each in scores]
        parts = (
            by_group(values, [record["category"] for record in records], "accuracy")
            if "category" in self.columns
            else {}
        )
        low, high = mean_interval(values)
        return {"accuracy": mean(values), **parts, **counts(scores), "low": low, "high": high}


def read_columns(file: Path) -> Columns:
    """The benchmark that a YAML file describes.

    Raises:
        UserError: the file is missing or no YAML, or a key is missing, unknown or of another kind.
    """
    tree = read_yaml(file, "benchmark")
    if unknown := [key for key in tree if key not in KEYS]:
        raise UserError(f"{file}: {unknown[0]!r} is no key; {hint(str(unknown[0]), KEYS)}")
    columns = tree.get("columns")
    for key in ("name", "data", "metric"):
        if not isinstance(tree.get(key), str):
            raise UserError(f"{file}: {key} is {tree.get(key)!r}; expected text")
    if not isinstance(columns, dict) or not all(isinstance(each, str) for each in columns.values()):
        raise UserError(f"{file}: columns are {columns!r}; expected names of {', '.join(NEEDED)}")
    if lost := [name for name in NEEDED if name not in columns]:
        raise UserError(f"{file}: columns lack {', '.join(lost)}; expected the names of {', '.join(NEEDED)}")
    if unknown := [name for name in columns if name not in (*NEEDED, *MORE)]:
        raise UserError(f"{file}: columns have {unknown[0]!r}; {hint(str(unknown[0]), (*NEEDED, *MORE))}")
    name, metric, length = tree["name"], tree["metric"], tree.get("max_new_tokens", 32)
    if not _NAME.fullmatch(name):
        raise UserError(f"{file}: the name {name!r}; expected letters, digits, - and _")
    if metric not in METRICS:
        raise UserError(f"{file}: the metric {metric!r}; {hint(metric, METRICS)}")
    if metric == "choice" and "options" not in columns:
        raise UserError(f"{file}: a choice has no column of options; expected columns: options")
    if type(length) is not int or length < 1:
        raise UserError(f"{file}: max_new_tokens is {length!r}; expected a whole number above 0")
    words = tree.get("prompt")
    if words is not None and (not isinstance(words, str) or "{question}" not in words):
        raise UserError(f"{file}: the prompt {words!r}; expected text with {{question}} in it")
    data = file.parent / Path(tree["data"]).expanduser()
    title, split = str(tree.get("title") or name), str(tree.get("split") or "test")
    return Columns(file, name, title, data, split, columns, metric, words, length)
