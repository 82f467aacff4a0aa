"""Our LLaMA is transformers', bit by bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from vargpt_lightning.models.core.config import LanguageConfig
from vargpt_lightning.models.core.masks import step_mask
from vargpt_lightning.models.language.kv_cache import LanguageCache
from vargpt_lightning.models.language.llama import LanguageModel

CONFIG = LanguageConfig(width=64, layers=3, heads=4, vocabulary=120, max_positions=64, rope_theta=1234.5)
CONFIGS = {"whole": CONFIG, "grouped": replace(CONFIG, kv_heads=2), "tied": replace(CONFIG, tie_embeddings=True)}


def reference(config: LanguageConfig, kernel: str = "sdpa") -> LlamaForCausalLM:
    llama = LlamaConfig(
        vocab_size=config.vocabulary,
        hidden_size=config.width,
        intermediate_size=config.mlp_width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads or config.heads,
        max_position_embeddings=config.max_positions,
        rms_norm_eps=config.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        attention_dropout=config.attention_dropout,
        initializer_range=config.initializer_range,
        tie_word_embeddings=config.tie_embeddings,
        pad_token_id=None,
    )
    llama._attn_implementation = kernel
    return LlamaForCausalLM(llama)


def both(config: LanguageConfig, kernel: str = "sdpa") -> tuple[LanguageModel, LlamaForCausalLM]:
    torch.manual_seed(0)
    theirs = reference(config, kernel)
    torch.manual_seed(0)
    ours = LanguageModel(replace(config, attention=kernel))
    return ours, theirs


def tokens(rows: int = 2, length: int = 24) -> Tensor:
    return torch.randint(120, (rows, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", CONFIGS)
def test_fresh_weights_have_the_same_names_and_values(name: str) -> None:
    ours, theirs = both(CONFIGS[name])
    after = torch.rand(1)
    torch.manual_seed(0)
    reference(CONFIGS[name])
    if name != "tied":  # a tied head is drawn, and let go
        assert torch.equal(after, torch.rand(1)), "as much was drawn"
    found, expected = ours.state_dict(), theirs.state_dict()
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_and_gradients_are_the_same(name: str, masked: bool, kernel: str, dtype: torch.dtype) -> None:
    ours, theirs = (model.to(dtype) for model in both(CONFIGS[name], kernel))
    theirs.model.rotary_emb = type(theirs.model.rotary_emb)(theirs.config)  # frequencies in float32
    ids_BT = tokens()
    mask: Any = None
    if masked:
        allowed = torch.rand(2, 1, 24, 24, generator=torch.Generator().manual_seed(2)) < 0.6
        mask = allowed | torch.eye(24, dtype=torch.bool)
        if kernel == "eager":
            mask = torch.zeros(mask.shape, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)
    # without a mask transformers takes positions that begin anew for packed records
    positions_BT = torch.arange(24).expand(2, -1) % 17 if masked else None
    expected = theirs(
        inputs_embeds=theirs.model.embed_tokens(ids_BT), attention_mask=mask, position_ids=positions_BT, use_cache=False
    ).logits
    found = ours.lm_head(ours.model(ours.model.embed_tokens(ids_BT), mask, positions_BT))
    assert torch.equal(found, expected)
    for logits in (found, expected):
        logits.float().square().sum().backward()
    gradients = dict(theirs.named_parameters())
    for key, parameter in ours.named_parameters():
        assert torch.equal(parameter.grad, gradients[key].grad), key


@pytest.mark.parametrize("name", ["whole", "grouped"])
def test_steps_with_a_cache_are_the_same(name: str) -> None:
    ours, theirs = both(CONFIGS[name])
    ids_1T, cache, theirs_cache = tokens(1, 12), LanguageCache(ours, 1, 12), DynamicCache()
    with torch.no_grad():
        for begin, end in ((0, 5), (5, 6), (6, 12)):
            part = ids_1T[:, begin:end]
            slots = torch.arange(begin, end)[None]
            found = cache.run(ours.model.embed_tokens(part), slots, step_mask(slots, end))
            expected = theirs.model(part, past_key_values=theirs_cache, use_cache=True).last_hidden_state
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_dropout_on_attention_is_drawn_alike() -> None:
    config = replace(CONFIG, attention_dropout=0.3)
    ours, theirs = both(config)
    results = []
    for model in (ours, theirs):
        model.train()
        torch.manual_seed(5)
        embeds = model.model.embed_tokens(tokens())
        results.append(ours.model(embeds) if model is ours else theirs.model(inputs_embeds=embeds).last_hidden_state)
    assert torch.equal(*results)


def test_another_kernel_of_transformers_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "mine", sdpa_attention_forward)
    ours, theirs = both(replace(CONFIG, kv_heads=2))
    ours.kernel = "mine"
    expected = theirs.model(tokens()).last_hidden_state
    torch.testing.assert_close(ours.model(ours.model.embed_tokens(tokens())), expected)
