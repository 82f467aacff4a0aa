"""The files of a published model: found here or fetched from the hub, looked over, and known by their hash."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import file_sha256

REFUSED = (401, 403)
WEIGHTS = ("*.safetensors", "*.bin")
OTHERS = ("*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tokenizer_config.json")
PROCESSORS = ("processor_config.json", "preprocessor_config.json")


def locate(model: str | Path) -> Path:
    """Returns a model's folder: a local directory first, else a hub id, fetched or found in the hub's cache.

    No token is sent unless the hub refuses without one.

    Raises:
        UserError: it is neither, or there is no network.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    text = str(model)
    if folder.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", text) or text.startswith((".", "/", "~")):
        raise UserError(f"model {text!r}: expected a directory with a transformers model, or a hub id owner/name")
    return _fetch(text)


def _fetch(name: str) -> Path:
    from huggingface_hub import get_token
    from huggingface_hub.errors import HfHubHTTPError

    tokens = [False, True] if get_token() is not None else [False]
    for token in tokens:
        try:
            return _download(name, token)
        except HfHubHTTPError as error:
            status = getattr(error.response, "status_code", None)
            if status not in REFUSED or token is tokens[-1]:
                hint = "; there is no such model, or it needs `hf auth login`" if status in (*REFUSED, 404) else ""
                raise UserError(
                    f"model {name!r}: no such directory here, and the hub answered {status}{hint}"
                ) from error
    raise AssertionError("the last refusal is raised")


def _download(name: str, token: bool) -> Path:
    """Safetensors where there are some, else the older kind of file; a model may have both, twice as large."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        files = HfApi().list_repo_files(name, token=token)
        weights = WEIGHTS[0] if any(file.endswith(".safetensors") for file in files) else WEIGHTS[1]
        patterns = [weights, *OTHERS]
        return Path(snapshot_download(name, allow_patterns=patterns, token=token))
    except HfHubHTTPError:
        raise
    except Exception as error:  # without a network every layer below has an error of its own
        try:
            return Path(snapshot_download(name, local_files_only=True))
        except Exception:
            raise UserError(
                f"model {name!r}: no such directory here, not in the hub's cache, and the hub cannot be reached "
                f"({first_line(error)})"
            ) from error


def check_files(folder: Path) -> None:
    """Refuses a folder in which a part of the model is missing, all missing parts in one message.

    Raises:
        UserError: there is no configuration, tokenizer, image processor or weights, or a shard of them is missing.
    """
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    if not any((folder / name).is_file() for name in TOKENIZERS):
        missing.append(f"a tokenizer ({' or '.join(TOKENIZERS[:2])})")
    if not any((folder / name).is_file() for name in PROCESSORS):
        missing.append(" or ".join(PROCESSORS))
    missing += _missing_weights(folder)
    if missing:
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:12]) or "nothing"
        raise UserError(f"model {folder}: missing {'; '.join(missing)}. There is {there}")


def _missing_weights(folder: Path) -> list[str]:
    for index in sorted(folder.glob("*.index.json")):
        try:
            shards = set(json.loads(index.read_text())["weight_map"].values())
        except (ValueError, KeyError, AttributeError) as error:
            raise UserError(f"{index} is no index of weights: {first_line(error)}") from error
        return sorted(str(shard) for shard in shards if not (folder / str(shard)).is_file())
    found = any(next(folder.glob(pattern), None) for pattern in WEIGHTS)
    return [] if found else [f"weights ({' or '.join(WEIGHTS)})"]


def files_digest(folder: Path) -> str:
    """A hash of all that a model's outputs depend on: names and contents of weights, tokenizer, processor, settings."""
    total = hashlib.sha256()
    for path in sorted(_model_files(folder), key=lambda path: path.name):
        total.update(f"{path.name}\0{_content_hash(path)}\0".encode())
    return total.hexdigest()[:32]


def _model_files(folder: Path) -> Iterable[Path]:
    weights = WEIGHTS[:1] if next(folder.glob(WEIGHTS[0]), None) else WEIGHTS[1:]
    return (path for pattern in (*weights, *OTHERS) for path in folder.glob(pattern) if path.is_file())


def _content_hash(path: Path) -> str:
    # The hub's cache names large files by their SHA-256: nothing of gigabytes needs to be read for it.
    if path.is_symlink() and re.fullmatch(r"[0-9a-f]{64}", name := path.resolve().name):
        return name
    return file_sha256(path)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its kind where it has none."""
    lines: list[Any] = str(error).strip().splitlines()
    return str(lines[0])[:300] if lines else type(error).__name__
