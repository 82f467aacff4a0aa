"""Tiny models of transformers with a vision tower, with random weights, and what they make of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    PreTrainedModel,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Siglip2Config,
    Siglip2Model,
    SiglipConfig,
    SiglipModel,
)

from vargpt_lightning.data.images.native_shapes import NATIVE_FITS, picture_of
from vargpt_lightning.models.core.vision_config import VisionConfig

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
}
TEXT: dict[str, Any] = {**SIZES, "num_hidden_layers": 1, "vocab_size": 50, "max_position_embeddings": 8}
TEXT |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
QWEN_TEXT = {
    **TEXT,
    "num_key_value_heads": 1,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
}
MODELS: dict[str, Any] = {
    "clip": lambda: CLIPModel(
        CLIPConfig(vision_config={**SIZES, "image_size": 28, "patch_size": 14}, text_config=TEXT)
    ),
    "siglip": lambda: SiglipModel(
        SiglipConfig(vision_config={**SIZES, "image_size": 28, "patch_size": 14}, text_config=TEXT)
    ),
    "siglip2_naflex": lambda: Siglip2Model(
        Siglip2Config(vision_config={**SIZES, "num_patches": 16, "patch_size": 4}, text_config=TEXT)
    ),
    "dinov2": lambda: Dinov2Model(
        Dinov2Config(hidden_size=16, mlp_ratio=2, num_hidden_layers=3, num_attention_heads=2, image_size=42)
    ),
    "dinov3": lambda: DINOv3ViTModel(DINOv3ViTConfig(**SIZES, num_register_tokens=2, image_size=32)),
    "qwen2_vl": lambda: Qwen2VLForConditionalGeneration(
        Qwen2VLConfig(
            vision_config={
                **{"depth": 3, "embed_dim": 16, "num_heads": 2, "mlp_ratio": 2, "hidden_size": 16, "patch_size": 4}
            },
            text_config=QWEN_TEXT,
            **{"image_token_id": 3, "video_token_id": 4, "vision_start_token_id": 5, "vision_end_token_id": 6},
        )
    ),
}


def save(kind: str, folder: Path, **changes: Any) -> PreTrainedModel:
    """Write a tiny model with weights of all sizes into a folder, and return it."""
    torch.manual_seed(0)
    model: PreTrainedModel = MODELS[kind]()
    if changes:
        model = type(model)(type(model.config)(**{**model.config.to_dict(), **changes}))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return model.eval()


def flat(strips_P4SW: Tensor, config: VisionConfig) -> tuple[Tensor, list[tuple[int, int]]]:
    """The patches of strips, put together as the processors give them to transformers: rows first, colours last."""
    fit, side = config.squaring, config.patch_size
    pictures = [picture_of(strip.permute(1, 2, 0).numpy(), fit) for strip in strips_P4SW]
    grids = [(picture.shape[0] // side, picture.shape[1] // side) for picture in pictures]
    assert all(picture.shape[0] % (side * NATIVE_FITS[fit].merge) == 0 for picture in pictures)
    found = [
        torch.from_numpy(picture.copy()).unflatten(1, (-1, side)).unflatten(0, (-1, side)).transpose(1, 2).flatten(0, 1)
        for picture in pictures
    ]
    return torch.nn.utils.rnn.pad_sequence(found, batch_first=True), grids


def transformers_features(model: Any, config: VisionConfig, pixels: Tensor) -> Tensor:
    """What transformers makes of pictures that a tower takes: its features, zeros behind a picture's last."""
    tower = getattr(model, "vision_model", model)
    if config.kind == "qwen2_vl":
        return _of_qwen(model.model.visual, config, pixels)
    layer = config.feature_layer
    given: dict[str, Any] = {"pixel_values": pixels}
    valid: Any = 1
    if config.kind == "siglip2_naflex":
        patches, grids = flat(pixels, config)
        lacking = config.max_tokens - patches.shape[1]
        patches = torch.nn.functional.pad(patches.flatten(2), (0, 0, 0, lacking))
        counts = torch.tensor([rows * columns for rows, columns in grids])
        mask = torch.arange(config.max_tokens)[None] < counts[:, None]
        given = {"pixel_values": patches, "pixel_attention_mask": mask.int(), "spatial_shapes": torch.tensor(grids)}
        valid = mask[..., None]
    if config.kind == "siglip" and config.positions is not None:
        given["interpolate_pos_encoding"] = True
    output = tower(**given, output_hidden_states=True)
    states: Tensor = output.last_hidden_state if layer is None else output.hidden_states[layer]
    first = {"clip": 1, "dinov2": 1, "dinov3": 1 + config.options.get("num_register_tokens", 0)}.get(config.kind, 0)
    return states[:, first:] * valid


def _of_qwen(visual: Any, config: VisionConfig, strips_P4SW: Tensor) -> Tensor:
    """Qwen2-VL's merged tokens: patches in the order of the strip, one picture behind the other."""
    side = config.patch_size
    grids = [(1, rows, columns) for rows, columns in flat(strips_P4SW, config)[1]]
    found = []
    for strip, (_, rows, columns) in zip(strips_P4SW, grids, strict=True):
        patches = strip[:3, :, : rows * columns * side].unflatten(2, (-1, side)).permute(2, 0, 1, 3)
        found.append(patches[:, :, None].expand(-1, -1, 2, -1, -1).flatten(1))
    output = visual(torch.cat(found), torch.tensor(grids))
    merged = output.pooler_output.split([rows * columns // 4 for _, rows, columns in grids])
    padded: Tensor = torch.nn.utils.rnn.pad_sequence(list(merged), batch_first=True)
    return torch.nn.functional.pad(padded, (0, 0, 0, config.max_tokens - padded.shape[1]))
