"""CLIP scores equal plain calls of the libraries; words are paired by id, cut texts counted."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.evaluation.pictures import Apart, write_open_clip, write_pictures, write_transformers_clip
from vargpt_lightning.evaluation.features import clip
from vargpt_lightning.evaluation.features.clip import open_clip_model, projected, transformers_clip
from vargpt_lightning.evaluation.images.clip_score import score_pairs, summary
from vargpt_lightning.evaluation.images.instruct_set import Prompt
from vargpt_lightning.evaluation.images.picture_lists import PictureFile
from vargpt_lightning.evaluation.metrics.clip_score import cosine_scores
from vargpt_lightning.utils.errors import UserError

LONG = "a photo of a very long caption with far more words than the text tower of a tiny model can take at once"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return write_open_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def tiny_transformers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_transformers_clip(tmp_path_factory.mktemp("clip") / "tiny")


def world(folder: Path, count: int = 7) -> tuple[list[Prompt], list[PictureFile]]:
    files = write_pictures(folder / "drawings", count)
    captions = ["a red cat", "a dog", LONG, "abc", "the sea", "two birds on a tree", "z"]
    return [Prompt(str(n), f"Please draw {captions[n]}.", captions[n]) for n in range(count)], files


def test_scores_equal_plain_open_clip(tiny: tuple[str, Path], tmp_path: Path) -> None:
    import open_clip

    prompts, files = world(tmp_path)
    model = open_clip_model(tiny[0], str(tiny[1]))
    rows = score_pairs(model, prompts, files, tmp_path / "w", batch_size=3)
    network, _, transform = open_clip.create_model_and_transforms(tiny[0], pretrained=str(tiny[1]))
    network.eval()
    tokens = open_clip.get_tokenizer(tiny[0])([prompt.caption for prompt in prompts])
    with torch.no_grad():
        pictures = network.encode_image(torch.stack([transform(Image.open(file.path)) for file in files]))
        texts = network.encode_text(tokens)
    expected = 100 * torch.nn.functional.cosine_similarity(pictures, texts)
    assert [row["clip"] for row in rows] == pytest.approx(expected.tolist(), abs=1e-4)
    assert expected.std() > 0.1, "pairs that differ"
    assert [row["truncated"] for row in rows] == [False, False, True, False, False, False, False]
    found = summary(rows)
    assert found["clip"] == pytest.approx(expected.mean().item(), abs=1e-4)
    assert found["clip_error"] == pytest.approx(expected.std().item() / math.sqrt(7), abs=1e-4)
    assert (found["clip_n"], found["clip_truncated"]) == (7, 1)


def test_the_instruction_is_scored_by_name(tiny: tuple[str, Path], tmp_path: Path) -> None:
    prompts, files = world(tmp_path)
    model = open_clip_model(tiny[0], str(tiny[1]))
    caption, asked = (
        [row["clip"] for row in score_pairs(model, prompts, files, tmp_path / "w", text=text)]
        for text in ("caption", "instruction")
    )
    swapped = [Prompt(prompt.id, prompt.caption, prompt.instruction) for prompt in prompts]
    assert asked == [row["clip"] for row in score_pairs(model, swapped, files, tmp_path / "w2")] != caption
    with pytest.raises(UserError, match="prompt '0' has no caption"):
        score_pairs(model, [Prompt("0", "Draw.")], files[:1], tmp_path / "w3")


def test_scores_equal_plain_transformers(tiny_transformers: Path, tmp_path: Path) -> None:
    from transformers import CLIPModel, CLIPProcessor

    prompts, files = world(tmp_path)
    model = transformers_clip(str(tiny_transformers))
    rows = score_pairs(model, prompts, files, tmp_path / "w", batch_size=2)
    network = CLIPModel.from_pretrained(tiny_transformers).eval()
    processor = CLIPProcessor.from_pretrained(tiny_transformers)
    given = processor(
        text=[prompt.caption for prompt in prompts],
        images=[Image.open(file.path) for file in files],
        padding=True,
        truncation=True,
        max_length=12,
        return_tensors="pt",
    )
    with torch.no_grad():
        expected = network(**given).logits_per_image.diagonal() / network.logit_scale.exp() * 100
    assert [row["clip"] for row in rows] == pytest.approx(expected.tolist(), abs=1e-4)
    assert sum(row["truncated"] for row in rows) == 2, "letters are its tokens: the two longest do not fit"
    assert model.settings["library"] == "transformers" and model.settings["scale"] == 100


def test_embeddings_come_as_a_tensor_or_in_an_object() -> None:
    x = torch.ones(2, 3)
    assert projected(x, "image_embeds") is x
    inner = torch.zeros(2, 3)
    assert projected(SimpleNamespace(pooler_output=x), "image_embeds") is x
    assert projected(SimpleNamespace(image_embeds=x, pooler_output=inner), "image_embeds") is x
    with pytest.raises(UserError, match="returned SimpleNamespace; expected a tensor or text_embeds"):
        projected(SimpleNamespace(image_embeds=x), "text_embeds")


def test_the_clamp_is_a_setting() -> None:
    one, two = torch.tensor([[1.0, 0], [1, 0], [3, 4]]), torch.tensor([[-2.0, 0], [5, 0], [1, 0]])
    assert cosine_scores(one, two).tolist() == pytest.approx([-100, 100, 60])
    assert cosine_scores(one, two, "each").tolist() == pytest.approx([0, 100, 60])
    with pytest.raises(UserError, match="clamp 'mean'"):
        cosine_scores(one, two, "mean")


def test_a_tag_trained_with_quick_gelu_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """open_clip only warns that ViT-L-14 has another activation than OpenAI's weights were trained with."""
    import open_clip

    asked: list[dict[str, Any]] = []

    class Enough(Exception):
        pass

    def create(model: str, **options: Any) -> None:
        asked.append({"model": model, **options})
        raise Enough("no network here")

    monkeypatch.setattr(open_clip, "create_model_and_transforms", create)
    for tag in ("openai", "laion2b_s32b_b82k"):
        with pytest.raises(UserError, match=f"'ViT-L-14' with weights '{tag}': no network here"):
            open_clip_model("ViT-L-14", tag)
    assert [one["force_quick_gelu"] for one in asked] == [True, False]
    assert (clip.MODEL, clip.WEIGHTS) == ("ViT-L-14", "openai")


