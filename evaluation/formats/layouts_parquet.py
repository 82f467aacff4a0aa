"""Rows out of parquet files as the public mirrors write them; pyarrow is imported when a file is read."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vargpt_lightning.evaluation.base.benchmark import Record
from vargpt_lightning.evaluation.formats.layouts_arrow import ArrowFile, find_arrow
from vargpt_lightning.evaluation.formats.layouts_rows import Picture, Rows, image_in, require
from vargpt_lightning.utils.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

TEXT_BATCH = 2048
PICTURE_BATCH = 16  # rows with pictures that are in memory at a time
ARROW = ".arrow"
READ_AHEAD = 1 << 20  # bytes; a row group of many pictures is then not read whole
SPLITS = ("train", "validation", "val", "val2014", "dev", "test", "testdev")


def find_parquet(path: str | Path, config: str | None = None, split: str | None = None) -> list[Path]:
    """The parquet files of a split in a mirror's folder, or none; of a saved dataset its Arrow files.

    Looks for `<config>/<split>-00000-of-00003.parquet`, `data/<split>-*.parquet`, `<config>/<split>/*.parquet` and,
    where no file is named after a split, plain `*.parquet`; a path of one file is that file.

    Raises:
        UserError: some of the numbered files of the split are missing.
    """
    path = Path(path)
    if path.is_file():
        return [path] if path.suffix in (".parquet", ARROW) else []
    if saved := find_arrow(path, split):
        return saved
    folders = [path / config, path / "data" / config] if config else []
    for folder in (*folders, path / "data", path / "default", path):
        found = sorted(folder.glob("*.parquet"))
        if split is not None:
            inside = sorted((folder / split).glob("*.parquet"))
            plain = [] if any(_split_of(file) for file in found) else found
            found = [file for file in found if _split_of(file) == split] or inside or plain
        if found:
            return _complete(found)
    return []


def _split_of(file: Path) -> str | None:
    """The split that a file is named after: "test" of `test-00000-of-00003-0a1b.parquet`; None of other names."""
    stem = re.sub(r"-\d{5}-of-\d{5}.*$", "", file.stem)
    return stem if stem != file.stem or stem in SPLITS else None


def _complete(files: list[Path]) -> list[Path]:
    """The files, when none of a numbered set is missing."""
    sets: dict[tuple[str, int], set[int]] = {}
    for file in files:
        if match := re.search(r"^(.*)-(\d{5})-of-(\d{5})", file.stem):
            sets.setdefault((match[1], int(match[3])), set()).add(int(match[2]))
    for (stem, total), there in sets.items():
        if missing := sorted(set(range(total)) - there):
            raise UserError(
                f"{files[0].parent}: {len(missing)} of the {total} files {stem}-*-of-{total:05d}.parquet missing, "
                f"the first is number {missing[0]:05d}"
            )
    return files


def read_parquet(
    paths: str | Path | Sequence[str | Path],
    columns: Sequence[str] | None = None,
    picture_columns: Sequence[str] = ("image",),
    required: Sequence[str] = (),
    pictures: bool = True,
) -> Rows:
    """Rows of parquet files, or of a saved dataset's Arrow files, streamed; pictures stay encoded.

    Args:
        paths: the files, in order.
        columns: what to read beside the pictures; all when None. Names that are not there are skipped.
        picture_columns: columns that hold a picture (bytes, a `{"bytes", "path"}` struct) or a list of them.
        required: columns without which this is not the data that was meant.
        pictures: False leaves the picture columns unread.

    Raises:
        UserError: no file, a file that is no parquet file, or missing columns (they and those there are named).
    """
    files = [Path(path) for path in ([paths] if isinstance(paths, (str, Path)) else paths)]
    if not files:
        raise UserError("no parquet file to read")
    lengths = []
    for file in files:
        with _open(file) as opened:
            there = list(opened.schema_arrow.names)
            require(there, required, file)
            lengths.append(opened.rows if isinstance(opened, ArrowFile) else opened.metadata.num_rows)
    wanted = [name for name in there if columns is None or name in columns or name in picture_columns]
    starts = [0, *accumulate(lengths)]

    def read(indices: Sequence[int] | None, with_pictures: bool) -> Iterator[Record]:
        names = wanted if with_pictures else [name for name in wanted if name not in picture_columns]
        shown = picture_columns if with_pictures else ()
        for file, chosen in _by_part(starts, indices):
            yield from _rows_of_file(files[file], names, shown, chosen)

    return Rows(read, starts[-1], ", ".join(map(str, files)), wanted, pictures)


def _by_part(starts: Sequence[int], indices: Sequence[int] | None) -> Iterator[tuple[int, list[int] | None]]:
    """Cuts ascending indices at the parts' starts: (number of the part, places inside it or None for all)."""
    if indices is None:
        yield from ((part, None) for part in range(len(starts) - 1))
        return
    by_part: dict[int, list[int]] = {}
    for index in indices:
        part = bisect_right(starts, index) - 1
        by_part.setdefault(part, []).append(index - starts[part])
    yield from by_part.items()


