"""An image tokenizer in bits from nothing, by the command: trained, read again, written as weights."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch

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
