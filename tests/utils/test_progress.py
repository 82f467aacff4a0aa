"""What commands say while they work: one line at once, nothing on stdout, a moving line in a terminal."""

from __future__ import annotations

import gc
import sys

import pytest

from vargpt_lightning.utils.progress import importing, say, working


def test_a_pipe_gets_one_line_before_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    with working("loading runs/a") as step:
        assert capsys.readouterr().err == "loading runs/a ...\n"
        step.text = "more"
    say("done")
    said = capsys.readouterr()
    assert said.err == "done\n" and said.out == ""


def test_a_terminal_gets_a_line_that_moves_and_goes_away(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    print("result")
    with pytest.raises(KeyError), working("loading [a]") as step:
        step.text = "loading [b]"
        print("another")
        raise KeyError
    said = capsys.readouterr()
    assert "loading [a] ..." in said.err and "loading [b] ..." in said.err and "0:00:00" in said.err
    assert said.err.endswith("\x1b[2K"), "the line is gone"
    assert said.out == "result\nanother\n"


def test_imports_leave_the_collector_as_it_was() -> None:
    with importing():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with importing():
            pass
        assert not gc.isenabled(), "somebody else's choice"
    finally:
        gc.enable()
