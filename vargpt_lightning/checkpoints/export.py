"""What `vargpt convert` writes for each layout."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vargpt_lightning.checkpoints.hub import read_tokenizer_files, write_directory
from vargpt_lightning.checkpoints.lazy_tensors import LastRow, MemoryTensor, Source, nbytes
from vargpt_lightning.checkpoints.open import Checkpoint
from vargpt_lightning.checkpoints.published import layouts
from vargpt_lightning.checkpoints.published.config import (
    causal_config,
    llava_config,
    llava_processor,
    vargpt_config,
)
from vargpt_lightning.checkpoints.published.layouts import Layout
from vargpt_lightning.checkpoints.published.qwen2_vl import qwen2_vl_config, v1_1_config
from vargpt_lightning.checkpoints.tokens import load_tokenizer
from vargpt_lightning.checkpoints.write import write_pickle, write_shards
from vargpt_lightning.data.text.text_tokenizer import FILE_NAME, QWEN2_VL_NAMES, VARGPT_NAMES, TextTokenizer, renamed
from vargpt_lightning.models.core.config import LanguageConfig
from vargpt_lightning.models.core.families import MROPE, OURS
from vargpt_lightning.models.core.scales import ScaleSchedule
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import write_bytes, write_json

EXTRA = ("preprocessor_config.json", "processor_config.json", "generation_config.json")
"""Small files of LLaVA's folder that do not belong to its text tokenizer."""


def write_ours(checkpoint: Checkpoint, folder: Path, limit: int) -> list[str]:
    """Write our directory, of a whole model or of the submodules that there are; return notes."""
    _room(folder, checkpoint.state)
    tokenizer_files = read_tokenizer_files(checkpoint.folder) if checkpoint.folder else {}
    notes = []
    if checkpoint.whole:
        if tokenizer := _tokenizer(checkpoint):
            tokenizer_files = {**tokenizer_files, FILE_NAME: _text_of(tokenizer)}
        else:
            notes = ["  found no text tokenizer beside the weights: put its tokenizer.json into the folder"]
        sections = checkpoint.config.to_dict()
    else:
        sections = checkpoint.sections
    write_directory(folder, sections, checkpoint.state, tokenizer_files, checkpoint.sampling, limit)
    return notes


def write_vargpt(checkpoint: Checkpoint, folder: Path, limit: int) -> list[str]:
    """Write the layout of VARGPT-LLaVA-v1; return notes."""
    config = checkpoint.config
    _needs(checkpoint, "vargpt", layouts.LAYOUT_PARTS["vargpt"])
    state = _published(checkpoint, "vargpt")
    _room(folder, state)
    write_shards(folder, state, limit)
    _write_words(checkpoint, folder, vargpt=True)
    write_json(folder / "config.json", vargpt_config(checkpoint.sections, _dtype(state)))
    rows, wanted = config.decoder.classes + 1, config.tokens.image_gen_start + 2
    if rows == wanted:
        return []
    return [f"  note: the authors' code expects {wanted} class rows (start token's id + 2), this model has {rows}"]


def write_v1_1(checkpoint: Checkpoint, folder: Path, limit: int) -> list[str]:
    """Write the layout of VARGPT-v1.1; return notes."""
    config = checkpoint.config
    _needs(checkpoint, "vargpt_v1_1", layouts.LAYOUT_PARTS["vargpt_v1_1"])
    rows, wanted = config.decoder.start_rows, config.tokens.image_gen_start + 1
    if rows not in (1, wanted):
        expected = f"{wanted}, as the authors' code has, or 1"
        raise UserError(f"--to vargpt_v1_1: got decoder.start_rows={rows}, expected {expected}")
    state = _published(checkpoint, "vargpt_v1_1")
    if rows != wanted:
        state[_START] = LastRow(state[_START], wanted)
    _room(folder, state)
    write_shards(folder, state, limit)
    _write_own_words(checkpoint, folder)
    write_json(folder / "config.json", v1_1_config(checkpoint.sections, _dtype(state)))
    if rows != wanted:
        return [f"  note: {_START} has {wanted} rows, of which the last is used; the others are zeros"]
    return []


_START = "sos_embedding.weight"


