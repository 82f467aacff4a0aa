"""The report: every page whole in itself, everything escaped, examples with their pictures, drawings best and worst."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.evaluation.reports.test_report import Page
from tests.evaluation.results_made import png, scored, write_result
from vargpt_lightning.evaluation.reports.benchmark_drawings import figures_of
from vargpt_lightning.evaluation.reports.benchmark_examples import choose_examples, said, visible
from vargpt_lightning.evaluation.reports.benchmarks import build_benchmark_report
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import write_json, write_jsonl


class Whole(Page):
    VOID = (*Page.VOID, "input")


EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


@pytest.fixture
def pope(tmp_path):
    """POPE's data of 40 questions with a broken picture among them, and scores of all of them."""
    data = tmp_path / "data"
    data.mkdir()
    rows, scores = [], []
    for n in range(40):
        picture = {"bytes": b"broken" if n == 3 else png((n * 6, 0, 0)), "path": None}
        rows.append({"id": str(n), "question_id": str(n), "question": f"Is {n} there?", "answer": "yes"})
        rows[-1] |= {"image_source": f"s{n}", "category": "random", "image": picture}
        status = "unparsed" if n % 10 == 3 else "ok"
        output = EVIL if status == "unparsed" else "yes" if n % 2 else "no"
        scores.append(scored(f"random/{n}", float(n % 2 and status == "ok"), output, status))
    pq.write_table(pa.Table.from_pylist(rows), data / "test-00000-of-00001.parquet", row_group_size=7)
    out = tmp_path / "out"
    write_result(out, "pope", 0.5, rows=scores, model=f"m {EVIL}", figures={"unparsed": 60, "accuracy/random": 0.5})
    return out, data


def read(folder, name):
    return (folder / name).read_text(encoding="utf-8")


def entries(text):
    return re.findall(r'<article class="entry (\w+) s-(\w+)">(.*?)</article>', text, re.S)


def test_the_pages_hold_all_they_show(pope, tmp_path):
    out, data = pope
    write_result(out, "gqa", 0.6)
    write_result(out, "mme", 1400.0)
    index = build_benchmark_report([out], tmp_path / "report", {"pope": data})
    assert index == tmp_path / "report" / "index.html"
    there = {path.name for path in index.parent.iterdir()}
    assert there == {
        "index.html",
        "pope.html",
        "gqa.html",
        "mme.html",
        "tables.md",
        "tables.tex",
        "tables.html",
        "radar.png",
    }
    for name in there:
        if name.endswith(".html"):
            page = Whole(read(index.parent, name))
            assert all(load.startswith("data:image/") for load in page.loads) and not page.open, name
            assert len(set(page.ids)) == len(page.ids), name
            assert "script" not in page.tags and "link" not in page.tags
            links = re.findall(r'href="([^"#]+)', read(index.parent, name))
            assert all((index.parent / link).is_file() for link in links), name
    assert EVIL not in read(index.parent, "index.html") + read(index.parent, "tables.md")


def test_examples_show_picture_question_output_and_key(pope, tmp_path):
    out, data = pope
    build_benchmark_report([out], tmp_path / "report", {"pope": data}, examples=40)
    text = read(tmp_path / "report", "pope.html")
    found = {re.search(r"random/(\d+)", body)[1]: (verdict, status, body) for verdict, status, body in entries(text)}
    assert len([1 for verdict, status, _ in found.values() if (verdict, status) == ("right", "ok")]) == 16
    verdict, status, body = found["5"]
    assert (verdict, status) == ("right", "ok") and "Question random/5?" in body
    picture = Image.open(io.BytesIO(base64.b64decode(re.search(r"base64,([^\"]+)", body)[1])))
    assert abs(picture.getpixel((0, 0))[0] - 30) < 6  # the picture of this very question
    assert found["3"][:2] == ("wrong", "unparsed") and "does not decode" in found["3"][2]
    assert "&lt;script&gt;" in found["3"][2] and "<img src=x" not in text
    assert found["4"][0] == "wrong" and "✗ wrong" in found["4"][2]


