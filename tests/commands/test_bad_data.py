"""Data as it comes from strangers, all the way: packed, checked, shown and trained on, or refused and counted."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.data import nasty_pictures as nasty
from tests.tiny import TREE, tiny_tree, write_experiment
from vargpt_lightning.cli import main
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.data.text.chat import ChatTemplate
from vargpt_lightning.data.text.text_tokenizer import SPECIAL_TOKENS, TextTokenizer

INJECTION = " ".join(SPECIAL_TOKENS)
GOOD = {
    "pixel.png": nasty.one_pixel(),
    "line.png": nasty.a_line(9000),
    "ink.jpg": nasty.cmyk(),
    "deep.png": nasty.sixteen_bits(),
    "deep-clear.png": nasty.sixteen_bits_clear(),
    "moving.gif": nasty.animated(),
    "moving.webp": nasty.animated("WEBP"),
    "palette.png": nasty.palette_with_transparency(),
    "turned.jpg": nasty.turned(),
}
BAD = {
    "bomb.png": nasty.bomb(),
    "text-bomb.png": nasty.text_bomb(),
    "program.png": nasty.postscript(),
    "cut.png": nasty.cmyk()[:60],
    "empty.png": b"",
}


def photos(folder: Path, **captions: str) -> Path:
    """Every nasty picture with a caption."""
    folder.mkdir(parents=True)
    for name, data in (GOOD | BAD).items():
        (folder / name).write_bytes(data)
        # one stem, one sample
        (folder / name).with_suffix(".txt").write_text(captions.get(Path(name).stem, f"A picture called {name}."))
    return folder


def packed(*words: str | Path) -> dict[str, Any]:
    *sources, out = map(str, words)
    assert main(["data", "pack", *sources, "--out", out, "--max-rejected", "0.9"]) == 0
    assert main(["data", "check", out]) == 0
    return dict(json.loads((Path(out) / "index.json").read_text()))


def reasons(out: Path) -> dict[str, str]:
    lines = (out / "rejected.jsonl").read_text().splitlines()
    return {row["id"]: row["reason"] for row in map(json.loads, lines)}


def write_rows(file: Path, rows: list[tuple[str, str]]) -> Path:
    """Questions and answers, as sharegpt has them."""
    said = [[{"from": "human", "value": one}, {"from": "gpt", "value": two}] for one, two in rows]
    file.write_text(json.dumps([{"id": str(number), "conversations": turns} for number, turns in enumerate(said)]))
    return file


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    tokens = TextTokenizer.train(["USER: Draw a picture called ink. ASSISTANT: Here it is.", "Which colour? Red."], 300)
    return tokens.save(tmp_path / "tokenizer").parent


def test_pictures_of_every_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = packed(f"captions:{photos(tmp_path / 'photos')}", tmp_path / "out")
    said = capsys.readouterr().out
    # moving.gif and moving.webp share their caption: one sample, the first ending counts
    assert index["count"] == len(GOOD) - 1 and index["rejected"] == len(BAD)
    assert index["reasons"] == {
        "a picture that is broken": 3,
        "a picture of too many pixels": 1,
        "a picture without bytes": 1,
    }
    assert "1 rejected for a picture of too many pixels" in said
    kept = {part.data for record in ShardDataset(tmp_path / "out") for part in record.pictures()}
    assert kept < set(GOOD.values())
    assert "20000 x 20000 pixels" in reasons(tmp_path / "out")["bomb-photos-0"]


def test_the_limit_of_pixels_is_a_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = f"captions:{photos(tmp_path / 'photos')}"
    words = ["data", "pack", source, "--out", str(tmp_path / "out"), "--max-rejected", "1"]
    assert main([*words, "--max-pixels", "255"]) == 0
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert index["count"] == 1 and index["reasons"]["a picture of too many pixels"] == 1 + len(GOOD) - 2
    assert index["manifest"]["settings"]["max_pixels"] == 255
    assert main([*words, "--max-pixels", "0"]) == 2 and "--max-pixels: '0'" in capsys.readouterr().err


def test_resized_they_are_upright_and_on_white(tmp_path: Path) -> None:
    from vargpt_lightning.data.images.picture_files import decode_picture

    words = [f"captions:{photos(tmp_path / 'photos')}", "--out", str(tmp_path / "out")]
    assert main(["data", "pack", *words, "--max-rejected", "0.9", "--resize", "8"]) == 0
    found = {record.meta["caption"]: record.pictures()[0].data for record in ShardDataset(tmp_path / "out")}
    turned = decode_picture(found["A picture called turned.jpg."])
    assert turned.size == (8, 16) and turned.getpixel((1, 8))[0] > 200
    assert min(decode_picture(found["A picture called palette.png."]).getpixel((6, 4))) > 250
    deep = decode_picture(found["A picture called deep.png."])
    assert deep.getpixel((6, 4))[0] == pytest.approx(191, abs=3)


@pytest.mark.parametrize("text", ["NUL \0 inside", "half \ud83d of a pair"])
def test_text_that_is_none(text: str, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.json", [("Hello", "Good day"), (text, "What?"), ("What?", text)])
    index = packed(f"sharegpt:{file}", tmp_path / "out")
    kind = "a NUL in the text" if "\0" in text else "a text that is not Unicode"
    assert index["count"] == 1 and index["reasons"] == {kind: 2}


def test_special_tokens_in_a_text_stay_text(tmp_path: Path, tokenizer: Path) -> None:
    """In captions, questions, answers: neither packing nor the template makes pictures or ends of them."""
    folder = photos(tmp_path / "photos", ink=f"{INJECTION} ink")
    # as the formats have it, these two marks in their assistant's own turn do ask for a picture, and there is none
    words = INJECTION.replace("<image>", "").replace("<image_gen>", "")
    file = write_rows(tmp_path / "rows.json", [(f"{words} <image_gen> a", f"<image> {words} b"), ("<image>", "c")])
    index = packed(f"captions:{folder}", f"sharegpt:{file}", tmp_path / "out")
    assert index["reasons"]["placeholders unlike the pictures"] == 1
    template = ChatTemplate(TextTokenizer.load(tokenizer), 4, 5)
    tokens = template.tokenizer
    (caption,) = [record for record in ShardDataset(tmp_path / "out") if record.meta.get("caption", "").endswith("ink")]
    (asked,) = [record for record in ShardDataset(tmp_path / "out") if record.source == "sharegpt"]
    for record, drawn in ((caption, 1), (asked, 0)):
        ids = template.render(record).ids
        counts = [
            ids.count(index) for index in (tokens.image_gen_start_id, tokens.image_gen_id, tokens.image_gen_end_id)
        ]
        assert counts == [drawn, 5 * drawn, drawn] and ids.count(tokens.image_id) == 0 == ids.count(tokens.pad_id)
        assert (ids.count(tokens.bos_id), ids.count(tokens.eos_id)) == (1, 1)
        assert all(token in tokens.decode(ids) for token in SPECIAL_TOKENS)


def write_tar(file: Path, *members: tuple[str, bytes | tuple[bytes, str]]) -> Path:
    """An archive of files, and of links for members given as type and target."""
    with tarfile.open(file, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content
                archive.addfile(info)
    return file


def test_members_that_lead_out_of_the_archive(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    links = [(tarfile.SYMTYPE, str(tmp_path / "secret.txt")), (tarfile.LNKTYPE, "../secret.txt")]
    picture = nasty.one_pixel()
    outside = ["../up", "/abs", "in/../../up", str(tmp_path / "secret")]
    members: list[tuple[str, Any]] = [("good.png", picture), ("good.txt", b"A good one.")]
    for name in outside:
        members += [(f"{name}.png", picture), (f"{name}.txt", b"An evil one.")]
    for number, link in enumerate(links):
        members += [(f"link{number}.png", picture), (f"link{number}.txt", link)]
    members += [("device.png", picture), ("device.txt", (tarfile.CHRTYPE, ""))]
    file = write_tar(tmp_path / "a.tar", *members)
    before = set(tmp_path.rglob("*"))
    index = packed(f"captions:{file}", tmp_path / "out")
    assert index["count"] == 1 and index["rejected"] == len(outside) + 3
    assert index["reasons"] == {"a name that leads out of its folder": len(outside), "no caption, or an empty one": 3}
    written = {path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "out")}
    assert written == before
    assert not any(b"secret" in path.read_bytes() for path in (tmp_path / "out").glob("*.tar"))


def test_links_that_lead_out_of_a_folder(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos")
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "ink.txt").unlink()
    os.symlink(tmp_path / "secret.txt", folder / "ink.txt")
    (folder / "pixel.txt").unlink()
    os.symlink(folder / "turned.txt", folder / "pixel.txt")
    os.symlink(folder, tmp_path / "link")
    index = packed(f"captions:{tmp_path / 'link'}", tmp_path / "out")
    assert index["count"] == len(GOOD) - 2 and index["reasons"]["a name that leads out of its folder"] == 1
    assert "secret" not in {record.meta["caption"] for record in ShardDataset(tmp_path / "out")}


@pytest.mark.parametrize("at", [0.5, 0.8])
def test_a_truncated_archive_stops_packing(at: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    members = [(f"{n}.{end}", data) for n in range(9) for end, data in (("png", nasty.one_pixel()), ("txt", b"One."))]
    file = write_tar(tmp_path / "a.tar", *members)
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * at) // 512 * 512 + 100])
    assert main(["data", "pack", f"captions:{file}", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert f"{file}: " in said and "expected an uncompressed tar archive" in said and "Traceback" not in said
    assert not (tmp_path / "out" / "index.json").exists()


def test_a_stage_on_all_of_it(tmp_path: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nasty pictures and texts are trained on; what is too long for the context is cut at a turn, counted and said."""
    long = " ".join(["Which colour?"] * 60)
    rows = [("Red.", "Which colour?"), (INJECTION.replace("<image>", ""), "Red."), ("Which colour?", long)]
    packed(f"captions:{photos(tmp_path / 'photos')},use=both", tmp_path / "drawings")
    packed(f"sharegpt:{write_rows(tmp_path / 'rows.json', rows)}", tmp_path / "texts")
    folders = {"drawings": str(tmp_path / "drawings"), "texts": str(tmp_path / "texts")}
    tree = tiny_tree({"train": folders, "val": {}, "tokenizer": str(tokenizer)}, tmp_path / "runs")
    tree["data"]["init_args"]["cache_features"] = False
    tree["trainer"] |= {"samples": 0}
    stage = {**TREE["stages"][1], "data": {"drawings": 1, "texts": 1}, "decoder_alone": False, "ema": None, "steps": 8}
    tree["stages"] = [stage]
    assert main(["fit", "-c", str(write_experiment(tmp_path / "tiny.yaml", tree))]) == 0
    (stages,) = (tmp_path / "runs" / "tiny" / "stages").glob("*/stage.json")
    record = json.loads(stages.read_text())
    assert record["status"] == "finished" and record["cut"] >= 4
    assert f"{record['cut']} cut to the context" in capsys.readouterr().out
    assert (
        main(["data", "show", folders["texts"], "--for", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "p")])
        == 0
    )
    assert "cut at the context of 96" in (tmp_path / "p").read_text()


