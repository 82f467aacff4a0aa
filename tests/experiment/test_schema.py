"""An experiment file read and checked: what wins over what, what is linked, and one line for each mistake."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tiny import write_experiment
from vargpt_lightning.data.corpora import LoaderSettings, Packed
from vargpt_lightning.experiment.parser import load_experiment
from vargpt_lightning.experiment.schema import EvaluationConfig, TrainerConfig
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.ranges import hints

Tree = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def file(tiny_experiment: Tree, tmp_path: Path) -> Path:
    return write_experiment(tmp_path / "tiny.yaml", tiny_experiment)


def refused(file: Path, *more: str) -> str:
    """The message about a file, with its path left out."""
    with pytest.raises(UserError) as error:
        load_experiment(["-c", str(file), *more])
    message = str(error.value)
    assert "\n" not in message
    return message.removeprefix(f"{file}: ")


def test_an_experiment_is_made_of_its_file(file: Path, tiny_experiment: Tree) -> None:
    made = load_experiment(["-c", str(file)])
    assert made.model.to_dict()["language"]["width"] == 32 and made.model.tokenizer.scales in ([1, 2], (1, 2))
    assert [stage.name for stage in made.stages] == ["tokenizer", "base", "draw"]
    assert made.stages[2].optimizer.name == "muon" and made.stages[1].schedule.name == "cosine"
    assert set(made.data.names) == {"questions", "drawings", "pictures"}
    assert (made.trainer.checkpoint_seconds, made.seed, made.run.name) == (0, 0, "tiny")
    assert made.files == [str(file)]


def test_the_command_line_wins_over_the_file(file: Path) -> None:
    made = load_experiment(["-c", str(file), "--seed", "3", "--model.decoder.depth=5", "--run.name", "7"])
    assert (made.seed, made.model.decoder.depth, made.run.name) == (3, 5, "7")


def test_a_linked_value_follows_an_override_of_what_it_is_linked_to(file: Path, tiny_experiment: Tree) -> None:
    """jsonargparse's plain `omegaconf` mode resolves links first: the linked values then keep what the file said."""
    tiny_experiment["model"]["decoder"]["width"] = "${model.language.width}"
    tiny_experiment["data"]["init_args"]["seen_variants"] = "${model.language.layers}"
    write_experiment(file, tiny_experiment)
    made = load_experiment(["-c", str(file)])
    assert (made.model.decoder.width, made.data.seen_variants) == (32, 1)
    made = load_experiment(["-c", str(file), "--model.language.width", "64", "--model.language.layers", "3"])
    assert (made.model.language.width, made.model.decoder.width, made.data.seen_variants) == (64, 64, 3)


def test_the_shipped_experiments_link_the_tokenizers_size_to_the_models() -> None:
    file = str(ROOT / "experiments" / "debug.yaml")
    made = load_experiment(["-c", file, "--model.language.vocabulary", "900"])
    assert (made.model.language.vocabulary, made.data.vocabulary) == (900, 900)  # type: ignore[attr-defined]


def test_a_file_starts_from_its_base_and_wins_over_it(file: Path, tmp_path: Path) -> None:
    tree = {"base": "tiny.yaml", "seed": 5, "model": {"decoder": {"depth": 3}}}
    made = load_experiment(["-c", str(write_experiment(tmp_path / "derived.yaml", tree))])
    assert (made.seed, made.model.decoder.depth, made.model.decoder.width) == (5, 3, 32)
    tree = {"base": "derived.yaml", "seed": 6}
    made = load_experiment(["-c", str(write_experiment(tmp_path / "again.yaml", tree))])
    assert (made.seed, made.model.decoder.depth) == (6, 3)


def test_a_list_of_stages_takes_nothing_from_its_bases_list(file: Path, tiny_experiment: Tree, tmp_path: Path) -> None:
    """Neither the stage in the same place nor keys within its keys.

    jsonargparse fills items from those in the same places of a list before that is as long; others are here too.
    """
    first = tiny_experiment["stages"][0]
    first |= {"schedule": {"name": "constant", "warmup": 2}, "ema": 0.5, "accumulate": 3, "records": 7}
    first["optimizer"] = {"name": "muon", "lr": 0.5, "clip": 0.25}
    write_experiment(file, tiny_experiment)
    own = {"name": "words", "train": ["language_model"], "head": "understanding", "data": {"questions": 1}, "epochs": 2}
    own["optimizer"] = {"lr": 0.125}
    for stages in ([own, *tiny_experiment["stages"][1:]], [own], [own, *tiny_experiment["stages"]]):
        alone = write_experiment(tmp_path / "alone.yaml", tiny_experiment | {"stages": stages})
        derived = write_experiment(tmp_path / "derived.yaml", {"base": "tiny.yaml", "stages": stages})
        expected = load_experiment(["-c", str(alone)]).stages
        assert (expected[0].data, expected[0].steps, expected[0].ema) == ({"questions": 1}, None, None)
        assert (expected[0].optimizer.name, expected[0].optimizer.clip) == ("adamw", 1.0)
        assert load_experiment(["-c", str(derived)]).stages == expected
        if len(stages) == len(tiny_experiment["stages"]):
            assert load_experiment(["-c", str(file), "-c", str(alone)]).stages == expected
            assert load_experiment(["-c", str(file), f"--stages={stages}"]).stages == expected


