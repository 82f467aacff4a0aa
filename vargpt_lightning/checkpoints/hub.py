"""Models in directories of their own: saved, loaded and pushed to the Hugging Face hub.

config.json                                    sizes and settings (`model`), sampling, the submodules it holds
model.safetensors                              the weights, or numbered shards with model.safetensors.index.json
preprocessor_config.json                       how seen and drawn pictures become numbers
tokenizer.json                                 the text tokenizer, where there is one
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from huggingface_hub import ModelHubMixin
from torch import Tensor

from vargpt_lightning.checkpoints.copy import place
from vargpt_lightning.checkpoints.dtensor import is_dtensor
from vargpt_lightning.checkpoints.format import CONFIG, MODEL_TYPE, PREPROCESSOR, TOKENIZER_FILES, VERSION
from vargpt_lightning.checkpoints.lazy_tensors import INDEXES, SINGLE, Source
from vargpt_lightning.checkpoints.open import Checkpoint, open_checkpoint
from vargpt_lightning.checkpoints.published import layouts
from vargpt_lightning.checkpoints.write import MAX_SHARD, write_shards
from vargpt_lightning.models.core.config import TokenizerConfig, VisionConfig
from vargpt_lightning.models.core.devices import choose
from vargpt_lightning.models.core.exact import exact_buffers
from vargpt_lightning.models.core.submodules import SUBMODULES
from vargpt_lightning.models.vargpt import VARGPTModel
from vargpt_lightning.utils.files import write_bytes, write_json

_COMPANIONS = "companions is tokenizer_files now; the old name goes with the next version"

M = TypeVar("M", bound="VARGPT")


class VARGPT(VARGPTModel, ModelHubMixin, library_name="vargpt-lightning", tags=["vargpt"], pipeline_tag="any-to-any"):
    """The model with `from_pretrained`, `save_pretrained` and `push_to_hub`.

    Attributes:
        tokenizer_files: the text tokenizer's files by name, which are saved beside the weights.
        sampling: how drawings are sampled where it differs from the preset; saved with the configuration.
    """

    @property
    def companions(self) -> dict[str, bytes]:
        """The name of `tokenizer_files` in earlier versions."""
        warnings.warn(_COMPANIONS, DeprecationWarning, stacklevel=2)
        return self.tokenizer_files

    @companions.setter
    def companions(self, files: dict[str, bytes]) -> None:
        warnings.warn(_COMPANIONS, DeprecationWarning, stacklevel=2)
        self.tokenizer_files = files

    @classmethod
    def from_pretrained(
        cls: type[M],
        pretrained_model_name_or_path: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> M:
        """Return a model in evaluation mode with the weights of a directory, a run folder or a hub repository.

        Published checkpoints of whole models (VARGPT-LLaVA-v1) load as well. One tensor is read at a time.

        Args:
            pretrained_model_name_or_path: a path, or when there is none of that name, OWNER/NAME on the hub.
            device: where the weights go.
            dtype: of the weights; None takes the stored one, float32 where the stored ones differ.
            options: of huggingface_hub's downloads: revision, token, cache_dir, force_download, local_files_only.

        Raises:
            UserError: there is nothing there, it holds no whole model, or its weights do not fit its configuration.
        """
        device = choose(device)
        return build(cls, open_checkpoint(pretrained_model_name_or_path, **options), device, dtype)

    def _save_pretrained(self, save_directory: Path) -> None:
        sources = {key: FullTensor(value) for key, value in self.state_dict().items()}
        rank = dist.get_rank() if any(source.sharded for source in sources.values()) else 0
        write_directory(save_directory, self.config.to_dict(), sources, self.tokenizer_files, self.sampling, rank=rank)
        if any(source.sharded for source in sources.values()):
            dist.barrier()  # what the mixin does next, it does when the files are there


class FullTensor:
    """A model's tensor as something to be written: gathered from all processes when it is asked for."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()
        self.shape, self.dtype = tensor.shape, tensor.dtype

    @property
    def sharded(self) -> bool:
        """Whether the processes hold parts of it."""
        return is_dtensor(self.tensor)

    def part(self, *where: slice) -> Tensor:
        whole = self.tensor.full_tensor() if is_dtensor(self.tensor) else self.tensor
        return whole[where] if where else whole


