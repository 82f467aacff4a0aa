from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from vargpt_lightning.commands.loading import load_run
from vargpt_lightning.errors import UserError
from vargpt_lightning.evaluation.adapters.ours import Conversation, OwnSystem, Speaker, seen_reader
from vargpt_lightning.evaluation.protocols import Answerer, AnswerRequest, Drawer, RefusedError, as_reply
from vargpt_lightning.models.config import VisionConfig


def test_pictures_are_scaled_as_their_tower_was_trained() -> None:
    white, black = Image.new("RGB", (64, 64), "white"), Image.new("RGB", (64, 64), "black")
    reader = seen_reader(VisionConfig(picture_size=64))
    assert reader.to_tensor(white).unique().tolist() == pytest.approx([1.0])  # (255 - 127) / 128
    assert reader.to_tensor(black).unique().tolist() == pytest.approx([-127 / 128])
    clip = seen_reader(VisionConfig(kind="clip", picture_size=28)).to_tensor(black)
    assert clip[:, 0, 0].tolist() == pytest.approx([-1.7923, -1.7521, -1.4802], abs=1e-4)


def test_pictures_are_made_square_as_their_tower_was_trained_or_as_asked() -> None:
    wide = Image.new("RGB", (60, 20), "black")
    wide.paste((255, 255, 255), (20, 0, 40, 20))

    def corner(**settings: Any) -> list[float]:
        pixels_CHW = seen_reader(VisionConfig(picture_size=28, **settings)).to_tensor(wide)
        mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
        return [float(value * s + m) for value, m, s in zip(pixels_CHW[:, 0, 14], mean, std, strict=True)]

    assert corner(kind="clip") == pytest.approx([1.0] * 3, abs=0.01), "the middle alone is seen"
    assert corner(kind="clip", fit="llava") == pytest.approx([0.478, 0.455, 0.408], abs=0.01), "the mean colour"
    assert corner(kind="clip", fit="pad") == pytest.approx([1.0] * 3, abs=0.01)
    reader = seen_reader(VisionConfig(picture_size=32))
    assert (reader.fit, seen_reader(VisionConfig(picture_size=32, fit="crop")).fit) == ("pad", "crop")


def test_a_model_without_a_tower_sees_no_pictures() -> None:
    with pytest.raises(UserError, match="sees no pictures"):
        seen_reader(VisionConfig(kind="none"))


def test_it_answers_and_draws_as_evaluation_asks(finished_run: Path, script) -> None:
    run = load_run(finished_run)
    assert isinstance(run, Answerer) and isinstance(run, Drawer)
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
    run = load_run(finished_run)
    script("*")
    both = [as_reply(one).pictures[0].tobytes() for one in run.draw(["Draw a dog.", "Draw a cat."], [3, 4])]
    alone = as_reply(run.draw(["Draw a cat."], [4])[0]).pictures[0].tobytes()
    other = as_reply(run.draw(["Draw a cat."], [5])[0]).pictures[0].tobytes()
    assert both[1] == alone != other


def test_a_request_that_leaves_no_room_for_the_picture_is_refused(finished_run: Path) -> None:
    with pytest.raises(UserError, match="tokens and 23 for the answer; the model's context holds 192"):
        load_run(finished_run).draw(["draw " * 35], [0])


def test_pictures_seen_and_drawn_stay_in_the_conversation(finished_run: Path, script) -> None:
    run = load_run(finished_run)
    talk = Conversation()
    talk.ask("What is this?", {"a": run.see(Image.new("RGB", (64, 64), "red"))})
    script("A dog.*")
    answer = run.reply([talk])[0]
    talk.add(answer)
    talk.ask("And now?")
    prompt = run.prompt(talk)
    tokens = run.tokenizer
    assert list(prompt.input_ids).count(tokens.image_id) == 4
    assert list(prompt.input_ids).count(tokens.image_gen_id) == 21
    assert prompt.pixel_values is not None and prompt.pixel_values.shape == (1, 3, 64, 64)
    assert prompt.drawn_indices is not None and torch.equal(prompt.drawn_indices[0], answer.pictures[0].indices)
    assert "A dog." in tokens.decode(list(prompt.input_ids))