def write_qwen2_vl(checkpoint: Checkpoint, folder: Path, limit: int) -> list[str]:
    """Write the part that answers as transformers' Qwen2-VL; return notes."""
    _needs(checkpoint, "qwen2_vl", layouts.LAYOUT_PARTS["qwen2_vl"])
    state = _published(_with_one_table(checkpoint), "qwen2_vl")
    _room(folder, state)
    write_shards(folder, state, limit)
    _write_own_words(checkpoint, folder)
    write_json(folder / "config.json", qwen2_vl_config(checkpoint.sections, _dtype(state)))
    return []


def write_llava(checkpoint: Checkpoint, folder: Path, limit: int) -> list[str]:
    """Write the part that answers as transformers' LLaVA; return notes."""
    _needs(checkpoint, "llava", layouts.LAYOUT_PARTS["llava"])
    state = _published(_with_one_table(checkpoint), "llava")
    _room(folder, state)
    write_shards(folder, state, limit)
    _write_words(checkpoint, folder)
    write_json(folder / "config.json", llava_config(checkpoint.sections, _dtype(state)))
    return []


def write_causal(checkpoint: Checkpoint, folder: Path, limit: int) -> list[str]:
    """Write the language model as transformers' causal one, its picture tokens as words without a use; return notes."""
    _needs(checkpoint, "causal", layouts.LAYOUT_PARTS["causal"])
    state = _published(_with_one_table(checkpoint), "causal")
    _room(folder, state)
    write_shards(folder, state, limit)
    language = LanguageConfig(**checkpoint.sections["language"])
    write_json(folder / "config.json", causal_config(language, checkpoint.sections.get("tokens", {}), _dtype(state)))
    for name, content in (read_tokenizer_files(checkpoint.folder) if checkpoint.folder else {}).items():
        write_bytes(folder / name, content)
    return []


def write_var(checkpoint: Checkpoint, folder: Path, limit: int) -> list[str]:
    """Write the decoder and the image tokenizer as VAR's files, those of them that there are; return notes."""
    there = [part for part in ("visual_decoder", "image_tokenizer") if part in checkpoint.parts]
    if not there:
        _needs(checkpoint, "var", ("visual_decoder",))
    if checkpoint.bitwise:
        raise UserError(f"--to var: {checkpoint.source} draws bits; this layout has a place for indices alone")
    _room(folder, {key: value for key, value in checkpoint.state.items() if key.split(".")[0] in there})
    decoder, tokenizer = checkpoint.sections.get("decoder", {}), checkpoint.sections["tokenizer"]
    sizes = "ch{channels}v{vocabulary}z{code_size}".format(**tokenizer)
    names = {"visual_decoder": f"var_d{decoder.get('depth')}.pth", "image_tokenizer": f"vae_{sizes}.pth"}
    layouts: dict[str, Layout] = {"visual_decoder": "var", "image_tokenizer": "vqvae"}
    for part in there:
        write_pickle(folder / names[part], _published(checkpoint, layouts[part]))
    return [f"  {names[part]}: {part}" for part in there]


def write_infinity(checkpoint: Checkpoint, folder: Path, limit: int) -> list[str]:
    """Write the decoder and the image tokenizer as Infinity's files, those of them that there are; return notes."""
    there = [part for part in ("visual_decoder", "image_tokenizer") if part in checkpoint.parts]
    if not there:
        _needs(checkpoint, "infinity", layouts.LAYOUT_PARTS["infinity"])
    if not checkpoint.bitwise:
        raise UserError(f"--to infinity: {checkpoint.source} draws indices; this layout has a place for bits alone")
    _room(folder, {key: value for key, value in checkpoint.state.items() if key.split(".")[0] in there})
    notes = []
    if "visual_decoder" in there:
        depth, width = (checkpoint.sections["decoder"][key] for key in ("depth", "width"))
        name = f"infinity_d{depth}w{width or 64 * depth}.pth"
        write_pickle(folder / name, _published(checkpoint, "infinity"))
        notes.append(f"  {name}: visual_decoder")
    if "image_tokenizer" in there:
        name = f"infinity_vae_d{checkpoint.sections['tokenizer']['code_size']}.pth"
        write_pickle(folder / name, _published(checkpoint, "bsq"), under="vae")
        notes.append(f"  {name}: image_tokenizer")
    return notes


WRITERS: dict[str, Callable[[Checkpoint, Path, int], list[str]]] = {
    "ours": write_ours,
    "vargpt": write_vargpt,
    "vargpt_v1_1": write_v1_1,
    "qwen2_vl": write_qwen2_vl,
    "llava": write_llava,
    "causal": write_causal,
    "var": write_var,
    "infinity": write_infinity,
}


