"""`vargpt evaluate images`: build a prompt file, sample pictures for it, and measure them.

Several processes share the work when torchrun starts the command; killed, the same command goes on.
"""

from __future__ import annotations

import argparse
import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.inference.named import check_file
from vargpt_lightning.models.core.devices import choose
from vargpt_lightning.utils.arguments import Parser, device_name, seed_number
from vargpt_lightning.utils.counted import counted
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.paths import output_folder

if TYPE_CHECKING:  # the sub-command's help must not wait for torch
    from vargpt_lightning.distributed.group import Processes
    from vargpt_lightning.evaluation.images.instruct_set import Prompt
    from vargpt_lightning.evaluation.images.settings import MeasureSettings

PROG = "vargpt evaluate images"
FORMS = {
    "prompts": "build a prompt file from classes or from packed data",
    "sample": "let a system draw for every prompt",
    "measure": "measure a folder of drawings",
    "run": "sample and measure",
}
EXAMPLE = """examples:
  vargpt evaluate images prompts --folder imagenet/val --classes classes.json --out set/prompts.jsonl
  vargpt evaluate images run runs/openmoji --prompts set/prompts.jsonl --out out/openmoji
  vargpt evaluate images measure drawings --prompts set/prompts.jsonl --metrics fid,clip --out out/theirs
  vargpt evaluate images measure imagenet/val --metrics none --save-statistics val.npz --out out/val
"""


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    result = Parser(
        prog=PROG, description="Measure generated pictures: FID and its kin, CLIP score.", epilog=EXAMPLE,
    )  # fmt: skip
    forms = result.add_subparsers(dest="form", metavar="FORM", required=True)
    _add_prompts(forms.add_parser("prompts", help=FORMS["prompts"], description=_sentence("prompts")))
    sample = forms.add_parser("sample", help=FORMS["sample"], description=_sentence("sample"))
    sample.add_argument("model", metavar="MODEL", help="a run folder, a model's directory, or another system")
    sample.add_argument("--prompts", type=Path, required=True, metavar="FILE", help="the prompt file")
    _add_sampling(sample)
    measure = forms.add_parser("measure", help=FORMS["measure"], description=_sentence("measure"))
    measure.add_argument("drawings", type=Path, metavar="DRAWINGS", help="a folder of pictures named by prompt id")
    measure.add_argument("--prompts", type=Path, metavar="FILE", help="what was asked: for CLIP and paired references")
    _add_measuring(measure)
    run = forms.add_parser("run", help=FORMS["run"], description=_sentence("run"))
    run.add_argument("model", metavar="MODEL", help="a run folder, a model's directory, or another system")
    run.add_argument("--prompts", type=Path, required=True, metavar="FILE", help="the prompt file")
    _add_sampling(run, out=False)
    _add_measuring(run)
    return result


def _sentence(form: str) -> str:
    return f"{FORMS[form][0].upper()}{FORMS[form][1:]}."


def _add_prompts(form: argparse.ArgumentParser) -> None:
    source = form.add_mutually_exclusive_group()
    source.add_argument("--folder", type=Path, metavar="DIR", help="pictures in one folder a class")
    source.add_argument("--parquet", type=Path, metavar="PATH", help="parquet files with image and label")
    source.add_argument("--packed", type=Path, metavar="DIR", help="packed data of this project")
    form.add_argument("--classes", type=Path, metavar="FILE", help="class names, one a line or JSON; enough by itself")
    form.add_argument("--per-class", type=int, default=50, metavar="N", help="pictures of each class (50)")
    form.add_argument("--size", type=int, metavar="PIXELS", help="of references (256; packed data keep their own)")
    form.add_argument("--allow-fewer", action="store_true", help="take classes with fewer pictures as they are")
    form.add_argument("--limit", type=int, metavar="N", help="at most N prompts of packed data")
    form.add_argument("--split", metavar="NAME", help="of packed data, such as test")
    form.add_argument("--out", type=Path, required=True, metavar="FILE", help="the prompt file, .jsonl")


def _add_sampling(form: argparse.ArgumentParser, out: bool = True) -> None:
    form.add_argument("--draw-batch", type=int, default=8, metavar="N", help="pictures drawn together (8)")
    form.add_argument("--seed", type=seed_number, default=0, metavar="S", help="base of all seeds (0)")
    form.add_argument("--text", default="instruction", help="what is asked: instruction (default) or caption")
    if out:
        form.add_argument("--limit", type=int, metavar="N", help="the first N prompts")
        form.add_argument("--out", type=Path, required=True, metavar="DIR", help="where drawings go")
        form.add_argument(
            "--device", type=device_name, metavar="NAME", help="such as cpu or cuda:0 (a GPU when there is one)"
        )
    form.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="of the system, such as concurrency=8"
    )


