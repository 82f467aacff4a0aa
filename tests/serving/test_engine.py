from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch

from tests.serving.conftest import asked
from vargpt_lightning.models.decoder.sampling import SamplingSettings
from vargpt_lightning.models.generation.answers import GenerationSettings
from vargpt_lightning.serving.engine import Drawn, Engine, EngineRequest, Failed, Finished, ImagePreview, TextDelta
from vargpt_lightning.serving.limits import Limits, RateLimit, RefusedRequestError


class Counts:
    def __init__(self) -> None:
        self.together: list[int] = []

    def joined(self, answers: int) -> None:
        self.together.append(answers)

    def ended(self, ticket: EngineRequest, event: Finished | Failed) -> None:
        pass


def finish(ticket: EngineRequest):
    return list(ticket.events(timeout=30))


def settings(**changes) -> GenerationSettings:
    return replace(GenerationSettings(max_new_tokens=8, max_images=1), **changes)


def test_words_and_scales_come_one_after_the_other(engine: Engine, script) -> None:
    script("Here is:*Done")
    ticket = EngineRequest(asked("Draw."), settings(max_new_tokens=40), sketches=True)
    engine.submit([ticket])
    events = finish(ticket)
    kinds = [type(event) for event in events]
    first = kinds.index(ImagePreview)
    assert kinds[first : first + 4] == [ImagePreview, ImagePreview, ImagePreview, Drawn] and kinds[-1] is Finished
    assert "".join(event.text for event in events[:first]) == "Here is:" and first > 1
    assert [event.number for event in events if isinstance(event, ImagePreview)] == [1, 2, 3]
    assert "".join(event.text for event in events[first + 4 :] if isinstance(event, TextDelta)) == "Done"
    answer = events[-1].answer
    assert answer.finished == "end" and answer.pictures[0] is events[first + 3].part
    last = events[first + 2].image
    assert last.tobytes() == answer.pictures[0].image.tobytes(), "the last scale is the picture"


def test_requests_that_arrive_together_are_one_batch_and_answered_as_alone(assistant, script) -> None:
    script("*")
    counts = Counts()
    engine = Engine(assistant, gather=0.5, observer=counts)
    try:
        tickets = [EngineRequest(asked("Draw a dog." * (seed + 1)), settings(seed=seed)) for seed in range(3)]
        tickets.append(EngineRequest(asked("Draw a dog."), settings(seed=0), row=1))
        engine.submit(tickets)
        together = [finish(ticket)[-1].answer.pictures[0].indices for ticket in tickets]
        assert counts.together == [4]
        engine.gather = 0
        for number, ticket in enumerate(tickets):
            alone = EngineRequest(ticket.conversation, ticket.settings, ticket.row)
            engine.submit([alone])
            assert torch.equal(finish(alone)[-1].answer.pictures[0].indices, together[number])
        assert not torch.equal(together[0], together[3]), "the row is part of the stream"
    finally:
        engine.stop()


def test_the_beginning_of_a_stop_waits_until_it_is_none(engine: Engine, script) -> None:
    script("a bc ab abx")
    ticket = EngineRequest(asked("Say."), settings(max_new_tokens=40, stop=("ab ", "abc")))
    engine.submit([ticket])
    events = finish(ticket)
    said = [event.text for event in events if isinstance(event, TextDelta)]
    assert "".join(said) == "a bc" == events[-1].answer.text and events[-1].answer.finished == "stop"
    script("a bc abx a")
    again = EngineRequest(asked("Say."), settings(max_new_tokens=40, stop=("ab ", "abc")))
    engine.submit([again])
    pieces = [event.text for event in finish(again) if isinstance(event, TextDelta)]
    assert "".join(pieces) == "a bc abx a" and not {piece.strip() for piece in pieces} & {"b", "ab"}


UNEQUAL = [
    SamplingSettings(),
    SamplingSettings(top_k=3, temperature=0.5),
    SamplingSettings(top_k=0, top_p=0.5, cfg=4.0, cfg_schedule="constant"),
    SamplingSettings(cfg=0.0, top_k=7, top_p=0.0),
    SamplingSettings(smooth=True, cfg=2.0),
    SamplingSettings(greedy=True),
]


