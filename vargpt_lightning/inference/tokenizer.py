"""An image tokenizer by itself: from a run, or from a file of weights, with how its pictures are read.

RUN                                       the tokenizer after a stage; sizes and settings of data from RUN/config.yaml
DIR with config.yaml, model.safetensors   a model that stands by itself
FILE.safetensors, FILE.pth                a model's weights, a VARGPT checkpoint's, or a tokenizer's (VAR's, Infinity's)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vargpt_lightning.checkpoints.published import layouts
from vargpt_lightning.checkpoints.published.bit_tokenizers import CODEBOOK, check_kind
from vargpt_lightning.checkpoints.published.infer_config import sizes_of
from vargpt_lightning.inference.named import finished_stage
from vargpt_lightning.models.core.config import TokenizerConfig, VARGPTConfig
from vargpt_lightning.models.tokenizer.bit_tokenizer import BitTokenizer
from vargpt_lightning.models.tokenizer.build import build_tokenizer
from vargpt_lightning.models.tokenizer.image_tokenizer import ImageTokenizer
from vargpt_lightning.runs.config import parse_experiment
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.utils.errors import UserError

PREFIXES = ("image_tokenizer.", "vae_local.")  # ours, and that of the published VARGPT checkpoints
_CONFIG_NAME = "config.yaml"
_FOLDERS_UP = 3  # RUN/stages/NN-name/model.safetensors


@dataclass
class LoadedTokenizer:
    """A tokenizer in evaluation mode, its settings, the `data` settings beside it, and where all this is from."""

    tokenizer: ImageTokenizer | BitTokenizer
    settings: TokenizerConfig
    data: dict[str, Any]
    file: Path


def load_tokenizer(
    path: Path, config: tuple[TokenizerConfig, dict[str, Any]] | None = None, stage: str | None = None
) -> LoadedTokenizer:
    """Load an image tokenizer; of a larger model, its weights alone are read.

    Args:
        path: a run, a folder with config.yaml and model.safetensors, or a file of weights.
        config: the sizes and data settings that are meant; None takes the config.yaml that the weights came with, and
            for a file without one those of VAR's published tokenizer, or, of bits, what the weights' shapes tell.
        stage: of a run, the stage; None takes the last finished one.

    Raises:
        UserError: there is nothing to load there, or sizes and weights do not fit.
    """
    if not path.exists():
        raise UserError(f"{path}: not found; expected a run, or a file of weights")
    file = _weights_file(path, stage)
    state = _tokenizer_state(_read(file), file)
    settings, data = config or _settings(file, state)
    check_kind(state, settings, str(file))
    tokenizer = build_tokenizer(settings)
    keep = [name for name in state if name.endswith("ema_vocab_hit_SV")]  # of no use here, whatever its scales
    layouts.load(tokenizer, state, source=str(file), keep=keep)
    return LoadedTokenizer(tokenizer.eval().requires_grad_(False), settings, data, file)


def _weights_file(path: Path, stage: str | None) -> Path:
    if path.is_file():
        return path
    if (path / "run.json").is_file():
        return finished_stage(RunFolder(path), stage).weights
    file = path / "model.safetensors"
    if not file.is_file():
        raise UserError(f"{path}: is not a run and has no {file.name}; expected one of the two, or a file of weights")
    return file


def _settings(file: Path, state: Mapping[str, Tensor]) -> tuple[TokenizerConfig, dict[str, Any]]:
    """The tokenizer's sizes and the settings of data, by the config.yaml beside or above its weights."""
    for folder in list(file.resolve().parents)[:_FOLDERS_UP]:
        beside = folder / _CONFIG_NAME
        if beside.is_file():
            tree = parse_experiment(beside.read_text(encoding="utf-8"), beside)
            data = tree.get("data")
            arguments = data.get("init_args") if isinstance(data, dict) else None
            return VARGPTConfig.from_dict(tree["model"]).tokenizer, dict(arguments or {})
    if CODEBOOK in state:
        return TokenizerConfig(), {}
    return sizes_of({f"image_tokenizer.{name}": value for name, value in state.items()})["tokenizer"], {}


def _read(file: Path) -> Mapping[str, Tensor]:
    """The weights that may be a tokenizer's: of a safetensors file with other parts, these alone."""
    try:
        if file.suffix == ".safetensors":
            with safe_open(str(file), framework="pt") as opened:
                names = list(opened.keys())
                wanted = [name for name in names if name.startswith(PREFIXES)] or names
                return {name: opened.get_tensor(name) for name in wanted}
        found = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError) as error:
        raise UserError(f"{file} is not readable as weights: {error}") from error
    except Exception as error:  # the unpickler refuses code with an error of its own
        raise UserError(f"{file} is not readable as plain weights: {str(error).splitlines()[0]}") from error
    for key in ("state_dict", "vae"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f"{file}: expected weights by name")
    return found


def _tokenizer_state(state: Mapping[str, Tensor], file: Path) -> dict[str, Tensor]:
    """The tokenizer's weights under its own names."""
    own = dict(state)
    for prefix in PREFIXES:
        if any(name.startswith(prefix) for name in state):
            own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            break
    if CODEBOOK in own:
        return own
    if not any(name.startswith("encoder.conv_in.") for name in own):
        example = ", ".join(sorted(state)[:3]) or "nothing"
        raise UserError(
            f"{file}: holds no image tokenizer but {example}; expected names such as quantize.* or encoder.*"
        )
    converted = layouts.from_official(own, "bsq").state
    return {name.removeprefix(PREFIXES[0]): value for name, value in converted.items()}
