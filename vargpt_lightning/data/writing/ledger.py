"""The manifest of requests to a service: written before a request is sent and after it came back.

One JSON object a line, each on the disk before anything follows from it. `event` is one of
    sent        it is about to be sent: from here on it may be paid for
    answered    it was answered (and paid for): output, finish, tokens
    refused     the service turned it down (HTTP 400, 413, 422): not paid for, and not asked again
    released    it was not done (HTTP 429, 5xx, no connection): not paid for, may be sent again
    unanswered  it was sent, and nothing usable came back: whether it was paid for is not known
A process that is killed leaves requests that were sent and have no outcome: these count as unanswered.

Lines rather than SQLite: people read and mend them, and a kill damages the last one at most. The file is its own lock
(flock), so that no second one lies beside it.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from vargpt_lightning.runs.folder import now
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import cut_torn_line

SENT, ANSWERED, REFUSED, RELEASED, UNANSWERED = "sent", "answered", "refused", "released", "unanswered"
TOKENS = ("prompt_tokens", "completion_tokens")


class Ledger:
    """The manifest, open for one process; use it as a context. Memory: some hundred bytes a request.

    `requests` counts what was paid for or may have been, `tokens` what these took.

    Raises:
        UserError: another process has it open, or a line is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.requests = 0
        self.tokens: Counter[str] = Counter()
        self._state: dict[str, tuple[str, int]] = {}
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "ab+")  # noqa: SIM115 (closed by close)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise UserError(f"{path}: another process is writing here; expected one at a time") from error
        try:
            cut_torn_line(path)
            self._read()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets other processes have it."""
        self._file.close()

    def state(self, key: str) -> str:
        """The last event of a request: "" when it was never sent; one that was sent and has no outcome is
        unanswered."""
        with self._lock:
            event = self._state.get(key, ("", 0))[0]
        return UNANSWERED if event == SENT else event

    def row(self, key: str) -> dict[str, Any]:
        """The request's last row."""
        with self._lock:
            place = self._state[key][1]
            self._file.seek(place)
            return dict(json.loads(self._file.readline()))

    def write(self, event: str, row: Mapping[str, Any]) -> None:
        """Adds a row of a request, `key` among its fields, and waits until it is on the disk."""
        line = json.dumps({"event": event, **row, "time": now()}, ensure_ascii=False, allow_nan=False) + "\n"
        data = line.encode("utf-8", "replace")
        with self._lock:
            place = self._file.seek(0, os.SEEK_END)
            self._file.write(data)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._take(event, row, place)

    def counts(self) -> dict[str, int]:
        """Requests by their last event, and tokens."""
        with self._lock:
            events = Counter(UNANSWERED if event == SENT else event for event, _ in self._state.values())
            return {**{name: events[name] for name in (ANSWERED, REFUSED, RELEASED, UNANSWERED)}, **self._sums()}

    def _sums(self) -> dict[str, int]:
        return {name: self.tokens[name] for name in TOKENS}

    def _read(self) -> None:
        place = 0
        self._file.seek(0)
        for number, line in enumerate(self._file, 1):
            try:
                row = json.loads(line)
                self._take(row["event"], row, place)
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{self.path}, line {number}: damaged ({error!r}); mend or remove the line") from error
            place += len(line)

    def _take(self, event: str, row: Mapping[str, Any], place: int) -> None:
        key = str(row["key"])
        if event == SENT:
            self.requests += 1
        elif event in (REFUSED, RELEASED):
            self.requests -= 1
        elif event == ANSWERED:
            self.tokens.update({name: int(row[name]) for name in TOKENS})
        self._state[key] = (event, place)
