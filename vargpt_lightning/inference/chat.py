"""A chat line by line: what is asked, shown and forgotten, and where drawings go. No torch until a model is there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.inference.picture_files import picture_file, saved_answer
from vargpt_lightning.inference.progress import answering
from vargpt_lightning.utils.errors import UserError

if TYPE_CHECKING:  # `vargpt chat --help` must not wait for torch
    from vargpt_lightning.inference.assistant import Assistant, Conversation
    from vargpt_lightning.models.generation.answers import Answer

HELP = """Write a line to ask or to request a picture.
  /image PATH  show a picture with your next line (several are possible)
  /reset       forget the conversation
  /again       forget the conversation and ask the last line anew
  /help        this text
  /quit        leave; so does the end of the input"""


class Chat:
    """A conversation and the pictures that wait to be shown with the next line.

    Args:
        assistant: who answers; its seed and the number of the turn make the random stream of an answer.
        out: where drawings are saved; numbers go on after the files that are there.
        say: called with each line that the person is to read.
    """

    def __init__(self, assistant: Assistant, out: Path, say: Callable[[str], None] = print) -> None:
        self.assistant = assistant
        self.out = out
        self.say = say
        self.waiting: list[Any] = []
        self.shown = self.turn = 0
        self.reset()

    def reset(self) -> None:
        """Forget what was said and what waits."""
        from vargpt_lightning.inference.assistant import Conversation

        self.conversation: Conversation = Conversation()
        self.waiting = []

    def take(self, line: str) -> bool:
        """Do what a line says; False when it ends the chat. What the person got wrong is said, and the chat goes on."""
        line = line.strip()
        command, _, rest = line.partition(" ")
        try:
            if command in ("/quit", "/exit"):
                return False
            if command == "/image":
                self._image(rest.strip())
            elif command == "/reset":
                self.reset()
                self.say("The conversation is forgotten.")
            elif command == "/again":
                self._again()
            elif command == "/help":
                self.say(HELP)
            elif command.startswith("/"):
                raise UserError(f"{command} is not a command; there are /image PATH, /reset, /again, /help and /quit")
            elif line:
                self._ask(line)
        except UserError as error:
            self.say(f"error: {error}")
        return True

    def _image(self, name: str) -> None:
        if not name:
            raise UserError("/image: no path; expected /image PATH")
        # Dragging a file into a terminal puts quotes around it, or backslashes before its spaces.
        path = Path(name.strip("'\""))
        if not path.expanduser().exists():
            path = Path(name.replace("\\ ", " "))
        self.waiting.append(self.assistant.see(picture_file(path)))
        self.say(f"{path} is shown with your next line.")

    def _ask(self, line: str) -> None:
        from vargpt_lightning.inference.missed_drawings import MISSED, missed_drawing

        asked = self.conversation.copy()
        asked.ask(line, {f"seen-{self.shown + number}": picture for number, picture in enumerate(self.waiting)})
        answer = self._answer(asked)
        # Only now, so that a line that could not be answered leaves no trace.
        self.conversation = asked
        self.shown += len(self.waiting)
        self.waiting = []
        for text in saved_answer(answer, self.out, self._stem()):
            self.say(text)
        if missed_drawing(asked, answer):
            self.say(f"({MISSED} /again asks in a new conversation)")
        self.conversation.add(answer)
        self.turn += 1

    def _again(self) -> None:
        if not self.conversation.turns:
            raise UserError("/again: nothing was asked yet")
        line = self.conversation.turns[-2].text
        self.reset()
        self._ask(line)

    def _answer(self, asked: Conversation) -> Answer:
        """Answer with room for a picture; where the context is full the oldest turns are forgotten."""
        if forgotten := self.assistant.forget_oldest(asked):
            self.say(f"(the context is full: the {forgotten} oldest turns are forgotten)")
        prompt = self.assistant.prompt(asked, self.turn)
        settings = replace(self.assistant.settings, batch_size=1)
        if not sys.stderr.isatty():  # a pipe has a line for each turn already
            return self.assistant.continue_all([prompt], settings)[0]
        with answering() as watcher:
            return self.assistant.continue_all([prompt], settings, watcher)[0]

    def _stem(self) -> str:
        numbers = [
            int(path.stem.split("-")[0]) for path in self.out.glob("*.png") if path.stem.split("-")[0].isdecimal()
        ]
        return f"{max(numbers, default=0) + 1:04d}"
