"""The prompt file of the generation metrics: what is asked for, what it shows, and the real picture beside it.

One JSON object a line: `id`, `instruction` (what the model is told), `caption` (what the picture shows), `class`,
`reference` (a picture, relative to the file; null without one). Ids are stable: from the same data come the same ids,
and with them the same seeds. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vargpt_lightning.utils.errors import UserError, near_path
from vargpt_lightning.utils.files import read_json, write_jsonl

PER_CLASS = 50
TEXTS = ("instruction", "caption")


@dataclass(frozen=True)
class Prompt:
    """One picture to be drawn; `reference` is the path of the real one."""

    id: str
    instruction: str
    caption: str = ""
    class_name: str = ""
    reference: Path | None = None

    def seed(self, base: int = 0) -> int:
        """The seed of this drawing: from its id and the run's base alone, so never from batches or processes."""
        return int.from_bytes(hashlib.sha256(f"{base}:{self.id}".encode()).digest()[:4], "big") >> 1

    def text(self, name: str) -> str:
        """The instruction or the caption, by name; raises UserError when it is empty."""
        if name not in TEXTS:
            raise UserError(f"text {name!r}; expected one of {', '.join(TEXTS)}")
        value = self.instruction if name == "instruction" else self.caption
        if not value.strip():
            raise UserError(f"prompt {self.id!r} has no {name}; expected text")
        return value


def read_prompts(path: str | Path, limit: int | None = None) -> list[Prompt]:
    """The prompts of a file, in its order.

    Raises UserError for a file that is missing or empty, a line that is no JSON, a missing id or instruction, a value
    that is no text, and an id that comes twice.
    """
    path = Path(path)
    if not path.is_file():
        near = near_path(path)
        raise UserError(
            f"{path}: not found; expected a prompt file (JSON lines with id, instruction, caption, ...){near}"
        )
    prompts: list[Prompt] = []
    seen: dict[str, int] = {}
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error}); expected JSON lines") from error
    # Only newlines end a row: texts may hold other characters that Python counts as line ends.
    for number, line in enumerate(text.split("\n"), 1):
        if limit is not None and len(prompts) >= limit:
            break
        if line.strip():
            prompt = _prompt(line, path, number)
            if prompt.id in seen:
                raise UserError(f"{path}, line {number}: id {prompt.id!r} stands in line {seen[prompt.id]} already")
            seen[prompt.id] = number
            prompts.append(prompt)
    if not prompts:
        raise UserError(f"{path}: no prompts; expected one JSON object a line")
    return prompts


