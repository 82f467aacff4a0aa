"""What installed packages add is known by its name everywhere; what cannot be used is refused, with the package."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.installed import install, on_the_path
from tests.tiny import write_experiment
from tests.training.test_own_callbacks import WATCH
from vargpt_lightning.cli import main
from vargpt_lightning.commands.completion_words import candidates
from vargpt_lightning.data import sources
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.evaluation import benchmarks
from vargpt_lightning.experiment.parser import load_experiment
from vargpt_lightning.inference.load import load_run
from vargpt_lightning.models import vision
from vargpt_lightning.models.core.config import VisionConfig
from vargpt_lightning.models.vargpt import VARGPTModel
from vargpt_lightning.modules.objectives import OBJECTIVES, check_objective, objective
from vargpt_lightning.recipe import heads
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.training.contents import StageContents
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import read_json, read_jsonl

ROOT = Path(__file__).resolve().parents[1]

PROJECT = """
[project]
name = "Tiny.Plugins"
version = "1.2"

[project.entry-points."vargpt_lightning.benchmarks"]
parity = "tiny_plugins.parity"

[project.entry-points."vargpt_lightning.sources"]
riddles = "tiny_plugins.riddles"

[project.entry-points."vargpt_lightning.towers"]
average = "tiny_plugins.average"

[project.entry-points."vargpt_lightning.objectives"]
halved = "tiny_plugins.halved:HalvedModule"

[project.entry-points."vargpt_lightning.judges"]
reddish = "tiny_plugins.reddish"

