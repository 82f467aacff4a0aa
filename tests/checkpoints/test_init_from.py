"""First weights out of several checkpoints: what is taken, what is new, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.models.cases import small_model
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.checkpoints.init_from import CLASSES, WORDS, GrownRows, InitFrom, describe, initialise
from vargpt_lightning.checkpoints.lazy_tensors import MemoryTensor
from vargpt_lightning.checkpoints.published import layouts
from vargpt_lightning.utils.errors import UserError

SPARE = 110
"""Rows of the published vocabulary; the model has 112, and the tokens around drawn pictures at 102 to 104."""


def llava_state(rows: int = SPARE, **changes: Any) -> dict[str, torch.Tensor]:
    state = layouts.to_official(small_model(5).state_dict(), "llava")
    cut = {
        key: value[:rows] if key.endswith(("embed_tokens.weight", "lm_head.weight")) else value
        for key, value in state.items()
    }
    merged = {**cut, **changes}
    return {key: value.contiguous().clone() for key, value in merged.items() if value is not None}


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, str]:
    """LLaVA, VAR and VAR's image tokenizer, each in its published form; the section init_from that names them."""
    other = small_model(5)
    save_file(llava_state(), tmp_path / "llava.safetensors")
    torch.save(layouts.to_official(other.state_dict(), "var", other.schedule), tmp_path / "var.pth")
    torch.save(other.image_tokenizer.state_dict(), tmp_path / "vae.pth")
    llava = str(tmp_path / "llava.safetensors")
    return {
        "language_model": llava,
        "vision_tower": llava,
        "vision_projector": llava,
        "image_tokenizer": str(tmp_path / "vae.pth"),
        "visual_decoder": str(tmp_path / "var.pth"),
    }


def expected_rows(rows: int = SPARE) -> tuple[torch.Tensor, torch.Tensor]:
    """The published rows that stay and their mean, for the embedding."""
    table = small_model(5).state_dict()[WORDS[0]][:rows]
    kept = torch.tensor([row not in (102, 103, 104) for row in range(rows)])
    return table, table[kept].double().mean(0).float()


def test_three_official_parts_make_a_model(parts: dict[str, str]) -> None:
    model, before, other = small_model(1), small_model(1).state_dict(), small_model(5).state_dict()
    report = initialise(model, InitFrom(**parts))
    for key, value in model.state_dict().items():
        if key.startswith("generation_projector"):
            assert torch.equal(value, before[key]) and report["parameters"][key]["from"] is None
        elif key not in WORDS:
            assert torch.equal(value, other[key]), key
            assert report["parameters"][key]["from"] in parts.values()
    table, mean = expected_rows()
    words = model.state_dict()[WORDS[0]]
    new = [102, 103, 104, 110, 111]
    assert torch.allclose(words[new], mean.expand(5, -1), atol=1e-7)
    old = [row for row in range(SPARE) if row not in new]
    assert torch.equal(words[old], table[old])
    entry = report["parameters"][WORDS[0]]
    assert entry["new_rows"] == new and entry["key"] == "language_model.model.embed_tokens.weight"
    assert sum(value["numbers"] for value in report["parameters"].values()) == sum(t.numel() for t in before.values())
    text = "\n".join(describe(report))
    assert "5 new rows (mean) in lm_head.weight" in text and "generation_projector_in" in text and " new" in text


def test_rows_can_be_drawn_or_kept(parts: dict[str, str], tmp_path: Path) -> None:
    one, two = small_model(1), small_model(2)
    for model in (one, two):
        initialise(model, InitFrom(**parts, new_rows="normal"), seed=3)
    words = one.state_dict()[WORDS[0]]
    assert torch.equal(words, two.state_dict()[WORDS[0]]) and not torch.equal(words[102], words[103])
    initialise(two, InitFrom(**parts, new_rows="normal"), seed=4)
    assert not torch.equal(words[102], two.state_dict()[WORDS[0]][102])
    with pytest.raises(UserError, match=r"lm_head\.weight has 110 rows, the model 112; with init_from\.new"):
        initialise(one, InitFrom(**parts, new_rows="keep"))
    save_file(llava_state(112), tmp_path / "full.safetensors")
    initialise(one, InitFrom(language_model=str(tmp_path / "full.safetensors"), new_rows="keep"))
    assert torch.equal(one.state_dict()[WORDS[0]], small_model(5).state_dict()[WORDS[0]])


def test_class_rows_grow_and_the_last_stays_last(parts: dict[str, str]) -> None:
    config = small_model().config
    model = VARGPT(replace(config, decoder=replace(config.decoder, classes=107)))
    report = initialise(model, InitFrom(visual_decoder=parts["visual_decoder"]))
    stored, grown = small_model(5).state_dict()[CLASSES], model.state_dict()[CLASSES]
    assert torch.equal(grown[:103], stored[:103]) and torch.equal(grown[107], stored[103])
    assert torch.allclose(grown[103:107], stored.double().mean(0).float().expand(4, -1), atol=1e-7)
    assert report["parameters"][CLASSES]["new_rows"] == [103, 104, 105, 106]