def test_examples_can_be_filtered_without_scripts(pope, tmp_path):
    build_benchmark_report([pope[0]], tmp_path / "report")
    text = read(tmp_path / "report", "pope.html")
    for kind, shown in (("right", "right"), ("wrong", "wrong"), ("ok", "s-ok"), ("unparsed", "s-unparsed")):
        assert f'type="checkbox" id="show-{kind}" checked' in text
        assert f"#show-{kind}:not(:checked) ~ section .{shown}" in text
    assert 'id="show-part"' not in text


def test_without_data_the_page_says_so(pope, tmp_path):
    out, _ = pope
    build_benchmark_report([out], tmp_path / "report")
    assert "made without this benchmark" in read(tmp_path / "report", "pope.html")
    (tmp_path / "empty").mkdir()
    build_benchmark_report([out], tmp_path / "report", {"pope": tmp_path / "empty"})
    assert "Without pictures: " in read(tmp_path / "report", "pope.html")


def test_questions_that_could_not_be_asked_are_told_with_their_reasons(pope, tmp_path):
    out, _ = pope
    write_result(out, "gqa", 0.6, skipped=1200, skipped_because=["question '7': too long", EVIL])
    build_benchmark_report([out], tmp_path / "report")
    text = read(tmp_path / "report", "gqa.html")
    assert "1,200 questions could not be asked" in text and "<li>question &#39;7&#39;: too long</li>" in text
    assert "<script>" not in text and "could not be asked" not in read(tmp_path / "report", "pope.html")


