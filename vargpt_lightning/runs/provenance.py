"""Where a run comes from: versions, commit, machine, process. Imports no torch."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

RECORDED_PACKAGES = ("vargpt-lightning", "torch", "lightning", "transformers", "tokenizers", "torchvision", "numpy")


def package_versions(names: Iterable[str] = RECORDED_PACKAGES) -> dict[str, str]:
    """The installed versions, read without importing the packages; Python's own comes first."""
    from importlib import metadata  # a third of what listing runs would import

    versions = {"python": platform.python_version()}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def source_commit() -> str | None:
    """The commit of the checkout that this code runs from, with `+changes` when files differ; None outside of one."""
    folder = Path(__file__).resolve().parent
    try:
        root = Path(_git(folder, "rev-parse", "--show-toplevel"))
        # An installed copy may lie inside somebody else's repository (a virtual environment in a project).
        if root / "vargpt_lightning" != folder:
            return None
        return _git(folder, "rev-parse", "HEAD") + ("+changes" if _git(folder, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def machine() -> dict[str, Any]:
    """What the run had to work with: processors it may use, memory in bytes, platform."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts: dict[str, Any] = {"cores": cores, "platform": f"{platform.system()} {platform.machine()}"}
    with contextlib.suppress(ImportError):
        import psutil

        facts["memory"] = psutil.virtual_memory().total
    return facts


def is_alive(pid: Any, started: Any) -> bool:
    """Whether the process of this machine that began a run at `started` (ISO 8601) still is there."""
    if not isinstance(pid, int) or sys.platform == "win32":
        return True  # nothing known: believe the record
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    with contextlib.suppress(Exception):
        import psutil

        process = psutil.Process(pid)
        # An orphan stays in the table after its death where nobody collects it, as in a container without an init.
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        # Process numbers are given again: a process younger than the run is another one.
        return process.create_time() <= datetime.fromisoformat(str(started)).timestamp() + 1
    return True


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
