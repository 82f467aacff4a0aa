"""The report: everything inside one file, what it says is what the files say, and parts may be missing."""

from __future__ import annotations

import base64
import html
import io
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from tests.evaluation.conftest import Fake
from vargpt_lightning.evaluation.reports.report import ATTRIBUTION, build_report, duration, memory, parameters
from vargpt_lightning.evaluation.reports.report_pictures import by_hash, encode
from vargpt_lightning.evaluation.run.runner import EvaluationSettings, evaluate
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import write_json


class Page(HTMLParser):
    """Collects what a page would load, the sections it has, and whether its tags are balanced."""

    VOID = ("meta", "img", "br", "path", "use", "rect")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        values = dict(attributes)
        if tag != "a":
            self.loads += [values[key] for key in ("src", "href", "srcset", "data", "poster") if values.get(key)]
        if values.get("id"):
            self.ids.append(values["id"])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.fixture
def run(tmp_path):
    return RunFolder.start(
        tmp_path / "run",
        command=["vargpt", "fit", "-c", "x.yaml"],
        config_text="stages:\n- name: tokenizer\n  train: [image_tokenizer]\nname: <script>alert(1)</script>\n",
        seed=3,
    )


@pytest.fixture
def whole(run, world):
    fake = Fake()
    for question in world.questions[::2]:
        object.__setattr__(question, "kind", "category")
    settings = EvaluationSettings(aims={"identification_5": 1.0})
    arguments = {**world.arguments(run.evaluation), "settings": settings, "reconstruct": list}
    evaluate(fake, fake, **arguments)
    for index, name in enumerate(("tokenizer", "generation"), 1):
        stage = run.stage(index, name)
        for step in range(30):
            stage.log(
                step, {"train/loss": 1 / (step + 1), "train/image_loss_scale_1": 1.0, "train/image_loss_scale_2": 2.0}
            )
        stage.update(status="finished", steps=1234, peak_memory=3 * 2**30)
        run.add_duration(name, 100.0 * index)
    run.update(parameters={"language_model": 2_500_000})
    run.end("finished")
    return run


def words(run: RunFolder) -> str:
    text = build_report(run).read_text()
    return " ".join(html.unescape(re.sub(r"<style>.*?</style>|<[^>]+>", " ", text, flags=re.S)).split())


def test_the_report_loads_nothing_from_outside(whole):
    text = build_report(whole).read_text()
    page = Page(text)
    assert page.open == [] and len(page.ids) == len(set(page.ids))
    assert page.loads and all(load.startswith(("data:image/", "#")) for load in page.loads)
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "base"}
    assert "@import" not in text and not re.search(r"url\((?!#)", text)


def test_the_report_has_every_section(whole):
    page = Page(build_report(whole).read_text())
    sections = {"figures", "drawings", "scales", "heldout", "answers", "copies", "training", "table", "settings"}
    assert sections <= set(page.ids)


def test_the_report_says_what_the_files_say(whole):
    said = words(whole)
    metrics = whole.metrics()
    rate = metrics["drawings"]["train"]["identification"]["rate_1"]
    assert f"identification at 1 {100 * rate:.1f} %" in said and "chance 12.5 %" in said
    assert "KID × 1000 (EfficientNet-Lite0)" not in said  # these features have another name, and it is given
    assert "KID × 1000 (function)" in said and "aim 100 % reached" in said
    assert "2.5 million parameters" in said and "2 stages and 5 min 00 s" in said
    assert (
        "1 min 40 s" in said
        and "3 min 20 s" in said
        and "1,234" in said
        and "3.0 GiB" in said
        and "image tokenizer" in said
    )
    assert "Draw red" in said and "I would rather not." in said and "vargpt fit -c x.yaml" in said
    assert "the very same pictures" in said and "uniform noise" in said and "Gaussian blur" in said
    assert ATTRIBUTION in said and "finished" in said


