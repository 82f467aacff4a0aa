"""Files of CLIP weights: with which activation they are used, and OpenAI's archives read without running them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.evaluation.pictures import TINY_CLIP, write_open_clip
from vargpt_lightning.evaluation.features.clip import open_clip_model
from vargpt_lightning.evaluation.features.clip_weights import read_clip_file
from vargpt_lightning.utils.errors import UserError


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A model that open_clip knows with either activation, as ViT-L-14, and a file of plain weights for it."""
    import open_clip

    folder = tmp_path_factory.mktemp("both")
    name, file = write_open_clip(folder / "weights", "twin-clip")
    (folder / "more").mkdir()
    (folder / "more" / "twin-clip-quickgelu.json").write_text(json.dumps({**TINY_CLIP, "quick_gelu": True}))
    open_clip.add_model_config(folder / "more")
    return name, file


def as_archive(state: dict[str, torch.Tensor], path: Path) -> Path:
    """A TorchScript archive with these weights, in half precision beside three numbers, as OpenAI publishes its own."""
    root = torch.nn.Module()
    for name, value in state.items():
        *parents, last = name.split(".")
        module = root
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, torch.nn.Module())
            module = getattr(module, parent)
        half = value.half() if value.is_floating_point() else value
        module.register_buffer(last, half)
    for name in ("input_resolution", "context_length", "vocab_size"):
        root.register_buffer(name, torch.tensor(32))
    torch.jit.save(torch.jit.script(root), str(path))
    return path


def test_an_activation_that_nobody_tells_is_asked_for(both: tuple[str, Path]) -> None:
    name, file = both
    with pytest.raises(UserError, match=r"twin-clip.*--clip-quick-gelu.*--no-clip-quick-gelu") as caught:
        open_clip_model(name, str(file))
    assert str(file) in str(caught.value)
    found = [open_clip_model(name, str(file), quick_gelu=given).settings for given in (True, False)]
    found.append(open_clip_model(f"{name}-quickgelu", str(file)).settings)
    assert [one["quick_gelu"] for one in found] == [True, False, True]
    assert [one["activation_known_by"] for one in found] == ["the option", "the option", "the model's name"]
    with pytest.raises(UserError, match="the model's name says QuickGELU"):
        open_clip_model(f"{name}-quickgelu", str(file), quick_gelu=False)


def test_openais_archive_tells_its_activation_and_is_read_as_data(both: tuple[str, Path], tmp_path: Path) -> None:
    name, file = both
    state = torch.load(file, weights_only=True)
    archive = as_archive(state, tmp_path / "ViT-B-32.pt")
    kept = read_clip_file(archive)
    assert kept.state.keys() == state.keys() and kept.openai
    for key, value in state.items():
        assert kept.state[key].dtype == value.dtype
        torch.testing.assert_close(kept.state[key], value.half().float() if value.is_floating_point() else value)
    model = open_clip_model(name, str(archive))
    assert model.settings["quick_gelu"] and "TorchScript" in model.settings["activation_known_by"]
    with pytest.raises(UserError, match="--no-clip-quick-gelu"):
        open_clip_model(name, str(archive), quick_gelu=False)


def test_a_plain_archive_of_another_module_is_no_clip(both: tuple[str, Path], tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / "other.pt"))
    with pytest.raises(UserError, match=r"other\.pt"):
        open_clip_model(both[0], str(tmp_path / "other.pt"), quick_gelu=False)


def test_the_configuration_beside_a_file_tells_its_activation(both: tuple[str, Path], tmp_path: Path) -> None:
    for quick in (True, False):
        folder = tmp_path / str(quick)
        folder.mkdir()
        (folder / "weights.pt").write_bytes(both[1].read_bytes())
        config = {"model_cfg": {**TINY_CLIP, **({"quick_gelu": True} if quick else {})}}
        (folder / "open_clip_config.json").write_text(json.dumps(config))
        settings = open_clip_model(both[0], str(folder / "weights.pt")).settings
        assert settings["quick_gelu"] is quick and settings["activation_known_by"] == "open_clip_config.json"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(both: tuple[str, Path], tmp_path: Path, bad: float) -> None:
    state = torch.load(both[1], weights_only=True)
    state["visual.proj"][0, 0] = bad
    torch.save(state, tmp_path / "bad.pt")
    with pytest.raises(UserError, match=r"bad\.pt.*visual\.proj.*NaN or infinity"):
        open_clip_model(both[0], str(tmp_path / "bad.pt"), quick_gelu=False)
