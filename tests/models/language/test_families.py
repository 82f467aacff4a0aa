"""Every family of language models does what LLaMA does here, and computes what transformers' own model computes."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tests.models.cases import DRAWN, IDS, SCALE_OF, SEEN, make_batch, moved_positions, random_codes, random_features
from tests.models.cases import small_model as llama_model
from vargpt_lightning.checkpoints.convert import convert
from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.checkpoints.init_from import choose
from vargpt_lightning.checkpoints.meta_init import RecordedInit
from vargpt_lightning.models.core.config import LanguageConfig, VARGPTConfig
from vargpt_lightning.models.core.families import FAMILIES
from vargpt_lightning.models.core.masks import Spans, block_mask, step_mask
from vargpt_lightning.models.decoder.sampling import SamplingSettings
from vargpt_lightning.models.generation.attention_maps import recorded_attention
from vargpt_lightning.models.generation.generate import Answer, GenerationSettings, Prompt, generate
from vargpt_lightning.models.language.family_network import transformers_config
from vargpt_lightning.models.language.kv_cache import LanguageCache
from vargpt_lightning.models.language.llama import LanguageModel
from vargpt_lightning.models.language.lora import adapted, attach_adapters, merge_adapters
from vargpt_lightning.models.language.windows import windowed
from vargpt_lightning.recipe.init_from import InitFrom
from vargpt_lightning.utils.errors import UserError

SMALL = LanguageConfig(width=32, layers=2, heads=4, kv_heads=2, mlp=64, vocabulary=112, max_positions=512)
OWN: dict[str, dict[str, Any]] = {
    "qwen3": {"head_width": 16},
    "mistral": {"head_width": 16},
    "smollm3": {"tie_embeddings": True, "options": {"no_rope_layers": [1, 0]}},
    "phi": {"options": {"qk_layernorm": True}},
    "gemma3_text": {
        "head_width": 16,
        "tie_embeddings": True,
        "options": {
            "layer_types": ["sliding_attention", "full_attention"],
            "sliding_window": 16,
            "query_pre_attn_scalar": 64,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
                "full_attention": {"rope_type": "linear", "rope_theta": 1000.0, "factor": 8.0},
            },
        },
    },
}
"""What tells a family from LLaMA, in the tests' small models."""
each_family = pytest.mark.parametrize("family", FAMILIES)
ROW = [IDS.bos, 5, 6, 7, 8, 9, *DRAWN, 10, IDS.eos]


def config_of(family: str, **changes: Any) -> LanguageConfig:
    return replace(SMALL, family=family, **{**OWN.get(family, {}), **changes})


def fresh(family: str, **changes: Any) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(config_of(family, **changes)).eval()


@cache
def whole_model(family: str) -> VARGPT:
    """A small VARGPT around a family's language model; shared, so not to be changed."""
    torch.manual_seed(0)
    values = {**llama_model().config.to_dict(), "language": asdict(config_of(family, initializer_range=0.3))}
    return VARGPT(VARGPTConfig.from_dict(values)).eval()


def published(family: str, folder: Path) -> PreTrainedModel:
    """Transformers' model of the same sizes, saved as it saves any."""
    made = fresh(family)
    written = AutoConfig.for_model("llama", hidden_size=32, intermediate_size=64, num_attention_heads=4)
    if family == "llama":
        sizes = {"vocab_size": 112, "num_hidden_layers": 2, "num_key_value_heads": 2, "pad_token_id": None}
        written.update({**sizes, "rms_norm_eps": 1e-5, "max_position_embeddings": 512})
    else:
        written = made.model.settings
    model = AutoModelForCausalLM.from_config(written)
    model.load_state_dict(made.state_dict())
    model.save_pretrained(folder)
    return model.eval()


def texts(rows: int = 2, length: int = 24) -> Tensor:
    return torch.randint(100, (rows, length), generator=torch.Generator().manual_seed(1))