def test_unequal_settings_are_one_batch_and_answered_as_alone(assistant, script) -> None:
    script("Here:*")
    counts = Counts()
    engine = Engine(assistant, gather=0.5, observer=counts)
    tickets = [
        EngineRequest(asked("Draw." * (number + 1)), settings(max_new_tokens=20 + number, seed=number, visual=visual))
        for number, visual in enumerate(UNEQUAL)
    ]
    tickets.append(EngineRequest(asked("Is it?"), settings(max_new_tokens=2, temperature=0.7)))
    try:
        engine.submit(tickets)
        together = [finish(ticket)[-1].answer for ticket in tickets]
        assert counts.together == [len(tickets)] and len(together[-1].token_ids) == 2
        engine.gather = 0
        for ticket, expected in zip(tickets, together, strict=True):
            alone = EngineRequest(ticket.conversation, ticket.settings)
            engine.submit([alone])
            answer = finish(alone)[-1].answer
            assert answer.token_ids == expected.token_ids and len(answer.pictures) == len(expected.pictures)
            for one, other in zip(answer.pictures, expected.pictures, strict=True):
                assert torch.equal(one.indices, other.indices)
    finally:
        engine.stop()


def test_a_request_joins_what_is_running_and_leaves_it_when_it_is_done(engine: Engine, script) -> None:
    script("one two three four five six seven eight nine ten", "*")
    order: list[str] = []
    begun = threading.Event()
    long = EngineRequest(asked("Count."), settings(max_new_tokens=80, max_images=0))

    def tell(event) -> None:
        if isinstance(event, TextDelta) and not begun.is_set():
            begun.set()
            engine.submit([short])
        if isinstance(event, Finished):
            order.append("long")
        long._kept.put(event)

    short = EngineRequest(asked("Draw."), settings(seed=3), row=1)
    short.tell = lambda event: (order.append(type(event).__name__), short._kept.put(event))
    long.tell = tell
    engine.submit([long])
    assert finish(long)[-1].answer.text.split()[-1] == "ten"
    drawn = finish(short)[-1].answer.pictures[0].indices
    assert order[:2] == ["Drawn", "Finished"] and order[-1] == "long", "it waits for no whole answer of another"
    alone = EngineRequest(short.conversation, short.settings, short.row)
    script("*")
    engine.submit([alone])
    assert torch.equal(finish(alone)[-1].answer.pictures[0].indices, drawn)


def test_no_more_are_answered_together_than_may(assistant, script) -> None:
    script("*", "one two three", "one")
    counts = Counts()
    engine = Engine(assistant, Limits(batch=3), gather=0.2, observer=counts)
    tickets = [EngineRequest(asked("Say."), settings(max_new_tokens=20, seed=seed)) for seed in range(10)]
    engine.submit(tickets)
    assert all(isinstance(finish(ticket)[-1], Finished) for ticket in tickets)
    engine.stop()
    assert max(counts.together) == 3 and engine.running == 0


def test_a_sampler_that_breaks_fails_its_own_request(engine: Engine, script, monkeypatch) -> None:
    from vargpt_lightning.models.decoder import sampling
    from vargpt_lightning.models.generation import row_sampling

    script("*")
    for module in (sampling, row_sampling):
        monkeypatch.setattr(module, "installed_sampler", lambda name: None if name == "default" else lambda *given: 1)
    broken = EngineRequest(asked("Draw."), settings(visual=SamplingSettings(sampler="odd")))
    fine = EngineRequest(asked("Draw."), settings())
    engine.submit([broken, fine])
    assert len(finish(fine)[-1].answer.pictures) == 1
    assert isinstance(finish(broken)[-1], Failed) and engine.running == 0


def test_a_cancelled_request_ends_and_its_neighbour_goes_on(engine: Engine, script) -> None:
    script("one two three four five", "one two three four five")
    stopped = EngineRequest(asked("Count."), settings(max_new_tokens=60))
    stopped.tell = lambda event: stopped.cancel() if isinstance(event, TextDelta) else stopped._kept.put(event)
    other = EngineRequest(asked("Count."), settings(max_new_tokens=60))
    engine.submit([stopped, other])
    assert finish(other)[-1].answer.text.strip() == "one two three four five"
    end = finish(stopped)[-1].answer
    assert end.finished == "stopped" and 0 < len(end.text) < 10


