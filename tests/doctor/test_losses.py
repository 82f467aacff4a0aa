"""The kept losses are those of the debug recipe, and other ones are found."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from vargpt_lightning.doctor import losses
from vargpt_lightning.doctor.findings import Fault, NotHere
from vargpt_lightning.doctor.losses import judge, kept_losses, losses_of


def test_the_kept_losses_are_the_debug_recipes(debug_run: Path) -> None:
    """The recipe of the tests' run draws at random what the doctor's does not; its first stage has nothing of that."""
    kept, found = kept_losses(), losses_of(debug_run)
    assert kept.keys() == found.keys() and kept["base"].keys() == found["base"].keys()
    for name in ("l1", "mse"):
        values = kept["tokenizer"][name]
        pairs = [sum(values[place : place + 2]) / 2 for place in range(0, len(values), 2)]  # the run logs every two
        assert found["tokenizer"][name] == pytest.approx(pairs, rel=losses.TOLERANCE["32-true"])


def test_losses_that_are_off_or_missing_are_found() -> None:
    kept = kept_losses()
    assert judge(kept, kept, 0.001).startswith("5 stages, off by 0 % at most")
    for factor, fine in ((1.0005, True), (1.002, False), (float("nan"), False)):
        other = copy.deepcopy(kept)
        other["base"]["text_loss"] = [factor * value for value in other["base"]["text_loss"]]
        if fine:
            judge(other, kept, 0.001)
        else:
            with pytest.raises(Fault, match="base: text_loss is off by"):
                judge(other, kept, 0.001)
    other = copy.deepcopy(kept)
    other["generation"]["image_loss"] = [1.005 * value for value in other["generation"]["image_loss"]]
    judge(other, kept, 0.001)  # a codebook is laid otherwise by a rounding
    del other["generation"]["image_loss"][0]
    with pytest.raises(Fault, match="generation: image_loss was logged 5 times, expected 6"):
        judge(other, kept, 0.001)


def test_a_command_that_fails_is_named_with_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Fault, match=r"--trainer.presicion 1 ends with 2: vargpt: error: .*precision"):
        losses.fit(tmp_path, "--trainer.presicion", "1")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("RANK", "3")
    assert not {"SLURM_NTASKS", "RANK"} & losses.own_environment().keys() and "PATH" in losses.own_environment()
    monkeypatch.setattr(losses, "RECIPE", tmp_path / "none.yaml")
    with pytest.raises(NotHere, match="comes with a checkout"):
        losses.fit(tmp_path)
