"""Small data sets as Hugging Face's `datasets` 5.2 writes them: the same files, made by pyarrow alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
TYPES = {"Image": IMAGE, "ClassLabel": pa.int64(), "Value": pa.string(), "List": pa.list_(pa.string())}


def table(columns: Mapping[str, tuple[str, Sequence[Any]]], names: Sequence[str] = ()) -> pa.Table:
    """A table of columns of (feature, values), with what `datasets` notes of them in the schema."""
    arrays = {name: pa.array(values, TYPES[kind]) for name, (kind, values) in columns.items()}
    noted = {
        name: {"_type": kind, **({"names": list(names)} if kind == "ClassLabel" else {})}
        for name, (kind, _) in columns.items()
    }
    about = {b"huggingface": json.dumps({"info": {"features": noted}}).encode()}
    return pa.table(arrays).replace_schema_metadata(about)


def save_to_disk(folder: Path, whole: pa.Table, shards: int = 1, batch: int = 2) -> Path:
    """What `Dataset.save_to_disk` leaves: streams of record batches, state.json, dataset_info.json."""
    folder.mkdir(parents=True, exist_ok=True)
    size, files = -(-whole.num_rows // shards), []
    for number in range(shards):
        files.append({"filename": f"data-{number:05d}-of-{shards:05d}.arrow"})
        part = whole.slice(number * size, size)
        with pa.OSFile(str(folder / files[-1]["filename"]), "wb") as file, pa.ipc.new_stream(file, whole.schema) as out:
            out.write_table(part, max_chunksize=batch)
    (folder / "state.json").write_text(json.dumps({"_data_files": files, "_fingerprint": "0" * 16, "_split": None}))
    (folder / "dataset_info.json").write_text(json.dumps({"citation": "", "features": {}}))
    return folder


def save_dict(folder: Path, splits: Mapping[str, pa.Table]) -> Path:
    """What `DatasetDict.save_to_disk` leaves: a folder for each split."""
    for name, whole in splits.items():
        save_to_disk(folder / name, whole)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    return folder


def snapshot(folder: Path, splits: Mapping[str, pa.Table]) -> Path:
    """A data set's repository on the hub: data/SPLIT-00000-of-00001.parquet beside a README.md."""
    (folder / "data").mkdir(parents=True)
    for name, whole in splits.items():
        pq.write_table(whole, folder / "data" / f"{name}-00000-of-00001.parquet")
    (folder / "README.md").write_text("# a data set")
    return folder
