"""Writes the README's table of figures, between its two comments, from runs of the default experiment.

`python -m tests.docs.readme_figures runs/seed0 runs/seed1 runs/seed2` writes it; `--print` only shows it. Ranges are
over the runs that are named.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from vargpt_lightning.evaluation.reports.summary import markdown
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.utils.errors import UserError

README = Path(__file__).resolve().parents[2] / "README.md"
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def between(text: str) -> str:
    """The part of a page between the two comments, without them.

    Raises:
        UserError: one of them is missing.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise UserError(f"the page lacks {BEGIN} and, behind it, {END}; expected each once, where the figures go")
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)]


def placed(text: str, figures: str) -> str:
    """The page with these figures between its comments."""
    old = between(text)
    return text.replace(f"{BEGIN}{old}{END}", f"{BEGIN}\n{figures}\n{END}")


def main() -> None:
    """Read the runs, and write or show the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("runs", nargs="+", type=Path, help="finished runs, one a seed")
    arguments.add_argument("--print", action="store_true", help="show it, and write nothing")
    given = arguments.parse_args()
    runs = [RunFolder(run) for run in given.runs]
    figures = markdown([run.metrics() for run in runs], [run.record["seed"] for run in runs])
    if given.print:
        print(figures)
    else:
        README.write_text(placed(README.read_text("utf-8"), figures), "utf-8")


if __name__ == "__main__":
    main()
