#!/usr/bin/env bash
# transformers 5.24.0: position ids that begin anew hide all tokens before them, unless a cache is used.
#
# A row may hold several records one after the other. Given position ids 0 1 2 0 1 2 and no mask, LlamaModel takes the
# second 0 for the beginning of another record, and lets no token see across it. With `use_cache=True`, the default, it
# does not: the same ids and positions give other hidden states. A mask of ones, which hides nothing, brings those back
# as well. So a forward pass with a cache, for instance to look at a training batch, does not compute what training does.
#
# Output seen:
#   use_cache=False              second record as if it stood alone: True
#   use_cache=False, mask of 1s  second record as if it stood alone: False
#   use_cache=True               second record as if it stood alone: False
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.14.1 transformers==5.24.0 numpy==2.4.6 >&2
cat >"$work/show.py" <<'PYTHON'
import sys

import torch
from transformers import LlamaConfig, LlamaModel

torch.manual_seed(0)
sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
model = LlamaModel(LlamaConfig(**sizes)).eval()
ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
positions = torch.tensor([[0, 1, 2, 0, 1, 2]])
found = []
with torch.no_grad():
    alone = model(ids[:, 3:], use_cache=False).last_hidden_state
    for name, settings in (
        ("use_cache=False", {"use_cache": False}),
        ("use_cache=False, mask of 1s", {"use_cache": False, "attention_mask": torch.ones_like(ids)}),
        ("use_cache=True", {"use_cache": True}),
    ):
        states = model(ids, position_ids=positions, **settings).last_hidden_state[:, 3:]
        found.append(torch.allclose(states, alone, atol=1e-5))
        print(f"{name:28} second record as if it stood alone: {found[-1]}")
sys.exit(0 if found == [True, False, False] else "the behaviour has changed")
PYTHON
"$work/venv/bin/python" "$work/show.py"
