"""Callbacks that an experiment adds by their class_path: of installed packages alone, checked before training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.installed import install, on_the_path
from tests.tiny import write_experiment
from vargpt_lightning.cli import main
from vargpt_lightning.experiment.parser import load_experiment
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.training.contents import content_hashes
from vargpt_lightning.training.own_callbacks import build_callbacks, check_callbacks
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import read_json
from vargpt_lightning.utils.plugins import is_installed

PROJECT = '[project]\nname = "Watch.ers"\nversion = "1.2"\n'

WATCH = '''
"""A callback that writes down which callbacks there were at each step."""
from pathlib import Path

import lightning.pytorch as pl


class Watch(pl.Callback):
    def __init__(self, file, secret=""):
        if secret == "wrong":
            raise ValueError("not this one")
        self.file = Path(file)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        names = ",".join(type(each).__name__ for each in trainer.callbacks)
        with self.file.open("a") as file:
            file.write(f"{trainer.global_step} {type(pl_module).__name__} {names}\\n")


class Stop(pl.Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.should_stop = trainer.global_step >= 2
'''

FILES = {"watch_ers/__init__.py": "", "watch_ers/watch.py": WATCH, "watch_ers/nothing_to_see.py": "NUMBER = 1\n"}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """A folder of installed packages with one that has callbacks."""
    folder = tmp_path / "site"
    install(folder, PROJECT, FILES)
    with on_the_path(folder):
        yield folder


@pytest.fixture
def experiment(site: Path, tiny_experiment: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """One stage of the tiny experiment with a callback of the package and one of Lightning's."""
    tiny_experiment["stages"] = tiny_experiment["stages"][1:2]
    watch = {"class_path": "watch_ers.watch.Watch", "init_args": {"file": str(tmp_path / "steps.txt")}}
    tiny_experiment["trainer"] |= {"callbacks": [watch, {"class_path": "LearningRateMonitor"}], "samples": 0}
    return tiny_experiment


def fit(tree: dict[str, Any], folder: Path) -> int:
    return main(["fit", "-c", str(write_experiment(folder / "tiny.yaml", tree))])


def test_they_run_after_ours_and_before_what_stops_and_saves(experiment: dict[str, Any], tmp_path: Path) -> None:
    assert fit(experiment, tmp_path) == 0
    steps = [line.split() for line in (tmp_path / "steps.txt").read_text().splitlines()]
    assert [step for step, _, _ in steps] == [str(n) for step in range(6) for n in (step, step + 1)]
    names = steps[0][2].split(",")
    assert names[-5:] == ["RunRecord", "Watch", "LearningRateMonitor", "GracefulStop", "LastCheckpoint"]
    assert any(row.name.startswith("lr-AdamW") for row in RunFolder(tmp_path / "runs/tiny").stages()[0].metrics())


def test_a_stage_that_a_callback_ends_says_how_many_steps_it_took(experiment: dict[str, Any], tmp_path: Path) -> None:
    experiment["trainer"]["callbacks"] = [{"class_path": "watch_ers.watch.Stop"}]
    assert fit(experiment, tmp_path) == 0
    assert read_json(tmp_path / "runs/tiny/stages/01-base/stage.json")["steps"] == 2


def test_callbacks_are_no_part_of_what_a_stage_depends_on(experiment: dict[str, Any], tmp_path: Path) -> None:
    hashes = []
    for callbacks in ([], experiment["trainer"]["callbacks"]):
        experiment["trainer"]["callbacks"] = callbacks
        hashes.append(content_hashes(load_experiment(["-c", str(write_experiment(tmp_path / "a.yaml", experiment))])))
    assert hashes[0] == hashes[1]
    experiment["stages"][0]["steps"] = 7
    other = content_hashes(load_experiment(["-c", str(write_experiment(tmp_path / "a.yaml", experiment))]))
    assert other != hashes[0]


CALLBACKS = [
    ({"class": "x"}, r"expected class_path, and init_args if need be"),
    ({"class_path": "EarlyStoping"}, r"is no class of .*Callback; there are .*; did you mean 'EarlyStopping'"),
    ({"class_path": "nowhere.at.All"}, r"no installed package has 'nowhere'"),
    ({"class_path": "watch_ers.nothing_to_see.NUMBER"}, r"NUMBER' is no class of .*has none"),
    ({"class_path": "watch_ers.nothing.Watch"}, r"watch_ers.nothing cannot be imported: ModuleNotFoundError"),
    ({"class_path": "watch_ers.watch.Watch"}, r"watch_ers.watch.Watch: missing a required argument: 'file'"),
    ({"class_path": "watch_ers.watch.Watch", "init_args": ["x"]}, r"init_args of .* are \['x'\]; expected names"),
    ({"class_path": "subprocess.Popen", "init_args": {"args": "true"}}, r"no installed package has 'subprocess'"),
    ({"class_path": "torch.nn.Linear"}, r"'torch.nn.Linear' is no class of lightning.pytorch.Callback"),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "told"), CALLBACKS, ids=[told for _, told in CALLBACKS])
def test_only_callbacks_of_installed_packages_are_made(entry: dict[str, Any], told: str, site: Path) -> None:
    with pytest.raises(UserError, match=told):
        check_callbacks([entry])


def test_a_module_beside_an_experiment_is_not_run(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where Python would find it: it is of no installed package."""
    (tmp_path / "beside.py").write_text("raise SystemExit('run')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    with pytest.raises(UserError, match=r"no installed package has 'beside'"):
        check_callbacks([{"class_path": "beside.Callback"}])


def test_arguments_that_a_callback_refuses_are_not_shown(site: Path) -> None:
    entry = {"class_path": "watch_ers.watch.Watch", "init_args": {"file": "x", "secret": "wrong"}}
    check_callbacks([entry])
    with pytest.raises(UserError, match=r"Watch with file, secret does not start: not this one") as error:
        build_callbacks([entry])
    assert "wrong" not in str(error.value)


def test_what_is_installed(site: Path) -> None:
    assert is_installed("watch_ers") and is_installed("yaml") and is_installed("lightning")
    assert not is_installed("beside") and not is_installed("") and not is_installed("os")


def test_the_resolved_experiment_is_yaml_of_plain_values(experiment: dict[str, Any], tmp_path: Path) -> None:
    made = load_experiment(["-c", str(write_experiment(tmp_path / "tiny.yaml", experiment))])
    assert yaml.safe_load(made.resolved)["trainer"]["callbacks"][1] == {"class_path": "LearningRateMonitor"}


def test_a_wrong_callback_is_told_before_anything_is_trained(
    experiment: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment["trainer"]["callbacks"] = [{"class_path": "watch_ers.watch.Wach"}]
    assert fit(experiment, tmp_path) == 2
    assert "trainer.callbacks: 'watch_ers.watch.Wach' is no class of" in capsys.readouterr().err
    assert not (tmp_path / "runs/tiny/stages").exists()