def test_a_drawing_that_nobody_waits_for_is_not_finished(engine: Engine, script) -> None:
    script("*")
    seen = []
    ticket = EngineRequest(asked("Draw."), settings(), sketches=True)

    def tell(event) -> None:
        seen.append(event)
        ticket.cancel()
        ticket._kept.put(event)

    ticket.tell = tell
    engine.submit([ticket])
    assert finish(ticket)[-1].answer.finished == "stopped"
    assert [type(event) for event in seen] == [ImagePreview, Finished]


def test_a_listener_that_breaks_ends_its_own_request(engine: Engine, script) -> None:
    script("one two three")
    broken = EngineRequest(asked("Count."), settings(), tell=lambda event: 1 / 0)
    engine.submit([broken])
    fine = EngineRequest(asked("Count."), settings())
    engine.submit([fine])
    assert isinstance(finish(fine)[-1], Finished) and broken.cancelled


def test_a_prompt_that_does_not_fit_fails_alone(engine: Engine, script) -> None:
    script("Yes")
    long, fine = EngineRequest(asked("dog " * 300), settings()), EngineRequest(asked("Is it?"), settings())
    engine.submit([long, fine])
    error = finish(long)[-1].error
    assert "context holds 192" in str(error) and isinstance(finish(fine)[-1], Finished)


def test_a_fault_fails_the_batch_and_not_the_engine(engine: Engine, script, monkeypatch) -> None:
    script("Yes")
    whole = engine.assistant.continue_all
    monkeypatch.setattr(engine.assistant, "continue_all", lambda *given: 1 / 0)
    ticket = EngineRequest(asked("Is it?"), settings())
    engine.submit([ticket])
    assert isinstance(finish(ticket)[-1].error, ZeroDivisionError)
    monkeypatch.setattr(engine.assistant, "continue_all", whole)
    again = EngineRequest(asked("Is it?"), settings())
    engine.submit([again])
    assert finish(again)[-1].answer.text.strip() == "Yes" and engine.alive


def test_a_full_queue_refuses_all_of_a_request(assistant, script, monkeypatch) -> None:
    script("Yes")
    held = threading.Event()
    engine = Engine(assistant, Limits(queue=2, batch=1), gather=0)
    whole = engine.assistant.continue_all
    monkeypatch.setattr(engine.assistant, "continue_all", lambda *given: held.wait(20) and whole(*given))
    first = EngineRequest(asked("Is it?"), settings())
    engine.submit([first])
    while engine.running == 0:
        held.wait(0.01)
    waiting = [EngineRequest(asked("Is it?"), settings()) for _ in range(2)]
    engine.submit(waiting[:1])
    with pytest.raises(RefusedRequestError, match="1 answers wait already") as refused:
        engine.submit([EngineRequest(asked("Is it?"), settings()) for _ in range(2)])
    assert refused.value.status == 503 and engine.waiting == 1
    waiting[0].cancel()
    engine.submit(waiting[1:])
    assert engine.waiting == 1, "a cancelled one leaves its place"
    held.set()
    assert finish(waiting[0])[-1].answer.finished == "stopped"
    assert isinstance(finish(waiting[1])[-1], Finished)
    engine.stop()
    with pytest.raises(RefusedRequestError, match="being stopped"):
        engine.submit([EngineRequest(asked("Is it?"), settings())])


def test_draw_begins_with_a_picture(engine: Engine) -> None:
    ticket = EngineRequest(asked("a dog"), settings(max_new_tokens=1), draw=True)
    engine.submit([ticket])
    assert len(finish(ticket)[-1].answer.pictures) == 1


def test_requests_a_minute() -> None:
    now = [0.0]
    rate = RateLimit(2, clock=lambda: now[0])
    rate.admit("a")
    now[0] = 30
    rate.admit("a")
    rate.admit("b")
    with pytest.raises(RefusedRequestError, match="2 requests a minute") as refused:
        rate.admit("a")
    assert refused.value.status == 429 and refused.value.wait == 30
    now[0] = 60.1
    rate.admit("a")


def test_memory_is_given_back_when_nobody_asks(assistant, script, monkeypatch) -> None:
    from vargpt_lightning.serving import engine as module

    script("Yes")
    returned = threading.Event()
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(module, "_return_memory", returned.set)
    engine = Engine(assistant)
    ticket = EngineRequest(asked("Is it?"), settings())
    engine.submit([ticket])
    finish(ticket)
    assert returned.wait(10) and engine.alive
    engine.stop()
