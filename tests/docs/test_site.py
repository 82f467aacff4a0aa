"""The pages as a site: it builds, and a broken link stops it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.docs.markdown import ROOT


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    # Not --quiet: it hides warnings from --strict too.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", "site"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def test_the_site_builds_and_broken_links_stop_it(tmp_path: Path) -> None:
    for name in ("docs", "notebooks", "experiments"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("mkdocs.yml", "README.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    done = build(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "first-steps" / "index.html").exists()
    home = (tmp_path / "site" / "index.html").read_text("utf-8")
    assert "blob/main/notebooks/README.md" in home and "fonts.googleapis" not in home
    page = tmp_path / "docs" / "model.md"
    page.write_text("# The model\n\n[a](gone.md) and [b](scale.md#no-such-heading)\n", "utf-8")
    done = build(tmp_path)
    assert done.returncode != 0 and "gone.md" in done.stderr and "no-such-heading" in done.stderr
    page.write_text("# The model\n\n[a](../missing.md)\n", "utf-8")
    done = build(tmp_path)
    assert done.returncode != 0 and "../missing.md" in done.stdout + done.stderr