def test_a_question_without_a_picture_takes_none_from_the_others(tmp_path):
    picture = {"bytes": png(), "path": None}
    rows = [{"question_id": n, "question": "?", "image_id": n, "answers": ["a"] * 10} for n in range(3)]
    rows = [row | {"image": None if row["question_id"] == 1 else picture} for row in rows]
    (tmp_path / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data/validation-00000-of-00001.parquet")
    write_result(tmp_path / "out", "textvqa", 0.5, rows=[scored(str(n), 1.0) for n in range(3)])
    build_benchmark_report([tmp_path / "out"], tmp_path / "report", {"textvqa": tmp_path / "data"})
    text = read(tmp_path / "report", "textvqa.html")
    assert text.count('<img src="data:') == 2 and text.count("has no picture") == 1


def test_many_unread_outputs_are_said_first(pope, tmp_path):
    text = read(build_benchmark_report([pope[0]], tmp_path / "report").parent, "index.html")
    assert "no answer was found in 15 %" in text


def test_only_chosen_pictures_are_decoded(pope, tmp_path, monkeypatch):
    from vargpt_lightning.evaluation.formats.layouts import Picture

    opened, before = [], Picture.open
    monkeypatch.setattr(Picture, "open", lambda self: opened.append(1) or before(self))
    build_benchmark_report([pope[0]], tmp_path / "report", {"pope": pope[1]}, examples=2)
    assert len(opened) == 2 + 2 + 4


def test_choice_is_by_hash_and_the_same_each_time():
    rows = [scored(str(n), float(n % 2)) for n in range(200)]
    chosen = [example.id for example in choose_examples(rows, 5)]
    assert len(chosen) == 10 and chosen == [example.id for example in choose_examples(rows[::-1], 5)]
    assert chosen != sorted(chosen, key=int)
    assert {e.verdict for e in choose_examples([scored("1", 0.3), scored("2", 0.9)])} == {"part"}


def test_long_and_strange_texts_are_shown_and_cut():
    assert visible("a\0b\x1b\ud800\u202e") == "a␀b␛\ufffd\ufffd"
    text = visible("x" * 100_000)
    assert len(text) < 1300 and "98,800 more characters" in text
    assert said([{"answer": "net", "answer_id": n} for n in range(7)] + [{"answer": "bag"}]) == "net × 7, bag"
    assert (said(None), said(0), said(["a"]), said("")) == ("–", "0", "a", "(empty)")


@pytest.fixture
def drawn(tmp_path):
    out = tmp_path / "drawn"
    (out / "p").mkdir(parents=True)
    rows = []
    for n in range(30):
        (out / "p" / f"{n}.png").write_bytes(png((n * 8, 0, 0)))
        (out / "p" / f"r{n}.png").write_bytes(png((0, n * 8, 0)))
        rows.append({"id": str(n), "instruction": f"Draw {EVIL} {n}", "caption": f"thing {n}.", "clip": float(n)})
        rows[-1] |= {"drawing": f"p/{n}.png", "reference": f"p/r{n}.png"}
    (out / "p" / "r29.png").unlink()
    write_jsonl(out / "samples.jsonl", [*rows, {"id": "x", "drawing": "p/0.png", "reference": None, "clip": None}])
    metrics = {"fid": 23.456, "kid": 0.0123, "kid_std": 0.0004, "clip": 27.31, "clip_error": 0.12, "clip_n": 30}
    settings = {"variant": "clean", "clip": {"library": "open_clip", "model": "ViT-L-14", "text": "caption"}}
    marks = ["few_samples: fid of 30 drawn pictures with 2048 features"]
    write_json(out / "images.json", {"metrics": metrics, "settings": settings, "n": 30, "marks": marks})
    return out


def test_drawings_stand_beside_their_references_best_and_worst(drawn, tmp_path):
    build_benchmark_report([drawn], tmp_path / "report")
    text = read(tmp_path / "report", "drawings.html")
    best, worst, _ = re.split(
        r"<h3>(?:Best|Worst|Settled) by[^<]*</h3>", text.replace("Settled by a hash", "Settled by")
    )[1:]
    assert re.findall(r"</b> thing (\d+)\.", best) == [str(n) for n in range(29, 17, -1)]
    assert re.findall(r"</b> thing (\d+)\.", worst) == [str(n) for n in range(12)]
    assert best.count("no reference") == 1 and worst.count("<img") == 24
    pair = re.findall(r"base64,([^\"]+)", worst.split("</figure>")[10])
    colours = [Image.open(io.BytesIO(base64.b64decode(each))).getpixel((0, 0)) for each in pair]
    assert abs(colours[0][0] - 80) < 8 and colours[0][1] < 8 and abs(colours[1][1] - 80) < 8 and colours[1][0] < 8
    assert "<img src=x" not in text and not Whole(text).open


def test_figures_of_drawings_are_in_every_table_with_their_marks(drawn, tmp_path):
    build_benchmark_report([drawn], tmp_path / "report")
    for name in ("tables.md", "tables.tex", "tables.html", "index.html", "drawings.html"):
        text = read(tmp_path / "report", name).replace("\\_", "_")
        assert "23.46" in text and "fid of 30 drawn pictures" in text and "Inception clean" in text, name
        assert "27.4" in text and "14.77" in text, name
    assert re.search(r"23\.46 <sup>F</sup>", read(tmp_path / "report", "tables.md"))


def test_drawings_that_were_measured_otherwise_are_in_tables_of_their_own(drawn, tmp_path):
    other = tmp_path / "other"
    for name, variant in (("other", "adm"), ("same", "clean")):
        write_json(
            tmp_path / name / "images.json", {"metrics": {"fid": 9.5}, "settings": {"variant": variant}, "n": 5000}
        )
    build_benchmark_report([drawn, other, tmp_path / "same"], tmp_path / "report")
    text = read(tmp_path / "report", "tables.md")
    measured = [part for part in text.split("### ") if part.startswith("Drawings, Inception")]
    assert len(measured) == 3 and sum("**other**" in part for part in measured) == 1


def test_spreads_go_with_their_figures():
    cells = dict(
        figures_of({"isc": 8.0, "isc_std": 0.5, "precision": 0.6, "precision_vgg16": 0.7, "clip": 27.0, "clip_n": 9})
    )
    assert list(cells) == ["Inception Score", "precision", "precision vgg16", "CLIP score"]
    assert cells["Inception Score"].interval == "± 0.5" and cells["CLIP score"].note == "n 9"


def test_nothing_to_report_is_said(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"nothing to report in .*empty"):
        build_benchmark_report([tmp_path / "empty"], tmp_path / "report")
    write_json(tmp_path / "empty" / "images.json", [])
    with pytest.raises(UserError, match=r"images\.json"):
        build_benchmark_report([tmp_path / "empty"], tmp_path / "report")


def test_the_report_may_lie_in_the_folder_it_is_about(pope):
    out, data = pope
    for _ in range(2):
        assert build_benchmark_report([out], out, {"pope": data}).is_file()
    assert (out / "pope" / "result.lmms_eval.json").is_file() and not list(out.glob(".*.tmp"))


def test_no_torch_is_imported():
    code = "import sys, vargpt_lightning.evaluation.reports.benchmarks; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
