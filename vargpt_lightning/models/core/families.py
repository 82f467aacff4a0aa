"""Families of language models: what each may be told beyond the sizes, and what is not built. Imports no torch.

A family is known by transformers' `model_type`. "llama" is our own network; the others' blocks are transformers'.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vargpt_lightning.utils.errors import UserError

OURS = "llama"
MROPE = "qwen2_vl"
"""The family whose positions have three dimensions."""
CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class Family:
    """What a family's configuration has beside what all have.

    Args:
        options: keys of transformers' configuration that `model.language.options` may set.
        norm_eps: the key of the normalisations' epsilon.
        final_norm: the module behind the last block.
        head_bias: whether the head over the vocabulary has a bias.
        blocks: the family whose blocks it has; its own where empty.
    """

    options: tuple[str, ...] = ()
    norm_eps: str = "rms_norm_eps"
    final_norm: str = "norm"
    head_bias: bool = False
    blocks: str = ""


_WINDOW = ("sliding_window", "layer_types")
_SWITCHED_WINDOW = (*_WINDOW, "use_sliding_window", "max_window_layers")

FAMILIES: dict[str, Family] = {
    OURS: Family(),
    "qwen2": Family(("hidden_act", "rope_parameters", *_SWITCHED_WINDOW)),
    # with positions of three dimensions, whose rotary frequencies `mrope_section` deals out
    MROPE: Family(("hidden_act", "mrope_section", *_SWITCHED_WINDOW), blocks="qwen2"),
    "qwen3": Family(("hidden_act", "rope_parameters", "attention_bias", *_SWITCHED_WINDOW)),
    "mistral": Family(("hidden_act", "rope_parameters", "sliding_window")),
    "smollm3": Family(
        (
            "hidden_act",
            "rope_parameters",
            "attention_bias",
            "mlp_bias",
            "no_rope_layers",
            "no_rope_layer_interval",
            "use_sliding_window",
            *_WINDOW,
        )
    ),
    "phi": Family(
        ("hidden_act", "rope_parameters", "partial_rotary_factor", "qk_layernorm", "resid_pdrop", "embd_pdrop"),
        norm_eps="layer_norm_eps",
        final_norm="final_layernorm",
        head_bias=True,
    ),
    "gemma3_text": Family(
        (
            "hidden_activation",
            "rope_parameters",
            "attention_bias",
            "query_pre_attn_scalar",
            "attn_logit_softcapping",
            "final_logit_softcapping",
            "use_bidirectional_attention",
            *_WINDOW,
        )
    ),
}

_NOT_BUILT = {
    "attn_logit_softcapping": "soft caps of attention's weights",
    "final_logit_softcapping": "soft caps of logits",
    "use_bidirectional_attention": "text that sees what comes after it",
    "use_mrope": "rotary positions in three dimensions (mrope) of another family than qwen2_vl",
}
"""Settings that change what a model computes, in a way that is not built here."""
_OTHER_FAMILIES = {
    "gemma2": "soft caps of attention's weights",
    "gemma3": "a model that sees; its text model alone is gemma3_text",
    "qwen2_5_vl": "windows in its vision tower, and positions in seconds",
}
_ROTARY_TYPES = ("default", "linear", "llama3", "yarn")
"""Others change their frequencies with the length of what they are given."""


def check_family(name: str, options: Mapping[str, Any]) -> None:
    """Refuse a family, or an option of it, that is not built.

    Raises:
        UserError: naming the key, its value and what was expected.
    """
    if name not in FAMILIES:
        why = f" ({_OTHER_FAMILIES[name]})" if name in _OTHER_FAMILIES else ""
        raise UserError(f"language.family: {name!r} is not built here{why}; expected one of {', '.join(FAMILIES)}")
    for key, value in options.items():
        where = f"language.options.{key}={value!r}"
        if key in _NOT_BUILT and value:
            raise UserError(f"{where}: {_NOT_BUILT[key]} are not built here; expected none")
        if key not in FAMILIES[name].options:
            there = ", ".join(FAMILIES[name].options) or "none"
            raise UserError(f"{where}: not an option of the family {name!r}, which has {there}")
    _check_rotary(options.get("rope_parameters"))
    sections = options.get("mrope_section")
    if sections is not None and not (
        isinstance(sections, Sequence) and len(sections) == 3 and all(isinstance(each, int) for each in sections)
    ):
        raise UserError(f"language.options.mrope_section={sections!r}; expected three whole numbers")
    window = options.get("sliding_window")
    if window is not None and (not isinstance(window, int) or window < 1):
        raise UserError(f"language.options.sliding_window={window!r}; expected a whole number from 1, or null")


def _check_rotary(parameters: Any) -> None:
    """Refuse rotary positions of a kind that is not built; a family may have two kinds of layers."""
    where = "language.options.rope_parameters"
    if parameters is None:
        return
    if not isinstance(parameters, Mapping):
        raise UserError(f"{where}={parameters!r}; expected names with values")
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            _check_rotary(value)
        elif name == "mrope_section":
            raise UserError(f"{where}.{name}={value!r}: {_NOT_BUILT['use_mrope']} are not built here; expected none")
        elif name == "rope_type" and value not in _ROTARY_TYPES:
            raise UserError(f"{where}.{name}={value!r}; expected one of {', '.join(_ROTARY_TYPES)}")


def mrope_sections(head: int, options: Mapping[str, Any]) -> tuple[int, ...]:
    """Return how many rotary frequencies each of three positions turns: those of `options`, or Qwen2-VL's own shares.

    Args:
        head: width of a head, which has half as many frequencies.

    Raises:
        UserError: they are not that many.
    """
    half = head // 2
    side = 3 * half // 8
    sections = options.get("mrope_section") or (half - 2 * side, side, side)
    if sum(sections) != half:
        expected = f"three numbers with the sum {half}, half a head of {head}"
        raise UserError(f"language.options.mrope_section: got {list(sections)}, expected {expected}")
    return tuple(sections)


def read_published(where: str, place: str = "language.like") -> dict[str, Any]:
    """Return the config.json of a transformers model, in a folder or on the hub (OWNER/NAME, OWNER/NAME@REVISION).

    Args:
        place: the key that names it, for messages.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    path = Path(where).expanduser()
    if path.is_dir():
        path = path / CONFIG_FILE
    elif not path.exists() and where.count("/") == 1 and not where.startswith((".", "/", "~")):
        path = _fetch(where, place)
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{place}={where!r}: {path} cannot be read ({error})") from error
    if not isinstance(found, dict):
        raise UserError(f"{place}={where!r}: {path} holds no configuration")
    return found


