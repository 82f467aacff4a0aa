"""`vargpt chat`: a conversation in the terminal, with pictures in both directions."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vargpt_lightning.commands.options import add_sampling
from vargpt_lightning.evaluation.systems.scorers import find_scorer
from vargpt_lightning.inference.changed_settings import generation_settings
from vargpt_lightning.inference.chat import HELP, Chat
from vargpt_lightning.inference.named import check_model
from vargpt_lightning.inference.progress import load_assistant
from vargpt_lightning.utils.arguments import Parser
from vargpt_lightning.utils.paths import output_folder

EXAMPLE = """example:
  vargpt chat runs/openmoji
  > Please draw a shamrock.
  > /image apple.png
  > What is the main colour?

In a pipe each line is a turn:
  printf 'Please draw a shamrock.\\n' | vargpt chat runs/openmoji --out drawings
"""


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
    run = load_assistant(arguments.run, arguments.stage, arguments.device, arguments.fast, arguments.compile)
    from vargpt_lightning.inference.load import LoadedRun

    run.scorers = find_scorer
    run.settings = generation_settings(run, arguments)
    chat = Chat(run, out)
    if sys.stdin.isatty():
        after = f"{run.folder.name}, after the stage {run.stage.name}" if isinstance(run, LoadedRun) else arguments.run
        print(f"{after}. /help lists the commands, /quit leaves.")
    while (line := read_line()) is not None:
        if not chat.take(line):
            break
        sys.stdout.flush()  # a person at the other end of a pipe waits for it
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
