"""The names that messages offer in place of a wrong one."""

from __future__ import annotations

from pathlib import Path

from vargpt_lightning.utils.errors import near_path, similar_path


def test_the_path_that_was_given_is_never_the_one_that_was_meant(tmp_path: Path) -> None:
    for name in ("model.bin", "model"):
        (tmp_path / name).write_text("a file, where a folder is expected")
        assert similar_path(tmp_path / name) != tmp_path / name
        (tmp_path / name).unlink()
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    assert near_path(tmp_path / "gone") == ""
    (tmp_path / "gones").mkdir()
    assert near_path(tmp_path / "gone") == f"; did you mean '{tmp_path / 'gones'}'?"
