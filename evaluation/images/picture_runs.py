"""Sampling pictures for a prompt file: any ImageModel, any number of processes, resumed after a kill.

    OUT/drawings/<id>.png              one picture a prompt, written in one step
    OUT/drawn/<rank>-of-<world>.jsonl  one row a prompt: id, key, seed, file (null: the answer has none), text, answer
                                       (the text with the picture's place marked), time
    OUT/sampling.json                  what the pictures depend on: the system, its settings, the base seed

A prompt belongs to one process by its place in the file, and its seed follows from its id: the pictures are the same
whatever the number of processes and the size of batches. Imports no torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vargpt_lightning.distributed.group import Processes
from vargpt_lightning.evaluation.base.files import file_stem, save_picture, short_hash
from vargpt_lightning.evaluation.base.protocols import Drawing, ImageModel, as_reply, marked_text
from vargpt_lightning.evaluation.harness.outputs import read_rows
from vargpt_lightning.evaluation.images.instruct_set import Prompt
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import append_jsonl, different, plain, read_json, write_json

DRAWINGS, ROWS, SETTINGS = "drawings", "drawn", "sampling.json"

Progress = Callable[[str, int, int], None]
"""Called with a title, how many are done, and how many there are."""


@dataclass(frozen=True)
class Sampled:
    """What is there after sampling: prompts, pictures, and answers that held none."""

    prompts: int
    pictures: int
    without_picture: int
    drawn_now: int


def draw_pictures(
    drawer: ImageModel,
    prompts: Sequence[Prompt],
    out: Path,
    *,
    batch_size: int = 8,
    seed: int = 0,
    text: str = "instruction",
    processes: Processes | None = None,
    progress: Progress | None = None,
) -> Sampled:
    """Draws what is not drawn yet, and returns the counts of all processes together.

    Args:
        text: what the drawer is given, "instruction" or "caption".
        seed: base of all seeds; see `Prompt.seed`.

    Raises:
        UserError: the folder holds pictures of another system, settings or seed; a prompt lacks the text; a batch size
            below 1; a folder of drawings lacks some, or has others.
    """
    if batch_size < 1:
        raise UserError(f"batch size {batch_size}; expected 1 or more")
    processes = processes or Processes()
    _check_stems(prompts)
    keys = {prompt.id: row_key(prompt, seed, text) for prompt in prompts}
    _announce(drawer, prompts, seed, text)
    if processes.first:
        _claim(out, _settings(drawer, seed, text))
    processes.wait()
    done = drawn_rows(out)
    processes.wait()  # nobody writes before all have read
    own = [prompt for prompt in processes.share(prompts) if not _is_done(out, done.get(prompt.id), keys[prompt.id])]
    rows = out / ROWS / f"{processes.rank}-of-{processes.world}.jsonl"
    for start in range(0, len(own), batch_size):
        if progress is not None:
            progress("drawing", start, len(own))
        batch = own[start : start + batch_size]
        append_jsonl(rows, _draw(drawer, batch, out, keys, seed, text))
    if progress is not None:
        progress("drawing", len(own), len(own))
    drawn = sum(processes.gather(len(own)))
    found = [row for row in drawn_rows(out).values() if row["id"] in keys]
    pictures = sum(row["file"] is not None for row in found)
    return Sampled(len(prompts), pictures, len(found) - pictures, drawn)


def row_key(prompt: Prompt, seed: int, text: str) -> str:
    """What one picture depends on, beside the settings that the whole folder shares."""
    return short_hash(prompt.id, prompt.text(text), prompt.seed(seed))


def drawn_rows(out: Path) -> dict[str, dict[str, Any]]:
    """The rows of all processes by prompt id; of several for one id the last written counts."""
    return {str(row["id"]): row for row in sorted(_rows(out), key=lambda row: row.get("time") or 0)}


def _rows(out: Path) -> Iterator[dict[str, Any]]:
    rows = (row for file in sorted((out / ROWS).glob("*.jsonl")) for row in read_rows(file))
    return (row for row in rows if {"id", "key", "file"} <= row.keys())


def _is_done(out: Path, row: Mapping[str, Any] | None, key: str) -> bool:
    if row is None or row["key"] != key:
        return False
    return row["file"] is None or (out / row["file"]).is_file()


def _announce(drawer: ImageModel, prompts: Sequence[Prompt], seed: int, text: str) -> None:
    """Tells a system that wants to know beforehand, as a folder of drawings does, what all processes will ask."""
    if (expect := getattr(drawer, "expect_drawings", None)) is not None:
        expect([Drawing(prompt.id, prompt.text(text), prompt.seed(seed)) for prompt in prompts])


def _draw(
    drawer: ImageModel, batch: Sequence[Prompt], out: Path, keys: Mapping[str, str], seed: int, text: str
) -> list[dict[str, Any]]:
    seeds = [prompt.seed(seed) for prompt in batch]
    raw = drawer.draw([prompt.text(text) for prompt in batch], seeds)
    if len(raw) != len(batch):
        raise ValueError(f"{len(raw)} drawings came back for {len(batch)} requests; expected one for each")
    rows = []
    for prompt, own_seed, one in zip(batch, seeds, raw, strict=True):
        reply = as_reply(one)
        file = f"{DRAWINGS}/{file_stem(prompt.id)}.png" if reply.pictures else None
        if file is not None:
            save_picture(out / file, reply.pictures[0])
        row = {"id": prompt.id, "key": keys[prompt.id], "seed": own_seed, "file": file, "text": reply.text}
        rows.append({**row, "answer": marked_text(one), "time": time.time()})
    return rows


def _settings(drawer: ImageModel, seed: int, text: str) -> dict[str, Any]:
    found = {name: getattr(drawer, name, None) for name in ("name", "digest", "settings")}
    return dict(plain({**found, "seed": seed, "text": text}))


def _claim(out: Path, settings: Mapping[str, Any]) -> None:
    """The folder belongs to the first settings that drew into it: pictures of two systems must not mix."""
    path = out / SETTINGS
    if not path.is_file() or next(_rows(out), None) is None:
        write_json(path, settings)
        return
    before = read_json(path)
    for name, value in settings.items():
        if before.get(name) != value:
            old, new = different(before.get(name), value)
            raise UserError(
                f"{out} holds pictures with the {name} {old}, now it is {new}; expected the same, or another folder"
            )


def _check_stems(prompts: Sequence[Prompt]) -> None:
    """Two ids must not share a file, also where the file system does not tell small letters from capitals."""
    seen: dict[str, str] = {}
    for prompt in prompts:
        stem = file_stem(prompt.id).lower()
        if stem in seen:
            raise UserError(
                f"prompts {seen[stem]!r} and {prompt.id!r} would share the file {stem}.png; expected others"
            )
        seen[stem] = prompt.id