def _fetch(where: str, place: str) -> Path:
    from huggingface_hub import hf_hub_download

    repo, _, revision = where.partition("@")
    try:
        return Path(hf_hub_download(repo, CONFIG_FILE, revision=revision or None))
    except Exception as error:  # of the hub, the network or the name: several kinds, none of them ours
        reason = " ".join(str(error).split()).split(". ")[0]
        raise UserError(f"{place}={where!r}: no such folder, and the hub does not provide it ({reason})") from error


def sizes_of_published(published: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of `LanguageConfig` that a causal language model's config.json tells, read by transformers.

    Raises:
        UserError: its family, or something in it, is not built here.
    """
    name = str(published.get("model_type"))
    name = _SAME.get(name, name)
    check_family(name, {})
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    sections: Any = None
    if name == MROPE:
        published, sections = _flat(published)
    kind: Any = CONFIG_MAPPING[FAMILIES[name].blocks or name]
    read, silent = kind.from_dict(dict(published)), kind()
    family, heads = FAMILIES[name], read.num_attention_heads
    for key, words in _NOT_BUILT.items():
        if published.get(key):
            raise UserError(f"config.json: {key}={published[key]!r}: {words} are not built here; expected none")
    options = {
        key: getattr(read, key)
        for key in family.options
        if hasattr(read, key) and key != "rope_parameters" and _said(read, silent, key)
    }
    if sections is not None:
        options["mrope_section"] = list(sections)
    rope = dict(read.rope_parameters)
    theta = rope.get("rope_theta", 10000.0)
    plain = {"rope_type", "rope_theta"} >= set(rope) and rope.get("rope_type", "default") == "default"
    if not plain:
        options["rope_parameters"] = rope
    if name == OURS:
        wrong = [key for key in ("attention_bias", "mlp_bias") if getattr(read, key)]
        if not plain or wrong or read.hidden_act != "silu":
            raise UserError(f"config.json: {wrong or 'rope_parameters or hidden_act'}: not built here for {name!r}")
    if "sliding_window" not in options:
        options.pop("layer_types", None)  # all the same
    kv_heads, width = read.num_key_value_heads, read.hidden_size
    head_width = getattr(read, "head_dim", None) or width // heads
    return {
        "family": name,
        "width": width,
        "layers": read.num_hidden_layers,
        "heads": heads,
        "kv_heads": None if kv_heads == heads else kv_heads,
        "head_width": None if head_width * heads == width else head_width,
        "mlp": read.intermediate_size,
        "vocabulary": read.vocab_size,
        "max_positions": read.max_position_embeddings,
        "rope_theta": float(theta),
        "norm_eps": getattr(read, family.norm_eps),
        "initializer_range": read.initializer_range,
        "tie_embeddings": bool(read.tie_word_embeddings),
        "options": options,
    }


_SAME = {"qwen2_vl_text": MROPE, "vargpt_qwen2_vl": MROPE}
"""Other names of a family: of its text model alone, and VARGPT-v1.1's."""


def _flat(published: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """A config.json of Qwen2-VL as one of Qwen2, and what it says of its three positions."""
    values = {**published, **(published.get("text_config") or {})}
    rope: dict[str, Any] = {}
    for key in ("rope_scaling", "rope_parameters"):
        rope |= values.pop(key, None) or {}
    if "rope_theta" in rope:
        values["rope_theta"] = rope["rope_theta"]
    for key in ("model_type", "text_config", "vision_config", "architectures"):
        values.pop(key, None)
    return values, rope.get("mrope_section")


def _said(read: Any, silent: Any, key: str) -> bool:
    """Whether an option has to be named: a window always, others where they differ from transformers' default."""
    value = getattr(read, key)
    if key == "sliding_window":
        return value is not None
    return bool(value != getattr(silent, key, None))
