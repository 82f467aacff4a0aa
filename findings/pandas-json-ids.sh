#!/usr/bin/env bash
# pandas 3.1.1: `read_json` turns quoted ids such as "000000033471" into the number 33471.
#
# Conversation data for vision-language models (LLaVA's, COCO's, VQA's) name records and pictures by zero-padded
# digits, as JSON strings. `pandas.read_json` infers types from the content of strings: if all values of a column look
# like numbers, the strings become integers and the zeros are lost. Nothing is said, and the ids match no file any more.
# One id with a letter keeps the whole column as it is. dtype=False (or {"id": str}) reads what is written.
#
# Output seen:
#   default:          [33471, 33472]
#   one with letters: ['000000033471', 'VG_2']
#   dtype=False:      ['000000033471', '000000033472']
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check pandas==3.1.1 >&2
cat >"$work/show.py" <<'PYTHON'
import io
import json
import sys

import pandas


def ids(*names: str, **options: object) -> list[object]:
    text = json.dumps([{"id": name, "image": f"coco/{name}.jpg"} for name in names])
    return pandas.read_json(io.StringIO(text), **options)["id"].tolist()


default = ids("000000033471", "000000033472")
letters = ids("000000033471", "VG_2")
exact = ids("000000033471", "000000033472", dtype=False)
print(f"default:          {default}\none with letters: {letters}\ndtype=False:      {exact}")
same = default == [33471, 33472] and letters == ["000000033471", "VG_2"] and exact == ["000000033471", "000000033472"]
sys.exit(0 if same else "the behaviour has changed")
PYTHON
"$work/venv/bin/python" "$work/show.py"
