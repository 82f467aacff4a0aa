"""A whole experiment of a few thousand weights on a dozen pictures: what training is tested with."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image, ImageDraw
from safetensors.torch import load_file

from vargpt_lightning.data.shards.format import write_source
from vargpt_lightning.data.shards.records import DRAWN, SEEN, PicturePart, Record, TextPart, Turn
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer
from vargpt_lightning.models.core.config import VARGPTConfig
from vargpt_lightning.recipe.stage import OptimizerConfig, Stage

COLOURS = ("red", "green", "blue", "yellow", "black", "white")
SHAPES = ("disc", "box")
TREE: dict[str, Any] = {
    "run": {"name": "tiny"},
    "trainer": {
        "accelerator": "cpu",
        "devices": 1,
        "log_every": 1,
        "validate": 1,
        "validation_batches": 1,
        "samples": 2,
        "checkpoint_seconds": 0,
    },
    "model": {
        "language": {"width": 32, "layers": 1, "heads": 2, "vocabulary": 300, "max_positions": 96},
        "vision": {
            "kind": "clip",
            "picture_size": 16,
            "patch_size": 8,
            "width": 16,
            "layers": 2,
            "heads": 2,
            "mlp": 32,
        },
        "tokenizer": {
            "scales": [1, 2],
            "channels": 8,
            "channel_multipliers": [1, 2, 2],
            "residual_blocks": 1,
            "code_size": 4,
            "vocabulary": 16,
            "dropout": 0.1,
        },
        "decoder": {"depth": 2, "width": 32, "heads": 2, "classes": 1, "dropout": 0.1, "drop_path": 0.1},
        "tokens": {
            "pad": 0,
            "bos": 1,
            "eos": 2,
            "image": 3,
            "image_gen_start": 4,
            "image_gen_end": 5,
            "image_gen": 6,
        },
    },
    "data": {"class_path": "Packed", "init_args": {"cache_features": True}},
    "stages": [
        {
            "name": "tokenizer",
            "head": "tokenizer",
            "train": ["image_tokenizer"],
            "data": {"pictures": 1},
            "steps": 6,
            "batch_size": 4,
            "warmup_autoencoder": 0.5,
            "flip": 0.5,
            "optimizer": {"lr": 0.003},
        },
        {
            "name": "base",
            "train": ["language_model", "vision_projector", "visual_decoder"],
            "data": {"questions": 2, "pictures": 1},
            "decoder_alone": True,
            "steps": 6,
            "batch_size": 3,
            "accumulate": 2,
            "ema": 0.5,
            "optimizer": {"lr": 0.003},
        },
        {
            "name": "draw",
            "head": "generation",
            "train": ["visual_decoder", "generation_projectors"],
            "data": {"drawings": 1},
            "steps": 4,
            "batch_size": 3,
            "optimizer": {"name": "muon", "lr": 0.003},
        },
    ],
    "evaluation": {"enabled": False},
}


def png(shape: str, colour: str) -> bytes:
    """A picture of 16 pixels on grey."""
    image = Image.new("RGB", (16, 16), "grey")
    draw = ImageDraw.Draw(image)
    (draw.ellipse if shape == "disc" else draw.rectangle)((3, 3, 12, 12), fill=colour)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def corpora() -> dict[str, list[Record]]:
    """Questions, requests to draw and pictures alone, twelve of each."""
    found: dict[str, list[Record]] = {"questions": [], "drawings": [], "pictures": []}
    for shape in SHAPES:
        for colour in COLOURS:
            name, data = f"{colour}-{shape}", png(shape, colour)
            meta = {"name": name, "category": shape, "subcategory": shape, "kind": "colour", "answer": colour}
            seen, drawn = PicturePart(SEEN, name, data), PicturePart(DRAWN, name, data)
            asked = (Turn("user", (seen, TextPart("Which colour?"))), Turn("assistant", (TextPart(colour),)))
            wanted = (Turn("user", (TextPart(f"Draw a {name}."),)), Turn("assistant", (TextPart("Here:"), drawn)))
            found["questions"].append(Record(f"{name}-q", "tiny", asked, meta))
            found["drawings"].append(Record(f"{name}-d", "tiny", wanted, meta | {"kind": "draw"}))
            found["pictures"].append(Record(f"{name}-p", "tiny", (Turn("assistant", (drawn,)),), meta))
    return found


def write_corpora(folder: Path) -> dict[str, Any]:
    """Pack the corpora and train a text tokenizer; return the arguments of `Packed`."""
    records = corpora()
    arguments: dict[str, Any] = {"train": {}, "val": {}, "tokenizer": str(folder / "tokenizer")}
    for name, members in records.items():
        write_source(members[:9], folder / f"train-{name}", split="train")
        write_source(members[9:], folder / f"val-{name}", split="val")
        arguments["train"][name] = str(folder / f"train-{name}")
        arguments["val"][name] = str(folder / f"val-{name}")
    texts = [text for members in records.values() for record in members for text in record.texts()]
    TextTokenizer.train(["USER: ASSISTANT:", *texts], 300).save(folder / "tokenizer")
    return arguments


def tiny_tree(data: dict[str, Any], root: Path) -> dict[str, Any]:
    """The experiment on packed corpora (see `write_corpora`), run below `root`."""
    tree = copy.deepcopy(TREE)
    tree["data"]["init_args"] |= copy.deepcopy(data)
    tree["run"]["root"] = str(root)
    return tree


def write_experiment(file: Path, tree: dict[str, Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(tree))
    return file


def tiny_config() -> VARGPTConfig:
    return VARGPTConfig.from_dict(copy.deepcopy(TREE["model"]))


def tiny_stage(name: str, **changes: Any) -> Stage:
    """A stage of the tiny experiment with changes."""
    (values,) = [copy.deepcopy(stage) for stage in TREE["stages"] if stage["name"] == name]
    values["optimizer"] = OptimizerConfig(**values["optimizer"])
    return Stage(**values | changes)


def stage_weights(run: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The weights that each stage ended with, by the name of the stage's folder."""
    return {file.parent.name: load_file(file) for file in sorted(run.glob("stages/*/model.safetensors"))}


def assert_same_weights(run: Path, other: Path) -> None:
    """Fail unless both runs have the same stages, with weights that are equal bit by bit."""
    one, two = stage_weights(run), stage_weights(other)
    assert list(one) == list(two)
    for stage, weights in one.items():
        assert weights.keys() == two[stage].keys()
        unequal = [name for name, value in weights.items() if not torch.equal(value, two[stage][name])]
        assert not unequal, f"{stage}: {unequal[:5]} of {len(unequal)} differ"
