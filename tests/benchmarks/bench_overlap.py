"""How many changed copies of pictures `vargpt data overlap` finds, how many others it takes for copies, and how fast.

    python -m tests.benchmarks.bench_overlap FOLDER [--limit 300]

FOLDER is packed; its different pictures are known, and copies of them are looked for: smaller, compressed, mirrored,
with the edges cut off, darker. A picture that is found where another one's copy was looked for is false, unless the two
look alike as they are.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageEnhance, ImageOps

from vargpt_lightning.data.images.picture_files import decode_picture
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.evaluation.overlap.hashes import squares
from vargpt_lightning.evaluation.overlap.known import Asked, remember


def _cut(image: Image.Image, share: float) -> Image.Image:
    width, height = image.size
    left, upper = round(width * share), round(height * share)
    return image.crop((left, upper, width - left, height - upper))


COPIES: dict[str, Callable[[Image.Image], tuple[Image.Image, str, int]]] = {
    "another file format": lambda image: (image, "WEBP", 90),
    "JPEG of quality 50": lambda image: (image, "JPEG", 50),
    "half as large": lambda image: (image.resize((image.width // 2, image.height // 2)), "PNG", 0),
    "48 pixels wide, JPEG": lambda image: (image.resize((48, 48)), "JPEG", 75),
    "mirrored, JPEG": lambda image: (ImageOps.mirror(image), "JPEG", 75),
    "a tenth darker": lambda image: (ImageEnhance.Brightness(image).enhance(0.9), "PNG", 0),
    "2 % cut off each side": lambda image: (_cut(image, 0.02), "PNG", 0),
}


def encoded(image: Image.Image, form: str, quality: int) -> bytes:
    """The picture's file."""
    content = io.BytesIO()
    image.save(content, form, **({"quality": quality} if quality else {}))
    return content.getvalue()


def main() -> None:
    """Print shares found, false ones, and the time of a picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=300)
    arguments = parser.parse_args()
    files: dict[str, bytes] = {}
    for record in ShardDataset(arguments.folder):
        files |= {part.key: part.data for part in record.pictures() if part.data is not None}
        if len(files) >= arguments.limit:
            break
    with tempfile.TemporaryDirectory() as made:
        known, _ = remember((Asked("", key, "", (data,)) for key, data in files.items()), Path(made))
    own = {key: known.same_file(data) for key, data in files.items()}
    alike = {key: {found for found, _ in known.look_alikes(squares(data, key))} for key, data in files.items()}
    twins = sum(len(found) > 1 for found in alike.values())
    print(f"{len(files)} pictures, {twins} of which look like another one as they are")
    for name, copy in COPIES.items():
        found = false = 0
        for key, data in files.items():
            image, form, quality = copy(decode_picture(data, key))
            matched = {picture for picture, _ in known.look_alikes(squares(encoded(image, form, quality), key))}
            found += own[key] in matched
            false += bool(matched - alike[key])
        print(f"{name:<24} found {100 * found / len(files):5.1f} %   false {false} of {len(files)}")
    begin = time.perf_counter()
    for key, data in files.items():
        list(known.look_alikes(squares(data, key)))
    print(f"{1000 * (time.perf_counter() - begin) / len(files):.2f} ms a picture of {len(data):,} bytes")


if __name__ == "__main__":
    main()
