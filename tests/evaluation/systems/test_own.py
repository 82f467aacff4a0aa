from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from vargpt_lightning.evaluation.base.pairs import HasProbability
from vargpt_lightning.evaluation.base.protocols import (
    AnswerRequest,
    ImageModel,
    RefusedError,
    Talk,
    TalkModel,
    TextModel,
    as_reply,
)
from vargpt_lightning.evaluation.systems.own import OwnModel, OwnSystem
from vargpt_lightning.inference.assistant import Assistant, Conversation
from vargpt_lightning.inference.load import load_run
from vargpt_lightning.models.core.config import VisionConfig
from vargpt_lightning.models.generation.generate import first_token_logits
from vargpt_lightning.utils.errors import UserError


def test_it_answers_and_draws_as_evaluation_asks(finished_run: Path, script) -> None:
    run = OwnModel(load_run(finished_run))
    assert isinstance(run, TextModel) and isinstance(run, ImageModel)
    script("Red", "Green")
    picture = Image.new("RGB", (50, 40), "red")
    said = run.answer(
        [AnswerRequest("a", "What is the main colour?", (picture,)), AnswerRequest("b", "And?", (picture,))]
    )
    assert [as_reply(one).text for one in said] == ["Red", "Green"]
    script("Here:*Done.")
    run.scales_for = frozenset([("Please draw a shamrock.", 7)])
    reply, other = map(as_reply, run.draw(["Please draw a shamrock."] * 2, [7, 8]))
    assert reply.text == "Here: Done." and [image.size for image in reply.pictures] == [(8, 8)]
    assert len(reply.progress[0]) == 3 and reply.progress[0][-1].tobytes() == reply.pictures[0].tobytes()
    assert other.pictures and other.progress == ((),)


def test_a_drawing_follows_from_its_seed_and_not_from_its_neighbours(finished_run: Path, script) -> None:
    run = OwnModel(load_run(finished_run))
    script("*")
    both = [as_reply(one).pictures[0].tobytes() for one in run.draw(["Draw a dog.", "Draw a cat."], [3, 4])]
    alone = as_reply(run.draw(["Draw a cat."], [4])[0]).pictures[0].tobytes()
    other = as_reply(run.draw(["Draw a cat."], [5])[0]).pictures[0].tobytes()
    assert both[1] == alone != other


def test_conversations_are_held_turn_by_turn(finished_run: Path, script, monkeypatch: pytest.MonkeyPatch) -> None:
    run = OwnModel(load_run(finished_run))
    assert isinstance(run, TalkModel)
    heard: list[list[int]] = []
    reply = Assistant.reply
    monkeypatch.setattr(
        Assistant,
        "reply",
        lambda self, asked, *rest: heard.append([len(one.turns) for one in asked]) or reply(self, asked, *rest),
    )
    script("*")
    talks = [Talk("a", ("Draw a dog.", "Again.", "And again."), (True,) * 3), Talk("b", ("Draw a cat.",), (True,), 4)]
    held = [[as_reply(one).pictures[0].tobytes() for one in turns] for turns in run.talk(talks)]
    assert [len(turns) for turns in held] == [3, 1]
    assert heard == [[1, 1], [3], [5]]  # what was said and drawn before is in the context
    assert len(set(held[0])) == 3
    alone = [as_reply(one).pictures[0].tobytes() for one in run.talk(talks[:1])[0]]
    assert alone == held[0]


def test_a_request_that_leaves_no_room_for_the_picture_is_refused(finished_run: Path) -> None:
    with pytest.raises(UserError, match="tokens and 23 for the answer; the model's context holds 192"):
        OwnModel(load_run(finished_run)).draw(["draw " * 35], [0])


def lively(run: Assistant) -> Assistant:
    """Weights with which an untrained model says different things, so that a batch that mixes rows up shows."""
    generator = torch.Generator().manual_seed(0)
    for weight in run.model.language_model.parameters():
        if weight.dim() > 1:
            weight.data.normal_(0, 2 * weight.shape[1] ** -0.5, generator=generator)
    return run


def sixteen() -> list[AnswerRequest]:
    """Questions of different lengths, some about one picture, some about two, some about none."""
    pictures = [Image.new("RGB", (20 + n, 40 - n), (16 * n, 255 - 16 * n, 99)) for n in range(16)]
    shown = [tuple(pictures[n : n + n % 3]) for n in range(16)]
    return [AnswerRequest(f"q{n}", "What? " + "why " * (n % 5), shown[n], 4 + n % 2) for n in range(16)]


def test_a_batch_of_sixteen_answers_as_each_question_alone(finished_run: Path) -> None:
    run = OwnModel(lively(load_run(finished_run)))
    together = [as_reply(one) for one in run.answer(sixteen())]
    alone = [as_reply(run.answer([request])[0]) for request in sixteen()]
    assert [reply.text for reply in together] == [reply.text for reply in alone]
    assert [reply.finish for reply in together] == [reply.finish for reply in alone]
    assert len({reply.text for reply in together}) > 8


