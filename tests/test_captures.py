"""What one test leaves behind does not fail the next in the same process."""

from __future__ import annotations

import logging

import pytest

LOGGER = logging.getLogger("made.in.a.test")


def test_a_handler_is_made_while_a_stream_is_captured(capsys: pytest.CaptureFixture[str]) -> None:
    LOGGER.addHandler(logging.StreamHandler())
    LOGGER.warning("heard")
    assert "heard" in capsys.readouterr().err


def test_it_writes_without_a_traceback_in_the_next_test(capfd: pytest.CaptureFixture[str]) -> None:
    if not LOGGER.handlers:
        LOGGER.addHandler(logging.StreamHandler())  # this test alone
    try:
        assert not any(handler.stream.closed for handler in LOGGER.handlers)  # type: ignore[attr-defined]
        LOGGER.warning("heard again")
        assert "Traceback" not in capfd.readouterr().err
    finally:
        LOGGER.handlers.clear()
