"""A trained run loaded: its configuration, its tokenizer, its model.

RUN/config.yaml                              `model:` is the VARGPTConfig, `sampling:` how drawings are sampled
RUN/tokenizer/tokenizer.json                 the text tokenizer
RUN/stages/NN-name/model.safetensors         the model's state; that of the last finished stage is taken
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vargpt_lightning.checkpoints.hub import VARGPT
from vargpt_lightning.checkpoints.locate import locate
from vargpt_lightning.checkpoints.stage_weights import load_weights
from vargpt_lightning.checkpoints.tokens import load_tokenizer
from vargpt_lightning.inference.assistant import Assistant, Conversation, seen_reader
from vargpt_lightning.inference.fast import speed_up
from vargpt_lightning.inference.named import finished_stage, is_converted
from vargpt_lightning.models.core.config import VARGPTConfig
from vargpt_lightning.models.core.devices import choose
from vargpt_lightning.models.decoder.sampling import SamplingSettings
from vargpt_lightning.models.generation.answers import GenerationSettings
from vargpt_lightning.runs.config import parse_experiment, read_experiment
from vargpt_lightning.runs.folder import RunFolder, StageFolder
from vargpt_lightning.utils.errors import UserError

__all__ = ["Assistant", "Conversation", "LoadedRun", "load_run", "read_experiment", "seen_reader"]


@dataclass(kw_only=True)
class LoadedRun(Assistant):
    """The assistant of a run folder, as it was after `stage`; `experiment` is the run's whole configuration."""

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
    tokenizer = load_tokenizer(config, folder.tokenizer)
    model = VARGPT(config)
    load_weights(model, chosen.weights)
    model = model.eval().requires_grad_(False).to(device)
    return LoadedRun(
        model=model,
        tokenizer=tokenizer,
        settings=GenerationSettings(visual=_sampling(model, experiment, folder.path / "config.yaml")),
        opened=opened,
        folder=folder,
        stage=chosen,
        experiment=experiment,
    )


def load_run_or_directory(path: str | Path, stage: str | None, device: str | torch.device | None) -> Assistant:
    """Load a run as it was after a stage, or a folder of `vargpt convert`, which has no stages; raises as they do."""
    if not is_converted(Path(path)):
        return load_run(path, stage, device)
    if stage is not None:
        raise UserError(f"--stage {stage}: {path} is a model by itself and has no stages")
    return load(path, device)


def load(
    where: str | Path,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    fast: bool = False,
) -> Assistant:
    """Load a model to talk to: a run folder, a folder of `vargpt convert` or `save_pretrained`, or one on the hub.

    Args:
        where: a path, or when there is none of that name, OWNER/NAME on the Hugging Face hub.
        device: None takes a GPU when there is one.
        dtype: of the weights; None takes the stored one.
        fast: multiply in bfloat16 or int8 where that is faster here: sooner, and a little less exact (`speed_up`).

    Raises:
        UserError: there is nothing there, it is no whole model, or it has no text tokenizer.
    """
    if not isinstance(where, (str, Path)) or not str(where).strip():
        raise UserError(f"got {where!r}, expected a run folder, another folder with a model, or OWNER/NAME on the hub")
    assistant = _load(where, choose(device), dtype)
    if fast:
        speed_up(assistant.model)
    return assistant


def _load(where: str | Path, device: torch.device, dtype: torch.dtype | None) -> Assistant:
    path = locate(where)
    if (path / "run.json").is_file():
        run = load_run(path, device=device)
        run.model.to(dtype or next(run.model.parameters()).dtype)
        return run
    model = VARGPT.from_pretrained(path, device=device, dtype=dtype).requires_grad_(False)
    tokenizer = load_tokenizer(model.config, path)
    settings = GenerationSettings(visual=model.sampling_settings())
    return Assistant(model=model, tokenizer=tokenizer, settings=settings, opened=opened)


def opened(where: str) -> Assistant:
    """Open a model that parts of a sampler draw with: as `load` does, or `RUN#STAGE`, a run after one of its stages.

    Raises:
        UserError: as `load` and `load_run`.
    """
    path, _, stage = where.partition("#")
    return load_run(path, stage, "cpu") if stage else load(path, "cpu")


def load_exported(path: str | Path, device: str | torch.device | None = None) -> Assistant:
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
    tokenizer = load_tokenizer(config, folder / "tokenizer")
    model = VARGPT(config)
    load_weights(model, folder / "model.safetensors")
    model = model.eval().requires_grad_(False).to(device)
    settings = GenerationSettings(visual=_sampling(model, experiment, file))
    return Assistant(model=model, tokenizer=tokenizer, settings=settings, opened=opened)


def _sampling(model: VARGPT, experiment: Mapping[str, Any], file: Path) -> SamplingSettings:
    """How the experiment samples drawings: its section `sampling` over what the model's preset says."""
    given = {key: value for key, value in (experiment.get("sampling") or {}).items() if value is not None}
    known = [key for key in SamplingSettings.__dataclass_fields__]
    if unknown := sorted(set(given) - set(known)):
        raise UserError(f"{file}: sampling.{unknown[0]} is unknown; there are {', '.join(known)}")
    return model.sampling_settings(**given)
