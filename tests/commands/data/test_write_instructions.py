"""`vargpt data write-instructions`: templates and an endpoint from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.data.writing.service import Service
from vargpt_lightning.commands.data.write_instructions import main
from vargpt_lightning.evaluation.features import clip
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import read_json, read_jsonl

TEXTS = ("a tench on grass", "a castle by a lake", "", "A dog runs on the beach.")


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    file = tmp_path / "captions.jsonl"
    rows = [{"id": f"n{place}", "picture": f"{place}.png", "caption": text} for place, text in enumerate(TEXTS)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_templates_write_the_same_again(captions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    assert main([str(captions), "--out", str(out), "--per-caption", "3"]) == 0
    said = capsys.readouterr().out
    assert "captions: 4, written: 9" in said and "left out, caption empty: 1" in said
    rows = read_json(out / "instructions.json")
    assert [row["id"] for row in rows][:4] == ["n0-0", "n0-1", "n0-2", "n1-0"]
    assert all(row["messages"][1]["content"].count("<image_gen>") == len(row["images"]) == 1 for row in rows)
    manifest = read_jsonl(out / "manifest.jsonl")
    assert len(manifest) == 9 and {row["model"] for row in manifest} == {"templates"}
    main([str(captions), "--out", str(other), "--per-caption", "3"])
    for name in ("instructions.json", "rejected.jsonl", "manifest.jsonl", "counts.json"):
        assert (out / name).read_bytes() == (other / name).read_bytes()
    assert main([str(captions), "--out", str(out), "--per-caption", "3"]) == 0, "a finished run may be run again"
    with pytest.raises(UserError, match="was written with seed 0, now it is 1"):
        main([str(captions), "--out", str(out), "--per-caption", "3", "--seed", "1"])


def test_an_endpoint_with_a_spending_limit(captions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Service() as service:
        arguments = [str(captions), "--out", str(tmp_path / "out"), "--endpoint", service.url, "--model", "tiny"]
        arguments += ["--extra", '{"top_p": 0.5}', "--per-minute", "6000", "--temperature", "0.5"]
        assert main([*arguments, "--max-requests", "2"]) == 0
        said = capsys.readouterr().out
        assert "not asked: 1; the same command tries again" in said and "the spending limit was reached" in said
        assert main(arguments) == 0
        assert "captions: 4, written: 3" in capsys.readouterr().out
        assert sorted(service.asked.values()) == [1, 1, 1]
        assert service.bodies[0]["top_p"] == service.bodies[0]["temperature"] == 0.5


def test_pictures_unlike_their_captions_are_left_out(
    captions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CLIP is a model of two dimensions here: red pictures are castles."""
    import torch

    class Model:
        def pictures(self, pictures: list[Image.Image]) -> torch.Tensor:
            return torch.tensor([[1.0, 0.0] if p.getpixel((0, 0)) == (255, 0, 0) else [0.0, 1.0] for p in pictures])

        def texts(self, texts: list[str]) -> tuple[torch.Tensor, list[bool]]:
            return torch.tensor([[1.0, 0.0] if "castle" in text else [0.0, 1.0] for text in texts]), [False]

    monkeypatch.setattr(clip, "open_clip_model", lambda model, weights: Model())
    (tmp_path / "weights.pt").touch()
    for place, colour in enumerate(("red", "red", "blue")):
        Image.new("RGB", (4, 4), colour).save(tmp_path / f"{place}.png")
    arguments = [str(captions), "--out", str(tmp_path / "out"), "--min-clip", "20", "--pictures", str(tmp_path)]
    assert main([*arguments, "--clip-weights", str(tmp_path / "weights.pt")]) == 0
    assert [row["id"] for row in read_json(tmp_path / "out" / "instructions.json")] == ["n1"]
    assert read_json(tmp_path / "out" / "counts.json")["rejected"] == {"caption empty": 1, "unlike picture": 2}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tries", "2"], "--tries goes with --endpoint"),
        (["--endpoint", "http://x/v1"], "the name of a model"),
        (["--endpoint", "http://u:p@x/v1", "--model", "m"], "key in the environment"),
        (["--endpoint", "http://x/v1", "--model", "m", "--extra", "[]"], "--extra .*expected a JSON object"),
        (["--request-words", "3"], "--request-words 3: expected LOW:HIGH"),
        (["--duplicates", "much"], "--duplicates much: expected a number"),
        (["--language", "xx"], "language 'xx'"),
        (["--min-clip", "20"], "--min-clip: expected --clip-weights too"),
        (["--pictures", "."], "--pictures goes with --min-clip"),
        (["--per-caption", "0"], "--per-caption: .0.; expected"),
        (["--seeds", "missing.yaml"], "missing.yaml: cannot be read"),
    ],
)
def test_what_will_not_do(captions: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        main([str(captions), "--out", str(tmp_path / "out"), *arguments])
    assert not (tmp_path / "out" / "instructions.json").exists()


def test_a_folder_of_something_else_is_left_alone(captions: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "instructions.json").write_text("mine")
    with pytest.raises(UserError, match=r"holds instructions.json but no settings.json"):
        main([str(captions), "--out", str(tmp_path / "out")])
    assert (tmp_path / "out" / "instructions.json").read_text() == "mine"
