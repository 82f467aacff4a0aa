"""Skipped tests are counted, and each needs an explanation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import skips

ROOT = Path(__file__).resolve().parents[1]


def test_a_reason_is_explained_or_not() -> None:
    reasons = ["there is no Chromium", "there is no GPU here", "it was red", "it was red"]
    assert skips.unexplained(reasons) == {"it was red": 2}
    assert skips.reason_of(("file.py", 3, "Skipped: it was red")) == "it was red"
    assert (
        skips.summary(reasons).startswith("skipped tests: 4 (2 x it was red; ")
        and skips.summary([]) == "skipped tests: 0"
    )


@pytest.mark.parametrize(
    ("reason", "code", "workers"), [("it was red", 1, "0"), ("it was red", 1, "1"), ("there is no GPU", 0, "0")]
)
def test_an_unexplained_skip_fails_the_run(tmp_path: Path, reason: str, code: int, workers: str) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_sessionfinish, pytest_terminal_summary\n")
    (tmp_path / "test_it.py").write_text(
        f"import pytest\n\ndef test_a():\n    pytest.skip({reason!r})\n\ndef test_b():\n    pass\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-n", workers, "--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    assert f"skipped tests: 1 (1 x {reason})" in done.stdout
    assert ("ERROR: 1 skipped without an explanation" in done.stdout) == bool(code)
