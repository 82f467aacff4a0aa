"""Two small sets of pictures, as files and as tensors, and weights of an untrained Inception."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.evaluation.pictures import in_library_order, write_inception, write_pictures


@dataclass(frozen=True)
class Sets:
    """Folders and (N, 3, H, W) uint8 of the same pictures, in the order in which torch-fidelity reads them."""

    folders: tuple[Path, Path]
    drawn: torch.Tensor
    real: torch.Tensor


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inception(tmp_path_factory.mktemp("inception") / "inception.pth")


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Sets:
    root = tmp_path_factory.mktemp("sets")
    found = []
    for name, count, low, seed in (("drawn", 11, 0, 1), ("real", 13, 12, 2)):
        files = in_library_order(write_pictures(root / name, count, low=low, seed=seed))
        arrays = [np.array(Image.open(file.path)) for file in files]
        found.append(torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous())
    return Sets((root / "drawn", root / "real"), *found)
