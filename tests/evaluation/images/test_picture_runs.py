"""Sampling: the same pictures whatever the processes and batches, taken up after a kill; pairs go by id."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.evaluation.pictures import Apart, write_pictures
from tests.forks import start
from vargpt_lightning.evaluation.base.protocols import Reply
from vargpt_lightning.evaluation.images.instruct_set import Prompt
from vargpt_lightning.evaluation.images.picture_lists import check_sizes, list_pictures, pair, references
from vargpt_lightning.evaluation.images.picture_runs import Sampled, draw_pictures, drawn_rows
from vargpt_lightning.evaluation.systems.files import Drawings
from vargpt_lightning.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
PROMPTS = [Prompt(f"class/{number}", f"Draw {number}.", f"{number}") for number in range(11)]


class Painter:
    """Draws noise that follows from prompt and seed; "Draw 7." it refuses."""

    name, digest = "painter", "1"

    def __init__(self, guidance: float = 1.5) -> None:
        self.settings = {"guidance": guidance}
        self.asked: list[str] = []
        self.batches: list[int] = []

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[str | Reply]:
        self.asked += prompts
        self.batches.append(len(prompts))
        return [self._one(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]

    def _one(self, prompt: str, seed: int) -> str | Reply:
        if prompt == "Draw 7.":
            return "I would rather not."
        rng = np.random.default_rng([seed, *prompt.encode()])
        return Reply("Here:", (Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)),))


def contents(out: Path) -> dict[str, str]:
    return {file.id: hashlib.sha256(file.path.read_bytes()).hexdigest() for file in list_pictures(out)}


def test_pictures_do_not_depend_on_batches_and_processes(tmp_path: Path) -> None:
    one = draw_pictures(Painter(), PROMPTS, tmp_path / "one", batch_size=4)
    assert one == Sampled(11, 10, 1, 11)
    painters = [Painter() for _ in range(3)]
    for rank in (2, 0, 1):
        draw_pictures(painters[rank], PROMPTS, tmp_path / "three", batch_size=2, processes=Apart(rank, 3))
    assert contents(tmp_path / "three") == contents(tmp_path / "one") and len(contents(tmp_path / "one")) == 10
    asked = [prompt for painter in painters for prompt in painter.asked]
    assert sorted(asked) == sorted(prompt.instruction for prompt in PROMPTS), "each prompt once"
    assert set(contents(tmp_path / "one")) == {prompt.id for prompt in PROMPTS} - {"class/7"}


def test_another_base_seed_draws_other_pictures(tmp_path: Path) -> None:
    for seed in (0, 1):
        draw_pictures(Painter(), PROMPTS[:2], tmp_path / str(seed), seed=seed)
    assert not set(contents(tmp_path / "0").values()) & set(contents(tmp_path / "1").values())


def test_what_is_there_is_not_drawn_again(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(title: str, done: int, total: int) -> None:
        if done >= 6:
            raise Stopped

    with pytest.raises(Stopped):
        draw_pictures(Painter(), PROMPTS, tmp_path, batch_size=3, progress=stop)
    (tmp_path / drawn_rows(tmp_path)["class/1"]["file"]).unlink()
    first, second = Painter(), Painter()
    draw_pictures(first, PROMPTS, tmp_path, processes=Apart(0, 2))
    draw_pictures(second, PROMPTS, tmp_path, processes=Apart(1, 2))
    assert sorted(first.asked + second.asked) == sorted(f"Draw {n}." for n in (1, 6, 7, 8, 9, 10))
    assert draw_pictures(Painter(), PROMPTS, tmp_path) == Sampled(11, 10, 1, 0), "a refusal is an answer"
    changed = [*PROMPTS[:3], Prompt("class/3", "Draw 3, please."), *PROMPTS[4:]]
    again = Painter()
    draw_pictures(again, changed, tmp_path)
    assert again.asked == ["Draw 3, please."], "a changed prompt is drawn again, and only that"


class Slow(Painter):
    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[str | Reply]:
        time.sleep(0.1)
        return super().draw(prompts, seeds)


def draw_slowly(out: Path) -> None:
    draw_pictures(Slow(), PROMPTS, out, batch_size=1)


def test_a_killed_process_goes_on(tmp_path: Path) -> None:
    killed = start(tmp_path / "log", draw_slowly, tmp_path / "out")
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "out" / "drawings").glob("*.png"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.kill()
    killed.join()
    assert 4 <= len(contents(tmp_path / "out")) + 1 < 11
    painter = Painter()
    draw_pictures(painter, PROMPTS, tmp_path / "out", batch_size=5)
    assert len(painter.asked) <= 11 - 3
    draw_pictures(Painter(), PROMPTS, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    for file in list_pictures(tmp_path / "out"):
        with Image.open(file.path) as picture:
            picture.load()


def test_pictures_of_two_settings_do_not_mix(tmp_path: Path) -> None:
    draw_pictures(Painter(), PROMPTS[:2], tmp_path)
    for painter, options, name in (
        (Painter(guidance=3.0), {}, "settings"),
        (Painter(), {"seed": 5}, "seed"),
        (Painter(), {"text": "caption"}, "text"),
    ):
        with pytest.raises(UserError, match=f"holds pictures with the {name} "):
            draw_pictures(painter, PROMPTS, tmp_path, **options)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="batch size 0"):
        draw_pictures(Painter(), PROMPTS, tmp_path, batch_size=0)
    with pytest.raises(UserError, match=r"'A' and 'a' would share the file a\.png"):
        draw_pictures(Painter(), [Prompt("A", "x"), Prompt("a", "x")], tmp_path / "b")


def test_a_folder_of_drawings_is_a_system_like_any_other(tmp_path: Path) -> None:
    draw_pictures(Painter(), PROMPTS[:5], tmp_path / "first")
    theirs = tmp_path / "first" / "drawings"
    for rank in (0, 1):
        draw_pictures(Drawings(theirs), PROMPTS[:5], tmp_path / "again", batch_size=2, processes=Apart(rank, 2))
    assert contents(tmp_path / "again") == contents(tmp_path / "first")
    with pytest.raises(UserError, match=r"6 missing \(such as 'class/5'\)"):
        draw_pictures(Drawings(theirs), PROMPTS, tmp_path / "more")
    assert draw_pictures(Drawings(theirs, "missing"), PROMPTS, tmp_path / "some") == Sampled(11, 5, 6, 11)


def test_a_folder_in_which_nothing_was_drawn_belongs_to_nobody(tmp_path: Path) -> None:
    class Broken(Painter):
        name = "broken"

        def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[str | Reply]:
            raise UserError("this kind of model does not draw")

    with pytest.raises(UserError, match="does not draw"):
        draw_pictures(Broken(), PROMPTS[:2], tmp_path)
    assert draw_pictures(Painter(), PROMPTS[:2], tmp_path).pictures == 2
    with pytest.raises(UserError, match="holds pictures with the name painter, now it is broken"):
        draw_pictures(Broken(), PROMPTS[:2], tmp_path)


def test_rows_outlast_odd_texts_and_files_that_were_copied(tmp_path: Path) -> None:
    class Odd(Painter):
        def _one(self, prompt: str, seed: int) -> str | Reply:
            return replace(super()._one(prompt, seed), text="a\u2028b\x85c\0")  # type: ignore[type-var]

    draw_pictures(Odd(), PROMPTS[:2], tmp_path, processes=Apart(0, 1))
    changed = [PROMPTS[0], Prompt("class/1", "Draw 1, please.")]
    draw_pictures(Odd(), changed, tmp_path, processes=Apart(1, 2))
    for number, file in enumerate(("1-of-2", "0-of-1")):
        os.utime(tmp_path / "drawn" / f"{file}.jsonl", (number, number))
    again = Odd()
    assert draw_pictures(again, changed, tmp_path) == Sampled(2, 2, 0, 0) and not again.asked
    assert drawn_rows(tmp_path)["class/0"]["text"] == "a\u2028b\x85c\0"


def test_a_system_that_loses_a_drawing_is_at_fault(tmp_path: Path) -> None:
    painter: Any = Painter()
    painter.draw = lambda prompts, seeds: ["text"]
    with pytest.raises(ValueError, match="1 drawings came back for 2 requests"):
        draw_pictures(painter, PROMPTS[:2], tmp_path)


def test_pairs_go_by_id_and_not_by_sorted_names(tmp_path: Path) -> None:
    write_pictures(tmp_path, 12)
    prompts = [Prompt(str(number), f"Draw {number}.") for number in (10, 2, 0, 1, 11, *range(3, 10))]
    pairs = pair(prompts, list_pictures(tmp_path))
    assert [file.path.stem for file in pairs.drawings] == [prompt.id for prompt in prompts]
    assert [file.id for file in pairs.drawings] == [prompt.id for prompt in prompts]


def test_ids_of_folders_and_of_file_names(tmp_path: Path) -> None:
    draw_pictures(Painter(), PROMPTS[:3], tmp_path / "ours")
    names = [path.name for path in sorted((tmp_path / "ours" / "drawings").iterdir())]
    assert all(name.startswith("class-") for name in names)
    for folder in (tmp_path / "ours", tmp_path / "ours" / "drawings"):
        assert len(pair(PROMPTS[:3], list_pictures(folder)).drawings) == 3
    write_pictures(tmp_path / "theirs" / "class", 3)
    assert [file.id for file in list_pictures(tmp_path / "theirs")] == ["class/0", "class/1", "class/2"]
    assert len(pair(PROMPTS[:3], list_pictures(tmp_path / "theirs")).drawings) == 3


def test_ids_on_one_side_alone(tmp_path: Path) -> None:
    files = write_pictures(tmp_path, 3)
    some = [Prompt("0", "x"), Prompt("5", "x")]
    with pytest.raises(UserError, match=r"1 prompts have no drawing, such as '5'.*--allow missing"):
        pair(some, files)
    with pytest.raises(UserError, match=r"2 drawings belong to no prompt, such as '1'.*--allow unknown"):
        pair(some, files, ("missing",))
    pairs = pair(some, files, ("missing", "unknown"))
    assert (len(pairs.drawings), pairs.missing, pairs.unknown) == (1, ["5"], ["1", "2"])
    with pytest.raises(UserError, match="no drawing has the id of a prompt"):
        pair([Prompt("9", "x")], files, ("missing", "unknown"))
    Image.new("RGB", (8, 8)).save(tmp_path / "1.jpg")
    with pytest.raises(UserError, match="have one id, '1'"):
        list_pictures(tmp_path)


def test_references_that_are_not_there(tmp_path: Path) -> None:
    file = write_pictures(tmp_path, 1)[0]
    assert [f.path for f in references([Prompt("a", "x", reference=file.path)])] == [file.path]
    with pytest.raises(UserError, match="'a' has no reference picture"):
        references([Prompt("a", "x")])
    with pytest.raises(UserError, match=r"the reference .*none\.png is not there"):
        references([Prompt("a", "x", reference=tmp_path / "none.png")])


def test_sizes_are_compared_before_anything_is_measured(tmp_path: Path) -> None:
    files = write_pictures(tmp_path, 3)
    check_sizes(files)
    Image.new("RGB", (9, 8)).save(files[2].path)
    with pytest.raises(UserError, match=r"0\.png is 32x32, .*2\.png is 9x8"):
        check_sizes(files)
    files[2].path.write_bytes(b"")
    with pytest.raises(UserError, match=r"2\.png: no picture"):
        check_sizes(files)
    check_sizes(files, ("broken",))
    assert Counter(file.id for file in files) == Counter("012")


def test_pictures_are_listed_whatever_their_endings(tmp_path: Path) -> None:
    names = ["a.png", "b.Jpg", "c.JPEG", "d.tiff", "e.avif", "f.bmp", "g.gif", "h.jfif", "notes.txt", ".i.png"]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    assert [file.id for file in list_pictures(tmp_path)] == list("abcdefgh")
