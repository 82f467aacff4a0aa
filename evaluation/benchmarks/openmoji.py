"""The questions about held-out pictures that a run of this project asks: category, subcategory, colour, yes/no, choice.

They are few, and the pictures are drawings: a check of whether anything was learned, not a rank among systems. The
data is the run's own `evaluation` folder (`asked.json`, `pictures.jsonl`, `real/`). The rule is the one of the run's
own figures, so all protocols are the same but "lenient", which finds the answer inside a sentence; results name it
"exact".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from vargpt_lightning.evaluation.base.benchmark import OWN, PROTOCOLS, Record, Score, check_protocol, counts
from vargpt_lightning.evaluation.base.exact_match import chosen_letter, is_right, normalise
from vargpt_lightning.evaluation.base.protocols import TRAIN
from vargpt_lightning.evaluation.formats.layouts import (
    Picture,
    Rows,
    image_in,
    read_json,
    read_jsonl,
    records,
    require,
)
from vargpt_lightning.evaluation.rules.shared import SHORT, by_group, check_parallel, mean, styled
from vargpt_lightning.evaluation.rules.yes_no import check_unique, lenient, nothing_found, strata_interval
from vargpt_lightning.utils.errors import UserError

NAME = "openmoji"
TITLE = "Own questions (held-out)"
HUB = None  # a run makes them
HEADLINE = "accuracy"
SCALE = 100
MAX_NEW_TOKENS = 48

KNOWN = (OWN, *PROTOCOLS)
NAMED = {"lmms_eval": OWN, "official": OWN}
SCENE_KINDS = ("scene_colour", "scene_count", "scene_relation", "scene_present", "scene_what")
KINDS = ("category", "subcategory", "colour", "yesno", "choice", "name", "own", *SCENE_KINDS)
COLUMNS = ("id", "kind", "prompt", "answer", "picture", "split", "options")
# Our models are trained on the bare questions; others need to be told that one word is wanted.
STYLES = {"llava": "", "plain": "", "short": SHORT}
LETTERS = ("a", "b", "c", "d")


def load(path: str | Path, pictures: bool = True) -> Rows:
    """The questions about held-out pictures that an evaluation asked; the path is a run's folder or its `evaluation`.

    Raises:
        UserError: there is no evaluation, it asked nothing about held-out pictures, a question has another kind or
            comes twice, or a picture is missing that a question names.
    """
    path = Path(path)
    folder = next((each for each in (path, path / "evaluation") if (each / "asked.json").is_file()), None)
    if folder is None:
        raise nothing_found(TITLE, path, "asked.json or evaluation/asked.json: the folder of a run that was evaluated")
    file = folder / "asked.json"
    asked = read_json(file)
    questions = asked.get("questions") if isinstance(asked, dict) else None
    if not isinstance(questions, list):
        raise UserError(f"{file}: questions missing; expected the file that an evaluation writes")
    for number, row in enumerate(questions, 1):
        require(row, COLUMNS, f"{file}, question {number}")
        if row["kind"] not in KINDS or not str(row["answer"]).strip():
            raise UserError(
                f"{file}, question {row['id']}: the kind is {row['kind']!r} and the answer {row['answer']!r}; "
                f"expected an answer, and one of {', '.join(KINDS)}"
            )
    held_out = [row for row in questions if row["split"] != TRAIN]
    if not held_out:
        raise UserError(f"{file}: none of its {len(questions)} questions is about a held-out picture")
    names = _picture_names(folder, held_out) if pictures else {}
    titles = {row["id"]: str(row.get("name") or "") for row in _listed(folder)}

    def read() -> Iterator[Record]:
        for row in held_out:
            named = {"name": titles.get(row["picture"], ""), "category": row["kind"]}
            yield row | named | ({"image": image_in(folder, names[row["picture"]])} if pictures else {})

    rows = check_unique(records(read, len(held_out), str(file), pictures), record_id)
    if len(questions) > len(held_out):
        rows.skipped = [f"{len(questions) - len(held_out)} questions about pictures that were trained on"]
    return rows


def _picture_names(folder: Path, questions: Sequence[Record]) -> dict[str, str]:
    """The file of each picture that is asked about."""
    names = {row["id"]: row["files"][0] for row in read_jsonl(folder / "pictures.jsonl", ("id", "files"))}
    missing = {row["picture"] for row in questions} - names.keys()
    if missing:
        raise UserError(f"{folder / 'pictures.jsonl'}: {len(missing)} pictures missing, such as {min(missing)}")
    return names


def _listed(folder: Path) -> list[Record]:
    file = folder / "pictures.jsonl"
    return list(read_jsonl(file, ("id",))) if file.is_file() else []


def label(record: Record) -> str:
    """What the question is about, for people: the name of its picture."""
    return record["name"] or str(record["picture"])


def record_id(record: Record) -> str:
    """The question's id."""
    return str(record["id"])