def test_the_digest_tells_weights_apart(finished_run: Path) -> None:
    assert load_run(finished_run).digest == load_run(finished_run).digest != load_run(finished_run, "pretrain").digest


def test_reconstructions_go_through_the_tokenizer(finished_run: Path) -> None:
    run = load_run(finished_run)
    copies = run.reconstruct([Image.new("RGB", (8, 8), "red"), Image.new("RGB", (20, 20), "blue")])
    assert [copy.size for copy in copies] == [(8, 8), (8, 8)] and copies[0].tobytes() != copies[1].tobytes()


def lively(run: Speaker) -> Speaker:
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
    run = lively(load_run(finished_run))
    together = [as_reply(one) for one in run.answer(sixteen())]
    alone = [as_reply(run.answer([request])[0]) for request in sixteen()]
    assert [reply.text for reply in together] == [reply.text for reply in alone]
    assert [reply.finish for reply in together] == [reply.finish for reply in alone]
    assert len({reply.text for reply in together}) > 8


def test_an_answer_is_as_long_as_its_request_allows(finished_run: Path, script) -> None:
    run = load_run(finished_run)
    script("Please draw a shamrock now.")
    requests = [AnswerRequest(f"q{n}", "What?", (), length) for n, length in enumerate((2, None, 5, 2))]
    replies = [as_reply(one) for one in run.answer(requests)]
    whole = run.tokenizer.encode("Please draw a shamrock now.")
    assert [len(run.tokenizer.encode(reply.text)) for reply in replies] == [2, len(whole), 5, 2]
    assert [reply.finish for reply in replies] == ["length", "stop", "length", "length"]
    assert replies[1].text == "Please draw a shamrock now."


def test_an_empty_picture_is_named(finished_run: Path) -> None:
    with pytest.raises(UserError, match=r"question 'a': picture 2 is empty: its size is \(0, 3\)"):
        load_run(finished_run).answer([AnswerRequest("a", "?", (Image.new("RGB", (4, 4)), Image.new("RGB", (0, 3))))])


def test_questions_too_long_for_the_context_are_named_and_the_others_can_be_asked(finished_run: Path, script) -> None:
    run = load_run(finished_run)
    script("Yes")
    requests = [AnswerRequest(name, "why " * words, (), 4) for name, words in (("a", 5), ("b", 99), ("c", 400))]
    with pytest.raises(
        RefusedError, match=r"question 'b': prompt: \d+ tokens .* context holds 192 \(and 1 more"
    ) as told:
        run.answer(requests)
    assert sorted(told.value.reasons) == ["b", "c"]
    assert as_reply(run.answer(requests[:1])[0]).text == "Yes"


def test_an_answer_ends_where_the_context_does(finished_run: Path, script) -> None:
    run = load_run(finished_run)
    script("why " * 400)
    replies = [as_reply(one) for one in run.answer([AnswerRequest(n, "why " * len(n), (), 1024) for n in ("a", "bcd")])]
    assert [reply.finish for reply in replies] == ["length", "length"]
    lengths = [len(run.tokenizer.encode(reply.text)) for reply in replies]
    assert 100 < lengths[1] < lengths[0] < 192


def test_a_model_that_sees_nothing_is_no_fault_of_a_question(finished_run: Path, monkeypatch) -> None:
    run = load_run(finished_run)
    monkeypatch.setattr(run.model, "config", replace(run.model.config, vision=VisionConfig(kind="none")))
    with pytest.raises(UserError, match="sees no pictures") as told:
        run.answer([AnswerRequest("a", "?", (Image.new("RGB", (4, 4)),))])
    assert not isinstance(told.value, RefusedError)


def test_a_system_tells_what_its_outputs_depend_on(finished_run: Path) -> None:
    run = load_run(finished_run)
    system = OwnSystem(run, "tiny/generation")
    assert isinstance(system, Answerer) and isinstance(system, Drawer)
    before, digest = system.settings, system.digest
    assert digest == run.digest and before["dtype"] == "float32" and before["visual"] and before["torch"]
    run.settings = replace(run.settings, batch_size=3, keep_scales=True)
    assert system.settings == before
    run.settings = replace(run.settings, max_new_tokens=3, visual=replace(run.model.sampling_settings(), cfg=9.0))
    assert {key for key in before if before[key] != system.settings[key]} == {"max_new_tokens", "visual"}
