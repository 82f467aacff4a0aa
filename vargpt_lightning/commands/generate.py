"""`vargpt generate`: one prompt, some answers, and their pictures as files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.commands.options import add_sampling
from vargpt_lightning.evaluation.systems.scorers import find_scorer
from vargpt_lightning.inference.changed_settings import generation_settings
from vargpt_lightning.inference.named import check_model
from vargpt_lightning.inference.picture_files import picture_file, saved_answer, slug
from vargpt_lightning.inference.progress import answering, load_assistant
from vargpt_lightning.inference.sizes import AUTO, size_like
from vargpt_lightning.utils.arguments import Parser, whole
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.paths import output_folder

if TYPE_CHECKING:  # the sub-command's help must not wait for torch
    from vargpt_lightning.inference.assistant import Assistant, Conversation

EXAMPLE = """examples:
  vargpt generate runs/openmoji "Please draw a shamrock." -n 4 --out drawings --seed 1
  vargpt generate runs/openmoji "What is the main colour?" --image apple.png
  vargpt generate runs/photos "Make it red." --image apple.png --size auto
"""


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    result = Parser(
        prog="vargpt generate",
        description="Answer a prompt; pictures that the model draws are saved as PNG files and their paths printed.",
        epilog=EXAMPLE,
    )
    result.add_argument("run", help="the run folder, or one that vargpt convert made")
    result.add_argument("prompt", help="what to ask for")
    result.add_argument(
        "-n", "--number", type=whole(1, 100_000), default=1, metavar="N", help="answers, each of its own random stream"
    )
    result.add_argument(
        "--out", type=Path, default=Path("drawings"), metavar="DIR", help="where pictures go (drawings)"
    )
    result.add_argument(
        "--image", type=Path, action="append", default=[], metavar="FILE", help="a picture to show before the prompt"
    )
    add_sampling(result)
    return result


def main(argv: list[str]) -> int:
    """Answer, save, print."""
    arguments = parser().parse_args(argv)
    if not arguments.prompt.strip() and not arguments.image:
        raise UserError("the prompt is empty; expected a question or a request, such as 'Please draw a shamrock.'")
    check_model(arguments.run, arguments.stage)
    output_folder(arguments.out)
    shown = [picture_file(path) for path in arguments.image]
    run = load_assistant(arguments.run, arguments.stage, arguments.device, arguments.fast, arguments.compile)
    run.scorers = find_scorer
    run.settings = generation_settings(run, arguments)
    if arguments.size == AUTO and shown:
        run.settings = replace(run.settings, size=size_like(shown[0], run.model.config.tokenizer))
    conversations = [_conversation(run, arguments.prompt, shown) for _ in range(arguments.number)]
    prompts = [run.prompt(conversation, row) for row, conversation in enumerate(conversations)]
    _tell_room(run, len(prompts[0].input_ids))
    with answering(len(prompts)) as watcher:
        answers = run.continue_all(prompts, run.settings, watcher)
    for number, answer in enumerate(answers):
        if len(answers) > 1:
            print(f"{number + 1}.")
        stem = f"{slug(arguments.prompt)}-{run.settings.seed}-{number}"
        for text in saved_answer(answer, arguments.out, stem):
            print(text)
    return 0


def _tell_room(run: Assistant, read: int) -> None:
    """Say where pictures that are shown leave no room for one that is drawn."""
    context, picture = run.model.config.language.max_positions, run.picture_tokens(run.settings.size)
    if read + picture + 2 > context:
        text = f"the prompt has {read} of the context's {context} tokens: no room for a picture of {picture}"
        print(text, file=sys.stderr)


def _conversation(assistant: Assistant, prompt: str, shown: Sequence[Any]) -> Conversation:
    from vargpt_lightning.inference.assistant import Conversation

    conversation = Conversation()
    conversation.ask(prompt, {f"seen-{number}": assistant.see(image) for number, image in enumerate(shown)})
    return conversation