def test_stages_that_are_added_take_nothing_from_those_before(
    file: Path, tiny_experiment: Tree, tmp_path: Path
) -> None:
    more = {"name": "more", "train": ["visual_decoder"], "data": {"drawings": 1}, "steps": 1}
    derived = write_experiment(tmp_path / "derived.yaml", {"base": "tiny.yaml", "stages+": [more]})
    alone = write_experiment(tmp_path / "alone.yaml", tiny_experiment | {"stages": [*tiny_experiment["stages"], more]})
    assert load_experiment(["-c", str(derived)]).stages == load_experiment(["-c", str(alone)]).stages


def test_the_run_is_named_after_the_file(tiny_experiment: Tree, tmp_path: Path) -> None:
    del tiny_experiment["run"]["name"]
    file = write_experiment(tmp_path / "some_name.yaml", tiny_experiment)
    assert load_experiment(["-c", str(file)]).run.name == "some_name"


def test_the_resolved_text_makes_the_same_experiment(file: Path, tmp_path: Path) -> None:
    made = load_experiment(["-c", str(file), "--seed", "3"])
    again = tmp_path / "resolved.yaml"
    again.write_text(made.resolved)
    assert yaml.safe_load(made.resolved)["seed"] == 3
    other = load_experiment(["-c", str(again)])
    assert other.stage_basis() == made.stage_basis() and other.stages == made.stages


def test_the_keys_that_corpora_share_follow_their_own(file: Path) -> None:
    written = list(yaml.safe_load(load_experiment(["-c", str(file)]).resolved)["data"]["init_args"])
    shared = [entry.name for entry in fields(LoaderSettings)]
    assert written == list(hints(Packed)) == ["train", "val", "tokenizer", "vocabulary", *shared] and len(shared) == 11


def test_numbers_with_an_exponent_are_numbers(file: Path, tiny_experiment: Tree) -> None:
    """YAML reads 1e-3 as a text."""
    tiny_experiment["stages"][0]["optimizer"]["lr"] = "1e-3"
    assert load_experiment(["-c", str(write_experiment(file, tiny_experiment))]).stages[0].optimizer.lr == 1e-3


def test_what_no_stage_depends_on_is_not_part_of_the_basis(file: Path) -> None:
    basis = load_experiment(["-c", str(file)]).stage_basis()
    more = ["--trainer.log_every", "7", "--data.init_args.workers", "2", "--evaluation.names", "1", "--run.name", "b"]
    assert load_experiment(["-c", str(file), *more]).stage_basis() == basis
    assert load_experiment(["-c", str(file), "--trainer.precision", "bf16-mixed"]).stage_basis() != basis


def set_at(tree: Tree, path: str, value: Any) -> None:
    *keys, last = path.split(".")
    place: Any = tree
    for key in keys:
        place = place[int(key) if key.isdigit() else key]
    place[last] = value


