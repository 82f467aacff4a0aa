from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.sources.conftest import jpeg, split, write_file, write_json
from tests.data.sources.test_picture_store import IDS, imagenet_in
from vargpt_lightning.data.sources import vargpt_instruct


def rows() -> list[dict[str, object]]:
    return [
        {
            "messages": [
                {"role": "user", "content": "Can you draw a fish?"},
                {"role": "assistant", "content": "Here it is. <image_gen>"},
            ],
            "images": [f"{name}.JPEG"],
        }
        for name in IDS
    ]


@pytest.mark.parametrize("kind", ["folders", "nested tar", "parquet"])
def test_pictures_are_matched_by_their_imagenet_ids(tmp_path: Path, kind: str) -> None:
    path = write_json(tmp_path / "ImageNet-Instruct-130k.json", rows())
    good, bad = split(vargpt_instruct.read(path, pictures=imagenet_in(kind, tmp_path / "imagenet")))
    assert not bad
    assert [[part.data for part in record.pictures("drawn")] for record in good] == [[jpeg(n)] for n in range(3)]
    assert [record.pictures()[0].key for record in good] == [f"imagenet/{name}" for name in IDS]
    assert all(record.meta["kind"] == "generation" for record in good)
    assert good[0].turns[1].text == "Here it is."


def test_a_picture_that_is_not_there_is_refused_and_other_names_count_as_paths(tmp_path: Path) -> None:
    some = rows()
    some[0]["images"] = ["n09999999_1.JPEG"]
    some[1]["images"] = ["mine/a.jpg"]
    some[2]["images"] = []
    write_file(tmp_path / "mine/a.jpg", jpeg(5))
    path = write_json(tmp_path / "a.json", some)
    good, bad = split(vargpt_instruct.read(path))
    assert [record.pictures()[0].key for record in good] == ["a/mine/a.jpg"]
    assert "n09999999_1" in bad[0].reason and "1 placeholder" in bad[1].reason
