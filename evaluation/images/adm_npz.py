"""The file that the ADM evaluator (guided-diffusion, evaluations/evaluator.py) reads: pictures, and their statistics.

`arr_0` holds the pictures as uint8, (N, H, W, 3); `mu`, `sigma` those of the pool features, `mu_s`, `sigma_s` of the
spatial ones. A sample file needs `arr_0` alone; a reference file may hold all five.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from vargpt_lightning.evaluation.images.picture_lists import PictureFile, check_sizes
from vargpt_lightning.utils.errors import UserError


def write_adm(path: Path, files: Sequence[PictureFile], statistics: Mapping[str, np.ndarray] | None = None) -> None:
    """Writes the file in one step, one picture in memory at a time.

    Raises UserError for no pictures, several sizes, or a picture that does not decode.
    """
    if not files and not statistics:
        raise UserError(f"{path}: no pictures to export; expected some")
    check_sizes(files)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            if files:
                with archive.open("arr_0.npy", "w", force_zip64=True) as member:
                    _write_pictures(member, files)
            for name, value in (statistics or {}).items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asarray(value), allow_pickle=False)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_pictures(member: IO[bytes], files: Sequence[PictureFile]) -> None:
    for number, file in enumerate(files):
        try:
            with Image.open(file.path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
        except (OSError, ValueError, SyntaxError) as error:
            raise UserError(f"{file.path}: does not decode ({error}); mend it before it is exported") from error
        if number == 0:
            head = {"descr": "|u1", "fortran_order": False, "shape": (len(files), *pixels.shape)}
            np.lib.format.write_array_header_1_0(member, head)
        member.write(pixels.tobytes())
