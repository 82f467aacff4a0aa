from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from rich.console import Console

from vargpt_lightning.callbacks import progress
from vargpt_lightning.callbacks.progress import StageProgress, duration_text, values_text


def test_durations_read_well() -> None:
    assert [duration_text(s) for s in (0, 59.6, 61, 3600 + 125)] == ["0:00", "1:00", "1:01", "1:02:05"]


def test_values_are_short() -> None:
    assert values_text({"train/image_loss": 3.14159, "lr": 5e-5}) == "image_loss 3.142  lr 5e-05"


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


def fit(monkeypatch: Any, tiny: Any, make_trainer: Any, make_loader: Any, every: float, terminal: bool = False) -> str:
    """Twelve steps of two seconds each; returns what was printed."""
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)

    class Timed(tiny):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            clock.now += 2.0
            return super().training_step(batch, batch_idx)

    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100)
    make_trainer([StageProgress("pretrain", every, console)], max_epochs=2).fit(Timed(), make_loader(6))
    return out.getvalue()


def test_without_a_terminal_a_line_comes_every_few_seconds(monkeypatch, tiny, make_trainer, make_loader) -> None:
    lines = fit(monkeypatch, tiny, make_trainer, make_loader, every=10.0).splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "[pretrain] step 5/12",
        "[pretrain] step 10/12",
        "[pretrain] step 12/12",
    ]
    assert "loss " in lines[0] and lines[0].endswith("0:14 left") and lines[2].endswith("took 0:24")


@pytest.mark.parametrize("every", [0.001, 2.0, 24.0])
def test_the_last_step_is_told_once(monkeypatch, tiny, make_trainer, make_loader, every) -> None:
    lines = fit(monkeypatch, tiny, make_trainer, make_loader, every=every).splitlines()
    steps = [line.split("  ")[0] for line in lines]
    assert len(set(steps)) == len(steps) and steps[-1] == "[pretrain] step 12/12" and "took 0:24" in lines[-1]


def test_in_a_terminal_the_line_is_redrawn(monkeypatch, tiny, make_trainer, make_loader) -> None:
    text = fit(monkeypatch, tiny, make_trainer, make_loader, every=10.0, terminal=True)
    assert "pretrain" in text and "12/12" in text and "\x1b[" in text


def test_losses_are_shown_where_the_module_names_none_for_the_bar(tiny, make_trainer, make_loader) -> None:
    class Silent(tiny):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = (self.trained(batch[0]) - batch[1]).square().mean()
            self.log_dict({"train/loss_scale_1": loss, "val/x": loss, **{f"train/{name}": loss for name in "abcde"}})
            return loss

    out = io.StringIO()
    make_trainer([StageProgress("pretrain", 1e-6, Console(file=out))]).fit(Silent(), make_loader(2))
    names = [part.split()[0] for part in out.getvalue().splitlines()[0].split("  ")[1:-1]]
    assert names == ["a", "b", "c", "d"]


def test_a_loader_without_a_length_has_the_steps_of_the_trainer(tiny, make_trainer, make_loader) -> None:
    class Endless(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Any:
            while True:
                yield from make_loader(3)

    out = io.StringIO()
    bar = StageProgress("pretrain", 1e-6, Console(file=out))
    data = torch.utils.data.DataLoader(Endless(), batch_size=None)
    make_trainer([bar], max_epochs=-1, max_steps=5).fit(tiny(), data)
    assert "step 5/5" in out.getvalue()


def test_a_disabled_bar_is_silent(monkeypatch, tiny, make_trainer, make_loader) -> None:
    out = io.StringIO()
    bar = StageProgress("pretrain", 0.001, Console(file=out))
    bar.disable()
    make_trainer([bar]).fit(tiny(), make_loader(2))
    bar.print("hello")
    assert out.getvalue() == ""


def test_an_exception_gives_the_terminal_back(tiny, make_trainer, make_loader, stop_after) -> None:
    bar = StageProgress("pretrain", console=Console(file=io.StringIO(), force_terminal=True))
    with pytest.raises(RuntimeError, match="killed"):
        make_trainer([bar, stop_after(2)]).fit(tiny(), make_loader(4))
    assert bar._live is None


def test_no_pause_is_refused() -> None:
    with pytest.raises(ValueError, match="every=0"):
        StageProgress(every=0)