def _add_measuring(form: argparse.ArgumentParser) -> None:
    add = form.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="where images.json goes")
    add("--limit", type=int, metavar="N", help="the first N prompts")
    add("--replace", action="store_true", help="write over the result of other drawings in the folder")
    add("--metrics", default="fid,isc,clip", metavar="NAMES",
        help="some of fid, sfid, kid, isc, prc, prc_vgg16, fd_dinov2, mind, clip; or none (fid,isc,clip)")  # fmt: skip
    add("--variant", default="torch_fidelity", help="of FID's resize: torch_fidelity (default), clean, adm")
    add("--reference", type=Path, metavar="PATH", help="real pictures, or statistics (.npz); else the prompts' own")
    add("--layer", default="2048", metavar="NAME", help="Inception features of fid, kid and prc (2048)")
    add("--inception-weights", type=Path, metavar="FILE", help="torch-fidelity's .pth; else it is fetched")
    add("--vgg16-weights", type=Path, metavar="FILE", help="torchvision's .pth, for prc_vgg16; else it is fetched")
    add("--clip-library", default="open_clip", metavar="NAME", help="open_clip (default) or transformers")
    add("--clip-model", default="ViT-L-14", metavar="NAME", help="of open_clip (ViT-L-14)")
    add("--clip-weights", default="openai", metavar="TAG|FILE|DIR", help="a tag or file of open_clip (openai), or a "
        "directory of transformers")  # fmt: skip
    add(
        "--clip-quick-gelu",
        action=argparse.BooleanOptionalAction,
        help="the weights file was trained with QuickGELU, "
        "as OpenAI's, DFN's and MetaCLIP's were, or (--no-) with GELU, as LAION's and DataComp's; a tag says so itself",
    )
    add("--clip-text", default="caption", help="what is scored: caption (default) or instruction")
    add("--clip-clamp", default="none", help="none (default), or each: a negative score counts as 0")
    add("--kid-subsets", type=int, default=100, metavar="N", help="(100)")
    add("--kid-subset-size", type=int, default=1000, metavar="N", help="(1000)")
    add("--isc-splits", type=int, default=10, metavar="N", help="(10)")
    add("--prc-neighbours", type=int, default=3, metavar="N", help="(3)")
    add("--resize-and-crop", type=int, metavar="PIXELS", help="make pictures of several sizes alike first")
    add("--batch-size", type=int, default=64, metavar="N", help="pictures measured together (64)")
    add("--fast", action="store_true", help="channels-last memory: faster on processors, equal up to rounding")
    add("--save-statistics", type=Path, metavar="FILE", help="keep the drawings' sums, to be a reference later (.npz)")
    add("--export-adm", type=Path, metavar="FILE", help="the drawings for the ADM evaluator (.npz)")
    add("--export-adm-statistics", type=Path, metavar="FILE", help="the same with mu, sigma, mu_s, sigma_s (.npz)")
    add("--allow", action="append", default=[], metavar="NAME", help="few_samples, missing, unknown or broken: take it "
        "and mark the result; several times, or with commas")  # fmt: skip
    add("--device", type=device_name, metavar="NAME", help="such as cpu or cuda:0 (a GPU when there is one)")


def main(argv: list[str]) -> int:
    """Build, sample, measure; print what came out."""
    arguments = parser().parse_args(argv)
    if arguments.form == "prompts":
        return _prompts(arguments)
    settings = None if arguments.form == "sample" else measure_settings(arguments)
    prompts, left_out = _read(arguments)
    _check_places(arguments)
    device = choose(arguments.device) if arguments.device is not None else None
    from vargpt_lightning.distributed.torchrun import shared_processes
    from vargpt_lightning.utils.signals import ended_by_signals

    with ended_by_signals(), shared_processes() as processes:
        if arguments.form in ("sample", "run"):
            _sample(arguments, prompts, processes)
        if settings is not None:
            drawings = arguments.out if arguments.form == "run" else arguments.drawings
            settings = replace(settings, device=str(device or _device()))
            _measure(arguments, drawings, settings, prompts, left_out, processes)
    return 0


def _check_places(arguments: Any) -> None:
    """Make sure that what the arguments name is there, before torch is imported."""
    from vargpt_lightning.commands.options import more_options
    from vargpt_lightning.evaluation.systems.open import check_system

    if arguments.form in ("sample", "run"):
        check_system(arguments.model, more_options(arguments.option).get("stage"))
        output_folder(arguments.out)
    else:
        check_file(arguments.drawings, "a folder of pictures")
    for name in ("reference", "inception_weights", "vgg16_weights"):
        if (path := getattr(arguments, name, None)) is not None:
            check_file(path, f"what --{name.replace('_', '-')} is to be")


