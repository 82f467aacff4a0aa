"""What is kept of what was written, with counts by reason.

Reasons, in the order in which they are looked for: "empty", "refused", "wrong form", "too short", "too long",
"language", "other nouns", "near duplicate", "unlike picture"; and what the writer says itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vargpt_lightning.data.writing.captions import Caption
from vargpt_lightning.data.writing.replies import EMPTY, REFUSED, WRONG_FORM, is_refusal
from vargpt_lightning.data.writing.templates import Written
from vargpt_lightning.data.writing.words import check_language, content_words, in_language, named, words
from vargpt_lightning.utils.errors import UserError

TOO_SHORT, TOO_LONG, LANGUAGE = "too short", "too long", "language"
OTHER_NOUNS, DUPLICATE, UNLIKE = "other nouns", "near duplicate", "unlike picture"
MARKS = ("<image", "<|", "\0")
CONTENT_WEIGHT = 8
PERMUTATIONS = 128

Similarity = Callable[[Caption, Written], float | None]
"""How much a picture is like its caption (100 x the cosine of CLIP, say); None when the picture cannot be had."""


@dataclass(frozen=True)
class FilterSettings:
    """What is kept.

    Args:
        request_words, answer_words: fewest and most.
        language: of request and answer, see `words.in_language`; "" checks nothing.
        share_nouns: whether the request must have a content word of the caption, and the answer one too unless it says
            nothing of its own.
        duplicates: similarity from which a text is a near duplicate of an earlier one; None keeps all.
        min_similarity: of picture and caption, where a similarity is given.

    Raises:
        UserError: a value out of its range.
    """

    request_words: tuple[int, int] = (2, 120)
    answer_words: tuple[int, int] = (1, 80)
    language: str = "en"
    share_nouns: bool = True
    duplicates: float | None = 0.9
    min_similarity: float | None = None

    def __post_init__(self) -> None:
        for name in ("request_words", "answer_words"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise UserError(f"filter {name}: {low} to {high}; expected the fewest, from 1, and the most")
        check_language(self.language)
        if self.duplicates is not None and not 0 < self.duplicates <= 1:
            raise UserError(f"filter duplicates: {self.duplicates}; expected above 0 and up to 1")


class Filters:
    """Looks at texts in their order; `counts` has the reasons of those that were not kept."""

    def __init__(self, settings: FilterSettings | None = None, similarity: Similarity | None = None) -> None:
        self.own = settings or FilterSettings()
        if self.own.min_similarity is not None and similarity is None:
            raise UserError("filter min_similarity: there is nothing to measure with; expected a similarity (CLIP)")
        self.similarity = similarity
        self.counts: Counter[str] = Counter()
        self._duplicates = Duplicates(self.own.duplicates) if self.own.duplicates is not None else None

    @property
    def settings(self) -> dict[str, Any]:
        return asdict(self.own)

    def reason(self, caption: Caption, written: Written | str) -> str | None:
        """Why a text is not kept, counted; None when it is. A string in place of a text is the writer's own reason."""
        found = written if isinstance(written, str) else self._reason(caption, written)
        if found:
            self.counts[found] += 1
        return found

    def _reason(self, caption: Caption, written: Written) -> str | None:
        both = f"{written.request} {written.answer}"
        if not written.request.strip() or not written.answer.strip():
            return EMPTY
        if is_refusal(written.answer):
            return REFUSED
        if any(mark in both for mark in MARKS):
            return WRONG_FORM
        if found := self._length(written):
            return found
        if self.own.language and not in_language(both, self.own.language):
            return LANGUAGE
        if self.own.share_nouns and not shares_nouns(caption.text, written, self.own.language or "en"):
            return OTHER_NOUNS
        if self.similarity is not None and self.own.min_similarity is not None:
            like = self.similarity(caption, written)
            if like is None or not like >= self.own.min_similarity:
                return UNLIKE
        if self._duplicates is not None and self._duplicates.seen(both, self.own.language or "en"):
            return DUPLICATE
        return None

    def _length(self, written: Written) -> str | None:
        for text, (low, high) in ((written.request, self.own.request_words), (written.answer, self.own.answer_words)):
            count = len(words(text))
            if count < low:
                return TOO_SHORT
            if count > high:
                return TOO_LONG
        return None


def shares_nouns(caption: str, written: Written, language: str = "en") -> bool:
    """Whether request and answer speak of what the caption speaks of, by content words (see `words`)."""
    about = named(caption, language)
    if not about & (content_words(written.request, language) or named(written.request, language)):
        return False
    answer = content_words(written.answer, language)
    return not answer or bool(answer & (about | content_words(written.request, language)))


class Duplicates:
    """Near duplicates by MinHash over pairs of words and content words.

    A content word counts eightfold: the same frame around another subject is no duplicate. Candidates come from
    locality sensitive hashing and are confirmed by their signatures (512 bytes a text). The estimate of the similarity
    is off by about 0.03, and near the threshold a few are overlooked.
    """

    def __init__(self, threshold: float) -> None:
        from datasketch import MinHashLSH

        self.threshold = threshold
        # a threshold of the index below the one that counts overlooks fewer
        self._index = MinHashLSH(threshold=max(0.05, threshold - 0.1), num_perm=PERMUTATIONS)
        self._signatures: list[Any] = []

    def seen(self, text: str, language: str = "en") -> bool:
        """Whether a text is like an earlier one; it is remembered when it is not."""
        from datasketch import MinHash

        sketch = MinHash(num_perm=PERMUTATIONS, seed=1)
        sketch.update_batch([shingle.encode() for shingle in shingles(text, language)])
        signature = sketch.hashvalues.astype(np.uint32)
        for place in self._index.query(sketch):
            if float((self._signatures[place] == signature).mean()) >= self.threshold:
                return True
        self._index.insert(len(self._signatures), sketch, check_duplication=False)
        self._signatures.append(signature)
        return False


def shingles(text: str, language: str = "en") -> set[str]:
    """What two texts are compared by: their words in pairs, and each content word eight times."""
    found = words(text)
    pairs = {" ".join(found[place : place + 2]) for place in range(max(1, len(found) - 1))}
    weighted = content_words(text, language)
    return pairs | {f"{word} #{copy}" for word in weighted for copy in range(CONTENT_WEIGHT)}
