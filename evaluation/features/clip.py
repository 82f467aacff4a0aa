"""CLIP models that embed pictures and texts alike: any of open_clip with any weights, or a directory of transformers.

Shapes: B pictures or texts, D embedding channels.
"""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from vargpt_lightning.evaluation.features import clip_pass
from vargpt_lightning.evaluation.features.clip_weights import Activation, activation, read_clip_file
from vargpt_lightning.utils.errors import UserError

MODEL, WEIGHTS = "ViT-L-14", "openai"
SCALE = 100  # of a cosine, in what is called CLIP score


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
        UserError: open_clip is missing, an unknown model or tag, a file of other weights or one whose activation nobody
            tells, a download that failed.
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
        if self.device.type == "cpu" and clip_pass.known(self.network):
            return clip_pass.embed(self.network.visual, batch).float()
        return self.network.encode_image(batch).float().cpu()

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> tuple[Tensor, list[bool]]:
        """Embeddings (B, D), not normalised, and which texts were cut to fit."""
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}  # several drawings may share one
        tokens = self.tokenizer(list(places))
        limit = tokens.shape[1]
        cut = [self._length(text) > limit for text in texts]
        embedded = self.network.encode_text(tokens.to(self.device)).float().cpu()
        return embedded[[places[text] for text in texts]], cut

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


def weights_hash(network: torch.nn.Module) -> str:
    """A hash of all weights."""
    found = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        found.update(name.encode())
        found.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
