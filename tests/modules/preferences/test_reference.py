"""What is known of the reference: kept in whole parts, found again by content, the model's own before it is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tiny import tiny_stage
from tests.tiny_training import fit_stage, tiny_model
from vargpt_lightning.distributed.group import Processes
from vargpt_lightning.modules import objectives
from vargpt_lightning.modules.base import Batch
from vargpt_lightning.modules.preferences import reference
from vargpt_lightning.modules.preferences.base import PreferenceModule
from vargpt_lightning.modules.preferences.contents import model_digest, row_keys
from vargpt_lightning.modules.preferences.reference import ReferenceValues
from vargpt_lightning.training.data.stage_data import StageData
from vargpt_lightning.utils.errors import UserError


class Likelier(PreferenceModule):
    """Trains drawings to be likelier than under the reference, and keeps what it has compared."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def scores(self, found: Any) -> Tensor:
        return found.of_drawings()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        _, now_B, then_B = self.compared(self.rows(batch))
        self.seen.append((now_B.detach(), then_B))
        return self.part_of_step(batch, -(now_B - then_B).mean(), now_B[:0].sum())

    def validation_step(self, batch: Batch, batch_idx: int) -> None: ...


@pytest.fixture
def likelier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(objectives.OBJECTIVES, "generation", Likelier)


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def test_values_are_found_again_whoever_wrote_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "PART_ROWS", 2)
    one, two = ReferenceValues(tmp_path, 0), ReferenceValues(tmp_path, 1)
    one.add([key(1), key(2), key(1)], torch.tensor([0.1, -2.0, 0.1], dtype=torch.float64))
    two.add([key(3)], torch.tensor([1e-300], dtype=torch.float64))
    assert not ReferenceValues(tmp_path).missing([key(1), key(2)])
    assert ReferenceValues(tmp_path).missing([key(3)]), "it waits in the other process still"
    two.write()
    one.read()
    assert one.of([key(3), key(1), key(2)]).tolist() == [1e-300, 0.1, -2.0] and len(one) == 3
    with pytest.raises(UserError, match=r"no log-probability under the reference .* --from"):
        one.of([key(4)])


def test_a_part_that_is_cut_off_is_named(tmp_path: Path) -> None:
    values = ReferenceValues(tmp_path)
    values.add([key(1)], torch.ones(1))
    values.write()
    (part,) = tmp_path.iterdir()
    part.write_bytes(part.read_bytes()[:-3])
    with pytest.raises(UserError, match=f"{part.name}: cannot be read"):
        ReferenceValues(tmp_path)


def test_rows_are_known_by_what_the_model_is_given(stage_data: StageData) -> None:
    stage, model = tiny_stage("draw"), tiny_model()
    stage_data.prepare(model, stage)
    batch = next(iter(stage_data.train_loader(stage, 1, 0)))
    keys = row_keys(batch, model)
    assert len(set(keys)) == 3
    wider = {name: torch.nn.functional.pad(batch[name], (0, 4)) for name in ("input_ids", "attention_mask")}
    wider["labels"] = torch.nn.functional.pad(batch["labels"], (0, 4), value=-100)
    assert row_keys({**batch, **wider}, model) == keys, "padding is nothing"
    rolled = {**batch, "drawn_indices": batch["drawn_indices"].roll(1, 0)}
    assert not set(row_keys(rolled, model)) & set(keys)
    hidden = row_keys(batch, model, torch.tensor([[True], [False], [True]]))
    assert not set(hidden) & set(keys)


def test_weights_and_settings_name_the_reference() -> None:
    model, alone = tiny_model(), Processes()
    name = model_digest(model, alone, {"mean": False})
    assert name == model_digest(tiny_model(), alone, {"mean": False})
    assert name != model_digest(model, alone, {"mean": True})
    with torch.no_grad():
        model.visual_decoder.head.weight[0, 0] += 1e-3
    assert name != model_digest(model, alone, {"mean": False})


def test_the_reference_is_the_model_before_it_is_trained(likelier: None, stage_data: StageData) -> None:
    stage = tiny_stage("draw", steps=3, optimizer=tiny_stage("base").optimizer)
    fitted = fit_stage(stage_data, tiny_model(), stage).module
    assert isinstance(fitted, Likelier)
    (now_B, then_B), later = fitted.seen[0], fitted.seen[2]
    assert torch.equal(now_B, then_B), "nothing is trained yet, and dropout is off"
    assert not torch.equal(*later)
    model = tiny_model().eval()
    for batch, (_, then_B) in zip(stage_data.train_loader(stage, 3, 0), fitted.seen, strict=True):
        with torch.no_grad():
            wanted_B = model(batch, log_probabilities=True).log_probabilities.of_drawings()
        torch.testing.assert_close(then_B, wanted_B, rtol=1e-6, atol=1e-5)


def test_it_is_computed_once(
    likelier: None, stage_data: StageData, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = tiny_stage("draw", steps=3)
    monkeypatch.setattr(reference, "PART_ROWS", 1)
    passes, known = 0, ReferenceValues.add

    def killed(self: ReferenceValues, *arguments: Any) -> None:
        nonlocal passes
        passes += 1
        if passes == 3:
            raise RuntimeError("killed")
        known(self, *arguments)

    monkeypatch.setattr(ReferenceValues, "add", killed)
    with pytest.raises(RuntimeError, match="killed"):
        fit_stage(stage_data, tiny_model(), stage)
    fitted = fit_stage(stage_data, tiny_model(), stage).module
    assert passes == 4, "two batches before the kill, one after it"
    again = fit_stage(stage_data, tiny_model(), stage).module
    assert passes == 4
    assert isinstance(fitted, Likelier) and isinstance(again, Likelier)
    for (_, one_B), (_, two_B) in zip(fitted.seen, again.seen, strict=True):
        assert torch.equal(one_B, two_B)
    assert "log-probabilities under the reference" in capsys.readouterr().err


def test_without_a_data_module_there_is_no_reference(stage_data: StageData) -> None:
    module = Likelier(tiny_model(), tiny_stage("draw"), 1)
    batch = next(iter(stage_data.train_loader(tiny_stage("draw"), 1, 0)))
    with pytest.raises(UserError, match=r"stages\.draw\.head=generation: nothing is known of the reference"):
        module.of_reference(batch)
