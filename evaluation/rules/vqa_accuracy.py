"""VQA accuracy: an answer is worth as much as there are people who gave it.

For each of the ten keys, the others are looked at: the answer is worth a third for each of them that equals it, at
most 1; the mean over the ten is the score (Antol et al., VQA, section 4 and its evaluation code). With ten keys this
is 0, 0.3, 0.6, 0.9, 1 for 0, 1, 2, 3, 4 or more that equal it. A key is left out by its position.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from vargpt_lightning.evaluation.base.benchmark import Record, Score, check_protocol, counts, mean_interval
from vargpt_lightning.evaluation.rules.vqa_lenient import short_answer
from vargpt_lightning.evaluation.rules.vqa_normalise import (
    blanks,
    data_set,
    eval_ai,
    eval_ai_with_articles,
    punctuation_and_words,
)
from vargpt_lightning.utils.errors import UserError

UNANSWERABLE = "\nWhen the provided information is insufficient, respond with 'Unanswerable'."
QWEN = " Answer:"

Rule = Callable[[str, list[str], Record], tuple[str, list[str]]]
"""(output, keys, record) -> the answer and the keys as they are compared."""


def vqa_accuracy(answer: str, keys: Sequence[str]) -> float:
    """The accuracy of a normalised answer against normalised keys, from 0 to 1; 0 where there is not a key."""
    same = keys.count(answer)
    if same == 0:
        return 0.0
    return (same * min(3, same - 1) + (len(keys) - same) * min(3, same)) / (3 * len(keys))


def by_eval_ai(output: str, keys: list[str], record: Record) -> tuple[str, list[str]]:
    """The evaluation server's normaliser on both sides (lmms-eval for TextVQA, OKVQA, VizWiz; LLaVA)."""
    return eval_ai(output), [eval_ai(key) for key in keys]


def by_punctuation_and_words(output: str, keys: list[str], record: Record) -> tuple[str, list[str]]:
    """Punctuation and words on both sides, always (lmms-eval for VQAv2 since 2025)."""
    return punctuation_and_words(output), [punctuation_and_words(key) for key in keys]


OFFICIAL = (
    "vqaEval.py of github.com/GT-Vision-Lab/VQA as it is since 2021-03-11 (a013f00): where all ten keys are equal, "
    "neither they nor the answer are normalised, so that 'two' is wrong where all say '2'. The version before "
    "(458a8b2, 2016) normalised the answer always, and the keys' punctuation alone"
)
VQA_REFERENCES = {"official": OFFICIAL}
"""Protocol -> which version of its authors' code a rule is; a result names it."""


def by_data_set(output: str, keys: list[str], record: Record) -> tuple[str, list[str]]:
    """The VQA data set's own code, a013f00 of 2021-03-11: both sides stay as they are where all keys are equal.

    So "two" against ten times "2" is worth 0. 458a8b2 (2016) normalised the answer always, and the keys' punctuation
    where they differ: there it is worth 1.
    """
    plain = [blanks(key) for key in keys]
    if len(set(plain)) > 1:
        return data_set(output), [data_set(key) for key in plain]
    return blanks(output), plain


def by_eval_ai_and_data_set(output: str, keys: list[str], record: Record) -> tuple[str, list[str]]:
    """lmms-eval 0.3 for VQAv2: the answer is always normalised, the keys only where they are not all equal.

    A right answer with a hyphen, or "none", is therefore wrong where all keys agree on it.
    """
    plain = [blanks(key) for key in keys]
    if len(set(plain)) > 1:
        return punctuation_and_words(eval_ai(output)), [punctuation_and_words(key) for key in plain]
    return eval_ai(output), plain


def by_short_answer(output: str, keys: list[str], record: Record) -> tuple[str, list[str]]:
    """The project's own reading: a short answer is looked for, and an answer that is an article stays."""
    found = short_answer(output, str(record.get("question", "")))
    return eval_ai_with_articles(found), [eval_ai_with_articles(key) for key in keys]


RULES: dict[str, Rule] = {"lmms_eval": by_eval_ai, "official": by_data_set, "lenient": by_short_answer}
VQAV2_RULES: dict[str, Rule] = {
    "lmms_eval": by_punctuation_and_words,
    "official": by_data_set,
    "lenient": by_short_answer,
    "lmms_eval_0.3": by_eval_ai_and_data_set,
}


