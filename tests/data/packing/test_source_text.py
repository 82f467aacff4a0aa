"""Sources as a command line writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from vargpt_lightning.data.packing.job import SourceSpec
from vargpt_lightning.data.packing.source_text import read_spec
from vargpt_lightning.utils.errors import UserError


def test_a_source_is_read_from_one_word(tmp_path: Path) -> None:
    spec = read_spec("llava:a,b.json,pictures=images,add_placeholder=true,name=x")
    assert spec == SourceSpec("llava", Path("a,b.json"), Path("images"), {"add_placeholder": True, "name": "x"})


@pytest.mark.parametrize("word", ["llava", "llava:", ":x", "mix.json"])
def test_a_word_that_is_no_source(word: str) -> None:
    with pytest.raises(UserError, match=f"source '{word}': expected NAME:PATH"):
        read_spec(word)


def test_paths_begin_at_home_where_the_shell_leaves_them_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    spec = read_spec("imagenet:~/a,pictures=~/b,classes=~/c.txt,split=train")
    assert (spec.path, spec.pictures) == (tmp_path / "a", tmp_path / "b")
    assert spec.options == {"classes": str(tmp_path / "c.txt"), "split": "train"}
