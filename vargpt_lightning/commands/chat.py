"""`vargpt chat`: a conversation in the terminal, with pictures in both directions."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.commands.generate import (
    add_sampling,
    answering,
    generation_settings,
    load_assistant,
    picture_file,
    print_answer,
)
from vargpt_lightning.inference.named import check_model
from vargpt_lightning.utils.arguments import Parser
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.paths import output_folder

if TYPE_CHECKING:  # the sub-command's help must not wait for torch
    from vargpt_lightning.inference.assistant import Assistant, Conversation
    from vargpt_lightning.models.generation.answers import Answer

EXAMPLE = """example:
  vargpt chat runs/openmoji
  > Please draw a shamrock.
  > /image apple.png
  > What is the main colour?

In a pipe each line is a turn:
  printf 'Please draw a shamrock.\\n' | vargpt chat runs/openmoji --out drawings
"""
HELP = """Write a line to ask or to request a picture.
  /image PATH  show a picture with your next line (several are possible)
  /reset       forget the conversation
  /again       forget the conversation and ask the last line anew
  /help        this text
  /quit        leave; so does the end of the input"""


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    result = Parser(
        prog="vargpt chat",
        description=f"Talk with a run's model.\n\n{HELP}",
        epilog=EXAMPLE,
    )
    result.add_argument("run", help="the run folder, or one that vargpt convert made")
    result.add_argument("--out", type=Path, metavar="DIR", help="where drawings are saved (RUN/chat)")
    add_sampling(result)
    return result


def main(argv: list[str]) -> int:
    """Read lines and answer them until the input ends."""
    arguments = parser().parse_args(argv)
    check_model(arguments.run, arguments.stage)
    out = arguments.out or Path(arguments.run) / "chat"
    output_folder(out)
    run = load_assistant(arguments)
    from vargpt_lightning.inference.load import LoadedRun

    run.settings = generation_settings(run, arguments)
    chat = Chat(run, out)
    if sys.stdin.isatty():
        after = f"{run.folder.name}, after the stage {run.stage.name}" if isinstance(run, LoadedRun) else arguments.run
        print(f"{after}. /help lists the commands, /quit leaves.")
    while (line := read_line()) is not None:
        if not chat.take(line):
            break
    return 0


def read_line() -> str | None:
    """Return the next line, None at the end of the input; the prompt is shown in a terminal only."""
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        return line.rstrip("\n") if line else None
    try:
        return input("> ")
    except EOFError:
        print()
        return None


class Chat:
    """A conversation and the pictures that wait to be shown with the next line.

    Args:
        assistant: who answers; its seed and the number of the turn make the random stream of an answer.
        out: where drawings are saved; numbers go on after the files that are there.
    """

    def __init__(self, assistant: Assistant, out: Path) -> None:
        self.assistant = assistant
        self.out = out
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
                print("The conversation is forgotten.")
            elif command == "/again":
                self._again()
            elif command == "/help":
                print(HELP)
            elif command.startswith("/"):
                raise UserError(f"{command} is not a command; there are /image PATH, /reset, /again, /help and /quit")
            elif line:
                self._ask(line)
        except UserError as error:
            print(f"error: {error}")
        sys.stdout.flush()  # a person at the other end of a pipe waits for it
        return True

    def _image(self, name: str) -> None:
        if not name:
            raise UserError("/image: no path; expected /image PATH")
        # Dragging a file into a terminal puts quotes around it, or backslashes before its spaces.
        path = Path(name.strip("'\""))
        if not path.expanduser().exists():
            path = Path(name.replace("\\ ", " "))
        self.waiting.append(self.assistant.see(picture_file(path)))
        print(f"{path} is shown with your next line.")

    def _ask(self, line: str) -> None:
        from vargpt_lightning.inference.missed_drawings import MISSED, missed_drawing

        asked = self.conversation.copy()
        asked.ask(line, {f"seen-{self.shown + number}": picture for number, picture in enumerate(self.waiting)})
        answer = self._answer(asked)
        # Only now, so that a line that could not be answered leaves no trace.
        self.conversation = asked
        self.shown += len(self.waiting)
        self.waiting = []
        print_answer(answer, self.out, self._stem())
        if missed_drawing(asked, answer):
            print(f"({MISSED} /again asks in a new conversation)")
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
            print(f"(the context is full: the {forgotten} oldest turns are forgotten)")
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
