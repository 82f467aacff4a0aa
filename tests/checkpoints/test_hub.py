"""Models saved in directories of their own, loaded again, and pushed to the hub."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub.hub_mixin
import pytest
import torch

from tests.models.cases import DRAWN, SEEN, make_batch, random_codes, small_model
from vargpt_lightning.checkpoints import hub as pretrained
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.models.core.config import VisionConfig
from vargpt_lightning.utils.errors import UserError


def loss(model: VARGPT) -> float:
    batch: dict[str, Any] = make_batch([[1, *SEEN, 5, *DRAWN, 6]])
    batch["pixel_values"] = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    batch["drawn_indices"] = random_codes(1)
    with torch.inference_mode():
        return float(model(batch).loss)


def test_the_tokenizer_files_by_their_old_name() -> None:
    model = small_model()
    with pytest.warns(DeprecationWarning, match="tokenizer_files now"):
        model.companions = {"tokenizer.json": b"{}"}
    assert model.tokenizer_files == {"tokenizer.json": b"{}"}
    with pytest.warns(DeprecationWarning, match="tokenizer_files now"):
        assert model.companions is model.tokenizer_files


def test_a_saved_model_is_the_same_when_loaded(tmp_path: Path) -> None:
    model = small_model()
    model.tokenizer_files, model.sampling = {"tokenizer.json": b'{"model": {}}'}, {"cfg": 4.0}
    model.save_pretrained(tmp_path)
    other = VARGPT.from_pretrained(tmp_path)
    assert other.config == model.config and not other.training
    assert loss(other) == loss(model)
    assert other.tokenizer_files == model.tokenizer_files and other.sampling_settings().cfg == 4.0
    other.save_pretrained(tmp_path / "again")
    for file in tmp_path.iterdir():
        assert file.is_dir() or file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "vargpt_lightning" and len(config["parts"]) == 7
    pictures = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert pictures["seen"]["size"] == 28 and pictures["drawn"]["size"] == 16


def test_type_and_trained_tower_are_kept(tmp_path: Path) -> None:
    model = VARGPT(replace(small_model().config, vision=VisionConfig(picture_size=64)))
    with torch.no_grad():
        next(model.vision_tower.parameters()).add_(1)  # type: ignore[union-attr]
    model.bfloat16().save_pretrained(tmp_path)
    for dtype in (None, torch.float32):
        other = VARGPT.from_pretrained(tmp_path, dtype=dtype)
        expected = model.to(dtype or torch.bfloat16).state_dict()
        assert all(torch.equal(value, expected[key]) for key, value in other.state_dict().items())
        assert next(other.parameters()).dtype == (dtype or torch.bfloat16)


def test_what_was_there_before_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = pretrained.write_shards
    monkeypatch.setattr(pretrained, "write_shards", lambda a, b, limit, rank: written(a, b, 50_000, rank))
    small_model(1).save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    monkeypatch.setattr(pretrained, "write_shards", written)
    small_model(2).save_pretrained(tmp_path)
    assert [file.name for file in tmp_path.glob("*.safetensors*")] == ["model.safetensors"]
    assert loss(VARGPT.from_pretrained(tmp_path)) == loss(small_model(2))


def test_a_directory_that_is_torn_is_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_model(1).save_pretrained(tmp_path)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pretrained, "write_shards", killed)
    with pytest.raises(KeyboardInterrupt):
        small_model(2).save_pretrained(tmp_path)
    assert not (tmp_path / "config.json").exists()
    with pytest.raises(UserError, match=r"holds weights of ours without their config\.json"):
        VARGPT.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2; this release reads 1"),
        ({"model": None}, "there is no section `model`"),
        ({"model": {"langauge": {}}}, "langauge: got"),
    ],
)
def test_a_directory_of_another_kind_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    small_model().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(UserError, match=message):
        VARGPT.from_pretrained(tmp_path)


def test_it_is_pushed_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mixin uploads what `save_pretrained` writes; the hub itself is not asked."""
    sent: dict[str, bytes] = {}

    class Hub:
        def __init__(self, **_: Any) -> None: ...

        def create_repo(self, repo_id: str, **_: Any) -> Any:
            return type("Repo", (), {"repo_id": repo_id})()

        def upload_folder(self, folder_path: Any, repo_id: str, **_: Any) -> str:
            sent.update({file.name: file.read_bytes() for file in Path(folder_path).iterdir()})
            return repo_id

    monkeypatch.setattr(huggingface_hub.hub_mixin, "HfApi", Hub)
    model = small_model()
    model.tokenizer_files = {"tokenizer.json": b"{}"}
    assert model.push_to_hub("owner/name") == "owner/name"
    assert sent.keys() == {
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
    }

    def fetched(repo: str, **options: Any) -> str:
        assert (repo, options["revision"]) == ("owner/name", "v1")
        for name, content in sent.items():
            (tmp_path / name).write_bytes(content)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    assert loss(VARGPT.from_pretrained("owner/name", revision="v1")) == loss(model)


def test_the_package_itself_imports_no_torch() -> None:
    code = "import sys, vargpt_lightning; print('torch' in sys.modules); vargpt_lightning.nothing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False" and "has no attribute 'nothing'" in done.stderr
