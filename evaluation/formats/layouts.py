"""How benchmarks' data lies on disks and on the hub, in one place to import from.

Every reader gives `Rows`: records that are read again each time they are walked, with pictures that are decoded when
they are opened. Memory stays flat however large the set is.
"""

from __future__ import annotations

from vargpt_lightning.evaluation.formats.hub import HubSource, resolve
from vargpt_lightning.evaluation.formats.layouts_parquet import PictureTable, find_parquet, read_parquet
from vargpt_lightning.evaluation.formats.layouts_rows import Picture, Rows, image_in, records, require
from vargpt_lightning.evaluation.formats.layouts_text import read_json, read_jsonl, read_tsv

__all__ = [
    "HubSource",
    "Picture",
    "PictureTable",
    "Rows",
    "find_parquet",
    "image_in",
    "read_json",
    "read_jsonl",
    "read_parquet",
    "read_tsv",
    "records",
    "require",
    "resolve",
]
