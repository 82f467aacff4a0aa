"""The tiny corpora with pairs of answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tiny_pairs import write_pairs
from tests.tiny_training import tiny_stage_data
from vargpt_lightning.training.data.stage_data import StageData


@pytest.fixture(scope="session")
def paired_arguments(tiny_data: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return write_pairs(tmp_path_factory.mktemp("pairs"), tiny_data)


@pytest.fixture
def paired_data(paired_arguments: dict[str, Any], tmp_path: Path) -> StageData:
    return tiny_stage_data(paired_arguments, tmp_path / "cache")
