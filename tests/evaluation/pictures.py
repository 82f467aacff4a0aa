"""Pictures and weights for the tests of the image metrics: small, random, in the libraries' own file formats."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from vargpt_lightning.distributed.group import Processes
from vargpt_lightning.evaluation.images.picture_lists import PictureFile


class Apart(Processes):
    """One of several processes that do not meet: what it does alone is what is tested."""

    def gather(self, value):  # type: ignore[no-untyped-def]
        return [value]

    def wait(self) -> None:
        pass


def write_pictures(folder: Path, count: int, size: int = 32, low: int = 0, seed: int = 0) -> list[PictureFile]:
    """Smooth random pictures 0.png, 1.png, ... whose colours begin at `low`."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(low, 256, (6, 6, 3), dtype=np.uint8))
        coarse.resize((size, size), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return [PictureFile(str(number), folder / f"{number}.png") for number in range(count)]


def in_library_order(files: Sequence[PictureFile]) -> list[PictureFile]:
    """torch-fidelity takes pictures sorted by path: 10.png before 2.png."""
    return sorted(files, key=lambda file: str(file.path))


def write_inception(path: Path) -> Path:
    """Random weights in torch-fidelity's format, scaled so that features differ between pictures."""
    import torch

    torch.save(_inception_state(), path)
    return path


@functools.cache
def _inception_state() -> dict[str, Any]:
    import torch
    import torch_fidelity.feature_extractor_inceptionv3 as library

    torch.manual_seed(0)
    network = library.FeatureExtractorInceptionV3
    with (
        mock.patch.object(library, "load_state_dict_from_url", lambda *_, **__: None),
        mock.patch.object(network, "load_state_dict", lambda *_: None),
    ):
        made = network("random", ["2048"])
    for module in made.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    torch.nn.init.normal_(made.fc.weight, std=0.2)
    return made.state_dict()


TINY_CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def write_open_clip(folder: Path, name: str = "tiny-clip") -> tuple[str, Path]:
    """A small random CLIP: its name, known to open_clip from here on, and a file with its weights."""
    import open_clip
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(TINY_CLIP))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    torch.save(open_clip.create_model(name).state_dict(), folder / f"{name}.pt")
    return name, folder / f"{name}.pt"


def write_transformers_clip(folder: Path) -> Path:
    """A small random CLIP of transformers with its tokenizer (letters) and image processor."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["<|startoftext|>", *letters, *(f"{letter}</w>" for letter in letters), "ab", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\na b\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=12)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**small, "vocab_size": len(words), "max_position_embeddings": 12}
    ends = {"bos_token_id": 0, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    config = CLIPConfig(
        text_config={**text, **ends}, vision_config={**small, "image_size": 32, "patch_size": 16}, projection_dim=8
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    crop = {"height": 32, "width": 32}
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=crop)
    CLIPProcessor(images, tokenizer).save_pretrained(folder)
    return folder
