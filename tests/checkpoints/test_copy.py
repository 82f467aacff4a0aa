"""Stored weights into models that are there, whole and sharded over two processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.checkpoints.sharded_weights import work
from tests.checkpoints.test_init_from import expected_rows, llava_state
from tests.models.cases import small_model
from tests.ranks import run_ranks, said
from vargpt_lightning.checkpoints.copy import place
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.checkpoints.open import open_checkpoint
from vargpt_lightning.utils.errors import UserError


def test_weights_are_cast_and_a_wrong_key_changes_nothing(tmp_path: Path) -> None:
    small_model(5).save_pretrained(tmp_path)
    state = open_checkpoint(tmp_path).state
    model = small_model(1).bfloat16()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(UserError, match=r"file: key visual_decoder\.head\.bias is missing"):
        place(model, {k: v for k, v in state.items() if k != "visual_decoder.head.bias"}, source="file")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    place(model, state)
    expected = small_model(5).state_dict()
    assert all(torch.equal(value, expected[key].to(value.dtype)) for key, value in model.state_dict().items())


def test_a_model_without_memory_is_refused(tmp_path: Path) -> None:
    small_model(5).save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    with torch.device("meta"):
        model = VARGPT(checkpoint.config)
    with pytest.raises(UserError, match=r"is on the meta device; expected memory"):
        place(model, checkpoint.state)


def test_two_processes_read_and_hold_their_parts(tmp_path: Path) -> None:
    """One start of two processes for all that needs them: load, save, columns, uneven rows, new rows, first weights."""
    small_model(5).save_pretrained(tmp_path / "ours")
    save_file(llava_state(), tmp_path / "llava.safetensors")
    assert run_ranks(2, tmp_path / "log", work, tmp_path) == [0, 0], said(tmp_path / "log", 2)
    found = [json.loads((tmp_path / f"found-{rank}.json").read_text()) for rank in range(2)]
    for each in found:
        assert each["equal"] and each["dim0"] and each["dim1"] and each["begins"]
        assert each["read"] == each["own"]
        assert each["own"] < 0.55 * each["all"]
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "saved" / name).read_bytes() == (tmp_path / "ours" / name).read_bytes()
    table, mean = expected_rows()
    for rank in range(2):
        rows = torch.load(tmp_path / f"rows-{rank}.pt", weights_only=True)
        assert torch.allclose(rows[[102, 111]], mean.expand(2, -1), atol=1e-7) and torch.equal(rows[105], table[105])
