"""What tests of several folders share: one cache of prepared data, one run of the debug experiment, tiny data."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests import skips

# Tests run beside each other's subprocesses; threads that wait for one another are slower than one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure() -> None:
    gc.disable()


def pytest_collection_finish() -> None:
    """Nothing that the tests' imports have made is garbage, and it is never looked through again."""
    gc.enable()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A skipped test whose reason is not in `skips.EXPLAINED` fails the run."""
    if skips.unexplained(skipped_reasons(session.config)) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    reasons = skipped_reasons(config)
    terminalreporter.write_line(skips.summary(reasons))
    for reason, count in skips.unexplained(reasons).items():
        terminalreporter.write_line(
            f"ERROR: {count} skipped without an explanation in tests/skips.py: {reason}", red=True
        )


def skipped_reasons(config: pytest.Config) -> list[str]:
    """The reasons of all tests skipped so far; none in a worker of pytest-xdist, whose starter has them."""
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    reports = reporter.stats.get("skipped", []) if reporter else []
    return [skips.reason_of(report.longrepr) for report in reports]


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Prepared data of this session alone, made once."""
    folder = tmp_path_factory.mktemp("vargpt-cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VARGPT_CACHE", str(folder))
        patch.delenv("VARGPT_DEBUG", raising=False)
        yield folder


@pytest.fixture(autouse=True)
def logs_outlive_captures() -> Iterator[None]:
    """Logging handlers go on where the session writes once the test is over whose stream they were made with.

    Lightning makes its own when it is imported; where that is in a test, pytest closes their stream at its end, and
    each later message is a traceback.
    """
    yield
    known = [each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)]
    for logger in (logging.root, *known):
        for handler in logger.handlers:
            if isinstance(handler, logging.StreamHandler) and getattr(handler.stream, "closed", False):
                handler.stream = sys.stderr  # setStream would flush the closed one


@pytest.fixture(scope="session")
def debug_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of experiments/debug.yaml, made by one worker for all; nothing may change it."""
    from vargpt_lightning.cli import main

    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "debug-run"
    with FileLock(f"{root}.lock"):
        if not (root / "finished").exists():
            assert main(["fit", "-c", str(ROOT / "experiments" / "debug.yaml"), "--run.root", str(root)]) == 0
            (root / "finished").touch()
    return root / "debug"


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run with an untrained model; nothing may change it (see `run_copy`)."""
    from tests.untrained import write_run

    return write_run(tmp_path_factory.mktemp("runs") / "tiny").path


@pytest.fixture
def run_copy(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "tiny"))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Give the words that models write, with `*` where they draw."""
    from tests.untrained import scripted

    return scripted(monkeypatch)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The arguments of `Packed` for the tiny corpora."""
    from tests.tiny import write_corpora

    return write_corpora(tmp_path_factory.mktemp("tiny-data"))


@pytest.fixture
def tiny_experiment(tiny_data: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The tree of keys and values of the tiny experiment, to be changed at will; it runs below tmp_path."""
    from tests.tiny import tiny_tree

    return tiny_tree(tiny_data, tmp_path / "runs")


@pytest.fixture
def stage_data(tiny_data: dict[str, Any], tmp_path: Path) -> Any:
    """The tiny corpora as a run's stages see them."""
    from tests.tiny_training import tiny_stage_data

    return tiny_stage_data(tiny_data, tmp_path / "cache")