[project.entry-points."vargpt_lightning.samplers"]
second = "tiny_plugins.second:sample"
"""

PARITY = '''
"""Is a number odd or even?"""
from pathlib import Path

from vargpt_lightning.evaluation.base.benchmark import Score, check_protocol, counts, mean_interval
from vargpt_lightning.evaluation.formats.layouts import read_jsonl

NAME, TITLE, HUB, HEADLINE, SCALE, MAX_NEW_TOKENS = "parity", "Parity", None, "accuracy", 100, 4
KNOWN = ("lmms_eval",)


def load(path, pictures=True):
    return read_jsonl(Path(path) / "numbers.jsonl", ("number",)).without_pictures()


def record_id(record):
    return str(record["number"])


def pictures(record):
    return []


def prompt(record, style="llava"):
    return f"Is {record['number']} odd or even?"


def score(output, record, protocol="lmms_eval"):
    check_protocol(protocol, KNOWN)
    return Score(float(output.strip() == ("odd" if record["number"] % 2 else "even")), output)


def aggregate(records, scores, protocol="lmms_eval"):
    values = [each.value for each in scores]
    low, high = mean_interval(values)
    return {"accuracy": sum(values) / len(values), **counts(scores), "low": low, "high": high}
'''

RIDDLES = '''
"""Questions and answers, a line each, with a tab between."""
from vargpt_lightning.data.sources.base import Part, conversation, need, read_all

NAME = "riddles"


def parts(path, *, pictures=None, ending: str = "?"):
    count = len(need(path, "a text with tabs").read_text().splitlines())
    return [Part(NAME, path, start, start + 2, start, {"ending": ending}) for start in range(0, count, 2)]


def read_part(part):
    for number, line in enumerate(part.path.read_text().splitlines()[part.start : part.stop], part.first):
        question, answer = line.split("\\t")
        turns = [{"from": "human", "value": question + part.options["ending"]}, {"from": "gpt", "value": answer}]
        yield conversation(str(number), NAME, turns, [], lambda key: b"")


def read(path, *, pictures=None, **options):
    return read_all(parts(path, **options), read_part)
'''

AVERAGE = '''
"""The mean colours of patches, widened."""
from vargpt_lightning.utils.ranges import require

NAME, SCALING, FIT = "average", ((0.5,) * 3, (0.5,) * 3), "crop"


def stride(config):
    return config.patch_size


def channels(config):
    return config.width


def check(config):
    require(config.width % 4 == 0, "vision.width", config.width, "a multiple of 4")


def build(config):
    from torch import nn

    class Average(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = nn.Conv2d(3, config.width, config.patch_size, config.patch_size)
            self.blocks = nn.ModuleList([])
            self.restored = 0

        def restore_constants(self):
            self.restored += 1

        def forward(self, pixels_P3SS):
            return self.model(pixels_P3SS).flatten(2).transpose(1, 2)

    return Average()
'''

HALVED = '''
"""Half of the losses."""
from vargpt_lightning.modules.unified import UnifiedModule


class HalvedModule(UnifiedModule):
    def _loss(self, output, part=None):
        loss = super()._loss(output, part)
        return None if loss is None else loss / 2


class ScaledModule(UnifiedModule):
    """A multiple of the losses, known by its class_path alone."""

    def __init__(self, *arguments, factor, secret="", **more):
        super().__init__(*arguments, **more)
        self.factor = factor

    def _loss(self, output, part=None):
        loss = super()._loss(output, part)
        return None if loss is None else loss * self.factor


class NoModule:
    pass
'''

SECOND = '''
"""The second likeliest codes."""
CALLS = []


def sample(logits_BlV, settings, generator):
    CALLS.append((tuple(logits_BlV.shape), settings.sampler, generator))
    return logits_BlV.topk(2, dim=-1).indices[..., 1]

'''

REDDISH = '''
"""Is a drawing more red than blue?"""
from vargpt_lightning.evaluation.base.judge import Verdict

NAME, TITLE = "reddish", "share that is more red than blue"


def judge(drawn, real):
    pixels = [each.image.convert("RGB").resize((1, 1)).getpixel((0, 0)) for each in drawn]
    return [Verdict(float(red > blue), f"of {len(real)}") for red, _, blue in pixels]
'''

FILES = {
    "tiny_plugins/__init__.py": "",
    "tiny_plugins/parity.py": PARITY,
    "tiny_plugins/riddles.py": RIDDLES,
    "tiny_plugins/average.py": AVERAGE,
    "tiny_plugins/halved.py": HALVED,
    "tiny_plugins/watch.py": WATCH,
    "tiny_plugins/second.py": SECOND,
    "tiny_plugins/reddish.py": REDDISH,
}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """A folder of installed packages with one that adds something of each kind."""
    folder = tmp_path / "site"
    install(folder, PROJECT, FILES)
    with on_the_path(folder):
        yield folder


def numbers(folder: Path) -> Path:
    """The data of the benchmark, and answers to it, two of three right; returns the file of answers."""
    (folder / "data" / "parity").mkdir(parents=True)
    (folder / "data" / "parity" / "numbers.jsonl").write_text("".join(f'{{"number": {n}}}\n' for n in (1, 2, 3)))
    answers = folder / "answers.jsonl"
    answers.write_text("".join(f'{{"id": "{n}", "output": "odd"}}\n' for n in (1, 2, 3)))
    return answers


def test_names_are_known_and_nothing_is_imported_to_list_them(site: Path) -> None:
    before = benchmarks.names()
    assert before[-1] == "parity" and "mme" in before
    assert sources.names()[-1] == "riddles"
    ours = ("clip", "dinov2", "dinov3", "efficientnet_lite0", "qwen2_vl", "siglip", "siglip2_naflex")
    assert vision.names() == (*ours, "average")
    assert heads.names() == ("unified", "understanding", "generation", "tokenizer", "grpo", "dpo", "cca", "halved")
    assert "parity" in candidates(["score", "x", "--benchmark", "pa"])
    assert not [name for name in sys.modules if name.startswith("tiny_plugins")]
    assert benchmarks.get("parity").TITLE == "Parity" and "tiny_plugins.riddles" not in sys.modules


def test_hints_name_them(site: Path) -> None:
    with pytest.raises(UserError, match=r"'paritee'; there are gqa, .*parity; did you mean 'parity'"):
        benchmarks.get("paritee")
    with pytest.raises(UserError, match=r"vision.kind: got 'averages', expected one of clip, .*average, none"):
        VisionConfig(kind="averages")
    with pytest.raises(UserError, match=r"head: 'halve'; there are .*did you mean 'halved'"):
        heads.check_head("halve")


def test_the_heads_are_the_objectives() -> None:
    assert tuple(OBJECTIVES) == heads.HEADS
    assert all(objective(name) is kind for name, kind in OBJECTIVES.items())


def test_in_a_process_of_its_own(site: Path, tmp_path: Path) -> None:
    """The help and the commands know them, without a line of ours that names them."""
    answers = numbers(tmp_path)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}

    def vargpt(*words: str) -> str:
        command = [sys.executable, "-m", "vargpt_lightning.cli", *words]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "riddles" in " ".join(vargpt("data", "pack", "--help").split())
    (tmp_path / "riddles.txt").write_text("What\tThis\nWho\tI\nWhere\tHere\n")
    vargpt("data", "pack", "riddles:riddles.txt,ending=!", "--out", "packed", "--processes", "2")
    assert [list(record.texts()) for record in ShardDataset(tmp_path / "packed")][2] == ["Where!", "Here"]
    told = vargpt("score", str(answers), "--benchmark", "parity", "--data", "data", "--out", "scored")
    assert "Parity" in told
    result = read_json(tmp_path / "scored/parity/result.lmms_eval.json")
    assert result["figures"]["accuracy"] == 2 / 3 and result["headline"] == "accuracy"


def test_the_programs_help_looks_for_none(site: Path) -> None:
    """`vargpt --help` answers at once: what is installed is not read."""
    program = "import sys; from vargpt_lightning.cli import main; main(['--help']); print(*sys.modules)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    # -S leaves out .pth files of the environment, some of which import it
    done = subprocess.run([sys.executable, "-S", "-c", program], env=environment, capture_output=True, text=True)
    imported = done.stdout.splitlines()[-1].split()
    assert "vargpt_lightning.cli" in imported and "importlib.metadata" not in imported, done.stderr


@pytest.fixture
def experiment(site: Path, tiny_experiment: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The tiny experiment with something of the package of every kind, a benchmark left out."""
    text = tmp_path / "riddles.txt"
    text.write_text("What\tThis\nWho\tI\nWhere\tHere\n")
    assert main(["data", "pack", f"riddles:{text}", "--out", str(tmp_path / "packed")]) == 0
    tree = tiny_experiment
    tree["model"]["vision"] |= {"kind": "average"}
    tree["data"]["init_args"]["train"]["riddles"] = str(tmp_path / "packed")
    base = tree["stages"][1] | {"data": {"questions": 2, "pictures": 1, "riddles": 1}}
    scaled = {"class_path": "tiny_plugins.halved.ScaledModule", "init_args": {"factor": 0.5}}
    tree["stages"] = [base | {"head": "halved"}, base | {"name": "scaled", "objective": scaled}]
    watch = {"class_path": "tiny_plugins.watch.Watch", "init_args": {"file": str(tmp_path / "steps.txt")}}
    tree["evaluation"] = {"judges": ["reddish"], "questions": 0, "names": 0, "drawings_limit": 2, "feature_size": 32}
    tree["sampling"] = {"sampler": "second"}
    tree["trainer"]["callbacks"] = [watch, {"class_path": "LearningRateMonitor"}]
    return tree


