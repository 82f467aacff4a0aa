"""The pages about adding something, followed step by step: their files written, their commands given."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import inspect
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.data.nasty_pictures import halves
from tests.docs.markdown import DOCS, ROOT, blocks, shell_lines
from tests.installed import install, on_the_path
from tests.untrained import write_run
from vargpt_lightning.cli import main
from vargpt_lightning.data import sources
from vargpt_lightning.evaluation import benchmarks, judges
from vargpt_lightning.experiment.parser import load_experiment
from vargpt_lightning.models import vision
from vargpt_lightning.results import load_runs
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.utils import plugins
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import read_json, read_jsonl
from vargpt_lightning.utils.gpus import catalogue, parse_cluster

PACKAGES = {
    "evaluation/benchmarks": "vargpt_lightning.evaluation.benchmarks",
    "evaluation/judges": "vargpt_lightning.evaluation.judges",
    "vargpt_lightning/data/sources": "vargpt_lightning.data.sources",
    "vargpt_lightning/models/vision": "vargpt_lightning.models.vision",
}
Follow = Callable[..., list[str]]


@pytest.fixture
def follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Follow:
    """Write a page's files below an empty folder, where packages look for them too; return the page's commands."""
    monkeypatch.chdir(tmp_path)

    def write(name: str) -> list[str]:
        text = (DOCS / name).read_text("utf-8")
        for block in blocks(text):
            if block.file is None:
                continue
            file = tmp_path / block.file
            assert not (ROOT / block.file).exists(), f"{block.file} is there already"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, "utf-8")
            if (folder := str(Path(block.file).parent)) in PACKAGES and file.suffix == ".py":
                package = importlib.import_module(PACKAGES[folder])
                monkeypatch.setattr(package, "__path__", [*package.__path__, str(file.parent)])
        return list(shell_lines(text))

    return write


@contextmanager
def installed(*modules: str) -> Iterator[None]:
    """A page's package is installed, with files of the page as its modules, which are nowhere else any more."""
    files = {f"my_package/{Path(module).name}": Path(module).read_text("utf-8") for module in modules}
    for module in modules:
        Path(module).unlink()
    plugins.forget()
    install(Path("site"), Path("my-package/pyproject.toml").read_text("utf-8"), {"my_package/__init__.py": "", **files})
    with on_the_path(Path("site").resolve()):
        yield


def give(command: str, *more: str) -> None:
    assert main([*shlex.split(command)[1:], *more]) == 0, command