def test_a_part_of_grown_rows_is_that_part_of_the_whole() -> None:
    table = torch.randn(9, 4)
    places = (0, 1, 2, None, 4, 5, None, 8)
    grown = GrownRows(MemoryTensor(table), "key", torch.Size((8, 4)), places, frozenset({1, 3, 6}), "normal", 1)
    whole = grown.part()
    assert torch.equal(whole[[0, 2, 4, 5, 7]], table[[0, 2, 4, 5, 8]])
    for begin in range(8):
        for end in range(begin, 9):
            assert torch.equal(grown.part(slice(begin, end), slice(1, 3)), whole[begin:end, 1:3])


def test_rows_that_stay_are_read_without_the_rest() -> None:
    """A process whose part has no new row does not read the vocabulary."""
    read: list[slice] = []

    class Watched(MemoryTensor):
        def part(self, *where: slice) -> torch.Tensor:
            read.append(where[0])
            return super().part(*where)

    grown = GrownRows(Watched(torch.randn(9, 4)), "key", torch.Size((9, 4)), tuple(range(9)), frozenset({8}), "mean")
    grown.part(slice(2, 5))
    assert read == [slice(2, 5)]


def test_what_is_missing_or_unused_is_an_error_unless_named(parts: dict[str, str], tmp_path: Path) -> None:
    bias = "language_model.model.norm.weight"
    save_file(llava_state(**{bias: None, "language_model.model.tail": torch.zeros(2)}), tmp_path / "odd.safetensors")
    where = str(tmp_path / "odd.safetensors")
    model = small_model(1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(UserError, match=rf"init_from\.language_model \(.*\): key {bias} is missing.*init_from\.ignore"):
        initialise(model, InitFrom(language_model=where))
    with pytest.raises(UserError, match=r"key language_model\.model\.tail of shape \(2,\) has no place"):
        initialise(model, InitFrom(language_model=where, ignore=[bias]))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    report = initialise(model, InitFrom(language_model=where, ignore=[bias, "*.tail"]))
    assert report["parameters"][bias]["from"] is None and torch.equal(model.state_dict()[bias], before[bias])
    with pytest.raises(UserError, match=r"init_from\.ignore: 'visual\*' matches no missing and no unused key"):
        initialise(model, InitFrom(language_model=where, ignore=[bias, "*.tail", "visual*"]))


def test_what_does_not_fit_is_refused(parts: dict[str, str], tmp_path: Path) -> None:
    model = small_model(1)
    with pytest.raises(UserError, match=r"init_from\.visual_decoder .*holds image_tokenizer; expected visual_decoder"):
        initialise(model, InitFrom(visual_decoder=parts["image_tokenizer"]))
    save_file(llava_state(112, **{"language_model.lm_head.weight": torch.zeros(120, 32)}), tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=r"lm_head\.weight has shape \(120, 32\), the model expects \(112, 32\)"):
        initialise(model, InitFrom(language_model=str(tmp_path / "x.safetensors")))
    other = small_model(5)
    other.config = replace(other.config, tokens=replace(other.config.tokens, image=99))
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match=r"its token image has id 99, model\.tokens\.image is 100"):
        initialise(model, InitFrom(model=str(tmp_path / "other")))


def test_a_checkpoint_that_was_built_otherwise_is_refused(tmp_path: Path) -> None:
    """Shapes alone would let it pass."""
    other = small_model(5)
    other.config = replace(other.config, language=replace(other.config.language, rope_theta=500.0))
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match=r"its language\.rope_theta is 500\.0, model\.language\.rope_theta is 10000\.0"):
        initialise(small_model(1), InitFrom(language_model=str(tmp_path / "other")))
    initialise(small_model(1), InitFrom(visual_decoder=str(tmp_path / "other")))


def test_a_whole_model_with_one_part_from_elsewhere(parts: dict[str, str], tmp_path: Path) -> None:
    small_model(6).save_pretrained(tmp_path / "whole")
    model = small_model(1)
    report = initialise(model, InitFrom(model=str(tmp_path / "whole"), visual_decoder=parts["visual_decoder"]))
    five, six = small_model(5).state_dict(), small_model(6).state_dict()
    for key, value in model.state_dict().items():
        assert torch.equal(value, (five if key.startswith("visual_decoder.") else six)[key]), key
    assert not any(entry["from"] is None for entry in report["parameters"].values())


def test_settings_are_checked() -> None:
    with pytest.raises(UserError, match=r"init_from\.new_rows: got 'zero', expected one of mean, normal, keep"):
        InitFrom(new_rows="zero")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"init_from\.ignore: given, but no submodule"):
        InitFrom(ignore=["x"])
    assert not InitFrom() and InitFrom(generation_projectors="x").places() == {
        "generation_projector_in": "x",
        "generation_projector_out": "x",
    }