def test_an_experiment_of_them_is_trained(experiment: dict[str, Any], tmp_path: Path) -> None:
    file = write_experiment(tmp_path / "tiny.yaml", experiment)
    assert main(["fit", "-c", str(file)]) == 0
    run = RunFolder(tmp_path / "runs" / "tiny")
    assert [stage.status for stage in run.stages()] == ["finished"] * 2
    steps = [line.split() for line in (tmp_path / "steps.txt").read_text().splitlines()]
    assert [name for _, name, _ in steps] == ["HalvedModule"] * 12 + ["ScaledModule"] * 12
    names = steps[0][2].split(",")
    assert names[-4:] == ["Watch", "LearningRateMonitor", "GracefulStop", "LastCheckpoint"]
    record = read_json(run.path / "stages/01-base/stage.json")
    assert record["data"]["riddles"]["records"] == 3 and record["packages"] == {"Tiny.Plugins": "1.2"}
    assert read_json(run.path / "stages/02-scaled/stage.json")["packages"] == {"Tiny.Plugins": "1.2"}
    made = load_experiment(["-c", str(run.path / "config.yaml")])
    assert made.trainer.callbacks == experiment["trainer"]["callbacks"] and made.stages[0].head == "halved"
    assert made.stages[1].objective == experiment["stages"][1]["objective"]
    calls = sys.modules["tiny_plugins.second"].CALLS  # by the sample grids, a row and a scale at a time
    assert {shape for shape, _, _ in calls} == {(1, 1, 16), (1, 4, 16)} and {name for _, name, _ in calls} == {"second"}
    assert run.metrics()["judges"]["reddish"]["title"] == "share that is more red than blue"
    verdicts = read_jsonl(run.evaluation / "judgements.jsonl")
    drawings = read_jsonl(run.evaluation / "drawings.jsonl")
    assert [row["id"] for row in verdicts] == [row["id"] for row in drawings if row["files"]]
    assert load_run(run.path, device="cpu").settings.visual.sampler == "second"  # type: ignore[union-attr]
    assert VARGPTModel(made.model).vision_tower.model.weight.shape == (16, 3, 8, 8)  # type: ignore[union-attr]