def close(found: Any, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@each_family
@torch.no_grad()
def test_logits_of_text_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    model = fresh(family)
    close(model(texts()), published(family, tmp_path)(texts(), use_cache=False).logits)


@each_family
@pytest.mark.parametrize("offset", [3, 20])
def test_a_visual_token_sees_its_whole_scale_and_nothing_later(family: str, offset: int) -> None:
    first_of_scale = 7 + SCALE_OF.index(SCALE_OF[offset])
    assert moved_positions(whole_model(family), ROW, 7 + offset) == set(range(first_of_scale, len(ROW)))
    assert moved_positions(whole_model(family), ROW, 2) == set(range(2, len(ROW)))


@each_family
@torch.no_grad()
def test_packed_records_are_what_they_are_alone(family: str) -> None:
    model = whole_model(family)
    records = [ROW, [IDS.bos, *SEEN, 5, *DRAWN, IDS.eos], [IDS.bos, 20, 21, IDS.eos]]
    codes, features = random_codes(2), random_features(1)
    packed = make_batch([[number for record in records for number in record]])
    packed |= {"drawn_indices": codes, "vision_features": features}
    packed["segment_ids"] = torch.tensor([[i for i, record in enumerate(records, 1) for _ in record]])
    together = model(packed, return_text_logits=True)
    begin = 0
    for i, record in enumerate(records):
        batch = make_batch([record]) | ({"drawn_indices": codes[i : i + 1]} if i < 2 else {})
        batch |= {"vision_features": features} if i == 1 else {}
        alone = model(batch, return_text_logits=True)
        close(together.text_logits[0, begin : begin + len(record)], alone.text_logits[0])
        if i < 2:
            close(together.image_logits[i : i + 1], alone.image_logits)
        begin += len(record)


@each_family
def test_answers_of_five_are_those_of_one_at_a_time(family: str) -> None:
    prompts = [Prompt([IDS.bos, *range(5, 6 + n)]) for n in range(4)] + [Prompt([IDS.bos, 5, IDS.image_gen_start])]
    settings = GenerationSettings(max_new_tokens=6, max_images=1, visual=SamplingSettings(greedy=True))

    def answers(batch_size: int) -> list[Answer]:
        asked = replace(settings, batch_size=batch_size)
        return generate(whole_model(family), prompts, lambda ids: " ".join(map(str, ids)), asked)

    together, alone = answers(5), answers(1)
    assert len(together[4].pictures) == 1 and all(answer.token_ids for answer in together)
    for one, other in zip(together, alone, strict=True):
        assert one.token_ids == other.token_ids
        for mine, theirs in zip(one.pictures, other.pictures, strict=True):
            assert torch.equal(mine.indices, theirs.indices)


@each_family
@torch.no_grad()
def test_steps_with_a_cache_equal_one_pass(family: str) -> None:
    model = fresh(family)
    ids_1T, kept = texts(1, 12), LanguageCache(model, 1, 16)
    expected = model.model(model.embed(ids_1T))
    for begin, end in ((0, 5), (5, 6), (6, 12)):
        slots = torch.arange(begin, end)[None]
        found = kept.run(model.embed(ids_1T[:, begin:end]), slots, step_mask(slots, end))
        close(found, expected[:, begin:end])


@each_family
@torch.no_grad()
def test_adapters_stand_beside_the_familys_own_matrices(family: str) -> None:
    model = fresh(family)
    before, names = model(texts()), list(model.state_dict())
    attach_adapters(model, rank=2, alpha=4)
    found = [name for _, name, _ in adapted(model)]
    llama = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert found == 2 * (["q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"] if family == "phi" else llama)
    assert torch.equal(model(texts()), before)
    merge_adapters(model)
    assert list(model.state_dict()) == names


@each_family
def test_weights_come_and_go_byte_by_byte(family: str, tmp_path: Path) -> None:
    theirs = published(family, tmp_path / "theirs")
    convert(tmp_path / "theirs", tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "back", "causal")
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "back"))
    assert one.keys() == two.keys() and ("lm_head.weight" in one) != theirs.config.tie_word_embeddings
    for key, value in one.items():
        assert torch.equal(value.view(torch.uint8), two[key].view(torch.uint8)), key
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "back").eval()
    assert torch.equal(again(texts()).logits, theirs(texts()).logits)
    told = LanguageConfig(like=str(tmp_path / "theirs"))
    alone = FAMILIES[family].blocks or family  # Qwen2-VL's by itself is Qwen2's
    assert told == config_of(alone, options=told.options)
    if family != "llama":
        assert transformers_config(told).to_dict() == fresh(family).model.settings.to_dict()


