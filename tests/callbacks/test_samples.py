"""Sheets come when they should, with averaged weights, and leave training as it was."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from PIL import Image

from vargpt_lightning.callbacks.ema import EMA
from vargpt_lightning.callbacks.graceful_stop import GracefulStop
from vargpt_lightning.callbacks.samples import SampleGrids
from vargpt_lightning.runs.folder import StageFolder


class Draw:
    """Draws a square, and notes what it found when it was asked."""

    def __init__(self, pictures: int = 2) -> None:
        self.pictures = pictures
        self.module: Any = None
        self.modes: list[bool] = []
        self.gradients: list[bool] = []
        self.weights: list[torch.Tensor] = []

    def __call__(self) -> list[tuple[Image.Image, str]]:
        torch.rand(7)  # drawing takes random numbers
        self.gradients.append(torch.is_grad_enabled())
        if self.module is not None:
            self.modes.append(any(part.training for part in self.module.modules()))
            self.weights.append(self.module.trained.weight.clone())
        return [(Image.new("RGB", (8, 8), "red"), "a square")] * self.pictures


@pytest.fixture
def folder(tmp_path: Path) -> StageFolder:
    return StageFolder(tmp_path / "01-one")


def names(folder: StageFolder) -> list[str]:
    return [path.name for path in folder.samples()]


@pytest.mark.parametrize(
    ("every", "steps", "expected"),
    [(0, 5, [5]), (2, 5, [2, 4, 5]), (2, 4, [2, 4]), (9, 4, [4])],
)
def test_sheets_come_every_so_many_steps_and_at_the_end_once(
    every: int, steps: int, expected: list[int], folder: StageFolder, make_trainer: Any, make_loader: Any, tiny: Any
) -> None:
    draw = Draw()
    make_trainer([SampleGrids(folder, draw, every)], max_steps=steps).fit(tiny(), make_loader())
    assert names(folder) == [f"step-{step:06d}.png" for step in expected]
    assert len(draw.gradients) == len(expected)


def test_accumulated_batches_make_one_sheet_a_step(
    folder: StageFolder, make_trainer: Any, make_loader: Any, tiny: Any
) -> None:
    draw = Draw()
    trainer = make_trainer([SampleGrids(folder, draw, every=2)], max_steps=4, accumulate_grad_batches=2)
    trainer.fit(tiny(), make_loader())
    assert names(folder) == ["step-000002.png", "step-000004.png"] and len(draw.gradients) == 2


def test_drawing_leaves_no_trace_in_training(
    folder: StageFolder, make_trainer: Any, make_loader: Any, tiny: Any
) -> None:
    plain, drawn = tiny(), tiny()
    for module, callbacks in ((plain, []), (drawn, [SampleGrids(folder, Draw(), every=1)])):
        torch.manual_seed(0)
        make_trainer(callbacks, max_steps=6).fit(module, make_loader())
    assert torch.equal(plain.trained.weight, drawn.trained.weight)


def test_the_model_is_in_eval_mode_without_gradients_and_back_after(
    folder: StageFolder, make_trainer: Any, make_loader: Any, tiny: Any
) -> None:
    draw, module = Draw(), tiny()
    draw.module = module
    module.frozen.eval()

    class After(pl.Callback):
        modes: list[tuple[bool, bool]] = []  # noqa: RUF012

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            self.modes.append((pl_module.trained.training, pl_module.frozen.training))

    after = After()
    make_trainer([SampleGrids(folder, draw, every=1), after], max_steps=2).fit(module, make_loader())
    assert draw.modes == [False, False] and draw.gradients == [False, False]
    assert set(after.modes) == {(True, False)}


def test_modes_come_back_when_drawing_fails(
    folder: StageFolder, make_trainer: Any, make_loader: Any, tiny: Any
) -> None:
    def fail() -> Any:
        raise RuntimeError("no ink")

    module = tiny()
    with pytest.raises(RuntimeError, match="no ink"):
        make_trainer([SampleGrids(folder, fail, every=1)], max_steps=2).fit(module, make_loader())
    assert module.trained.training


def test_sheets_show_the_averaged_weights(folder: StageFolder, make_trainer: Any, make_loader: Any, tiny: Any) -> None:
    draw, module = Draw(), tiny()
    draw.module = module
    average = EMA(0.9, warmup=False)
    seen: list[torch.Tensor] = []

    class Raw(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            seen.append(average.averages["trained.weight"].clone())

    make_trainer([average, Raw(), SampleGrids(folder, draw, every=1)], max_steps=3).fit(module, make_loader())
    for drawn, averaged in zip(draw.weights, seen, strict=True):
        torch.testing.assert_close(drawn, averaged)


def test_a_stopped_stage_draws_nothing_and_a_finished_one_taken_up_again_does(
    folder: StageFolder, make_trainer: Any, make_loader: Any, tiny: Any
) -> None:
    class Ask(pl.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 2:
                signal.raise_signal(signal.SIGTERM)

    stop = GracefulStop(folder.checkpoint)
    make_trainer([Ask(), SampleGrids(folder, Draw()), stop], max_steps=3).fit(tiny(), make_loader(same=True))
    assert stop.exit_code == 143 and names(folder) == []
    trainer = make_trainer([SampleGrids(folder, Draw())], max_steps=3)
    trainer.fit(tiny(), make_loader(same=True), ckpt_path=stop.saved, weights_only=True)
    assert names(folder) == ["step-000003.png"]


def test_nothing_drawn_makes_no_sheet(folder: StageFolder, make_trainer: Any, make_loader: Any, tiny: Any) -> None:
    make_trainer([SampleGrids(folder, Draw(pictures=0))], max_steps=1).fit(tiny(), make_loader())
    assert names(folder) == []


def test_a_sheet_holds_the_pictures_and_the_title(
    folder: StageFolder, make_trainer: Any, make_loader: Any, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vargpt_lightning.callbacks import samples

    given: list[Any] = []
    sheet = samples.contact_sheet
    monkeypatch.setattr(
        samples, "contact_sheet", lambda *args, **keys: given.append((args, keys)) or sheet(*args, **keys)
    )
    callbacks = [SampleGrids(folder, Draw(), title="one", note="by nobody")]
    make_trainer(callbacks, max_steps=1).fit(tiny(), make_loader())
    ((cells,), words) = given[0]
    assert [cell.caption for cell in cells] == ["a square", "a square"]
    assert words == {"title": "one · step 1", "note": "by nobody"}
    image = Image.open(folder.samples()[0])
    assert (255, 0, 0) in {colour for _, colour in image.convert("RGB").getcolors(1 << 20)}
