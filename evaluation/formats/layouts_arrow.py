"""Folders that `datasets` writes with `save_to_disk`: streams of Arrow, read without that package.

FOLDER/state.json, dataset_info.json, data-00000-of-00002.arrow, ...     one split
FOLDER/dataset_dict.json, <split>/state.json, ...                        several
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import read_object

if TYPE_CHECKING:
    import pyarrow as pa

STATE, SPLITS = "state.json", "dataset_dict.json"


def find_arrow(path: Path, split: str | None = None) -> list[Path]:
    """The Arrow files of a split of a saved dataset, or none; of a single split, whatever it is called, that one.

    Raises:
        UserError: a file is missing, or there are several splits and none of that name.
    """
    if (path / SPLITS).is_file():
        names = [str(name) for name in read_object(path / SPLITS).get("splits", [])]
        chosen = split if split in names else names[0] if len(names) == 1 else None
        if chosen is None:
            raise UserError(f"{path}: expected the split {split or 'that is meant'}; there are {', '.join(names)}")
        path = path / chosen
    if not (path / STATE).is_file():
        return []
    named = [each["filename"] for each in read_object(path / STATE).get("_data_files", [])]
    files = [path / Path(name).name for name in named]
    if lost := [file.name for file in files if not file.is_file()]:
        raise UserError(f"{path}: {len(lost)} of its {len(files)} files are missing, such as {lost[0]}")
    return files


class ArrowFile:
    """A file of record batches, mapped into memory; it is read as a parquet file is, a batch for a row group.

    Raises:
        pyarrow.ArrowException: it is no such file, or torn.
    """

    def __init__(self, file: Path) -> None:
        import pyarrow as pa

        self._source = pa.memory_map(str(file))
        try:
            try:
                reader: Any = pa.ipc.open_stream(self._source)
                self._batches = list(reader)
            except pa.ArrowInvalid:  # the other of the two formats
                reader = pa.ipc.open_file(self._source)
                self._batches = [reader.get_batch(place) for place in range(reader.num_record_batches)]
        except BaseException:
            self._source.close()
            raise
        self.schema_arrow = reader.schema
        self.lengths = [batch.num_rows for batch in self._batches]

    def __enter__(self) -> ArrowFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._batches.clear()

    @property
    def rows(self) -> int:
        """How many there are."""
        return sum(self.lengths)

    def iter_batches(
        self, batch_size: int, row_groups: Sequence[int], columns: Sequence[str], **unused: Any
    ) -> Iterator[pa.RecordBatch]:
        """The rows of some groups, so many at a time."""
        for group in row_groups:
            whole = self._batches[group].select(list(columns))
            for start in accumulate([0, *[batch_size] * ((whole.num_rows - 1) // batch_size)]):
                yield whole.slice(start, batch_size)