def read_requests(path: Path, limit: int | None = None) -> list[Prompt]:
    """The prompts of a text file with a request a line, or of a prompt file.

    Raises:
        UserError: as `read_prompts` does, or the text file holds no request.
    """
    if path.suffix != ".txt" or not path.is_file():
        return read_prompts(path, limit)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error}); expected a request a line") from error
    found = [Prompt(f"line-{number:06d}", line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise UserError(f"{path}: no prompts; expected a request a line")
    return found[:limit]


def _prompt(line: str, path: Path, number: int) -> Prompt:
    where = f"{path}, line {number}"
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({error})") from error
    if not isinstance(row, dict):
        raise UserError(f"{where}: {type(row).__name__}; expected an object with id and instruction")
    if row.get("id") is None or not (row.get("instruction") or row.get("caption")):
        there = ", ".join(sorted(row)) or "nothing"
        raise UserError(f"{where}: needs id, and instruction or caption; there is {there}")
    for key in ("instruction", "caption", "class", "reference"):
        if not isinstance(row.get(key) or "", str):
            raise UserError(f"{where}: {key} is {type(row[key]).__name__}; expected text")
    reference = row.get("reference")
    return Prompt(
        str(row["id"]),
        row.get("instruction") or "",
        row.get("caption") or "",
        row.get("class") or "",
        path.parent / reference if reference else None,
    )


def write_prompts(path: Path, prompts: Iterable[Prompt]) -> int:
    """Writes the prompt file in one step and returns how many prompts it holds; raises UserError for a double id."""
    rows: list[dict[str, Any]] = []
    for prompt in prompts:
        row = {"id": prompt.id, "instruction": prompt.instruction, "caption": prompt.caption}
        rows.append({**row, "class": prompt.class_name, "reference": _relative(prompt.reference, path.parent)})
    double = [id_ for id_, count in Counter(row["id"] for row in rows).items() if count > 1]
    if double:
        raise UserError(f"{path}: {len(double)} ids come more than once, such as {double[0]!r}; expected distinct ids")
    if not rows:
        raise UserError(f"{path}: there is nothing to ask for; expected classes or records with drawn pictures")
    write_jsonl(path, rows)
    return len(rows)


def _relative(reference: Path | None, folder: Path) -> str | None:
    if reference is None:
        return None
    try:
        return reference.resolve().relative_to(folder.resolve()).as_posix()
    except ValueError:
        return str(reference.resolve())


# ---------------------------------------------------------------------------------------------------------- classes


@dataclass(frozen=True)
class ImageClass:
    """A class of pictures: `key` as in folders and label files (n01440764), `name` as people say it (tench)."""

    key: str
    name: str


def read_class_list(path: Path) -> list[ImageClass]:
    """Classes from a text file (`key name` or `name` a line) or from JSON (names, or `{"0": ["n01440764", "tench"]}`).

    Of synonyms with commas between them the first counts. Raises UserError for a file of another form.
    """
    if not path.is_file():
        raise UserError(f"{path}: not found; expected a list of classes, one a line, or JSON")
    if path.suffix.lower() == ".json":
        value = read_json(path)
        rows = list(value.values()) if isinstance(value, dict) else value
        if isinstance(value, dict) and all(str(key).isdigit() for key in value):
            rows = [value[key] for key in sorted(value, key=int)]
        classes = [_class_from_json(row, number, path) for number, row in enumerate(rows)]
    else:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        classes = [_class_from_line(line, number) for number, line in enumerate(filter(None, lines))]
    if not classes:
        raise UserError(f"{path}: no classes; expected one a line")
    return classes


def _class_from_json(row: Any, number: int, path: Path) -> ImageClass:
    if isinstance(row, str):
        return _class_from_line(row, number)
    if isinstance(row, list) and len(row) == 2 and all(isinstance(part, str) for part in row):
        return ImageClass(row[0], said(row[1]))
    raise UserError(f"{path}: class {number} is {row!r}; expected a name, or [key, name]")


def _class_from_line(line: str, number: int) -> ImageClass:
    first, _, rest = line.replace("\t", " ").partition(" ")
    is_key = len(first) == 9 and first[0] == "n" and first[1:].isdigit()
    if is_key:
        return ImageClass(first, said(rest) if rest.strip() else first)
    return ImageClass(f"{number:04d}", said(line))


def said(name: str) -> str:
    """A class name as it is said: the first of its synonyms, with blanks for underscores."""
    return " ".join(name.split(",")[0].replace("_", " ").split())


def class_prompt(class_: ImageClass, number: int, reference: Path | None = None) -> Prompt:
    """The n-th request of a class: wordings take turns, from a start that differs between classes."""
    from vargpt_lightning.data.openmoji.wording import DRAW_ASKED

    article = "an" if class_.name[:1].lower() in tuple("aeiou") else "a"
    start = hashlib.sha256(class_.key.encode()).digest()[0]
    words = DRAW_ASKED[(start + number) % len(DRAW_ASKED)].format(f"{article} {class_.name}")
    caption = f"a photo of {article} {class_.name}"
    return Prompt(f"{class_.key}-{number:03d}", words, caption, class_.name, reference)


def class_prompts(classes: Sequence[ImageClass], per_class: int = PER_CLASS) -> Iterator[Prompt]:
    """Requests for classes without reference pictures, class by class."""
    return (class_prompt(class_, number) for class_ in classes for number in range(per_class))


def stable_choice(names: Sequence[str], count: int) -> list[int]:
    """Places of `count` of the names, the same whatever their order in the file system, spread over all of them."""
    ranked = sorted(range(len(names)), key=lambda place: hashlib.sha256(names[place].encode()).digest())
    return sorted(ranked[:count], key=lambda place: names[place])