def test_quick_gelu_of_a_file_is_an_option(tiny: tuple[str, Path]) -> None:
    plain, quick = (open_clip_model(tiny[0], str(tiny[1]), quick_gelu=given) for given in (None, True))
    assert (plain.settings["quick_gelu"], quick.settings["quick_gelu"]) == (False, True)
    assert plain.settings["weights_hash"] == quick.settings["weights_hash"]
    picture = [Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))]
    assert not torch.allclose(plain.pictures(picture), quick.pictures(picture))


def test_weights_that_do_not_fit(tiny: tuple[str, Path], tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("x")
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pt")
    for model, file, message in (
        (tiny[0], str(tmp_path / "text.pt"), "not weights"),
        (tiny[0], str(tmp_path / "other.pt"), "Missing key"),
        (tiny[0], str(tmp_path), "is a folder"),
        (tiny[0], "no-such-tag", "not a known tag"),
        ("ViT-nothing", str(tiny[1]), "ViT-nothing"),
    ):
        with pytest.raises(UserError, match=message):
            open_clip_model(model, file)
    with pytest.raises(UserError, match="of transformers"):
        transformers_clip(str(tmp_path))


class Counting:
    """Embeds a picture by its colours and a text by its length, and counts."""

    def __init__(self) -> None:
        self.settings = {"model": "counting"}
        self.seen = 0

    def pictures(self, pictures: list[Image.Image]) -> torch.Tensor:
        self.seen += len(pictures)
        return torch.stack([torch.from_numpy(np.array(p)).float().mean(dim=(0, 1)) for p in pictures])

    def texts(self, texts: list[str]) -> tuple[torch.Tensor, list[bool]]:
        return torch.tensor([[1.0, len(text), 2.0] for text in texts]), [len(text) > 20 for text in texts]


def test_scoring_goes_on_after_a_kill_with_other_processes(tmp_path: Path) -> None:
    prompts, files = world(tmp_path)
    whole = score_pairs(Counting(), prompts, files, tmp_path / "whole", batch_size=2)

    def stop(title: str, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_pairs(Counting(), prompts, files, tmp_path / "w", batch_size=2, progress=stop)
    with open(tmp_path / "w" / "0-of-1.jsonl", "a") as file:
        file.write('{"id": "4", "key"')
    second, first = Counting(), Counting()
    with pytest.raises(KeyError):  # the other one has not come yet
        score_pairs(second, prompts, files, tmp_path / "w", batch_size=2, processes=Apart(1, 2))
    rows = score_pairs(first, prompts, files, tmp_path / "w", batch_size=2, processes=Apart(0, 2))
    assert (second.seen, first.seen) == (1, 2), "the first four were scored before"
    assert [(row["id"], row["clip"]) for row in rows] == [(row["id"], row["clip"]) for row in whole]
    Image.new("RGB", (32, 32), "red").save(files[0].path)
    again = Counting()
    assert score_pairs(again, prompts, files, tmp_path / "w", batch_size=2)[0]["clip"] != whole[0]["clip"]
    assert again.seen == 2, "a changed drawing is scored again, with its batch"


def test_pairs_and_pictures_that_are_wrong(tmp_path: Path) -> None:
    prompts, files = world(tmp_path)
    with pytest.raises(UserError, match="differ in their ids or order"):
        score_pairs(Counting(), prompts, files[::-1], tmp_path / "w")
    files[2].path.write_bytes(files[2].path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"2\.png: does not decode"):
        score_pairs(Counting(), prompts, files, tmp_path / "w")
    rows = score_pairs(Counting(), prompts, files, tmp_path / "w", allow=("broken",))
    assert rows[2]["clip"] is None and summary(rows)["clip_n"] == 6 and summary(rows)["clip_truncated"] == 0
    with pytest.raises(UserError, match="no drawing has a CLIP score"):
        summary([rows[2]])
