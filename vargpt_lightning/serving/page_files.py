"""The pictures of the page: each in a file of ours, under a name that we gave, for the one browser it belongs to."""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vargpt_lightning.serving.limits import RefusedRequestError

HOUR = 3600.0
MOST_BYTES = 2**30


@dataclass(frozen=True)
class _Entry:
    owner: str
    size: int
    made: float


class PageFiles:
    """Pictures by name. Nothing else on this machine can be named: a name is looked up here and never taken as a path.

    Args:
        seconds: after which a picture is forgotten.
        most_bytes: of all together; the oldest make room.
        clock: seconds; another one in tests.
    """

    def __init__(
        self, seconds: float = HOUR, most_bytes: int = MOST_BYTES, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.seconds, self.most_bytes, self.clock = seconds, most_bytes, clock
        # Removed with the process, and open to this user alone.
        self._folder = tempfile.TemporaryDirectory(prefix="vargpt-page-", ignore_cleanup_errors=True)
        self.folder = Path(self._folder.name).resolve()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def add(self, owner: str, data: bytes, suffix: str = ".png") -> str:
        """Keep a picture for an owner and return its name."""
        name = secrets.token_urlsafe(24) + suffix
        with self._lock:
            self._forget(len(data))
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
            with os.fdopen(os.open(self.folder / name, flags, 0o600), "wb") as file:
                file.write(data)
            self._entries[name] = _Entry(owner, len(data), self.clock())
            self._bytes += len(data)
        return name

    def path(self, owner: str, name: str) -> Path:
        """Return where a picture lies.

        Raises:
            RefusedRequestError: (404) this owner has none of that name.
        """
        entry = self._entries.get(name)
        if entry is not None and secrets.compare_digest(entry.owner.encode(), owner.encode()):
            path = self.folder / name
            try:
                if stat.S_ISREG(path.lstat().st_mode):
                    return path
            except OSError:
                pass
        raise RefusedRequestError("there is no such picture of yours; upload it again", 404, "file_not_found")

    def read(self, owner: str, name: str) -> bytes:
        """Return a picture's bytes.

        Raises:
            RefusedRequestError: (404) this owner has none of that name.
        """
        return self.path(owner, name).read_bytes()

    def _forget(self, wanted: int) -> None:
        now = self.clock()
        while self._entries:
            name, entry = next(iter(self._entries.items()))
            if entry.made > now - self.seconds and self._bytes + wanted <= self.most_bytes:
                return
            del self._entries[name]
            self._bytes -= entry.size
            (self.folder / name).unlink(missing_ok=True)
