"""Files written in one step: a process killed at any moment leaves the old content or the new.

Every line-by-line file tolerates a torn last line. And the hashes by which files and settings are known again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vargpt_lightning.utils.errors import UserError


def write_bytes(path: Path, content: bytes) -> None:
    """Replaces a file in one step: after a kill or on a full disk the old content is still there.

    Raises UserError when the disk is full; the half-written temporary file is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"no space left on the disk while writing {path}; what was there before is kept") from error
        raise


def plain(value: Any) -> Any:
    """The value as JSON can hold it: numbers that are not finite become null, paths and tuples become plain."""
    if isinstance(value, bool) or value is None or isinstance(value, (int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if hasattr(value, "item"):
        return plain(value.item())
    return str(value)


def different(before: Any, now: Any) -> tuple[str, str]:
    """What two values differ in, for messages: of settings the keys whose values are not the same, dotted."""
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)):
        return str(before), str(now)
    old, new = _flat(before), _flat(now)
    keys = [key for key in {**old, **new} if old.get(key, _NONE) != new.get(key, _NONE)]
    texts = [[f"{key}={each[key]}" if key in each else f"no {key}" for key in keys] for each in (old, new)]
    return ", ".join(texts[0]), ", ".join(texts[1])


_NONE = object()


def _flat(tree: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {f"{before}{key}": value}
    return found


def write_json(path: Path, value: Any) -> None:
    """Writes JSON in one step; numbers that are not finite are written as null."""
    write_bytes(path, (json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Reads a JSON file; raises UserError naming the file when it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # brackets too deep, or a number of too many digits
        raise UserError(f"{path} is not readable as JSON: {error}") from error


def read_object(path: Path) -> dict[str, Any]:
    """Reads a JSON file that holds an object; raises UserError naming the file when it does not."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object")
    return value


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Appends rows, one JSON object a line, and waits until they are on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cut_torn_line(path)
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(plain(row), ensure_ascii=False) + "\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replaces a file of rows in one step."""
    write_bytes(path, "".join(json.dumps(plain(row), ensure_ascii=False) + "\n" for row in rows).encode())


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The rows of a file; a line that a kill tore apart is left out, a missing file is empty."""
    if not path.is_file():
        return []
    # not splitlines: a text may hold U+2028, U+0085 and others that it takes for the end of a line
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if line.strip()]
    with contextlib.suppress(ValueError, RecursionError):  # all lines in one call take half of the time
        rows = json.loads(f"[{','.join(lines)}]")
        if len(rows) == len(lines):
            return [row for row in rows if isinstance(row, dict)]
    rows = []
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict):
                rows.append(row)
    return rows


def cut_torn_line(path: Path) -> None:
    """Cuts off what a kill left after the last complete line, so that the next row starts on a line of its own."""
    if not path.is_file() or path.stat().st_size == 0:
        return
    with open(path, "rb+") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def settings_hash(value: Any) -> str:
    """Return 16 digits that stand for nested settings, in whatever order their keys are."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
