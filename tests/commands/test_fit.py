"""`vargpt fit` killed, stopped, repeated and changed: whatever happens, the same command ends with the same weights."""

from __future__ import annotations

import errno
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.ends import Place, run
from tests.tiny import assert_same_weights, tiny_tree, write_experiment
from vargpt_lightning.cli import main
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.data.shards.format import write_source
from vargpt_lightning.runs.folder import RunFolder, now

Tree = dict[str, Any]


@pytest.fixture(scope="module")
def experiment(tiny_data: Tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fit")
    return write_experiment(folder / "tiny.yaml", tiny_tree(tiny_data, folder / "runs"))


@pytest.fixture(scope="module")
def unbroken(experiment: Path) -> Path:
    """A run that nothing disturbed; nothing may change it."""
    torch.set_num_threads(1)
    assert main(["fit", "-c", str(experiment)]) == 0
    return experiment.parent / "runs" / "tiny"


@pytest.fixture
def unbroken_copy(unbroken: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(unbroken, tmp_path / "tiny"))


def fit(experiment: Path, root: Path, *more: str) -> list[str]:
    return ["fit", "-c", str(experiment), "--run.root", str(root), *more]


def training_rows(run: Path, stage: str) -> list[tuple[int, str, float]]:
    """A stage's losses: all but speeds, which nobody can repeat."""
    (folder,) = [folder for folder in RunFolder(run).stages() if folder.name == stage]
    return sorted(row for row in folder.metrics() if not row.name.startswith("throughput/"))


def sheets(run: Path) -> dict[str, bytes]:
    return {str(file.relative_to(run)): file.read_bytes() for file in run.glob("stages/*/samples/*.png")}


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    experiment: Path, unbroken: Path, tmp_path: Path
) -> None:
    assert main(fit(experiment, tmp_path)) == 0
    assert_same_weights(unbroken, tmp_path / "tiny")
    assert main(fit(experiment, tmp_path, "--run.name", "other", "--seed", "1")) == 0
    with pytest.raises(AssertionError, match="differ"):
        assert_same_weights(unbroken, tmp_path / "other")


PLACES = [
    Place("tokenizer", "data"),
    Place("tokenizer", "batch", 0),
    Place("tokenizer", "batch", 2),
    Place("tokenizer", "batch", 3),  # the codebook is made here
    Place("tokenizer", "checkpoint", 5),
    Place("tokenizer", "sheet"),
    Place("tokenizer", "weights"),
    Place("base", "batch", 3),
    Place("base", "validation"),
    Place("base", "finished"),
    Place("draw", "batch", 1),
]


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_run_killed_anywhere_and_started_again_equals_an_unbroken_one(
    place: Place, experiment: Path, unbroken: Path, tmp_path: Path
) -> None:
    command = fit(experiment, tmp_path)
    assert run(command, tmp_path / "log", place, signal.SIGKILL) == -signal.SIGKILL
    assert RunFolder(tmp_path / "tiny").status == "interrupted"
    assert main(command) == 0
    assert RunFolder(tmp_path / "tiny").status == "finished"
    assert_same_weights(unbroken, tmp_path / "tiny")
    assert training_rows(tmp_path / "tiny", place.stage) == training_rows(unbroken, place.stage)
    assert sheets(tmp_path / "tiny") == sheets(unbroken)


