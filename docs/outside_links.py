"""A hook of MkDocs: links out of docs/ (`../README.md`) lead to the repository, since the site has docs/ alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_OUTSIDE = re.compile(r"\]\(\.\./([^()\s]+)\)")


def on_page_markdown(markdown: str, config: Any, **_: Any) -> str:
    """Return a page with links to the repository; raises ValueError where a file is missing there."""

    def absolute(match: re.Match[str]) -> str:
        target = match.group(1)
        if not (Path(config.config_file_path).parent / target.partition("#")[0]).exists():
            raise ValueError(f"../{target}: there is no such file in the repository")
        return f"]({config.repo_url}/blob/main/{target})"

    return _OUTSIDE.sub(absolute, markdown)
