"""Names of the published checkpoints, into this package's names and back, and loading that says what does not fit.

Everything here works on names and tensors, or on what stands for tensors that are not read yet; reading and writing
files is the caller's.

| layout | what it is |
|---|---|
| vqvae | the multi-scale VQ-VAE of VAR (`vae_ch160v4096z32.pth`) |
| var | a class-conditional VAR (`var_d16.pth` and its like) |
| infinity | the transformer of Infinity (`infinity_2b_reg.pth` and its like) |
| bsq | the image tokenizer in bits of Infinity (`infinity_vae_d32reg.pth`), older names too |
| vargpt | VARGPT-LLaVA-v1, all of it |
| llava | LLaVA-1.5 as transformers up to 4.51 names it, and as later ones write it |
| llava_new | LLaVA-1.5 as transformers 5 names it in memory |
| qwen2_vl | Qwen2-VL, as it is published and as transformers 5 names it in memory |
| vargpt_v1_1 | VARGPT-v1.1, all of it |
| causal | a causal language model of transformers, of any family that is built here |
| tower | a model of transformers with a vision tower that is built here, of which the tower alone is read |
| ours | `VARGPT`, or some of its submodules |

Legend: L visual tokens of all scales, C decoder width.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from vargpt_lightning.checkpoints.published import bit_tokenizers
from vargpt_lightning.models.core.scales import ScaleSchedule
from vargpt_lightning.models.decoder.visual_decoder import DERIVED_BUFFERS
from vargpt_lightning.models.vargpt import SUBMODULES, VARGPTModel
from vargpt_lightning.models.vision.tower import Published
from vargpt_lightning.utils.errors import UserError

Layout = Literal[
    "vqvae",
    "var",
    "infinity",
    "bsq",
    "vargpt",
    "llava",
    "llava_new",
    "qwen2_vl",
    "vargpt_v1_1",
    "causal",
    "tower",
    "ours",
]


class TensorLike(Protocol):
    """A tensor, or what stands for one that is not read yet."""

    @property
    def shape(self) -> torch.Size: ...

    @property
    def dtype(self) -> torch.dtype: ...


T = TypeVar("T", bound=TensorLike)

_LLAVA = (
    ("vision_tower.model.", "vision_tower.vision_model."),
    ("vision_projector.0.", "multi_modal_projector.linear_1."),
    ("vision_projector.2.", "multi_modal_projector.linear_2."),
    ("language_model.", "language_model."),
)
_EVERY = tuple(name for name in SUBMODULES if name not in ("generation_projectors", "start_embedding"))
_QWEN2_VL = (
    ("vision_projector.", "visual.merger."),
    ("vision_tower.model.", "visual."),
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
)
_DRAWING = (
    ("image_tokenizer.", "vae_local."),
    ("visual_decoder.", "vargpt_gen."),
    ("generation_projector_in.", "image_gen_projector."),
    ("generation_projector_out.", "image_gen_projector_out."),
)
_PREFIXES: dict[str, tuple[tuple[str, str], ...]] = {
    "vqvae": (("image_tokenizer.", ""),),
    "var": (("visual_decoder.", ""),),
    "infinity": (("visual_decoder.", ""),),
    "bsq": (("image_tokenizer.", ""),),
    "vargpt": (*_LLAVA, *_DRAWING),
    "llava": _LLAVA,
    "llava_new": (
        ("vision_tower.model.", "model.vision_tower."),
        ("vision_projector.0.", "model.multi_modal_projector.linear_1."),
        ("vision_projector.2.", "model.multi_modal_projector.linear_2."),
        ("language_model.model.", "model.language_model."),
        ("language_model.lm_head.", "lm_head."),
    ),
    "qwen2_vl": _QWEN2_VL,
    "vargpt_v1_1": (*_QWEN2_VL, *_DRAWING, ("start_embedding.", "sos_embedding.")),
    "causal": (("language_model.", ""),),
    "ours": tuple((f"{attributes[0]}.",) * 2 for attributes in SUBMODULES.values() if len(attributes) == 1),
}
"""For each layout, prefixes of our names and of theirs; what follows them is the same."""

_ALSO_READ: dict[str, tuple[tuple[str, str], ...]] = {
    # what transformers 5 writes
    "llava": (("vision_tower.model.", "vision_tower."),),
    # between 4.52 and 5, transformers named the tower so in memory
    "llava_new": (("vision_tower.model.", "model.vision_tower.vision_model."),),
    # transformers 5 in memory
    "qwen2_vl": (
        ("vision_projector.", "model.visual.merger."),
        ("vision_tower.model.", "model.visual."),
        ("language_model.model.", "model.language_model."),
    ),
}

TABLES = ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight")
"""The rows that are read and those that are written: one tensor under two names where they are tied."""

LAYOUT_PARTS: dict[str, tuple[str, ...]] = {
    "vqvae": ("image_tokenizer",),
    "var": ("visual_decoder",),
    "infinity": ("visual_decoder",),
    "bsq": ("image_tokenizer",),
    "vargpt": _EVERY,
    "vargpt_v1_1": (*_EVERY, "start_embedding"),
    "qwen2_vl": ("language_model", "vision_tower", "vision_projector"),
    "llava": ("language_model", "vision_tower", "vision_projector"),
    "llava_new": ("language_model", "vision_tower", "vision_projector"),
    "causal": ("language_model",),
    "ours": (*_EVERY, "start_embedding"),
}
"""The submodules of `VARGPT` that each layout fills."""

# The other names begin as LLaVA's do.
_OURS_ALONE: tuple[str, ...] = (
    "vision_tower.model",
    "vision_tower.network",
    "vision_projector",
    "image_tokenizer",
    "visual_decoder",
    "generation_projector_in",
    "generation_projector_out",
    "start_embedding",
)

_DERIVED = re.compile(
    rf"(^|\.)({'|'.join(DERIVED_BUFFERS)}|rotary_emb\.inv_freq|rotary_emb\.original_inv_freq|embeddings\.position_ids"
    r"|quantizer?\.lfq\.mask)$"
)


class Conversion(NamedTuple, Generic[T]):
    """A checkpoint under our names, and those of its keys that hold constants which the modules make themselves."""

    state: dict[str, T]
    derived: tuple[str, ...]


def detect_layout(keys: Iterable[str]) -> Layout:
    """Return the layout that a checkpoint's keys belong to.

    Raises:
        UserError: it is none of the known ones.
    """
    names = set(keys)
    marks: list[tuple[str, Layout]] = [
        ("sos_embedding.", "vargpt_v1_1"),
        ("vargpt_gen.", "vargpt"),
        ("model.visual.", "qwen2_vl"),
        ("visual.", "qwen2_vl"),
        ("model.language_model.", "llava_new"),
        *((f"{part}.", "ours") for part in _OURS_ALONE),
        ("language_model.model.", "llava"),
        ("model.layers.", "causal"),
        ("pos_1LC", "var"),
        ("text_proj_for_sos.", "infinity"),
        ("quantize.embedding.", "vqvae"),
        ("encoder.conv_in.", "bsq"),
    ]
    for mark, layout in marks:
        if any(name.startswith(mark) for name in names):
            return layout
    example = ", ".join(sorted(names)[:3]) or "no keys"
    raise UserError(f"checkpoint: got keys such as {example}, expected those of {', '.join(_PREFIXES)}")


def is_whole_qwen2_vl(keys: Iterable[str]) -> bool:
    """Whether names are those of a Qwen2-VL with its language model, rather than of its tower alone."""
    names = set(keys)
    words = any(name.endswith("embed_tokens.weight") for name in names)
    return words and any(name.startswith(("visual.", "model.visual.")) for name in names)


def from_official(state: Mapping[str, T], layout: Layout | None = None) -> Conversion[T]:
    """Return a published checkpoint under the names of `VARGPT`.

    Args:
        layout: None recognises it by its keys.

    Raises:
        UserError: a key has no place in the layout.
    """
    layout = detect_layout(state) if layout is None else layout
    converted: dict[str, T] = {}
    pairs = [(theirs, ours) for ours, theirs in (*_ALSO_READ.get(layout, ()), *_PREFIXES[layout])]
    pairs.sort(key=lambda pair: -len(pair[0]))
    derived = []
    wrapped = _wrapped(layout) if bit_tokenizers.is_wrapped(state) else None
    for key, tensor in state.items():
        if _DERIVED.search(key):
            derived.append(key)
            continue
        bare = key if wrapped is None or not key.startswith(wrapped) else bit_tokenizers.unwrapped(key)
        name = _rename(bare, pairs)
        if name is None:
            raise UserError(f"checkpoint key {key}: shape {tuple(tensor.shape)} has no place in the layout {layout}")
        converted[name] = tensor
    return Conversion(converted, tuple(derived))


def from_tower(state: Mapping[str, T], published: Published) -> Conversion[T]:
    """Return the vision tower of a model of transformers, and its projector if it has its own, under our names.

    Args:
        published: how its family's folders hold it.

    Raises:
        UserError: there is nothing of it.
    """
    derived = tuple(key for key in state if _DERIVED.search(key))
    named = {key: published.name(key) for key in state if key not in derived}
    converted = {name: state[key] for key, name in named.items() if name is not None}
    if not any(name.startswith("vision_tower.") for name in converted):
        example = ", ".join(sorted(state)[:3]) or "no keys"
        raise UserError(f"checkpoint: got keys such as {example}, expected those of {published.model_types[0]}")
    return Conversion(converted, derived)


def to_official(state: Mapping[str, T], layout: Layout, schedule: ScaleSchedule | None = None) -> dict[str, T | Tensor]:
    """Return the part of a `VARGPT` state that a layout holds, under the published names.

    Constants and unused layer norms that the published files carry are added, so that the authors' code loads them.

    Args:
        schedule: the scales, needed for the layouts with a decoder of VAR's.

    Raises:
        UserError: a key has no place in the layout, or the schedule is missing.
    """
    parts = LAYOUT_PARTS[layout]
    official: dict[str, T | Tensor] = {}
    for key, tensor in state.items():
        if key.split(".")[0] not in parts:
            continue
        name = _rename(key, _PREFIXES[layout])
        if name is None:
            raise UserError(f"key {key}: shape {tuple(tensor.shape)} has no place in the layout {layout}")
        wrapped = _wrapped(layout)
        official[name if wrapped is None or not name.startswith(wrapped) else bit_tokenizers.wrapped(name)] = tensor
    if layout == "bsq":
        official |= bit_tokenizers.masks(official)
    elif layout == "vargpt_v1_1":
        # its own quantizer, which the released model has only once
        official |= bit_tokenizers.masks(official, [f"vae_local.{bit_tokenizers.MASKS[0]}"])
        official |= _absent_key_biases(official)
    elif layout == "infinity":
        official |= _absent_key_biases(official)
    elif "visual_decoder" in parts and layout != "ours":
        if schedule is None:
            raise UserError(f"schedule: got None, expected the decoder's scales for the layout {layout}")
        official |= _decoder_constants(official, "vargpt_gen." if layout == "vargpt" else "", schedule)
    if layout == "vargpt" or (layout == "vargpt_v1_1" and any("projector" in key for key in official)):
        official = _with_layer_norms(official)
    return official


def load(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    parts: Iterable[str] | None = None,
    source: str = "checkpoint",
    keep: Iterable[str] = (),
    assign: bool = False,
) -> None:
    """Load a state into a model, all of it and nothing else, or say what does not fit and change nothing.

    Args:
        parts: names of `SUBMODULES` that the state fills completely; None for the whole model.
        source: what the state is called in messages, such as its path.
        keep: keys that the model keeps as they are, whether the state has them or not.
        assign: take the state's tensors instead of copying them, as a model on the meta device needs; its constants
            are computed then.

    Raises:
        UserError: a key is missing, has no place or has another shape; names the key and both shapes.
    """
    given = fitting(model, state, parts=parts, source=source, keep=keep)
    model.load_state_dict(given, strict=False, assign=assign)
    if assign and isinstance(model, VARGPTModel):
        model.restore_constants()


def fitting(
    model: nn.Module,
    state: Mapping[str, T],
    *,
    parts: Iterable[str] | None = None,
    source: str = "checkpoint",
    keep: Iterable[str] = (),
) -> dict[str, T]:
    """Return what a model takes of a state, which is all of it but `keep`; arguments and errors are those of `load`."""
    kept = set(keep)
    prefixes = None if parts is None else tuple(f"{a}." for part in parts for a in SUBMODULES[part])
    wanted = {
        key: tensor
        for key, tensor in model.state_dict().items()
        if key not in kept and (prefixes is None or key.startswith(prefixes))
    }
    given = {key: tensor for key, tensor in state.items() if key not in kept}
    if isinstance(model, VARGPTModel) and model.config.language.tie_embeddings and TABLES[0] in wanted:
        given = with_one_table(given, source)
    for key, tensor in wanted.items():
        if key not in given:
            raise UserError(f"{source}: key {key} is missing, the model expects it with shape {tuple(tensor.shape)}")
        if given[key].shape != tensor.shape:
            shapes = f"shape {tuple(given[key].shape)}, the model expects {tuple(tensor.shape)}"
            raise UserError(f"{source}: key {key} has {shapes}")
    for key, value in given.items():
        if key not in wanted:
            raise UserError(f"{source}: key {key} of shape {tuple(value.shape)} has no place in the model")
    return given


def with_one_table(state: Mapping[str, T], source: str) -> dict[str, T]:
    """Return weights of a model with tied tables under both of their names.

    Raises:
        UserError: there are two, and they differ.
    """
    there = [key for key in TABLES if key in state]
    if len(there) == 2 and not _equal(*(state[key] for key in there)):
        raise UserError(
            f"{source}: {TABLES[0]} and {TABLES[1]} differ, but language.tie_embeddings is true: the model has one "
            "table for both; expected equal ones, or tie_embeddings: false, which keeps both"
        )
    return {**state, **{key: state[there[0]] for key in TABLES if there}}


def _equal(one: Any, other: Any) -> bool:
    """Whether two tensors, or what stands for them, hold the same numbers; what cannot be read is not compared."""
    if one is other or one.shape != other.shape:
        return one is other
    read = [each.part() if hasattr(each, "part") else each for each in (one, other)]
    if not all(isinstance(each, Tensor) and not each.is_meta for each in read):
        return True
    return bool((read[0] == read[1]).all())


def _wrapped(layout: str) -> str | None:
    """How names begin of layers that a layout wraps in others; None for a layout without."""
    return {"bsq": "", "vargpt_v1_1": "vae_local."}.get(layout)


def _rename(key: str, pairs: Iterable[tuple[str, str]]) -> str | None:
    for old, new in pairs:
        if key.startswith(old):
            return new + key[len(old) :]
    return None


def _decoder_constants(official: Mapping[str, Any], prefix: str, schedule: ScaleSchedule) -> dict[str, Tensor]:
    """The buffers that VAR's released code saves: level ids, the additive mask and the absent key bias.

    Those that are no integers have the type of the weights, as when the released code's model is cast as a whole.
    """
    start = official.get(f"{prefix}pos_start")
    mask_LL = torch.zeros(schedule.num_tokens, schedule.num_tokens, dtype=None if start is None else start.dtype)
    mask_LL.masked_fill_(~schedule.block_causal_mask(), -torch.inf)
    constants = {f"{prefix}lvl_1L": schedule.level_ids()[None], f"{prefix}attn_bias_for_masking": mask_LL[None, None]}
    for key, bias_C in official.items():
        if key.startswith(prefix) and key.endswith(".attn.q_bias"):
            constants[key.removesuffix("q_bias") + "zero_k_bias"] = torch.zeros(bias_C.shape, dtype=bias_C.dtype)
    return constants


def _absent_key_biases(official: Mapping[str, Any]) -> dict[str, Tensor]:
    """The buffers that Infinity's released code saves: beside each bias on values, the one that keys do not have."""
    values = {key: bias_C for key, bias_C in official.items() if key.endswith((".sa.v_bias", ".ca.v_bias"))}
    return {
        key.removesuffix("v_bias") + "zero_k_bias": torch.zeros(bias_C.shape, dtype=bias_C.dtype)
        for key, bias_C in values.items()
    }


def _with_layer_norms(official: dict[str, Any]) -> dict[str, Any]:
    """Add the layer norms that VARGPT's projectors hold and never use, at their initial values."""
    for projector in ("image_gen_projector", "image_gen_projector_out"):
        if f"{projector}.mlp.0.weight" not in official:
            raise UserError("generation_projectors: VARGPT's layouts have two; this model has none")
        weight = official[f"{projector}.mlp.0.weight"]
        for name, fill in (("weight", torch.ones), ("bias", torch.zeros)):
            official.setdefault(f"{projector}.ln_q.{name}", fill(weight.shape[1], dtype=weight.dtype))
    return official
