"""Writers of small files in the formats that corpora are published in."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests import true_formats
from tests.true_formats import write_json as write_json
from vargpt_lightning.data.shards.records import Record
from vargpt_lightning.data.sources import Rejected, Row


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "own-cache"
    monkeypatch.setenv("VARGPT_CACHE", str(folder))
    return folder


def jpeg(shade: int = 0, size: int = 12) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (shade % 256, 80, 40)).save(buffer, "JPEG")
    return buffer.getvalue()


def write_tar(path: Path, files: Iterable[tuple[str, bytes]], end: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        offset = archive.offset
    path.write_bytes(buffer.getvalue() if end else buffer.getvalue()[:offset])
    return path


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], group: int = 2) -> Path:
    return true_formats.write_parquet(path, rows, group)


def write_file(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def said(question: str, answer: str = "Yes.") -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def split(rows: Iterable[Row]) -> tuple[list[Record], list[Rejected]]:
    found = list(rows)
    good = [row for row in found if isinstance(row, Record)]
    bad = [row for row in found if isinstance(row, Rejected)]
    assert len(good) + len(bad) == len(found)
    return good, bad
