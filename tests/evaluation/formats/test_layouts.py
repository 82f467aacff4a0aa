"""Layouts: rows that are walked again and again with flat memory, pictures read late, and every mistake named."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError
from PIL import Image

from vargpt_lightning.evaluation.benchmarks import names
from vargpt_lightning.evaluation.formats import hub
from vargpt_lightning.evaluation.formats.layouts import (
    HubSource,
    Picture,
    PictureTable,
    find_parquet,
    image_in,
    read_json,
    read_jsonl,
    read_parquet,
    read_tsv,
    records,
    require,
    resolve,
)
from vargpt_lightning.evaluation.formats.layouts_parquet import plain_values
from vargpt_lightning.utils.errors import UserError


def encoded(colour="red", form="PNG", size=(4, 2), mode="RGB", **options) -> bytes:
    content = io.BytesIO()
    Image.new(mode, size, colour).save(content, form, **options)
    return content.getvalue()


def table(count: int, picture=None) -> pa.Table:
    picture = picture or (lambda n: {"bytes": encoded((n % 256, 0, 0)), "path": f"{n}.png"})
    return pa.Table.from_pylist([{"id": n, "question": f"q{n}", "image": picture(n)} for n in range(count)])


@pytest.fixture
def two_files(tmp_path) -> list[Path]:
    """23 rows in two files, of 5 and of 4 rows a row group."""
    rows = table(23)
    pq.write_table(rows.slice(0, 12), tmp_path / "test-00000-of-00002.parquet", row_group_size=5)
    pq.write_table(rows.slice(12), tmp_path / "test-00001-of-00002.parquet", row_group_size=4)
    return find_parquet(tmp_path, split="test")


# --- pictures


def test_a_picture_is_rgb_and_upright():
    turned = Image.Exif()
    turned[0x0112] = 6
    picture = Picture(data=encoded(form="JPEG", size=(4, 2), exif=turned)).open()
    assert (picture.mode, picture.size) == ("RGB", (2, 4))
    assert Picture(data=encoded("white", mode="L")).open().getpixel((0, 0)) == (255, 255, 255)


def test_transparency_is_dropped_as_the_references_do():
    assert Picture(data=encoded((10, 20, 30, 0), mode="RGBA")).open().getpixel((0, 0)) == (10, 20, 30)


@pytest.mark.parametrize("content", [b"", b"no picture", encoded()[:50], encoded(form="JPEG", size=(64, 64))[:-300]])
def test_a_picture_that_does_not_decode_is_named(content):
    with pytest.raises(UserError, match="row 7 image"):
        Picture(data=content, name="row 7 image").open()


def test_a_picture_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.png"):
        image_in(tmp_path, "gone.png").open()
    with pytest.raises(UserError, match="lost"):
        Picture(name="lost").open()


def test_base64_is_decoded_late_and_strictly():
    text = base64.b64encode(encoded("blue")).decode()
    for form in (text, f"data:image/png;base64,{text}", "\n".join((text[:20], text[20:]))):
        assert Picture.from_base64(form).open().getpixel((0, 0)) == (0, 0, 255)
    broken = Picture.from_base64(text[:20] + "!" + text[20:], "index 3")
    with pytest.raises(UserError, match=r"index 3.*base64"):
        broken.open()


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../secret.png", "", "link/secret.png", "a\0b"])
def test_a_picture_name_cannot_leave_its_folder(tmp_path, name):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(encoded())
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(UserError, match="inside"):
        image_in(folder, name)


def test_a_picture_may_lie_deeper_in_its_folder(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(encoded("lime"))
    assert image_in(tmp_path, "a/x.png").open().getpixel((0, 0)) == (0, 255, 0)


# --- parquet


def test_rows_are_the_same_each_time_they_are_walked(two_files):
    rows = read_parquet(two_files)
    for _ in range(2):
        assert [row["id"] for row in rows] == list(range(23))
    assert [row["image"].open().getpixel((0, 0))[0] for row in rows] == list(range(23))
    assert len(rows) == 23 and rows.columns == ("id", "question", "image") and "00001-of-00002" in rows.source


def test_rows_can_be_taken_by_their_places(two_files):
    rows = read_parquet(two_files)
    assert [rows[place]["id"] for place in (0, 4, 5, 11, 12, 22, -1)] == [0, 4, 5, 11, 12, 22, 22]
    assert [row["id"] for row in rows[3:20:4]] == [3, 7, 11, 15, 19]
    odd = rows.where(lambda row: row["id"] % 2 == 1)
    assert [row["id"] for row in odd.take([0, 5, 10])] == [1, 11, 21] and len(odd) == 11
    shouting = odd.map(lambda row: {**row, "question": row["question"].upper()})
    assert shouting[1]["question"] == "Q3" and [row["question"] for row in shouting[-2:]] == ["Q19", "Q21"]
    with pytest.raises(IndexError):
        rows[23]


def test_every_choice_of_places_gives_these_rows(two_files):
    rows = read_parquet(two_files)
    for start in range(23):
        for step in (1, 2, 3, 7):
            assert [row["id"] for row in rows[start::step]] == list(range(start, 23, step))


def test_pictures_that_are_not_wanted_are_not_read(tmp_path):
    path = tmp_path / "test.parquet"
    pq.write_table(table(50), path, compression="NONE")
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(2)
    assert chunk.path_in_schema == "image.bytes"
    content = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(content)
    assert [row["id"] for row in read_parquet(path, pictures=False)] == list(range(50))
    assert list(read_parquet(path).without_pictures()[7]) == ["id", "question"]
    with pytest.raises(UserError, match=r"test\.parquet"):
        list(read_parquet(path))


def test_memory_is_flat_even_in_one_row_group(tmp_path):
    path = tmp_path / "test.parquet"
    rows = pa.table({"image": pa.array([bytes([n % 250]) * 20_000 for n in range(1500)])})
    pq.write_table(rows, path, use_dictionary=False, compression="NONE", write_batch_size=32)
    del rows
    size, before, peak = path.stat().st_size, pa.total_allocated_bytes(), 0
    for _ in read_parquet(path):
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert size > 29_000_000 and peak < 8_000_000


def test_lists_of_pictures_and_plain_bytes_and_names(tmp_path):
    (tmp_path / "x.png").write_bytes(encoded("blue"))
    one = {"bytes": encoded("red"), "path": None}
    named = {"bytes": None, "path": "x.png"}
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    row = {"frames": [one, named], "raw": encoded("lime"), "none": None, "image": named}
    path = tmp_path / "test.parquet"
    kinds = {"frames": pa.list_(struct), "raw": pa.binary(), "none": pa.binary(), "image": struct}
    pq.write_table(pa.Table.from_pylist([row], pa.schema(list(kinds.items()))), path)
    found = read_parquet(path, picture_columns=("frames", "raw", "none", "image"))[0]
    assert [picture.open().getpixel((0, 0)) for picture in found["frames"]] == [(255, 0, 0), (0, 0, 255)]
    assert found["raw"].open().getpixel((0, 0)) == (0, 255, 0)
    assert found["none"] is None and found["image"].open().size == (4, 2)
    assert "row 0 frames[0]" in str(found["frames"][0])


def test_values_are_those_of_pyarrow():
    values = [
        [{"answer": "a", "id": 1, "deep": {"x": [1, None]}}] * 2, [], None,
        [{"answer": None, "id": 2, "deep": None}], [{"answer": "c", "id": None, "deep": {"x": None}}],
    ]  # fmt: skip
    for array in (pa.array(values), pa.array(values).slice(1), pa.array(values[:2] * 3).slice(2, 3), pa.array([1.5])):
        assert plain_values(array) == array.to_pylist()
    full = pa.array([[{"a": n, "b": [str(n)] * n}] * n for n in range(6)])
    assert plain_values(full.slice(2, 3)) == full.slice(2, 3).to_pylist()


def test_missing_columns_are_named_with_those_there(two_files):
    with pytest.raises(UserError, match=r"answer.*missing; there are id, question, image"):
        read_parquet(two_files, required=("question", "answer"))
    with pytest.raises(UserError, match="label"):
        require({"text": ""}, ("label",), "x.json")


@pytest.mark.parametrize("spoil", ["text", "cut", "empty"])
def test_a_broken_parquet_file_is_named(two_files, spoil):
    content = two_files[1].read_bytes()
    two_files[1].write_bytes({"text": b"version https://git-lfs", "cut": content[:-50], "empty": b""}[spoil])
    with pytest.raises(UserError, match=r"00001-of-00002.*parquet"):
        read_parquet(two_files)


def test_a_missing_part_is_not_passed_over(two_files):
    two_files[0].unlink()
    with pytest.raises(UserError, match="1 of the 2 files"):
        find_parquet(two_files[0].parent, split="test")


@pytest.mark.parametrize(
    "file, config, split",
    [
        ("en/dev-00000-of-00001.parquet", "en", "dev"),
        ("data/validation-00000-of-00001-0a1b2c.parquet", None, "validation"),
        ("data/test-00000-of-00001.parquet", None, "test"),
        ("Full/adversarial/0000.parquet", "Full", "adversarial"),
        ("testdev_balanced_images/testdev-00000-of-00001.parquet", "testdev_balanced_images", "testdev"),
        ("questions.parquet", None, "test"),
        ("test.parquet", "en", "test"),
    ],
)
def test_mirror_folders_are_recognised(tmp_path, file, config, split):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table(1), tmp_path / file)
    other = (tmp_path / file).with_name("train-00000-of-00001.parquet")
    assert find_parquet(tmp_path, config, split) == [tmp_path / file]
    assert find_parquet(tmp_path / file) == [tmp_path / file]
    if split in Path(file).name:
        pq.write_table(table(1), other)
        assert find_parquet(tmp_path, config, split) == [tmp_path / file]
        (tmp_path / file).unlink()
        assert find_parquet(tmp_path, config, split) == []


def test_a_table_of_pictures_is_looked_up_by_key(two_files):
    pictures = PictureTable(read_parquet(two_files))
    assert len(pictures) == 23 and pictures["17"].open().getpixel((0, 0)) == (17, 0, 0)
    assert "23" not in pictures
    with pytest.raises(UserError, match="twice"):
        PictureTable(read_parquet([two_files[0], two_files[0]]))


# --- TSV, JSON, JSON lines


def tsv(path: Path, *rows: tuple[str, ...]) -> Path:
    path.write_text("\n".join("\t".join(row) for row in [("index", "question", "image"), *rows]), encoding="utf-8")
    return path


def test_tsv_follows_pictures_to_other_rows(tmp_path):
    red, long = base64.b64encode(encoded("red")).decode(), base64.b64encode(encoded(size=(400, 400)) * 300).decode()
    path = tsv(
        tmp_path / "m.tsv", ("1", '"a\nb\tc ""d"" é"', red), ("1000001", "é", "1"), ("2", "x", long), ("3", "", "")
    )
    rows = read_tsv(path, ("image",))
    assert len(long) > 200_000 and [row["index"] for row in rows] == ["1", "1000001", "2", "3"]
    assert rows[0]["question"] == 'a\nb\tc "d" é'
    assert rows[1]["image"].open().getpixel((0, 0)) == (255, 0, 0) and rows[3]["image"] is None
    assert [row["question"] for row in rows[1:3]] == ["é", "x"] and len(rows[2]["image"].bytes()) > 150_000
    assert "image" not in read_tsv(path, ("image",), pictures=False)[0]


def test_tsv_picture_references_that_lead_nowhere(tmp_path):
    with pytest.raises(UserError, match="index 5 refers to index 9"):
        read_tsv(tsv(tmp_path / "m.tsv", ("5", "q", "9")), ("image",))
    circle = read_tsv(tsv(tmp_path / "c.tsv", ("5", "q", "6"), ("6", "q", "5")), ("image",))
    with pytest.raises(UserError, match="holds no picture"):
        circle[0]["image"].open()


def test_tsv_mistakes(tmp_path):
    with pytest.raises(UserError, match=r"row 2: 2 fields.*3"):
        read_tsv(tsv(tmp_path / "m.tsv", ("1", "q", ""), ("2", "q")))
    with pytest.raises(UserError, match="answer missing"):
        read_tsv(tsv(tmp_path / "m.tsv", ("1", "q", "")), required=("answer",))
    (tmp_path / "l.tsv").write_bytes("index\tquestion\n1\tcafé\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"l\.tsv: byte 20 .*UTF-8"):
        read_tsv(tmp_path / "l.tsv")
    (tmp_path / "e.tsv").write_bytes(b"")
    for name in ("e.tsv", "gone.tsv"):
        with pytest.raises(UserError, match=name):
            read_tsv(tmp_path / name)


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    (tmp_path / "b.tsv").write_bytes("\ufeffindex\tq\r\n1\tx\r\n".encode())
    assert list(read_tsv(tmp_path / "b.tsv")) == [{"index": "1", "q": "x"}]
    (tmp_path / "b.json").write_bytes('\ufeff{"a": 1}'.encode())
    assert read_json(tmp_path / "b.json") == {"a": 1}
    (tmp_path / "b.jsonl").write_bytes('\ufeff{"a": 1}\n'.encode())
    assert list(read_jsonl(tmp_path / "b.jsonl")) == [{"a": 1}]


def test_json_lines_are_walked_and_taken(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("\n".join(json.dumps({"n": n, "t": "é" * n}, ensure_ascii=False) + "\n" for n in range(7)))
    rows = read_jsonl(path, required=("n",))
    assert [row["n"] for row in rows] == list(range(7)) and len(rows) == 7
    assert rows[5] == {"n": 5, "t": "é" * 5} and [row["n"] for row in rows[::3]] == [0, 3, 6]


@pytest.mark.parametrize(
    "line, message", [("{", "line 2 is not JSON"), ("[1]", "line 2: got list"), ("{}", "n missing")]
)
def test_a_bad_line_is_named(tmp_path, line, message):
    (tmp_path / "a.jsonl").write_text(f'{{"n": 1}}\n{line}\n')
    with pytest.raises(UserError, match=message):
        read_jsonl(tmp_path / "a.jsonl", required=("n",))


@pytest.mark.parametrize("content", [b"{", b'{"a": "\xe9"}', b"[" * 100_000])
def test_bad_json_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json"):
        read_json(tmp_path / "a.json")


def test_rows_over_anything(tmp_path):
    made = [{"id": n, "image": image_in(tmp_path, f"{n}.png")} for n in range(4)]
    rows = records(lambda: made, source="made")
    rows[2]["id"] = "changed"
    assert [row["id"] for row in rows] == [0, 1, 2, 3] and len(rows) == 4 and rows.source == "made"
    assert [row["id"] for row in rows[1:3]] == [1, 2] and list(rows.without_pictures()[0]) == ["id"]


# --- the hub


class Hub:
    """Stands for the hub: refuses or gives, and remembers what tokens it saw."""

    def __init__(self, folder: Path, answers: list) -> None:
        self.folder, self.answers, self.calls = folder, answers, []

    def __call__(self, repo_id, **options):
        self.calls.append((repo_id, options["token"]))
        self.patterns = options["allow_patterns"]
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(self.folder)


def refusal(status: int) -> HfHubHTTPError:
    response = httpx.Response(status, request=httpx.Request("GET", "https://hub.invalid"))
    return (GatedRepoError if status == 403 else HfHubHTTPError)(f"{status} refused\nmore", response=response)


@pytest.fixture
def at_hub(tmp_path, monkeypatch, two_files):
    def make(*answers, token="stored"):
        found = Hub(two_files[0].parent, [*answers, None])
        monkeypatch.setattr("huggingface_hub.snapshot_download", found)
        monkeypatch.setattr("huggingface_hub.get_token", lambda: token)
        return found

    return make


def test_no_token_is_sent_unless_the_hub_refuses(at_hub, tmp_path):
    there = at_hub()
    assert HubSource("POPE", split="test").fetch() == tmp_path and there.calls == [("lmms-lab/POPE", False)]
    assert all(pattern.endswith(".parquet") and "test" in pattern for pattern in there.patterns)
    assert HubSource("MMBench", "en", "dev").patterns()[0] == "en/dev-*.parquet"
    for status in (401, 403):
        there = at_hub(refusal(status))
        HubSource("POPE").fetch(owner="someone")
        assert there.calls == [("someone/POPE", False), ("someone/POPE", True)]


@pytest.mark.parametrize(
    "answers, token, message",
    [
        ([refusal(401)], None, "hf auth login"),
        ([refusal(403), refusal(403)], "stored", "refuses the token"),
        ([refusal(500)], "stored", "answered 500"),
        ([LocalEntryNotFoundError("no network")], "stored", "name a local directory"),
    ],
)
def test_what_the_hub_says_becomes_one_message(at_hub, answers, token, message):
    there = at_hub(*answers, token=token)
    with pytest.raises(UserError, match=message) as caught:
        HubSource("POPE").fetch()
    assert "\n" not in str(caught.value) and len(there.calls) == len(answers)


def test_a_local_directory_goes_before_the_hub(at_hub, tmp_path, monkeypatch):
    there, source = at_hub(), HubSource("POPE", split="test")
    (tmp_path / "root" / "pope").mkdir(parents=True)
    (tmp_path / "root" / "someone").mkdir()
    monkeypatch.chdir(tmp_path / "root")
    assert resolve(tmp_path, source) == tmp_path
    assert resolve(tmp_path / "root", source, name="pope") == tmp_path / "root" / "pope"
    (tmp_path / "root" / "someone" / "POPE").mkdir()
    assert resolve("someone/POPE", source) == Path("someone/POPE") and not there.calls
    resolve("other/Own-POPE", source)
    there.answers.append(None)
    resolve(None, source, owner="mirror")
    assert [call[0] for call in there.calls] == ["other/Own-POPE", "mirror/POPE"]
    with pytest.raises(UserError, match="no such directory"):
        resolve("/nowhere/at/all", source)


def test_nothing_heavy_is_imported_and_layouts_are_no_benchmarks():
    heavy = "{'torch', 'pyarrow', 'pandas', 'huggingface_hub'}"
    code = f"import sys, vargpt_lightning.evaluation.formats.layouts; print({heavy} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
    assert (
        not {name for name in names() if name.startswith("layouts")} and hub.__name__.rpartition(".")[2] not in names()
    )
