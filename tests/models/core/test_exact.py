"""Constants, counts and draws are the same numbers whatever type the weights have."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import vargpt_lightning
from tests.tiny import tiny_stage
from tests.tiny_training import fit_stage, tiny_model
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.inference.load import load_exported
from vargpt_lightning.models.core.shared_random import RankInvariantRng, draw
from vargpt_lightning.models.decoder.sampling import gumbel_softmax
from vargpt_lightning.models.generation.drawing import _normal
from vargpt_lightning.models.language.quantization import pack_frozen
from vargpt_lightning.modules.base import share
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.training.data.stage_data import StageData

BF16 = torch.bfloat16


def frequencies(model: VARGPT) -> Tensor:
    """As their definition has them, in 64 bits."""
    language = model.config.language
    size = language.width // language.heads
    return language.rope_theta ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)


def from_nothing(model: VARGPT) -> VARGPT:
    with torch.device("meta"):
        empty = VARGPT(model.config)
    return empty.to(BF16).to_empty(device="cpu")


def under_another_default(model: VARGPT) -> VARGPT:
    torch.set_default_dtype(BF16)
    try:
        return VARGPT(model.config)
    finally:
        torch.set_default_dtype(torch.float32)


def saved_and_loaded(folder: Path) -> Callable[[VARGPT], VARGPT]:
    def through(model: VARGPT) -> VARGPT:
        model.to(BF16).save_pretrained(folder)
        loaded = VARGPT.from_pretrained(folder)
        assert next(loaded.parameters()).dtype == BF16, "the record in 32 bits does not make it a model of mixed types"
        return loaded

    return through


WAYS: dict[str, Callable[[VARGPT], VARGPT]] = {
    "to": lambda model: model.to(BF16),
    "half": lambda model: model.half(),
    "bfloat16": lambda model: model.bfloat16(),
    "and_back": lambda model: model.to(BF16).float(),
    "double": lambda model: model.double(),
    "copied": lambda model: copy.deepcopy(model).to(BF16),
    "part": lambda model: (model.language_model.to(BF16), model)[1],
    "from_nothing": from_nothing,
    "default": under_another_default,
}


@pytest.mark.parametrize("way", [*WAYS, "saved"])
def test_rotary_frequencies_are_those_of_float32(way: str, tmp_path: Path) -> None:
    change = saved_and_loaded(tmp_path) if way == "saved" else WAYS[way]
    model = change(tiny_model())
    rotary: Any = model.language_model.model.rotary_emb
    assert rotary.inv_freq.dtype == torch.float32
    torch.testing.assert_close(rotary.inv_freq.double(), frequencies(model), rtol=3e-7, atol=0)


def test_rotary_frequencies_of_a_loaded_run(debug_run: Path, tmp_path: Path) -> None:
    run = RunFolder(debug_run)
    (tmp_path / "config.yaml").write_text(run.config_text)
    (tmp_path / "tokenizer").symlink_to(run.tokenizer)
    (tmp_path / "model.safetensors").symlink_to(run.stages()[-1].weights)
    alone = load_exported(tmp_path).model.to(BF16)
    for model in (
        vargpt_lightning.load(debug_run, dtype=BF16).model,
        VARGPT.from_pretrained(debug_run, dtype=BF16),
        alone,
    ):
        assert model.language_model.lm_head.weight.dtype == BF16
        found = model.language_model.model.rotary_emb.inv_freq
        torch.testing.assert_close(found.double(), frequencies(model), rtol=3e-7, atol=0)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "bf16-mixed"])
def test_training_in_16_bits_turns_by_the_same_phases(stage_data: StageData, precision: Any) -> None:
    model, seen = tiny_model(), []
    rotary: Any = model.language_model.model.rotary_emb
    hook = lambda module, given: seen.append((module.inv_freq.clone(), torch.get_default_dtype()))  # noqa: E731
    rotary.register_forward_pre_hook(hook)
    stage = tiny_stage("base", accumulate=1, data={"questions": 1}, decoder_alone=False)
    fit_stage(stage_data, model, stage, 2, precision=precision)
    assert len(seen) == 2
    for found, _ in seen:
        torch.testing.assert_close(found.double(), frequencies(model), rtol=3e-7, atol=0)
    if precision.endswith("true"):
        assert seen[0][1] != torch.float32, "the default type of what a pass makes is another one there"


def test_what_is_counted_or_scaled_keeps_its_type() -> None:
    model = tiny_model().to(BF16)
    quantizer = model.image_tokenizer.quantize
    assert quantizer.embedding.weight.dtype == BF16
    quantizer.train()
    features_BCHW = torch.zeros(200, model.config.tokenizer.code_size, 2, 2)
    for _ in range(2):
        quantizer(features_BCHW)
    counts = quantizer.ema_vocab_hit_SV.sum(1)
    torch.testing.assert_close(counts, torch.tensor([200.0, 152.0]))
    assert quantizer.to("meta").to(BF16).ema_vocab_hit_SV.dtype == torch.float32


def test_scales_of_weights_in_few_bits_keep_their_type() -> None:
    pytest.importorskip("bitsandbytes")
    model = tiny_model().requires_grad_(False)
    pack_frozen(model, {"language_model": 8})
    before = {name: value.clone() for name, value in model.named_buffers() if name.endswith(".scales")}
    after = dict(model.to(BF16).float().named_buffers())
    assert before and all(torch.equal(after[name], value) for name, value in before.items())


def test_draws_and_shares_do_not_follow_the_default_type() -> None:
    cpu = torch.device("cpu")
    made: dict[str, Callable[[], Tensor]] = {
        "draw": lambda: draw(2000, cpu, None),
        "row draws": lambda: RankInvariantRng(5, 2000, 5).rand(2000, cpu),
        "noise": lambda: _normal((2000,), None),
        "gumbel": lambda: gumbel_softmax(torch.zeros(1, 1, 2000, dtype=torch.float32), 1.0),
        "share": lambda: torch.stack([share(torch.tensor(n), 3001) for n in range(3001)]),  # type: ignore[misc]
    }
    for name, make in made.items():
        torch.manual_seed(0)
        usual = make()
        torch.set_default_dtype(BF16)
        try:
            torch.manual_seed(0)
            found = make()
        finally:
            torch.set_default_dtype(torch.float32)
        assert found.dtype == torch.float32 and torch.equal(found, usual), name
