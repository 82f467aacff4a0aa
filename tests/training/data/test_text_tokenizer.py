"""The text tokenizer of a run, whose chat template the model's configuration asks for."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.data.text.own_tokenizers import FAMILIES
from tests.tiny import TREE, write_experiment
from vargpt_lightning.checkpoints.tokens import load_tokenizer
from vargpt_lightning.commands.data.show import open_model
from vargpt_lightning.data.shards.records import Record, TextPart, Turn
from vargpt_lightning.data.text.chat import ChatTemplate
from vargpt_lightning.data.text.text_tokenizer import TextTokenizer
from vargpt_lightning.experiment.parser import load_experiment
from vargpt_lightning.experiment.schema import Experiment
from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.training.data.datamodule import VARGPTDataModule
from vargpt_lightning.training.data.inputs import stage_inputs
from vargpt_lightning.training.data.text_tokenizer import run_tokenizer
from vargpt_lightning.utils.errors import UserError

TURNS = (Turn("user", (TextPart("Which colour?"),)), Turn("assistant", (TextPart("red"),)))
OWN = "<|im_start|>user\nWhich colour?<|im_end|>\n<|im_start|>assistant\nred<|im_end|>\n"


def experiment_of(folder: Path, tokenizer: Path | None, own: bool, **model: Any) -> tuple[Path, Experiment]:
    """The tiny experiment with a tokenizer's folder, and the tokens that it has with its own chat template or not."""
    tree = copy.deepcopy(TREE)
    arguments = {"vocabulary": 300} if tokenizer is None else {"tokenizer": str(tokenizer)}
    tree["data"]["init_args"] |= {
        "train": {name: "none" for name in ("questions", "pictures", "drawings")},
        **arguments,
    }
    if tokenizer is not None:
        tree["model"]["tokens"] = TextTokenizer.load(tokenizer, own).token_ids()
    tree["model"]["language"] |= {"vocabulary": 420, **model.pop("language", {})}
    tree["model"] |= model
    file = write_experiment(folder / "x.yaml", tree)
    return file, load_experiment(["-c", str(file)])


def run_folder(folder: Path) -> RunFolder:
    return RunFolder.start(folder / "run")


def written(tokens: TextTokenizer) -> str:
    return tokens.decode(ChatTemplate(tokens, 4, 5).render(Record("x", "t", TURNS)).ids, skip_special=False)


@pytest.mark.parametrize(
    ("family", "asked", "own"),
    [("qwen2", None, True), ("qwen2", "built_in", False), ("llama", None, False), ("llama", "tokenizer", True)],
)
def test_a_run_keeps_the_format_of_its_conversations(family: str, asked: str | None, own: bool, tmp_path: Path) -> None:
    """LLaMA has LLaVA-1.5's unless the tokenizer's is asked for, others the tokenizer's unless the built-in one is."""
    tokenizer = FAMILIES["qwen3"].write(tmp_path / "tokenizer")
    file, experiment = experiment_of(tmp_path, tokenizer, own, language={"family": family}, chat_template=asked)
    run = run_folder(tmp_path)
    tokens = run_tokenizer(experiment, run)
    expected = OWN.replace("\nred", "\n<think>\n\n</think>\n\nred") if own else "USER: Which colour? ASSISTANT: red</s>"
    assert written(tokens).removeprefix("<s>") == expected
    assert sorted(path.name for path in run.tokenizer.iterdir()) == [
        *["chat_template.jinja"] * own,
        "tokenizer.json",
        *["tokenizer_config.json"] * own,
    ]
    again = load_tokenizer(experiment.model, run.tokenizer)
    assert again.fingerprint == tokens.fingerprint == run_tokenizer(experiment, run, make=False).fingerprint
    _, shown = open_model(file)
    assert written(shown) == written(tokens)
    module = VARGPTDataModule(experiment.data, experiment.stages, experiment.model, tmp_path / "cache")
    assert written(module.tokenizer) == written(tokens)


def test_another_chat_template_is_another_tokenizer(tmp_path: Path) -> None:
    tokenizer = FAMILIES["qwen2"].write(tmp_path / "tokenizer")
    _, experiment = experiment_of(tmp_path, tokenizer, True, chat_template="tokenizer")
    experiment.data.train = {}  # type: ignore[attr-defined]
    before = stage_inputs(experiment)["tokenizer"]
    file = tokenizer / "chat_template.jinja"
    file.write_text("\n" + file.read_text())
    assert stage_inputs(experiment)["tokenizer"].content != before.content


def test_a_model_from_nothing_has_the_built_in_format(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"chat_template: 'tokenizer', but data names no tokenizer.*or built_in"):
        run_tokenizer(experiment_of(tmp_path, None, False, chat_template="tokenizer")[1], run_folder(tmp_path))
    TextTokenizer.train(["USER: Which colour? ASSISTANT: red"], 300).save(tmp_path / "tokenizer")
    _, experiment = experiment_of(tmp_path, tmp_path / "tokenizer", False, language={"family": "qwen2"})
    assert written(run_tokenizer(experiment, run_folder(tmp_path))) == "<s>USER: Which colour? ASSISTANT: red</s>"


def test_a_template_that_is_not_there_or_not_known(tmp_path: Path) -> None:
    tokenizer = FAMILIES["qwen2"].write(tmp_path / "tokenizer")
    _, experiment = experiment_of(tmp_path, tokenizer, True, chat_template="tokenizer")
    (tokenizer / "chat_template.jinja").unlink()
    with pytest.raises(
        UserError, match=f"text tokenizer {tokenizer}: no chat template .* model.chat_template: built_in"
    ):
        run_tokenizer(experiment, run_folder(tmp_path))
    with pytest.raises(UserError, match="chat_template='chatml'; expected one of built_in, tokenizer"):
        experiment_of(tmp_path, tokenizer, False, chat_template="chatml")