def test_sizes_that_a_tower_refuses(site: Path) -> None:
    assert VisionConfig(kind="average", picture_size=16, patch_size=8, width=4).squaring == "crop"
    with pytest.raises(UserError, match=r"vision.width: got 6, expected a multiple of 4"):
        VisionConfig(kind="average", picture_size=16, patch_size=8, width=6)


def classed(path: str, **arguments: Any) -> Stage:
    return Stage("a", ["language_model"], {"x": 1}, steps=1, objective={"class_path": path, "init_args": arguments})


CLASSED = [
    ("tiny_plugins.halved.Scaled", {}, r"Scaled' is no class of .*StageModule; there are .*mean 'ScaledModule'"),
    ("tiny_plugins.halved.NoModule", {}, r"NoModule' is no class of vargpt_lightning.modules.base.StageModule"),
    ("tiny_plugins.none.X", {}, r"tiny_plugins.none cannot be imported: ModuleNotFoundError"),
    ("tiny_plugins.halved.ScaledModule", {}, r"ScaledModule: missing a required argument: 'factor'"),
    ("tiny_plugins.halved.HalvedModule", {"more": 1}, r"HalvedModule: got an unexpected keyword argument 'more'"),
    ("tiny_plugins.halved.ScaledModule", {"factor": 1, "stage": 2}, r"have 'stage', which every objective is given"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "arguments", "told"), CLASSED, ids=[told for _, _, told in CLASSED])
def test_classes_that_are_no_objectives_are_refused(
    path: str, arguments: dict[str, Any], told: str, site: Path
) -> None:
    with pytest.raises(UserError, match=rf"^stages.a.objective: .*{told}") as error:
        check_objective(classed(path, **arguments))
    assert "\n" not in str(error.value)


def test_an_objective_of_no_installed_package_is_refused_when_the_experiment_is_read(
    tiny_experiment: dict[str, Any], tmp_path: Path
) -> None:
    """Nothing beside an experiment is run, wherever Python would find it."""
    (tmp_path / "beside.py").write_text("raise SystemExit('run')")
    tiny_experiment["stages"] = [tiny_experiment["stages"][1] | {"objective": {"class_path": "beside.Module"}}]
    tiny_experiment["stages"][0]["objective"]["init_args"] = {"factor": 2}
    file = write_experiment(tmp_path / "tiny.yaml", tiny_experiment)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        with pytest.raises(UserError, match=r"stages.base.objective: .*no installed package has 'beside'"):
            load_experiment(file, "--stages.base.steps=3")
    assert "beside" not in sys.modules
    with pytest.raises(UserError, match=r"stages.a.objective: \{'class': 'x'\}; expected class_path"):
        Stage("a", ["language_model"], {"x": 1}, steps=1, objective={"class": "x"})


