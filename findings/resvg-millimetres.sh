#!/usr/bin/env bash
# resvg-py 0.5.0: lengths in mm, cm, in and pt are zero, unless `dpi` is given.
#
# SVG defines 1in = 96px and 1mm = 96/25.4 px. `svg_to_bytes` has `dpi=0.0` as its default, documented as "0 = SVG
# default". With this default, a rectangle of 5mm x 5mm is not drawn at all: no error, no warning, a picture of the right
# size without the shape. With dpi=96 it is drawn, about 19 x 19 px.
#
# Output seen:
#   unit  dpi=default  dpi=96
#   px    361          361
#   mm    0            361
#   cm    0            361
#   in    0            361
#   pt    0            361
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check resvg-py==0.5.0 pillow==12.3.0 >&2
cat >"$work/show.py" <<'PYTHON'
import io
import sys

import resvg_py
from PIL import Image

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"><rect width="{0}" height="{0}" fill="#f00"/></svg>'
SIDES = {"px": "19px", "mm": "5.03mm", "cm": "0.503cm", "in": "0.198in", "pt": "14.25pt"}  # each about 19 px


def red_pixels(side: str, **options: float) -> int:
    png = bytes(resvg_py.svg_to_bytes(svg_string=SVG.format(side), **options))
    colours = Image.open(io.BytesIO(png)).convert("RGBA").getcolors()
    return sum(count for count, colour in colours if colour[:3] == (255, 0, 0) and colour[3] > 127)


found = {unit: (red_pixels(side), red_pixels(side, dpi=96)) for unit, side in SIDES.items()}
print("unit  dpi=default  dpi=96")
for unit, (default, given) in found.items():
    print(f"{unit:4}  {default:<11}  {given}")
same = found["px"] == (361, 361) and all(found[unit] == (0, 361) for unit in SIDES if unit != "px")
sys.exit(0 if same else "the behaviour has changed")
PYTHON
"$work/venv/bin/python" "$work/show.py"
