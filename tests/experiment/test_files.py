from __future__ import annotations

from pathlib import Path

import pytest

from vargpt_lightning.experiment.files import SOURCE, chain, shipped_hint
from vargpt_lightning.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def test_a_missing_experiment_that_comes_along_is_pointed_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=rf"experiments/own_data.yaml cannot be read: .*`cp -r {ROOT / 'experiments'} \.`"
    ):
        chain(Path("experiments/own_data.yaml"))
    (tmp_path / "mine.yaml").write_text("base: base.yaml")
    with pytest.raises(UserError, match=r"base.yaml, the base of mine.yaml,.*`cp -r"):
        chain(Path("mine.yaml"))
    with pytest.raises(UserError, match=r"of_my_own.yaml cannot be read: No such file or directory$"):
        chain(Path("of_my_own.yaml"))


def test_an_installed_package_says_where_the_experiments_are(tmp_path: Path) -> None:
    assert SOURCE in shipped_hint(tmp_path / "own_data.yaml", tmp_path / "experiments")
    (tmp_path / "own_data.yaml").write_text("")
    assert shipped_hint(tmp_path / "own_data.yaml", tmp_path / "experiments") == ""
