#!/usr/bin/env bash
# webdataset 1.0.2: pictures written as JPEG "at quality 100" lose three quarters of their colour samples.
#
# `TarWriter` encodes arrays and pictures under `jpg` with quality=100, which looks nearly lossless. But Pillow subsamples
# colour (4:2:0) at every quality unless told otherwise, and webdataset does not tell it. Thin coloured lines, text and
# flat drawings change: of columns in pure red and pure blue, the colour is gone, with errors of up to 152 of 255.
# The same array under `png` comes back unchanged.
#
# Output seen:
#   jpg: sampling 4:2:0, a red pixel comes back as (150, 24, 150), largest error 152
#   png: a red pixel comes back as (255, 0, 0), largest error 0
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check webdataset==1.0.2 pillow==12.3.0 numpy==2.4.6 >&2
cat >"$work/show.py" <<'PYTHON'
import io
import sys
import tarfile

import numpy as np
import webdataset
from PIL import Image, JpegImagePlugin

SAMPLING = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}
picture = np.zeros((64, 64, 3), np.uint8)
picture[:, 0::2] = (255, 0, 0)
picture[:, 1::2] = (0, 0, 255)
path = f"{sys.argv[1]}/shard.tar"
with webdataset.TarWriter(path) as writer:
    writer.write({"__key__": "columns", "jpg": picture, "png": picture})

found = {}
with tarfile.open(path) as shard:
    for kind in ("jpg", "png"):
        image = Image.open(io.BytesIO(shard.extractfile(f"columns.{kind}").read()))
        sampling = f"sampling {SAMPLING[JpegImagePlugin.get_sampling(image)]}, " if kind == "jpg" else ""
        back = np.asarray(image.convert("RGB"), int)
        found[kind] = sampling, int(np.abs(back - picture).max())
        red = tuple(map(int, back[10, 10]))
        print(f"{kind}: {sampling}a red pixel comes back as {red}, largest error {found[kind][1]}")
same = found["jpg"][0] == "sampling 4:2:0, " and found["jpg"][1] > 100 and found["png"][1] == 0
sys.exit(0 if same else "the behaviour has changed")
PYTHON
"$work/venv/bin/python" "$work/show.py" "$work"
