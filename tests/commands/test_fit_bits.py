"""An image tokenizer in bits from nothing, by the command: trained, read again, written as weights."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tests.tiny import write_experiment
from vargpt_lightning.cli import main
from vargpt_lightning.inference.tokenizer import load_tokenizer
from vargpt_lightning.models.tokenizer.bit_tokenizer import BitTokenizer


def test_a_tokenizer_in_bits_is_made_from_nothing(tiny_experiment: dict[str, Any], tmp_path: Path) -> None:
    tiny_experiment["stages"] = tiny_experiment["stages"][:1]
    tiny_experiment["stages"][0]["warmup_autoencoder"] = 0.0
    tokenizer = {"kind": "bits", "scales": [1, 2], "code_size": 8, "dropout": 0.0}
    tiny_experiment["model"]["tokenizer"] |= tokenizer
    file = write_experiment(tmp_path / "bits.yaml", tiny_experiment)
    assert main(["fit", "-c", str(file), "--trainer.samples", "2"]) == 0
    run = tmp_path / "runs" / "tiny"
    (metrics,) = run.glob("stages/*/metrics.csv")
    with open(metrics, encoding="utf-8") as rows:
        names = {row["name"] for row in csv.DictReader(rows)}
    wanted = {f"{split}/{term}" for split in ("train", "val") for term in ("l1", "commitment_loss", "batch_entropy")}
    assert wanted <= names
    loaded = load_tokenizer(run)
    assert isinstance(loaded.tokenizer, BitTokenizer) and loaded.settings.kind == "bits"
    x_B3HW = torch.rand(2, 3, 8, 8) * 2 - 1
    assert loaded.tokenizer.encode(x_B3HW).shape == (2, 5, 8)
    assert loaded.tokenizer.reconstruct(x_B3HW).shape == (2, 3, 8, 8)


def test_a_model_that_draws_in_bits_is_made_from_nothing(
    tiny_experiment: dict[str, Any], tmp_path: Path, script: Callable[..., list[str]]
) -> None:
    """All stages: the image tokenizer, the decoder by itself, and the decoder behind the language model."""
    tokenizer = {"kind": "bits", "scales": [1, 2], "code_size": 8, "dropout": 0.0}
    tiny_experiment["model"]["tokenizer"] |= tokenizer
    tiny_experiment["model"]["decoder"] |= {"chunks": 2, "text_rows": 4}
    tiny_experiment["stages"][0]["warmup_autoencoder"] = 0.0
    tiny_experiment["stages"][2] |= {"label_smoothing": 0.1, "self_correction": {"strength": 0.2}}
    file = write_experiment(tmp_path / "bits.yaml", tiny_experiment)
    script("*")
    assert main(["fit", "-c", str(file)]) == 0
    run = tmp_path / "runs" / "tiny"
    with open(next(run.glob("stages/*draw/metrics.csv")), encoding="utf-8") as rows:
        losses = [float(row["value"]) for row in csv.DictReader(rows) if row["name"] == "train/image_loss"]
    assert losses and all(0 < loss < 2 for loss in losses)
    drawn = []
    for number, seed in enumerate("112"):
        out = tmp_path / str(number)
        assert main(["generate", str(run), "Draw a red-disc.", "--out", str(out), "--seed", seed]) == 0
        with Image.open(next(out.iterdir())) as picture:
            assert picture.size == (8, 8)
            drawn.append(picture.tobytes())
    assert drawn[0] == drawn[1] != drawn[2]