def test_a_run_read_by_workers_from_shards_is_the_same_after_a_kill(
    tiny_data: Tree, tmp_path: Path, capfd: Any
) -> None:
    """Two corpora mixed by count, several shards each, whatever the workers had read ahead when it was killed."""
    tree = tiny_tree(tiny_data, tmp_path)
    for number, name in enumerate(("questions", "drawings")):
        records = ShardDataset(tiny_data["train"][name])
        write_source(records, tmp_path / name, split="train", shard_bytes=3000 + 2000 * number)
        tree["data"]["init_args"]["train"][name] = str(tmp_path / name)
    tree["data"]["init_args"] |= {"cache_features": False, "shuffle_shards": 2}
    tree["stages"] = [tree["stages"][1] | {"steps": None, "epochs": 2, "mixture": "counts"}]
    tree["stages"][0]["data"] = {"questions": 13, "drawings": 5}
    file = write_experiment(tmp_path / "streamed.yaml", tree)
    assert main(fit(file, tmp_path / "whole")) == 0
    said = capfd.readouterr().out
    assert "stage base: 7 steps, samples: 12 x drawings (1.333 times), 30 x questions (3.333 times)" in said
    command = fit(file, tmp_path / "killed", "--data.workers", "2", "--data.prefetch", "3")
    assert run(command, tmp_path / "log", Place("base", "batch", 3), signal.SIGKILL) == -signal.SIGKILL
    assert main([*command[:-3], "1", *command[-2:]]) == 0
    assert "resumes after step 3 of 7" in capfd.readouterr().out
    assert_same_weights(tmp_path / "whole/tiny", tmp_path / "killed/tiny")
    (stage,) = RunFolder(tmp_path / "killed/tiny").stages()
    assert stage.record["data"]["questions"] == {"records": 9, "samples": 30, "times": 3.333}


def test_a_killed_stage_goes_on_from_its_checkpoint(experiment: Path, tmp_path: Path, capfd: Any) -> None:
    """Not from its beginning, which would end with the same weights."""
    command = fit(experiment, tmp_path)
    run(command, tmp_path / "log", Place("base", "batch", 4), signal.SIGKILL)
    assert main(command) == 0
    said = capfd.readouterr().out
    assert "stage tokenizer: finished before, skipped" in said
    assert "stage base: resumes after step 4 of 6" in said


def test_accumulated_gradients_are_not_cut_by_a_checkpoint(experiment: Path, unbroken: Path, tmp_path: Path) -> None:
    """Checkpoints are due after each of a step's two batches, and are saved after the second."""
    command = fit(experiment, tmp_path)
    run(command, tmp_path / "log", Place("base", "checkpoint", 3), signal.SIGKILL)
    checkpoint = torch.load(tmp_path / "tiny/stages/02-base/last.ckpt", weights_only=True)
    batches = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"]
    assert (checkpoint["global_step"], batches) == (2, 4)


@pytest.mark.parametrize(
    "place",
    [Place("tokenizer", "batch", 2), Place("base", "batch", 3), Place("base", "batch", 5), Place("base", "sheet")],
    ids=str,
)
def test_sigterm_ends_the_run_with_143_and_it_goes_on_later(
    place: Place, experiment: Path, unbroken: Path, tmp_path: Path
) -> None:
    command = fit(experiment, tmp_path)
    assert run(command, tmp_path / "log", place, signal.SIGTERM) == 143
    folder = RunFolder(tmp_path / "tiny")
    assert folder.record["status"] == "interrupted"
    assert folder.stages()[-1].name == place.stage, "no further stage was begun"
    if place.moment == "batch":
        assert folder.stages()[-1].record["status"] == "interrupted"
        step = torch.load(folder.stages()[-1].checkpoint, weights_only=True)["global_step"]
        assert step == place.step + 1, "the batch was finished, and saved"
    assert main(command) == 0
    assert_same_weights(unbroken, tmp_path / "tiny")
    assert sheets(tmp_path / "tiny") == sheets(unbroken)


