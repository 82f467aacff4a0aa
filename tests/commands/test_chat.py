from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from vargpt_lightning.commands import chat
from vargpt_lightning.commands.chat import main
from vargpt_lightning.inference.chat import Chat


@pytest.fixture
def talk(finished_run: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]):
    """Feed lines to the command through a pipe; returns what it printed."""

    def run(*lines: str, options: tuple[str, ...] = ()) -> list[str]:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        assert main([str(finished_run), "--out", str(tmp_path / "chat"), *options]) == 0
        return capsys.readouterr().out.splitlines()

    return run


def test_a_piped_line_is_answered_and_drawings_are_saved(talk, tmp_path: Path, script) -> None:
    script("Here:*")
    assert talk("Draw a dog.", "Draw a cat.") == [
        "Here:",
        str(tmp_path / "chat" / "0001.png"),
        "Here:",
        str(tmp_path / "chat" / "0002.png"),
    ]
    assert Image.open(tmp_path / "chat" / "0002.png").size == (8, 8)


def test_numbers_go_on_after_the_files_that_are_there(talk, tmp_path: Path, script) -> None:
    script("*")
    talk("Draw.")
    first = (tmp_path / "chat" / "0001.png").read_bytes()
    assert talk("Draw.") == [str(tmp_path / "chat" / "0002.png")]
    assert (tmp_path / "chat" / "0001.png").read_bytes() == first


def test_drawings_go_into_the_run_by_default(run_copy: Path, monkeypatch, script) -> None:
    script("*")
    monkeypatch.setattr("sys.stdin", io.StringIO("Draw.\n"))
    main([str(run_copy)])
    assert (run_copy / "chat" / "0001.png").is_file()


def test_commands_and_mistakes_do_not_end_the_chat(talk, tmp_path: Path, script) -> None:
    (tmp_path / "text.png").write_text("no picture")
    script("Yes")
    said = talk("/help", "/image", "/image nowhere.png", f"/image {tmp_path / 'text.png'}", "/dance", "", "Is it?")
    assert said[0].startswith("Write a line") and said[-1] == "Yes"
    errors = [line for line in said if line.startswith("error: ")]
    assert len(errors) == 4 and "no path" in errors[0] and "nowhere.png: cannot be read" in errors[1]
    assert "no picture" in errors[2] and "/dance is not a command" in errors[3]


def test_a_drawing_that_is_missed_is_said_and_asked_for_again(talk, tmp_path: Path, script, monkeypatch) -> None:
    said, turns = script(), iter(["Here:*", "Here", "Here:*"])
    take = Chat.take

    def turn(self: Chat, line: str) -> bool:
        said[:] = [next(turns)]
        return take(self, line)

    monkeypatch.setattr(Chat, "take", turn)
    lines = talk("Draw a dog.", "Draw a cat.", "/again")
    assert lines[:2] == ["Here:", str(tmp_path / "chat" / "0001.png")]
    assert lines[2] == "Here" and "Nothing was drawn" in lines[3] and "/again" in lines[3]
    assert lines[4:] == ["Here:", str(tmp_path / "chat" / "0002.png")]


def test_nothing_is_asked_again_before_anything_was(talk) -> None:
    (said,) = talk("/again")
    assert said.startswith("error: /again")


def test_quit_ends_it(talk, script) -> None:
    script("Yes")
    assert talk("/quit", "Is it?") == []


def test_the_end_of_the_input_ends_a_chat_in_a_terminal(monkeypatch, capsys) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal("hello\n"))
    assert chat.read_line() == "hello"
    assert chat.read_line() is None