def build(kind: type[M], checkpoint: Checkpoint, device: str | torch.device, dtype: torch.dtype | None) -> M:
    """Return a checkpoint's model in evaluation mode; raises as `from_pretrained` does."""
    config = checkpoint.config
    with torch.device("meta"):
        model = kind(config)
    exact = exact_buffers(model)
    stored_types = {stored.dtype for key, stored in checkpoint.state.items() if key not in exact}
    types = {each for each in stored_types if each.is_floating_point}
    dtype = dtype or (types.pop() if len(types) == 1 else torch.float32)
    # A tower that comes with a package and was never trained is not stored again.
    packaged = config.vision.kind == "efficientnet_lite0" and "vision_tower" not in checkpoint.parts
    keep = [key for key in model.state_dict() if packaged and key.startswith("vision_tower.")]
    source = checkpoint.source
    layouts.fitting(model, checkpoint.state, source=source, keep=keep)  # before memory is taken
    model.to(dtype).to_empty(device=device)
    place(model, checkpoint.state, source=source, keep=keep)
    if packaged:
        model.vision_tower.load_imagenet_weights()  # type: ignore[union-attr,operator]
    model.restore_constants()
    folder = checkpoint.folder
    model.tokenizer_files = read_tokenizer_files(folder) if folder is not None else {}
    model.sampling = dict(checkpoint.sampling)
    return model.eval()


def read_tokenizer_files(folder: Path) -> dict[str, bytes]:
    """Return the small files of a text tokenizer that lie in a folder."""
    return {name: (folder / name).read_bytes() for name in TOKENIZER_FILES if (folder / name).is_file()}


def write_directory(
    folder: Path,
    sections: Mapping[str, Any],
    sources: Mapping[str, Source],
    tokenizer_files: Mapping[str, bytes],
    sampling: Mapping[str, Any],
    limit: int = MAX_SHARD,
    rank: int = 0,
) -> None:
    """Write our directory; config.json comes last, so that one that is torn is not taken for a model.

    Args:
        folder: exists; weights that it holds from before are replaced.
        sections: of the `VARGPTConfig`, those that are known where `sources` are not of a whole model.
        sources: weights under our names.
        limit: bytes of a shard.
        rank: with sharded weights all processes call this, and rank 0 writes.
    """
    if rank == 0:
        (folder / CONFIG).unlink(missing_ok=True)
    files = write_shards(folder, sources, limit, rank)
    if rank != 0:
        return
    for old in (*folder.glob("model-*-of-*.safetensors"), folder / SINGLE[0]):
        if old not in files:
            old.unlink(missing_ok=True)
    if len(files) == 1:
        (folder / INDEXES[0]).unlink(missing_ok=True)
    for name, content in tokenizer_files.items():
        write_bytes(folder / name, content)
    write_json(folder / PREPROCESSOR, preprocessor(sections))
    held = {key.split(".")[0] for key in sources}
    parts = [name for name, attributes in SUBMODULES.items() if len(attributes) == 1 and name in held]
    config = {"model_type": MODEL_TYPE, "version": VERSION, "parts": parts, "model": sections}
    text = json.dumps({**config, "sampling": dict(sampling)}, indent=2, ensure_ascii=False)
    write_bytes(folder / CONFIG, f"{text}\n".encode())


def preprocessor(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Return how pictures become numbers, for the parts of a model that are known."""
    found: dict[str, Any] = {}
    vision = VisionConfig(**sections["vision"]) if "vision" in sections else None
    if vision is not None and vision.kind != "none":
        mean, std = vision.scaling
        found["seen"] = {"size": vision.picture_size, "fit": vision.squaring, "mean": list(mean), "std": list(std)}
    if "tokenizer" in sections:
        height, width = TokenizerConfig(**sections["tokenizer"]).picture_shape
        size = height if height == width else [height, width]
        found["drawn"] = {"size": size, "fit": "crop", "range": [-1.0, 1.0]}
    return found
