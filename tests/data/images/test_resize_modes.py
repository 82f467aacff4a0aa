"""Pictures fitted as VAR, CLIP and LLaVA-1.5 do it, held against the references themselves."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as tv
from torchvision.transforms import transforms

from vargpt_lightning.data.images.picture_files import PictureError
from vargpt_lightning.data.images.pictures import PictureReader
from vargpt_lightning.data.images.resize_modes import crop_of, fit_clip, fit_llava, fit_var

SIZES = [(37, 53), (200, 31), (64, 64), (18, 18), (16, 333), (3, 5), (101, 100), (1, 1), (24, 97)]
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def noise(width: int, height: int) -> Image.Image:
    generator = np.random.default_rng([width, height])
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def var_resized(image: Image.Image, size: int) -> Image.Image:
    lanczos = transforms.InterpolationMode.LANCZOS
    resized: Image.Image = transforms.Resize(round(1.125 * size), interpolation=lanczos)(image)
    return resized


def var_evaluation(image: Image.Image, size: int) -> torch.Tensor:
    """What VAR's build_dataset makes of a picture for validation."""
    x = transforms.ToTensor()(transforms.CenterCrop((size, size))(var_resized(image, size)))
    pm1: torch.Tensor = x.add(x).add_(-1)
    return pm1


@pytest.mark.parametrize("size", [16, 17, 28])
def test_the_centre_crop_is_vars(size: int) -> None:
    for width, height in SIZES:
        image = noise(width, height)
        found = PictureReader(size, fit="var", variants=4).to_tensor(image, "k", 0)
        assert torch.equal(found, var_evaluation(image, size)), (width, height)


@pytest.mark.parametrize("flip", [False, True])
def test_random_crops_are_cut_from_vars_resized_picture(flip: bool) -> None:
    """The offsets that were taken are found again in the reference's picture, and each is as likely as the others."""
    size, image = 16, noise(37, 33)
    wide = var_resized(image, size), var_resized(tv.hflip(image), size)
    places: dict[bytes, tuple[int, int, int]] = {}
    for mirrored in range(1 + flip):
        for top in range(wide[0].height - size + 1):
            for left in range(wide[0].width - size + 1):
                cut = tv.crop(wide[mirrored], top, left, size, size)
                places[np.asarray(cut).tobytes()] = (mirrored, top, left)
    assert len(places) == 3 * 5 * (1 + flip)
    reader = PictureReader(size, fit="var", variants=10_000, flip=flip)
    counts = Counter(places[reader.pixels(image, "k", variant).tobytes()] for variant in range(1, 751))
    expected = 750 / len(places)
    chi_squared = sum((counts[place] - expected) ** 2 / expected for place in places.values())
    assert set(counts) == set(places.values()) and chi_squared < 2.2 * len(places)


def test_a_crop_follows_from_key_and_variant_alone() -> None:
    image = noise(40, 61)
    crops = [np.asarray(fit_var(image, 24, crop_of(key, 1))).tobytes() for key in "aabcdefgh"]
    assert crops[0] == crops[1] and len(set(crops)) > 3
    assert crop_of("a", 0) is None


def test_crops_are_never_mirrored_unless_asked() -> None:
    image = Image.new("RGB", (16, 16), "white")
    image.paste((255, 0, 0), (0, 0, 8, 16))
    for variant in range(1, 20):
        pixels_HWC = PictureReader(16, fit="var", variants=20, flip=False).pixels(image, "k", variant)
        assert pixels_HWC[8, 0].tolist() == [255, 0, 0] and pixels_HWC[8, 15].tolist() == [255, 255, 255]


def clip_processor(size: int) -> Any:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})


def expand_to_square(image: Image.Image) -> Image.Image:
    """LLaVA-1.5's padding, by its definition: the mean colour, the picture in the middle."""
    side = max(image.size)
    colours = np.array([int(value * 255) for value in CLIP_MEAN], dtype=np.uint8)
    square_HWC = np.broadcast_to(colours, (side, side, 3)).copy()
    left, top = (side - image.width) // 2, (side - image.height) // 2
    square_HWC[top : top + image.height, left : left + image.width] = np.asarray(image)
    return Image.fromarray(square_HWC)


@pytest.mark.parametrize("size", [16, 21])
@pytest.mark.parametrize("fit", ["clip", "llava"])
def test_pictures_for_clip_are_those_of_its_processor(fit: Any, size: int) -> None:
    reader, processor = PictureReader(size, CLIP_MEAN, CLIP_STD, fit=fit), clip_processor(size)
    for width, height in SIZES:
        image = noise(width, height)
        given = expand_to_square(image) if fit == "llava" else image
        pixels = processor(given, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
        assert np.array_equal(reader.pixels(image).transpose(2, 0, 1), pixels), (width, height)
        values = processor(given, return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(reader.to_tensor(image), values, rtol=0, atol=1e-6)


def test_a_long_line_is_padded_without_filling_the_memory() -> None:
    assert fit_llava(Image.new("RGB", (1, 60_000)), 16, CLIP_MEAN).size == (16, 16)


@pytest.mark.parametrize("fit", [fit_var, fit_clip])
def test_a_picture_too_narrow_is_told_before_memory_is_gone(fit: Any) -> None:
    with pytest.raises(PictureError, match=r"picture of 1 x 60000 pixels: .* expected at most 134,217,728"):
        fit(Image.new("RGB", (1, 60_000)), 256)
