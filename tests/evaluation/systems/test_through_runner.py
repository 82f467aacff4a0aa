"""Every system goes through the runner with a benchmark in its mirror's format, and is scored from what it wrote."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.benchmarks.small_files import png, write_mirror
from tests.evaluation.systems.test_openai_endpoint import Service, said, service
from tests.evaluation.systems.tiny_models import KINDS
from vargpt_lightning.evaluation.benchmarks import pope
from vargpt_lightning.evaluation.harness.outputs import read_rows
from vargpt_lightning.evaluation.harness.run import BenchmarkSettings, run_benchmark
from vargpt_lightning.evaluation.systems.open import open_system
from vargpt_lightning.utils.errors import UserError

__all__ = ["service"]

OBJECTS = ("dog", "big red bus", "cat", "person on a bicycle", "cup", "bird")
COLOURS = ("red", "green", "blue", "white", "black", "teal")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six questions of POPE with pictures of six sizes."""
    folder = tmp_path_factory.mktemp("pope")
    rows = [
        {
            "id": str(n), "question_id": str(n), "question": f"Is there a {thing} in the image?",
            "answer": ("yes", "no")[n % 2], "image_source": f"COCO_val2014_{n:012d}",
            "category": pope.CATEGORIES[n % 3], "image": {"bytes": png(COLOURS[n], (30 + 6 * n, 40)), "path": None},
        }
        for n, thing in enumerate(OBJECTS)
    ]  # fmt: skip
    write_mirror(folder / "data" / "test-00000-of-00001.parquet", rows)
    return folder


def ask(system: Any, data: Path, out: Path, **settings: Any) -> dict[str, Any]:
    settings = {"max_new_tokens": 5, **settings}
    return run_benchmark(system, pope, data, out, BenchmarkSettings(**settings))["lmms_eval"]


def outputs(out: Path) -> dict[str, tuple[str, str]]:
    rows: Iterator[dict[str, Any]] = (row for file in out.glob("pope/outputs/*.jsonl") for row in read_rows(file))
    return {row["id"]: (row["output"], row["finish"]) for row in rows}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_transformers_model(data: Path, tmp_path: Path, folders: Callable[[str], Path], kind: str) -> None:
    system = open_system(str(folders(kind)), device="cpu")
    result = ask(system, data, tmp_path / "4", batch_size=4)
    ask(system, data, tmp_path / "1", batch_size=1)
    assert outputs(tmp_path / "4") == outputs(tmp_path / "1") and len(outputs(tmp_path / "4")) == 6
    assert result["figures"]["n"] == 6 and result["model"] == system.name and result["digest"] == system.digest
    assert result["settings"]["kind"] == kind
    system.model = None  # a second time, nothing is asked
    assert ask(system, data, tmp_path / "4")["figures"] == result["figures"]


def test_a_model_of_ours(data: Path, tmp_path: Path, finished_run: Path, script: Any) -> None:
    system = open_system(str(finished_run), device="cpu")
    script("Yes")
    result = ask(system, data, tmp_path)
    assert result["figures"]["accuracy"] == 0.5 and set(outputs(tmp_path).values()) == {("Yes", "stop")}
    assert (result["model"], result["settings"]["adapter"]) == ("tiny/generation", "ours")
    script("No")
    assert ask(system, data, tmp_path)["figures"] == result["figures"]  # nothing is asked again


def test_an_endpoint_that_fails_in_the_middle_goes_on_where_it_stopped(
    service: Service, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    broken = True

    def script(question: str, attempt: int) -> Any:
        return (500, b"", {}) if broken and "bicycle" in question else said("yes")

    service.script = script
    system = open_system(f"openai:{service.url}#tiny", retries=1, backoff=0.01, concurrency=2, timeout=5.0)
    with pytest.raises(UserError, match=r"HTTP 500 \(tried 2 times\)"):
        ask(system, data, tmp_path)
    kept = outputs(tmp_path)
    assert 0 < len(kept) < 6 and not (tmp_path / "pope" / "result.lmms_eval.json").exists()
    before, broken = len(service.seen), False
    result = ask(system, data, tmp_path)
    assert len(service.seen) - before == 6 - len(kept)
    assert result["figures"]["accuracy"] == 0.5 and result["model"] == "tiny"
    assert service.seen[0]["max_tokens"] == 5 and service.seen[0]["messages"][0]["content"][0]["type"] == "image_url"


def test_a_file_of_answers(data: Path, tmp_path: Path) -> None:
    ids = [pope.record_id(record) for record in pope.load(data, pictures=False)]
    file = tmp_path / "theirs.jsonl"
    file.write_text("".join(json.dumps({"id": id_, "benchmark": "pope", "output": "no"}) + "\n" for id_ in ids[1:]))
    with pytest.raises(UserError, match=r"ids for pope: 1 missing"):
        ask(open_system(str(file)), data, tmp_path / "refused")
    result = ask(open_system(str(file), allow="missing"), data, tmp_path / "out")
    assert (result["figures"]["n"], result["figures"]["empty"], result["model"]) == (6, 1, "theirs")
    assert result["settings"] == {"adapter": "predictions", "allow": ["missing"]}
