"""Weights by path first, then by hub id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from vargpt_lightning.checkpoints.locate import locate
from vargpt_lightning.utils.errors import UserError


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """What was asked of the hub."""
    asked: list[Any] = []

    def snapshot(repo: str, **options: Any) -> str:
        asked.append((repo, None, options))
        return str(tmp_path)

    def file(repo: str, name: str, **options: Any) -> str:
        asked.append((repo, name, options))
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", file)
    return asked


def test_a_path_comes_before_the_hub(hub: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner/name").mkdir(parents=True)
    assert locate("owner/name") == Path("owner/name") and not hub
    locate("owner/other", token=None)
    locate("owner/other/deep/file.pth@v1", token="t")
    assert [(repo, name) for repo, name, _ in hub] == [("owner/other", None), ("owner/other", "deep/file.pth")]
    patterns = hub[0][2]["allow_patterns"]
    assert hub[0][2].keys() == {"allow_patterns"} and "*.safetensors" in patterns
    assert not any(pattern.endswith((".py", ".pth", ".bin", ".pt", "*")) for pattern in patterns)
    assert hub[1][2] == {"revision": "v1", "token": "t"}


@pytest.mark.parametrize("name", ["./owner/name", "/owner/name", "name", "~/owner", "file.pth"])
def test_what_is_no_hub_id_is_not_asked_for(name: str, hub: list[Any]) -> None:
    with pytest.raises(UserError, match="there is no such file or folder"):
        locate(name)
    assert not hub


def test_a_hub_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("Cannot find it. Check your connection.")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError, match=r"owner/name: is not a local path, and the hub does not provide it"):
        locate("owner/name")
