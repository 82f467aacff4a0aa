"""`vargpt evaluate images`: from classes to a result, and its mistakes in one line each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.evaluation.images.test_instruct_set import drawn_record
from tests.evaluation.pictures import write_inception, write_open_clip, write_pictures, write_transformers_clip
from tests.evaluation.systems.tiny_models import janus
from vargpt_lightning.commands.evaluate_images import main
from vargpt_lightning.data.shards.format import write_source
from vargpt_lightning.evaluation.base.protocols import Reply
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import read_jsonl


class Painter:
    """Stands in for a system: noise that follows from the seed."""

    name, digest, settings = "painter", "1", {"guidance": 1.5}

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Reply]:
        noise = [np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8) for seed in seeds]
        return [Reply("Here:", (Image.fromarray(pixels),)) for pixels in noise]


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("networks")
    name, clip = write_open_clip(root)
    found = {"clip": str(clip), "name": name, "inception": str(write_inception(root / "inception.pth"))}
    return {**found, "transformers": str(write_transformers_clip(root / "transformers"))}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """The systems that were opened."""
    from vargpt_lightning.evaluation.systems import open as systems

    found: list[tuple[str, dict[str, Any]]] = []

    def open_system(text: str, **options: Any) -> Any:
        found.append((text, options))
        return object() if text == "some/mute" else Painter()

    monkeypatch.setattr(systems, "open_system", open_system)
    return found


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    for place, name in enumerate(("cat", "ship")):
        write_pictures(tmp_path / "val" / name, 4, size=40, seed=place)
    out = tmp_path / "set" / "prompts.jsonl"
    assert (
        main(["prompts", "--folder", str(tmp_path / "val"), "--per-class", "3", "--size", "24", "--out", str(out)]) == 0
    )
    return out


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_from_a_folder_of_classes_to_a_result(
    prompts: Path, networks: dict[str, str], asked: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["run", "some/model", "--prompts", prompts, "--out", out, "--metrics", "fid,kid,prc,clip"]
    words += ["--layer", "64", "--inception-weights", networks["inception"], "--kid-subset-size", 5]
    words += ["--clip-model", networks["name"], "--clip-weights", networks["clip"], "--allow", "few_samples"]
    words += ["--device", "cpu", "--draw-batch", 4, "--seed", 3, "--option", "concurrency=8", "--variant", "clean"]
    assert run(*words) == 0
    assert asked == [("some/model", {"device": "cpu", "concurrency": 8})]
    result = json.loads((out / "images.json").read_text())
    assert set(result) == {"model", "digest", "metrics", "settings", "n", "marks", "versions", "created", "drawings"}
    assert result["model"]
    names = {"fid", "kid", "kid_std", "precision", "recall", "f_score"}
    assert set(result["metrics"]) == names | {"clip", "clip_error", "clip_n", "clip_truncated"}
    assert result["n"] == 6 and result["versions"]["torch-fidelity"] and result["versions"]["open-clip-torch"]
    assert [mark.split(":")[0] for mark in result["marks"]] == ["few_samples", "few_samples"]
    settings = result["settings"]
    assert settings["variant"] == "clean" and "bicubic" in settings["inception"]["resize"]
    assert settings["reference"] == "the prompts' own pictures" and settings["real_n"] == 6
    assert settings["clip"]["text"] == "caption" and settings["clip"]["scale"] == 100
    rows = read_jsonl(out / "samples.jsonl")
    assert [row["id"] for row in rows] == ["cat-000", "cat-001", "cat-002", "ship-000", "ship-001", "ship-002"]
    assert set(rows[0]) == {"id", "instruction", "caption", "drawing", "reference", "clip"}
    assert (out / rows[0]["drawing"]).is_file() and Path(rows[0]["reference"]).is_file()
    assert sum(row["clip"] for row in rows) / 6 == pytest.approx(result["metrics"]["clip"])
    assert not (out / ".work").exists()
    assert "fid" in capsys.readouterr().out
    assert run(*words) == 0, "again: nothing is drawn, the same comes out"
    assert json.loads((out / "images.json").read_text())["metrics"] == result["metrics"]


def test_somebody_elses_drawings_against_statistics(
    prompts: Path, networks: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pictures(tmp_path / "real", 5, size=24)
    for row in read_jsonl(prompts):
        (tmp_path / "theirs").mkdir(exist_ok=True)
        Image.new("RGB", (24, 24), "red").save(tmp_path / "theirs" / f"{row['id']}.png")
    common = ["--layer", "64", "--inception-weights", networks["inception"], "--device", "cpu"]
    statistics = tmp_path / "real.npz"
    words = ["--metrics", "none", "--save-statistics", statistics, "--out", tmp_path / "r"]
    assert run("measure", tmp_path / "real", *words, *common) == 0 and statistics.is_file()
    clip = ["--clip-library", "transformers", "--clip-weights", networks["transformers"], "--clip-text", "instruction"]
    words = ["--prompts", prompts, "--reference", statistics, "--metrics", "fid,clip", "--allow", "few_samples"]
    words += ["--export-adm", tmp_path / "adm.npz"]
    assert run("measure", tmp_path / "theirs", *words, *clip, *common, "--out", tmp_path / "out") == 0
    result = json.loads((tmp_path / "out" / "images.json").read_text())
    assert result["metrics"]["fid"] > 0 and result["settings"]["clip"]["library"] == "transformers"
    assert result["metrics"]["clip_truncated"] == 6 and result["settings"]["reference"]["list"]
    assert any(mark.startswith("truncated: 6") for mark in result["marks"])
    assert any(mark.startswith("counts_differ") for mark in result["marks"])
    assert np.load(tmp_path / "adm.npz")["arr_0"].shape == (6, 24, 24, 3)


def test_sampling_alone(prompts: Path, asked: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sample", "some/m", "--prompts", prompts, "--out", tmp_path / "out", "--limit", 4]
    assert run(*words, "--text", "caption") == 0
    assert len(list((tmp_path / "out" / "drawings").glob("*.png"))) == 4
    assert "4 pictures for 4 prompts" in capsys.readouterr().out
    with pytest.raises(UserError, match="mute: this system draws no pictures"):
        run("sample", "some/mute", "--prompts", prompts, "--out", tmp_path / "out")
    with pytest.raises(UserError, match="--option x: expected KEY=VALUE"):
        run("sample", "some/m", "--prompts", prompts, "--out", tmp_path / "out", "--option", "x")


def test_a_prompt_file_that_changed_after_sampling(
    prompts: Path, networks: dict[str, str], asked: list[Any], tmp_path: Path
) -> None:
    assert run("sample", "some/m", "--prompts", prompts, "--out", tmp_path / "out") == 0
    prompts.write_text(
        prompts.read_text().replace("ship-001", "x").replace("ship-000", "ship-001").replace('"x"', '"ship-000"')
    )
    clip = ["--metrics", "clip", "--clip-model", networks["name"], "--clip-weights", networks["clip"]]
    with pytest.raises(UserError, match=r"prompt 'ship-00.' was changed after"):
        run("measure", tmp_path / "out", "--prompts", prompts, "--out", tmp_path / "some/m", *clip)


def test_the_result_names_the_system_and_how_it_drew(
    prompts: Path, networks: dict[str, str], asked: list[Any], tmp_path: Path
) -> None:
    clip = ["--metrics", "clip", "--clip-library", "transformers", "--clip-weights", networks["transformers"]]
    words = ["run", "some/m", "--prompts", prompts, "--out", tmp_path / "out", *clip]
    assert run(*words, "--seed", 3) == 0
    result = json.loads((tmp_path / "out" / "images.json").read_text())
    assert (result["model"], result["digest"]) == ("painter", "1")
    how = result["settings"]["sampling"]
    assert (how["seed"], how["text"], how["settings"]) == (3, "instruction", {"guidance": 1.5})
    assert result["settings"]["prompts"]["n"] == 6 and result["settings"]["prompts"]["left_out"] == 0
    assert run(*words, "--seed", 3, "--limit", 4) == 0, "what was drawn beyond a limit is left aside"
    fewer = json.loads((tmp_path / "out" / "images.json").read_text())
    assert fewer["n"] == 4 and fewer["settings"]["prompts"]["left_out"] == 2 and not fewer["marks"][1:]
    assert fewer["settings"]["prompts"]["digest"] != result["settings"]["prompts"]["digest"]


def test_answers_without_a_picture_are_named(
    prompts: Path, networks: dict[str, str], asked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = Painter.draw
    clip = ["--metrics", "clip", "--clip-library", "transformers", "--clip-weights", networks["transformers"]]
    words = ["run", "some/m", "--prompts", prompts, *clip, "--out"]
    monkeypatch.setattr(Painter, "draw", lambda self, prompts, seeds: ["No."] * len(prompts))
    with pytest.raises(UserError, match="none of 6 answers holds a picture; there is nothing to measure"):
        run(*words, tmp_path / "none")
    monkeypatch.setattr(Painter, "draw", lambda self, prompts, seeds: ["No.", *drawn(self, prompts, seeds)[1:]])
    with pytest.raises(UserError, match=r"1 of 6 prompts were answered without a picture, such as 'cat-000'.*missing"):
        run(*words, tmp_path / "some")
    assert run(*words, tmp_path / "some", "--allow", "missing") == 0
    result = json.loads((tmp_path / "some" / "images.json").read_text())
    assert result["n"] == 5 and result["marks"][0].startswith("missing: 1 prompts without a drawing")


def test_a_model_of_ours_and_one_of_transformers_draw_for_packed_data(
    finished_run: Path, script: Any, networks: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_source(
        [drawn_record(str(n), "Draw it.", name) for n, name in enumerate(("red", "blue"))],
        tmp_path / "data",
        split="test",
    )
    words = ["--packed", tmp_path / "data", "--size", "8", "--out", tmp_path / "p.jsonl"]
    assert run("prompts", *words) == 0
    script("Here:*")
    clip = ["--clip-library", "transformers", "--clip-weights", networks["transformers"]]
    words = ["--prompts", tmp_path / "p.jsonl", "--device", "cpu", "--metrics", "fid,clip", "--layer", "64", *clip]
    words += ["--inception-weights", networks["inception"], "--allow", "few_samples", "--resize-and-crop", 8]
    for model, options, name in (
        (finished_run, ["--option", "cfg=2.5", "--option", "top_k=5"], "tiny/generation"),
        (janus(tmp_path / "janus"), ["--option", "guidance=2"], str(tmp_path / "janus")),
    ):
        out = tmp_path / "out" / Path(name).name
        assert run("run", model, *words, *options, "--out", out) == 0
        result = json.loads((out / "images.json").read_text())
        assert (result["model"], result["n"]) == (name, 2) and result["metrics"]["fid"] > 0
        assert {row["caption"] for row in read_jsonl(out / "samples.jsonl")} == {"red", "blue"}
        how = result["settings"]["sampling"]["settings"]
        assert (how.get("visual") or how["drawing"])["cfg" if model == finished_run else "guidance"] in (2.5, 2)
    capsys.readouterr()


def test_prompts_of_classes_alone_and_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "classes.txt").write_text("tench\ngoldfish\n")
    assert run("prompts", "--classes", tmp_path / "classes.txt", "--out", tmp_path / "p.jsonl") == 0
    assert "100 prompts" in capsys.readouterr().out and len(read_jsonl(tmp_path / "p.jsonl")) == 100
    with pytest.raises(UserError, match="nothing to build from"):
        run("prompts", "--out", tmp_path / "p.jsonl")
    with pytest.raises(UserError, match="--limit goes with --packed alone"):
        run("prompts", "--classes", tmp_path / "classes.txt", "--limit", 2, "--out", tmp_path / "p.jsonl")
    with pytest.raises(UserError, match=r"--per-class: .0.; expected"):
        run("prompts", "--classes", tmp_path / "classes.txt", "--per-class", 0, "--out", tmp_path / "p.jsonl")


def test_mistakes_are_named_before_work_begins(prompts: Path, asked: list[Any], tmp_path: Path) -> None:
    write_pictures(tmp_path / "d", 2)
    for words, message in (
        (["measure", tmp_path / "d", "--metrics", "fod"], "metric 'fod'"),
        (["measure", tmp_path / "d", "--metrics", "clip"], "there are no words to score"),
        (["measure", tmp_path / "d", "--metrics", "fid"], "nothing to compare with"),
        (["measure", tmp_path / "d", "--allow", "all"], "allowance 'all'; expected some of few_samples"),
        (["measure", tmp_path / "d", "--metrics", "none", "--limit", "1"], "--limit goes with --prompts alone"),
        (["measure", tmp_path / "none", "--metrics", "none"], "not found; expected a folder"),
        (["measure", tmp_path / "d", "--prompts", prompts], "6 prompts have no drawing"),
        (["run", "some/m", "--prompts", prompts, "--metrics", "fod"], "metric 'fod'"),
        (["run", "some/m", "--prompts", prompts, "--variant", "sharp"], "variant 'sharp'"),
    ):
        with pytest.raises(UserError, match=message):
            run(*words, "--out", tmp_path / "out")
    assert not asked, "no system was opened"


def test_help_answers_without_torch() -> None:
    import subprocess
    import sys

    code = "import sys; from vargpt_lightning.commands.evaluate_images import parser; parser().format_help(); "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
    with pytest.raises(SystemExit) as stopped:
        main(["measure", "--help"])
    assert stopped.value.code == 0


def test_the_result_of_other_drawings_is_not_replaced(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_pictures(tmp_path / name, 1, size=16)
    words = ["--metrics", "none", "--out", tmp_path / "out"]
    assert run("measure", tmp_path / "a", *words) == 0
    kept = (tmp_path / "out" / "images.json").read_text()
    with pytest.raises(UserError, match=r"/a.*/b.*--out.*--replace"):
        run("measure", tmp_path / "b", *words)
    with pytest.raises(UserError, match="variant torch_fidelity"):
        run("measure", tmp_path / "a", *words, "--variant", "clean")
    assert (tmp_path / "out" / "images.json").read_text() == kept
    assert run("measure", tmp_path / "a", *words) == 0 and run("measure", tmp_path / "b", *words, "--replace") == 0


def test_density_cmmd_and_a_model_of_pairs(prompts: Path, networks: dict[str, str], tmp_path: Path) -> None:
    for place, row in enumerate(read_jsonl(prompts)):
        (tmp_path / "theirs").mkdir(exist_ok=True)
        Image.new("RGB", (24, 24), (40 * place, 90, 30)).save(tmp_path / "theirs" / f"{row['id']}.png")
    words = ["--layer", "64", "--inception-weights", networks["inception"], "--device", "cpu", "--prompts", prompts]
    words += ["--clip-model", networks["name"], "--clip-weights", networks["clip"], "--dc-neighbours", 2]
    words += ["--pair-weights", f"pickscore={networks['transformers']}", "--out", tmp_path / "out"]
    assert run("measure", tmp_path / "theirs", "--metrics", "dc,cmmd,pickscore", *words) == 0
    result = json.loads((tmp_path / "out" / "images.json").read_text())
    names = {"density", "coverage", "cmmd", "pickscore", "pickscore_error", "pickscore_n"}
    assert set(result["metrics"]) == names and result["metrics"]["cmmd"] > 0
    assert result["settings"]["pickscore"]["text"] == "caption" and result["settings"]["cmmd"]["extractor"] == "clip"
    scores = [row["pickscore"] for row in read_jsonl(tmp_path / "out" / "samples.jsonl")]
    assert sum(scores) / 6 == pytest.approx(result["metrics"]["pickscore"])
    with pytest.raises(UserError, match="vqa_score: nobody to ask; expected --vqa-model"):
        run("measure", tmp_path / "theirs", "--metrics", "vqa_score", *words)
    with pytest.raises(UserError, match="expected NAME=PATH, the name one of pickscore"):
        run("measure", tmp_path / "theirs", "--metrics", "pickscore", *words, "--pair-weights", "clip=x")
