"""A trained run taken up again: its configuration, its tokenizer, its model.

RUN/config.yaml                              `model:` is the VARGPTConfig, `sampling:` how drawings are sampled
RUN/tokenizer/tokenizer.json                 the text tokenizer
RUN/stages/NN-name/model.safetensors         the model's state; that of the last finished stage is taken
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import yaml

from vargpt_lightning.commands.names import finished_stage, is_converted
from vargpt_lightning.data.text_tokenizer import TextTokenizer
from vargpt_lightning.devices import choose
from vargpt_lightning.errors import UserError
from vargpt_lightning.evaluation.adapters.ours import Conversation, Speaker, seen_reader
from vargpt_lightning.models import checkpoints
from vargpt_lightning.models.answers import GenerationSettings
from vargpt_lightning.models.config import TokenIds, VARGPTConfig
from vargpt_lightning.models.placing import copy_into
from vargpt_lightning.models.sampling import SamplingSettings
from vargpt_lightning.models.vargpt import VARGPT
from vargpt_lightning.results import RunFolder, StageFolder
from vargpt_lightning.weights.locate import locate
from vargpt_lightning.weights.stored import Held, Stored, open_weights
from vargpt_lightning.yaml_text import load_yaml, told

__all__ = ["Conversation", "LoadedRun", "Speaker", "load_run", "read_experiment", "seen_reader"]


@dataclass(kw_only=True)
class LoadedRun(Speaker):
    """The speaker of a run folder, as it was after `stage`; `experiment` is the run's whole configuration."""

    folder: RunFolder
    stage: StageFolder
    experiment: dict[str, Any]


def load_run(path: str | Path, stage: str | None = None, device: str | torch.device | None = None) -> LoadedRun:
    """Load a run's model as it was after a stage, in evaluation mode.

    Args:
        path: the run folder.
        stage: the stage's name; None takes the last finished one.
        device: None takes a GPU when there is one.

    Raises:
        UserError: there is no such device; the folder is no run, has no finished stage, or its files are missing,
            broken or do not fit together.
    """
    folder = RunFolder(path)
    chosen = finished_stage(folder, stage)
    device = choose(device)
    experiment = read_experiment(folder)
    config = VARGPTConfig.from_dict(experiment["model"])
    tokenizer = TextTokenizer.load(folder.tokenizer)
    check_tokens(config, tokenizer, folder.tokenizer)
    model = VARGPT(config)
    load_weights(model, chosen.weights)
    model = model.eval().requires_grad_(False).to(device)
    return LoadedRun(
        model=model,
        tokenizer=tokenizer,
        settings=GenerationSettings(visual=_sampling(model, experiment, folder.path / "config.yaml")),
        folder=folder,
        stage=chosen,
        experiment=experiment,
    )


def load_run_or_directory(path: str | Path, stage: str | None, device: str | torch.device | None) -> Speaker:
    """Load a run as it was after a stage, or a folder of `vargpt convert`, which has no stages; raises as they do."""
    if not is_converted(Path(path)):
        return load_run(path, stage, device)
    if stage is not None:
        raise UserError(f"--stage {stage}: {path} is a model by itself and has no stages")
    return load(path, device)


