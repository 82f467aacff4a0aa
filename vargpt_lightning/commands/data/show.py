"""`vargpt data show`: random records of a packed folder on a page, as the model of an experiment or run sees them."""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import TYPE_CHECKING

from vargpt_lightning.experiment.files import shipped_hint
from vargpt_lightning.utils.arguments import Parser, seed_number, whole
from vargpt_lightning.utils.counted import counted
from vargpt_lightning.utils.errors import UserError, near_path
from vargpt_lightning.utils.files import write_bytes
from vargpt_lightning.utils.paths import output_file, user_path
from vargpt_lightning.utils.progress import importing, working

if TYPE_CHECKING:  # the sub-command's help must not wait for torch
    from vargpt_lightning.data.text.text_tokenizer import TextTokenizer
    from vargpt_lightning.models.core.config import VARGPTConfig

EXAMPLE = """examples:
  vargpt data show data/llava-v1_5-mix665k --for experiments/vargpt_7b.yaml --out show.html
  vargpt data show data/photos --for runs/openmoji --count 40 --seed 1
"""


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    result = Parser(
        prog="vargpt data show",
        description="Show random records as the model will see them: the rendered template token by token, what is "
        "trained on, and the pictures at the model's size, on one page.",
        epilog=EXAMPLE,
    )
    result.add_argument("folder", type=user_path, metavar="DIR", help="a packed folder")
    result.add_argument(
        "--for",
        dest="model",
        type=user_path,
        required=True,
        metavar="MODEL",
        help="an experiment file, or a run's folder",
    )
    result.add_argument("--tokenizer", type=user_path, metavar="PATH", help="a text tokenizer (that of the model)")
    result.add_argument("--count", type=whole(1, 100_000), default=24, metavar="N", help="records (24)")
    result.add_argument("--seed", type=seed_number, default=0, help="of the choice (0)")
    result.add_argument("--out", type=user_path, default=Path("show.html"), metavar="FILE", help="the page (show.html)")
    return result


def main(argv: list[str]) -> int:
    """Choose records and write the page."""
    arguments = parser().parse_args(argv)
    from vargpt_lightning.data.shards.dataset import ShardDataset

    output_file(arguments.out)
    records = ShardDataset(arguments.folder)
    if not arguments.model.exists():
        near = shipped_hint(arguments.model) or near_path(arguments.model)
        raise UserError(f"--for {arguments.model}: not found; expected an experiment file or a run's folder{near}")
    with working(f"reading {arguments.model}"):
        with importing():
            from vargpt_lightning.evaluation.data_reports.pages import render
            from vargpt_lightning.evaluation.data_reports.sheet import sheet_maker, token_html
        config, tokenizer = open_model(arguments.model, arguments.tokenizer)
        maker = sheet_maker(config, tokenizer)
    chosen = sorted(random.Random(arguments.seed).sample(range(len(records)), min(arguments.count, len(records))))
    text = render(
        "data_show.html.j2",
        title=records.name,
        count=len(records),
        records=[maker(records[place]) for place in chosen],
        model=str(arguments.model),
        context=maker.context,
        vocabulary=tokenizer.vocabulary,
        maker=maker,
        token_html=token_html,
    )
    write_bytes(arguments.out, text.encode("utf-8", "replace"))
    print(f"page: {arguments.out}, {len(chosen)} of {counted(len(records), 'record')}")
    return 0


def open_model(path: Path, tokenizer: Path | None = None) -> tuple[VARGPTConfig, TextTokenizer]:
    """Return the sizes and the text tokenizer of an experiment file or a run's folder.

    Raises:
        UserError: it is neither, or the tokenizer is missing or is not the model's.
    """
    from vargpt_lightning.checkpoints.tokens import check_tokens, load_tokenizer
    from vargpt_lightning.experiment.parser import load_experiment
    from vargpt_lightning.models.core.config import VARGPTConfig
    from vargpt_lightning.runs.config import read_experiment
    from vargpt_lightning.runs.folder import RunFolder
    from vargpt_lightning.training.data.text_tokenizer import data_tokenizer

    if path.is_dir():
        run = RunFolder(path)
        config = VARGPTConfig.from_dict(read_experiment(run)["model"])
        return config, load_tokenizer(config, tokenizer or run.tokenizer, tokenizer or path)
    experiment = load_experiment(["-c", str(path)])
    if tokenizer:
        return experiment.model, load_tokenizer(experiment.model, tokenizer)
    tokens = data_tokenizer(experiment.data, experiment.model)
    check_tokens(experiment.model, tokens, path)
    return experiment.model, tokens
