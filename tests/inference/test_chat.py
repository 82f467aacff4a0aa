from __future__ import annotations

from pathlib import Path

from PIL import Image

from vargpt_lightning.inference.assistant import Conversation
from vargpt_lightning.inference.chat import Chat
from vargpt_lightning.inference.load import load_run


def test_what_was_said_and_shown_stays_in_the_context(finished_run: Path, tmp_path: Path, script) -> None:
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    chatting = Chat(load_run(finished_run), tmp_path)
    script("Red*")
    chatting.take(f"/image {tmp_path / 'red.png'}")
    chatting.take("Which colour?")
    chatting.take("And now?")
    roles = [turn.role for turn in chatting.conversation.turns]
    assert roles == ["user", "assistant"] * 2
    ids = list(
        chatting.assistant.prompt(
            Conversation(chatting.conversation.turns[:3], chatting.conversation.pictures)
        ).input_ids
    )
    tokens = chatting.assistant.tokenizer
    assert ids.count(tokens.image_id) == 4 and ids.count(tokens.image_gen_id) == 21
    chatting.take("/reset")
    assert chatting.conversation == Conversation() and chatting.waiting == []


def test_a_line_that_does_not_fit_leaves_no_trace(finished_run: Path, tmp_path: Path, script, capsys) -> None:
    chatting = Chat(load_run(finished_run), tmp_path)
    script("Yes")
    chatting.take("dog " * 200)
    assert "context holds 192" in capsys.readouterr().out and chatting.conversation.turns == []
    chatting.take("Is it?")
    assert capsys.readouterr().out == "Yes\n"


def test_a_full_context_forgets_the_oldest_turns(finished_run: Path, tmp_path: Path, script, capsys) -> None:
    chatting = Chat(load_run(finished_run), tmp_path)
    script("Yes")
    for _ in range(6):
        chatting.take("Is it a dog or a cat?")
    said = capsys.readouterr().out
    assert said.count("Yes") == 6 and "2 oldest turns are forgotten" in said
    assert chatting.conversation.turns[0].role == "user"
