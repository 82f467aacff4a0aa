"""`--stages.NAME.KEY VALUE` on the command line, and the help of `vargpt fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from vargpt_lightning.cli import main
from vargpt_lightning.experiment.parser import load_experiment
from vargpt_lightning.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
DEBUG = ("-c", str(ROOT / "experiments" / "debug.yaml"))


def stages(*words: str) -> dict[str, Any]:
    return {stage.name: stage for stage in load_experiment([*DEBUG, *words]).stages}


def test_one_stage_is_changed() -> None:
    before = stages()
    after = stages("--stages.base.steps", "3", "--stages.tokenizer.optimizer.lr=1e-3", "--stages.base.data.facts", "2")
    assert after["base"].steps == 3 and after["base"].data["facts"] == 2
    assert after["tokenizer"].optimizer.lr == 1e-3 and after["tokenizer"].steps == before["tokenizer"].steps
    assert after["generation"] == before["generation"]


def test_a_length_takes_the_place_of_the_other_kind() -> None:
    assert (stages("--stages.base.epochs", "2")["base"].epochs, stages()["base"].epochs) == (2, None)


def test_a_stage_is_left_out() -> None:
    assert list(stages("--stages.pretrain", "null")) == ["tokenizer", "base", "understanding", "generation"]


def test_the_whole_list_may_stand_before() -> None:
    given = "[{name: one, train: [image_tokenizer], data: {pictures: 1}, steps: 4, head: tokenizer}]"
    assert stages("--stages", given, "--stages.one.steps", "9")["one"].steps == 9


def test_references_to_other_keys_are_resolved(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    tree = yaml.safe_load(Path(DEBUG[1]).read_text()) | {"base": str(ROOT / "experiments" / "openmoji.yaml")}
    tree["stages"][1]["steps"] = "${model.language.layers}"
    file.write_text(yaml.safe_dump(tree))
    words = ["-c", str(file), "--stages.base.batch_size", "${model.language.heads}", "--model.language.layers", "1"]
    stage = load_experiment(words).stages[1]
    assert (stage.steps, stage.batch_size) == (1, load_experiment(words).model.language.heads)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--stages.bass.steps", "3"], r"stages.bass.steps: .*'bass'.*did you mean 'base'"),
        (["--stages.base.stps", "3"], r"stages.base.stps .*did you mean 'steps'"),
        (["--stages.base.optimizer.lrr", "3"], r"stages.base.optimizer.lrr .*did you mean 'lr'"),
        (["--stages.base.steps", "many"], r"stages.base.steps='many'; expected"),
        (["--stages.base.steps"], r"--stages.base.steps: expected a value"),
        (["--stages.base", "3"], r"stages.base=3; expected null"),
        (["--stages.base.steps.x", "3"], r"stages.base.steps.x: steps is \d+ and has no keys"),
    ],
)
def test_a_mistake_names_the_stage_and_the_key(words: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        stages(*words)


def test_the_help_is_short_and_points_to_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--help"]) == 0
    short = capsys.readouterr().out
    assert len(short.splitlines()) < 60
    assert all(word in short for word in ("--help all", "docs/configuration.md", "--from", "--stages.NAME.KEY"))
    assert main(["fit", "--help", "all"]) == 0
    whole = capsys.readouterr().out
    assert all(word in whole for word in ("--model.decoder.depth", "--trainer.nonfinite", "--init_from.new_rows"))


@pytest.mark.parametrize("words", [["--stages.help"], ["--data.help", "Packed"]])
def test_the_help_of_one_key_is_of_this_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *words]) == 0
    assert capsys.readouterr().out.startswith("usage: vargpt fit ")
