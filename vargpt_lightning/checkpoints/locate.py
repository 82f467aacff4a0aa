"""Where weights are: a path on this machine, or else something on the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from vargpt_lightning.utils.errors import UserError, near_path, similar_path

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
    named = check_place(where)
    if named is None:
        return Path(where).expanduser()
    return _fetch(str(where), named, {key: value for key, value in options.items() if value is not None})


def check_place(where: str | Path) -> re.Match[str] | None:
    """Return the parts of a hub id, None for a path that is there; the hub is not asked.

    Raises:
        UserError: it is neither, or it is a misspelt path of a run: its folder is here, with a run of a similar name.
    """
    path = Path(where).expanduser()
    if path.exists():
        return None
    named = _HUB.fullmatch(str(where))
    similar = similar_path(path)
    if named is None or str(where).startswith((".", "/", "~")) or (similar and (similar / "run.json").is_file()):
        raise UserError(f"{where}: there is no such file or folder{near_path(path)}")
    return named


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
        raise UserError(
            f"{where}: is not a local path, and the hub does not provide it ({reason}){near_path(where)}"
        ) from error
