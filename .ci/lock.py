"""Write constraints.txt: the newest versions that pyproject.toml's ranges allow, one a line, for several Pythons.

    make lock                                  # for every Python of 3.11 to 3.13 that is on the PATH
    python .ci/lock.py python3.11 python3.12   # for these

Nothing is installed but pip itself in a temporary folder: pip resolves, and its report is read. Where Pythons need
different versions, lines carry a marker.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("python3.11", "python3.12", "python3.13")
OWN = {"vargpt-lightning", "pip"}
HEADER = """\
# What `make demo` and `make test` install: the newest versions that pyproject.toml's ranges allowed when `make lock`
# wrote this file. `make test NEWEST=1` tries those of today.
"""


def resolve(python: str, extras: str = "dev") -> tuple[str, dict[str, str]]:
    """Return the interpreter's version ("3.12") and what pip would install there, by normalised name."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)
        pip, report = [f"{folder}/bin/python", "-m", "pip", "--disable-pip-version-check"], f"{folder}/report.json"
        wanted = f"{ROOT}[{extras}]"
        subprocess.run([*pip, "install", "--quiet", "--dry-run", "--report", report, wanted], check=True, cwd=folder)
        found = json.loads(Path(report).read_text(encoding="utf-8"))
    version = ".".join(found["environment"]["python_full_version"].split(".")[:2])
    rows = [each["metadata"] for each in found["install"]]
    named = {re.sub(r"[-_.]+", "-", row["name"]).lower(): row["version"] for row in rows}
    return version, {name: number for name, number in named.items() if name not in OWN}


def lines(found: dict[str, dict[str, str]]) -> list[str]:
    """Return one line a package, or one a version with the Pythons that take it."""
    written = []
    for name in sorted(set().union(*found.values())):
        pythons: dict[str, list[str]] = {}
        for python, versions in found.items():
            if name in versions:
                pythons.setdefault(versions[name], []).append(python)
        for number, those in pythons.items():
            marker = " or ".join(f'python_version == "{python}"' for python in those)
            written.append(f"{name}=={number}" + (f" ; {marker}" if len(pythons) > 1 else ""))
    return written


def main(pythons: list[str]) -> None:
    """Resolve for each Python and write the file at once."""
    found = dict(resolve(python) for python in pythons)
    if not found:
        sys.exit("no Python of 3.11 to 3.13 is on the PATH; name one: python .ci/lock.py /path/to/python")
    rows = lines(found)
    text = HEADER + f"# Resolved for Python {', '.join(found)}.\n" + "".join(f"{line}\n" for line in rows)
    (ROOT / "constraints.txt.new").write_text(text, encoding="utf-8")
    os.replace(ROOT / "constraints.txt.new", ROOT / "constraints.txt")
    print(f"constraints.txt: {len(rows)} lines for Python {', '.join(found)}")


if __name__ == "__main__":
    main(sys.argv[1:] or [python for python in PYTHONS if shutil.which(python)])
