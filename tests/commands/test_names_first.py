"""A misspelt name is told, with the one that was meant, before torch is imported: by every command, in one process."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vargpt_lightning.data.shards.format import write_source
from vargpt_lightning.data.shards.records import DRAWN, PicturePart, Record, TextPart, Turn
from vargpt_lightning.runs.folder import RunFolder

_file = io.BytesIO()
Image.new("RGB", (8, 8)).save(_file, "PNG")
PNG = _file.getvalue()
ROOT = Path(__file__).resolve().parents[2]
OPENMOJI = f"{ROOT}/experiments/openmoji.yaml"
RUN = "runs/openmoji"
DRAW = "Please draw a shamrock."
EVALUATE = ("evaluate", RUN, "--benchmarks")
IMAGES = ("evaluate", "images", "run")

CASES: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    (("generate", "runs/opnmoji", DRAW), ("runs/opnmoji", f"did you mean '{RUN}'")),
    (("generate", "opnmoji", DRAW), ("opnmoji", f"did you mean '{RUN}'")),
    (("generate", "run/openmoji", DRAW), ("run/openmoji", f"did you mean '{RUN}'")),
    (("generate", "data", DRAW), ("data", "run.json")),
    (("generate", RUN, DRAW, "--stage", "genration"), ("genration", "did you mean 'generation'")),
    (("generate", RUN, "What is it?", "--image", "aple.png"), ("aple.png", "did you mean 'apple.png'")),
    (("generate", RUN, DRAW, "--out", "apple.png/x"), ("apple.png", "folder")),
    (("generate", RUN, DRAW, "--sed", "1"), ("--sed", "did you mean '--seed'")),
    (("generate", RUN, DRAW, "--device", "cudda"), ("cudda", "did you mean 'cuda'")),
    (("generate", RUN, "  "), ("prompt",)),
    (("chat", "runs/opnmoji"), ("runs/opnmoji", f"did you mean '{RUN}'")),
    (("chat", RUN, "--stage", "genration"), ("genration", "did you mean 'generation'")),
    (("chat", RUN, "--out", "apple.png"), ("apple.png", "folder")),
    (("serve", "runs/opnmoji"), ("runs/opnmoji", f"did you mean '{RUN}'")),
    (("serve", RUN, "--stage", "x"), ("'x'", "generation")),
    (("evaluate", "runs/opnmoji"), ("runs/opnmoji", f"did you mean '{RUN}'")),
    (("evaluate", RUN, "--out", "o", "--stage", "genration"), ("genration", "did you mean 'generation'")),
    (("evaluate", "runs/opnmoji", "--benchmarks", "mme", "--data", "data"), (f"did you mean '{RUN}'",)),
    ((*EVALUATE, "mmee", "--data", "data"), ("mmee", "did you mean 'mme'")),
    ((*EVALUATE, "mme", "--data", "dataa"), ("dataa", "did you mean 'data'")),
    ((*EVALUATE, "mme", "--data", "data", "--protocol", "oficial"), ("oficial", "did you mean 'official'")),
    ((*EVALUATE, "mme", "--data", "data", "--stage", "genration"), ("genration", "did you mean 'generation'")),
    ((*IMAGES, "runs/opnmoji", "--prompts", "prompts.jsonl", "--out", "o"), (f"did you mean '{RUN}'",)),
    ((*IMAGES, RUN, "--prompts", "promts.jsonl", "--out", "o"), ("did you mean 'prompts.jsonl'",)),
    ((*IMAGES, RUN, "--prompts", "prompts.jsonl", "--out", "o", "--metrics", "fidd"), ("fidd", "did you mean 'fid'")),
    ((*IMAGES, RUN, "--prompts", "prompts.jsonl", "--out", "o", "--variant", "cleen"), ("did you mean 'clean'",)),
    (("evaluate", "images", "mesure", "x"), ("mesure", "did you mean 'measure'")),
    (("evaluate", "images", "measure", "dat", "--out", "o"), ("dat", "did you mean 'data'")),
    (("score", "prompts.json", "--benchmark", "mme"), ("prompts.json", "did you mean 'prompts.jsonl'")),
    (("score", "prompts.jsonl", "--benchmark", "mmee", "--data", "data"), ("mmee", "did you mean 'mme'")),
    (("convert", "runs/opnmoji", "--out", "o"), ("runs/opnmoji", f"did you mean '{RUN}'")),
    (("convert", RUN, "--out", "o", "--to", "lava"), ("lava", "did you mean 'llava'")),
    (("convert", RUN, "--out", "data"), ("data", "new folder or an empty one")),
    (("runs", "rans"), ("rans", "did you mean 'runs'")),
    (("fit",), ("no experiment", "-c")),
    (("fit", "-c", "experiments/opnmoji.yaml"), ("opnmoji.yaml", "No such file")),
    (("fit", "-c", OPENMOJI.replace("openmoji.", "opnmoji.")), ("opnmoji.yaml", "did you mean '")),
    (("fit", "-c", OPENMOJI, "--from", "genration"), ("genration", "did you mean 'generation'")),
    (("fit", "-c", OPENMOJI, "--model.dekoder.depth", "3"), ("dekoder", "did you mean 'decoder'")),
    (("fit", "-c", OPENMOJI, "--stages.base.stps", "3"), ("stps", "did you mean 'steps'")),
    (("fit", "-c", OPENMOJI, "--stages.bass.steps", "3"), ("bass", "did you mean 'base'")),
    (("fit", "-c", OPENMOJI, "--run.name", "other", "--run.root", "apple.png"), ("apple.png", "folder")),
    (("fit", "-c", OPENMOJI, "--run.root", ".", "--run.name", "data"), ("data", "run.json")),
    (("fit", "-c", OPENMOJI, "--init_from.model", "runs/opnmoji"), ("init_from.model", f"did you mean '{RUN}'")),
    (("fit", "-c", OPENMOJI, "--data.class_path", "OpenMojy"), ("OpenMojy", "did you mean 'OpenMoji'")),
    (("fit", "-c", OPENMOJI, "--sede", "1"), ("sede", "did you mean 'seed'")),
    (("plan", OPENMOJI, "--gpus", "foo"), ("foo", "H100-80GB", "--catalogue")),
    (("plan", OPENMOJI, "--gpus", "8xH10-80GB"), ("H10-80GB", "did you mean 'H100-80GB'")),
    (("plan", OPENMOJI, "--gpus", "H100", "--stage", "genration"), ("did you mean 'generation'",)),
    (("plan", "opnmoji.yaml", "--gpus", "H100"), ("opnmoji.yaml", "No such file")),
    (("plan", OPENMOJI, "--gpus", "H100", "--catalogue", "gpu.yaml"), ("gpu.yaml",)),
    (("sweep", "swep.yaml"), ("swep.yaml", "did you mean 'sweep.yaml'")),
    (("sweep", "show", "rans"), ("rans",)),
    (("data", "pack", "captins:data", "--out", "o"), ("captins", "did you mean 'captions'")),
    (("data", "pack", "captions:dta", "--out", "o"), ("dta", "did you mean 'data'")),
    (("data", "chek", "data"), ("chek", "did you mean 'check'")),
    (("data", "check", "dta"), ("dta", "did you mean 'data'")),
    (("data", "stats", "dta"), ("dta", "did you mean 'data'")),
    (("data", "show", "dta", "--for", RUN), ("dta", "did you mean 'data'")),
    (("data", "show", "packed", "--for", "runs/opnmoji"), (f"did you mean '{RUN}'",)),
    (("data", "tokenize", "dta", "--tokenizer", RUN), ("dta", "did you mean 'data'")),
    (("data", "tokenize", "packed", "--tokenizer", "runs/opnmoji"), (f"did you mean '{RUN}'",)),
    (("data", "write-instructions", "promts.jsonl", "--out", "o"), ("did you mean 'prompts.jsonl'",)),
    (("comletion", "bash"), ("comletion", "did you mean 'completion'")),
    (("completion", "bosh"), ("bosh", "did you mean 'bash'")),
]
CODE = """
import contextlib, io, json, sys

