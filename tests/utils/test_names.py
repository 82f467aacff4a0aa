"""Names that become files: what leaves its folder, is too long or holds NUL is refused by its key."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import write_experiment
from vargpt_lightning.cli import main
from vargpt_lightning.data.corpora import Packed
from vargpt_lightning.experiment.parser import _check_reuse
from vargpt_lightning.experiment.schema import RunConfig
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.sweep.spec import parse_sweep
from vargpt_lightning.training import resume as finished_stages
from vargpt_lightning.training.resume import alone
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.names import check_name, check_path
from vargpt_lightning.utils.ranges import fits

BAD = ["", "x" * 300, "\u20ac" * 90, "a\0b", "a\nb", "..", ".", ".hidden", "a/b", "a\\b", "../x", "/abs", " x", "x "]
GOOD = ["a", "run 2", "7b-4x24gb", "\u5f69\u8272", "a.b", "x" * 150, "cfg1.5-top_k900-seed0"]


@pytest.mark.parametrize("name", BAD, ids=range(len(BAD)))
def test_what_is_no_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^key=.*; expected a name "):
        check_name(name, "key")
    with pytest.raises(UserError, match=r"^data\.train: corpus="):
        Packed(train={name: "folder"})
    (tmp_path / "b.yaml").write_text("seed: 0")
    with pytest.raises(UserError, match=r"^name="):
        parse_sweep({"name": name, "base": "b.yaml", "measure": "kid"}, tmp_path / "s.yaml")
    with pytest.raises(UserError, match=r"^stages: name"):
        Stage(name, ["language_model"], {"a": 1.0}, steps=1)


@pytest.mark.parametrize("name", GOOD, ids=range(len(GOOD)))
def test_names_are_taken(name: str) -> None:
    check_name(name, "key")
    check_path(f"group/{name}", "key")


@pytest.mark.parametrize("name", ["../../x", "a/../b", "/abs", "a//b", "a/", "a/" + "x" * 300, "a\0b", ".."])
def test_a_run_stays_below_its_root(name: str) -> None:
    with pytest.raises(UserError, match=r"^run\.name="):
        check_path(name, "run.name")


@pytest.mark.parametrize("name", ["../../x", "x" * 300])
def test_fit_refuses_it_before_it_writes(
    name: str, tiny_experiment: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_experiment["run"]["root"] = str(tmp_path / "runs")
    file = write_experiment(tmp_path / "a" / "tiny.yaml", tiny_experiment)
    assert main(["fit", "-c", str(file), "--run.name", name]) == 2
    assert f"run.name='{name[:40]}" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_no_text_of_an_experiment_holds_nul() -> None:
    assert fits("a", str) and not fits("a\0b", str) and not fits("a\0b", str | None) and not fits(["\0"], list[str])


@pytest.mark.parametrize("error", [OSError(36, "File name too long", "x" * 300), ValueError("embedded null byte")])
def test_what_the_system_cannot_name_is_told_in_one_line(error: Exception) -> None:
    from vargpt_lightning.cli import _explain

    assert "expected" in (_explain(error) or "")


def test_reuse_names_runs(tmp_path: Path) -> None:
    RunFolder.start(tmp_path / "runs" / "one")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for place in ("runs", "runs/one", "."):
        _check_reuse(RunConfig(root="elsewhere", reuse=[str(tmp_path / place)]))
    _check_reuse(RunConfig(root=str(tmp_path / "empty"), reuse=[str(tmp_path / "empty")]))
    for place in ("empty", "none", "file"):
        with pytest.raises(UserError, match=rf"run\.reuse='.*{place}': .*expected a run, or a folder of runs"):
            _check_reuse(RunConfig(root="elsewhere", reuse=[str(tmp_path / place)]))


def test_a_run_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in ("file", "file/run", "file/runs/run"):
        with alone(tmp_path / path), pytest.raises(UserError, match="file is a file; a run needs a folder"):
            RunFolder.start(tmp_path / path)


def test_of_two_begun_at_once_the_second_sees_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "runs" / "one", []
    inside, go_on = threading.Event(), threading.Event()

    def first() -> None:
        with alone(path):
            inside.set()
            go_on.wait(20)
            RunFolder.start(path)

    def second() -> None:
        with alone(path):
            seen.append((path / "run.json").is_file())

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert inside.wait(20)
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert seen == [True]
    monkeypatch.setattr(finished_stages.os, "getpid", lambda: 1)
    with pytest.raises(UserError, match="is working on this run"):
        finished_stages._refuse_company(RunFolder(path))


def test_a_folder_of_other_things_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with alone(tmp_path), pytest.raises(UserError, match="neither empty nor a run folder"):
        RunFolder.start(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]
