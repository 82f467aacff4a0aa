"""CLIP score: 100 x cosine of a drawing and the words that it should show (Hessel et al., 2021, without their weight).

Any model of open_clip with any weights (ViT-L/14 of OpenAI by default), or a CLIP directory of transformers. Scores of
different models do not compare: the name of model and weights goes into every result.

Shapes: B pairs, D embedding channels.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from vargpt_lightning.data.images.picture_files import PictureError, decode_picture
from vargpt_lightning.distributed.group import Processes
from vargpt_lightning.evaluation.base.files import short_hash
from vargpt_lightning.evaluation.images.clip_weights import Activation, activation, read_clip_file
from vargpt_lightning.evaluation.images.finite import check_rows
from vargpt_lightning.evaluation.images.instruct_set import Prompt
from vargpt_lightning.evaluation.images.picture_lists import PictureFile
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import append_jsonl, read_jsonl

MODEL, WEIGHTS = "ViT-L-14", "openai"
SCALE = 100
CLAMPS = ("none", "each")
"""What happens to negative scores: nothing, or each becomes 0."""

Progress = Callable[[str, int, int], None]


class ClipModel(Protocol):
    """Something that embeds pictures and texts alike; `settings` holds all that a score depends on."""

    @property
    def settings(self) -> dict[str, Any]: ...

    def pictures(self, pictures: Sequence[Image.Image]) -> Tensor: ...

    def texts(self, texts: Sequence[str]) -> tuple[Tensor, list[bool]]: ...


def open_clip_model(model: str, weights: str, device: str = "cpu", quick_gelu: bool | None = None) -> OpenClip:
    """A model of open_clip by name, with weights by tag or from a local file.

    Args:
        quick_gelu: whether the weights were trained with that activation; None believes the tag, the model's name
            (ViT-L-14-quickgelu is the one of OpenAI's weights) and the file, and asks where none of them says it.

    Raises:
        UserError: an unknown model or tag, a file of other weights or one whose activation nobody tells, a download
            that failed.
    """
    import open_clip

    file = Path(weights)
    kept = read_clip_file(file) if file.exists() else None
    tag = open_clip.get_pretrained_cfg(model.replace("/", "-"), weights) or {}
    if tag and kept is None:
        trained = Activation(bool(tag.get("quick_gelu", False)), "the tag")
        if quick_gelu is not None and quick_gelu != trained.quick:
            raise UserError(
                f"CLIP weights {weights!r}: the tag says QuickGELU {trained.quick}, the option {quick_gelu}"
            )
    else:
        names = open_clip.list_models()
        trained = activation(model, weights, quick_gelu, names, kept.openai if kept is not None else "")
    try:
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
            warnings.filterwarnings("ignore", message="QuickGELU mismatch", category=UserWarning)  # settled above
            source = weights
            if kept is not None:
                source = str(Path(folder) / "weights.pt")
                torch.save(kept.state, source)
            network, _, transform = open_clip.create_model_and_transforms(
                model, pretrained=source, device=device, force_quick_gelu=trained.quick, require_pretrained=True
            )
        tokenizer = open_clip.get_tokenizer(model)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"CLIP model {model!r} with weights {weights!r}: {reason}") from error
    settings = {"library": "open_clip", "model": model, "weights": Path(weights).name, "scale": SCALE}
    uses_quick = any(type(part).__name__ == "QuickGELU" for part in network.modules())
    settings |= {"quick_gelu": uses_quick, "activation_known_by": trained.known_by}
    settings |= {"weights_hash": weights_hash(network), "preprocessing": str(transform)}
    return OpenClip(network.eval(), transform, tokenizer, settings, torch.device(device))


@dataclass(frozen=True)
class OpenClip:
    """A model of open_clip with its own transform and tokenizer."""

    network: Any
    transform: Callable[[Image.Image], Tensor]
    tokenizer: Any
    settings: dict[str, Any]
    device: torch.device

    @torch.inference_mode()
    def pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Embeddings (B, D), not normalised."""
        batch = torch.stack([self.transform(picture) for picture in pictures]).to(self.device)
        return self.network.encode_image(batch).float().cpu()

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> tuple[Tensor, list[bool]]:
        """Embeddings (B, D), not normalised, and which texts were cut to fit."""
        tokens = self.tokenizer(list(texts))
        limit = tokens.shape[1]
        cut = [self._length(text) > limit for text in texts]
        return self.network.encode_text(tokens.to(self.device)).float().cpu(), cut

    def _length(self, text: str) -> int:
        """Tokens of a text with those for its start and end, before anything is cut."""
        if hasattr(self.tokenizer, "tokenizer"):  # one of transformers, in open_clip's wrapping
            clean = getattr(self.tokenizer, "clean_fn", str)
            return len(self.tokenizer.tokenizer(clean(text), truncation=False, verbose=False)["input_ids"])
        return len(self.tokenizer.encode(text)) + 2


def transformers_clip(path: str, device: str = "cpu") -> TransformersClip:
    """A CLIP of transformers from a directory or a hub id; raises UserError when it is none or cannot be had."""
    from transformers import AutoModel, AutoProcessor

    try:
        network: Any = AutoModel.from_pretrained(path).to(device).eval()
        processor: Any = AutoProcessor.from_pretrained(path)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"CLIP {path!r} of transformers: {reason}") from error
    if not (hasattr(network, "get_image_features") and hasattr(network, "get_text_features")):
        raise UserError(f"{path}: {type(network).__name__} does not embed texts and pictures; expected a CLIP model")
    settings = {"library": "transformers", "model": network.config.model_type, "weights": Path(path).name}
    settings |= {"scale": SCALE, "weights_hash": weights_hash(network)}
    settings["preprocessing"] = processor.image_processor.to_dict()
    return TransformersClip(network, processor, settings, torch.device(device))


