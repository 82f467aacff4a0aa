"""Templates of this folder, with the style of the run reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vargpt_lightning.utils.counted import counted


def render(template: str, **content: Any) -> str:
    """Return a page; what it shows is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from vargpt_lightning.evaluation import reports

    folders = [Path(__file__).parent, *map(Path, reports.__path__)]
    environment = Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["counted"] = counted
    return environment.get_template(template).render(**content)
