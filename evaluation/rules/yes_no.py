"""What the short-answer benchmarks share: keys and readings of yes and no, their prompt's ending, strata. No torch."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vargpt_lightning.evaluation.base.benchmark import RESAMPLES, Record
from vargpt_lightning.evaluation.formats.layouts import Rows
from vargpt_lightning.utils.errors import UserError

YesNo = Literal["yes", "no"]

_KEYS: dict[str, YesNo] = {"yes": "yes", "no": "no", "true": "yes", "false": "no", "1": "yes", "0": "no"}
_WORDS: dict[str, YesNo] = {
    "yes": "yes",
    "yeah": "yes",
    "yep": "yes",
    "yup": "yes",
    "no": "no",
    "nope": "no",
    "nah": "no",
}
_TAG = re.compile(r"<[^<>]{0,40}>")  # what a chat template leaves behind, such as </s>
_EITHER = re.compile(r"\byes\s*(?:/|\bor\b)\s*no\b|\bno\s*(?:/|\bor\b)\s*yes\b")
_UNDECIDED = re.compile(r"\bno (?:idea|doubt|clue|information|way)\b")
_STATED = re.compile(r"\banswer(?:\s+(?:is|was|would be|should be))?[\s:*\"'“‘(]{1,8}(yes|no)\b")


def key(answer: object, where: str) -> YesNo:
    """The key as "yes" or "no"; booleans, 0 and 1, and any spelling of the two words are understood.

    Raises:
        UserError: it is anything else; `where` says whose key it is.
    """
    text = str(answer).strip().rstrip(".").lower()
    if text not in _KEYS:
        raise UserError(f"{where}: the answer is {answer!r}; expected yes or no")
    return _KEYS[text]


def first_four(text: str) -> YesNo | None:
    """MME's rule for a lower-cased output: the word alone, else "yes" or else "no" in its first four characters."""
    if "yes" in text[:4]:
        return "yes"
    return "no" if "no" in text[:4] else None


def first_sentence(text: str) -> tuple[YesNo, bool]:
    """POPE's own rule: "no" when the first sentence has a word `No`, `no` or `not`, else "yes"; never undecided.

    Commas are dropped and words are what stands between blanks, so neither "NO" nor "no!" is a no. The flag says
    whether the sentence holds any word that speaks for what was read; where it does not, yes is the rule's default.
    """
    words = text.split(".")[0].replace(",", "").split(" ")
    if not {"No", "no", "not"}.isdisjoint(words):
        return "no", True
    return "yes", "yes" in re.findall(r"\w+", " ".join(words).lower())


def lenient(text: str) -> YesNo | None:
    """This project's own robust reading: a stated answer, else the first word, else the only one of yes and no.

    "Yes or no" as such, "no idea" and the like, and tags of chat templates are looked through. A text that holds both
    words, or neither, is undecided (None).
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    text = _UNDECIDED.sub(" ", _EITHER.sub(" ", _TAG.sub(" ", text)))
    stated = _STATED.findall(text)
    if stated:
        return _WORDS[stated[-1]]
    words = re.findall(r"[^\W_]+", text)
    if words in (["y"], ["n"]):
        return "yes" if words == ["y"] else "no"
    if words and words[0] in _WORDS:
        return _WORDS[words[0]]
    said = {_WORDS[word] for word in words if word in _WORDS}
    return said.pop() if len(said) == 1 else None


def strata_interval(strata: Sequence[Sequence[float]], seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the sum of the strata's means; each stratum is resampled by itself.

    (nan, nan) of none. A resample of n values is drawn as how often each distinct value comes up.
    """
    filled = [values for values in strata if len(values)]
    if not filled:
        return float("nan"), float("nan")
    generator = np.random.default_rng(seed)
    sums = np.zeros(RESAMPLES)
    for values in filled:
        distinct, times = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
        drawn = generator.multinomial(len(values), times / len(values), size=RESAMPLES)
        sums += drawn @ distinct / len(values)
    low, high = np.percentile(sums, (2.5, 97.5))
    return float(low), float(high)


def check_unique(rows: Rows, record_id: Callable[[Record], str]) -> Rows:
    """The same rows, walked once without their pictures.

    Raises:
        UserError: there is no row, two have one id, or reading one of them finds a mistake.
    """
    seen: set[str] = set()
    for row in rows.without_pictures():
        id_ = record_id(row)
        if id_ in seen:
            raise UserError(f"{rows.source}: the question {id_!r} is there twice; expected each once")
        seen.add(id_)
    if not seen:
        raise UserError(f"{rows.source}: there is no question in it")
    return rows


def folder_with(folders: Iterable[Path], name: str, title: str) -> Path:
    """The first folder that holds a file of that name. Raises UserError naming where it was looked for."""
    looked = list(dict.fromkeys(folders))
    for folder in looked:
        if (folder / name).is_file():
            return folder
    places = ", ".join(str(folder) for folder in looked[:4])
    raise UserError(f"{title}: the picture {name!r} is in none of {places}{', ...' * (len(looked) > 4)}")


def nothing_found(title: str, path: Path, wanted: str) -> UserError:
    """The error that says what was looked for, and what is there."""
    if not path.is_dir():
        return UserError(f"{title}: {path} is {'no data of it' if path.exists() else 'not there'}; expected {wanted}")
    there = sorted(each.name for each in path.iterdir())
    shown = ", ".join(there[:8]) + ", ..." * (len(there) > 8)
    return UserError(f"{title}: no data of it in {path}; expected {wanted}; there is {shown or 'nothing'}")


def __getattr__(name: str) -> Any:
    """Find what was here in earlier versions."""
    from vargpt_lightning.moved import attribute

    return attribute(__name__, name)
