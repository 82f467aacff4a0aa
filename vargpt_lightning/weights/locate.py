"""Where weights are: a path on this machine, or else something on the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from vargpt_lightning.errors import UserError

FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.jinja", "tokenizer.model")
"""What is fetched of a hub repository: weights, sizes and tokenizers; no code, and no pickles."""

_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<file>[\w./-]+))?(?:@(?P<revision>[\w./-]+))?")


def locate(where: str | Path, **options: Any) -> Path:
    """Return the path of weights that are named by a path or, when there is no such path, by a hub id.

    Args:
        where: a file or folder; OWNER/NAME, or OWNER/NAME/FILE for one file such as a `.pth`, each with @REVISION
            if need be.
        options: of huggingface_hub's downloads: token, cache_dir, force_download, local_files_only, revision.

    Raises:
        UserError: neither is there, or the hub cannot be reached.
    """
    path = Path(where).expanduser()
    if path.exists():
        return path
    named = _HUB.fullmatch(str(where))
    if named is None or str(where).startswith((".", "/", "~")):
        raise UserError(f"{where}: there is no such file or folder")
    return _fetch(str(where), named, {key: value for key, value in options.items() if value is not None})


def _fetch(where: str, named: re.Match[str], options: dict[str, Any]) -> Path:
    import httpx
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if named["revision"]:
        options["revision"] = named["revision"]
    try:
        if named["file"]:
            return Path(hf_hub_download(named["repo"], named["file"], **options))
        return Path(snapshot_download(named["repo"], allow_patterns=list(FILES), **options))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, httpx.HTTPError, OSError) as error:
        reason = " ".join(str(error).split()).split(". ")[0]
        raise UserError(f"{where}: is not a local path, and the hub does not provide it ({reason})") from error
