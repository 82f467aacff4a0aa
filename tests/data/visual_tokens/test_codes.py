"""Visual tokens made once: equal to what would be encoded, found again only where they belong, made on after a kill."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.data.conftest import asked, drawn, png
from tests.forks import start
from vargpt_lightning.data.images.pictures import ENDLESS, PictureReader
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.data.shards.format import write_source
from vargpt_lightning.data.shards.records import Record
from vargpt_lightning.data.visual_tokens.codes import Recipe, VisualTokens, find
from vargpt_lightning.data.visual_tokens.job import WORK_NAME, tokenize
from vargpt_lightning.utils.errors import UserError

L = 12
READER = PictureReader(8, fit="var", variants=3, flip=False)
SETTINGS = {"scales": (1, 2), "vocabulary": 256, "beta": 0.25}
STATE = {"w": torch.linspace(-1, 1, 7)}
RECIPE = Recipe.of(STATE, SETTINGS, READER)


def picture(number: int) -> bytes:
    """A picture of noise, larger than the crop."""
    from io import BytesIO

    from PIL import Image

    pixels = np.random.default_rng(number).integers(0, 256, (11, 14, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def records() -> list[Record]:
    """Pictures drawn once, twice and not at all, seen ones, one that is none, and one key with two pictures."""
    made = [drawn(f"p{number}", picture(number)) for number in range(12)]
    made[4] = drawn("bad", b"no picture")
    made[7] = asked("seen", data=png())
    made[8] = Record("two", "t", drawn("p1", picture(1)).turns + asked("s").turns + drawn("p20", picture(20)).turns)
    made[9] = drawn("p0", picture(30))
    made[10] = Record("again", "t", drawn("p0", picture(0)).turns)
    return [Record(f"r{number}", "t", record.turns) for number, record in enumerate(made)]


class Encoder:
    """Codes that tell what was encoded: the first values of the picture."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, x_B3HW: Tensor) -> Tensor:
        self.batches.append(len(x_B3HW))
        return (x_B3HW.flatten(1)[:, :L] * 127.5 + 127.5).round().long()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_source(records(), tmp_path / "packed", split="train", shard_bytes=9000)
    assert len(list((tmp_path / "packed").glob("*.tar"))) > 3
    return tmp_path / "packed"


def make(folder: Path, encode: Callable[[Tensor], Tensor] | None = None, **changes: Any) -> VisualTokens:
    dataset, reader = ShardDataset(folder), changes.pop("reader", READER)
    recipe = changes.pop("recipe", RECIPE)
    out = tokenize(dataset, folder / "tokens", recipe, reader, encode or Encoder(), tokens=L, batch_size=5, **changes)
    return VisualTokens(out)


def contents(made: VisualTokens) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(made.folder.iterdir()) if file.is_file()}


def test_codes_are_what_encoding_on_the_fly_gives(folder: Path) -> None:
    plain = ShardDataset(folder)
    coded = pickle.loads(pickle.dumps(plain.with_codes(make(folder))))
    bad = 0
    for with_file, with_codes in zip(plain, coded, strict=True):
        assert with_file == with_codes
        for one, two in zip(with_file.pictures(), with_codes.pictures(), strict=True):
            if one.use == "seen":
                assert two.data == one.data and two.codes is None
            elif one.name == "bad":
                bad += 1
                assert two.codes.shape == (0, L)
            else:
                assert two.data is None and two.codes.shape == (3, L) and two.codes.dtype == np.uint16
                pixels = torch.stack([READER.read(one.data, one.name, variant) for variant in range(3)])
                assert torch.equal(torch.from_numpy(two.codes.astype(np.int64)), Encoder()(pixels))
    assert bad == 1 and [part.data is None for part in plain[0].pictures()] == [False], "the plain one reads on"


