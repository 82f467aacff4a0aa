"""A run folder with an untrained model of a few thousand weights, and how to make it say what a test wants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer
from vargpt_lightning.models.core.config import (
    DecoderConfig,
    LanguageConfig,
    TokenIds,
    TokenizerConfig,
    VARGPTConfig,
    VisionConfig,
)
from vargpt_lightning.runs.folder import RunFolder

SEED = 0


def text_tokenizer() -> TextTokenizer:
    return TextTokenizer.train(["USER: Please draw a shamrock. ASSISTANT: Here is a shamrock:"], 263)


def tiny_config(tokens: TextTokenizer) -> VARGPTConfig:
    ids = {name: getattr(tokens, f"{name}_id") for name in (each.name for each in fields(TokenIds))}
    return VARGPTConfig(
        language=LanguageConfig(width=32, layers=1, heads=2, vocabulary=tokens.vocabulary, max_positions=192),
        vision=VisionConfig(picture_size=64),
        tokenizer=TokenizerConfig(
            scales=(1, 2, 4), channels=32, channel_multipliers=(1, 1), residual_blocks=1, code_size=8, vocabulary=16
        ),
        decoder=DecoderConfig(depth=1, width=32, heads=2, classes=1),
        tokens=TokenIds(**ids),
    )


def write_run(folder: Path) -> RunFolder:
    """Write a finished run: stage 1 with other weights, stage 2 with those that `build_model` gives."""
    tokens = text_tokenizer()
    config = tiny_config(tokens)
    text = yaml.safe_dump({"model": plain(config.to_dict()), "seed": 0})
    run = RunFolder.start(folder, command=["vargpt", "fit"], config_text=text, seed=0)
    tokens.save(run.tokenizer)
    for index, (name, seed) in enumerate([("pretrain", SEED + 1), ("generation", SEED)], start=1):
        stage = run.stage(index, name)
        stage.update(status="finished")
        save_file(stored(build_model(config, seed)), stage.weights)
    run.end("finished")
    return run


def build_model(config: VARGPTConfig, seed: int = SEED) -> VARGPT:
    torch.manual_seed(seed)
    return VARGPT(config)


def stored(model: VARGPT) -> dict[str, torch.Tensor]:
    """What a stage keeps: all but the tower that comes with a package."""
    return {key: value for key, value in model.state_dict().items() if not key.startswith("vision_tower.")}


def plain(value: object) -> object:
    """Tuples as lists, as YAML has them."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Let models write given words and draw where they say `*`; return how to give them."""
    from vargpt_lightning.models.generation import generate as module

    said: list[str] = []
    tokens = text_tokenizer()

    def choose(batch: module._Batch, logits_RV: torch.Tensor, rows: list[int]) -> list[int]:
        return [_next_token(tokens, said[i % len(said)], batch.rows[i].answer.token_ids) for i in rows]

    monkeypatch.setattr(module._Batch, "_choose", choose)

    def give(*answers: str) -> list[str]:
        said[:] = answers
        return said

    return give


def _next_token(tokens: TextTokenizer, answer: str, so_far: list[int]) -> int:
    words: list[int] = []
    for place, text in enumerate(answer.split("*")):
        words += [tokens.image_gen_start_id] if place else []
        words += tokens.encode(text)
    words.append(tokens.eos_id)
    passed = {tokens.image_gen_id, tokens.image_gen_end_id}
    return words[sum(token not in passed for token in so_far)]
