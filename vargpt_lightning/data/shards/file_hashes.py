"""SHA-256 of large input files, computed once: kept by path, size and time in the folder of prepared data."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vargpt_lightning.data.shards.format import cache_root
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import file_sha256

_THREADS = 4
_KEEP_FROM = 2**20  # bytes; smaller files are read as fast as they are looked up


def file_hashes(files: Sequence[Path], root: Path | None = None) -> list[str]:
    """Return the hashes of files, in their order; raises UserError naming one that cannot be read.

    A file whose size and time of change are those of before is not read again.
    """
    known = _known(root) if any(file.stat().st_size >= _KEEP_FROM for file in files if file.is_file()) else None
    try:
        keys = [_key(file) for file in files]
        found = [None if known is None else _look_up(known, key) for key in keys]
        missing = [place for place, value in enumerate(found) if value is None]
        with ThreadPoolExecutor(_THREADS) as pool:  # hashing lets other threads run
            for place, value in zip(missing, pool.map(file_sha256, (files[place] for place in missing)), strict=True):
                found[place] = value
                if known is not None and keys[place][1] >= _KEEP_FROM:
                    _keep(known, keys[place], value)
        return [str(value) for value in found]
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror or error})") from error
    finally:
        if known is not None:
            known.close()


_Key = tuple[str, int, int]


def _key(file: Path) -> _Key:
    about = file.stat()
    return str(file.resolve()), about.st_size, about.st_mtime_ns


def _known(root: Path | None) -> sqlite3.Connection | None:
    """The hashes of before; None where there is no place to keep any."""
    path = (root or cache_root()) / "hashes.sqlite"
    with contextlib.suppress(OSError, sqlite3.Error):
        path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(path, timeout=30)
        with database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS hashes (path TEXT PRIMARY KEY, size INTEGER, time INTEGER, sha256 TEXT)"
            )
        return database
    return None


def _look_up(known: sqlite3.Connection, key: _Key) -> str | None:
    with contextlib.suppress(sqlite3.Error):
        row = known.execute("SELECT sha256 FROM hashes WHERE path = ? AND size = ? AND time = ?", key).fetchone()
        return None if row is None else str(row[0])
    return None


def _keep(known: sqlite3.Connection, key: _Key, value: str) -> None:
    with contextlib.suppress(sqlite3.Error), known:
        known.execute("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?)", (*key, value))


def listing_hash(folder: Path) -> dict[str, int | str]:
    """Return how many files a folder has, their bytes, and a hash of their names and sizes, not of what they hold."""
    digest, count, total = hashlib.sha256(), 0, 0
    for name, size in sorted(_listing(folder)):
        digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
        count, total = count + 1, total + size
    return {"files": count, "bytes": total, "listing_sha256": digest.hexdigest()}


def _listing(folder: Path) -> Iterator[tuple[str, int]]:
    for file in folder.rglob("*"):
        if file.is_file():
            yield file.relative_to(folder).as_posix(), file.stat().st_size
