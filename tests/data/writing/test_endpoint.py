"""A language model over real HTTP writes instructions: what is asked, tried again, paid for and kept."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.data.writing.service import KEY, Service, good, said, wrote
from vargpt_lightning.commands.data.write_instructions import main
from vargpt_lightning.data.writing.captions import Caption
from vargpt_lightning.data.writing.endpoint import EndpointWriter, WriterSettings
from vargpt_lightning.data.writing.job import write_instructions
from vargpt_lightning.data.writing.ledger import Ledger
from vargpt_lightning.data.writing.seeds import read_seeds
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import read_json, read_jsonl

ROOT = Path(__file__).resolve().parents[3]


def writer(service: Service, **options: Any) -> EndpointWriter:
    settings = {"backoff": 0.01, "timeout": 5.0, "concurrency": 3, **options}
    return EndpointWriter(read_seeds(), WriterSettings(service.url, "tiny", **settings))


def run(service: Service, captions: Sequence[Caption], out: Path, **options: Any) -> dict[str, Any]:
    return write_instructions(lambda: captions, out, writer(service, **options))


def kept(out: Path) -> list[str]:
    return [row["id"] for row in read_json(out / "instructions.json")]


def reasons(out: Path) -> dict[str, str]:
    return {row["id"]: row["reason"] for row in read_jsonl(out / "rejected.jsonl")}


def test_captions_become_records_in_their_order(service: Service, captions: list[Caption], tmp_path: Path) -> None:
    def script(caption: str, attempt: int) -> Any:
        time.sleep(0.03 if "tench" in caption else 0)  # the first is overtaken
        return good(caption, attempt)

    service.script = script
    counts = run(service, captions, tmp_path)
    rows = read_json(tmp_path / "instructions.json")
    assert [row["id"] for row in rows] == [caption.id for caption in captions]
    asked, answered = rows[0]["messages"]
    assert asked == {"role": "user", "content": "Could you draw a tench on grass for me?"}
    assert answered["role"] == "assistant" and answered["content"].startswith("Here is a tench on grass:")
    assert answered["content"].count("<image_gen>") == 1 and rows[0]["images"] == ["pictures/0.jpg"]
    assert counts["written"] == len(captions) and counts["requests"]["answered"] == len(captions)
    assert counts["requests"]["prompt_tokens"] == 100 * len(captions)


def test_the_manifest_has_each_request(service: Service, captions: list[Caption], tmp_path: Path) -> None:
    run(service, captions, tmp_path, seed=5)
    rows = [row for row in read_jsonl(tmp_path / "manifest.jsonl") if row["event"] == "answered"]
    seeds = {body["messages"][-1]["content"]: body["seed"] for body in service.bodies}
    assert {row["id"]: row["seed"] for row in rows} == {c.id: seeds[f"Caption: {c.text}"] for c in captions}
    assert len({row["prompt_hash"] for row in rows}) == len(captions) == len(set(seeds.values()))
    assert all(row["model"] == "tiny" and row["prompt_tokens"] == 100 and row["completion_tokens"] == 20
               for row in rows)  # fmt: skip
    other = writer(service, seed=6).request(captions[0], 0, 0)
    assert other.key not in {row["key"] for row in rows}


def test_seeds_are_shown_as_examples(service: Service, captions: list[Caption], tmp_path: Path) -> None:
    run(service, captions[:4], tmp_path, examples=2, json_mode=True, extra={"top_p": 0.5})
    seeds = read_seeds()
    for body in service.bodies:
        roles = [message["role"] for message in body["messages"]]
        assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
        assert body["messages"][0]["content"] == seeds.system
        assert body["response_format"] == {"type": "json_object"} and body["top_p"] == 0.5
        for asked, told in ((body["messages"][1], body["messages"][2]), (body["messages"][3], body["messages"][4])):
            caption, example = asked["content"].removeprefix("Caption: "), json.loads(told["content"])
            assert caption in seeds.captions
            assert example["request"] in [prompt.replace("{caption}", caption) for prompt in seeds.prompts]
            assert example["answer"] in [answer.replace("{caption}", caption) for answer in seeds.answers]
    assert len({json.dumps(body["messages"][:-1]) for body in service.bodies}) > 1, "examples differ between captions"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (said("I'm sorry, but I can't help with that."), "refused"),
        (wrote("Draw a tench", "I cannot draw that."), "refused"),
        ({"choices": [{"message": {"content": None, "refusal": "No."}, "finish_reason": "stop"}]}, "refused"),
        ((400, {"error": {"message": "unsafe"}}, {}), "refused"),
        (said('{"request": "Draw a tench on gra'), "wrong form"),
        (said('{"request": "Draw a tench on grass"}'), "wrong form"),
        (said('{"request": 3, "answer": "Here:"}'), "wrong form"),
        (said('[{"request": "Draw a tench", "answer": "Here:"}]'), "wrong form"),
        (wrote("Draw <image> of a tench", "Here:"), "wrong form"),
        (said('{"request": "Draw a te', "length"), "cut short"),
        (said(""), "empty"),
        (wrote(" ", "Here it is:"), "empty"),
        (wrote("Tench", "Here it is:"), "too short"),
        (wrote("Draw a tench " * 50, "Here it is:"), "too long"),
        (wrote("Draw a red sports car.", "Here it is:"), "other nouns"),
        (wrote("Bitte zeichne mir einen tench auf dem Gras und zwar schnell."), "language"),
        (b'{"choices": [{"mess', "unanswered"),
        ([], "unanswered"),
    ],
)  # fmt: skip
def test_bad_answers_are_counted_and_not_asked_again(
    service: Service, captions: list[Caption], tmp_path: Path, body: Any, reason: str
) -> None:
    service.script = lambda caption, attempt: body if "tench" in caption else good(caption, attempt)
    for _ in range(2):
        counts = run(service, captions[:3], tmp_path)
        assert counts["rejected"] == {reason: 1} and reasons(tmp_path) == {"n00": reason}
        assert kept(tmp_path) == ["n01", "n02"]
    assert set(service.asked.values()) == {1}


@pytest.mark.parametrize(
    "trouble", [(429, {"error": "slow down"}, {}), (500, b"oops", {}), (503, b"", {}), (408, b"", {})]
)  # fmt: skip
def test_trouble_is_tried_again_and_paid_for_once(
    service: Service, captions: list[Caption], tmp_path: Path, trouble: Any
) -> None:
    service.script = lambda caption, attempt: trouble if attempt < 2 else good(caption, attempt)
    counts = run(service, captions[:4], tmp_path)
    assert counts["written"] == 4 and set(service.asked.values()) == {3} and set(service.paid.values()) == {1}
    assert counts["requests"]["answered"] == 4 and counts["requests"]["released"] == 0


def test_retry_after_is_honoured(service: Service, captions: list[Caption], tmp_path: Path) -> None:
    service.script = lambda caption, attempt: (429, b"", {"Retry-After": "0.4"}) if not attempt else good(caption, 1)
    run(service, captions[:1], tmp_path)
    assert service.times[1] - service.times[0] >= 0.4


def test_a_service_that_wants_to_be_left_alone_stops_the_run(
    service: Service, captions: list[Caption], tmp_path: Path
) -> None:
    service.script = lambda caption, attempt: (429, b"", {"Retry-After": "999"})
    with pytest.raises(UserError, match="left alone for 999 s"):
        run(service, captions, tmp_path, concurrency=1)
    assert sum(service.asked.values()) == 1


def test_slow_answers_are_waited_for(service: Service, captions: list[Caption], tmp_path: Path) -> None:
    def script(caption: str, attempt: int) -> Any:
        time.sleep(0.3)
        return good(caption, attempt)

    service.script = script
    began = time.monotonic()
    assert run(service, captions, tmp_path, concurrency=6)["written"] == len(captions)
    assert service.most == 6 and time.monotonic() - began < 0.3 * len(captions)


def test_what_came_too_late_may_be_paid_for(service: Service, captions: list[Caption], tmp_path: Path) -> None:
    """A request that timed out is not sent again, unless that is asked for."""

    def script(caption: str, attempt: int) -> Any:
        time.sleep(0.6 if "castle" in caption and not attempt else 0)
        return good(caption, attempt)

    service.script = script
    for _ in range(2):
        counts = run(service, captions[:3], tmp_path, timeout=0.3)
        assert counts["rejected"] == {"unanswered": 1} and counts["requests"]["unanswered"] == 1
        assert service.asked["a castle by a lake"] == 1
    counts = run(service, captions[:3], tmp_path, timeout=0.3, ask_unanswered=True)
    assert kept(tmp_path) == ["n00", "n01", "n02"] and counts["rejected"] == {}
    assert service.asked == {"a tench on grass": 1, "a castle by a lake": 2, "a yellow lemon": 1}


def test_duplicates_are_dropped(service: Service, captions: list[Caption], tmp_path: Path) -> None:
    same = [Caption(f"d{number}", "p", f"a tench on grass {'near water ' * number}") for number in range(4)]
    service.script = lambda *_: wrote("Could you draw a big tench on the grass?")
    counts = run(service, same, tmp_path)
    assert kept(tmp_path) == ["d0"] and counts["rejected"] == {"near duplicate": 3}


def test_another_try_is_another_request(service: Service, captions: list[Caption], tmp_path: Path) -> None:
    service.script = lambda caption, attempt: good(caption, 0) if attempt == 1 else said("what?")
    assert run(service, captions[:2], tmp_path, tries=3)["written"] == 2
    assert service.asked == {captions[0].text: 2, captions[1].text: 2}
    assert len({(body["messages"][-1]["content"], body["seed"]) for body in service.bodies}) == 4
    run(service, captions[:2], tmp_path, tries=3)
    assert len(service.bodies) == 4


def test_spending_stops_at_the_limit_of_requests(service: Service, captions: list[Caption], tmp_path: Path) -> None:
    counts = run(service, captions, tmp_path, max_requests=5)
    assert sum(service.asked.values()) == 5 and counts["later"] == {"not asked": 7}
    assert not counts["requests"]["within_limits"] and len(kept(tmp_path)) == 5
    run(service, captions, tmp_path, max_requests=5)
    assert sum(service.asked.values()) == 5, "the limit is of all runs together"
    run(service, captions, tmp_path, max_requests=100)
    assert set(service.paid.values()) == {1} and kept(tmp_path) == [caption.id for caption in captions]


def test_spending_stops_at_the_limit_of_tokens(service: Service, captions: list[Caption], tmp_path: Path) -> None:
    service.script = lambda caption, attempt: {
        **good(caption, 0),
        "usage": {"prompt_tokens": 900, "completion_tokens": 100},
    }
    counts = run(service, captions, tmp_path, max_tokens=5500)
    spent = counts["requests"]["prompt_tokens"] + counts["requests"]["completion_tokens"]
    assert 3000 <= spent <= 5500 and spent == 1000 * sum(service.asked.values())


def test_tokens_that_are_not_told_are_estimated(service: Service, captions: list[Caption], tmp_path: Path) -> None:
    service.script = lambda caption, _: {key: value for key, value in good(caption, 0).items() if key != "usage"}
    counts = run(service, captions[:1], tmp_path)
    row = read_jsonl(tmp_path / "manifest.jsonl")[-1]
    assert row["guess"] is True and row["prompt_tokens"] > 50 and row["completion_tokens"] > 5
    assert counts["requests"]["prompt_tokens"] == row["prompt_tokens"]


def test_requests_keep_their_pace(service: Service, captions: list[Caption], tmp_path: Path) -> None:
    run(service, captions[:5], tmp_path, requests_per_minute=600, concurrency=5)
    assert max(service.times) - min(service.times) >= 0.4 - 0.05


def test_one_caption_that_always_fails_stops_nobody(service: Service, captions: list[Caption], tmp_path: Path) -> None:
    service.script = lambda caption, attempt: (500, b"", {}) if "violin" in caption else good(caption, 0)
    counts = run(service, captions, tmp_path, retries=1)
    assert counts["later"] == {"failed": 1} and counts["written"] == len(captions) - 1
    service.script = good
    assert run(service, captions, tmp_path)["written"] == len(captions)
    assert set(service.paid.values()) == {1}


@pytest.mark.parametrize("trouble", [(500, b"", {}), (400, {"error": {"message": "unknown field seed"}}, {})])
def test_a_service_that_fails_for_all_stops_the_run(
    service: Service, captions: list[Caption], tmp_path: Path, trouble: Any
) -> None:
    service.script = lambda *_: trouble
    with pytest.raises(UserError, match=rf"HTTP {trouble[0]}.*3 captions in a row failed.*what was answered is kept"):
        run(service, captions, tmp_path, retries=0, concurrency=1, max_failures=3)
    assert len(service.asked) == 3


def test_the_key_stands_nowhere(
    service: Service, captions: list[Caption], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    service.script = lambda *_: (401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}, {})
    with pytest.raises(UserError, match="MY_KEY, which is set") as error:
        run(service, captions, tmp_path, key_variable="MY_KEY", concurrency=1)
    assert service.headers[0]["Authorization"] == f"Bearer {KEY}" and len(service.bodies) == 1
    service.script = good
    run(service, captions, tmp_path, key_variable="MY_KEY")
    assert KEY not in str(error.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_other_settings_want_another_folder(service: Service, captions: list[Caption], tmp_path: Path) -> None:
    run(service, captions[:1], tmp_path)
    with pytest.raises(UserError, match=r"was written with temperature 1.0, now it is 0.5"):
        run(service, captions[:1], tmp_path, temperature=0.5)
    assert len(service.bodies) == 1


def test_one_process_at_a_time(service: Service, captions: list[Caption], tmp_path: Path) -> None:
    run(service, captions[:1], tmp_path)
    with Ledger(tmp_path / "manifest.jsonl"), pytest.raises(UserError, match="another process is writing here"):
        run(service, captions, tmp_path)


def test_a_torn_line_is_cut_and_a_damaged_one_named(service: Service, captions: list[Caption], tmp_path: Path) -> None:
    run(service, captions[:2], tmp_path)
    manifest = tmp_path / "manifest.jsonl"
    with open(manifest, "a") as file:
        file.write('{"event": "answered", "key": "12')
    assert run(service, captions[:2], tmp_path)["written"] == 2 and len(service.bodies) == 2
    manifest.write_text("nonsense\n" + manifest.read_text())
    with pytest.raises(UserError, match=r"manifest.jsonl, line 1: damaged"):
        run(service, captions[:2], tmp_path)


def command(service: Service, file: Path, out: Path) -> list[str]:
    code = (
        "import sys; from vargpt_lightning.commands.data.write_instructions import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = [str(file), "--out", str(out), "--endpoint", service.url, "--model", "tiny", "--backoff", "0.01"]
    return [sys.executable, "-c", code, *arguments, "--concurrency", "3"]


def test_a_killed_run_pays_for_nothing_twice(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed twice with requests on their way, then finished: each caption is charged for once at most."""
    texts = {f"c{number}": f"a {'very ' * number}big lemon number {'abcdefghijklmnopqrstuvwxyz'[number]}zz"
             for number in range(24)}  # fmt: skip
    file, out = tmp_path / "captions.jsonl", tmp_path / "out"
    file.write_text("".join(json.dumps({"id": id_, "picture": f"{id_}.jpg", "caption": text}) + "\n"
                            for id_, text in texts.items()))  # fmt: skip

    def script(caption: str, attempt: int) -> Any:
        time.sleep(0.05)
        return (429, b"", {}) if attempt == 0 and len(caption) % 3 == 0 else good(caption, attempt)

    service.script = script
    for paid in (5, 12):
        process = subprocess.Popen(command(service, file, out), cwd=ROOT, stderr=subprocess.PIPE)
        until = time.monotonic() + 60
        while sum(service.paid.values()) < paid:
            assert process.poll() is None and time.monotonic() < until, "ended or hangs before it was killed"
            time.sleep(0.002)
        process.kill()
        assert process.wait(30) == -signal.SIGKILL
        process.communicate()
        time.sleep(0.15)  # what was on its way is answered to nobody
    arguments = command(service, file, out)[3:]
    assert main(arguments) == 0
    assert max(service.paid.values()) == 1 and set(service.paid) <= set(texts.values())
    lost = [id_ for id_, reason in reasons(out).items() if reason == "unanswered"]
    assert 0 < len(lost) <= 6 and f"perhaps paid for: {len(lost)}" in capsys.readouterr().out
    assert [*kept(out), *lost] == sorted([*kept(out), *lost], key=lambda id_: (id_ in lost, int(id_[1:])))
    assert {*kept(out), *lost} == set(texts)
    before = Counter(service.asked)
    assert main([*arguments, "--ask-unanswered"]) == 0 and kept(out) == list(texts)
    assert {text for text in texts.values() if service.asked[text] > before[text]} == {texts[id_] for id_ in lost}


@pytest.mark.parametrize(
    "options",
    [{"concurrency": 0}, {"tries": 0}, {"timeout": 0}, {"requests_per_minute": 0}, {"temperature": -1.0},
     {"max_tokens": -1}, {"max_failures": 0}],
)  # fmt: skip
def test_options_out_of_their_range(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"writer {next(iter(options))}: "):
        WriterSettings("http://x/v1", "m", **options)