def test_a_picture_is_encoded_once_and_the_bad_are_told(folder: Path) -> None:
    encode = Encoder()
    made = make(folder, encode)
    assert max(encode.batches) <= 5
    assert made.index["counts"]["records"] == 12 and made.index["counts"]["bad"] == 1
    assert made.index["counts"]["pictures"] == 12, "two of one record, none of another"
    shards = {number for number, *_ in json.loads((folder / "offsets.json").read_text())}
    assert sum(encode.batches) == made.index["counts"]["rows"] <= 3 * 11 and len(shards) > 3
    (row,) = [json.loads(line) for line in (made.folder / "bad.jsonl").read_text().splitlines()]
    assert row["picture"] == "bad" and row["record"] == "r4" and "no picture" in row["reason"]
    again = Encoder()
    assert make(folder, again).folder == made.folder and not again.batches, "the second call finds all there"
    assert not (made.folder / WORK_NAME).exists()


def test_one_shard_encodes_repeated_pictures_once(tmp_path: Path) -> None:
    repeated = [Record(f"r{n}", "t", drawn(f"p{n % 2}", picture(n % 2)).turns) for n in range(8)]
    write_source(repeated, tmp_path / "s", split="train")
    encode = Encoder()
    made = make(tmp_path / "s", encode)
    assert sum(encode.batches) == 2 * 3 and made.index["counts"]["pictures"] == 8


def test_fewer_variants_are_the_first_ones(folder: Path) -> None:
    made = make(folder)
    one = made.with_variants(1).of_record(0, ["p0"])[0]
    assert one.shape == (1, L) and np.array_equal(one[0], made.of_record(0, ["p0"])[0][0])
    with_one = make(folder, reader=replace(READER, variants=1), recipe=replace(RECIPE, variants=1))
    assert with_one.folder != made.folder and np.array_equal(with_one.of_record(0, ["p0"])[0], one)


def test_the_wrong_record_is_refused(folder: Path) -> None:
    made = make(folder)
    with pytest.raises(UserError, match="record 1 draws p0, other pictures than the visual tokens were made of"):
        made.of_record(1, ["p0"])


def search(folder: Path, recipe: Recipe = RECIPE) -> str:
    """Why nothing is found; empty when something is."""
    found = find(folder / "tokens", ShardDataset(folder).index["shards"], recipe)
    assert (found.found is None) == bool(found.objections)
    return "; ".join(found.objections)


def recipe_with(reader: PictureReader = READER, state: dict[str, Tensor] = STATE, **settings: Any) -> Recipe:
    return Recipe.of(state, SETTINGS | settings, reader)


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        (recipe_with(), ""),
        (recipe_with(beta=1.0), ""),
        (recipe_with(state={"w": STATE["w"].double()}), ""),
        (recipe_with(state={"w": STATE["w"] + 1e-6}), "another tokenizer .weights"),
        (recipe_with(scales=(2, 1)), r"another tokenizer .scales \[1, 2\], now \[2, 1\]"),
        (recipe_with(replace(READER, size=9)), "read otherwise .size 8, now 9"),
        (recipe_with(replace(READER, fit="crop")), "read otherwise .fit 'var', now 'crop'"),
        (recipe_with(replace(READER, flip=True)), "read otherwise .flip False, now True"),
        (recipe_with(replace(READER, flip=True, variants=1)), ""),
        (recipe_with(replace(READER, variants=2)), ""),
        (recipe_with(replace(READER, variants=4)), "3 variants of each picture, now 4"),
        (recipe_with(replace(READER, variants=ENDLESS)), "drawn_variants 0 asks for a new one each time"),
    ],
)
def test_codes_are_found_by_what_they_depend_on(recipe: Recipe, told: str, folder: Path) -> None:
    make(folder)
    found = search(folder, recipe)
    assert re.search(told, found) if told else not found