def test_a_vocabulary_grows_with_the_heads_bias(tmp_path: Path) -> None:
    theirs = published("phi", tmp_path / "phi")
    values = {**whole_model("phi").config.to_dict(), "language": {"like": str(tmp_path / "phi"), "vocabulary": 115}}
    with torch.device("meta"):
        model = VARGPT(VARGPTConfig.from_dict(values))
    assert (model.config.language.layers, model.config.language.vocabulary) == (2, 115)
    chosen, report = choose(model, InitFrom(language_model=str(tmp_path / "phi"), new_rows="mean"))
    bias = chosen["language_model.lm_head.bias"].part()
    words = chosen["language_model.lm_head.weight"].part()
    assert torch.equal(words[:102], theirs.lm_head.weight[:102]) and bias.shape == (115,)
    assert torch.equal(words[112], words[102]), "rows of drawn pictures' tokens are new as well"
    assert report["parameters"]["language_model.lm_head.bias"]["new_rows"] == [102, 103, 104, 112, 113, 114]


def test_weights_of_another_family_are_refused(tmp_path: Path) -> None:
    published("qwen2", tmp_path / "qwen2")
    with pytest.raises(UserError, match=r"its language\.family is 'qwen2', model\.language\.family is 'qwen3'"):
        choose(whole_model("qwen3"), InitFrom(language_model=str(tmp_path / "qwen2")))
    convert(tmp_path / "qwen2", tmp_path / "ours")
    with pytest.raises(
        UserError, match="--to llava: the language model is 'qwen2'; this layout has a place for 'llama'"
    ):
        convert(tmp_path / "ours", tmp_path / "back", "llava")


@each_family
def test_fresh_weights_without_memory_are_those_with_it(family: str) -> None:
    expected = fresh(family)
    with RecordedInit(0) as made:
        model = LanguageModel(config_of(family))
    found: dict[str, Tensor] = {}
    wanted = {name: made.storage_of(each) for name, each in model.named_parameters()}
    made.play({at: lambda value, name=name: found.update({name: value}) for name, at in wanted.items()})
    for name, each in expected.named_parameters():
        assert torch.equal(found[name], each), name
    model.to_empty(device="cpu").load_state_dict(expected.state_dict())
    model.restore_constants()
    close(model.eval()(texts()), expected(texts()))


@each_family
def test_constants_stay_in_32_bits(family: str) -> None:
    model = fresh(family)
    before = {name: each.clone() for name, each in model.named_buffers()}
    model.bfloat16()
    assert before and all(torch.equal(each, before[name]) for name, each in model.named_buffers())


@each_family
def test_activations_computed_again_give_the_same_gradients(family: str) -> None:
    gradients = []
    for again in (False, True):
        model = fresh(family, checkpoint_activations=again).train()
        model(texts()).square().mean().backward()
        gradients.append([each.grad for each in model.parameters()])
    assert all(torch.equal(one, two) for one, two in zip(*gradients, strict=True))