def score_vqa(output: str, record: Record, protocol: str, rules: Mapping[str, Rule] = RULES) -> Score:
    """Score an output by the rule of the protocol; the record stays as it is.

    Status "empty" of an output of blanks, "unparsed" of one that normalising leaves nothing of ("the", "?"). Either
    has the value that the rule gives it, which is not 0 where the keys are articles.

    Raises:
        UserError: unknown protocol, an output that is no text, a record without keys.
    """
    check_protocol(protocol, tuple(rules))
    if not isinstance(output, str):
        raise UserError(f"output: {output!r}; expected text")
    parsed, keys = rules[protocol](output, answers_of(record), record)
    if not parsed:
        empty = not output.strip()
        value = 0.0 if protocol == "lenient" else vqa_accuracy(parsed, keys)
        return Score(value, parsed, "empty" if empty else "unparsed")
    return Score(vqa_accuracy(parsed, keys), parsed)


def answers_of(record: Record) -> list[str]:
    """The keys of a record as texts; the record may hold them as dicts (VQAv2) or as texts.

    Raises:
        UserError: no keys, as in test splits (null, missing, or blanks alone), or keys of another kind.
    """
    answers = record.get("answers")
    if answers is None:
        raise _no_keys(record)
    try:
        keys: list[str] = [answer["answer"] for answer in answers]
    except (TypeError, KeyError, IndexError):
        keys = answers
    if type(keys) is not list or not set(map(type, keys)) <= {str}:
        raise UserError(
            f"question {record.get('question_id')!r}: answers: {str(answers)[:60]!r}; expected a list of texts "
            "(or of dicts with an 'answer')"
        )
    if keys and not any(map(str.strip, keys)):
        raise _no_keys(record)
    return keys


def _no_keys(record: Record) -> UserError:
    return UserError(
        f"question {record.get('question_id')!r} has no answers to score with; a test split can be asked, and its "
        "outputs are scored by the benchmark's own server"
    )


def vqa_figures(
    records: Iterable[Record],
    scores: Sequence[Score],
    record_id: Callable[[Record], str],
    column: str | None = None,
    more: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Accuracy over all questions and by a column, then `more`, the counts, and the 95 % interval over questions.

    Where there are any: "not_ten_answers" counts questions with fewer or more keys than ten, "without_answers" those
    with an empty list, which score 0.

    Raises:
        UserError: records and scores are not as many, an id occurs twice, or no record has keys.
    """
    seen: Counter[str] = Counter()
    sizes: Counter[int] = Counter()
    kinds: dict[str, list[float]] = {}
    for record, score in zip(records, scores, strict=False):
        seen[record_id(record)] += 1
        sizes[len(record.get("answers") or ())] += 1
        if column is not None:
            kinds.setdefault(str(record.get(column) or "none"), []).append(score.value)
    n, without = sizes.total(), sizes[0]
    _check(n, _length(records, n), len(scores), seen, without)
    values = [score.value for score in scores]
    low, high = mean_interval(values)
    figures = {"accuracy": math.fsum(values) / n}
    figures |= {f"accuracy/{kind}": math.fsum(part) / len(part) for kind, part in sorted(kinds.items())}
    odd = {"not_ten_answers": n - sizes[10], "without_answers": without}
    figures |= {**(more or {}), **{name: float(number) for name, number in odd.items() if number}}
    return figures | counts(scores) | {"low": low, "high": high}


def _length(records: Any, walked: int) -> int:
    return len(records) if hasattr(records, "__len__") else walked


def _check(walked: int, records: int, scores: int, seen: Mapping[str, int], without: int) -> None:
    if not walked == records == scores:
        raise UserError(f"{records} records and {scores} scores; expected one score for each record")
    if not scores:
        raise UserError("there are no scores to aggregate")
    if len(seen) < walked:
        twice = [id_ for id_, times in seen.items() if times > 1]
        raise UserError(f"{len(twice)} question ids occur more than once, such as {twice[0]!r}; expected each once")
    if without == walked:
        raise UserError("no question has answers to score with: a test split can be asked, not scored")