Spoil = Callable[[Path], object]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda folder: (folder / "shard-000000.tar").unlink(), "shard-000000.tar: the shard is missing"),
        (lambda folder: os.truncate(folder / "shard-000000.tar", 3000), "3000 bytes, the index expects"),
        (lambda folder: (folder / "offsets.json").write_text("[]"), "offsets.json"),
        (lambda folder: (folder / "index.json").unlink(), "index.json: not found"),
    ],
    ids=["vanished", "truncated", "offsets", "index"],
)
@pytest.mark.parametrize("verb", ["check", "show", "stats"])
def test_a_folder_that_was_damaged(
    spoil: Spoil, told: str, verb: str, tmp_path: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    packed(f"captions:{photos(tmp_path / 'photos')}", out)
    spoil(out)
    tree = tiny_tree({"train": {}, "val": {}, "tokenizer": str(tokenizer)}, tmp_path / "runs")
    tree["stages"] = [{**TREE["stages"][1], "data": {"out": 1}}]
    tree["data"]["init_args"]["train"] = {"out": str(out)}
    experiment = str(write_experiment(tmp_path / "tiny.yaml", tree))
    options = {"check": [], "show": ["--for", experiment, "--out", str(tmp_path / "p")], "stats": []}[verb]
    if verb == "stats":
        options = ["--out", str(tmp_path / "stats")]
    assert main(["data", verb, str(out), *options]) == 2
    captured = capsys.readouterr()
    assert told in captured.out + captured.err and "Traceback" not in captured.err