def load(where: str | Path, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Speaker:
    """Load a model to talk to: a run folder, a folder of `vargpt convert` or `save_pretrained`, or one on the hub.

    Args:
        where: a path, or when there is none of that name, OWNER/NAME on the Hugging Face hub.
        device: None takes a GPU when there is one.
        dtype: of the weights; None takes the stored one.

    Raises:
        UserError: there is nothing there, it is no whole model, or it has no text tokenizer.
    """
    device = choose(device)
    path = locate(where)
    if (path / "run.json").is_file():
        run = load_run(path, device=device)
        run.model.to(dtype or next(run.model.parameters()).dtype)
        return run
    model = VARGPT.from_pretrained(path, device=device, dtype=dtype).requires_grad_(False)
    tokenizer = TextTokenizer.load(path)
    check_tokens(model.config, tokenizer, path)
    settings = GenerationSettings(visual=model.sampling_settings())
    return Speaker(model=model, tokenizer=tokenizer, settings=settings)


def load_exported(path: str | Path, device: str | torch.device | None = None) -> Speaker:
    """Load a model that stands by itself: PATH/config.yaml, PATH/tokenizer/tokenizer.json, PATH/model.safetensors.

    These are a run's own three, its last stage's weights among them, copied into a folder. A folder that `vargpt
    convert` made is loaded as well.

    Raises:
        UserError: one of them is missing or broken, or they do not fit together.
    """
    folder = Path(path)
    if is_converted(folder):
        return load(folder, device)
    device = choose(device)
    file = folder / "config.yaml"
    experiment = parse_experiment(file.read_text(encoding="utf-8") if file.is_file() else "", file)
    config = VARGPTConfig.from_dict(experiment["model"])
    tokenizer = TextTokenizer.load(folder / "tokenizer")
    check_tokens(config, tokenizer, folder / "tokenizer")
    model = VARGPT(config)
    load_weights(model, folder / "model.safetensors")
    model = model.eval().requires_grad_(False).to(device)
    settings = GenerationSettings(visual=_sampling(model, experiment, file))
    return Speaker(model=model, tokenizer=tokenizer, settings=settings)


def read_experiment(folder: RunFolder) -> dict[str, Any]:
    """Return the run's resolved configuration, which has a `model` section.

    Raises:
        UserError: config.yaml is missing, is no YAML, or has no such section.
    """
    return parse_experiment(folder.config_text, folder.path / "config.yaml")


def parse_experiment(text: str, file: Path) -> dict[str, Any]:
    """Return the configuration that a file's text holds; raises as `read_experiment` does."""
    try:
        experiment = load_yaml(text)
    except yaml.YAMLError as error:
        place, problem = told(error)
        raise UserError(f"{file}{place}: {problem}") from error
    if not isinstance(experiment, dict) or not isinstance(experiment.get("model"), dict):
        there = "there is no such file" if not file.is_file() else f"it holds {_keys(experiment)}"
        raise UserError(f"{file}: expected a run's configuration with a section `model`; {there}")
    return experiment


def _keys(experiment: Any) -> str:
    return f"the keys {', '.join(map(str, experiment))}" if isinstance(experiment, dict) else "no keys"


def _sampling(model: VARGPT, experiment: Mapping[str, Any], file: Path) -> SamplingSettings:
    """How the experiment samples drawings: its section `sampling` over what the model's preset says."""
    given = {key: value for key, value in (experiment.get("sampling") or {}).items() if value is not None}
    known = [key for key in SamplingSettings.__dataclass_fields__]
    if unknown := sorted(set(given) - set(known)):
        raise UserError(f"{file}: sampling.{unknown[0]} is unknown; there are {', '.join(known)}")
    return model.sampling_settings(**given)


def check_tokens(config: VARGPTConfig, tokenizer: TextTokenizer, where: Path) -> None:
    """Refuse a tokenizer whose special tokens are not those that the model was trained with."""
    for key in (each.name for each in fields(TokenIds)):
        expected, found = getattr(config.tokens, key), getattr(tokenizer, f"{key}_id")
        if expected != found:
            raise UserError(f"{where}: token {key} has id {found}, the model expects {expected}")
    if tokenizer.vocabulary > config.language.vocabulary:
        rows = config.language.vocabulary
        raise UserError(f"{where}: {tokenizer.vocabulary} token ids, the model's embedding has {rows} rows")


def load_weights(model: VARGPT, file: Path) -> None:
    """Load a stage's weights into a model, all of them, one tensor at a time; raises as `stage_weights` does."""
    targets = model.state_dict()
    for key, stored in stage_weights(model, file).items():
        copy_into(targets[key], stored, key)


def stage_weights(model: VARGPT, file: Path) -> dict[str, Stored | Held]:
    """Return a stage's weights by the names of the model, unread; the model may be without memory.

    Raises:
        UserError: the file is missing or broken, or is of a model with other parts or sizes.
    """
    state = open_weights(file)
    # The frozen EfficientNet comes with its package and is not stored again.
    own = model.config.vision.kind == "efficientnet_lite0" and not any(key.startswith("vision_tower.") for key in state)
    keep = [key for key in model.state_dict() if own and key.startswith("vision_tower.")]
    return checkpoints.fitting(model, state, source=str(file), keep=keep)