def run_tests(file: str, folder: Path) -> None:
    """Call the test functions of a file that a page shows."""
    spec = importlib.util.spec_from_file_location("shown", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tests = [value for name, value in vars(module).items() if name.startswith("test_")]
    assert tests
    for test in tests:
        test(*[folder] if inspect.signature(test).parameters else [])


def small_experiment(tree: dict[str, Any], stages: int) -> None:
    """The tests' miniature in the place of debug.yaml, its last stages alone and short."""
    tree["run"] = {"name": "debug"}
    tree["trainer"] |= {"validate": 0, "samples": 0}
    tree["stages"] = [{**stage, "steps": 1, "accumulate": 1} for stage in tree["stages"][-stages:]]
    file = Path("experiments/debug.yaml")
    file.parent.mkdir(exist_ok=True)
    file.write_text(yaml.safe_dump(tree))


def photos() -> None:
    Path("photos").mkdir()
    for name in ("dog", "cat"):
        halves("red", "blue").save(f"photos/{name}.png")


def test_add_a_benchmark(follow: Follow, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    score, evaluate, evaluate_columns, score_columns = follow("add-a-benchmark.md")
    run_tests("tests/evaluation/benchmarks/test_counting.py", tmp_path)
    give(score)
    assert "accuracy 50.0" in (DOCS / "add-a-benchmark.md").read_text("utf-8")
    figures = read_json(Path("scored/counting/result.lmms_eval.json"))["figures"]
    assert figures["accuracy"] == 0.5 and figures["unparsed"] == 1
    for name in ("two", "three"):
        halves("black", "white").save(f"data/counting/{name}.png")
    write_run(Path("runs/openmoji"))
    give(evaluate)
    assert read_json(Path("asked/counting/result.lmms_eval.json"))["figures"]["n"] == 2
    assert "Counting" in capsys.readouterr().out
    give(evaluate_columns)
    assert read_json(Path("asked/dots/result.exact.json"))["figures"]["n"] == 2
    give(score_columns)
    columns = read_json(Path("scored/dots/result.exact.json"))["figures"]
    assert columns["accuracy"] == 0.5 and columns["unparsed"] == 0
    with installed("evaluation/benchmarks/counting.py"):
        assert benchmarks.get("counting").__name__ == "my_package.counting"  # type: ignore[attr-defined]
        give(score.replace("scored", "again"))
    assert read_json(Path("again/counting/result.lmms_eval.json"))["figures"] == figures


def test_the_page_about_plans_names_every_gpu_and_describes_one(tmp_path: Path) -> None:
    page = (DOCS / "plan.md").read_text("utf-8")
    assert all(f"`{name}`" in page for name in catalogue())
    (described,) = (block.text for block in blocks(page) if block.text.startswith("# gpus.yaml"))
    (tmp_path / "gpus.yaml").write_text(described)
    (gpu,) = catalogue(tmp_path / "gpus.yaml").values()
    assert (gpu.memory, gpu.flops, gpu.bandwidth, gpu.bf16) == (32e9, 100e12, 900e9, False)
    assert parse_cluster("8xMine", catalogue(tmp_path / "gpus.yaml")).count == 8


def test_add_a_source(follow: Follow, tmp_path: Path) -> None:
    commands = follow("add-a-source.md")
    photos()
    run_tests("tests/data/sources/test_table.py", tmp_path / "photos")
    for command in commands:
        give(command)
    (refused,) = read_jsonl(Path("data/answers/rejected.jsonl"))
    assert "lost.png" in refused["reason"]
    assert "answers" in Path("stats.html").read_text("utf-8")
    with installed("vargpt_lightning/data/sources/table.py"):
        assert sources.get("table").__name__ == "my_package.table"
        give(commands[0].replace("data/answers", "data/again"))
    shards = [
        [file.read_bytes() for file in sorted(Path(f"data/{name}").glob("*.tar"))] for name in ("answers", "again")
    ]
    assert shards[0] == shards[1] != []


def test_add_a_stage(follow: Follow, tiny_experiment: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    *commands, from_package = follow("add-a-stage.md")
    tiny_experiment["run"]["root"] = "runs"
    small_experiment(tiny_experiment, 1)
    for command in commands:
        give(command)
    stages = RunFolder(Path("runs/polished")).stages()
    assert [stage.name for stage in stages] == ["draw", "together"]
    assert str(read_json(stages[0].path / "stage.json")["taken_from"]).endswith("runs/debug/stages/01-draw")
    assert set(load_runs("runs").runs["name"]) == {"debug", "polished"}
    assert "polished" in capsys.readouterr().out
    with installed(*(f"my-package/my_package/{name}.py" for name in ("losses", "penalties", "watch"))):
        give(from_package)
    stages = RunFolder(Path("runs/watched")).stages()
    assert [stage.status for stage in stages] == ["finished"] * 4
    taken = [bool(read_json(stage.path / "stage.json").get("taken_from")) for stage in stages]
    assert taken == [True, True, False, False]
    with (stages[-2].path / "metrics.csv").open() as file:
        logged = [(row["name"], row["step"]) for row in csv.DictReader(file)]
    assert [step for name, step in logged if name == "train/decoder_norm"] == ["2", "4"]
    assert any(name.startswith("lr-AdamW") for name, _ in logged)


def test_another_backbone(follow: Follow) -> None:
    from transformers import Qwen2Config

    assert follow("add-a-backbone.md") == []
    for name in ("base", "vargpt_7b"):
        Path(f"experiments/{name}.yaml").write_text((ROOT / f"experiments/{name}.yaml").read_text())
    qwen = Qwen2Config(hidden_size=3584, num_attention_heads=28, num_key_value_heads=4, vocab_size=152064)
    qwen.save_pretrained("weights/Qwen2.5-7B")
    language = load_experiment(["-c", "experiments/qwen.yaml"]).model.language
    assert (language.family, language.width, language.heads, language.max_positions) == ("qwen2", 3584, 28, 4096)


def test_add_a_tower(follow: Follow, tiny_experiment: dict[str, Any]) -> None:
    from transformers import ViTConfig, ViTModel

    fit, generate = follow("add-a-tower.md")
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28}
    size |= {"intermediate_size": 32, "patch_size": 14}
    vit = ViTModel(ViTConfig(**size), add_pooling_layer=False)
    vit.save_pretrained("weights/vit-large")
    exec(compile(Path("convert.py").read_text(), "convert.py", "exec"), {})
    small_experiment(tiny_experiment, 2)
    sizes = {"picture_size": 28, "patch_size": 14, "width": 16, "layers": 2, "heads": 2, "mlp": 32}
    changes = [word for key, value in sizes.items() for word in (f"--model.vision.{key}", str(value))]
    give(fit, *changes, "--model.language.max_positions", "96", "--run.root", "runs")
    photos()
    give(generate)
    report = read_json(Path("runs/vit/init_from.json"))
    assert report["parts"].keys() == {"vision_tower"}
    with installed("vargpt_lightning/models/vision/vit.py"):
        assert vision.get("vit").__name__ == "my_package.vit"  # type: ignore[attr-defined]
        give(generate)


def test_add_a_sampler(follow: Follow, tiny_experiment: dict[str, Any]) -> None:
    fit, *generate = follow("add-a-sampler.md")
    tiny_experiment["run"]["root"] = "runs"
    small_experiment(tiny_experiment, 1)
    with pytest.raises(UserError, match=r"sampling.sampler: 'min_p'; there are default"):
        load_experiment(["-c", "experiments/min_p.yaml"])
    with installed("my-package/my_package/min_p.py"):
        give(fit, "--trainer.samples", "2")
        for command in generate:
            give(command)
        assert "my_package.min_p" in sys.modules


def test_add_a_judge(follow: Follow, tiny_experiment: dict[str, Any]) -> None:
    fit, score = follow("add-a-judge.md")
    tiny_experiment["run"]["root"] = "runs"
    tiny_experiment["evaluation"] = {"questions": 1, "names": 1, "drawings_limit": 2, "feature_size": 32}
    small_experiment(tiny_experiment, 1)
    give(fit)
    give(score)
    figures = read_json(Path("runs/judged/evaluation/metrics.json"))["judges"]
    assert figures.keys() == {"colourful", "identification"} and "mean colourfulness" in figures["colourful"]["title"]
    assert "What judges say" in Path("runs/judged/report.html").read_text("utf-8")
    with installed("evaluation/judges/colourful.py"):
        assert judges.get("colourful").__name__ == "my_package.colourful"  # type: ignore[attr-defined]
        give(score)


def test_from_python(follow: Follow, tiny_experiment: dict[str, Any], tmp_path: Path) -> None:
    follow("python.md")
    tiny_experiment["run"]["root"] = "runs"
    small_experiment(tiny_experiment, 3)
    write_run(Path("runs/openmoji"))
    for name in ("own_trainer", "one_fit", "resumed", "resumed", "own_module", "own_metrics", "whole_run", "ask"):
        exec(compile(Path(f"{name}.py").read_text(), f"{name}.py", "exec"), {"__name__": "__main__"})
    assert [stage.status for stage in RunFolder(Path("runs/debug")).stages()] == ["finished"] * 3
