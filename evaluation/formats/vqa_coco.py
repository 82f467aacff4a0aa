"""The layout of VQA's authors, which OK-VQA took over: questions and annotations in two JSON files, COCO pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vargpt_lightning.evaluation.base.benchmark import Record
from vargpt_lightning.evaluation.formats.layouts import Picture, Rows, image_in, read_json, require
from vargpt_lightning.evaluation.formats.vqa_files import Columns, listed_rows, put_right, refuse_repeated
from vargpt_lightning.utils.errors import UserError

SUBTYPES = ("val2014", "test-dev2015", "test2015")
_FOLDERS = ("{0}", "COCO_{0}", "images/{0}", "Images/{0}", "Images/mscoco/{0}", "coco/{0}", "coco/images/{0}", "images")
_QUESTION = ("question_id", "image_id", "question")


def coco_rows(path: Path, prefix: str, columns: Columns, pictures: bool) -> Rows | None:
    """Rows of `<prefix>OpenEnded_mscoco_<subtype>_questions.json` and `<prefix>mscoco_<subtype>_annotations.json`.

    Validation goes before test-dev and test, which have no annotations. `path` is the folder with the files (they may
    be one folder deeper), or the questions' file. None where there are no such questions.

    Raises:
        UserError: the annotations are missing, do not fit the questions, or an id occurs twice.
    """
    found = _questions_file(path, prefix)
    if found is None:
        return None
    file, subtype = found
    root = path if path.is_dir() else path.parent
    questions = _list_in(file, "questions")
    refuse_repeated((each["question_id"] for each in questions), str(file))
    annotations = None if subtype.startswith("test") else _annotations(root, file, prefix, subtype)
    if annotations is not None:
        missing = [each["question_id"] for each in questions if str(each["question_id"]) not in annotations]
        if missing:
            raise UserError(f"{file}: {len(missing)} of {len(questions)} questions have no annotation, as {missing[0]}")
    folder = _picture_folder(root, file, questions, subtype)

    def make(index: int) -> Record:
        asked = questions[index]
        annotated = {"answers": None} if annotations is None else annotations[str(asked["question_id"])]
        return put_right({**annotated, **{name: asked[name] for name in _QUESTION}}, columns, str(file))

    def picture(index: int) -> Picture:
        return image_in(folder, _picture_name(questions[index], subtype))

    return listed_rows(make, picture, len(questions), str(file), pictures)


def _questions_file(path: Path, prefix: str) -> tuple[Path, str] | None:
    """The file of questions and its subtype, such as val2014."""
    if path.is_file():
        match = re.fullmatch(rf"{prefix}OpenEnded_mscoco_(.+)_questions\.json", path.name)
        return (path, match[1]) if match else None
    for subtype in SUBTYPES:
        if file := _below(path, f"{prefix}OpenEnded_mscoco_{subtype}_questions.json"):
            return file, subtype
    return None


def _below(folder: Path, name: str) -> Path | None:
    """The file of that name in the folder or one folder deeper."""
    return next((file for file in (folder / name, *sorted(folder.glob(f"*/{name}"))) if file.is_file()), None)


def _list_in(file: Path, key: str) -> list[dict[str, Any]]:
    content = read_json(file)
    require(content if isinstance(content, Mapping) else (), (key,), file)
    found: list[dict[str, Any]] = content[key]
    for number, each in enumerate(found, 1):
        require(each, _QUESTION if key == "questions" else ("question_id", "answers"), f"{file}, {key} {number}")
    description = str((content.get("info") or {}).get("description", ""))
    if "of the VQA dataset" in description and not file.name.startswith("v2_"):
        raise UserError(f"{file} says {description!r}; expected OK-VQA, whose files have the same names")
    return found


def _annotations(root: Path, questions: Path, prefix: str, subtype: str) -> dict[str, dict[str, Any]]:
    name = f"{prefix}mscoco_{subtype}_annotations.json"
    file = _below(root, name) or _below(questions.parent, name)
    if file is None:
        raise UserError(f"{root}: there is {questions.name}, but not {name}, which has the answers")
    annotations = _list_in(file, "annotations")
    refuse_repeated((each["question_id"] for each in annotations), str(file))
    return {str(each["question_id"]): each for each in annotations}


def _picture_name(asked: Mapping[str, Any], subtype: str) -> str:
    return f"COCO_{subtype.replace('-dev', '')}_{int(asked['image_id']):012d}.jpg"


def _picture_folder(root: Path, file: Path, questions: list[dict[str, Any]], subtype: str) -> Path:
    """Where the first picture is; else the first folder that could hold pictures, for then single ones are missing."""
    names = [each.format(subtype.replace("-dev", "")) for each in _FOLDERS]
    folders = [above / name for above in (root, file.parent, root.parent) for name in names] + [root]
    there = [folder for folder in folders if folder.is_dir()]
    if questions:
        first = _picture_name(questions[0], subtype)
        there = [folder for folder in there if (folder / first).is_file()] or there
    return there[0]