@each_family
@torch.no_grad()
def test_attention_gives_its_weights_away_and_says_the_same(family: str) -> None:
    model = fresh(family)
    expected = model(texts())
    with recorded_attention(model) as weights:
        close(model(texts()), expected)
    assert [tuple(each.shape) for each in weights] == [(2, 4, 24, 24)] * 2 and model.kernel == "sdpa"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"family": "gemma2"},
            r"language\.family: 'gemma2' is not built here \(soft caps.*expected one of llama, qwen2",
        ),
        ({"family": "qwen2_5_vl"}, r"'qwen2_5_vl' is not built here \(windows in its vision tower"),
        (
            {"family": "mistral", "options": {"sliding_window": 0}},
            r"options\.sliding_window=0; expected a whole number from 1",
        ),
        (
            {"family": "gemma3_text", "options": {"attn_logit_softcapping": 50.0}},
            r"options\.attn_logit_softcapping=50\.0: soft caps of attention's weights are not built here",
        ),
        (
            {"family": "qwen2", "options": {"rope_parameters": {"mrope_section": [1, 1, 2]}}},
            r"rope_parameters\.mrope_section=\[1, 1, 2\]: rotary positions in three dimensions",
        ),
        ({"family": "qwen2", "options": {"rope_parameters": {"rope_type": "longrope"}}}, "expected one of default"),
        ({"family": "qwen3", "options": {"no_rope_layers": [1]}}, "not an option of the family 'qwen3', which has"),
        ({"options": {"hidden_act": "gelu"}}, "not an option of the family 'llama', which has none"),
    ],
)
def test_what_is_not_built_is_refused_by_name(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        replace(SMALL, **changes)


WINDOWS: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 5},
    "qwen2": {"sliding_window": 5, "use_sliding_window": True, "max_window_layers": 1},
    "smollm3": {"sliding_window": 5, "use_sliding_window": True, "no_rope_layers": [1, 0]},
    "gemma3_text": {**OWN["gemma3_text"]["options"], "sliding_window": 5},
}


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("family", WINDOWS)
@torch.no_grad()
def test_attention_within_a_window_is_transformers_and_the_cache_keeps_it(family: str, kernel: str) -> None:
    model = fresh(family, options=WINDOWS[family], attention=kernel)
    theirs = AutoModelForCausalLM.from_config(model.model.settings).eval()
    theirs.load_state_dict(model.state_dict())
    ids_1T, kept = texts(1, 24), LanguageCache(model, 1, 30)
    logits = model(ids_1T)
    close(logits, theirs(ids_1T, use_cache=False).logits)
    assert not torch.allclose(logits, fresh(family)(ids_1T), atol=1e-4)
    expected = model.model(model.embed(ids_1T))
    for begin, end in ((0, 5), (5, 6), (6, 24)):
        slots = torch.arange(begin, end)[None]
        close(kept.run(model.embed(ids_1T[:, begin:end]), slots, step_mask(slots, end)), expected[:, begin:end])


def test_padding_beyond_a_window_stays_a_number() -> None:
    model = fresh("mistral", options=WINDOWS["mistral"])
    valid = torch.arange(24) < 8
    mask = (valid & torch.ones(24, 24, dtype=torch.bool).tril())[None, None]
    with torch.no_grad():
        hidden = model.model(model.embed(texts(1)), mask)
    assert hidden.isfinite().all()
    close(hidden[:, :8], model.model(model.embed(texts(1)[:, :8])).detach())


def test_flex_attention_has_the_window_too() -> None:
    spans = Spans(None, torch.arange(24)[None], torch.ones(1, 24, dtype=torch.bool))
    found = windowed(block_mask(spans), 5, torch.arange(24)[None], "flex_attention")
    query, key = torch.arange(24)[:, None], torch.arange(24)
    zero = torch.tensor(0)
    assert torch.equal(found.mask_mod(zero, zero, query, key), (key <= query) & (query - key < 5))


def test_a_wrong_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"language\.like='.*': .*config\.json cannot be read"):
        LanguageConfig(like=str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "gemma2"}')
    with pytest.raises(UserError, match="'gemma2' is not built here"):
        LanguageConfig(like=str(tmp_path))
