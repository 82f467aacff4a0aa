#!/usr/bin/env bash
# safetensors 0.8.0 with torch 2.14.1: a tensor made by `.conj()` is saved as what it was before.
#
# In torch, `.conj()`, `.mH` and `.adjoint()` of a complex tensor change no memory: they set a bit, and each operation
# conjugates when it reads. `save_file` copies the memory and does not look at the bit. The file loads without a word, and
# the imaginary parts have the wrong sign. `torch.save` keeps the bit; `.resolve_conj()` before saving does away with it.
#
# Output seen:
#   in memory:                   [(1-2j), (3+4j)]
#   safetensors:                 [(1+2j), (3-4j)]
#   torch.save:                  [(1-2j), (3+4j)]
#   safetensors, resolve_conj(): [(1-2j), (3+4j)]
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    torch==2.14.1 safetensors==0.8.0 numpy==2.4.6 >&2
cat >"$work/show.py" <<'PYTHON'
import sys

import torch
from safetensors.torch import load_file, save_file

file = f"{sys.argv[1]}/weights"
tensor = torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex64).conj()


def through_safetensors(value: torch.Tensor) -> list[complex]:
    save_file({"weight": value}, file)
    return load_file(file)["weight"].tolist()


def through_torch(value: torch.Tensor) -> list[complex]:
    torch.save({"weight": value}, file)
    return torch.load(file, weights_only=True)["weight"].tolist()


right, wrong = [1 - 2j, 3 + 4j], [1 + 2j, 3 - 4j]
found = {
    "in memory": tensor.tolist(),
    "safetensors": through_safetensors(tensor),
    "torch.save": through_torch(tensor),
    "safetensors, resolve_conj()": through_safetensors(tensor.resolve_conj()),
}
for name, values in found.items():
    print(f"{name + ':':28} {values}")
sys.exit(0 if list(found.values()) == [right, wrong, right, right] else "the behaviour has changed")
PYTHON
"$work/venv/bin/python" "$work/show.py" "$work"
