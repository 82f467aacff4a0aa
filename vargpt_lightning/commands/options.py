"""Options that several commands share, and what is read from them. No torch until then."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.evaluation.harness.data import OWNER, chosen_protocols
from vargpt_lightning.models.decoder.samplers import COLDEST, HOTTEST, MOST_GUIDANCE
from vargpt_lightning.utils.arguments import device_name, number, positive, seed_number, whole
from vargpt_lightning.utils.errors import UserError

if TYPE_CHECKING:  # a sub-command's help must not wait for torch
    from vargpt_lightning.evaluation.harness.run import BenchmarkSettings

TEMPERATURE = number(COLDEST, HOTTEST, zero=True)


def add_sampling(result: Any, fast: bool = True) -> None:
    """Add what `generate` and `chat` have in common to a parser, or to a group of one; `fast` adds --fast."""
    if fast:
        result.add_argument("--fast", action="store_true", help="multiply in bfloat16 or int8 where that is faster")
        result.add_argument("--compile", action="store_true", help="compile what draws; the first drawing waits for it")
    result.add_argument("--top-k", type=whole(0), metavar="K", help="codes kept per position, 0 for all (900)")
    result.add_argument(
        "--top-p", type=number(0, 1), metavar="P", help="probability mass kept per position (the model's)"
    )
    result.add_argument("--cfg", type=number(0, MOST_GUIDANCE), metavar="W", help="guidance strength, 0 for none (1.5)")
    result.add_argument(
        "--temperature",
        type=TEMPERATURE,
        metavar="T",
        help="temperature of the visual tokens; 0 takes the most likely (1)",
    )
    result.add_argument("--sampler", metavar="NAME", help="an installed package's sampler of visual tokens (default)")
    result.add_argument(
        "--part",
        action="append",
        metavar="PART",
        help="a part of the sampler, 'NAME KEY=VALUE ...', such as 'guided_scales stop=3'; can be repeated",
    )
    result.add_argument(
        "--size",
        metavar="WxH",
        help="of pictures, in pixels or as W:H, of a model that draws several; auto: as the first --image",
    )
    result.add_argument("--text-temperature", type=TEMPERATURE, metavar="T", help="of the words (0)")
    result.add_argument("--max-tokens", type=whole(1), metavar="N", help="text tokens of an answer (256)")
    result.add_argument("--seed", type=seed_number, metavar="S", help="seed of all random choices (0)")
    result.add_argument("--stage", metavar="NAME", help="the model as it was after this stage (the last finished one)")
    result.add_argument(
        "--device", type=device_name, metavar="NAME", help="such as cpu or cuda:0 (a GPU when there is one)"
    )


def add_benchmark_options(group: Any) -> None:
    """Add the options of `vargpt evaluate MODEL --benchmarks`; all are None where they are not given."""
    group.add_argument(
        "--benchmarks",
        metavar="NAMES",
        help="names such as mmbench,pope, or files of columns (.yaml); all: every benchmark with data",
    )
    add_data_options(group)
    group.add_argument(
        "--limit", type=whole(1), metavar="N", help="ask at most N questions of each benchmark, always the same ones"
    )
    group.add_argument("--batch-size", metavar="N", help="questions per batch; auto halves it when memory runs out")
    group.add_argument("--style", metavar="NAME", help="prompt style: llava (default), plain, or a benchmark's own")
    group.add_argument(
        "--dtype", metavar="NAME", help="precision of the weights, such as bfloat16 (default: the model's own)"
    )
    group.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="option of the model, such as concurrency=8 (endpoint), template=... (transformers)",
    )
    add_scoring_options(group)


def add_data_options(group: Any) -> None:
    """Add where benchmarks' data come from."""
    group.add_argument(
        "--data", type=Path, metavar="DIR", help="folder with a folder for each benchmark, or the data of the only one"
    )
    group.add_argument(
        "--hub-owner", nargs="?", const=OWNER, metavar="NAME", help=f"download the data from the hub ({OWNER})"
    )


def add_scoring_options(group: Any) -> None:
    """Add how outputs are scored, and whether others' results may be written over."""
    group.add_argument(
        "--replace", action="store_true", default=None, help="write over another system's results in the folder"
    )
    group.add_argument(
        "--protocol", metavar="NAMES", help="lmms_eval (default), official, lenient; several with commas between"
    )
    group.add_argument(
        "--guess", choices=["random"], help="choose a random answer if a reply has none; counted and marked"
    )
    group.add_argument(
        "--allow-partial", action="store_true", default=None, help="score incomplete groups; the result is marked"
    )


def benchmark_settings(arguments: argparse.Namespace) -> BenchmarkSettings:
    """How to ask and score, from the command line.

    Raises:
        UserError: a value that cannot be.
    """
    from vargpt_lightning.evaluation.harness.run import AUTO, BenchmarkSettings

    size = getattr(arguments, "batch_size", None) or AUTO
    try:
        size = size if size == AUTO else positive(str(size))
    except argparse.ArgumentTypeError as error:
        raise UserError(f"--batch-size: {error}, or auto") from error
    return BenchmarkSettings(
        protocols=chosen_protocols(arguments.protocol),
        style=arguments.style or "llava",
        limit=arguments.limit,
        batch_size=size,
        max_new_tokens=getattr(arguments, "max_tokens", None),
        allow_partial=bool(arguments.allow_partial),
        options={"guess": arguments.guess} if arguments.guess else {},
    )
