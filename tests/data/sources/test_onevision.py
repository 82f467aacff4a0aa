from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.data.sources.conftest import jpeg, said, split, write_parquet
from vargpt_lightning.data.sources import onevision
from vargpt_lightning.utils.errors import UserError


def row(name: str, data: bytes | None, question: str = "<image>\nWhat?") -> dict[str, Any]:
    image = None if data is None else {"bytes": data, "path": "image.png"}
    return {"id": name, "image": image, "conversations": said(question), "data_source": "source of it"}


def build(root: Path) -> Path:
    write_parquet(root / "sharegpt4v(coco)/train-00000-of-00002.parquet", [row(f"a{n}", jpeg(n)) for n in range(5)])
    write_parquet(root / "sharegpt4v(coco)/train-00001-of-00002.parquet", [row("a0", jpeg(9))])
    write_parquet(
        root / "magpie_pro/train-00000-of-00001.parquet", [row("t", None, "Hello"), row("x", jpeg(3), "<image>")]
    )
    return root


def test_all_configurations_are_read_in_a_fixed_order(tmp_path: Path) -> None:
    good, bad = split(onevision.read(build(tmp_path)))
    assert not bad
    assert [record.meta["config"] for record in good] == ["magpie_pro"] * 2 + ["sharegpt4v(coco)"] * 6
    assert [part.data for part in good[2].pictures("seen")] == [jpeg(0)]
    assert good[0].meta["kind"] == "text" and good[2].meta["data_source"] == "source of it"
    assert len({record.id for record in good}) == len({p.key for r in good for p in r.pictures()}) + 1 == 8


def test_configurations_may_be_chosen_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    build(tmp_path)
    assert len(list(onevision.read(tmp_path, configs=["magpie_pro"]))) == 2
    assert len(list(onevision.read(tmp_path / "sharegpt4v(coco)"))) == 6
    with pytest.raises(UserError, match=r"magpie; .* has magpie_pro, sharegpt4v\(coco\)"):
        list(onevision.read(tmp_path, configs=["magpie"]))


def test_bad_rows_are_refused(tmp_path: Path) -> None:
    rows = [row("a", b"none"), row("b", jpeg(), "no place"), row("c", None), row("d", jpeg())]
    write_parquet(tmp_path / "c/train.parquet", rows)
    good, bad = split(onevision.read(tmp_path))
    assert [record.meta["row_id"] for record in good] == ["d"]
    assert "no picture" in bad[0].reason and "0 placeholders" in bad[1].reason and "0 pictures" in bad[2].reason


def test_pieces_are_row_groups_with_numbers_that_go_on(tmp_path: Path) -> None:
    from vargpt_lightning.data.sources.parquet_rows import parquet_parts

    file = build(tmp_path) / "sharegpt4v(coco)/train-00000-of-00002.parquet"
    options = {"config": "sharegpt4v(coco)", "add_placeholder": False}
    parts = parquet_parts("onevision", file, options, ["conversations"], rows=2)
    assert [(part.start, part.stop, part.first) for part in parts] == [(0, 1, 0), (1, 2, 2), (2, 3, 4)]
    assert [row for part in parts for row in onevision.read_part(part)] == list(onevision.read(file))


@pytest.mark.parametrize("cut", [0, 4, -1, -30, 200])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, cut: int) -> None:
    path = write_parquet(tmp_path / "c/train.parquet", [row("a", jpeg())])
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"train\.parquet.*whole parquet"):
        list(onevision.read(tmp_path))


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no parquet file"):
        list(onevision.read(tmp_path))
    write_parquet(tmp_path / "c/train.parquet", [{"text": "a"}])
    with pytest.raises(UserError, match="no column conversations or messages; expected it beside text"):
        list(onevision.read(tmp_path))
