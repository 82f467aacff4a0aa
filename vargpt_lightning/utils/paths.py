"""Paths as they are given on the command line."""

from __future__ import annotations

import tempfile
from pathlib import Path

from vargpt_lightning.utils.errors import UserError


def user_path(text: str) -> Path:
    """Return the path; `~` is the home folder where the shell left it so, as in --out=~/data."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"{text}: {error}; expected a path") from error


def output_file(path: Path) -> Path:
    """Return the path if a file can be there; raises UserError where a folder is, or a file has the place of one."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder; expected a file to write")
    output_folder(path.parent)
    return path


def output_folder(path: Path) -> Path:
    """Return the path if a folder can be made and written there; raises UserError where a file has its place, or where
    the nearest folder that is there takes no new entries.
    """
    for each in (path, *path.parents):
        if each.is_dir():
            _check_takes_entries(each, path)
            break
        if each.exists() or each.is_symlink():
            raise UserError(f"{path}: {each} is a file; expected a folder to write")
    return path


def _check_takes_entries(folder: Path, path: Path) -> None:
    # Tried, since permissions do not tell of a disk that is read-only or of /proc.
    try:
        with tempfile.TemporaryDirectory(prefix=".vargpt-", dir=folder):
            pass
    except OSError as error:
        told = f"{path}: nothing can be written to {folder} ({error.strerror})"
        raise UserError(f"{told}; expected another folder") from error
