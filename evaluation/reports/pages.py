"""Pages from the templates of this folder, written in one step; everything that comes from outside is escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vargpt_lightning.utils.files import write_bytes


class Pages:
    """Renders templates into a folder; everything that comes from outside is escaped."""

    def __init__(self, out: Path) -> None:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

        self.out = out
        self.environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def write(self, name: str, template: str, **content: Any) -> Path:
        text = self.environment.get_template(template).render(**content)
        write_bytes(self.out / name, text.encode("utf-8", "replace"))
        return self.out / name
