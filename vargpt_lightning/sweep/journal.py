"""Optuna's journal of a study in a file that a full disk does not spoil."""

from __future__ import annotations

import errno
import json
import os
from typing import Any

from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import get_lock_file

from vargpt_lightning.utils.errors import UserError


class WholeLines(JournalFileBackend):
    """Appends whole lines or none.

    Optuna passes a torn last line over, and the next row is written behind it on the same line, which then can never be
    read. Here the torn line, of a kill or a full disk, is cut off first, while the lock is held.
    """

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append rows.

        Raises:
            UserError: the disk is full; the journal is as before.
        """
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        with get_lock_file(self._lock), open(self._file_path, "rb+") as file:
            whole = _whole(file)
            file.truncate(whole)
            file.seek(whole)
            try:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            except OSError as error:
                os.ftruncate(file.fileno(), whole)
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise UserError(f"no space left on the disk while writing {self._file_path}") from error
                raise


def _whole(file: Any, block: int = 65_536) -> int:
    """The length of a file up to the end of its last whole line."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - block)
        file.seek(start)
        place = file.read(end - start).rfind(b"\n")
        if place >= 0:
            return int(start + place + 1)
        end = start
    return 0