def test_an_answer_is_as_long_as_its_request_allows(finished_run: Path, script) -> None:
    run = OwnModel(load_run(finished_run))
    script("Please draw a shamrock now.")
    requests = [AnswerRequest(f"q{n}", "What?", (), length) for n, length in enumerate((2, None, 5, 2))]
    replies = [as_reply(one) for one in run.answer(requests)]
    whole = run.assistant.tokenizer.encode("Please draw a shamrock now.")
    assert [len(run.assistant.tokenizer.encode(reply.text)) for reply in replies] == [2, len(whole), 5, 2]
    assert [reply.finish for reply in replies] == ["length", "stop", "length", "length"]
    assert replies[1].text == "Please draw a shamrock now."


def test_an_empty_picture_is_named(finished_run: Path) -> None:
    with pytest.raises(UserError, match=r"question 'a': picture 2 is empty: its size is \(0, 3\)"):
        OwnModel(load_run(finished_run)).answer(
            [AnswerRequest("a", "?", (Image.new("RGB", (4, 4)), Image.new("RGB", (0, 3))))]
        )


def test_questions_too_long_for_the_context_are_named_and_the_others_can_be_asked(finished_run: Path, script) -> None:
    run = OwnModel(load_run(finished_run))
    script("Yes")
    requests = [AnswerRequest(name, "why " * words, (), 4) for name, words in (("a", 5), ("b", 99), ("c", 400))]
    with pytest.raises(
        RefusedError, match=r"question 'b': prompt: \d+ tokens .* context holds 192 \(and 1 more"
    ) as told:
        run.answer(requests)
    assert sorted(told.value.reasons) == ["b", "c"]
    assert as_reply(run.answer(requests[:1])[0]).text == "Yes"


def test_an_answer_ends_where_the_context_does(finished_run: Path, script) -> None:
    run = OwnModel(load_run(finished_run))
    script("why " * 400)
    replies = [as_reply(one) for one in run.answer([AnswerRequest(n, "why " * len(n), (), 1024) for n in ("a", "bcd")])]
    assert [reply.finish for reply in replies] == ["length", "length"]
    lengths = [len(run.assistant.tokenizer.encode(reply.text)) for reply in replies]
    assert 100 < lengths[1] < lengths[0] < 192


def test_a_model_that_sees_nothing_is_no_fault_of_a_question(finished_run: Path, monkeypatch) -> None:
    run = OwnModel(load_run(finished_run))
    monkeypatch.setattr(
        run.assistant.model, "config", replace(run.assistant.model.config, vision=VisionConfig(kind="none"))
    )
    with pytest.raises(UserError, match="sees no pictures") as told:
        run.answer([AnswerRequest("a", "?", (Image.new("RGB", (4, 4)),))])
    assert not isinstance(told.value, RefusedError)


def test_a_system_tells_what_its_outputs_depend_on(finished_run: Path) -> None:
    run = load_run(finished_run)
    system = OwnSystem(run, "tiny/generation")
    assert isinstance(system, TextModel) and isinstance(system, ImageModel)
    before, digest = system.settings, system.digest
    assert digest == run.digest and before["dtype"] == "float32" and before["visual"] and before["torch"]
    run.settings = replace(run.settings, batch_size=3, keep_scales=True)
    assert system.settings == before
    run.settings = replace(run.settings, max_new_tokens=3, visual=replace(run.model.sampling_settings(), cfg=9.0))
    assert {key for key in before if before[key] != system.settings[key]} == {"max_new_tokens", "visual"}


def test_the_first_token_is_as_likely_as_it_is_chosen(finished_run: Path) -> None:
    run = OwnModel(lively(load_run(finished_run)))
    requests = [replace(request, max_new_tokens=1) for request in sixteen()]
    assistant = run.assistant
    prompts = [assistant.prompt(_asked(assistant, request), 0) for request in requests]
    logits_RV = first_token_logits(assistant.model, prompts, replace(assistant.settings, max_images=1))
    chosen = [assistant.tokenizer.decode([token]) for token in logits_RV.argmax(-1).tolist()]
    assert [as_reply(one).text for one in run.answer(requests)] == [text.strip() for text in chosen]
    likely_R = logits_RV.softmax(dim=-1)[:, assistant.tokenizer.encode("Yes")[0]]
    torch.testing.assert_close(torch.tensor(run.probability(requests, "Yes")), likely_R)
    alone = [run.probability([request], "Yes")[0] for request in requests]
    torch.testing.assert_close(torch.tensor(alone), likely_R, rtol=1e-3, atol=1e-8)
    assert isinstance(run, HasProbability) and len({round(value, 9) for value in alone}) > 8


def _asked(assistant: Assistant, request: AnswerRequest) -> Conversation:
    conversation = Conversation()
    seen = {f"{request.id}/{n}": assistant.see(picture) for n, picture in enumerate(request.pictures)}
    conversation.ask(request.prompt, seen)
    return conversation