def test_a_plan_refuses_a_bad_objective_before_it_plans(
    experiment: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment["stages"][1]["objective"]["init_args"] = {}
    experiment["plan"] = {"corpora": {name: {"samples": 3, "text": 8} for name in experiment["stages"][1]["data"]}}
    file = write_experiment(tmp_path / "tiny.yaml", experiment)
    assert main(["plan", str(file), "--gpus", "H100"]) == 2
    told = capsys.readouterr()
    assert "stages.scaled.objective: tiny_plugins.halved.ScaledModule: missing a required argument" in told.err
    assert "base" not in told.out


def test_an_objective_counts_towards_a_stages_hash_where_one_is_given(
    experiment: dict[str, Any], tmp_path: Path
) -> None:
    made = load_experiment(["-c", str(write_experiment(tmp_path / "tiny.yaml", experiment))])
    contents = StageContents(made, 1)
    assert "objective" not in contents.settings(0)["stage"] and contents.settings(1)["stage"]["objective"]
    before = contents.hashes
    made.stages[1].objective = {"class_path": "tiny_plugins.halved.ScaledModule", "init_args": {"factor": 2}}
    after = StageContents(made, 1).hashes
    assert after[0] == before[0] and after[1] != before[1]


def other(site: Path, group: str, entry: str, **files: str) -> None:
    """Install another package with one entry point and modules."""
    project = f'[project]\nname = "other"\nversion = "3"\n[project.entry-points."vargpt_lightning.{group}"]\n{entry}\n'
    install(
        site,
        project,
        {f"other_package/{name}.py": text for name, text in files.items()} | {"other_package/__init__.py": ""},
    )


REFUSED = [
    ('mme = "other_package.a"', "", r"other 3 \(other_package.a\) has the name of a built-in one, 'mme'"),
    ('all = "other_package.a"', "", r"other 3 .* has the name of a built-in one, 'all'"),
    ('"my bench" = "other_package.a"', "", r"other 3 .*'my bench'; expected a name of its own, of letters"),
    ('parity = "other_package.a"', "", r"Tiny.Plugins 1.2 .* other 3 .*same name, 'parity'.*uninstall one"),
    ('dots = "other_package.b"', "", r"'dots': other 3 \(other_package.b\) cannot be imported: ModuleNotFoundError"),
    ('dots = "other_package.a"', "1 / 0", r"'dots': other 3 .* cannot be imported: ZeroDivisionError: division by"),
    ('dots = "other_package.a:x"', "x = 1", r"other 3 .* is no module; expected an entry point such as dots = 'other"),
    ('dots = "other_package.a"', "NAME = 'dots'", r"other 3 .* lacks TITLE, .*score, aggregate; expected NAME, TITLE"),
    ('dots = "other_package.a"', PARITY + "\nscore = 3", r"other 3 .*: score is no function"),
    ('dots = "other_package.a"', PARITY, r"other 3 .* has the NAME 'parity'; expected the entry point's, 'dots'"),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "text", "told"), REFUSED, ids=[told for _, _, told in REFUSED])
def test_a_package_that_cannot_be_used_is_refused(entry: str, text: str, told: str, tmp_path: Path) -> None:
    install(tmp_path, PROJECT, FILES)
    other(tmp_path, "benchmarks", entry, a=text)
    name = entry.partition("=")[0].strip().strip('"')
    with on_the_path(tmp_path):
        assert name in benchmarks.names() or name == "all"
        with pytest.raises(UserError, match=told) as error:
            benchmarks.get(name)
        assert "\n" not in str(error.value)
        assert benchmarks.get("pope").NAME == "pope", "one bad package spoils no other name"


def test_towers_sources_and_objectives_are_refused_alike(tmp_path: Path) -> None:
    for group, entry in (("towers", 'clip = "other_package.a"'), ("sources", 'llava = "other_package.a"')):
        other(tmp_path / group, group, entry, a="NAME = 'x'")
    other(tmp_path / "objectives", "objectives", 'wrong = "other_package.a:Wrong"', a="class Wrong: ...")
    with (
        on_the_path(tmp_path / "towers"),
        pytest.raises(UserError, match=r"other 3 .* the name of a built-in one, 'clip'"),
    ):
        VisionConfig(kind="clip", picture_size=224)
    with on_the_path(tmp_path / "sources"), pytest.raises(UserError, match=r"other 3 .* the name of a built-in one"):
        sources.get("llava")
    with (
        on_the_path(tmp_path / "objectives"),
        pytest.raises(UserError, match=r"other 3 .* is no subclass of .*StageModule"),
    ):
        heads.check_head("wrong")
        objective("wrong")


def test_what_cannot_be_used_is_told_before_anything_is_trained(
    experiment: dict[str, Any], site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (site / "tiny_plugins" / "halved.py").write_text("raise RuntimeError('too old')")
    assert main(["fit", "-c", str(write_experiment(tmp_path / "tiny.yaml", experiment))]) == 2
    told = capsys.readouterr().err
    assert "head 'halved': Tiny.Plugins 1.2 (tiny_plugins.halved:HalvedModule) cannot be imported" in told
    assert "RuntimeError: too old" in told and not list((tmp_path / "runs/tiny").glob("stages/*/checkpoint*"))