def _read(arguments: Any) -> tuple[list[Prompt], list[str]]:
    """The prompts, and the ids of those beyond the limit."""
    from vargpt_lightning.evaluation.images.instruct_set import read_prompts

    if arguments.limit is not None and arguments.limit < 1:
        raise UserError(f"--limit {arguments.limit}; expected 1 or more")
    if arguments.prompts is None:
        if arguments.limit is not None:
            raise UserError("--limit goes with --prompts alone; without them every picture counts")
        return [], []
    prompts = read_prompts(arguments.prompts)
    count = len(prompts) if arguments.limit is None else arguments.limit
    return prompts[:count], [prompt.id for prompt in prompts[count:]]


def _prompts(arguments: Any) -> int:
    from vargpt_lightning.evaluation.images import instruct_sources as sources
    from vargpt_lightning.evaluation.images.instruct_set import class_prompts, read_class_list, write_prompts

    if arguments.packed is None and (idle := [name for name in ("limit", "split") if getattr(arguments, name)]):
        raise UserError(f"--{idle[0]} goes with --packed alone; classes have --per-class")
    if arguments.per_class < 1:
        raise UserError(f"--per-class {arguments.per_class}; expected 1 or more")
    classes = read_class_list(arguments.classes) if arguments.classes is not None else []
    out: Path = arguments.out
    if arguments.packed is not None:
        folder = out.parent / f"references-{arguments.size or 'own'}"
        found = sources.packed_prompts(arguments.packed, folder, arguments.size, arguments.limit, arguments.split)
    elif arguments.folder is not None or arguments.parquet is not None:
        size = arguments.size or 256
        build = sources.folder_prompts if arguments.folder is not None else sources.parquet_prompts
        root = arguments.folder or arguments.parquet
        folder = out.parent / f"references-{size}"
        found = build(root, folder, classes, arguments.per_class, size, arguments.allow_fewer)
    elif classes:
        found = class_prompts(classes, arguments.per_class)
    else:
        raise UserError("nothing to build from; name --folder, --parquet, --packed or --classes")
    print(f"{counted(write_prompts(out, found), 'prompt')}: {out}")
    return 0


def _sample(arguments: Any, prompts: list[Prompt], processes: Processes) -> None:
    from vargpt_lightning.commands.options import more_options
    from vargpt_lightning.evaluation.base.protocols import Drawer
    from vargpt_lightning.evaluation.images.picture_runs import draw_pictures
    from vargpt_lightning.evaluation.systems.open import open_system

    device = arguments.device or (_device() if processes.world > 1 else None)
    system = open_system(arguments.model, device=device, **more_options(arguments.option))
    if not isinstance(system, Drawer):
        raise UserError(f"{arguments.model}: this system draws no pictures; expected one that does")
    with _progress(processes) as progress:
        found = draw_pictures(
            system,
            prompts,
            arguments.out,
            batch_size=arguments.draw_batch,
            seed=arguments.seed,
            text=arguments.text,
            processes=processes,
            progress=progress,
        )
    if processes.first:
        none = f", {counted(found.without_picture, 'answer')} without one" if found.without_picture else ""
        print(f"{counted(found.pictures, 'picture')} for {counted(found.prompts, 'prompt')}{none}: {arguments.out}")


def measure_settings(arguments: Any) -> MeasureSettings:
    """Return what the arguments ask to be measured; raises UserError for a name that is not known."""
    from vargpt_lightning.evaluation.images.settings import MeasureSettings

    given: dict[str, Any] = {name: getattr(arguments, name, None) for name in MeasureSettings.__dataclass_fields__}
    given["metrics"] = () if arguments.metrics == "none" else _names([arguments.metrics])
    given["allow"] = _names(arguments.allow)
    given["layout"] = "channels_last" if arguments.fast else "contiguous"
    del given["device"]
    return MeasureSettings(**given)


def _names(values: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for value in values for name in value.split(",") if name.strip()))


def _device() -> str:
    """A GPU for each process, where there are some."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"


def _measure(
    arguments: Any,
    drawings: Path,
    settings: MeasureSettings,
    prompts: list[Prompt],
    left_out: list[str],
    processes: Processes,
) -> None:
    from vargpt_lightning.evaluation.images.measures import measure
    from vargpt_lightning.evaluation.images.settings import RESULT

    with _progress(processes) as progress:
        result = measure(
            drawings,
            arguments.out,
            settings,
            prompts=prompts,
            reference=arguments.reference,
            save_statistics=arguments.save_statistics,
            export_adm=arguments.export_adm,
            export_adm_statistics=arguments.export_adm_statistics,
            left_out=left_out,
            processes=processes,
            progress=progress,
            replace=arguments.replace,
        )
    if processes.first:
        for name, value in result["metrics"].items():
            print(f"{name:>16}  {value:.6g}")
        for mark in result["marks"]:
            print(f"* {mark}")
        print(f"n {result['n']}, variant {settings.variant}: {arguments.out / RESULT}")


def _progress(processes: Processes) -> Any:
    if not processes.first:
        return nullcontext()
    from vargpt_lightning.evaluation.run.runner import rich_progress

    return rich_progress()
