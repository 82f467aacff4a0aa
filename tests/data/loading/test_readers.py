"""Batches read ahead by forked processes: in order, whoever is slow; no process dies unnoticed, or is left behind."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Iterator

import pytest
import torch

from vargpt_lightning.data.loading.readers import Readers

LARGE = 2**21  # bytes, more than a pipe holds


def fetch(task: object) -> object:
    match task:
        case "slow":
            time.sleep(0.1)
        case "wrong":
            raise ValueError("no such record")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "large":
            return bytes(LARGE)
        case "tensor":
            return {"x": torch.arange(3), "pid": os.getpid()}
    return task


def readers(plan: list[object], processes: int = 2, ahead: int = 2) -> Readers:
    return Readers(fetch, plan, processes, ahead, lambda number: None)


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if os.path.exists(f"/proc/{pid}")]


@pytest.mark.parametrize("processes", [1, 3])
def test_answers_come_in_order_again_and_again(processes: int) -> None:
    plan: list[object] = ["slow", *range(7), "slow", *range(7, 12)]
    found = readers(plan, processes)
    assert list(found) == plan
    assert list(found) == [], "it is over"
    found.restart(plan[3:])
    assert [next(found), next(found)] == plan[3:5]
    found.restart(plan)
    assert list(found) == plan


def test_no_more_is_asked_for_than_is_read_ahead() -> None:
    taken = []

    def plan() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            yield number

    found = Readers(fetch, plan(), 2, 3, lambda number: None)
    assert len(taken) == 6
    next(found)
    assert len(taken) == 7


def test_what_no_pipe_holds_blocks_nobody() -> None:
    tasks: list[object] = [b"x" * LARGE, "large", b"y" * LARGE, "large", b"z" * 2**15, "large", "large"] * 2
    assert [len(answer) for answer in readers(tasks, 1, 5)] == [
        len(task) if isinstance(task, bytes) else LARGE for task in tasks
    ]


def test_what_is_raised_comes_at_its_turn_and_the_rest_follows() -> None:
    found = readers([1, "wrong", 3], 2)
    assert next(found) == 1
    with pytest.raises(ValueError, match="no such record"):
        next(found)
    assert list(found) == [3]


def test_a_process_that_dies_is_told() -> None:
    found = readers([1, 2, "die", 4], 2)
    with pytest.raises(RuntimeError, match=r"pid \d+\) ended by itself \(signal SIGKILL\)"):
        list(found)


def test_nobody_is_left_when_it_is_gone() -> None:
    found = readers(["tensor"] * 20, 2)
    answers = [next(found), next(found)]
    pids = [answer["pid"] for answer in answers]
    assert len(set(pids)) == 2 and alive(pids) == pids
    del found
    gc.collect()
    assert alive(pids) == []
    assert all(torch.equal(answer["x"], torch.arange(3)) for answer in answers)
