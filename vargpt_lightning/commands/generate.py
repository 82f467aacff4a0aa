"""`vargpt generate`: one prompt, some answers, and their pictures as files."""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.inference.named import check_model
from vargpt_lightning.utils.arguments import Parser, device_name, seed_number
from vargpt_lightning.utils.errors import UserError, near_path
from vargpt_lightning.utils.paths import output_folder
from vargpt_lightning.utils.progress import importing, working

if TYPE_CHECKING:  # the sub-command's help must not wait for torch
    from vargpt_lightning.inference.assistant import Assistant, Conversation
    from vargpt_lightning.models.generation.answers import Answer, GenerationSettings, Watcher

EXAMPLE = """examples:
  vargpt generate runs/openmoji "Please draw a shamrock." -n 4 --out drawings --seed 1
  vargpt generate runs/openmoji "What is the main colour?" --image apple.png
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
        "-n", "--number", type=int, default=1, metavar="N", help="answers, each of its own random stream"
    )
    result.add_argument(
        "--out", type=Path, default=Path("drawings"), metavar="DIR", help="where pictures go (drawings)"
    )
    result.add_argument(
        "--image", type=Path, action="append", default=[], metavar="FILE", help="a picture to show before the prompt"
    )
    add_sampling(result)
    return result


def add_sampling(result: Any) -> None:
    """Add what `generate` and `chat` have in common to a parser, or to a group of one."""
    result.add_argument("--top-k", type=int, metavar="K", help="codes kept per position, 0 for all (900)")
    result.add_argument("--top-p", type=float, metavar="P", help="probability mass kept per position (the model's)")
    result.add_argument("--cfg", type=float, metavar="W", help="guidance strength, 0 for none (1.5)")
    result.add_argument(
        "--temperature", type=float, metavar="T", help="temperature of the visual tokens; 0 takes the most likely (1)"
    )
    result.add_argument("--text-temperature", type=float, metavar="T", help="of the words (0)")
    result.add_argument("--max-tokens", type=int, metavar="N", help="text tokens of an answer (256)")
    result.add_argument("--seed", type=seed_number, metavar="S", help="seed of all random choices (0)")
    result.add_argument("--stage", metavar="NAME", help="the model as it was after this stage (the last finished one)")
    result.add_argument(
        "--device", type=device_name, metavar="NAME", help="such as cpu or cuda:0 (a GPU when there is one)"
    )


def main(argv: list[str]) -> int:
    """Answer, save, print."""
    arguments = parser().parse_args(argv)
    if arguments.number < 1:
        raise UserError(f"-n {arguments.number}; expected 1 or more answers")
    if not arguments.prompt.strip() and not arguments.image:
        raise UserError("the prompt is empty; expected a question or a request, such as 'Please draw a shamrock.'")
    check_model(arguments.run, arguments.stage)
    output_folder(arguments.out)
    shown = [picture_file(path) for path in arguments.image]
    run = load_assistant(arguments)
    run.settings = generation_settings(run, arguments)
    conversations = [_conversation(run, arguments.prompt, shown) for _ in range(arguments.number)]
    prompts = [run.prompt(conversation, row) for row, conversation in enumerate(conversations)]
    with answering(len(prompts)) as watcher:
        answers = run.continue_all(prompts, run.settings, watcher)
    for number, answer in enumerate(answers):
        if len(answers) > 1:
            print(f"{number + 1}.")
        print_answer(answer, arguments.out, f"{slug(arguments.prompt)}-{run.settings.seed}-{number}")
    return 0


def load_assistant(arguments: Any) -> Assistant:
    """Load the model that `run`, `stage` and `device` of the arguments name, and say so."""
    with working(f"loading {arguments.run}"):
        with importing():
            from vargpt_lightning.inference.load import load_run_or_directory
        return load_run_or_directory(arguments.run, arguments.stage, arguments.device)


@contextmanager
def answering(count: int = 1) -> Iterator[Watcher]:
    """Say how far the answers are that are made in this block; yields what has to watch them."""
    from vargpt_lightning.models.generation.answers import Watcher

    what = "answering" if count == 1 else f"making {count} answers"
    with working(what) as step:
        written: dict[int, int] = {}
        drawn = 0

        class Teller(Watcher):
            def text(self, row: int, text: str) -> None:
                written[row] = len(text)
                step.text = f"{what}: {sum(written.values())} characters, {drawn} pictures"

            def part(self, row: int, part: Any) -> None:
                nonlocal drawn
                drawn += hasattr(part, "image")
                step.text = f"{what}: {sum(written.values())} characters, {drawn} pictures"

        yield Teller()


def generation_settings(assistant: Assistant, arguments: Any) -> GenerationSettings:
    """Return a assistant's generation settings with what the command line changes."""
    given = {key: getattr(arguments, key) for key in ("top_k", "top_p", "cfg", "temperature")}
    changes = {key: value for key, value in given.items() if value is not None}
    if changes.get("temperature") == 0:
        changes |= {"temperature": 1.0, "greedy": True}
    visual = assistant.settings.visual or assistant.model.sampling_settings()
    words = {"temperature": "text_temperature", "max_new_tokens": "max_tokens", "seed": "seed"}
    settings = replace(assistant.settings, visual=replace(visual, **changes))
    for key, name in words.items():
        if (value := getattr(arguments, name)) is not None:
            try:
                settings = replace(settings, **{key: value})
            except UserError as error:  # the setting may have another name than the option
                raise UserError(f"--{name.replace('_', '-')}: {str(error).partition(': ')[2]}") from error
    return settings


def picture_file(path: Path) -> Any:
    """Read a picture.

    Raises:
        UserError: the file is missing, may not be read, or is no picture.
    """
    try:
        data = path.expanduser().read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); expected a picture file{near_path(path)}"
        ) from error
    from vargpt_lightning.data.images.pictures import PictureError, decode_picture

    try:
        return decode_picture(data, str(path))
    except PictureError as error:
        raise UserError(f"{path}: {len(data)} bytes that are no picture; expected PNG, JPEG, WebP or GIF") from error


def print_answer(answer: Answer, out: Path, stem: str) -> None:
    """Print an answer's text and the paths of its pictures, which are saved as OUT/STEM.png, OUT/STEM-1.png, ..."""
    drawn = 0
    for part in answer.parts:
        if hasattr(part, "image"):
            path = out / f"{stem}{f'-{drawn}' if drawn else ''}.png"
            save_png(path, part.image)
            print(path)
            drawn += 1
        else:
            print(part.text)
    if not answer.parts:
        print("(an empty answer)")


def save_png(path: Path, image: Any) -> None:
    """Write a PNG in one step."""
    from vargpt_lightning.utils.files import write_bytes

    content = io.BytesIO()
    image.save(content, "PNG")
    try:
        write_bytes(path, content.getvalue())
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{path.parent}: is not a folder; expected one to save pictures in") from error


def slug(text: str) -> str:
    """Return a prompt as the start of a file's name: lower-case words joined by hyphens, 40 characters at most."""
    words = "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()
    return "-".join(words)[:40].strip("-") or "answer"


def _conversation(assistant: Assistant, prompt: str, shown: Sequence[Any]) -> Conversation:
    from vargpt_lightning.inference.assistant import Conversation

    conversation = Conversation()
    conversation.ask(prompt, {f"seen-{number}": assistant.see(image) for number, image in enumerate(shown)})
    return conversation
