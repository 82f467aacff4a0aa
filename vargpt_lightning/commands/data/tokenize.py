"""`vargpt data tokenize`: visual tokens of a packed folder's drawn pictures, made once and kept beside the shards."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.inference.named import check_file, finished_stage
from vargpt_lightning.models.core.devices import choose
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.utils.arguments import Parser, device_name, whole
from vargpt_lightning.utils.capacity import add_processes, asked_processes
from vargpt_lightning.utils.counted import counted
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.paths import user_path
from vargpt_lightning.utils.progress import bar, importing, working

if TYPE_CHECKING:
    from vargpt_lightning.data.images.pictures import PictureReader
    from vargpt_lightning.data.shards.dataset import ShardDataset
    from vargpt_lightning.models.core.config import TokenizerConfig

EXAMPLE = """examples:
  vargpt data tokenize data/photos --tokenizer runs/photos
  vargpt data tokenize data/imagenet-instruct-130k --tokenizer vae_ch160v4096z32.pth --fit var --variants 8

Pictures are read as configured for the tokenizer (data.drawn_fit, drawn_variants, drawn_flip), or as in the file given
with -c. Stages use the result if tokenizer, pictures and shards are the same (data.visual_tokens). To resume an
interrupted command, run it again.
"""


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    result = Parser(
        prog="vargpt data tokenize",
        description="Encode the drawn pictures of packed folders to visual tokens, once for all steps and runs.",
        epilog=EXAMPLE,
    )
    result.add_argument("folders", nargs="+", type=user_path, metavar="DIR", help="a packed folder")
    result.add_argument(
        "--tokenizer",
        type=user_path,
        required=True,
        metavar="RUN|FILE",
        help="a run, or a file of a tokenizer's weights",
    )
    result.add_argument("--stage", metavar="NAME", help="of a run: the tokenizer after this stage (the last finished)")
    result.add_argument(
        "-c",
        "--config",
        type=user_path,
        metavar="EXPERIMENT",
        help="its sizes and settings of data instead of the run's",
    )
    result.add_argument("--fit", choices=("crop", "pad", "var"), help="how pictures are made square")
    result.add_argument("--variants", type=whole(1, 100_000), metavar="N", help="crops or mild changes of each picture")
    result.add_argument("--flip", action=argparse.BooleanOptionalAction, help="mirror every second variant")
    add_processes(result, "processes that decode pictures (1)")
    result.add_argument("--batch-size", type=whole(1, 2**20), default=64, metavar="N", help="encoded at once (64)")
    result.add_argument(
        "--device", type=device_name, metavar="DEVICE", help="where to encode: cpu, cuda, ... (a GPU when there is one)"
    )
    return result


def main(argv: list[str]) -> int:
    """Encode, and say what came of it."""
    arguments = parser().parse_args(argv)
    processes = asked_processes(arguments)
    datasets = _open(arguments)
    with working(f"loading {arguments.tokenizer}"):
        with importing():
            from vargpt_lightning.data.visual_tokens.codes import FOLDER_NAME, VisualTokens
            from vargpt_lightning.data.visual_tokens.job import tokenize
            from vargpt_lightning.data.visual_tokens.summary import summary
            from vargpt_lightning.inference.tokenizer import load_tokenizer
            from vargpt_lightning.training.data.visual_tokens import recipe_of
        device = choose(arguments.device)
        loaded = load_tokenizer(arguments.tokenizer, _settings(arguments.config), arguments.stage)
    reader = _reader(loaded.settings, loaded.data, arguments)
    recipe = recipe_of(loaded.tokenizer, loaded.settings, reader)
    tokenizer = loaded.tokenizer.to(device)
    for dataset in datasets:
        with bar(dataset.folder.name, _told) as watch:
            made = tokenize(
                dataset,
                dataset.folder / FOLDER_NAME,
                recipe,
                reader,
                lambda x_B3HW: tokenizer.encode(x_B3HW.to(device)),
                tokens=loaded.settings.schedule.num_tokens,
                bits=tokenizer.numbers,
                processes=processes,
                batch_size=arguments.batch_size,
                watch=watch,
            )
        print(summary(dataset.folder, VisualTokens(made)), flush=True)
    return 0


def _open(arguments: argparse.Namespace) -> list[ShardDataset]:
    """The folders, once all that the arguments name is there; no torch is needed."""
    from vargpt_lightning.data.shards.dataset import ShardDataset

    datasets = [ShardDataset(folder) for folder in arguments.folders]
    check_file(arguments.tokenizer, "a run, or a file of weights")
    if (arguments.tokenizer / "run.json").is_file():
        finished_stage(RunFolder(arguments.tokenizer), arguments.stage)
    if arguments.config is not None:
        check_file(arguments.config, "an experiment file")
    for dataset in datasets:
        if not dataset.draws:
            raise UserError(f"{dataset.folder}: has no drawn pictures; expected a folder with some")
    return datasets


def _settings(config: Path | None) -> tuple[TokenizerConfig, dict[str, Any]] | None:
    """The sizes and data settings of an experiment; None where none is named."""
    if config is None:
        return None
    from vargpt_lightning.experiment.parser import load_experiment

    experiment = load_experiment(["-c", str(config)])
    return experiment.model.tokenizer, dict(vars(experiment.data))


def _reader(settings: Any, data: Mapping[str, Any], arguments: argparse.Namespace) -> PictureReader:
    """How pictures are read: as the settings of data say, but for what the command does."""
    from vargpt_lightning.training.data.visual_tokens import drawn_reader

    def given(name: str, default: Any) -> Any:
        own = getattr(arguments, name)
        return own if own is not None else data.get(f"drawn_{name}", default)

    variants = given("variants", 1)
    if variants < 1:
        said = (
            f"--variants {variants}" if arguments.variants is not None else "data.drawn_variants is 0, always new ones"
        )
        raise UserError(f"{said}; expected --variants N, at least 1, and the same for data.drawn_variants in training")
    return drawn_reader(settings, given("fit", "crop"), variants, given("flip", False))


def _told(pictures: int, bad: int) -> str:
    return f"{counted(pictures, 'picture')} encoded, {bad:,} bad"
