#!/usr/bin/env bash
# torch 2.14.1: `to_empty` of a module on the meta device makes two parameters of a tied one.
#
# A language model whose output layer is its table of embeddings has one parameter under two names. Moved between CPU
# and GPU, or given another type, it stays one, and so it does with `to_empty` of a module on the CPU. But a module that
# was made on the meta device, as large models are, has two after `to_empty`: each has its own memory, is trained by
# itself and is given to the optimizer. Nothing is said. Modules have to be tied again afterwards.
#
# Output seen:
#   from cpu,  before: one parameter,  128 numbers
#   from cpu,  after:  one parameter,  128 numbers
#   from meta, before: one parameter,  128 numbers
#   from meta, after:  two parameters, 256 numbers
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.14.1 numpy==2.4.6 >&2
cat >"$work/show.py" <<'PYTHON'
import sys

from torch import nn


def tied(device: str) -> nn.Module:
    model = nn.ModuleDict({"embed": nn.Embedding(16, 8, device=device), "head": nn.Linear(8, 16, False, device=device)})
    model["head"].weight = model["embed"].weight
    return model


def show(when: str, model: nn.Module) -> tuple[bool, int]:
    one = model["head"].weight is model["embed"].weight
    numbers = sum(parameter.numel() for parameter in model.parameters())
    print(f"{when:19}{'one parameter, ' if one else 'two parameters,'} {numbers} numbers")
    return one, numbers


found = []
for device in ("cpu", "meta"):
    model = tied(device)
    found.append(show(f"from {device + ',':5} before:", model))
    found.append(show(f"from {device + ',':5} after:", model.to_empty(device="cpu")))
sys.exit(0 if found == [(True, 128)] * 3 + [(False, 256)] else "the behaviour has changed")
PYTHON
"$work/venv/bin/python" "$work/show.py"