@pytest.mark.parametrize("moment", ["data", "evaluation"])
def test_sigterm_between_the_batches_ends_the_run_too(moment: str, experiment: Path, tmp_path: Path) -> None:
    command = fit(experiment, tmp_path, "--evaluation.enabled", "true")
    assert run(command, tmp_path / "log", Place("draw", moment), signal.SIGTERM) == 143
    assert RunFolder(tmp_path / "tiny").record["status"] == "interrupted"
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_finished_run_is_left_as_it_is(experiment: Path, unbroken_copy: Path, capfd: Any) -> None:
    times = {file: file.stat().st_mtime_ns for file in unbroken_copy.glob("stages/*/*")}
    assert main(fit(experiment, unbroken_copy.parent)) == 0
    assert {file: file.stat().st_mtime_ns for file in unbroken_copy.glob("stages/*/*")} == times
    assert capfd.readouterr().out.count("finished before, skipped") == 3


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        (
            "--model.decoder.depth",
            "3",
            "stage 'tokenizer' was finished with other settings: model.decoder.depth was 2, is 3",
        ),
        ("--seed", "4", "seed was 0, is 4"),
        ("--data.init_args.seen_variants", "2", "data.seen_variants was 1, is 2"),
    ],
)
def test_changed_settings_of_a_finished_stage_are_refused(
    option: str, value: str, told: str, experiment: Path, unbroken_copy: Path, capfd: Any
) -> None:
    before = sorted(unbroken_copy.rglob("*"))
    assert main(fit(experiment, unbroken_copy.parent, option, value)) == 2
    said = capfd.readouterr().err
    assert told in said
    assert "--from tokenizer" in said
    assert sorted(unbroken_copy.rglob("*")) == before


def test_a_changed_stage_is_refused_and_the_stages_before_it_are_not(
    tiny_data: Tree, unbroken_copy: Path, tmp_path: Path, capfd: Any
) -> None:
    tree = tiny_tree(tiny_data, tmp_path)
    tree["stages"][1]["optimizer"]["lr"] = 0.004
    changed = write_experiment(tmp_path / "changed.yaml", tree)
    assert main(["fit", "-c", str(changed)]) == 2
    said = capfd.readouterr().err
    assert "stage 'base' was finished with other settings: stage.optimizer.lr was 0.003, is 0.004" in said
    assert "--from base" in said
    assert main(["fit", "-c", str(changed), "--from", "base"]) == 0
    assert "stage tokenizer: finished before, skipped" in capfd.readouterr().out


def test_a_stage_that_left_the_plan_is_refused(
    tiny_data: Tree, unbroken_copy: Path, tmp_path: Path, capfd: Any
) -> None:
    tree = tiny_tree(tiny_data, tmp_path)
    del tree["stages"][1]
    assert main(["fit", "-c", str(write_experiment(tmp_path / "shorter.yaml", tree))]) == 2
    assert "stage 'base' was finished as stage 2, which now is 'draw'" in capfd.readouterr().err
    del tree["stages"][1]
    assert main(["fit", "-c", str(write_experiment(tmp_path / "shorter.yaml", tree))]) == 2
    assert "stage 'base' was finished as stage 2, which now is none" in capfd.readouterr().err


def test_settings_of_the_evaluation_may_change(experiment: Path, unbroken_copy: Path) -> None:
    more = ["--sampling.cfg", "3", "--trainer.log_every", "5", "--evaluation.names", "3"]
    assert main(fit(experiment, unbroken_copy.parent, *more)) == 0


def test_from_a_stage_trains_it_anew_and_keeps_the_old_one(
    experiment: Path, unbroken: Path, unbroken_copy: Path, capfd: Any
) -> None:
    old = (unbroken_copy / "stages/02-base/model.safetensors").read_bytes()
    kept = (unbroken_copy / "stages/01-tokenizer/model.safetensors").stat().st_mtime_ns
    run = RunFolder(unbroken_copy)
    run.update(durations={"tokenizer": 1000.0, "base": 2000.0, "evaluation": 3000.0})
    assert main(fit(experiment, unbroken_copy.parent, "--from", "base")) == 0
    durations = run.record["durations"]
    assert durations.pop("tokenizer") >= 1000 and all(seconds < 1000 for seconds in durations.values()), "set aside too"
    assert "02-base, 03-draw: moved to" in capfd.readouterr().out
    assert (unbroken_copy / "stages/01-tokenizer/model.safetensors").stat().st_mtime_ns == kept
    (replaced,) = unbroken_copy.glob("replaced/*")
    assert sorted(path.name for path in replaced.iterdir()) == ["02-base", "03-draw"]
    assert (replaced / "02-base/model.safetensors").read_bytes() == old
    assert_same_weights(unbroken, unbroken_copy)


