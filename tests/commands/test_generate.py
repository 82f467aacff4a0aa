from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from vargpt_lightning.commands.generate import main
from vargpt_lightning.utils.errors import UserError


def test_pictures_are_saved_and_their_paths_printed_with_the_text(
    finished_run: Path, tmp_path: Path, script, capsys: pytest.CaptureFixture[str]
) -> None:
    script("Here is a shamrock:*I hope you like it.")
    out = tmp_path / "new" / "drawings"
    assert main([str(finished_run), "Please draw a shamrock.", "-n", "2", "--out", str(out), "--seed", "3"]) == 0
    names = [f"please-draw-a-shamrock-3-{number}.png" for number in (0, 1)]
    lines = ["Here is a shamrock:", "I hope you like it."]
    assert capsys.readouterr().out.splitlines() == [
        "1.", lines[0], str(out / names[0]), lines[1], "2.", lines[0], str(out / names[1]), lines[1]
    ]  # fmt: skip
    assert sorted(path.name for path in out.iterdir()) == names
    pictures = [Image.open(out / name) for name in names]
    assert [picture.size for picture in pictures] == [(8, 8)] * 2
    assert pictures[0].tobytes() != pictures[1].tobytes(), "each answer has a random stream of its own"


def test_the_seed_makes_the_drawing(finished_run: Path, tmp_path: Path, script) -> None:
    script("*")
    drawn = []
    for number, seed in enumerate(["1", "1", "2"]):
        out = tmp_path / str(number)
        main([str(finished_run), "Draw a dog.", "--out", str(out), "--seed", seed])
        drawn.append(next(out.iterdir()).read_bytes())
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_second_picture_of_an_answer_has_a_file_of_its_own(finished_run: Path, tmp_path: Path, script) -> None:
    script("One:*Two:*")
    main([str(finished_run), "Draw two.", "--out", str(tmp_path)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["draw-two-0-0-1.png", "draw-two-0-0.png"]


def test_a_picture_can_be_shown(finished_run: Path, tmp_path: Path, script, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (30, 50), "red").save(tmp_path / "red.png")
    script("Red")
    assert main([str(finished_run), "Which colour?", "--image", str(tmp_path / "red.png")]) == 0
    assert capsys.readouterr().out == "Red\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["", "-n", "1"], "the prompt is empty"),
        (["Draw.", "-n", "0"], "--number: .0.; expected a whole number from 1 to"),
        (["Draw.", "--top-p", "2"], "^--top-p: .2.; expected a number from 0 to 1"),
        (["Draw.", "--cfg", "-1"], "^--cfg: .-1.; expected a number from 0 to 100"),
        (["Draw.", "--cfg", "1e308"], "^--cfg: .1e308.; expected a number from 0 to 100"),
        (["Draw.", "--cfg", "nan"], "^--cfg: .nan.; expected"),
        (["Draw.", "--top-k", "-1"], "^--top-k: .-1.; expected a whole number from 0"),
        (["Draw.", "--temperature", "1e-40"], "^--temperature: .1e-40.; expected 0 or a number from 0.0001 to 1,000"),
        (["Draw.", "--temperature", "inf"], "^--temperature: .inf.; expected"),
        (
            ["Draw.", "--text-temperature", "1e-300"],
            "--text-temperature: .1e-300.; expected 0 or a number",
        ),
        (["Draw.", "--text-temperature", "nan"], "--text-temperature: .nan."),
        (["Draw.", "--max-tokens", "0"], "--max-tokens: .0.; expected a whole number from 1"),
        (["Draw.", "--seed", "9223372036854775808"], r"--seed: '9223372036854775808'; expected .*2\*\*63"),
        (["Draw.", "--stage", "nowhere"], "no finished stage 'nowhere'"),
        (["dog " * 200], "the model's context holds 192"),
        (["What?", "--image", "nowhere.png"], "nowhere.png: cannot be read"),
    ],
)
def test_what_a_person_can_get_wrong_is_said(words: list[str], message: str, finished_run: Path) -> None:
    with pytest.raises(UserError, match=message):
        main([str(finished_run), *words])


def test_a_picture_that_is_none_is_refused(finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UserError, match=r"text\.png: 10 bytes that are no picture"):
        main([str(finished_run), "What?", "--image", str(tmp_path / "text.png")])


def test_a_file_in_place_of_the_folder_is_refused(finished_run: Path, tmp_path: Path, script) -> None:
    (tmp_path / "taken").write_text("")
    script("*")
    with pytest.raises(UserError, match="taken is a file"):
        main([str(finished_run), "Draw.", "--out", str(tmp_path / "taken")])


def test_an_empty_run_is_shown() -> None:
    with pytest.raises(UserError, match="'' is no run folder"):
        main(["", "x"])
