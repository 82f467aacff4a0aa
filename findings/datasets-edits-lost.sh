#!/usr/bin/env bash
# datasets 5.2.0: what was drawn into an opened picture is lost: the column keeps the name of the file, not the picture.
#
# A picture that Pillow opened from a file remembers the file's name, and a column of pictures stores that name alone,
# without looking at the pixels. So `paste`, `thumbnail`, `putalpha` and all of ImageDraw, which change a picture in
# place, have no effect on what is read back, in `Dataset.from_dict` and in `map` over a column of files alike. Methods
# that return another picture (`resize`, `convert`, `copy`) drop the name, and what is done to their result is kept. So
# are edits of rows that hold the file's bytes, as those of Parquet files do: the same code works there. Pairs for
# picture editing made from files in this way have the unedited picture on both sides. Nothing is said.
#
# Output seen (the pixel in the middle of the black square that was drawn into a white picture):
#   from_dict, drawn into as opened         (255, 255, 255)
#   from_dict, copied first                 (0, 0, 0)
#   map to a new column, drawn into         (255, 255, 255)
#   map to a new column, copied first       (0, 0, 0)
#   map over bytes, drawn into              (0, 0, 0)
#   map with thumbnail((8, 8)): 32 x 32 pixels; with resize((8, 8)): 8 x 8 pixels
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check datasets==5.2.0 pillow==12.3.0 numpy==2.4.6 >&2
cat >"$work/show.py" <<'PYTHON'
import sys

import datasets
from PIL import Image, ImageDraw

datasets.disable_progress_bars()
path = f"{sys.argv[1]}/white.png"
Image.new("RGB", (32, 32), "white").save(path)


def drawn(picture):
    ImageDraw.Draw(picture).rectangle((8, 8, 24, 24), fill="black")
    return picture


def made_smaller(row):
    row["image"].thumbnail((8, 8))
    return row


columns = datasets.Features({"image": datasets.Image()})
rows = datasets.Dataset.from_dict({"image": [path]}, features=columns)
rows_of_bytes = datasets.Dataset.from_dict({"image": [{"bytes": open(path, "rb").read()}]}, features=columns)
edited = {
    "from_dict, drawn into as opened": datasets.Dataset.from_dict({"edited": [drawn(Image.open(path))]}),
    "from_dict, copied first": datasets.Dataset.from_dict({"edited": [drawn(Image.open(path).copy())]}),
    "map to a new column, drawn into": rows.map(lambda row: {"edited": drawn(row["image"])}),
    "map to a new column, copied first": rows.map(lambda row: {"edited": drawn(row["image"].copy())}),
    "map over bytes, drawn into": rows_of_bytes.map(lambda row: {"edited": drawn(row["image"])}),
}
pixels = []
for name, table in edited.items():
    pixels.append(table[0]["edited"].getpixel((16, 16)))
    print(f"{name:39} {pixels[-1]}")
in_place = rows.map(made_smaller)[0]["image"].size
returned = rows.map(lambda row: {"image": row["image"].resize((8, 8))})[0]["image"].size
sizes = [f"{width} x {height} pixels" for width, height in (in_place, returned)]
print(f"map with thumbnail((8, 8)): {sizes[0]}; with resize((8, 8)): {sizes[1]}")
white, black = (255, 255, 255), (0, 0, 0)
same = pixels == [white, black, white, black, black] and (in_place, returned) == ((32, 32), (8, 8))
sys.exit(0 if same else "the behaviour has changed")
PYTHON
HF_HOME="$work/hf" "$work/venv/bin/python" "$work/show.py" "$work"