def test_pictures_come_without_loss(whole):
    text = build_report(whole).read_text()
    uris = re.findall(r'src="data:image/(?:webp|png);base64,([^"]+)"', text)
    decoded = [Image.open(io.BytesIO(base64.b64decode(uri))).convert("RGB") for uri in uris]
    assert (255, 0, 0) in {picture.getpixel((2, 2)) for picture in decoded if picture.size == (16, 16)}
    noisy = Image.effect_noise((16, 16), 90).convert("RGB")
    content = base64.b64decode(encode(noisy).split(",")[1])
    assert Image.open(io.BytesIO(content)).convert("RGB").tobytes() == noisy.tobytes()


def test_foreign_words_cannot_become_code(whole):
    rows = (
        (whole.evaluation / "answers.jsonl")
        .read_text()
        .replace('"answer": "teal"', '"answer": "<img src=x onerror=1>"')
    )
    (whole.evaluation / "answers.jsonl").write_text(rows)
    text = build_report(whole).read_text()
    assert "<img src=x" not in text and "&lt;img src=x" in text
    assert "<script" not in text and "&lt;script&gt;" in text


def test_right_and_wrong_answers_are_shown_with_what_letters_mean(run, world):
    questions = [
        type(world.questions[0])("q1", "choice", "Which? Say B", "B", "teal", "test", ("cat", "dog")),
        type(world.questions[0])("q2", "choice", "Which? Say A", "B", "teal", "test", ("cat", "dog")),
    ]
    evaluate(Fake(), None, **{**world.arguments(run.evaluation), "questions": questions, "drawings": []})
    said = words(run)
    assert "✓ B (dog)" in said and "✗ A (cat) right: B (dog)" in said


@pytest.mark.parametrize("missing", ["everything", "evaluation", "metrics", "pictures", "stages", "half"])
def test_a_report_is_made_of_what_there_is(whole, run, missing, tmp_path):
    if missing == "everything":
        run = RunFolder.start(tmp_path / "young")
        assert "no metrics yet" in words(run) and "running" in words(run)
        return
    if missing in ("evaluation", "pictures"):
        victims = (
            [whole.evaluation]
            if missing == "evaluation"
            else [whole.evaluation / "drawings", whole.evaluation / "real"]
        )
        for victim in victims:
            victim.rename(tmp_path / victim.name)
    elif missing == "metrics":
        (whole.evaluation / "metrics.json").unlink()
    elif missing == "stages":
        (whole.path / "stages").rename(tmp_path / "stages")
    else:
        write_json(whole.evaluation / "metrics.json", {**whole.metrics(), "complete": False})
        (whole.evaluation / "drawings" / "draw-red.png").write_bytes(b"no picture")
        whole.stage(2, "generation").update(status="interrupted")
        whole.update(status="interrupted")
    said = words(whole)
    expected = {
        "evaluation": "no metrics yet",
        "metrics": "no metrics yet",
        "pictures": "All metrics",
        "stages": "Drawn on request",
        "half": "The run is interrupted",
    }
    assert expected[missing] in said
    assert Page(whole.report.read_text()).open == []
    if missing == "half":
        assert "Not finished: generation." in said and "The evaluation is not complete" in said


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a run folder"):
        build_report(tmp_path)


def test_what_is_shown_of_many_is_settled_by_a_hash():
    rows = [{"id": f"d{n}", "rank": n} for n in range(50)]
    assert by_hash(rows) == by_hash(reversed(rows)) and by_hash(rows) != rows


def test_numbers_in_words():
    assert [duration(s) for s in (0.2, 48, 860, 7500, 0)] == ["1 s", "48 s", "14 min 20 s", "2 h 05 min", "–"]
    assert [memory(m) for m in (None, 310 * 2**20, 1.4 * 2**30)] == ["–", "310 MiB", "1.4 GiB"]
    assert [parameters(p) for p in (900, 12.34e6, 9.28e9)] == ["900", "12.3 million", "9.3 billion"]
