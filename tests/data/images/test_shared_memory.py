"""Batches' pictures in memory that workers and the training process share: right, reused, never written while held."""

from __future__ import annotations

import gc
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vargpt_lightning.data.images import shared_memory
from vargpt_lightning.data.images.shared_memory import SMALL, RingBuffer, Writer
from vargpt_lightning.data.loading.loader import StreamLoader, stream_loader
from vargpt_lightning.data.mixing.mixture import Mixture, MixtureBatchSampler, Place
from vargpt_lightning.data.mixing.spec import MixtureSpec

SIDE = 512  # a picture alone is above what goes into a message
Pair = dict[str, Any]


def picture(number: int) -> Tensor:
    return torch.full((SIDE, SIDE, 3), number, dtype=torch.uint8)


def floats(number: int) -> Tensor:
    return torch.full((SIDE, SIDE), number / 7)


def collate(examples: Sequence[Any]) -> Pair:
    numbers = [example.number for example in examples]
    stacks = {
        "levels": shared_memory.stack([picture(n) for n in numbers]),
        "features": shared_memory.stack([floats(n) for n in numbers]),
    }
    return {"ids": torch.tensor(numbers), **stacks, "samples": len(numbers)}


class Numbered:
    """What a mixture makes of a number."""

    def __init__(self, number: int, place: Place) -> None:
        self.number, self.skipped = number, 0


def loader(batches: int, workers: int, prefetch: int = 1) -> StreamLoader:
    mixture = Mixture({"numbers": range(100)}, Numbered)  # type: ignore[dict-item]
    sampler = MixtureBatchSampler(MixtureSpec({"numbers": 100}, {"numbers": 1.0}, "weights", 2), steps=batches)
    return stream_loader(mixture, sampler, collate, workers=workers, prefetch=prefetch, pin_memory=False)


def check(batch: Pair) -> None:
    for row, number in enumerate(batch["ids"].tolist()):
        assert torch.equal(batch["levels"][row], picture(number))
        assert torch.equal(batch["features"][row], floats(number))


def test_batches_are_the_same_with_workers_and_slots_are_used_again() -> None:
    plain = [batch["ids"].tolist() for batch in loader(20, 0)]
    stream = loader(20, 1)
    found, places = [], set()
    for batch in stream:
        check(batch)
        assert list(batch) == ["ids", "levels", "features", "samples"]
        found.append(batch["ids"].tolist())
        places.add(batch["levels"].data_ptr())
    del batch
    assert found == plain
    assert stream.ring is not None and len(places) <= stream.ring.each < 20
    gc.collect()
    assert stream.ring.used() == 0


def test_what_is_held_is_not_written() -> None:
    stream = loader(12, 1)
    held = list(stream)  # more than there are slots: the others come another way
    assert stream.ring is not None and len(held) > stream.ring.each == stream.ring.used()
    for batch in held:
        check(batch)
    view = held[0]["levels"][1, :2]  # part of a tensor is enough to keep it
    number = held[0]["ids"][1].item()
    del held, batch
    gc.collect()
    assert stream.ring.used() == 1
    for batch in stream:
        check(batch)
    assert torch.equal(view, picture(int(number))[:2])


def test_a_reading_that_is_broken_off_loses_no_slot() -> None:
    stream = loader(30, 1)
    for _ in range(4):
        for number, batch in enumerate(stream):
            check(batch)
            if number == 2:
                break
    del batch
    assert len(list(stream)) == 30
    gc.collect()
    assert stream.ring is not None and stream.ring.used() == 0


def lease(ring: RingBuffer, tensors: Sequence[Tensor]) -> shared_memory.Lease:
    writer = Writer(ring, 0)
    _, sent = writer.sent({"a": writer.stack(tensors), "b": 1})
    assert sent is not None
    return pickle.loads(pickle.dumps(sent))


def test_a_slot_is_free_when_its_last_tensor_is_gone() -> None:
    ring = RingBuffer(1, 1)
    got = lease(ring, [picture(1), picture(2)])
    tensor = got.tensors["a"].float()[0]  # a copy
    assert ring.used() == 1 and ring.take(0) is None
    part = got.tensors["a"][1]
    del got
    assert ring.used() == 1
    del part
    assert ring.used() == 0 and ring.take(0) == 0 and tensor[0, 0, 0] == 1


