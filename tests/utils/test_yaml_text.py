"""YAML in which nothing is lost: keys that stand twice and endless nesting are refused, with their place."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from vargpt_lightning.data.writing.seeds import read_seeds
from vargpt_lightning.experiment.check import ConfigCheck
from vargpt_lightning.experiment.files import read_tree
from vargpt_lightning.runs.config import parse_experiment
from vargpt_lightning.sweep.changes import read_values
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.gpus import catalogue
from vargpt_lightning.utils.yaml_text import Refused, load_yaml

DEEP = "a: " + "[" * 5000 + "]" * 5000
TWICE = "a:\n  lr: 1\n  other: 2\n  lr: 3\n"
ITSELF = "a: &x [1, *x]"


def test_plain_yaml_is_read_as_ever() -> None:
    text = "base: &b {x: 1, y: [1, 2]}\nmore:\n  <<: *b\n  x: 3\nagain: *b\n1: one\n'1': text\n"
    assert load_yaml(text) == yaml.safe_load(text)
    two = "a: &a {k: 1}\nb: &b {<<: *a, k: 2, j: 1}\nc: {<<: *b, k: 3}\nd: {<<: [*a, *b]}\n"
    assert load_yaml(two) == yaml.safe_load(two) and load_yaml("") is None


@pytest.mark.parametrize("text", [TWICE, DEEP, ITSELF, "a: 1\n'a': 2", "- {b: 1, b: 1}", "{a: " * 5000])
def test_it_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        load_yaml(text)


READERS = {
    "experiment or sweep": read_tree,
    "GPUs": catalogue,
    "seeds of wordings": read_seeds,
    "a run's configuration": lambda file: parse_experiment(file.read_text(), file),
    "option of a sweep": lambda file: read_values([f"key={file.read_text()}"]),
    "option": lambda file: ConfigCheck({"seed": int}, {}).arguments(["--seed", file.read_text()]),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("text", [TWICE, DEEP, ITSELF], ids=["twice", "deep", "itself"])
def test_every_reader_names_the_mistake(reader: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=r"'lr' stands there twice|nested deeper|holds itself"):
        READERS[reader](tmp_path / "x.yaml")


@pytest.mark.parametrize("memory", ["0", "-1", ".nan", ".inf", "much", "[1]", "1.0e+300"])
def test_a_gpu_without_figures_is_refused(memory: str, tmp_path: Path) -> None:
    (tmp_path / "gpus.yaml").write_text(f"X-1GB: {{memory: {memory}, tflops: 1, bandwidth: 1, source: me}}\n")
    with pytest.raises(UserError, match=r"X-1GB.memory="):
        catalogue(tmp_path / "gpus.yaml")
