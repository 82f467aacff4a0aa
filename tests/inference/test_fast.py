"""Products in few bits: close to the exact ones, in the blocks alone, and chosen by a measurement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import vargpt_lightning as vl
from tests.tiny_training import tiny_model
from vargpt_lightning.cli import main
from vargpt_lightning.inference import fast
from vargpt_lightning.inference.fast import FORMS, Form, fastest, speed_up
from vargpt_lightning.models.decoder.attention import QueryKeyValue

NEAR: dict[Form, float] = {"bfloat16": 2**-7, "int8": 0.02}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bias", [True, False])
def test_products_are_near_the_exact_ones(form: Form, bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(96, 48, bias=bias)
    for shape in ((7, 96), (2, 1, 96), (3, 5, 96)):
        x = torch.randn(shape)
        found, exact = FORMS[form](layer)(x), layer(x)
        assert found.shape == exact.shape and found.dtype == exact.dtype
        assert (found - exact).norm() < NEAR[form] * exact.norm()


@pytest.mark.parametrize("form", FORMS)
def test_a_bias_that_is_put_together_elsewhere_is_added(form: Form) -> None:
    torch.manual_seed(0)
    layer, x, bias = QueryKeyValue(64, 192, bias=False), torch.randn(2, 9, 64), torch.randn(192)
    found, exact = FORMS[form](layer)(x, bias), layer(x, bias)
    assert (found - exact).norm() < NEAR[form] * exact.norm()


@pytest.mark.parametrize("form", FORMS)
def test_blocks_alone_are_changed(form: Form) -> None:
    model = tiny_model().eval()
    assert speed_up(model, form) == form
    changed = {name for name, module in model.named_modules() if isinstance(module, FORMS[form])}  # type: ignore[arg-type]
    assert "language_model.model.layers.0.self_attn.q_proj" in changed and "visual_decoder.blocks.1.ffn.fc1" in changed
    assert all(".blocks." in name or ".layers." in name for name in changed)
    assert not any("ada_lin" in name or name.endswith("head") for name in changed)


def test_the_fastest_form_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds: dict[str, float] = {"Linear": 1.0, "BFloat16Linear": 0.9, "Int8Linear": 0.5}
    monkeypatch.setattr(fast, "_seconds", lambda layer, x: seconds[type(layer).__name__])
    assert fastest(torch.device("cpu")) == "int8"
    seconds["BFloat16Linear"] = 0.4
    assert fastest(torch.device("cpu")) == "bfloat16"
    seconds |= {"BFloat16Linear": 0.9, "Int8Linear": 0.9}
    assert fastest(torch.device("cpu")) == "float32", "a small gain is not worth the loss"
    model = tiny_model().eval()
    assert speed_up(model) == "float32" and type(model.visual_decoder.blocks[0].get_submodule("ffn.fc1")) is nn.Linear


def test_a_form_without_kernels_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(layer: nn.Linear) -> Any:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(fast, "FORMS", {"int8": broken, "bfloat16": broken})
    assert fastest(torch.device("cpu")) == "float32"


@pytest.mark.parametrize("form", FORMS)
def test_a_model_answers_and_draws_with_it(
    form: Form, finished_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(fast, "fastest", lambda device: form)
    assistant = vl.load(finished_run, fast=True)
    assert any(isinstance(module, FORMS[form]) for module in assistant.model.modules())  # type: ignore[arg-type]
    command = ["generate", str(finished_run), "Draw a box.", "--fast", "--max-tokens", "4", "--out", str(tmp_path)]
    assert main(command) == 0
    assert f"the blocks multiply in {form}" in capsys.readouterr().err


def test_compiled_drawing_gives_the_same_codes(finished_run: Path) -> None:
    """A graph for each scale, none of them broken: what dynamo takes whole any backend can compile."""
    torch._dynamo.reset()
    plain, compiled = vl.load(finished_run), vl.load(finished_run)
    fast.compile_drawing(compiled.model, backend="eager")
    seen = []
    for assistant in (plain, compiled):
        decoder, tokenizer = assistant.model.visual_decoder, assistant.model.image_tokenizer
        labels_B, stream = torch.zeros(2, dtype=torch.long), torch.Generator().manual_seed(3)
        drawing = decoder.generate(
            tokenizer, labels_B, sampling=assistant.model.sampling_settings(cfg=1.5), generator=stream
        )
        seen.append((drawing.idx_BL, tokenizer.decode(drawing.f_hat_BCHW)))
    assert torch.equal(seen[0][0], seen[1][0])
    torch.testing.assert_close(seen[0][1], seen[1][1], rtol=0, atol=1e-5)
    counts = torch._dynamo.utils.counters
    assert not counts["graph_break"] and counts["stats"]["unique_graphs"] >= compiled.model.schedule.num_scales
    torch._dynamo.reset()
