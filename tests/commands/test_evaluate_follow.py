"""`vargpt evaluate images follow`: from a benchmark's prompts to figures, by files and by systems."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.evaluation.pictures import write_open_clip
from vargpt_lightning.commands.evaluate_images import main
from vargpt_lightning.evaluation.base.prompt_benchmark import Detection
from vargpt_lightning.evaluation.base.protocols import AnswerRequest, Reply, UnfinishedError
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import read_jsonl


def run(*words: object) -> int:
    return main([str(word) for word in words])


def follow(*words: object) -> dict[str, Any]:
    """Run the command and return what it wrote."""
    assert run("follow", *words) == 0
    out = Path(str(words[words.index("--out") + 1]))
    found: dict[str, Any] = json.loads(
        (out / str(words[words.index("--benchmark") + 1]) / "result.official.json").read_text()
    )
    return found


@pytest.fixture
def geneval(tmp_path: Path) -> Path:
    rows = [
        {"tag": "single_object", "include": [{"class": "cat", "count": 1}], "prompt": "a photo of a cat"},
        {"tag": "colors", "include": [{"class": "dog", "count": 1, "color": "red"}], "prompt": "a photo of a red dog"},
    ]
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "evaluation_metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def detections(path: Path, *rows: tuple[str, list[dict[str, Any]]]) -> Path:
    path.write_text("".join(json.dumps({"id": id_, "detections": found}) + "\n" for id_, found in rows))
    return path


def boxed(label: str, **more: Any) -> dict[str, Any]:
    return {"label": label, "score": 0.95, "box": [0, 0, 8, 8], **more}


def test_prompts_are_drawn_so_many_times(geneval: Path, tmp_path: Path) -> None:
    out = tmp_path / "prompts.jsonl"
    words = ["prompts", "--benchmark", "geneval", "--data", geneval, "--out", out]
    assert run(*words, "--wording", "Please draw {}.", "--per-prompt", 2) == 0
    rows = read_jsonl(out)
    assert [row["id"] for row in rows][1:3] == ["00000/samples/0001", "00001/samples/0000"]
    assert rows[0]["instruction"] == "Please draw a photo of a cat." and rows[0]["caption"] == "a photo of a cat"
    assert run(*words) == 0 and len(read_jsonl(out)) == 8
    with pytest.raises(UserError, match=r"wording 'Draw'; expected \{\}"):
        run(*words, "--wording", "Draw")
    with pytest.raises(UserError, match="--data goes with --benchmark alone"):
        run("prompts", "--data", geneval, "--out", out)


def test_a_file_of_detections_is_enough(geneval: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = detections(
        tmp_path / "boxes.jsonl",
        ("00000/samples/0000", [boxed("cat")]),
        ("00001/samples/0000", [boxed("dog", color="blue")]),
    )
    words = ["--benchmark", "geneval", "--data", geneval, "--out", tmp_path / "out", "--per-prompt", 1]
    result = follow(*words, "--detector", file)
    assert result["figures"]["overall"] == 0.5 and result["figures"]["single_object"] == 1
    assert (
        result["settings"]["detector"]["model"] == "a file"
        and result["settings"]["files"]["detector"]["name"] == "boxes"
    )
    assert result["reference"].startswith("github.com/")
    assert "GenEval" in capsys.readouterr().out and "GenEval" in (tmp_path / "out" / "tables.md").read_text()
    rows = read_jsonl(tmp_path / "out" / "geneval" / "results.jsonl")
    assert [row["correct"] for row in rows] == [True, False] and json.loads(rows[0]["metadata"])[
        "tag"
    ] == "single_object"
    assert follow(*words, "--results", tmp_path / "out" / "geneval" / "results.jsonl")["figures"] == result["figures"]
    scores = read_jsonl(tmp_path / "out" / "geneval" / "scores.official.jsonl")
    assert [(row["value"], row["group"]) for row in scores] == [(1, "00000"), (0, "00001")]
    with pytest.raises(UserError, match="has no detections of '00000/samples/0001'"):
        follow(*words[:-1], 2, "--detector", file, "--out", tmp_path / "other")
    with pytest.raises(UserError, match="nobody is there for objects; expected --detector MODEL"):
        follow(*words)
    with pytest.raises(UserError, match="in place of --judge, --detector"):
        follow(*words, "--detector", file, "--results", file)
    with pytest.raises(UserError, match="expected label, score, and box as left, top, right, bottom"):
        bad = detections(
            tmp_path / "bad.jsonl", ("00000/samples/0000", [{"label": "cat", "score": 1, "box": [1, 2, 3]}])
        )
        follow(*words, "--detector", bad)


class Finder:
    """Stands in for a detector: a dog where a picture is red, a cat elsewhere."""

    name, digest, settings = "finder", "1", {"adapter": "finder"}
    asked = 0

    def detect(self, ids: Sequence[str], pictures: Sequence[Image.Image]) -> list[list[Detection]]:
        type(self).asked += len(ids)
        labels = ["dog" if picture.getpixel((0, 0))[0] > 100 else "cat" for picture in pictures]  # type: ignore[index]
        return [[Detection(label, 0.95, (0, 0, 8, 8))] for label in labels]


def test_pictures_are_looked_at_once_and_colours_come_from_clip(
    geneval: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vargpt_lightning.evaluation.systems import open as systems

    monkeypatch.setattr(systems, "open_detector", lambda text, device: Finder())
    monkeypatch.setattr(Finder, "asked", 0)
    (tmp_path / "finder").mkdir()
    for prompt, colour in (("00000", "blue"), ("00001", "red")):
        place = tmp_path / "drawn" / prompt / "samples"
        place.mkdir(parents=True)
        Image.new("RGB", (16, 16), colour).save(place / "0000.png")
    name, weights = write_open_clip(tmp_path)
    words = [tmp_path / "drawn", "--benchmark", "geneval", "--data", geneval, "--out", tmp_path / "out"]
    words += ["--per-prompt", 1, "--detector", tmp_path / "finder", "--device", "cpu"]
    words += ["--clip-model", name, "--clip-weights", weights]
    result = follow(*words)
    assert result["figures"]["single_object"] == 1 and result["settings"]["clip"]["settings"]["library"] == "open_clip"
    kept = read_jsonl(next((tmp_path / "out" / "geneval" / "outputs").glob("*.jsonl")))
    colours = [each.get("colour", "") for row in kept for each in json.loads(row["output"])]
    assert colours[0] == "" and colours[1] in (
        "red",
        "orange",
        "yellow",
        "green",
        "blue",
        "purple",
        "pink",
        "brown",
        "black",
        "white",
    )
    assert follow(*words)["figures"] == result["figures"] and Finder.asked == 2, "what is known is not asked again"
    first = follow(*words, "--limit", 1)
    assert first["limit"] == 1 and first["total"] == 2 and first["figures"]["n"] == 1
    with pytest.raises(UserError, match=r"is of the drawings .*; expected another --out, or --replace"):
        follow(tmp_path / "drawn" / "00000", *words[1:], "--allow", "unknown,missing")
    (tmp_path / "drawn" / "00001" / "samples" / "0000.png").unlink()
    with pytest.raises(UserError, match="1 prompts have no drawing, such as '00001/samples/0000'"):
        follow(*words)
    less = follow(*words, "--allow", "missing")
    assert less["figures"]["colors"] == 0 and less["missing"] == 1 and less["partial"]


class Judge:
    """Stands in for a VQA system: yes of red pictures."""

    name, digest, settings = "judge", "1", {"adapter": "judge"}

    def answer(self, requests: Sequence[AnswerRequest]) -> list[str]:
        return ["yes" if each.pictures[0].getpixel((0, 0)) == (255, 0, 0) else "no" for each in requests]  # type: ignore[comparison-overlap]


def test_quarters_of_a_file_are_pictures_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vargpt_lightning.evaluation.systems import open as systems

    monkeypatch.setattr(systems, "open_system", lambda text, **options: Judge())
    lines = ["item_id,proposition_id,dependency,tuple,question_natural_language", "x,1,0,skipped (a),?"]
    lines += ["dogs,1,0,entity - whole (dog),A dog?", "dogs,2,1,attribute - color (red),Red?"]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dpg_bench.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "drawn").mkdir()
    grid = Image.new("RGB", (16, 16), "blue")
    grid.paste(Image.new("RGB", (8, 8), "red"), (8, 0))
    grid.save(tmp_path / "drawn" / "dogs.png")
    words = [tmp_path / "drawn", "--benchmark", "dpg_bench", "--data", tmp_path / "data", "--out", tmp_path / "out"]
    result = follow(*words, "--judge", "openai:http://127.0.0.1:9/v1#judge")
    assert result["figures"]["score"] == 0.25 and result["figures"]["pictures"] == 4
    assert [row["value"] for row in read_jsonl(tmp_path / "out" / "dpg_bench" / "scores.official.jsonl")] == [
        0,
        1,
        0,
        0,
    ]


def test_answers_and_likeness_come_from_a_file(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "non_spatial_val.txt").write_text("A man reads.\n")
    (data / "color_val.txt").write_text("a red cat\n")
    (data / "color_val.words.jsonl").write_text(json.dumps({"prompt": "a red cat", "phrases": ["a red cat"]}) + "\n")
    answers = [
        ("color/samples/a red cat_000000#0", "0.25"),
        ("non_spatial/samples/A man reads._000000#similarity", "0.3"),
    ]
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps({"id": id_, "output": output}) + "\n" for id_, output in answers))
    words = ["--benchmark", "t2i_compbench", "--data", data, "--out", tmp_path / "out", "--per-prompt", 1]
    figures = follow(*words, "--judge", file)["figures"]
    assert (figures["color"], figures["non_spatial"], figures["mean"]) == (0.25, 0.3, 0.275)
    with pytest.raises(UserError, match="color/samples/a red cat_000001#0"):
        follow(*words[:-1], 2, "--judge", file, "--out", tmp_path / "more")


def test_what_a_judge_said_before_it_gave_up_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vargpt_lightning.evaluation.systems import open as systems

    asked: list[list[str]] = []

    class Tired(Judge):
        batch_size = 3

        def answer(self, requests: Sequence[AnswerRequest]) -> list[str]:
            asked.append([each.id for each in requests])
            if len(asked) == 2:
                raise UnfinishedError("gave up", {requests[0].id: Reply("Score: 1")})
            return ["Score: 1"] * len(requests)

    monkeypatch.setattr(systems, "open_system", lambda text, **options: Tired())
    rows = [{"Prompt": f"p{n}", "Explanation": "x", "prompt_id": n} for n in range(1, 6)]
    (tmp_path / "culture_verified.json").write_text(json.dumps(rows))
    (tmp_path / "drawn").mkdir()
    for number in range(1, 6):
        Image.new("RGB", (8, 8)).save(tmp_path / "drawn" / f"{number}.png")
    words = [tmp_path / "drawn", "--benchmark", "wise", "--data", tmp_path, "--out", tmp_path / "out"]
    words += ["--judge", "openai:http://127.0.0.1:9/v1#judge"]
    with pytest.raises(UserError, match="gave up"):
        follow(*words)
    figures = follow(*words)["figures"]
    assert figures["CULTURE"] == 1 and figures["n"] == 5 and figures["wiscore"] is None
    assert asked == [["1#verdict", "2#verdict", "3#verdict"], ["4#verdict", "5#verdict"], ["5#verdict"]]
