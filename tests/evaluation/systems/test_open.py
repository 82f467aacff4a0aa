"""One word of the command line becomes a system."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.evaluation.systems.conftest import folders
from vargpt_lightning.evaluation.systems.files import Drawings, Predictions
from vargpt_lightning.evaluation.systems.open import open_system
from vargpt_lightning.evaluation.systems.openai_endpoint import OpenAIEndpoint
from vargpt_lightning.evaluation.systems.own import OwnSystem
from vargpt_lightning.evaluation.systems.transformers_model import TransformersModel
from vargpt_lightning.utils.errors import UserError

__all__ = ["folders"]


def exported(run: Path, folder: Path) -> Path:
    folder.mkdir()
    shutil.copy(run / "config.yaml", folder)
    shutil.copytree(run / "tokenizer", folder / "tokenizer")
    shutil.copy(run / "stages" / "02-generation" / "model.safetensors", folder)
    return folder


def test_a_run_and_what_was_exported_from_it_are_the_same_model(finished_run: Path, tmp_path: Path) -> None:
    run = open_system(str(finished_run), device="cpu", dtype=None)
    copy = open_system(str(exported(finished_run, tmp_path / "mine")))
    assert isinstance(run, OwnSystem) and isinstance(copy, OwnSystem)
    assert (run.name, copy.name) == ("tiny/generation", "mine")
    assert run.digest == copy.digest and run.settings == copy.settings
    other = open_system(str(finished_run), stage="pretrain")
    assert other.name == "tiny/pretrain" and other.digest != run.digest


def test_a_torn_export_is_refused(finished_run: Path, tmp_path: Path) -> None:
    folder = exported(finished_run, tmp_path / "mine")
    (folder / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"model\.safetensors is not readable as safetensors"):
        open_system(str(folder))
    (folder / "config.yaml").write_text("a: 1\n")
    with pytest.raises(UserError, match=r"config\.yaml: expected a run's configuration with a section `model`"):
        open_system(str(folder))


def test_other_systems_by_what_is_there(tmp_path: Path, folders: Any) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps({"id": "a", "output": "x"}))
    (tmp_path / "drawn").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "drawn" / "a.png")
    answers = open_system(str(tmp_path / "p.jsonl"), device="cuda:3", allow=("missing",))
    assert isinstance(answers, Predictions) and answers.allow == {"missing"}
    assert isinstance(open_system(str(tmp_path / "drawn")), Drawings)
    service = open_system("openai:http://localhost:8000/v1#my/model", device="cuda:3", concurrency=3)
    assert isinstance(service, OpenAIEndpoint)
    assert (service.url, service.name, service.options.concurrency) == ("http://localhost:8000/v1", "my/model", 3)
    model = open_system(str(folders("llava")), dtype="float32", template="plain", device="cpu")
    assert isinstance(model, TransformersModel) and model.template == "plain"


def test_how_our_models_draw_is_an_option(finished_run: Path, tmp_path: Path) -> None:
    usual = open_system(str(finished_run))
    changed = open_system(str(finished_run), cfg=3.0, top_k=7)
    before, after = (system.settings["visual"] for system in (usual, changed))
    assert {key for key in before if before[key] != after[key]} == {"cfg", "top_k"} and after["cfg"] == 3.0
    copy = open_system(str(exported(finished_run, tmp_path / "mine")), cfg=3.0, top_k=7)
    assert copy.settings["visual"] == after
    with pytest.raises(UserError, match="top_k: got -1"):
        open_system(str(finished_run), top_k=-1)
    with pytest.raises(UserError, match="option 'stage' does not go with an exported directory"):
        open_system(str(tmp_path / "mine"), stage="base")


def test_drawings_in_folders_by_class_are_a_folder_of_drawings(tmp_path: Path) -> None:
    (tmp_path / "drawn" / "cat").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "drawn" / "cat" / "1.PNG")
    assert isinstance(open_system(str(tmp_path / "drawn")), Drawings)
    (tmp_path / "drawn" / "notes.md").write_text("a run of something else, with samples below it")
    with pytest.raises(UserError, match=r"holds cat, notes\.md; expected a run folder"):
        open_system(str(tmp_path / "drawn"))


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("./nowhere", {}, "there is no such file or folder; expected a run folder, openai:"),
        ("answers.jsonl", {}, "there is no such file or folder"),
        ("openai:http://x/v1", {}, "expected openai:URL#model"),
        ("openai:http://x/v1#m", {"dtype": "bfloat16"}, "option 'dtype' does not go with an endpoint"),
        ("{tmp}/p.jsonl", {"stage": "base"}, "option 'stage' does not go with a file of answers; expected allow"),
        ("{tmp}/p.txt", {}, r"\.txt suffix; a file of answers ends with"),
        ("{tmp}/other", {}, "holds notes.md; expected a run folder"),
    ],
)
def test_what_cannot_be_opened(tmp_path: Path, text: str, options: dict[str, Any], message: str) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.md").write_text("x")
    for name in ("p.jsonl", "p.txt"):
        (tmp_path / name).write_text(json.dumps({"id": "a", "output": "x"}))
    with pytest.raises(UserError, match=message):
        open_system(text.replace("{tmp}", str(tmp_path)), **options)
