"""`vargpt evaluate images follow`: how well drawings follow their prompts, by a benchmark. Killed, it resumes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.distributed.torchrun import own_device, shared_processes
from vargpt_lightning.inference.named import check_file
from vargpt_lightning.utils.arguments import device_name, more_options, whole
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.paths import output_folder
from vargpt_lightning.utils.signals import ended_by_signals

if TYPE_CHECKING:  # the sub-command's help must not wait for torch
    from vargpt_lightning.evaluation.base.prompt_benchmark import PromptBenchmark
    from vargpt_lightning.evaluation.images.evidence import Observers


def add_options(form: argparse.ArgumentParser) -> None:
    """Add the form's arguments."""
    add = form.add_argument
    add("drawings", type=Path, nargs="?", metavar="DRAWINGS", help="pictures in the authors' layout, or what `sample` "
        "drew; none where files say all of them")  # fmt: skip
    add("--benchmark", required=True, metavar="NAME", help="geneval, dpg_bench, t2i_compbench, wise")
    add(
        "--data",
        type=Path,
        required=True,
        metavar="PATH",
        help="the benchmark's data: a folder with the authors' files",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="where results go, in a folder of the benchmark's name")
    add("--judge", metavar="MODEL", help="who answers questions: a run, a transformers model, an endpoint, or a file "
        "of answers (id: PICTURE#QUESTION, output)")  # fmt: skip
    add(
        "--detector",
        metavar="MODEL",
        help="who finds objects: a transformers model, or a file (.jsonl) of id, detections",
    )
    add(
        "--results",
        type=Path,
        metavar="FILE",
        help="in place of these, what the authors' code wrote about the pictures",
    )
    add("--clip-model", default="ViT-L-14", metavar="NAME", help="of open_clip, for colours and likeness (ViT-L-14)")
    add("--clip-weights", metavar="TAG|FILE", help="of open_clip, such as openai; none unless given")
    add("--per-prompt", type=whole(1), metavar="N", help="pictures of each prompt (as many as the authors draw)")
    add("--limit", type=whole(1), metavar="N", help="the first N prompts")
    add("--allow", action="append", default=[], metavar="NAME", help="missing: pictures that are not there count as 0; "
        "unknown: others in the folder are left aside")  # fmt: skip
    add("--replace", action="store_true", help="write over the result of other drawings")
    add("--device", type=device_name, metavar="NAME", help="such as cpu or cuda:0 (a GPU when there is one)")
    add("--option", action="append", default=[], metavar="KEY=VALUE", help="of the judge, such as concurrency=8")


def main(arguments: Any) -> int:
    """Look, score, and print what came out."""
    from vargpt_lightning.evaluation import prompt_following

    module = prompt_following.get(arguments.benchmark)
    if arguments.drawings is not None:
        check_file(arguments.drawings, "a folder of pictures")
    check_file(arguments.data, f"the data of {module.TITLE}")
    if arguments.results is not None:
        check_file(arguments.results, "what --results is to be")
        if arguments.judge or arguments.detector or arguments.clip_weights:
            raise UserError(
                "--results is in place of --judge, --detector and --clip-weights; expected one or the other"
            )
    output_folder(arguments.out)
    records = module.load(arguments.data)
    with ended_by_signals(), shared_processes() as processes:
        device = arguments.device or (own_device() if processes.world > 1 else None)
        observers = _observers(arguments, module, device)
        result = _follow(arguments, module, records, observers, processes)
    if result:
        from vargpt_lightning.evaluation.run.benchmark_results import print_results

        print_results([result])
        for name, value in result["figures"].items():
            shown = "–" if value is None else f"{value:.6g}"
            print(f"{name:>24}  {shown}")
        print(f"results: {arguments.out / module.NAME}, tables: {arguments.out / 'tables.md'}")
    return 0


def _follow(arguments: Any, module: PromptBenchmark, records: Any, observers: Observers, processes: Any) -> Any:
    from vargpt_lightning.evaluation.harness.progress import benchmark_progress
    from vargpt_lightning.evaluation.images.following import follow

    with benchmark_progress(quiet=not processes.first) as progress:
        return follow(
            module,
            records[: arguments.limit],
            arguments.drawings,
            arguments.out,
            observers,
            results=arguments.results,
            count=arguments.per_prompt,
            left_out=[] if arguments.limit is None else records[arguments.limit :],
            allow=[name.strip() for given in arguments.allow for name in given.split(",")],
            processes=processes,
            progress=progress,
            replace=arguments.replace,
        )


def _observers(arguments: Any, module: PromptBenchmark, device: str | None) -> Observers:
    """Open who looks at the pictures."""
    from vargpt_lightning.evaluation.images.evidence import Observers, colours_of
    from vargpt_lightning.evaluation.systems.open import check_system, open_detector, open_system

    for given in (arguments.judge, arguments.detector):
        if given is not None:
            check_system(given)
    judge = detector = clip = None
    if arguments.clip_weights is not None:
        from vargpt_lightning.evaluation.features.clip import open_clip_model

        clip = open_clip_model(arguments.clip_model, arguments.clip_weights, device or "cpu")
    if arguments.judge is not None:
        judge = open_system(arguments.judge, device=device, **more_options(arguments.option))
    if arguments.detector is not None:
        detector = open_detector(arguments.detector, device)
    paint = colours_of(module, clip) if clip is not None and detector is not None else None
    return Observers(judge, detector, clip, paint)