MISTAKES = [
    ("modle", {}, "modle is not a key; did you mean 'model'?"),
    ("model.langauge", {}, "model.langauge is not a key; did you mean 'language'?"),
    ("model.language.widht", 3, "model.language.widht is not a key; did you mean 'width'?"),
    ("stages.0.tran", [], "stages.tokenizer.tran is not a key; did you mean 'train'?"),
    ("stages.1.optimizer.lrr", 1, "stages.base.optimizer.lrr is not a key; did you mean 'lr'?"),
    ("stages.1.lr", 1, "stages.base.lr is not a key; did you mean 'optimizer.lr'?"),
    ("data.init_args.workrs", 1, "data.init_args.workrs is not a key; did you mean 'workers'?"),
    ("data.init_arg", {}, "data.init_arg is not a key; did you mean 'init_args'?"),
    ("run.qqqqq", 1, "run.qqqqq is not a key; there are root, name"),
    ("model.language.width", "wide", "model.language.width='wide'; expected a whole number"),
    ("model.language.width", 6.5, "model.language.width=6.5; expected a whole number"),
    ("model.language.width", True, "model.language.width=True; expected a whole number"),
    ("model.language.mlp", "x", "model.language.mlp='x'; expected a whole number from 1 to 1,048,576 or null"),
    ("model.vision.kind", "clipp", "model.vision.kind: got 'clipp', expected one of clip, dinov2, dinov3,"),
    ("model.tokenizer.scales", 5, "model.tokenizer.scales=5; expected a list, each a whole number"),
    ("model.tokenizer.scales", ["a"], "model.tokenizer.scales=['a']; expected a list, each a whole number"),
    ("model.language", 7, "model.language=7; expected the keys width, layers"),
    ("stages.0.optimizer", {"lr": "fast"}, "stages.tokenizer.optimizer.lr='fast'; expected a number"),
    (
        "stages.0.optimizer",
        {"betas": [0.9]},
        "stages.tokenizer.optimizer.betas=[0.9]; expected a list of 2, each a number",
    ),
    ("stages.0.train", "image_tokenizer", "stages.tokenizer.train='image_tokenizer'; expected a list, each a text"),
    (
        "stages.1.data",
        {"questions": "many"},
        "stages.base.data.questions='many'; expected a number from 0",
    ),
    ("stages", {}, "stages={}; expected a list, each a section with the keys name, train, data"),
    ("seed", "zero", "seed='zero'; expected a whole number"),
    ("run.name", 2024, "run.name=2024; expected a text or null"),
    ("evaluation.enabled", "perhaps", "evaluation.enabled='perhaps'; expected true or false"),
    (
        "data.class_path",
        "Opnmoji",
        "data.class_path='Opnmoji' cannot be imported; there are vargpt_lightning.data.corpora.",
    ),
    ("data.class_path", "pathlib.Path", "data.class_path='pathlib.Path' is no Corpora; there are "),
    ("data.class_path", "Corpora", "data.class_path='Corpora' cannot be imported; there are "),
    (
        "data.class_path",
        "vargpt_lightning.data.corpora.Corpora",
        "data.class_path='vargpt_lightning.data.corpora.Corpora' is abstract; there are vargpt_lightning.data.corpora.",
    ),
    ("workers", 1, "workers is not a key; there are base, seed, run"),
    ("data", "OpenMoji", "data='OpenMoji'; expected class_path (one of vargpt_lightning.data.corpora."),
    ("model.language.heads", 5, "model.language.heads: got 5, expected a divisor of the width 32"),
    ("trainer.log_every", 0, "trainer.log_every=0; expected a whole number from 1"),
    ("evaluation.draw_batch", 0, "evaluation.draw_batch=0; expected a whole number from 1"),
    (
        "stages.1.train",
        ["langauge_model"],
        "stages.base.train: 'langauge_model' is not a submodule; there are language_model, ",
    ),
    (
        "stages.1.data",
        {"qestions": 1},
        "stages.base.data: 'qestions' is not a corpus; there are drawings, pictures, questions",
    ),
    ("stages.1.name", "tokenizer", "stages: the name 'tokenizer' occurs twice"),
    ("stages.1.epochs", 2, "stages.base: epochs=2"),
    ("stages.2.packing", 1, "stages.draw.packing=1; expected true or false"),
    ("stages.2.packing", True, "stages.draw.packing=true; expected max_tokens beside it"),
    ("stages.2.max_tokens", 95, "stages.draw.max_tokens=95; expected at least model.language.max_positions=96"),
    ("stages", [], "stages: the list is empty"),
    (
        "data.init_args.workers",
        "${model.langauge.width}",
        "${model.langauge.width}: model.langauge is not a key; did you mean 'language'?",
    ),
]


@pytest.mark.parametrize(("path", "value", "told"), MISTAKES, ids=[f"{path}={value}" for path, value, _ in MISTAKES])
def test_a_mistake_in_a_file_is_told_in_one_line(
    path: str, value: Any, told: str, file: Path, tiny_experiment: Tree
) -> None:
    set_at(tiny_experiment, path, value)
    message = refused(write_experiment(file, tiny_experiment))
    assert message.startswith(told), message
    assert len(message) < 500


