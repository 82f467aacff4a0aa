"""From captions to instruction data: a run that can be killed and resumed.

    OUT/
        instructions.json   what was kept, in VARGPT's form: `messages` with <image_gen>, and `images`
        rejected.jsonl      id and reason of every caption and text that was not
        counts.json         counts by reason, requests and tokens, and the settings
        manifest.jsonl      every request: model, seed, prompt hash, tokens (see `ledger`); of templates one row a text
        settings.json       what the texts depend on: a run with other settings needs another folder

Texts stand in the order of the captions, however requests overtook each other. All but the manifest is made from it and
the captions, so other filters cost no request.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from vargpt_lightning.data.writing.captions import BadCaption, Caption
from vargpt_lightning.data.writing.endpoint import FAILED, NOT_ASKED, EndpointWriter
from vargpt_lightning.data.writing.filters import Filters
from vargpt_lightning.data.writing.ledger import Ledger
from vargpt_lightning.data.writing.templates import TemplateWriter, Written
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import plain, read_json, write_json

INSTRUCTIONS, REJECTED, COUNTS, MANIFEST = "instructions.json", "rejected.jsonl", "counts.json", "manifest.jsonl"
SETTINGS = "settings.json"
LATER = (NOT_ASKED, FAILED)
"""What is no verdict on a text: the same command may bring it later."""

Captions = Callable[[], Iterable[Caption | BadCaption]]
Find = Callable[[Caption, int], Written | str]
Progress = Callable[[str, int], None]


def write_instructions(
    captions: Captions,
    out: Path,
    writer: TemplateWriter | EndpointWriter,
    filters: Filters | None = None,
    *,
    per_caption: int = 1,
    limit: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write instruction data for captions into a folder, and return the counts.

    Args:
        captions: called for each pass over the captions, such as `lambda: read_captions(path)`.
        out: new, empty, or the folder of a run with the same settings, which resumes.
        per_caption: texts for each caption.
        limit: captions that are taken.
        progress: told "ask" or "write" and by how many texts the work went on.

    Raises:
        UserError: other settings than the folder's, a folder that is another's, or a service that fails.
    """
    if per_caption < 1 or (limit is not None and limit < 1):
        raise UserError(f"per caption {per_caption}, limit {limit}; expected 1 or more")
    filters = filters or Filters()
    _check_folder(out, {**writer.settings, "per_caption": per_caption})
    tell = progress or (lambda phase, count: None)

    def rows() -> Iterator[Caption | BadCaption]:
        return islice(iter(captions()), limit)

    if isinstance(writer, TemplateWriter):
        return _Pages(out, filters, per_caption, tell).write(rows(), writer.write, writer)
    with Ledger(out / MANIFEST) as ledger:
        items = ((row, number) for row in rows() if isinstance(row, Caption) for number in range(per_caption))
        finished = writer.ask(items, ledger, lambda count: tell("ask", count))
        pages = _Pages(out, filters, per_caption, tell)
        more = {**ledger.counts(), "within_limits": finished}
        return pages.write(rows(), lambda row, number: writer.written(row, number, ledger), writer, more)


class _Pages:
    """The files of one pass over the captions, which replace the old ones together at its end."""

    def __init__(self, out: Path, filters: Filters, per_caption: int, progress: Progress) -> None:
        self.out, self.filters, self.per_caption, self.progress = out, filters, per_caption, progress
        self.captions, self.kept = 0, 0
        self.bad: Counter[str] = Counter()

    def write(
        self,
        rows: Iterable[Caption | BadCaption],
        find: Find,
        writer: TemplateWriter | EndpointWriter,
        more: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        names = [INSTRUCTIONS, REJECTED, *([MANIFEST] if isinstance(writer, TemplateWriter) else [])]
        with ExitStack() as stack:
            files = {name: stack.enter_context(open(_temporary(self.out, name), "w", encoding="utf-8"))
                     for name in names}  # fmt: skip
            files[INSTRUCTIONS].write("[")
            for row in rows:
                self.captions += 1
                if isinstance(row, BadCaption):
                    self.bad[row.reason] += 1
                    _line(files[REJECTED], {"id": row.id, "reason": row.reason})
                else:
                    self._texts(row, find, files, writer)
                self.progress("write", self.per_caption)
            files[INSTRUCTIONS].write("\n]\n")
            for file in files.values():
                file.flush()
                os.fsync(file.fileno())
        for name in names:
            os.replace(_temporary(self.out, name), self.out / name)
        counts = self._counts(writer, more or {})
        write_json(self.out / COUNTS, counts)
        return counts

    def _texts(
        self, row: Caption, find: Find, files: Mapping[str, TextIO], writer: TemplateWriter | EndpointWriter
    ) -> None:
        for number in range(self.per_caption):
            name = f"{row.id}-{number}" if self.per_caption > 1 else row.id
            written = find(row, number)
            if isinstance(writer, TemplateWriter):
                _line(files[MANIFEST], _template_row(writer, row, number))
            if reason := self.filters.reason(row, written):
                _line(files[REJECTED], {"id": name, "reason": reason, **_said(written)})
            elif isinstance(written, Written):
                files[INSTRUCTIONS].write(",\n" if self.kept else "\n")
                files[INSTRUCTIONS].write(json.dumps(vargpt_row(name, row.picture, written), ensure_ascii=False))
                self.kept += 1

    def _counts(self, writer: TemplateWriter | EndpointWriter, more: Mapping[str, Any]) -> dict[str, Any]:
        reasons = self.bad + self.filters.counts
        return {
            "captions": self.captions,
            "written": self.kept,
            "rejected": {name: count for name, count in sorted(reasons.items()) if name not in LATER},
            "later": {name: reasons[name] for name in LATER if reasons[name]},
            "requests": dict(more),
            "settings": {**writer.settings, "per_caption": self.per_caption, "filters": self.filters.settings},
        }


def vargpt_row(name: str, picture: str, written: Written) -> dict[str, Any]:
    """A record in VARGPT's form; the id is ours."""
    said = [("user", written.request), ("assistant", f"{written.answer} <image_gen>")]
    return {"id": name, "messages": [{"role": role, "content": text} for role, text in said], "images": [picture]}


def _template_row(writer: TemplateWriter, caption: Caption, number: int) -> dict[str, Any]:
    digest = hashlib.sha256(caption.text.encode()).hexdigest()[:16]
    row: dict[str, Any] = {"event": "answered", "id": caption.id, "number": number, "model": writer.name}
    return {**row, "seed": writer.seed, "prompt_hash": digest, "prompt_tokens": 0, "completion_tokens": 0}


def _check_folder(out: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a folder of other settings: its texts would be mixed with others, or paid for anew."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; expected a folder")
    file = out / SETTINGS
    wanted = plain(settings)
    if file.is_file():
        before = read_json(file)
        for key in sorted({*wanted, *before}):
            if wanted.get(key) != before.get(key):
                raise UserError(
                    f"{out}: was written with {key} {before.get(key)!r}, now it is {wanted.get(key)!r}; "
                    "expected the same, or another --out"
                )
        return
    if out.is_dir() and (there := [name for name in (INSTRUCTIONS, MANIFEST) if (out / name).exists()]):
        raise UserError(f"{out}: holds {there[0]} but no {SETTINGS}; expected a new folder, or one of an earlier run")
    write_json(file, wanted)


def _temporary(out: Path, name: str) -> Path:
    return out / f".{name}.tmp"


def _line(file: TextIO, row: Mapping[str, Any]) -> None:
    file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _said(written: Written | str) -> dict[str, str]:
    return {"request": written.request, "answer": written.answer} if isinstance(written, Written) else {}