class Heavy:
    asked = None
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "lightning", "transformers"):
            Heavy.asked = name
            raise RuntimeError(f"{name} was imported")

sys.meta_path.insert(0, Heavy())
from vargpt_lightning.cli import main
rows = []
for words in json.loads(sys.stdin.read()):
    said, Heavy.asked = io.StringIO(), None
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main(words)
        except Exception as error:
            code, _ = -1, said.write(repr(error))
    rows.append([code, said.getvalue(), Heavy.asked])
print(json.dumps(rows))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], tuple[int, str, str | None]]:
    """Of each case the exit code, what was said, and what was imported that takes seconds."""
    folder = tmp_path_factory.mktemp("names")
    run = RunFolder.start(folder / RUN, config_text="model: {}\n")
    run.stage(1, "generation").update(status="finished")
    (run.stage(1, "generation").path / "model.safetensors").write_bytes(b"")
    (folder / "data" / "mme").mkdir(parents=True)
    asked, drawn = Turn("user", (TextPart("Draw."),)), Turn("assistant", (PicturePart(DRAWN, "a", PNG),))
    write_source([Record("a", "tiny", (asked, drawn))], folder / "packed", split="train")
    (folder / "apple.png").write_bytes(PNG)
    (folder / "prompts.jsonl").write_text(json.dumps({"id": "a", "class": "apple", "instruction": "Draw."}) + "\n")
    (folder / "sweep.yaml").write_text("{}")
    words: Any = json.dumps([list(case) for case, _ in CASES])
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, input=words, capture_output=True, text=True, timeout=100, cwd=folder)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])
    return {case: tuple(row) for (case, _), row in zip(CASES, rows, strict=True)}


@pytest.mark.parametrize(("case", "words"), CASES, ids=[" ".join(case).replace(f"{ROOT}/", "") for case, _ in CASES])
def test_a_wrong_name(case: tuple[str, ...], words: tuple[str, ...], told: Any) -> None:
    code, said, heavy = told[case]
    assert heavy is None, f"{heavy} was imported before the name was looked at"
    errors = [line for line in said.splitlines() if line.startswith("vargpt: error: ")]
    assert code == 2 and len(errors) == 1, said
    assert all(word in errors[0] for word in words), errors[0]
