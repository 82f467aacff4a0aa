"""Pictures read for SigLIP, SigLIP 2, DINOv2, DINOv3 and Qwen2-VL, held against these families' own processors."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.dinov3_vit.image_processing_dinov3_vit import DINOv3ViTImageProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

from vargpt_lightning.data.images.native_shapes import picture_of, qwen2_vl_grid
from vargpt_lightning.data.images.picture_files import PictureError
from vargpt_lightning.data.images.pictures import LevelReader, PictureReader, scale_pictures
from vargpt_lightning.utils.errors import UserError

SIZES = [
    *[(37, 53), (200, 31), (64, 64), (18, 18), (16, 333), (3, 5), (101, 100), (1, 1), (24, 97), (28, 28)],
    *[(7, 140), (56, 84), (111, 112), (255, 33), (1, 90), (90, 1), (57, 41), (29, 27), (13, 260), (140, 141)],
]
HALF, IMAGENET = ((0.5,) * 3, (0.5,) * 3), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def noise(width: int, height: int) -> Image.Image:
    generator = np.random.default_rng([width, height])
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def square_processor(fit: str, size: int) -> Any:
    if fit == "siglip":
        return SiglipImageProcessorPil(size={"height": size, "width": size})
    if fit == "dinov3":
        return DINOv3ViTImageProcessor(size={"height": size, "width": size})
    # as the published folders have it, where the size is 224
    sizes: dict[str, Any] = {"size": {"shortest_edge": round(size * 256 / 224)}}
    sizes["crop_size"] = {"height": size, "width": size}
    return BitImageProcessorPil(**sizes, image_mean=list(IMAGENET[0]), image_std=list(IMAGENET[1]))


@pytest.mark.parametrize("size", [28, 42])
@pytest.mark.parametrize("fit", ["siglip", "dinov2", "dinov3"])
def test_squares_are_those_of_the_familys_processor(fit: Any, size: int) -> None:
    reader = PictureReader(size, *(HALF if fit == "siglip" else IMAGENET), fit=fit)
    processor = square_processor(fit, size)
    for width, height in SIZES:
        image = noise(width, height)
        expected = processor(image, return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(reader.to_tensor(image), expected, rtol=0, atol=2e-6, msg=f"{width} x {height}")
        if fit == "dinov3":
            continue
        levels = processor(image, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
        assert np.array_equal(reader.pixels(image).transpose(2, 0, 1), levels), (width, height)


def patches_of(strip_4HW: Tensor, count: int) -> Tensor:
    """The first patches of a strip, (count, 3, side, side)."""
    side = strip_4HW.shape[1]
    return strip_4HW[:3].unflatten(2, (-1, side)).permute(2, 0, 1, 3)[:count]


@pytest.mark.parametrize("patch", [8, 14])
def test_naflex_patches_are_those_of_siglip_2s_processor(patch: int) -> None:
    tokens = 40
    reader = PictureReader(patch, *HALF, fit="naflex", tokens=tokens)
    processor: Any = Siglip2ImageProcessorPil(patch_size=patch, max_num_patches=tokens)
    for width, height in SIZES:
        image = noise(width, height)
        expected, found = processor(image, return_tensors="pt"), reader.to_tensor(image)
        rows, columns = expected["spatial_shapes"][0].tolist()
        assert found.shape == (4, patch, tokens * patch)
        patches_ND = patches_of(found, tokens).permute(0, 2, 3, 1).flatten(1)
        torch.testing.assert_close(patches_ND, expected["pixel_values"][0], rtol=0, atol=1e-6)
        marks = found[3, 0, ::patch].int().tolist()
        assert marks == [1 + row % 2 for row in range(rows) for _ in range(columns)] + [0] * (tokens - rows * columns)


@pytest.mark.parametrize("patch", [4, 14])
def test_qwen2_vls_patches_are_those_of_its_processor(patch: int) -> None:
    tokens = 40
    reader = PictureReader(patch, *CLIP, fit="qwen2_vl", tokens=tokens)
    area = 4 * patch**2
    processor: Any = Qwen2VLImageProcessorPil(min_pixels=4 * area, max_pixels=tokens * area, patch_size=patch)
    compared = 0
    for width, height in SIZES:
        image = noise(width, height)
        expected, found = processor(image, return_tensors="pt"), reader.to_tensor(image)
        _, rows, columns = expected["image_grid_thw"][0].tolist()
        assert found.shape == (4, patch, 4 * tokens * patch)
        if rows * columns > 4 * tokens:
            assert int((found[3] > 0).sum()) == 4 * tokens * patch**2, "a line, cut to the places that there are"
            continue
        compared += 1
        patches = patches_of(found, rows * columns)[:, :, None].expand(-1, -1, 2, -1, -1)
        torch.testing.assert_close(patches.flatten(1), expected["pixel_values"], rtol=0, atol=1e-6)
        marks = found[3, 0, :: 4 * patch].int().tolist()
        assert marks[: rows * columns // 4] == [1 + row % 2 for row in range(rows // 2) for _ in range(columns // 2)]
        assert not any(marks[rows * columns // 4 :])
    assert compared >= 18


def test_a_strip_leads_back_to_its_picture_and_through_bytes() -> None:
    buffer = io.BytesIO()
    noise(90, 40).save(buffer, "PNG")
    for fit, merge in (("naflex", 1), ("qwen2_vl", 2)):
        reader = PictureReader(8, *HALF, fit=fit, tokens=30, variants=3)  # type: ignore[arg-type]
        levels = LevelReader(reader).read(buffer.getvalue())
        assert isinstance(levels, np.ndarray) and levels.dtype == np.uint8
        shown = reader.shown(buffer.getvalue())
        assert shown.shape[0] % (8 * merge) == 0 and shown.shape[1] > shown.shape[0]
        assert np.array_equal(shown, picture_of(levels, fit))
        batch = scale_pictures({"pixel_values": torch.from_numpy(levels)[None]}, {"pixel_values": reader})
        assert torch.equal(batch["pixel_values"][0], reader.read(buffer.getvalue()))
        varied = reader.read(buffer.getvalue(), "picture", 1)
        assert torch.equal(varied[3], batch["pixel_values"][0, 3]) and not torch.equal(varied, batch["pixel_values"][0])


def test_levels_that_are_not_whole_come_scaled() -> None:
    buffer = io.BytesIO()
    noise(90, 40).save(buffer, "PNG")
    reader = PictureReader(28, *IMAGENET, fit="dinov3")
    read = LevelReader(reader).read(buffer.getvalue())
    assert isinstance(read, Tensor) and torch.equal(read, reader.read(buffer.getvalue()))
    assert scale_pictures({"pixel_values": read[None]}, {"pixel_values": reader})["pixel_values"].shape == (
        1,
        3,
        28,
        28,
    )
    assert reader.shown(buffer.getvalue()).dtype == np.uint8


def test_lines_are_refused_or_made_shorter() -> None:
    with pytest.raises(PictureError, match="picture of 1 x 300 pixels: expected at most 200 times as long as wide"):
        qwen2_vl_grid(300, 1, 14, 256)
    assert qwen2_vl_grid(200, 1, 14, 8) == (8, 1)
    with pytest.raises(UserError, match="fit 'naflex' with 0 tokens; expected 1 or more"):
        PictureReader(14, fit="naflex")
