"""Networks of other families than LLaMA: transformers' blocks, run with our masks, positions and cache.

Masks are always whole ones or none: transformers' own models take positions that begin anew as other documents in some
calls, and as nothing in others.

Legend: B batch, n new tokens, C width.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from vargpt_lightning.models.core.config import LanguageConfig
from vargpt_lightning.models.core.exact import KeepsFloat32
from vargpt_lightning.models.core.families import FAMILIES, MROPE, mrope_sections
from vargpt_lightning.models.language.llama_network import Cache, causal_mask
from vargpt_lightning.models.language.network import Network
from vargpt_lightning.models.language.windows import windowed


def transformers_config(config: LanguageConfig) -> Any:
    """Return transformers' configuration of the same language model."""
    family = FAMILIES[config.family]
    values: dict[str, Any] = {
        "vocab_size": config.vocabulary,
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads or config.heads,
        "head_dim": config.head_size,
        "max_position_embeddings": config.max_positions,
        family.norm_eps: config.norm_eps,
        "attention_dropout": config.attention_dropout,
        "initializer_range": config.initializer_range,
        "tie_word_embeddings": config.tie_embeddings,
        "rope_theta": config.rope_theta,
        "pad_token_id": None,  # whose row transformers would keep at zero
        "bos_token_id": None,
        "eos_token_id": None,
    }
    if "sliding_window" in family.options:  # unless it is asked for: none, or one that nothing reaches over
        values["sliding_window"] = None if config.family == "mistral" else config.max_positions
    values |= {key: _cut(value, config.layers) for key, value in config.options.items()}
    if "rope_parameters" in config.options:
        del values["rope_theta"]
    values.pop("mrope_section", None)
    kind: Any = CONFIG_MAPPING[family.blocks or config.family]
    made = kind(**values)
    made._attn_implementation = config.attention
    return made


def _cut(value: Any, layers: int) -> Any:
    """A list with an entry for each layer, of a model that has fewer of them."""
    return value[:layers] if isinstance(value, list) else value


def dealt(table_3BnD: Tensor, sections: Sequence[int]) -> Tensor:
    """Return cosines or sines (B, n, D) of which each frequency is that of one of three positions."""
    parts = table_3BnD.split([*sections, *sections], dim=-1)
    return torch.cat([part_3Bns[number % 3] for number, part_3Bns in enumerate(parts)], dim=-1)


class FamilyTrunk(KeepsFloat32, Network):
    """Embeddings, blocks and last normalisation of a family, under transformers' names."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.settings = transformers_config(config)
        whole: Any = MODEL_MAPPING[type(self.settings)](self.settings)
        for name, part in whole.named_children():
            self.add_module(name, part)
        self.final_norm = FAMILIES[config.family].final_norm
        mrope = config.family == MROPE
        self.sections = mrope_sections(config.head_size, config.options) if mrope else None
        self.in_float32 = tuple(name for name, _ in self.named_buffers())
        self.cache_name = (
            "cache" if "cache" in inspect.signature(self.layers[0].forward).parameters else "past_key_values"
        )
        block: Any
        for block in self.layers:
            block.gradient_checkpointing = config.checkpoint_activations
            block._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)

    @property
    def kernel(self) -> str:
        """The attention's kernel, by transformers' name."""
        return str(self.settings._attn_implementation)

    @kernel.setter
    def kernel(self, name: str) -> None:
        self.settings._attn_implementation = name

    def forward(
        self, embeds_BnC: Tensor, mask: Any = None, positions_Bn: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        """See `Network.forward`; positions of a family with three dimensions may be (3, B, n)."""
        if positions_Bn is None:
            positions_Bn = torch.arange(embeds_BnC.shape[1], device=embeds_BnC.device)[None]
        if mask is None:
            mask = causal_mask(self.kernel, embeds_BnC)
        dropout: Any = getattr(self, "embed_dropout", nn.Identity())
        x_BnC = dropout(embeds_BnC)
        phases, windows = self._phases(x_BnC, positions_Bn), self._windows()
        query_Bn = torch.arange(x_BnC.shape[1], device=x_BnC.device)[None] if cache is None else cache.slots_Rn
        masks = {each: mask if each is None else windowed(mask, each, query_Bn, self.kernel) for each in set(windows)}
        for block, kind, window in zip(self.layers, self._kinds(), windows, strict=True):
            more = {self.cache_name: cache}
            x_BnC = block(x_BnC, attention_mask=masks[window], position_embeddings=phases[kind], **more)
        return self.get_submodule(self.final_norm)(x_BnC)

    def restore_constants(self) -> None:
        """Compute the rotary frequencies and scales anew, in 32 bits, where the embeddings are."""
        device = self.embed_tokens.weight.device
        rotary: Any = self.get_submodule("rotary_emb")
        with torch.device("meta" if device.type == "meta" else "cpu"):
            fresh = {f"rotary_emb.{name}": value for name, value in type(rotary)(self.settings).named_buffers()}
            if hasattr(self.embed_tokens, "scalar_embed_scale"):
                fresh["embed_tokens.embed_scale"] = torch.tensor(self.embed_tokens.scalar_embed_scale)
        for name in self.in_float32:
            place, _, buffer = name.rpartition(".")
            self.get_submodule(place)._buffers[buffer] = fresh[name].to(device)

    def _apply(self, fn: Any, recurse: bool = True) -> FamilyTrunk:
        nn.Module._apply(self, fn, recurse)
        self.restore_constants()
        return self

    def _windows(self) -> list[int | None]:
        """How far back each layer sees; None for all the way."""
        window = getattr(self.settings, "sliding_window", None)
        kinds = getattr(self.settings, "layer_types", None) or ["sliding_attention"] * len(self.layers)
        return [window if kind == "sliding_attention" else None for kind in kinds]

    def _kinds(self) -> list[str]:
        """Which rotary positions each layer has."""
        if isinstance(self.settings.rope_parameters.get("full_attention"), dict):
            return list(self.settings.layer_types)
        return ["all"] * len(self.layers)

    def _phases(self, x_BnC: Tensor, positions_Bn: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Return cosines and sines of the positions, for each kind of layer."""
        rotary: Any = self.get_submodule("rotary_emb")
        kinds = set(self._kinds())
        if positions_Bn.dim() == 3:
            assert self.sections is not None
            positions_Bn = positions_Bn.to(x_BnC.device)
            cos_3BnD, sin_3BnD = (each.unflatten(0, (3, -1)) for each in rotary(x_BnC, positions_Bn.flatten(0, 1)))
            return {"all": (dealt(cos_3BnD, self.sections), dealt(sin_3BnD, self.sections))}
        if kinds == {"all"}:
            return {"all": rotary(x_BnC, positions_Bn)}
        return {kind: rotary(x_BnC, positions_Bn, kind) for kind in kinds}
