"""From a folder of pictures with captions to a model that draws them, by the commands of docs/your-own-data.md."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import yaml

from tests.data.nasty_pictures import halves
from tests.docs.markdown import blocks, shell_lines
from vargpt_lightning.cli import main
from vargpt_lightning.commands.data import VERBS
from vargpt_lightning.data.corpora import Packed
from vargpt_lightning.experiment.parser import load_experiment
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import read_json

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "your-own-data.md"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with photos, and the shipped experiment made short."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VARGPT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "photos").mkdir()
    for number, (left, right) in enumerate([("red", "blue"), ("green", "blue"), ("black", "white")]):
        halves(left, right).save(tmp_path / "photos" / f"{number}.png")
        (tmp_path / "photos" / f"{number}.txt").write_text(f"{left} beside {right}")
    (tmp_path / "experiments").mkdir()
    for name in ("base.yaml", "own_data.yaml"):
        tree = yaml.safe_load((ROOT / "experiments" / name).read_text())
        for stage in tree.get("stages", []):
            stage |= {"steps": 2, "batch_size": 2, "warmup_autoencoder": 0.0}
        if name == "own_data.yaml":
            tree["trainer"] |= {"samples": 1, "validate": 0}
            tree["evaluation"] = {"enabled": False}
            tree["model"]["tokenizer"] |= {"scales": [1, 2]}
            tree["model"]["language"] |= {"vocabulary": 300}
        (tmp_path / "experiments" / name).write_text(yaml.safe_dump(tree))
    return tmp_path


def test_the_way_from_photos_to_drawings(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for use, out in (("drawn", "drawings"), ("seen", "questions")):
        assert main(["data", "pack", f"captions:photos,use={use}", "--out", f"data/{out}"]) == 0
    assert main(["data", "check", "data/drawings", "data/questions"]) == 0
    assert main(["data", "show", "data/drawings", "--for", "experiments/own_data.yaml"]) == 0
    assert "blue" in (place / "show.html").read_text()
    assert main(["fit", "-c", "experiments/own_data.yaml"]) == 0
    assert main(["generate", "runs/own_data", "Please draw this: red beside blue", "--out", "out", "--seed", "1"]) == 0
    assert main(["generate", "runs/own_data", "What can be seen here?", "--image", "photos/0.png"]) == 0
    train_on(place)
    assert "Traceback" not in capsys.readouterr().err


def train_on(place: Path) -> None:
    """More data for the finished run, by the page's own experiment made short."""
    (place / "photos").rename(place / "more")
    for use, out in (("drawn", "more-drawings"), ("seen", "more-questions")):
        assert main(["data", "pack", f"captions:more,use={use}", "--out", f"data/{out}"]) == 0
    (block,) = [each for each in blocks(PAGE.read_text()) if each.file == "experiments/more.yaml"]
    tree = yaml.safe_load(block.text)
    for stage in tree["stages"]:
        stage |= {"steps": 1, "batch_size": 2}
    (place / "experiments/more.yaml").write_text(yaml.safe_dump(tree | {"evaluation": {"enabled": False}}))
    assert main(["fit", "-c", "experiments/more.yaml"]) == 0
    parts = read_json(place / "runs/more/init_from.json")["parts"]
    assert {part["from"] for part in parts.values()} == {"runs/own_data"} and "visual_decoder" in parts


def test_the_pages_commands_are_those_there_are() -> None:
    """Each parses, as far as this can be told without running it."""
    found = [shlex.split(command)[1:] for command in shell_lines(PAGE.read_text())]
    assert {words[1] for words in found if words[0] == "data"} >= {
        "pack",
        "check",
        "stats",
        "show",
        "write-instructions",
    }
    assert {words[0] for words in found} >= {"data", "fit", "generate"}
    for words in found:
        if words[0] == "data":
            assert words[1] in VERBS
        for word in words:
            if word.startswith("experiments/") and word != "experiments/more.yaml":  # the page's own
                assert (ROOT / word).is_file(), word


def test_the_text_tokenizer_is_trained_on_ones_own_captions(place: Path) -> None:
    main(["data", "pack", "captions:photos", "--out", "data/drawings"])
    corpora = Packed(train={"drawings": "data/drawings"}, vocabulary=300)
    tokens = corpora.text_tokenizer()
    assert tokens.vocabulary == 300 and len(tokens.encode(" blue")) < len(" blue")
    with pytest.raises(UserError, match="neither tokenizer nor vocabulary is given"):
        Packed(train={"drawings": "data/drawings"}).text_tokenizer()


def test_the_shipped_experiment_links_the_tokenizers_size() -> None:
    made = load_experiment(["-c", str(ROOT / "experiments/own_data.yaml"), "--model.language.vocabulary", "700"])
    assert isinstance(made.data, Packed) and made.data.vocabulary == 700
