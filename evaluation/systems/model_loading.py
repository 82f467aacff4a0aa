"""A transformers model and its processor out of a folder, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from vargpt_lightning.evaluation.systems.model_files import first_line
from vargpt_lightning.models.core.devices import choose
from vargpt_lightning.utils.errors import UserError

DTYPES = ("auto", "float32", "bfloat16", "float16")


def load_parts(folder: Path, dtype: str = "auto", device: str | None = None) -> tuple[Any, Any]:
    """Returns a model in evaluation mode and its processor; runs no code that comes with the model.

    Raises:
        UserError: the kind is unknown or no image-text-to-text model, a file is broken, weights are missing or have
            other sizes, or the precision or the device is none that there is.
    """
    from transformers import AutoModelForImageTextToText

    if dtype not in DTYPES:
        raise UserError(f"dtype: {dtype!r}; expected one of {', '.join(DTYPES)}")
    place = choose(device)
    config = _config(folder)
    processor = _processor(folder)
    chosen = "auto" if dtype == "auto" else getattr(torch, dtype)
    options = {"config": config, "dtype": chosen, "output_loading_info": True, "trust_remote_code": False}
    load: Any = AutoModelForImageTextToText.from_pretrained
    try:
        model, found = load(folder, local_files_only=True, **options)
        model = model.eval().requires_grad_(False).to(place)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, AttributeError, SafetensorError) as error:
        raise UserError(f"model {folder}: its weights cannot be loaded: {first_line(error)}") from error
    # transformers fills such weights with random numbers and goes on: every figure would be wrong
    lost = sorted(found.get("missing_keys") or ())
    if lost:
        raise UserError(f"model {folder}: {len(lost)} weights are not in its files, such as {lost[0]}")
    return model, processor


def _config(folder: Path) -> Any:
    from transformers import AutoConfig, AutoModelForImageTextToText

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise UserError(f"model {folder}: config.json is of no kind that transformers knows: {_line(error)}") from error
    if type(config) not in AutoModelForImageTextToText._model_mapping:
        raise UserError(
            f"model {folder}: model_type {config.model_type!r} is no image-text-to-text model of transformers; "
            "expected one such as llava, llava_onevision, instructblip, qwen2_vl, qwen2_5_vl, chameleon, emu3 or janus"
        )
    return config


def _processor(folder: Path) -> Any:
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # tokenizers raises errors of its own that derive from Exception alone
        raise UserError(f"model {folder}: its processor cannot be loaded: {_line(error)}") from error
    for part in ("tokenizer", "image_processor"):
        if getattr(processor, part, None) is None:
            raise UserError(f"model {folder}: its processor has no {part}; it is a {type(processor).__name__}")
    if processor.tokenizer.pad_token_id is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    return processor


def _line(error: BaseException) -> str:
    return first_line(error).removesuffix(":")