def test_small_and_too_large_tensors_go_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = RingBuffer(1, 1)
    writer = Writer(ring, 0)
    few = [torch.zeros(SMALL // 2, dtype=torch.uint8)] * 2
    assert writer.sent({"a": writer.stack(few)})[1] is None and ring.used() == 0
    monkeypatch.setattr(shared_memory, "SLOT_BYTES", SMALL)
    assert torch.equal(writer.stack([picture(1)] * 2), torch.stack([picture(1)] * 2)) and ring.used() == 0


def test_pinned_tensors_are_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "pin_memory", Tensor.clone)
    ring = RingBuffer(1, 1)
    got = torch.utils.data._utils.pin_memory.pin_memory({"x": lease(ring, [picture(3)])})["x"]
    assert ring.used() == 0 and torch.equal(got.tensors["a"][0], picture(3))


def test_a_process_that_was_not_forked_has_no_slots() -> None:
    other = pickle.loads(pickle.dumps(RingBuffer(2, 3)))
    assert other.take(1) is None
    assert torch.equal(Writer(other, 1).stack([picture(1)]), picture(1)[None])


def test_a_plain_loader_knows_nothing_of_it() -> None:
    examples = [Numbered(number, Place("", 0, 0)) for number in range(4)]
    for batch in DataLoader(examples, 2, collate_fn=collate, num_workers=1):  # type: ignore[arg-type]
        check(batch)
    assert np.all(batch["ids"].numpy() == [2, 3])


def test_pictures_made_in_their_place_are_not_copied() -> None:
    ring = RingBuffer(1, 1)
    writer = Writer(ring, 0)
    wide, tall = (SIDE, 2 * SIDE, 3), (2 * SIDE, SIDE, 3)
    places = [writer.picture(shape) for shape in (wide, tall, wide)]
    assert writer.picture((SIDE, SIDE, 3)) is None, "there are areas for two shapes"
    for number, place in enumerate(places):
        assert place is not None
        place.fill(number)
    message, sent = writer.sent({"a": writer.stack(places[::2]), "b": writer.stack(places[1:2])})  # type: ignore[list-item]
    assert message == {"a": None, "b": None} and sent is not None
    got = pickle.loads(pickle.dumps(sent)).tensors
    assert torch.equal(got["a"], torch.stack([torch.full(wide, n, dtype=torch.uint8) for n in (0, 2)]))
    assert torch.equal(got["b"], torch.full((1, *tall), 1, dtype=torch.uint8))
    assert got["a"].data_ptr() == places[0].ctypes.data  # type: ignore[union-attr]


def test_places_out_of_order_or_of_a_batch_that_was_given_up_are_copied() -> None:
    writer = Writer(RingBuffer(1, 1), 0)
    shape = (SIDE, SIDE, 3)
    one, two, three = (writer.picture(shape) for _ in range(3))
    for number, place in enumerate((one, two, three)):
        place.fill(number)  # type: ignore[union-attr]
    for parts in ([one, three], [two, one, three], [one, two], [one, two, np.full(shape, 2, np.uint8)]):
        wanted = torch.from_numpy(np.stack(parts))  # type: ignore[arg-type]
        found = writer.stack(parts)  # type: ignore[arg-type]
        assert torch.equal(found, wanted) and found.data_ptr() != one.ctypes.data  # type: ignore[union-attr]
    writer.begin_batch()
    again = writer.picture(shape)
    assert again is not None and again.ctypes.data == one.ctypes.data  # type: ignore[union-attr]
    assert writer.stack([again]).data_ptr() == again.ctypes.data


def test_a_small_tensor_goes_with_large_ones() -> None:
    writer = Writer(RingBuffer(1, 1), 0)
    few = writer.empty((3, 5), torch.long)
    picture_of = writer.picture((SIDE, SIDE, 3))
    many = writer.empty((3, 5), torch.bool)
    many[:] = True
    assert picture_of is not None
    message, sent = writer.sent({"few": few, "many": many, "a": writer.stack([picture_of])})
    assert message["few"] is few and message["many"] is None and sent is not None
    assert pickle.loads(pickle.dumps(sent)).tensors["many"].tolist() == [[True] * 5] * 3