def test_from_the_first_stage_with_other_data_makes_the_text_tokenizer_anew(
    tiny_data: Tree, unbroken_copy: Path, tmp_path: Path
) -> None:
    from vargpt_lightning.data.text.text_tokenizer import TextTokenizer

    tree = tiny_tree(tiny_data, tmp_path)
    TextTokenizer.train(["quite other words " * 9], 280).save(tmp_path / "other")
    tree["data"]["init_args"]["tokenizer"] = str(tmp_path / "other")
    tree["stages"] = tree["stages"][:1]
    file = write_experiment(tmp_path / "other.yaml", tree)
    assert main(["fit", "-c", str(file), "--from", "tokenizer"]) == 0
    made = (tmp_path / "other/tokenizer.json").read_bytes()
    assert (unbroken_copy / "tokenizer/tokenizer.json").read_bytes() == made


def test_a_text_tokenizer_that_no_stage_has_used_is_made_anew(tiny_data: Tree, tmp_path: Path) -> None:
    """After a mistake in the tokens' numbers the data may change too."""
    from vargpt_lightning.data.text.text_tokenizer import TextTokenizer

    tree = tiny_tree(tiny_data, tmp_path)
    tree["stages"] = tree["stages"][:1]
    tree["model"]["tokens"]["pad"] = 9
    assert main(["fit", "-c", str(write_experiment(tmp_path / "tiny.yaml", tree))]) == 2
    TextTokenizer.train(["quite other words " * 9], 280).save(tmp_path / "other")
    tree["data"]["init_args"]["tokenizer"] = str(tmp_path / "other")
    tree["model"]["tokens"]["pad"] = 0
    assert main(["fit", "-c", str(write_experiment(tmp_path / "tiny.yaml", tree))]) == 0
    made = (tmp_path / "other/tokenizer.json").read_bytes()
    assert (tmp_path / "tiny/tokenizer/tokenizer.json").read_bytes() == made


def test_stages_after_a_gap_are_set_aside(experiment: Path, unbroken: Path, unbroken_copy: Path) -> None:
    """A later stage's weights belong to those of the stage before it; without these they are trained again."""
    shutil.rmtree(unbroken_copy / "stages" / "02-base")
    assert main(fit(experiment, unbroken_copy.parent)) == 0
    assert [path.name for path in unbroken_copy.glob("replaced/*/*")] == ["03-draw"]
    assert_same_weights(unbroken, unbroken_copy)


