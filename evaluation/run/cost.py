"""What a batch of drawings takes: seconds, and the memory on top of what the process held before.

It is kept apart from the other figures (`costs.jsonl`, a row a drawing, and `cost.json`): those follow from the seed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from vargpt_lightning.evaluation.base.benchmark import mean_interval
from vargpt_lightning.utils.files import read_jsonl, write_json

COSTS, COST = "costs.jsonl", "cost.json"
STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class BatchCost:
    """Measures the block that it is the context of; afterwards `seconds`, and `memory` in bytes or None.

    Memory is the largest that torch held on a GPU where it uses one, else the largest resident size of the process
    (Linux keeps it, and forgets it on request), less what was held when the block began. What an earlier block has left
    to the allocator is not counted again, so that the first batch of a process says most.
    """

    seconds: float = 0.0
    memory: int | None = None

    def __enter__(self) -> BatchCost:
        self._cuda = _cuda()
        self._before = self._cuda.memory_allocated() if self._cuda else psutil.Process().memory_info().rss
        if self._cuda:
            self._cuda.reset_peak_memory_stats()
        self._forgot = self._cuda is None and _forget_peak()
        self._began = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._cuda:
            self._cuda.synchronize()
        self.seconds = time.perf_counter() - self._began
        peak = self._cuda.max_memory_allocated() if self._cuda else _peak() if self._forgot else None
        self.memory = None if peak is None else max(0, int(peak) - self._before)

    def rows(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return a row for each drawing of the batch, with its share of seconds and bytes."""
        memory = None if self.memory is None else self.memory // len(ids)
        return [{"id": id_, "seconds": self.seconds / len(ids), "memory": memory} for id_ in ids]


def write_cost(out: Path, drawings: Sequence[Mapping[str, Any]]) -> None:
    """Write `cost.json` of an evaluation's folder: mean seconds of a picture with their 95 % interval, most megabytes.

    Of a drawing that was made anew the last row counts.
    """
    ids = {row["id"] for row in drawings}
    rows = {row["id"]: row for row in read_jsonl(out / COSTS) if row["id"] in ids}.values()
    seconds = [float(row["seconds"]) for row in rows]
    memory = [int(row["memory"]) for row in rows if row["memory"] is not None]
    if not seconds:
        return
    low, high = mean_interval(seconds)
    found: dict[str, Any] = {"pictures": len(seconds), "seconds": sum(seconds) / len(seconds), "low": low, "high": high}
    write_json(out / COST, found | ({"megabytes": max(memory) / 1e6} if memory else {}))


def _cuda() -> Any:
    """torch.cuda where it is in use; who measures imports no torch."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized() else None


def _forget_peak() -> bool:
    try:
        FORGET.write_text("5", "ascii")
    except OSError:
        return False
    return True


def _peak() -> int | None:
    for line in STATUS.read_text("ascii", "replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None
