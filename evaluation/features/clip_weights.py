"""Files of CLIP weights for open_clip: what they hold, and with which activation they were trained.

OpenAI's weights were trained with QuickGELU, and so were DFN's and MetaCLIP's; LAION's and DataComp's with GELU. The
same architecture has both names in open_clip (ViT-L-14, ViT-L-14-quickgelu), and most files do not say which they are
of: scores of the wrong activation look like scores. A tag says so itself; of a file it is found out, or asked for.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from vargpt_lightning.evaluation.features.finite import check_finite
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import read_json

OPENAI_KEYS = ("input_resolution", "context_length", "vocab_size")
"""What OpenAI's own archives hold beside the weights."""
CONFIG = "open_clip_config.json"  # what open_clip and timm publish beside a file on the hub
QUICK = "-quickgelu"
STORAGES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "BoolStorage": torch.bool,
}
ASK = (
    "--clip-quick-gelu for weights trained with QuickGELU (OpenAI, DFN, MetaCLIP), --no-clip-quick-gelu for those "
    "trained with GELU (LAION, DataComp)"
)


class Activation(NamedTuple):
    """Whether QuickGELU is used, and how that is known."""

    quick: bool
    known_by: str


class ClipFile(NamedTuple):
    """Weights of a file by name, and whether they are in the form in which OpenAI publishes them ("" if not)."""

    state: dict[str, Tensor]
    openai: str


def activation(model: str, weights: str, given: bool | None, names: list[str], openai: str = "") -> Activation:
    """The activation that a model's weights were trained with.

    Args:
        model: open_clip's name.
        weights: a tag or a file.
        given: what the user says.
        names: all models that open_clip has.
        openai: of a file, in which form of OpenAI's it is.

    Raises:
        UserError: name, file and user contradict each other, or nothing says it.
    """
    file = Path(weights)
    found = _by_file(file, openai) if file.is_file() else None
    if model.endswith(QUICK):
        found = Activation(True, "the model's name")
    if given is not None:
        if found is not None and found.quick != given:
            raise UserError(
                f"CLIP model {model!r} with weights {weights!r}: {found.known_by} says "
                f"{'QuickGELU' if found.quick else 'GELU'}, and --{'' if given else 'no-'}clip-quick-gelu the other"
            )
        return Activation(given, "the option")
    if found is None and model + QUICK in names:
        raise UserError(
            f"{weights}: does not say whether it was trained with QuickGELU, and {model!r} has both; expected {ASK}, "
            f"or the model {model + QUICK!r}"
        )
    return found or Activation(False, "the model's name")


def _by_file(file: Path, openai: str) -> Activation | None:
    if openai:
        return Activation(True, f"the file ({openai})")
    config = file.parent / CONFIG
    if config.is_file():
        content = read_json(config)
        network = content.get("model_cfg", content) if isinstance(content, dict) else {}
        return Activation(bool(network.get("quick_gelu", False)), CONFIG)
    return None


def read_clip_file(path: Path) -> ClipFile:
    """The weights of a .pt or .safetensors, OpenAI's TorchScript archives among them; in float32.

    Raises:
        UserError: the file holds something else, or weights that are not finite.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; expected a file of open_clip weights (transformers' CLIPs are folders)")
    try:
        content, archive = _content(path)
    except UserError:
        raise
    except Exception as error:
        reason = str(error).split(". ")[0].splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: not weights ({reason}); expected a .pt or .safetensors of open_clip") from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    tensors = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{path}: holds no weights by name; expected a .pt or .safetensors of open_clip")
    openai = _openai(tensors, archive)
    check_finite(path, tensors)
    kept = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    return ClipFile({key: value for key, value in kept.items() if key not in OPENAI_KEYS}, openai)


def _openai(tensors: Mapping[str, Tensor], archive: bool) -> str:
    """In which of the forms of OpenAI's own weights these are; empty for others."""
    if set(OPENAI_KEYS) <= tensors.keys():
        return "OpenAI's TorchScript archive" if archive else "OpenAI's keys"
    return ""


def _content(path: Path) -> tuple[Any, bool]:
    """What a file holds, and whether it is a TorchScript archive. No code of the file is run."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path), False
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any("/code/" in name for name in names):
            return _archive_state(path), True
    return torch.load(path, weights_only=True, map_location="cpu"), False


# ------------------------------------------------------------------------------------- TorchScript archives as data


class _Module:
    """Stands for any module of an archive: holds its attributes, and is nothing else."""

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}


def _tensor(flat: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    """A tensor over a storage's numbers; stands for torch._utils._rebuild_tensor_v2."""
    return flat.as_strided(size, stride, offset).clone()


class _Unpickler(pickle.Unpickler):
    """Reads an archive's tensors: every module becomes a `_Module`, and any other class is refused."""

    KNOWN: ClassVar[dict[tuple[str, str], Any]] = {
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("collections", "OrderedDict"): OrderedDict,
        **{("torch.jit._pickle", f"build_{kind}list"): list for kind in ("int", "double", "bool", "tensor")},
    }

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(archive.open(f"{root}/data.pkl"))
        self.archive, self.root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Module
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) in self.KNOWN:
            return self.KNOWN[module, name]
        raise pickle.UnpicklingError(f"{module}.{name} is not known in an archive of weights")

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, *_ = pid
        content = bytearray(self.archive.read(f"{self.root}/data/{key}"))
        return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)


def _archive_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a TorchScript archive by their names, as its module's state_dict has them."""
    with zipfile.ZipFile(path) as archive:
        root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("/data.pkl")
        module = _Unpickler(archive, root).load()
    return dict(_tensors(module, ""))


def _tensors(module: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in getattr(module, "attributes", {}).items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, _Module):
            yield from _tensors(value, f"{prefix}{name}.")
