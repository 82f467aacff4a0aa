"""Stages that learn from preferences, in a run: processes, kills and adapters change nothing in what comes out."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.ends import Place, _prepare
from tests.ranks import run_ranks, said
from tests.tiny import assert_same_weights, stage_weights, tiny_tree, write_corpora, write_experiment
from tests.tiny_pairs import write_pairs
from vargpt_lightning.cli import main
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer
from vargpt_lightning.experiment.parser import load_experiment
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.training.data.text_tokenizer import check_reference_tokenizer
from vargpt_lightning.utils.errors import UserError

Tree = dict[str, Any]
HEADS = ("dpo", "cca")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("preferences")


@pytest.fixture(scope="module")
def data(folder: Path) -> Tree:
    return write_pairs(folder / "pairs", write_corpora(folder / "data"))


def tree_for(data: Tree, root: Path, batch: int, strategy: str = "auto") -> Tree:
    """A stage of each head behind one that draws; with adapters, and with accumulated batches."""
    tree = tiny_tree(data, root)
    draw = {**tree["stages"][2], "optimizer": {"lr": 0.003}, "batch_size": batch}
    train = ["language_model", "visual_decoder", "generation_projectors"]
    dpo = {"head": "dpo", "data": {"pairs": 2, "words": 1}, "lora": {"rank": 2}, "reference": "draw"}
    cca = {"head": "cca", "data": {"drawings": 1}, "accumulate": 2, "cca": {"beta": 1.0, "hidden": 0.3}}
    more = [{"name": name, **draw, "train": train, **own} for name, own in (("dpo", dpo), ("cca", cca))]
    tree["stages"] = [draw, *({**stage, "name": stage["head"]} for stage in more)]
    tree["model"]["decoder"] |= {"dropout": 0.0, "drop_path": 0.0}
    tree["trainer"] |= {"samples": 0, "validate": 1, "strategy": strategy}
    return tree


@pytest.fixture(scope="module")
def alone(folder: Path, data: Tree) -> Path:
    """One process's run with the whole batch."""
    torch.set_num_threads(1)
    assert main(["fit", "-c", str(write_experiment(folder / "alone.yaml", tree_for(data, folder / "alone", 4)))]) == 0
    return folder / "alone" / "tiny"


def fit(file: Path, place: Place | None = None, number: int = 0) -> int:
    if place is not None and int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1:
        _prepare(place, lambda: os.kill(os.getpid(), number))
    return main(["fit", "-c", str(file), "--trainer.devices", os.environ["WORLD_SIZE"]])


def assert_close(run: Path, other: Path) -> None:
    """The training values of each step within 1e-4, and the weights too; a validation's batch is a process's."""
    for one, two in zip(RunFolder(run).stages(), RunFolder(other).stages(), strict=True):
        rows = [
            {(row.step, row.name): row.value for row in stage.metrics() if row.name.startswith("train/")}
            for stage in (one, two)
        ]
        assert rows[0].keys() == rows[1].keys() and len(rows[0]) > 20
        far = {key: (value, rows[1][key]) for key, value in rows[0].items() if abs(value - rows[1][key]) > 1e-4}
        assert not far, f"{one.name}: {far}"
    weights = stage_weights(other)
    for stage, values in stage_weights(run).items():
        for name, value in values.items():
            torch.testing.assert_close(value, weights[stage][name], rtol=0, atol=1e-4, msg=f"{stage} {name}")


def test_both_heads_train_beside_their_references(alone: Path) -> None:
    for stage in RunFolder(alone).stages()[1:]:
        values = {(row.step, row.name): row.value for row in stage.metrics()}
        assert values[1, "train/reward_margin"] == pytest.approx(0, abs=1e-4)
        assert abs(values[4, "train/reward_margin"]) > 1e-4
    assert len(list((alone / "cache" / "reference").iterdir())) == 2


def test_a_run_that_was_killed_ends_as_an_unbroken_one(folder: Path, data: Tree, alone: Path) -> None:
    file = write_experiment(folder / "killed.yaml", tree_for(data, folder / "killed", 4))
    killed = run_ranks(1, folder / "killed-log", fit, file, Place("dpo", "batch", 2), signal.SIGKILL)
    assert killed == [-signal.SIGKILL]
    assert run_ranks(1, folder / "killed-log", fit, file) == [0], said(folder / "killed-log", 1)
    assert "resumes after step" in said(folder / "killed-log", 1)
    assert_same_weights(folder / "killed" / "tiny", alone)


def test_two_processes_train_as_one(folder: Path, data: Tree, alone: Path) -> None:
    tree = tree_for(data, folder / "two", 2, "fsdp2")
    tree["run"]["reuse"] = [str(alone.parent)]
    file, log = write_experiment(folder / "two.yaml", tree), folder / "two-log"
    assert run_ranks(2, log, fit, file) == [0, 0], said(log, 2)
    assert_close(folder / "two" / "tiny", alone)


@pytest.mark.parametrize(
    ("place", "changes", "words"),
    [
        (1, {"reference": "cca"}, r"stages\.dpo\.reference='cca'; expected 'draw', the stage before it"),
        (1, {"dpo": {"betta": 1}}, r"betta.*beta"),
        (1, {"dpo": {"beta": 0}}, r"beta=0; expected a number above 0"),
        (1, {"cca": {}}, r"stages\.dpo\.cca with head=dpo; expected head=cca"),
        (1, {"max_tokens": 96}, r"stages\.dpo\.max_tokens=96 with head=dpo; expected none; use batch_size"),
        (0, {"reference": "cca"}, r"stages\.draw\.reference with head=generation, which has no reference"),
        (0, {"head": "cca"}, r"stages\.draw\.head=cca: no stage is before it.*init_from"),
    ],
)
def test_wrong_settings_are_named(place: int, changes: Tree, words: str, data: Tree, tmp_path: Path) -> None:
    tree = tree_for(data, tmp_path, 2)
    tree["stages"][place] |= changes
    with pytest.raises(UserError, match=words):
        load_experiment(write_experiment(tmp_path / "wrong.yaml", tree))


def test_the_weights_of_a_run_with_other_words_are_no_reference(data: Tree, alone: Path, tmp_path: Path) -> None:
    tree = tree_for(data, tmp_path, 2)
    tree["stages"] = [tree["stages"][2]]
    tree["init_from"] = {"model": str(alone)}
    other = TextTokenizer.train(["quite other words", "that nobody has seen"], 300)
    other.save(tmp_path / "tokenizer")
    tree["data"]["init_args"]["tokenizer"] = str(tmp_path / "tokenizer")
    experiment = load_experiment(write_experiment(tmp_path / "other.yaml", tree))
    with pytest.raises(UserError, match=r"init_from\.model=.*its text tokenizer is .* Expected data\.tokenizer: "):
        check_reference_tokenizer(experiment, other)
    check_reference_tokenizer(experiment, TextTokenizer.load(alone / "tokenizer"))