def _needs(checkpoint: Checkpoint, to: str, parts: tuple[str, ...]) -> None:
    kind = checkpoint.sections.get("vision", {}).get("kind", "clip")
    tower, words = ("qwen2_vl", MROPE) if to in ("vargpt_v1_1", "qwen2_vl") else ("clip", OURS)
    if "vision_tower" in parts and kind != tower:
        raise UserError(f"--to {to}: the vision tower is {kind!r}; this layout has a place for {tower!r} alone")
    family = checkpoint.sections.get("language", {}).get("family", OURS)
    if to != "causal" and "language_model" in parts and family != words:
        raise UserError(f"--to {to}: the language model is {family!r}; this layout has a place for {words!r} alone")
    if missing := [part for part in parts if part not in checkpoint.parts]:
        there = ", ".join(checkpoint.parts)
        raise UserError(f"--to {to}: {checkpoint.source} holds {there}; this layout needs {', '.join(missing)} as well")
    if to in ("vargpt", "vargpt_v1_1") and checkpoint.sections["language"].get("tie_embeddings"):
        raise UserError(f"--to {to}: this model's output rows are its input rows (tie_embeddings); not in this layout")


def _with_one_table(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with a tied table once, as transformers writes it."""
    if not checkpoint.sections["language"].get("tie_embeddings"):
        return checkpoint
    return replace(checkpoint, state={key: each for key, each in checkpoint.state.items() if key != layouts.TABLES[1]})


def _published(checkpoint: Checkpoint, layout: Layout) -> dict[str, Source]:
    """The weights under published names, with the constants that the published files carry."""
    scales = checkpoint.sections.get("tokenizer", {}).get("scales")
    schedule = ScaleSchedule(tuple(scales)) if scales else None
    state: Mapping[str, Any] = layouts.to_official(checkpoint.state, layout, schedule)
    return {key: MemoryTensor(value, key) if isinstance(value, Tensor) else value for key, value in state.items()}


def _dtype(state: Mapping[str, Source]) -> str:
    """The type of most of the weights."""
    sizes: dict[torch.dtype, int] = {}
    for source in state.values():
        sizes[source.dtype] = sizes.get(source.dtype, 0) + nbytes(source)
    return str(max(sizes, key=lambda dtype: sizes[dtype])).removeprefix("torch.")


def _room(folder: Path, state: Mapping[str, Source]) -> None:
    needed, free = sum(map(nbytes, state.values())), shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(f"--out: the weights need {needed / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB left")


def _tokenizer(checkpoint: Checkpoint) -> TextTokenizer | None:
    folder = checkpoint.folder
    there = folder is not None and any((folder / name).is_file() for name in (FILE_NAME, "tokenizer.model"))
    return load_tokenizer(checkpoint.config, folder) if folder is not None and there else None


def _text_of(tokenizer: TextTokenizer) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return tokenizer.save(folder).read_bytes()


def _write_own_words(checkpoint: Checkpoint, folder: Path) -> None:
    """Write the tokenizer's and the processor's files that came with the weights, the tokens under published names."""
    came = read_tokenizer_files(checkpoint.folder) if checkpoint.folder else {}
    if checkpoint.folder and checkpoint.layout != "ours":
        came |= {
            name: (checkpoint.folder / name).read_bytes() for name in EXTRA if (checkpoint.folder / name).is_file()
        }
    for name, content in came.items():
        if name == FILE_NAME:
            theirs = {ours: theirs for theirs, ours in {**VARGPT_NAMES, **QWEN2_VL_NAMES}.items()}
            content = renamed(content.decode(), theirs).encode()
        write_bytes(folder / name, content)


def _write_words(checkpoint: Checkpoint, folder: Path, vargpt: bool = False) -> None:
    """Write the tokenizer's and the processor's files: those that came with the weights, or else made ones."""
    came = read_tokenizer_files(checkpoint.folder) if checkpoint.folder else {}
    if checkpoint.folder and checkpoint.layout != "ours":
        came |= {
            name: (checkpoint.folder / name).read_bytes() for name in EXTRA if (checkpoint.folder / name).is_file()
        }
    for name, value in llava_processor(checkpoint.sections).items():
        if name not in came and not (name == "chat_template.json" and "chat_template.jinja" in came):
            write_json(folder / name, value)
    for name, content in came.items():
        if vargpt and name == FILE_NAME:
            content = renamed(content.decode(), {ours: theirs for theirs, ours in VARGPT_NAMES.items()}).encode()
        write_bytes(folder / name, content)
