"""Options that several forms of `vargpt evaluate images` share, and what is read from them. No torch until then."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.inference.named import check_file
from vargpt_lightning.utils.arguments import PIXELS, device_name, seed_number, whole
from vargpt_lightning.utils.errors import UserError

if TYPE_CHECKING:  # the sub-command's help must not wait for torch
    from vargpt_lightning.evaluation.images.instruct_set import Prompt
    from vargpt_lightning.evaluation.images.settings import MeasureSettings


def add_sampling(form: argparse.ArgumentParser, out: bool = True) -> None:
    """Add how pictures are drawn; without `out`, what `add_measuring` has too is left to that."""
    form.add_argument("--draw-batch", type=whole(1, 2**20), default=8, metavar="N", help="pictures drawn together (8)")
    form.add_argument("--seed", type=seed_number, default=0, metavar="S", help="base of all seeds (0)")
    form.add_argument("--text", default="instruction", help="what is asked: instruction (default) or caption")
    if out:
        form.add_argument("--limit", type=whole(1), metavar="N", help="the first N prompts")
        form.add_argument("--out", type=Path, required=True, metavar="DIR", help="where drawings go")
        form.add_argument(
            "--device", type=device_name, metavar="NAME", help="such as cpu or cuda:0 (a GPU when there is one)"
        )
    form.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="of the system, such as concurrency=8"
    )


def add_measuring(form: argparse.ArgumentParser) -> None:
    """Add how drawings are measured."""
    add = form.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="where images.json goes")
    add("--limit", type=whole(1), metavar="N", help="the first N prompts")
    add("--replace", action="store_true", help="write over the result of other drawings in the folder")
    add("--metrics", default="fid,isc,clip", metavar="NAMES",
        help="some of fid, sfid, kid, isc, prc, dc (density, coverage), prc_vgg16, fd_dinov2, cmmd, mind, clip, "
        "vqa_score, pickscore, image_reward, hpsv3; or none (fid,isc,clip)")  # fmt: skip
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
    add("--kid-subsets", type=whole(1), default=100, metavar="N", help="(100)")
    add("--kid-subset-size", type=whole(2), default=1000, metavar="N", help="(1000)")
    add("--isc-splits", type=whole(1), default=10, metavar="N", help="(10)")
    add("--prc-neighbours", type=whole(1), default=3, metavar="N", help="(3)")
    add("--dc-neighbours", type=whole(1), default=5, metavar="N", help="(5)")
    add(
        "--vqa-model",
        default="",
        metavar="MODEL",
        help="whom vqa_score asks: a run, a transformers model, an endpoint",
    )
    add("--pair-weights", action="append", default=[], metavar="NAME=PATH", help="local weights of pickscore, "
        "image_reward or hpsv3; else they are fetched")  # fmt: skip
    add("--resize-and-crop", type=whole(1, PIXELS), metavar="PIXELS", help="make pictures of several sizes alike first")
    add("--batch-size", type=whole(1, 2**20), default=64, metavar="N", help="pictures measured together (64)")
    add("--fast", action="store_true", help="channels-last memory: faster on processors, equal up to rounding")
    add("--save-statistics", type=Path, metavar="FILE", help="keep the drawings' sums, to be a reference later (.npz)")
    add("--export-adm", type=Path, metavar="FILE", help="the drawings for the ADM evaluator (.npz)")
    add("--export-adm-statistics", type=Path, metavar="FILE", help="the same with mu, sigma, mu_s, sigma_s (.npz)")
    add("--allow", action="append", default=[], metavar="NAME", help="few_samples, missing, unknown or broken: take it "
        "and mark the result; several times, or with commas")  # fmt: skip
    add("--device", type=device_name, metavar="NAME", help="such as cpu or cuda:0 (a GPU when there is one)")


def measure_settings(arguments: Any) -> MeasureSettings:
    """Return what the arguments ask to be measured; raises UserError for a name that is not known."""
    from vargpt_lightning.evaluation.images.settings import MeasureSettings

    given: dict[str, Any] = {name: getattr(arguments, name, None) for name in MeasureSettings.__dataclass_fields__}
    given["metrics"] = () if arguments.metrics == "none" else _names([arguments.metrics])
    given["allow"] = _names(arguments.allow)
    given["pair_weights"] = tuple(arguments.pair_weights)
    given["layout"] = "channels_last" if arguments.fast else "contiguous"
    del given["device"]
    return MeasureSettings(**given)


def _names(values: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for value in values for name in value.split(",") if name.strip()))


def asked_prompts(arguments: Any) -> tuple[list[Prompt], list[str]]:
    """Return the prompts, and the ids of those beyond the limit."""
    from vargpt_lightning.evaluation.images.instruct_set import read_prompts

    if arguments.prompts is None:
        if arguments.limit is not None:
            raise UserError("--limit goes with --prompts alone; without them every picture counts")
        return [], []
    prompts = read_prompts(arguments.prompts)
    count = len(prompts) if arguments.limit is None else arguments.limit
    return prompts[:count], [prompt.id for prompt in prompts[count:]]


def check_given(arguments: Any) -> None:
    """Make sure that the files that measuring is to use are there, before torch is imported."""
    for name in ("reference", "inception_weights", "vgg16_weights"):
        if (path := getattr(arguments, name)) is not None:
            check_file(path, f"what --{name.replace('_', '-')} is to be")
