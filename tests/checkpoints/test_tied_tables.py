"""A table of words that is tied is one tensor after every way of loading; two that differ are refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.models.cases import small_model
from tests.tiny import tiny_config, tiny_stage
from vargpt_lightning.callbacks.ema import EMA
from vargpt_lightning.checkpoints.convert import convert
from vargpt_lightning.checkpoints.copy import place
from vargpt_lightning.checkpoints.dcp.folder import FolderWriter, folder_for
from vargpt_lightning.checkpoints.dcp.tensors import open_distributed
from vargpt_lightning.checkpoints.deferred import DeferredWeights
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.checkpoints.init_from import InitFrom, initialise
from vargpt_lightning.checkpoints.lazy_tensors import MemoryTensor
from vargpt_lightning.checkpoints.open import open_checkpoint
from vargpt_lightning.checkpoints.published import layouts
from vargpt_lightning.checkpoints.published.layouts import TABLES
from vargpt_lightning.checkpoints.stage_weights import load_weights
from vargpt_lightning.models.language.lora import attach_adapters, freeze_beside_adapters, merge_adapters
from vargpt_lightning.modules.trainable import freeze_all_but
from vargpt_lightning.utils.errors import UserError


def tied_model(seed: int = 0) -> VARGPT:
    torch.manual_seed(seed)
    config = tiny_config()
    return VARGPT(replace(config, language=replace(config.language, tie_embeddings=True))).eval()


def is_tied(model: VARGPT) -> bool:
    return model.language_model.lm_head.weight is model.language_model.model.embed_tokens.weight


def same(one: VARGPT, other: VARGPT) -> bool:
    state = other.state_dict()
    return all(torch.equal(value, state[key]) for key, value in one.state_dict().items())


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tied") / "model"
    tied_model().save_pretrained(folder)
    return folder


def from_published_names(saved: Path, folder: Path) -> VARGPT:
    return VARGPT.from_pretrained(saved)


def in_16_bits(saved: Path, folder: Path) -> VARGPT:
    return VARGPT.from_pretrained(saved, dtype=torch.bfloat16).float()


def converted(saved: Path, folder: Path) -> VARGPT:
    convert(saved, folder / "again")
    return VARGPT.from_pretrained(folder / "again")


def a_runs_weights(saved: Path, folder: Path) -> VARGPT:
    model = tied_model(1)
    load_weights(model, saved / "model.safetensors")
    return model


def first_weights(saved: Path, folder: Path) -> VARGPT:
    model = tied_model(1)
    initialise(model, InitFrom(model=str(saved)))
    return model


def without_memory(saved: Path, folder: Path) -> VARGPT:
    weights = DeferredWeights(tied_model().config, 1)
    weights.take(open_checkpoint(saved).state)
    weights.fill(torch.device("cpu"))
    return weights.model


def taken_over(saved: Path, folder: Path) -> VARGPT:
    with torch.device("meta"):
        model = VARGPT(tied_model().config)
    layouts.load(model, load_file(saved / "model.safetensors"), assign=True)
    return model


def once_in_the_file(saved: Path, folder: Path) -> VARGPT:
    shutil.copytree(saved, folder / "once")
    state = load_file(saved / "model.safetensors")
    del state[TABLES[1]]
    save_file(state, folder / "once" / "model.safetensors")
    return VARGPT.from_pretrained(folder / "once")


def distributed(saved: Path, folder: Path) -> VARGPT:
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    try:
        target = folder_for(folder / "last.ckpt", 1)
        FolderWriter().save({"model": {"vargpt": tied_model().state_dict()}}, {"global_step": 1}, target)
        model = tied_model(1)
        place(model, open_distributed(target, "model.vargpt."))
    finally:
        dist.destroy_process_group()
    return model


WAYS = (
    *(from_published_names, in_16_bits, converted, a_runs_weights, first_weights, without_memory, taken_over),
    *(once_in_the_file, distributed),
)


@pytest.mark.parametrize("way", WAYS)
def test_a_tied_table_is_one_tensor_after_loading(way: Any, saved: Path, tmp_path: Path) -> None:
    model, original = way(saved, tmp_path), tied_model()
    assert is_tied(model) and len(list(model.parameters())) == len(list(original.parameters()))
    assert way is in_16_bits or same(model, original)
    assert is_tied(model.to(torch.bfloat16).to_empty(device="meta").to_empty(device="cpu"))


def test_fresh_weights_of_a_model_without_memory_are_those_of_one_with_it() -> None:
    weights = DeferredWeights(tied_model().config, 5)
    weights.fill(torch.device("cpu"))
    torch.manual_seed(5)
    assert is_tied(weights.model) and same(weights.model, VARGPT(weights.model.config))


def test_training_moves_both(saved: Path) -> None:
    models = [tied_model(), VARGPT.from_pretrained(saved)]
    for model in models:
        optimizer = torch.optim.SGD(model.language_model.parameters(), 0.5)
        logits_BTV: Tensor = model.language_model(torch.arange(20)[None])
        logits_BTV.square().mean().backward()
        optimizer.step()
    assert same(*models)


@pytest.mark.parametrize("way", [from_published_names, converted, a_runs_weights, first_weights, taken_over])
def test_tables_that_differ_are_refused_by_name(way: Any, saved: Path, tmp_path: Path) -> None:
    """As models have them whose two copies were trained apart."""
    other = tmp_path / "other"
    shutil.copytree(saved, other)
    state = load_file(other / "model.safetensors")
    state[TABLES[1]] = state[TABLES[1]] + 1e-6
    save_file(state, other / "model.safetensors")
    with pytest.raises(UserError, match=f"{TABLES[0]}.*{TABLES[1]}.*tie_embeddings"):
        way(other, tmp_path)


def test_one_table_is_not_taken_for_two(saved: Path, tmp_path: Path) -> None:
    once_in_the_file(saved, tmp_path)
    torch.manual_seed(0)
    init = {name: str(tmp_path / "once") for name in ("language_model",)}
    with pytest.raises(UserError, match="tie_embeddings"):
        initialise(VARGPT(tiny_config()), InitFrom(**init))  # type: ignore[arg-type]


def test_new_rows_are_drawn_once(tmp_path: Path) -> None:
    before = tied_model()
    before.save_pretrained(tmp_path)
    config = before.config
    larger = VARGPT(replace(config, language=replace(config.language, vocabulary=310)))
    initialise(larger, InitFrom(model=str(tmp_path), new_rows="normal"))
    assert is_tied(larger)


def tied_llava(folder: Path, names: str) -> dict[str, Tensor]:
    """A LLaVA-1.5 whose language model has one table, as transformers writes it."""
    model = small_model(language=replace(small_model().config.language, tie_embeddings=True))
    convert(_own(model, folder / "own"), folder / "llava", "llava")
    config = json.loads((folder / "llava" / "config.json").read_text())
    assert config["tie_word_embeddings"] is True and config["text_config"]["tie_word_embeddings"] is True
    state = load_file(folder / "llava" / "model.safetensors")
    assert not any("lm_head" in key for key in state)
    if names == "in the text's section alone":
        config["tie_word_embeddings"] = False
    if names == "nowhere":
        del config["tie_word_embeddings"], config["text_config"]["tie_word_embeddings"]
    if names == "both tables":
        state["language_model.lm_head.weight"] = state["language_model.model.embed_tokens.weight"].clone()
    (folder / "llava" / "config.json").write_text(json.dumps(config))
    save_file(state, folder / "llava" / "model.safetensors", {"format": "pt"})
    return dict(model.state_dict())


def _own(model: VARGPT, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("told", ["as written", "in the text's section alone", "nowhere", "both tables"])
def test_tied_llava_checkpoints_come_in_and_go_out(told: str, tmp_path: Path) -> None:
    state = tied_llava(tmp_path, told)
    opened = open_checkpoint(tmp_path / "llava")
    assert opened.sections["language"]["tie_embeddings"] is True
    convert(tmp_path / "llava", tmp_path / "ours")
    target = small_model(1, language=replace(small_model().config.language, tie_embeddings=True))
    init = InitFrom(language_model=str(tmp_path / "ours"), vision_tower=str(tmp_path / "llava"))
    initialise(target, init)
    assert is_tied(target)
    assert torch.equal(target.language_model.lm_head.weight[:102], state[TABLES[0]][:102]), "all but the drawn tokens'"
    convert(tmp_path / "llava", tmp_path / "again", "llava")
    assert load_file(tmp_path / "again" / "model.safetensors").keys() >= {"language_model.model.embed_tokens.weight"}


def test_transformers_reads_a_tied_llava(tmp_path: Path) -> None:
    from transformers import LlavaForConditionalGeneration

    state = tied_llava(tmp_path, "as written")
    theirs: Any = LlavaForConditionalGeneration.from_pretrained(tmp_path / "llava")
    assert torch.equal(theirs.lm_head.weight, state[TABLES[0]])
    assert theirs.lm_head.weight is theirs.get_input_embeddings().weight


def test_a_llava_that_says_it_has_two_and_has_one_is_refused(tmp_path: Path) -> None:
    tied_llava(tmp_path, "as written")
    config = json.loads((tmp_path / "llava" / "config.json").read_text())
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = False
    (tmp_path / "llava" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=TABLES[1]):
        convert(tmp_path / "llava", tmp_path / "ours")


def test_adapters_leave_a_tied_table_as_it_is_and_merge_beside_it() -> None:
    pytest.importorskip("peft")
    model = tied_model()
    language = model.language_model
    attach_adapters(language, 2, 4.0)
    with torch.no_grad():
        for name, parameter in language.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    ids = torch.arange(12)[None]
    before = language(ids)
    merge_adapters(language)
    assert is_tied(model)
    torch.testing.assert_close(language(ids), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["lm_head", "embed_tokens"])
def test_a_tied_table_is_trained_beside_adapters_under_either_name(name: str) -> None:
    pytest.importorskip("peft")
    language = tied_model().language_model
    attach_adapters(language, 2, 4.0)
    freeze_beside_adapters(language, [name])
    assert language.lm_head.weight.requires_grad and not language.model.norm.weight.requires_grad


def test_a_checkpoint_has_the_raw_table_under_both_names_while_the_average_is_in_the_model() -> None:
    model = tied_model()
    freeze_all_but(model, tiny_stage("base"))
    average = EMA(0.5)
    average.follow(model)
    raw = model.language_model.lm_head.weight.detach().clone() + 1
    with torch.no_grad():
        model.language_model.lm_head.weight.add_(1)
    average.swap_in(model)
    checkpoint: dict[str, Any] = {"state_dict": dict(model.state_dict())}
    average.on_save_checkpoint(None, model, checkpoint)  # type: ignore[arg-type]
    assert all(torch.equal(checkpoint["state_dict"][key], raw) for key in TABLES)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(value: float, saved: Path, tmp_path: Path) -> None:
    key, other = "visual_decoder.head.bias", tmp_path / "other"
    shutil.copytree(saved, other)
    state = load_file(other / "model.safetensors")
    state[key][3] = value
    save_file(state, other / "model.safetensors")
    for way in (from_published_names, converted, a_runs_weights, first_weights, without_memory):
        with pytest.raises(UserError, match=f"{key}.*1 "):
            way(other, tmp_path)
    assert not (tmp_path / "again").exists()
    torch.save({key: value for key, value in state.items()}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=key):
        place(tied_model(), {name: MemoryTensor(tensor) for name, tensor in state.items()})