OPTIONS = [
    (["--model.language.widht", "3"], "--model.language.widht is not a key; did you mean 'width'?"),
    (["--modle.language.width=3"], "--modle is not a key; did you mean 'model'?"),
    (["--model.language.width", "wide"], "--model.language.width='wide'; expected a whole number"),
    (["--seed.x", "1"], "--seed has no keys below it; got 'x'"),
    (["--data.init_args.vocab", "3"], "--data.vocab is not a key; did you mean 'vocabulary'?"),
    (["--data.workers", "x"], "--data.workers='x'; expected a whole number"),
    (["--data.class_path", "Nothing"], "data.class_path='Nothing' cannot be imported"),
    (["--stages", "[{'name': 'a', 'trian': []}]"], "--stages.a.trian is not a key; did you mean 'train'?"),
    (["--evaluation.enabled", "maybe"], "--evaluation.enabled='maybe'; expected true or false"),
    (["tiny.yaml"], "'tiny.yaml' is not an option; an experiment is given as -c FILE"),
    (["--seed"], "--seed: expected a value after it"),
    (["--sampling.parts", "{spatail: {}}"], "sampling.part of a sampler: 'spatail'; there are"),
    (["--sampling.parts", "{weights: {values: [1]}}"], "sampling.parts.weights.values: got 1 values, expected one for"),
    (["--from", "basis"], "--from: 'basis' is not a stage; there are tokenizer, base, draw"),
]


@pytest.mark.parametrize(("words", "told"), OPTIONS, ids=[" ".join(words) for words, _ in OPTIONS])
def test_a_mistake_on_the_command_line_is_told_in_one_line(words: list[str], told: str, file: Path) -> None:
    assert refused(file, *words).startswith(told), refused(file, *words)


def test_options_that_are_right_are_not_refused(file: Path) -> None:
    words = ["--sampling.cfg", "null", "--trainer.devices", "[0]", "--data.workers=1", "--evaluation.enabled", "false"]
    words += ["--stages+", "{'name': 'x', 'train': ['visual_decoder'], 'data': {'drawings': 1}, 'steps': 1}"]
    made = load_experiment(["-c", str(file), *words])
    assert made.stages[-1].name == "x" and made.data.workers == 1 and made.trainer.devices == [0]


def test_parts_of_the_sampler_are_read(file: Path) -> None:
    parts = {"guided_scales": {"stop": 2}, "spatial": {}}
    made = load_experiment(["-c", str(file), "--sampling.parts", "{guided_scales: {stop: 2}, spatial: null}"])
    assert made.sampling.given_parts == parts


def test_packing_wants_attention_that_takes_masks(file: Path, tiny_experiment: Tree) -> None:
    tiny_experiment["stages"][2] |= {"packing": True, "max_tokens": 96}
    made = load_experiment(["-c", str(write_experiment(file, tiny_experiment))])
    assert made.stages[2].packing and made.stages[2].max_tokens == 96
    told = refused(file, "--model.language.attention", "flash_attention_2")
    assert told.startswith("stages.draw.packing=true with model.language.attention='flash_attention_2'; expected")


def test_missing_parts_are_named(file: Path, tiny_experiment: Tree) -> None:
    stage = tiny_experiment["stages"][0]
    del stage["name"]
    assert refused(write_experiment(file, tiny_experiment)) == "stages.0.name is missing; expected a text"
    stage["name"] = "tokenizer"
    del tiny_experiment["data"]
    assert refused(write_experiment(file, tiny_experiment)).startswith("data: nothing given; expected class_path")


def text_file(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a: [1\nb: 2", "line 2, column 2: is not valid YAML"),
        ("", "holds no keys"),
        ("- 1", "holds no keys"),
        (b"\xff\xfe\x00", "is not a text file"),
        ("base: missing.yaml", "missing.yaml, the base of"),
        ("base: 3", "base=3; expected the name of a file beside it"),
        ("base: bad.yaml", "its bases lead in a circle"),
    ],
)
def test_a_file_that_is_no_experiment_is_named(content: str | bytes, told: str, tmp_path: Path) -> None:
    message = refused(text_file(tmp_path / "bad.yaml", content))
    assert told in message and "bad.yaml" in message


def test_bases_that_lead_in_a_circle_over_other_folders_are_found(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    text_file(tmp_path / "below" / "b.yaml", "base: ../a.yaml")
    assert "its bases lead in a circle" in refused(text_file(tmp_path / "a.yaml", "base: below/b.yaml"))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "none.yaml cannot be read: No such file" in refused(tmp_path / "none.yaml")
    assert "cannot be read: Is a directory" in refused(tmp_path)
    with pytest.raises(UserError, match="-c: expected an experiment file after it"):
        load_experiment(["-c"])
    with pytest.raises(UserError, match="no experiment is given; expected -c FILE"):
        load_experiment(["--seed", "1"])


def test_bounds_are_checked() -> None:
    for section, values in ((TrainerConfig, {"samples": -1}), (EvaluationConfig, {"drawings_limit": -1})):
        with pytest.raises(UserError, match="=-1; expected a "):
            section(**values)