def test_a_tokenizer_rounded_to_bfloat16_is_still_the_same(folder: Path) -> None:
    make(folder)
    rounded = {"w": STATE["w"].bfloat16()}
    assert not torch.equal(rounded["w"].float(), STATE["w"])
    assert search(folder, recipe_with(state=rounded)) == ""
    assert search(folder, recipe_with(state={"w": rounded["w"].float()})) == ""
    another = {"w": (STATE["w"] + 0.1).bfloat16()}
    assert "another tokenizer" in search(folder, recipe_with(state=another))


def test_other_shards_are_noticed_and_made_anew(folder: Path) -> None:
    before = make(folder)
    write_source([drawn(f"q{n}", picture(n)) for n in range(3)], folder, split="train", shard_bytes=9000)
    assert "made of other shards (shard-000000.tar is not what it was)" in search(folder)
    after = make(folder)
    assert after.folder == before.folder and search(folder) == "" and after.index["counts"]["pictures"] == 3


def test_a_shard_that_is_not_what_the_index_says_is_refused(folder: Path) -> None:
    path = folder / "shard-000001.tar"
    content = bytearray(path.read_bytes())
    content[700] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"shard-000001.tar: sha256 .*, the index says .*; pack it again"):
        make(folder)


def test_files_cut_short_are_refused(folder: Path) -> None:
    made = make(folder)
    file = made.folder / "codes.npy"
    content = file.read_bytes()
    for broken in (content[:-10], b"", content.replace(b"(", b"[", 1)):
        file.write_bytes(broken)
        with pytest.raises(UserError, match=r"codes.npy: cannot be read .*; delete .* and make it again"):
            VisualTokens(made.folder)
    np.save(file, np.zeros((2, L), np.uint16))
    with pytest.raises(UserError, match=r"codes.npy: shape \(2, 12\), index.json says"):
        VisualTokens(made.folder)


def test_nothing_but_bad_pictures(tmp_path: Path) -> None:
    write_source([drawn("x", b"rubbish")], tmp_path / "s", split="train")
    with pytest.raises(UserError, match="none of its 1 drawn pictures could be encoded; the first: x: 7 bytes"):
        make(tmp_path / "s")


def test_more_codes_than_16_bits_are_refused() -> None:
    with pytest.raises(UserError, match=r"vocabulary=65537; .* at most 65536"):
        recipe_with(vocabulary=65537)


def test_two_at_once(folder: Path) -> None:
    """One is refused while the other is at work."""
    refused: list[str] = []

    class Nosy(Encoder):
        def __call__(self, x_B3HW: Tensor) -> Tensor:
            if not refused:
                with pytest.raises(UserError, match="another process is at work in it") as error:
                    make(folder)
                refused.append(str(error.value))
            return super().__call__(x_B3HW)

    make(folder, Nosy())
    assert refused


class Slow(Encoder):
    def __call__(self, x_B3HW: Tensor) -> Tensor:
        time.sleep(0.3)
        return super().__call__(x_B3HW)


def make_slowly(folder: Path) -> None:
    make(folder, Slow(), processes=2)


def test_killed_and_taken_up_again_it_ends_with_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    work = folder / "tokens" / RECIPE.name / WORK_NAME
    process = start(tmp_path / "log", make_slowly, folder)
    try:
        end = time.monotonic() + 240
        while len(list(work.glob("shard-*.npz"))) < 2:
            assert process.is_alive() and time.monotonic() < end
            time.sleep(0.02)
    finally:
        process.kill()
        process.join()
    unfinished = find(folder / "tokens", ShardDataset(folder).index["shards"], RECIPE)
    assert unfinished.found is None and not unfinished.objections
    done = len(list(work.glob("shard-*.npz")))
    shards = ShardDataset(folder).index["shards"]
    assert 2 <= done < len(shards)
    encode = Encoder()
    killed = contents(make(folder, encode))
    shutil.rmtree(folder / "tokens")
    whole = Encoder()
    assert contents(make(folder, whole)) == killed
    assert 0 < sum(encode.batches) < sum(whole.batches), "what was done was not done again"
