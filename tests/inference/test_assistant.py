from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from vargpt_lightning.inference.assistant import Conversation, seen_reader
from vargpt_lightning.inference.load import load_run
from vargpt_lightning.models.core.config import VisionConfig
from vargpt_lightning.utils.errors import UserError


def test_pictures_are_scaled_as_their_tower_was_trained() -> None:
    white, black = Image.new("RGB", (64, 64), "white"), Image.new("RGB", (64, 64), "black")
    reader = seen_reader(VisionConfig(picture_size=64))
    assert reader.to_tensor(white).unique().tolist() == pytest.approx([1.0])  # (255 - 127) / 128
    assert reader.to_tensor(black).unique().tolist() == pytest.approx([-127 / 128])
    clip = seen_reader(VisionConfig(kind="clip", picture_size=28)).to_tensor(black)
    assert clip[:, 0, 0].tolist() == pytest.approx([-1.7923, -1.7521, -1.4802], abs=1e-4)


def test_parts_that_change_nothing_are_warned_of(finished_run: Path, script) -> None:
    script("*")
    run = load_run(finished_run)
    visual = run.model.sampling_settings(cfg=0, parts={"schedule": {}})
    with pytest.warns(UserWarning, match=r"parts.schedule: changes nothing here: cfg is 0"):
        run.ask("Draw a dog.", visual=visual)


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


@pytest.mark.parametrize(
    ("text", "pictures", "changes", "told"),
    [
        ("", [], {}, "text: got '', expected a question"),
        (" ", [], {}, "text: got ' ', expected a question"),
        (None, [], {}, "text: got None, expected a question"),
        ("x", ["file.png"], {}, "picture: got 'file.png', expected a PIL image"),
        ("x", [5], {}, "picture: got 5, expected a PIL image"),
        ("x", [Image.new("RGB", (0, 0))], {}, "picture: got 0 x 0 pixels, expected 1 x 1"),
        ("x", [], {"seed": "1"}, "seed: got '1', expected a whole number"),
        ("x", [], {"temperature": None}, "temperature: got None, expected 0"),
        ("x", [], {"stop": "."}, "stop: got '.', expected 4 texts at most"),
        ("x", [], {"sed": 1}, "sed is no setting; there are .*; did you mean 'seed'"),
    ],
)
def test_what_cannot_be_asked_is_told(finished_run: Path, text: Any, pictures: Any, changes: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        load_run(finished_run).ask(text, *pictures, **changes)