def _open(file: Path) -> pq.ParquetFile | ArrowFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not file.is_file():
        raise UserError(f"{file}: there is no such file")
    try:
        return (
            ArrowFile(file) if file.suffix == ARROW else pq.ParquetFile(file, pre_buffer=False, buffer_size=READ_AHEAD)
        )
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file} is not a whole {_kind(file)} file: {error}") from error


def _kind(file: Path) -> str:
    return "Arrow" if file.suffix == ARROW else "parquet"


def _groups(opened: pq.ParquetFile | ArrowFile) -> list[int]:
    """How many rows each group has."""
    if isinstance(opened, ArrowFile):
        return opened.lengths
    return [opened.metadata.row_group(group).num_rows for group in range(opened.num_row_groups)]


def _rows_of_file(
    file: Path, names: Sequence[str], picture_columns: Sequence[str], chosen: Sequence[int] | None
) -> Iterator[Record]:
    """The records of a file; of chosen ones only the row groups that hold them are read."""
    import pyarrow as pa

    shown = [name for name in names if name in picture_columns]
    with _open(file) as opened:
        starts = [0, *accumulate(_groups(opened))]
        size = PICTURE_BATCH if shown else TEXT_BATCH
        try:
            for group, places in _by_part(starts, chosen):
                batches = opened.iter_batches(size, row_groups=[group], columns=list(names), use_threads=False)
                yield from _rows_of_batches(batches, file, starts[group], shown, places)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{file} is not a whole {_kind(file)} file: {error}") from error


def _rows_of_batches(
    batches: Iterator[pa.RecordBatch], file: Path, start: int, shown: Sequence[str], places: Sequence[int] | None
) -> Iterator[Record]:
    """The records of a row group's batches; `start` is the group's first row in its file."""
    first = 0
    for batch in batches:
        if places is not None:
            held = places[bisect_left(places, first) : bisect_left(places, first + batch.num_rows)]
            inside = [place - first for place in held]
            first_row, first = start + first, first + batch.num_rows
            if inside:
                chosen = batch.take(inside)
                yield from _records(chosen, file, [first_row + place for place in inside], shown)
            if first > places[-1]:
                return
        else:
            yield from _records(batch, file, range(start + first, start + first + batch.num_rows), shown)
            first += batch.num_rows


def _records(batch: pa.RecordBatch, file: Path, numbers: Sequence[int], shown: Sequence[str]) -> Iterator[Record]:
    names = batch.schema.names
    columns = [plain_values(column) for column in batch.columns]
    for number, values in zip(numbers, zip(*columns, strict=True), strict=True):
        row = dict(zip(names, values, strict=True))
        for name in shown:
            row[name] = _picture(row[name], file, f"{file.name} row {number} {name}")
        yield row


def plain_values(array: pa.Array) -> list[Any]:
    """A column as plain values; the same as pyarrow's own conversion, and several times faster for lists of structs."""
    import pyarrow as pa

    if pa.types.is_struct(array.type) and array.null_count == 0:
        names = [array.type.field(place).name for place in range(array.type.num_fields)]
        parts = [plain_values(part) for part in array.flatten()]
        if names and len(set(names)) == len(names):
            return [dict(zip(names, values, strict=True)) for values in zip(*parts, strict=True)]
    if (pa.types.is_list(array.type) or pa.types.is_large_list(array.type)) and array.null_count == 0:
        inner, ends = plain_values(array.flatten()), array.offsets.to_pylist()
        return [inner[start - ends[0] : end - ends[0]] for start, end in pairwise(ends)]
    return list(array.to_pylist())


def _picture(value: Any, file: Path, name: str) -> Picture | list[Picture] | None:
    """A cell as a lazy picture (or pictures); None where there is none."""
    if value is None:
        return None
    if isinstance(value, (list, tuple)):
        return [one for number, item in enumerate(value) if (one := _picture(item, file, f"{name}[{number}]"))]  # type: ignore[misc]
    if isinstance(value, Mapping):
        if value.get("bytes") is not None:
            return Picture(data=value["bytes"], name=name)
        return _picture(value.get("path"), file, name)
    if isinstance(value, str):
        return image_in(file.parent, value)
    return Picture(data=bytes(value), name=name)


class PictureTable(Mapping[str, Picture]):
    """Pictures by the key that other rows name them by; each is read when it is opened, and the keys alone are kept.

    Raises:
        UserError: two rows have the same key.
    """

    def __init__(self, rows: Rows, key: str = "id", column: str = "image") -> None:
        self._rows, self._key, self._column = rows, key, column
        self._places: dict[str, int] = {}
        require(rows, (key, column), rows.source)
        for place, row in enumerate(rows.without_pictures()):
            if self._places.setdefault(str(row[key]), place) != place:
                raise UserError(f"{rows.source}: {key} {row[key]!r} occurs twice; expected each once")

    def __getitem__(self, key: str) -> Picture:
        place = self._places[str(key)]
        return Picture(name=f"{self._column} {key}", reader=lambda: self._bytes(place, key))

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def _bytes(self, place: int, key: str) -> bytes:
        picture = self._rows[place].get(self._column)
        if not isinstance(picture, Picture):
            raise UserError(f"{self._rows.source}: {self._key} {key!r} has no picture")
        return picture.bytes()
