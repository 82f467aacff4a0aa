"""Models of other people: each kind answers, in batches as alone, and two of them draw."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.evaluation.systems.tiny_models import KINDS, llava
from vargpt_lightning.evaluation.base.protocols import AnswerRequest, ImageModel, RefusedError, TextModel
from vargpt_lightning.evaluation.systems.model_files import files_digest, locate
from vargpt_lightning.evaluation.systems.transformers_model import (
    TransformersModel,
    TransformersSettings,
    with_options,
)
from vargpt_lightning.utils.errors import UserError

COLOURS = ("red", "green", "blue", "white")
Folders = Callable[[str], Path]


@pytest.fixture(scope="module")
def systems(folders: Folders) -> Callable[[str], TransformersModel]:
    """Loaded models by kind; nothing may change them."""
    known: dict[str, TransformersModel] = {}

    def system(kind: str) -> TransformersModel:
        if kind not in known:
            known[kind] = TransformersModel(folders(kind))
        return known[kind]

    return system


def questions(length: int | None = 6, count: int = 4) -> list[AnswerRequest]:
    """Prompts of different lengths about pictures of different sizes, so that every batch has padding."""
    return [
        AnswerRequest(f"q{n}", "What is this? " + "x" * 5 * n, (Image.new("RGB", (40 + 8 * n, 30), colour),), length)
        for n, colour in enumerate(COLOURS[:count])
    ]


def noise(count: int) -> list[Image.Image]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 30, 40, 3), generator=generator, dtype=torch.uint8)
    return [Image.fromarray(one.numpy()) for one in pixels]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_answers_as_each_question_alone(systems: Any, kind: str) -> None:
    system = systems(kind)
    assert isinstance(system, TextModel)
    together = system.answer(questions())
    alone = [system.answer([question])[0] for question in questions()]
    assert together == alone
    assert len({reply.text for reply in together}) > 1 and all(reply.finish for reply in together)


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_depends_on_the_picture(systems: Any, kind: str) -> None:
    replies = systems(kind).answer([AnswerRequest(str(n), "What?", (one,), 6) for n, one in enumerate(noise(6))])
    assert len({reply.text for reply in replies}) > 1


def test_the_prompt_alone_is_not_part_of_the_answer(systems: Any) -> None:
    for kind in ("llava", "instructblip"):
        assert "What is this" not in systems(kind).answer(questions())[0].text


def test_each_answer_is_as_long_as_it_may_be(folders: Folders) -> None:
    system = TransformersModel(folders("llava"), TransformersSettings(max_new_tokens=9))
    tokens: list[int] = []
    real = system.model.generate

    def generate(**inputs: Any) -> Any:
        out = real(**inputs)
        tokens.append(out.shape[1] - inputs["input_ids"].shape[1])
        return out

    system.model.generate = generate
    requests = [replace(one, max_new_tokens=n) for one, n in zip(questions(), (3, None, 7, 3), strict=True)]
    replies = system.answer(requests)
    assert sorted(tokens) == [3, 7, 9]
    assert [reply.finish for reply in replies] == ["length"] * 4
    assert [reply.text for reply in replies] == [system.answer([request])[0].text for request in requests]


def test_an_answer_that_ends_by_itself_has_stopped(systems: Any) -> None:
    system = systems("llava")
    first = system.model.generate(**dict(system._processed(questions(count=1))), **system._decoding(1))[0, -1].item()
    system._ends = [first]
    try:
        reply = system.answer(questions(count=1))[0]
    finally:
        del system._ends
    assert reply.finish == "stop"


def test_questions_without_and_with_several_pictures(systems: Any) -> None:
    shown = [tuple(noise(4)[n : n + 2]) for n in range(3)]
    several = [AnswerRequest(f"b{n}", "Both?", two, 6) for n, two in enumerate(shown)]
    requests = [AnswerRequest("a", "Hello?", (), 6), *several, *questions(6, 2)]
    for kind in ("llava", "qwen2_vl", "llava_onevision", "janus"):
        system = systems(kind)
        together = system.answer(requests)
        assert together == [system.answer([request])[0] for request in requests], kind
        swapped = [replace(request, pictures=request.pictures[::-1]) for request in several]
        assert system.answer(swapped) != together[1:4], kind


def test_grey_and_transparent_pictures_are_taken(systems: Any) -> None:
    pictures = [Image.new("L", (30, 30)), Image.new("RGBA", (30, 30)), Image.new("1", (1, 1)), Image.new("P", (9, 50))]
    requests = [AnswerRequest(str(number), "?", (picture,), 2) for number, picture in enumerate(pictures)]
    assert len(systems("llava").answer(requests)) == 4


# ------------------------------------------------------------------------------------------------------- wording


def prompt_ids(system: TransformersModel, prompt: str, pictures: int = 1) -> str:
    shown = tuple(Image.new("RGB", (28, 28)) for _ in range(pictures))
    ids = system._processed([AnswerRequest("a", prompt, shown)])["input_ids"][0]
    return str(system.processor.tokenizer.decode(ids))


def test_llava_has_its_template_or_the_conversation_of_vicuna(folders: Folders, tmp_path: Path) -> None:
    chat = TransformersModel(folders("llava"))
    assert chat.settings["template"] == "chat"
    assert prompt_ids(chat, "What?") == "<s>USER: " + "<image>" * 4 + "\nWhat? ASSISTANT:"
    bare = TransformersModel(llava(tmp_path / "bare", template=None))
    assert bare.settings["template"] == "vicuna"
    assert prompt_ids(bare, "What?") == (
        "<s>A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. USER: " + "<image>" * 4 + "\nWhat? ASSISTANT:"
    )
    plain = TransformersModel(folders("llava"), TransformersSettings(template="plain"))
    assert prompt_ids(plain, "What?") == "<s>" + "<image>" * 4 + "\nWhat?"
    with pytest.raises(UserError, match="'chat', but this llava model has no chat template"):
        TransformersModel(tmp_path / "bare", TransformersSettings(template="chat"))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("chameleon", "<s><racm3:break>" + "<image>" * 16 + "<eoss>\nWhat?<reserved08706>"),
        ("instructblip", "<image><image><image><s>What?"),
        (
            "janus",
            "<s><|User|>: <begin_of_image>" + "<image_placeholder>" * 4 + "<end_of_image>\nWhat?\n\n<|Assistant|>:",
        ),
        (
            "qwen2_vl",
            "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>What?<|im_end|>\n<|im_start|>assistant\n",
        ),
    ],
)
def test_other_kinds_are_asked_as_they_were_trained(systems: Any, kind: str, text: str) -> None:
    assert prompt_ids(systems(kind), "What?") == text


def test_one_start_token_though_the_template_writes_one(folders: Folders, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders("llava"), tmp_path / "model"))
    file = folder / "chat_template.jinja"
    file.write_text("{{ bos_token }}" + file.read_text())
    assert prompt_ids(TransformersModel(folder), "What?").startswith("<s>USER: <image>")


def test_the_picture_token_in_a_question(systems: Any) -> None:
    system = systems("qwen2_vl")
    placed = prompt_ids(system, "Is <|image_pad|> like <|image_pad|>?", pictures=2)
    assert placed.count("<|image_pad|>") == 2 and "<|vision_end|> like <|vision_start|>" in placed
    written = prompt_ids(system, "What does <|image_pad|> or <|image_pad|> mean?", pictures=1)
    assert written.count("<|image_pad|>") == 1 and "What does < |image_pad|> or" in written


# -------------------------------------------------------------------------------------------------------- drawing


@pytest.mark.parametrize("kind", ["janus", "emu3"])
def test_a_drawing_follows_from_its_seed_and_prompt(folders: Folders, kind: str) -> None:
    system = TransformersModel(folders(kind), with_options(image_area=16 * 24 if kind == "emu3" else None))
    assert isinstance(system, ImageModel)
    both = system.draw(["A dog.", "A cat that sleeps on a mat."], [3, 4])
    alone = system.draw(["A cat that sleeps on a mat."], [4])[0]
    other = system.draw(["A cat that sleeps on a mat."], [5])[0]
    assert [reply.text for reply in both] == ["", ""] and both[1].pictures[0].mode == "RGB"
    assert both[1].pictures[0].size == ((8, 8) if kind == "janus" else (16, 16))
    assert both[1].pictures[0].tobytes() == alone.pictures[0].tobytes() != other.pictures[0].tobytes()
    assert both[0].pictures[0].tobytes() != both[1].pictures[0].tobytes()


@pytest.mark.parametrize("kind", ["janus", "emu3"])
@pytest.mark.parametrize("change", [{"guidance": 1.0}, {"temperature": 0.0}, {"suffix": " in blue"}])
def test_settings_of_drawing_matter(folders: Folders, kind: str, change: dict[str, Any]) -> None:
    area = {"image_area": 16 * 16} if kind == "emu3" else {}
    usual = TransformersModel(folders(kind), with_options(**area))
    changed = TransformersModel(folders(kind), with_options(**area, **change))
    prompts, seeds = ["A dog.", "A cat."], [1, 2]
    before, after = (system.draw(prompts, seeds) for system in (usual, changed))
    assert [a.pictures[0].tobytes() for a in before] != [b.pictures[0].tobytes() for b in after]
    key = next(iter(change))
    assert usual.settings["drawing"][key] != changed.settings["drawing"][key] == change[key]


def test_without_temperature_the_seed_does_not_matter(folders: Folders) -> None:
    system = TransformersModel(folders("janus"), with_options(temperature=0.0))
    one, two = system.draw(["A dog."] * 2, [1, 2])
    assert one.pictures[0].tobytes() == two.pictures[0].tobytes()


def test_others_do_not_draw(systems: Any) -> None:
    with pytest.raises(UserError, match="of the kind llava does not draw; expected janus or emu3"):
        systems("llava").draw(["A dog."], [0])


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_an_empty_picture_is_named(systems: Any, size: tuple[int, int]) -> None:
    request = AnswerRequest("pope/7", "?", (Image.new("RGB", size),))
    with pytest.raises(UserError, match=r"question 'pope/7': picture 1 is empty: its size is \([05], [05]\)"):
        systems("llava").answer([*questions(2, 1), request])


def test_a_picture_that_the_processor_refuses_is_named(systems: Any) -> None:
    narrow = AnswerRequest("mme/3", "?", (Image.new("RGB", (300, 1)),), 2)
    with pytest.raises(UserError, match=r"question 'mme/3' with pictures of the sizes 300x1 is refused.*aspect ratio"):
        systems("qwen2_vl").answer([*questions(2, 2), narrow])


def test_all_refused_questions_of_a_batch_are_named_at_once(systems: Any) -> None:
    wrong = [AnswerRequest(f"mme/{n}", "?", (Image.new("RGB", (300, 1)),), 2) for n in range(2)]
    with pytest.raises(RefusedError, match="and 1 more") as told:
        systems("qwen2_vl").answer([wrong[0], *questions(2, 2), wrong[1]])
    assert [*told.value.reasons] == ["mme/0", "mme/1"] and "'mme/1'" in told.value.reasons["mme/1"]


def test_a_model_that_takes_one_picture_says_so(systems: Any) -> None:
    with pytest.raises(UserError, match="question 'a': 0 pictures; a model of the kind instructblip takes one"):
        systems("instructblip").answer([AnswerRequest("a", "Hello?")])


@pytest.fixture
def model_copy(folders: Folders, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folders("llava"), tmp_path / "copy"))


def test_all_missing_files_are_named_at_once(model_copy: Path) -> None:
    for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (model_copy / name).unlink()
    with pytest.raises(UserError, match=r"missing a tokenizer \(.*\); weights .* There is .*config\.json"):
        TransformersModel(model_copy)
    (model_copy / "config.json").unlink()
    with pytest.raises(UserError, match=r"missing config\.json; "):
        TransformersModel(model_copy)


def test_a_missing_shard_is_named(model_copy: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (model_copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"missing model-00002-of-00002\.safetensors"):
        TransformersModel(model_copy)


def test_missing_weights_are_not_made_up(model_copy: Path) -> None:
    file = model_copy / "model.safetensors"
    state = load_file(file)
    lost = next(name for name in state if "multi_modal_projector" in name and name.endswith("weight"))
    save_file({name: weight for name, weight in state.items() if name != lost}, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"1 weights are not in its files, such as .*multi_modal_projector"):
        TransformersModel(model_copy)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("config.json", {"model_type": "not_a_model"}, "config.json is of no kind that transformers knows"),
        ("config.json", {"model_type": "bert"}, "model_type 'bert' is no image-text-to-text model"),
        ("config.json", b"{", "config.json is of no kind"),
        ("model.safetensors", b"torn", "its weights cannot be loaded"),
        ("processor_config.json", b"{", "its processor cannot be loaded"),
        ("tokenizer.json", b"{}", "its processor cannot be loaded"),
    ],
)
def test_broken_files_are_one_clear_message(model_copy: Path, name: str, change: Any, message: str) -> None:
    file = model_copy / name
    content = change if isinstance(change, bytes) else json.dumps(json.loads(file.read_text()) | change).encode()
    file.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        TransformersModel(model_copy)
    assert "\n" not in str(error.value)


def test_code_that_comes_with_a_model_is_not_run(model_copy: Path) -> None:
    config = json.loads((model_copy / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForImageTextToText": "own.Own"}}
    (model_copy / "config.json").write_text(json.dumps(config))
    (model_copy / "own.py").write_text(f"open({str(model_copy / 'ran')!r}, 'w')\nclass Own: pass\n")
    with pytest.raises(UserError, match=r"config\.json is of no kind"):
        TransformersModel(model_copy)
    assert not (model_copy / "ran").exists()


@pytest.mark.parametrize("model", ["./nowhere", "/no/such/folder", "three/part/name", "word"])
def test_what_is_neither_folder_nor_hub_id(model: str) -> None:
    with pytest.raises(UserError, match=r"expected a directory with a transformers model, or a hub id owner/name"):
        locate(model)


def test_no_network_is_one_clear_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    tokens: list[Any] = []

    def listing(self: Any, name: str, token: Any = None) -> list[str]:
        tokens.append(token)
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", listing)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_secret")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="not in the hub's cache, and the hub cannot be reached"):
        locate("someone/no-such-model-here")
    assert tokens == [False]  # nobody refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int3"}, "dtype: 'int3'; expected one of auto"),
        ({"template": "alpaca"}, "template: 'alpaca'; expected one of auto, chat"),
        ({"max_new_tokens": 0}, "max_new_tokens: 0"),
        ({"guidance": 0.5}, "drawing guidance: 0.5; expected 1 or more"),
        ({"temprature": 1}, "option 'temprature': expected one of dtype, "),
        ({"device": "abacus"}, "'abacus' is no device; expected cpu"),
    ],
)
def test_options_out_of_their_range(folders: Folders, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TransformersModel(folders("llava"), with_options(**options))


def test_the_digest_covers_weights_and_words(model_copy: Path, folders: Folders) -> None:
    before = files_digest(folders("llava"))
    assert files_digest(model_copy) == before == TransformersModel(model_copy).digest
    (model_copy / "README.md").write_text("new")
    assert files_digest(model_copy) == before
    for name in ("chat_template.jinja", "model.safetensors"):
        content = (model_copy / name).read_bytes()
        (model_copy / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert files_digest(model_copy) != before
        before = files_digest(model_copy)


def test_precision_is_a_setting(folders: Folders) -> None:
    half = TransformersModel(folders("llava"), TransformersSettings(dtype="bfloat16"))
    assert half.model.dtype == torch.bfloat16 and half.settings["dtype"] == "bfloat16"
    assert len(half.answer(questions(2))) == 4
    assert TransformersModel(folders("llava")).settings["dtype"] == "float32"