def test_a_full_disk_keeps_the_checkpoint_before_and_says_so(
    experiment: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    from vargpt_lightning.callbacks import checkpoint_io

    save = torch.save

    def fill(checkpoint: Tree, file: Any) -> None:
        if checkpoint["global_step"] == 4:
            file.write(b"as much as there is room for")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(checkpoint, file)

    monkeypatch.setattr(checkpoint_io.torch, "save", fill)
    assert main(fit(experiment, tmp_path)) == 2
    monkeypatch.undo()
    said = capfd.readouterr().err
    (line,) = [line for line in said.splitlines() if line.startswith("vargpt: error:")]
    assert "stages/01-tokenizer/last.ckpt: the checkpoint cannot be written (No space left on device)" in line
    assert "the checkpoint before it is kept" in line
    assert "Traceback" not in said
    stage = tmp_path / "tiny/stages/01-tokenizer"
    assert torch.load(stage / "last.ckpt", weights_only=True)["global_step"] == 3
    assert not list(stage.glob(".*tmp")), "what was half written is gone"
    assert RunFolder(tmp_path / "tiny").status == "failed"
    assert main(fit(experiment, tmp_path)) == 0
    assert_same_weights(unbroken, tmp_path / "tiny")


def test_a_full_disk_while_weights_are_written_loses_no_step(
    experiment: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    from vargpt_lightning.checkpoints import stage_weights

    def refuse(*args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stage_weights, "write_safetensors", refuse)
    assert main(fit(experiment, tmp_path)) == 2
    monkeypatch.undo()
    assert "01-tokenizer/model.safetensors: cannot be written" in capfd.readouterr().err
    assert main(fit(experiment, tmp_path)) == 0
    assert "stage tokenizer: resumes after step 5 of 6" in capfd.readouterr().out
    assert_same_weights(unbroken, tmp_path / "tiny")


def test_a_broken_checkpoint_is_named(experiment: Path, tmp_path: Path, capfd: Any) -> None:
    command = fit(experiment, tmp_path)
    run(command, tmp_path / "log", Place("tokenizer", "batch", 3), signal.SIGKILL)
    checkpoint = tmp_path / "tiny/stages/01-tokenizer/last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    assert main(command) == 2
    assert "01-tokenizer/last.ckpt: is broken, or not a checkpoint" in capfd.readouterr().err
    checkpoint.unlink()
    assert main(command) == 0


def test_weights_can_be_read_by_whom_the_record_can(unbroken: Path) -> None:
    stage = unbroken / "stages/01-tokenizer"
    modes = {(stage / name).stat().st_mode for name in ("stage.json", "model.safetensors")}
    assert len(modes) == 1


def test_checkpoints_hold_nothing_but_plain_values(experiment: Path, tmp_path: Path) -> None:
    """They load without running code, with the states of the average, the stage and the optimizer."""
    command = fit(experiment, tmp_path)
    run(command, tmp_path / "log", Place("base", "batch", 2), signal.SIGKILL)
    loaded = torch.load(tmp_path / "tiny/stages/02-base/last.ckpt", weights_only=True)
    states = {key.partition("{")[0]: value for key, value in loaded["callbacks"].items()}
    assert states["StageScheduler"] == {"active": "base", "index": 1, "first_step": 0}
    assert states["EMA"]["averages"]
    assert loaded["optimizer_states"][0]["state"]


def test_a_run_that_is_being_trained_is_left_alone(experiment: Path, unbroken_copy: Path, capfd: Any) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            run = RunFolder(unbroken_copy)
            attempt = run.record["attempts"][-1] | {"pid": other.pid, "started": now()}
            run.update(status="running", attempts=[attempt])
            assert main(fit(experiment, unbroken_copy.parent)) == 2
            assert f"process {other.pid} is working on this run" in capfd.readouterr().err
        finally:
            other.kill()
    assert main(fit(experiment, unbroken_copy.parent)) == 0


def test_output_is_the_runs_own(experiment: Path, tmp_path: Path) -> None:
    """Lightning's tips and warnings are hidden, and shown with --debug."""
    noise = ["GPU available", "Tip:", "module(s) in eval mode", "exists and is not empty", "stopped: `max_steps"]
    noise += ["weights_only", "limit_val_batches", "Warning"]
    assert run(fit(experiment, tmp_path), tmp_path / "log") == 0
    said = (tmp_path / "log").read_text()
    assert [word for word in noise if word in said] == []
    assert "stage 1 of 3: tokenizer" in said and "[draw] step 4/4" in said
    assert run([*fit(experiment, tmp_path, "--run.name", "loud"), "--debug"], tmp_path / "log") == 0
    assert all(word in (tmp_path / "log").read_text() for word in noise[:3])


def test_help_is_readable_and_has_an_example(capfd: Any) -> None:
    assert main(["fit", "--help"]) == 0
    said = capfd.readouterr().out
    assert said.startswith("usage: vargpt fit -c EXPERIMENT.yaml")
    assert "\n  vargpt fit -c experiments/openmoji.yaml\n" in said
    assert "--help all" in said
    assert main(["fit", "--help", "all"]) == 0
    assert "--trainer.checkpoint_seconds" in capfd.readouterr().out