@dataclass(frozen=True)
class TransformersClip:
    """A CLIP of transformers with its own processor."""

    network: Any
    processor: Any
    settings: dict[str, Any]
    device: torch.device

    @torch.inference_mode()
    def pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Embeddings (B, D), not normalised."""
        pixels = self.processor.image_processor(images=list(pictures), return_tensors="pt")["pixel_values"]
        return projected(self.network.get_image_features(pixel_values=pixels.to(self.device)), "image_embeds")

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> tuple[Tensor, list[bool]]:
        """Embeddings (B, D), not normalised, and which texts were cut to fit."""
        limit = self.network.config.text_config.max_position_embeddings
        tokenizer = self.processor.tokenizer
        whole = tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
        rows = tokenizer(list(texts), truncation=True, max_length=limit, padding="max_length", return_tensors="pt")
        given = {key: rows[key].to(self.device) for key in ("input_ids", "attention_mask") if key in rows}
        found = projected(self.network.get_text_features(**given), "text_embeds")
        return found, [len(ids) > limit for ids in whole]


def projected(output: Any, name: str) -> Tensor:
    """The projected embeddings, whether a library gives a tensor or an object that holds them; (B, D) on the CPU."""
    if not isinstance(output, Tensor):
        found = next((getattr(output, key, None) for key in (name, "pooler_output") if _has(output, key)), None)
        if not isinstance(found, Tensor):
            raise UserError(f"the CLIP model returned {type(output).__name__}; expected a tensor or {name}")
        output = found
    return output.float().cpu()


def _has(output: Any, key: str) -> bool:
    return getattr(output, key, None) is not None


def cosine_scores(pictures_BD: Tensor, texts_BD: Tensor, clamp: str = "none") -> Tensor:
    """100 x cosine of each picture with the text at the same place, (B,) float64; `clamp` is one of CLAMPS."""
    if clamp not in CLAMPS:
        raise UserError(f"clamp {clamp!r}; expected one of {', '.join(CLAMPS)}")
    unit = [torch.nn.functional.normalize(side_BD.double(), dim=-1) for side_BD in (pictures_BD, texts_BD)]
    scores_B = SCALE * (unit[0] * unit[1]).sum(dim=-1)
    return scores_B.clamp(min=0) if clamp == "each" else scores_B


def score_pairs(
    model: ClipModel,
    prompts: Sequence[Prompt],
    drawings: Sequence[PictureFile],
    folder: Path,
    *,
    text: str = "caption",
    clamp: str = "none",
    batch_size: int = 64,
    allow: Collection[str] = (),
    processes: Processes | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Scores every drawing with its prompt and returns rows of id, clip (None: broken) and truncated, in order.

    Rows are appended to `folder` as they come: a run that was killed resumes, with any number of processes.

    Raises:
        UserError: prompts and drawings of different ids, a prompt without the text, a picture that does not decode
            unless "broken" is allowed.
    """
    processes = processes or Processes()
    if [prompt.id for prompt in prompts] != [drawing.id for drawing in drawings]:
        raise UserError("prompts and drawings differ in their ids or order; pair them by id first")
    stamps = [drawing.path.stat() for drawing in drawings]
    keys = [
        short_hash(prompt.id, prompt.text(text), stamp.st_size, stamp.st_mtime_ns, model.settings, clamp, batch_size)
        for prompt, stamp in zip(prompts, stamps, strict=True)
    ]
    found = _rows(folder)
    processes.wait()  # nobody writes before all have read
    starts = processes.share(range(0, len(prompts), batch_size))
    for done, start in enumerate(starts):
        if progress is not None:
            progress("CLIP score", done, len(starts))
        places = range(start, min(start + batch_size, len(prompts)))
        if any(keys[place] not in found for place in places):
            rows = _score_batch(model, [(prompts[p], drawings[p], keys[p]) for p in places], text, clamp, allow)
            append_jsonl(folder / f"{processes.rank}-of-{processes.world}.jsonl", rows)
    if progress is not None:
        progress("CLIP score", len(starts), len(starts))
    processes.wait()
    found = _rows(folder)
    return [found[key] for key in keys]


