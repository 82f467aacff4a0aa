"""A stage is known by all that it depends on: what its data, tokenizer and first weights hold, the batch of a step."""

from __future__ import annotations

import copy
import json
import os
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.data.conftest import png
from tests.tiny import tiny_tree, write_experiment
from vargpt_lightning.checkpoints.init_from import InitFrom, NewRows
from vargpt_lightning.data.corpora import Packed
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.data.shards.format import write_source
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer
from vargpt_lightning.experiment.parser import load_experiment
from vargpt_lightning.experiment.schema import Experiment
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.training.contents import StageContents
from vargpt_lightning.training.packages import changed_packages
from vargpt_lightning.training.resume import check_folder, content_hashes
from vargpt_lightning.training.reuse import StageReuse
from vargpt_lightning.utils.errors import UserError

Tree = dict[str, Any]
OLD = "a hash of another version"


@pytest.fixture(scope="module")
def parsed(tiny_data: Tree, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    folder = tmp_path_factory.mktemp("parsed")
    return load_experiment(["-c", str(write_experiment(folder / "tiny.yaml", tiny_tree(tiny_data, folder)))])


@pytest.fixture
def tiny(parsed: Experiment, tmp_path: Path) -> Experiment:
    """The tiny experiment on a copy of its data, which a test may change."""
    made = copy.deepcopy(parsed)
    made.run.root = str(tmp_path / "runs")
    data, here = packed(made), tmp_path / "data"
    for split in ("train", "val"):
        for name, folder in getattr(data, split).items():
            getattr(data, split)[name] = str(shutil.copytree(folder, here / f"{split}-{name}"))
    data.tokenizer = str(shutil.copytree(data.tokenizer, here / "tokenizer"))
    return made


def packed(experiment: Experiment) -> Packed:
    assert isinstance(experiment.data, Packed)
    return experiment.data


def repack(folder: str, change: Any) -> None:
    records = change(list(ShardDataset(folder)))
    shutil.rmtree(folder)
    write_source(records, Path(folder), split="train")


def fewer(records: list[Any]) -> list[Any]:
    return records[:-1]


def others(records: list[Any]) -> list[Any]:
    """As many records of the same names, with another picture in one of them."""
    files = [png("gold") if record is records[3] else record.pictures()[0].data for record in records]
    return [record.with_pictures([file]) for record, file in zip(records, files, strict=True)]


def trained(experiment: Experiment, name: str = "tiny", processes: int = 1, last: str = "finished") -> RunFolder:
    """A run whose stages are recorded as trained, the last one as it is said."""
    run = RunFolder.start(Path(experiment.run.root) / name)
    run.end("interrupted")
    contents = StageContents(experiment, processes)
    for index, stage in enumerate(experiment.stages):
        folder = run.stage(index + 1, stage.name)
        folder.update(hash=contents.hashes[index], settings=contents.settings(index), processes=processes)
        folder.update(status="finished" if index + 1 < len(experiment.stages) else last)
        folder.weights.write_text("weights")
    return run


def of_before(run: RunFolder, tiny: Experiment, drop: dict[str, tuple[str, ...]] | None = None) -> None:
    """Make the records of a run those of a version that recorded paths, and did not know some keys."""
    basis = tiny.stage_basis()
    for folder in run.stages():
        settings = folder.record["settings"]
        del settings["inputs"]
        settings["data"] = basis["data"]
        for section, keys in (drop or {}).items():
            settings[section] = {key: value for key, value in settings[section].items() if key not in keys}
        folder.update(settings=settings, hash=OLD)


def age(tiny: Experiment, seconds: float) -> None:
    """Let all files of the data be so much older."""
    for file in (Path(tiny.run.root).parent / "data").rglob("*"):
        moment = file.stat().st_mtime - seconds
        os.utime(file, (moment, moment))


def check(tiny: Experiment, processes: int | None = None) -> None:
    check_folder(Path(tiny.run.root) / "tiny", tiny, processes)


@pytest.mark.parametrize("change", [fewer, others])
@pytest.mark.parametrize("corpus", ["train.questions", "val.drawings"])
def test_other_data_at_the_same_path_are_refused_by_name(corpus: str, change: Any, tiny: Experiment) -> None:
    run, before = trained(tiny), content_hashes(tiny)
    check(tiny)
    split, name = corpus.split(".")
    folder = getattr(packed(tiny), split)[name]
    if split == "val" and change is others:
        change = reversed
    repack(folder, change)
    assert not set(content_hashes(tiny)) & set(before)
    with pytest.raises(UserError, match=rf"'tokenizer' was finished with other data: .*{name} \({split}\)") as told:
        check(tiny)
    assert f"{run.path}" in str(told.value) and "--from tokenizer" in str(told.value)
    assert ("records" in str(told.value)) == (change is fewer)


def test_another_text_tokenizer_is_refused(tiny: Experiment) -> None:
    trained(tiny)
    TextTokenizer.train(["other words"] * 3, 300).save(packed(tiny).tokenizer)
    with pytest.raises(UserError, match=r"with other data: .*tokenizer"):
        check(tiny)


def test_the_same_data_elsewhere_are_the_same(tiny: Experiment, tmp_path: Path) -> None:
    trained(tiny)
    before = content_hashes(tiny)
    data = packed(tiny)
    (tmp_path / "data").rename(tmp_path / "moved")
    for split in ("train", "val"):
        for name, folder in getattr(data, split).items():
            getattr(data, split)[name] = folder.replace("/data/", "/moved/")
    data.tokenizer = data.tokenizer.replace("/data/", "/moved/")
    assert content_hashes(tiny) == before
    check(tiny)


def test_first_weights_are_known_by_what_they_hold(tiny: Experiment, tmp_path: Path) -> None:
    def weights(path: Path, value: float) -> str:
        path.parent.mkdir(exist_ok=True)
        save_file({"weight": torch.full((3,), value)}, path)
        return str(path)

    def hashes(where: str, new_rows: NewRows = "mean") -> list[str]:
        return content_hashes(replace(tiny, init_from=InitFrom(language_model=where, new_rows=new_rows)))

    one = hashes(weights(tmp_path / "a" / "model.safetensors", 1.0))
    assert one != content_hashes(tiny)
    assert hashes(weights(tmp_path / "b" / "other.safetensors", 1.0)) == one
    assert hashes(weights(tmp_path / "a" / "model.safetensors", 2.0)) != one
    assert hashes(weights(tmp_path / "a" / "model.safetensors", 1.0), "normal") != one
    folder = hashes(str(tmp_path / "a"))
    shutil.copytree(tmp_path / "a", tmp_path / "c")
    assert hashes(str(tmp_path / "c")) == folder
    weights(tmp_path / "c" / "model.safetensors", 3.0)
    assert hashes(str(tmp_path / "c")) != folder


def test_first_weights_that_are_gone_are_told_and_do_not_stop_a_run(
    tiny: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file({"weight": torch.ones(3)}, tmp_path / "first.safetensors")
    tiny.init_from = InitFrom(language_model=str(tmp_path / "first.safetensors"))
    trained(tiny)
    (tmp_path / "first.safetensors").unlink()
    check(tiny)
    assert "init_from.language_model is not there any more" in capsys.readouterr().out


def test_the_number_of_processes_counts_with_the_batch_of_a_step(
    tiny: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    one = content_hashes(tiny, 1)
    assert not set(one) & set(content_hashes(tiny, 2))
    assert content_hashes(replace(tiny, trainer=replace(tiny.trainer, devices=2))) == content_hashes(tiny, 2)
    for stage in tiny.stages:
        stage.accumulate = 2
    assert content_hashes(tiny, 1) == content_hashes(replace(tiny, trainer=replace(tiny.trainer, devices=[0]))) != one
    trained(tiny, processes=2, last="running")
    with pytest.raises(UserError, match=r"'draw' was begun with other settings: processes was 2, is 1"):
        check(tiny, processes=1)
    assert "was finished with another number of processes (processes was 2, is 1" in capsys.readouterr().out
    check(tiny, processes=2)
    for stage in tiny.stages:
        stage.accumulate = 4
    check(tiny, processes=1)
    assert "resumes with the same global batch, divided in another way" in capsys.readouterr().out


LATER = {
    "stage": ("records", "chroma_weight", "lora"),
    "data": ("resizing", "drawn_fit"),
    "model": ("generation_projectors",),
}


def test_keys_that_came_later_stand_at_their_defaults(tiny: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    age(tiny, 60)
    of_before(trained(tiny), tiny, LATER)
    check(tiny)
    assert capsys.readouterr().out.count("data are older than the run, and are taken to be the same") == len(
        tiny.stages
    )
    check(tiny)
    assert capsys.readouterr().out == "", "what they held is recorded now"
    tiny.stages[1].records = 5
    with pytest.raises(UserError, match=r"'base' was finished with other settings: stage.records was None, is 5"):
        check(tiny)
    with pytest.raises(UserError, match=r"data.resizing was 'pillow', is 'torch'"):
        check(replace(tiny, data=replace(packed(tiny), resizing="torch")))


def test_data_that_changed_after_an_older_run_began_are_refused(tiny: Experiment) -> None:
    age(tiny, 60)
    run = trained(tiny)
    of_before(run, tiny)
    repack(packed(tiny).train["drawings"], others)
    age(tiny, -60)  # packed after the run began
    with pytest.raises(UserError, match=r"did not record what the data held: .*drawings \(train\) may be another"):
        check(tiny)
    age(tiny, 600)
    run.stage(1, "tokenizer").update(data={"drawings": {"records": 7}})
    with pytest.raises(UserError, match=r"drawings \(train\) had 7 records, has 9"):
        check(tiny)


def taken(wanted: Experiment, donor: RunFolder) -> int:
    """How many stages of a donor a new run takes over."""
    contents, run = StageContents(wanted), RunFolder.start(donor.path.parents[1] / "new" / "run")
    StageReuse(run, contents.hashes, [donor.path], contents).take_first([each.name for each in wanted.stages])
    count = len(run.stages())
    shutil.rmtree(run.path)
    return count


def test_stages_are_taken_over_if_their_data_are_the_same(tiny: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    age(tiny, 60)
    donor, count = trained(tiny), len(tiny.stages)
    assert taken(tiny, donor) == count
    assert taken(replace(tiny, seed=1), donor) == 0
    of_before(donor, tiny, LATER)
    assert taken(tiny, donor) == count, "keys that came later stand at their defaults"
    assert taken(replace(tiny, data=replace(packed(tiny), resizing="torch")), donor) == 0
    capsys.readouterr()
    repack(packed(tiny).train["questions"], others)
    age(tiny, -60)
    assert taken(tiny, donor) == 0
    assert "may have other data" in capsys.readouterr().out


def test_a_broken_record_of_another_run_is_skipped_with_a_line(
    tiny: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    donor, broken, count = trained(tiny), trained(tiny, "broken"), len(tiny.stages)
    for run in (donor, broken):  # so that records are compared, and not hashes alone
        for folder in run.stages():
            folder.update(hash=OLD)
    first = broken.stages()[0]
    listed = {**first.record, "settings": {**first.record["settings"], "stage": [1]}}
    contents = StageContents(tiny, 1)
    reuse = StageReuse(RunFolder.start(Path(tiny.run.root) / "new"), contents.hashes, [broken.path], contents)
    for text in ('{"status": "fini', json.dumps(listed), '{"settings": 3}'):
        (first.path / "stage.json").write_text(text)
        reuse._told.clear()
        assert not reuse._same(broken, broken.stages()[1])
        told = capsys.readouterr().out.splitlines()
        assert len(told) == 1, text
        assert str(first.path) in told[0] and f"{broken.path} is not reused" in told[0]
        assert not reuse._same(broken, broken.stages()[1]) and not capsys.readouterr().out, "it is told once"
    assert taken(tiny, donor) == count, "the next run is looked at"


def test_other_versions_of_a_package_are_told_and_change_no_hash(
    tiny: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    donor, contents = trained(tiny), StageContents(tiny, 1)
    assert contents.packages(0) == {}, "what is ours is left out"
    tiny.stages[1].objective = {"class_path": "lightning.pytorch.LightningModule"}
    now = StageContents(tiny, 1).packages(1)
    assert now == {"lightning": version("lightning")}
    assert changed_packages({"lightning": "1.0", "gone": "2"}, now) == (
        f"was trained with lightning 1.0 (now {now['lightning']})"
    )
    assert changed_packages(now, now) == changed_packages({}, now) == ""
    donor = trained(tiny)
    for folder in donor.stages():
        folder.update(packages={"lightning": "1.0"} if folder.index == 2 else {})
    capsys.readouterr()
    assert taken(tiny, donor) == len(tiny.stages)
    assert f"was trained with lightning 1.0 (now {now['lightning']})" in capsys.readouterr().out
    check(tiny)
    told = capsys.readouterr().out
    assert f"stage {tiny.stages[1].name}: was trained with lightning 1.0 (now {now['lightning']})" in told
