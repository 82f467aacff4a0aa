"""`vargpt data prefer`: the command from a run and requests to pairs and a page."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from vargpt_lightning.commands.data import main
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import read_json, write_jsonl


@pytest.fixture
def judge(tmp_path: Path) -> str:
    """Identification among two plain pictures."""
    rows = []
    for name, colour in (("shamrock", "green"), ("square", "blue")):
        (tmp_path / "real").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), colour).save(tmp_path / "real" / f"{name}.png")
        rows.append({"id": name, "name": name, "files": [f"real/{name}.png"]})
    write_jsonl(tmp_path / "pictures.jsonl", rows)
    return f"identification:{tmp_path}"


def test_a_run_and_requests_become_pairs(
    finished_run: Path, tmp_path: Path, judge: str, script, capsys: pytest.CaptureFixture[str]
) -> None:
    script("Here is a shamrock:*I hope you like it.")
    (tmp_path / "requests.txt").write_text("Draw a shamrock.\n\nDraw a square.\n", "utf-8")
    out = tmp_path / "pairs"
    words = ["prefer", str(finished_run), "--prompts", str(tmp_path / "requests.txt"), "--judge", judge]
    assert main([*words, "--out", str(out), "--margin", "0", "--count", "3"]) == 0
    first, second = read_json(out / "pairs.json")
    assert [each["conversations"][0]["value"] for each in (first, second)] == ["Draw a shamrock.", "Draw a square."]
    assert first["chosen"]["value"] == "Here is a shamrock: <image_gen> I hope you like it."
    assert first["scores"][0] > first["scores"][1] and all((out / file).is_file() for file in first["images"])
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("2 pairs of 2 prompts; 0 tied, 0 unsure") and told[2] == f"page: {out / 'index.html'}"
    assert (out / "index.html").read_text("utf-8").count("data:image/png;base64,") == 4


@pytest.mark.parametrize(
    ("judge_name", "requests", "message"),
    [
        ("compositon", "Draw.", r"scorer: 'compositon'; .*did you mean 'composition'\?"),
        ("composition:x", "Draw.", "got 'composition:x', expected composition by itself"),
        ("vqa_score", "Draw.", "got 'vqa_score', expected vqa_score:MODEL, such as vqa_score:openai:http://HOST/v1#N"),
        ("composition", " \n", "requests.txt: no prompts; expected a request a line"),
        ("composition", None, "requests.txt: not found; expected a prompt file"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_drawn(
    finished_run: Path, tmp_path: Path, judge_name: str, requests: str | None, message: str
) -> None:
    file = tmp_path / "requests.txt"
    if requests is not None:
        file.write_text(requests, "utf-8")
    with pytest.raises(UserError, match=message):
        main(["prefer", str(finished_run), "--prompts", str(file), "--judge", judge_name, "--out", str(tmp_path / "o")])
    assert not (tmp_path / "o" / "drawings").exists()


def test_a_run_that_does_not_draw_is_told(finished_run: Path, tmp_path: Path, script) -> None:
    script("I would rather not.")
    (tmp_path / "requests.txt").write_text("Draw a shamrock.", "utf-8")
    words = ["--prompts", str(tmp_path / "requests.txt"), "--judge", "composition", "--out", str(tmp_path / "out")]
    with pytest.raises(UserError, match=r"drew no picture for 4 requests, such as 'Draw a shamrock.'; expected a run"):
        main(["prefer", str(finished_run), *words])
