"""Kernels of this processor are right, and a broken one is found."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from vargpt_lightning.doctor.findings import Finding, examine
from vargpt_lightning.doctor.kernels import kernel_checks
from vargpt_lightning.models.language import quantization

CPU = torch.device("cpu")


def found(*names: str) -> dict[str, Finding]:
    checks = (check for check in kernel_checks(CPU) if not names or any(name in check.name for name in names))
    return {finding.name: finding for finding in map(examine, checks)}


def test_nothing_is_wrong_with_this_processor() -> None:
    each = found()
    assert {name: finding.said for name, finding in each.items() if finding.status == "failed"} == {}
    assert each["FlexAttention, backward"].status == each["SDPA, cuDNN"].status == "not here"
    assert len(each) == 13 and "masked off by" in each["SDPA as it is called"].said


def test_a_kernel_that_ignores_the_mask_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v, attn_mask=None: original(q, k, v))
    said = {name: each for name, each in found("SDPA").items() if each.status == "failed"}
    assert {"SDPA as it is called", "SDPA, mathematics", "SDPA, flash"} <= said.keys()
    assert "attention, float32, masked: off by" in said["SDPA as it is called"].said


def test_a_kernel_with_wrong_gradients_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original = F.scaled_dot_product_attention

    def half(q: Any, k: Any, v: Any, **more: Any) -> torch.Tensor:
        return original(q, k, (v + v.detach()) / 2, **more)

    monkeypatch.setattr(F, "scaled_dot_product_attention", half)
    assert "the gradient of v is off" in found("as it is called")["SDPA as it is called"].said


def test_a_kernel_that_crashes_or_gives_another_type_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*arguments: Any, **more: Any) -> torch.Tensor:
        raise RuntimeError("CUDA error: no kernel image is available\nfor execution on the device")

    monkeypatch.setattr(F, "scaled_dot_product_attention", crash)
    (finding,) = found("as it is called").values()
    assert finding.status == "failed" and finding.said.startswith("RuntimeError: CUDA error: no kernel image is")
    monkeypatch.undo()
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: torch.mm(a.bfloat16(), b.bfloat16()))
    assert "the result is bfloat16, expected float32" in found("product, float32")["matrix product, float32"].said


def test_low_bits_that_are_scaled_wrongly_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("bitsandbytes")
    original = quantization._unpack
    monkeypatch.setattr(quantization, "_unpack", lambda *arguments: 1.3 * original(*arguments))
    assert "of the output; expected at most" in found("4 bits")["bitsandbytes, 4 bits"].said