def pictures(record: Record) -> list[Picture]:
    """The question's one picture."""
    return [record["image"]]


def prompt(record: Record, style: str = "llava") -> str:
    """The question as it was written; the style "short" adds the request for a short answer."""
    return f"{record['prompt']}{styled(STYLES, style)}"


def score(output: str, record: Record, protocol: str = "lmms_eval") -> Score:
    """Score one output: right when equal to the answer up to case, punctuation and spaces; `parsed` is what was read.

    A choice is read from the letter, alone or in brackets behind its name; one without a letter is "unparsed", and so
    is anything but yes or no where that was asked. "lenient" also takes the answer inside a sentence.
    """
    check_protocol(protocol, KNOWN)
    said, kind, answer = normalise(output), record["kind"], str(record["answer"])
    if not said:
        return Score(0.0, None, "empty")
    letter = chosen_letter(output) if kind == "choice" else None
    if is_right(output, answer):
        return Score(1.0, letter or said)
    if protocol == "lenient":
        found = _inside(output, record)
        return Score(float(found == normalise(answer)), found, "ok" if found else "unparsed")
    parsed = {"choice": letter is not None, "yesno": said in ("yes", "no"), "scene_present": said in ("yes", "no")}.get(
        kind, True
    )
    return Score(0.0, (letter or said) if parsed else None, "ok" if parsed else "unparsed")


def _inside(output: str, record: Record) -> str | None:
    """The answer that a sentence gives, or None."""
    said, answer = normalise(output), normalise(str(record["answer"]))
    if record["kind"] in ("yesno", "scene_present"):
        return lenient(output)
    if record["kind"] == "choice":
        return _choice(output, [normalise(str(option)) for option in record["options"]])
    words = set(said.split())
    if words & {"or", "not", "no", "neither", "nor"} - set(answer.split()):
        return None
    return answer if f" {answer} " in f" {said} " else said


def _choice(output: str, options: Sequence[str]) -> str | None:
    """The one letter that is named as such, else the letter of the one option whose words are there."""
    named = set(re.findall(r"(?:^\W*|[(\[*]|\banswer(?: is|:)\s*)([A-D])(?=[\s).:,\]*]|$)", output.strip()))
    if len(named) == 1:
        return str(named.pop()).lower()
    said = normalise(output)
    there = [
        letter for letter, option in zip(LETTERS, options, strict=False) if option and f" {option} " in f" {said} "
    ]
    return there[0] if len(there) == 1 and not named else None


def aggregate(records: Sequence[Record], scores: Sequence[Score], protocol: str = "lmms_eval") -> dict[str, float]:
    """The mean of the kinds' accuracies, each kind's, and the accuracy of all questions ("micro").

    The interval resamples questions within each kind.
    """
    check_protocol(protocol, KNOWN)
    check_parallel(records, scores)
    values, kinds = [each.value for each in scores], [record["kind"] for record in records]
    by_kind = by_group(values, kinds, "accuracy")
    strata = [[value for value, kind in zip(values, kinds, strict=True) if kind == one] for one in dict.fromkeys(kinds)]
    low, high = (bound / len(strata) if strata else bound for bound in strata_interval(strata))
    found = {"accuracy": mean([*by_kind.values()]), "micro": mean(values), **by_kind}
    return {**found, **counts(scores), "low": low, "high": high}