def _rows(folder: Path) -> dict[str, dict[str, Any]]:
    rows = (row for file in sorted(folder.glob("*.jsonl")) for row in read_jsonl(file))
    return {row["key"]: row for row in rows if {"key", "id", "clip", "truncated"} <= row.keys()}


def _score_batch(
    model: ClipModel,
    batch: Sequence[tuple[Prompt, PictureFile, str]],
    text: str,
    clamp: str,
    allow: Collection[str],
) -> Iterator[dict[str, Any]]:
    pictures = [_open(drawing.path, "broken" in allow) for _, drawing, _ in batch]
    good = [place for place, picture in enumerate(pictures) if picture is not None]
    texts_BD, cut = model.texts([prompt.text(text) for prompt, _, _ in batch])
    scores: dict[int, float] = {}
    if good:
        pictures_BD = model.pictures([picture for picture in pictures if picture is not None])
        check_rows(pictures_BD, [batch[place][1].path for place in good], "CLIP")
        check_rows(texts_BD, [f"prompt {prompt.id!r}" for prompt, _, _ in batch], "CLIP")
        scores = dict(zip(good, cosine_scores(pictures_BD, texts_BD[good], clamp).tolist(), strict=True))
    for place, (prompt, _, key) in enumerate(batch):
        yield {"id": prompt.id, "key": key, "clip": scores.get(place), "truncated": cut[place]}


def _open(path: Path, skip: bool) -> Image.Image | None:
    """The picture as training reads it: upright, 16 bits scaled to 8, what is transparent white."""
    try:
        return decode_picture(path.read_bytes(), str(path))
    except (PictureError, OSError) as error:
        if skip:
            return None
        raise UserError(f"{path}: does not decode ({error}); mend it, or add --allow broken") from error


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean, its standard error, the count, and how many texts were cut, of rows with `clip` and `truncated`."""
    scores = [float(row["clip"]) for row in rows if row["clip"] is not None]
    if not scores:
        raise UserError("no drawing has a CLIP score; expected some that decode")
    mean = math.fsum(scores) / len(scores)
    squares = math.fsum((score - mean) ** 2 for score in scores)
    error = math.sqrt(squares / (len(scores) - 1) / len(scores)) if len(scores) > 1 else math.nan
    cut = sum(bool(row["truncated"]) for row in rows if row["clip"] is not None)
    return {"clip": mean, "clip_error": error, "clip_n": len(scores), "clip_truncated": cut}


def weights_hash(network: torch.nn.Module) -> str:
    """A hash of all weights."""
    found = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        found.update(name.encode())
        found.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
