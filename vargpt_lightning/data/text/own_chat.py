"""Conversations as a tokenizer's own chat template writes them: the text, whose it is, and what is trained of it.

Templates do not say which characters of theirs an answer is. Marks around what the turns say tell where it stands. An
answer begins where a prompt would end (see `Opening`) and goes up to the token that ends it; where the template has
`{% generation %}`, that says what the assistant's tokens are, and its end token is trained besides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from vargpt_lightning.data.shards.records import SEEN, PicturePart, TextPart, Turn
from vargpt_lightning.data.text.chat_files import ChatFiles
from vargpt_lightning.data.text.jinja_template import Message, render_jinja
from vargpt_lightning.data.text.layout import parts_with_gaps
from vargpt_lightning.data.text.marks import PICTURE, Found, Span, Spans, clean, find_marks, marked, unmarked
from vargpt_lightning.utils.errors import UserError

_GENERATION = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
_PROBE = tuple(
    Turn(role, (TextPart(text),))
    for role, text in (
        ("user", "Which colour has the first kite?"),
        ("assistant", "It is blue."),
        ("user", "And the second one, over there?"),
        ("assistant", "That one is green."),
    )
)


@dataclass(frozen=True)
class Written:
    """A conversation as one text, with the tokens that a template writes as text and each picture as one token.

    Args:
        text: the whole.
        said: what the turns say themselves, of which nothing may become a special token.
        answers: what is trained.
        ends: where the tokens begin that end answers.
        pictures: the pictures, in order.
    """

    text: str
    said: Spans
    answers: Spans
    ends: frozenset[int]
    pictures: tuple[PicturePart, ...]


class OwnChat:
    """A tokenizer's chat template, tried out on two questions with answers.

    Args:
        files: what the tokenizer's folder has.
        special: the tokenizer's special tokens, which stand for no text.
        added: all tokens that stand outside of its vocabulary of words, those among them.
        picture_tokens: the tokens of a seen and of a drawn picture.

    Attributes:
        end: the token that ends an answer.
        begin: the token that every text begins with; None where it is no token by itself.
        control: tokens that no text of a turn may become.

    Raises:
        UserError: the template fails, leaves out what is said, or does not show which tokens are the assistant's.
    """

    def __init__(
        self, files: ChatFiles, special: Sequence[str], added: Sequence[str], picture_tokens: tuple[str, str]
    ) -> None:
        self.files, self._picture_tokens = files, picture_tokens
        self._generation = bool(_GENERATION.search(files.template))
        added = sorted((token for token in {*added, *special} if token.strip()), key=len, reverse=True)
        tokens = re.compile("|".join(map(re.escape, added)) or r"(?!)")
        asked = find_marks(self._render([_message(_PROBE[0], 0)], True, mark=True), ())
        if len(asked.closes.get(0, ())) != 1:
            raise UserError(f"chat template: it leaves out what the user says, or says it twice: {_PROBE[0].text!r}")
        self._opening = asked.text[asked.closes[0][0] :]
        last = [match.start() for match in tokens.finditer(self._opening)]
        self._short_opening = self._opening[last[-1] :] if last else self._opening
        several = [_message(turn, number) for number, turn in enumerate(_PROBE)]
        whole = find_marks(self._render(several, False, mark=True), ())
        self.end = self._find_end(whole, tokens)
        begin = tokens.match(whole.text)
        self.begin = begin[0] if begin else None
        written = {match[0] for text in (asked.text, whole.text) for match in tokens.finditer(text)}
        if clash := sorted(written & set(picture_tokens)):
            raise UserError(f"chat template: it writes {clash[0]!r} without a picture; expected another name for it")
        # of a prompt alone: marks of an answer's inside, such as <think>, are the assistant's to write
        asked_with = (match[0] for match in tokens.finditer(asked.text))
        self.control = frozenset({*special, *picture_tokens, *asked_with, self.end})
        self.write(_PROBE)

    @cached_property
    def controls(self) -> re.Pattern[str]:
        """Finds where what would become one of the control tokens begins."""
        return re.compile(f"(?={'|'.join(map(re.escape, self.control))})")

    def write(self, turns: Sequence[Turn], open_answer: bool = False) -> Written:
        """Write turns, as transformers' `apply_chat_template` would; nothing is trained of a prompt (`open_answer`).

        Raises:
            UserError: the template fails for these turns, leaves out a picture or an answer, or changes with the marks.
        """
        pictures = tuple(part for turn in turns for part in turn.parts if isinstance(part, PicturePart))
        try:
            plain = self._render([_message(turn) for turn in turns], open_answer)
        except UserError:
            if not turns or turns[0].role != "assistant":
                raise
            turns = [Turn("user", ()), *turns]  # a picture alone has no request; this template wants one
            plain = self._render([_message(turn) for turn in turns], open_answer)
        messages = [_message(turn) for turn in turns]
        if plain.count(PICTURE) != len(pictures):
            raise UserError(
                f"chat template: it writes {plain.count(PICTURE)} of {len(pictures)} pictures; expected each once"
            )
        found = self._find(turns, messages, plain, open_answer, pictures)
        answers, ends = ([], []) if open_answer else self._answers(turns, found)
        return Written(found.text, Spans(self._said(found, messages)), Spans(answers), frozenset(ends), pictures)

    def _find(
        self, turns: Sequence[Turn], messages: Sequence[Message], plain: str, open_answer: bool,
        pictures: Sequence[PicturePart],
    ) -> Found:  # fmt: skip
        """Render with marks where they are needed: around answers, and around texts that hold a control token."""
        wanted = [
            self.controls.search(message["content"]) is not None or (turn.role == "assistant" and not open_answer)
            for turn, message in zip(turns, messages, strict=True)
        ]
        if any(wanted):
            several = [_message(turn, number if wanted[number] else None) for number, turn in enumerate(turns)]
            text = self._render(several, open_answer, mark=True)
            if unmarked(text) != plain:
                raise UserError(
                    "chat template: the assistant's tokens cannot be located: what it writes depends on what is said"
                )
        else:
            text = plain
        tokens = [self._picture_tokens[part.use != SEEN] for part in pictures]
        return find_marks(text, tokens)

    def _answers(self, turns: Sequence[Turn], found: Found) -> tuple[list[Span], list[int]]:
        """Where the assistant's tokens are, and where the tokens are that end answers."""
        spans, ends, last = list(found.generated), list[int](), 0
        numbers = [number for number, turn in enumerate(turns) if turn.role == "assistant"]
        for number, following in zip(numbers, [*numbers[1:], -1], strict=True):
            closes, opens = found.closes.get(number, []), found.opens.get(number, [])
            if len(closes) != 1:
                raise UserError(
                    f"chat template: it leaves out what the assistant says, or says it twice: {turns[number].text!r}"
                )
            close = closes[0]
            limit = next(iter([*found.opens.get(following, []), *found.closes.get(following, [])]), len(found.text))
            end = found.text.find(self.end, close, limit)
            if end < 0:
                raise UserError(f"chat template: {self.end!r} does not end the answer {turns[number].text!r}")
            after = end + len(self.end)
            if self._generation:
                if not any(start < close <= stop or start == close for start, stop in found.generated):
                    raise UserError(
                        "chat template: the assistant's tokens cannot be located: {% generation %} does not hold "
                        f"{turns[number].text!r}"
                    )
                spans.append((end, after))
            else:
                spans.append((last + self._start(found.text[last : opens[0] if opens else close]), after))
            ends.append(end)
            last = after
        return spans, ends

    def _start(self, before: str) -> int:
        """Where an answer begins in what stands before its words: behind what a prompt ends with."""
        for opening in (self._opening, self._short_opening):
            if (place := before.rfind(opening)) >= 0:
                return place + len(opening)
        raise UserError(
            f"chat template: the assistant's tokens cannot be located: a prompt ends with {self._opening!r}, but an "
            f"answer that was given follows {before[-40:]!r}; expected the same, or {{% generation %}} around answers"
        )

    def _find_end(self, whole: Found, tokens: re.Pattern[str]) -> str:
        """The token that ends both answers of the probe."""
        ends = []
        for number in (1, 3):
            if len(whole.closes.get(number, ())) != 1:
                said = _PROBE[number].text
                raise UserError(f"chat template: it leaves out what the assistant says, or says it twice: {said!r}")
            close = whole.closes[number][0]
            limit = whole.opens.get(number + 1, [len(whole.text)])[0]
            end = tokens.search(whole.text, close, limit)
            ends.append(end[0] if end else None)
        if ends[0] is None or ends[0] != ends[1]:
            seen = " and ".join(repr(end) if end else "nothing" for end in ends)
            raise UserError(
                f"chat template: the assistant's tokens cannot be located: {seen} ends its answers; expected one "
                "special token, such as <|im_end|>"
            )
        return ends[0]

    def _said(self, found: Found, messages: Sequence[Message]) -> list[Span]:
        """What marked turns say, without the pictures in it."""
        spans: list[Span] = []
        for number in {*found.opens, *found.closes}:
            opens, closes = found.opens.get(number, []), found.closes.get(number, [])
            if len(opens) != len(closes) and self.controls.search(messages[number]["content"]):
                raise UserError(
                    "chat template: it takes apart what is said, so that special tokens in it cannot be kept text: "
                    f"{unmarked(messages[number]['content']).replace(PICTURE, '')!r}"
                )
            for start, close in zip(opens, closes, strict=False):
                for place, after in found.pictures:
                    if start <= place < close:
                        spans.append((start, place))
                        start = after
                spans.append((start, close))
        return spans

    def _render(self, messages: Sequence[Message], answer: bool, mark: bool = False) -> str:
        return render_jinja(self.files.template, messages, self.files.tokens, answer, mark)


def _message(turn: Turn, number: int | None = None) -> Message:
    """A turn as templates know it, its text between marks where it has a number."""
    text = "".join(
        gap + (PICTURE if isinstance(part, PicturePart) else clean(part.text)) for gap, part in parts_with_gaps(turn)
    )
    return {"role": turn.role, "content": text if number is None else marked(text, number)}
