"""A package as pip leaves it in a folder of installed packages: its modules, and the folder that describes it."""

from __future__ import annotations

import base64
import hashlib
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from vargpt_lightning.utils import plugins


def install(site: Path, pyproject: str, files: Mapping[str, str]) -> None:
    """Write a pure package.

    Args:
        site: the folder of installed packages.
        pyproject: its pyproject.toml, with name, version and entry points.
        files: text by place below `site`, such as `their_package/module.py`.
    """
    project = tomllib.loads(pyproject)["project"]
    name, version = re.sub(r"[-_.]+", "_", project["name"]).lower(), project["version"]
    described = f"{name}-{version}.dist-info"
    entries = [f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in those.items())
               for group, those in project.get("entry-points", {}).items()]  # fmt: skip
    written = dict(files)
    written |= {
        f"{described}/METADATA": f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {version}\n",
        f"{described}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{described}/INSTALLER": "pip\n",
        f"{described}/entry_points.txt": "\n".join(entries),
        f"{described}/top_level.txt": "".join(f"{top}\n" for top in sorted({file.split("/")[0] for file in files})),
    }
    for place, text in written.items():
        (site / place).parent.mkdir(parents=True, exist_ok=True)
        (site / place).write_text(text, "utf-8")
    rows = [f"{place},{_digest(text)},{len(text.encode())}" for place, text in written.items()]
    (site / described / "RECORD").write_text("\n".join([*rows, f"{described}/RECORD,,", ""]), "utf-8")


def _digest(text: str) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


@contextmanager
def on_the_path(site: Path) -> Iterator[None]:
    """Inside the block a folder's packages are installed; afterwards nothing of them is left in this process."""
    plugins.forget()
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        try:
            yield
        finally:
            for name in set(sys.modules) - before:
                if str(getattr(sys.modules[name], "__file__", "")).startswith(str(site)):
                    del sys.modules[name]
    plugins.forget()
