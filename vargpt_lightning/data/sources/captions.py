"""Pictures with captions made into dialogues: archives, tables, saved data sets, imagefolders, or files in pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vargpt_lightning.data.shards.records import Record
from vargpt_lightning.data.sources.base import (
    ROWS_PER_PART,
    Part,
    Rejected,
    Row,
    RowError,
    read_all,
    row_id,
    with_pictures,
)
from vargpt_lightning.data.sources.caption_files import (
    Sample,
    ending_counts,
    folder_samples,
    forget_folders,
    pictures_by_stem,
    tar_key,
    tar_samples,
    used_files,
)
from vargpt_lightning.data.sources.caption_files import folder_captions as folder_captions
from vargpt_lightning.data.sources.caption_tables import caption_parts, picture_paths, table_samples
from vargpt_lightning.data.sources.corpus_folders import (
    EXPECTED,
    OF_DATASETS,
    find_layout,
    name_patterns,
    split_of,
    walk,
)
from vargpt_lightning.data.sources.phrases import drawn_caption, pick, seen_caption
from vargpt_lightning.data.sources.tars import tar_parts
from vargpt_lightning.utils.errors import UserError

NAME = "captions"
USES = ("drawn", "seen", "both")
TAKES = ("all", "one")


def parts(
    path: Path,
    *,
    pictures: Path | None = None,
    use: str = "drawn",
    seed: int = 0,
    caption: str | None = None,
    picture: str | None = None,
    split: str | None = None,
    take: str = "all",
) -> list[Part]:
    """Return pieces of what `corpus_folders` tells apart, for `read_part`.

    Args:
        path: a tar archive, a table (.jsonl, .json, .csv, .parquet, .arrow), or a folder.
        pictures: where the paths in a table begin, a folder or an archive; beside the table by default.
        use: "drawn" asks for the picture by its caption, "seen" asks what the picture shows, "both" does either.
        seed: of the wording, of which is which with "both", and of which caption with `take`.
        caption: the column of captions; by default the first of the usual names that has a text.
        picture: the column of pictures or of their paths; found by type and name by default.
        split: of a data set; the training split by default, "all" takes every one.
        take: "all" makes a record for each caption of a picture, "one" takes one of them.

    Raises:
        UserError: an option has another value, there is nothing of these, or a file is broken.
    """
    for name, value, choices in (("use", use, USES), ("take", take, TAKES)):
        if value not in choices:
            raise UserError(f"captions {name}: {value!r}; expected one of {', '.join(choices)}")
    path, options = Path(path), {"use": use, "seed": seed, "take": take}
    forget_folders()
    layout = find_layout(path, split)
    found: list[Part] = []
    for file in layout.files:
        settings = {**options, "name": _label(file, path)}
        if layout.kind == "table":
            settings["name"] = settings["name"] if file == path else f"{path.name}/{settings['name']}"
            found += caption_parts(NAME, file, settings, pictures, caption, picture)
        elif layout.kind == "tar":
            found += tar_parts(NAME, file, settings, tar_key)
    if layout.names:
        count = len(pictures_by_stem(layout.names))
        settings = {**options, "name": path.name, "split": split}
        for start in range(0, count, ROWS_PER_PART):
            found.append(Part(NAME, path, start, min(count, start + ROWS_PER_PART), start, settings))
    if not found:
        raise UserError(f"{path}: no picture with a caption; expected {EXPECTED}")
    return found


def read_part(part: Part) -> Iterator[Row]:
    """Read one piece."""
    samples: Callable[[Part], Iterator[Sample]] = tar_samples
    if part.path.is_dir():
        samples = folder_samples
    elif "captions" in part.options:
        samples = table_samples
    for number, sample in enumerate(samples(part), part.first):
        name = row_id(sample.key if sample.id is None else sample.id, f"{part.options['name']}-{number}")
        yield from _rows(part, name, sample)


def read(path: Path, **options: Any) -> Iterator[Row]:
    """Read all of them; see `parts`."""
    return read_all(parts(path, **options), read_part)


def left_out(path: Path, pieces: list[Part], *, split: str | None = None, **options: Any) -> dict[str, int]:
    """Return how many files of a folder are used for nothing, by their endings, and how many are of other splits."""
    if not path.is_dir():
        return {}
    layout = find_layout(path, split)
    others = {f"split {name}": count for name, count in layout.other_splits.items()}
    used = {file.relative_to(path).as_posix() for file in layout.files}
    if layout.kind == "table":
        files = (Path(file) for file in picture_paths(pieces))
        used |= {file.relative_to(path).as_posix() for file in files if file.is_relative_to(path)}
    elif layout.kind != "tar":
        used |= used_files(path, split)
    names = list(walk(path))
    siblings = name_patterns(names)
    rest = (name for name in names if name not in used and Path(name).name not in OF_DATASETS)
    rest = (name for name in rest if split_of(name, siblings) not in layout.other_splits)
    return others | dict(ending_counts(rest))


def _label(file: Path, root: Path) -> str:
    if file != root:
        return file.relative_to(root).with_suffix("").as_posix()
    return file.stem


def _rows(part: Part, name: str, sample: Sample) -> Iterator[Row]:
    """A record for each caption of a picture, or one that is refused."""
    wrong = next((each for each in (sample.picture, sample.captions) if isinstance(each, RowError)), None)
    if wrong is not None or isinstance(sample.captions, RowError):
        yield Rejected(name, NAME, str(wrong))
        return
    captions = sample.captions
    if part.options.get("take") == "one":
        captions = [pick(captions, part.options["seed"], name, "caption")]
    for number, caption in enumerate(captions, 1):
        yield _row(part, name if number == 1 else f"{name}-{number}", sample, caption)


def _row(part: Part, name: str, sample: Sample, caption: str) -> Row:
    assert isinstance(sample.picture, bytes)
    data, use, seed = sample.picture, part.options["use"], part.options["seed"]
    if use == "both":
        use = pick(("drawn", "seen"), seed, name, "use")
    make = drawn_caption if use == "drawn" else seen_caption
    turns = make(caption, f"{part.options['name']}/{sample.key}", data, seed, name)
    kind = "generation" if use == "drawn" else "understanding"
    record = Record(name, NAME, turns, {"kind": kind, "caption": caption})
    return with_pictures(record, lambda _: data)
