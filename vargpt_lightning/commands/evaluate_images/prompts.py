"""`vargpt evaluate images prompts`: a prompt file from classes, from packed data, or of a benchmark."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.inference.named import check_file
from vargpt_lightning.utils.arguments import PIXELS, whole
from vargpt_lightning.utils.counted import counted
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.paths import output_file

if TYPE_CHECKING:  # the sub-command's help must not wait
    from vargpt_lightning.evaluation.images.instruct_set import Prompt


def add_options(form: argparse.ArgumentParser) -> None:
    """Add the form's arguments."""
    source = form.add_mutually_exclusive_group()
    source.add_argument("--folder", type=Path, metavar="DIR", help="pictures in one folder a class")
    source.add_argument("--parquet", type=Path, metavar="PATH", help="parquet files with image and label")
    source.add_argument("--packed", type=Path, metavar="DIR", help="packed data of this project")
    source.add_argument("--run", type=Path, metavar="DIR", help="a run's own training data; with --corpus")
    source.add_argument("--benchmark", metavar="NAME", help="of prompt-following, such as geneval; with --data")
    form.add_argument("--corpus", metavar="NAME", help="of the run's data, such as scene_drawings")
    form.add_argument("--data", type=Path, metavar="PATH", help="the benchmark's data")
    form.add_argument("--per-prompt", type=whole(1), metavar="N", help="pictures of its prompts (as its authors draw)")
    form.add_argument(
        "--wording", metavar="TEXT", help="of its instructions, {} for the prompt, such as 'Draw {}.' ({})"
    )
    form.add_argument("--classes", type=Path, metavar="FILE", help="class names, one a line or JSON; enough by itself")
    form.add_argument("--per-class", type=whole(1), default=50, metavar="N", help="pictures of each class (50)")
    form.add_argument(
        "--size", type=whole(1, PIXELS), metavar="PIXELS", help="of references (256; packed data keep their own)"
    )
    form.add_argument("--allow-fewer", action="store_true", help="take classes with fewer pictures as they are")
    form.add_argument(
        "--limit", type=whole(1), metavar="N", help="at most N prompts from all parts of packed or a run's data"
    )
    form.add_argument("--split", metavar="NAME", help="of packed data, such as test")
    form.add_argument("--out", type=Path, required=True, metavar="FILE", help="the prompt file, .jsonl")


def main(arguments: Any) -> int:
    """Build the prompts, and say how many there are."""
    from vargpt_lightning.evaluation.images import instruct_sources as sources
    from vargpt_lightning.evaluation.images.instruct_set import class_prompts, read_class_list, write_prompts

    of_benchmark = [name for name in ("data", "per_prompt", "wording") if getattr(arguments, name) is not None]
    if arguments.benchmark is None and of_benchmark:
        raise UserError(f"--{of_benchmark[0].replace('_', '-')} goes with --benchmark alone")
    if (arguments.run is None) != (arguments.corpus is None):
        raise UserError("--run and --corpus go together: whose data, and which of them")
    if (
        arguments.packed is None
        and arguments.run is None
        and (idle := [name for name in ("limit", "split") if getattr(arguments, name)])
    ):
        raise UserError(f"--{idle[0]} goes with --packed alone; classes have --per-class")
    classes = read_class_list(arguments.classes) if arguments.classes is not None else []
    out = output_file(arguments.out)
    if arguments.benchmark is not None:
        found = iter(_of_benchmark(arguments))
    elif arguments.packed is not None or arguments.run is not None:
        folder = out.parent / f"references-{arguments.size or 'own'}"
        packed = arguments.packed or _of_run(arguments)
        found = sources.packed_prompts(packed, folder, arguments.size, arguments.limit, arguments.split)
    elif arguments.folder is not None or arguments.parquet is not None:
        size = arguments.size or 256
        build = sources.folder_prompts if arguments.folder is not None else sources.parquet_prompts
        root = arguments.folder or arguments.parquet
        folder = out.parent / f"references-{size}"
        found = build(root, folder, classes, arguments.per_class, size, arguments.allow_fewer)
    elif classes:
        found = class_prompts(classes, arguments.per_class)
    else:
        raise UserError("nothing to build from; name --folder, --parquet, --packed, --run or --classes")
    print(f"{counted(write_prompts(out, found), 'prompt')}: {out}")
    return 0


def _of_benchmark(arguments: Any) -> list[Prompt]:
    from vargpt_lightning.evaluation import prompt_following
    from vargpt_lightning.evaluation.images.following import prompts_of

    if arguments.data is None:
        raise UserError(f"--benchmark {arguments.benchmark}: --data is not given; expected where its data are")
    module = prompt_following.get(arguments.benchmark)
    check_file(arguments.data, f"the data of {module.TITLE}")
    count = arguments.per_prompt or module.PICTURES
    return prompts_of(module, module.load(arguments.data), count, arguments.wording or "{}")


def _of_run(arguments: Any) -> Path:
    from vargpt_lightning.runs.folder import RunFolder
    from vargpt_lightning.training.data.request_examples import corpus_folder

    return corpus_folder(RunFolder(arguments.run), arguments.corpus, arguments.split or "train")
