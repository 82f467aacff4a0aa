"""Feature extractors of torch-fidelity with their weights, fed by one of three named resize rules.

`torch_fidelity`  the network's own resize to 299: bilinear as in TensorFlow 1, no antialiasing, on uint8 pixels
`clean`           before the network: bicubic, antialiased, each channel by PIL in floating point, not rounded again
                  (Parmar et al., 2022); the network then resizes no further
`adm`             as in the graph of the ADM evaluator (Dhariwal and Nichol, 2021): bilinear as in TensorFlow 1; the
                  Inception Score then has splits of 5000 in the pictures' order

Shapes: B pictures, C colours, H height, W width, D feature channels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vargpt_lightning.evaluation.features.finite import check_finite
from vargpt_lightning.evaluation.features.inception_pass import inception_pass, resize_as_tensorflow
from vargpt_lightning.utils.errors import UserError, meant

VARIANTS = ("torch_fidelity", "clean", "adm")
RESIZE = {
    "torch_fidelity": "bilinear as TensorFlow 1, uint8 to float, inside the network",
    "clean": "PIL bicubic, antialiased, each channel in float, clipped to 0..255, before the network",
    "adm": "bilinear as TensorFlow 1, as in the ADM evaluator's graph",
}
INCEPTION, DINOV2, VGG16 = "inception-v3-compat", "dinov2-vit-l-14", "vgg16"
SPATIAL = "spatial"  # what sFID is measured on: the ADM evaluator's mixed_6/conv, first 7 channels
SIDE = 299
_SIZES = {"64": 64, "192": 192, "768": 768, "2048": 2048, "logits_unbiased": 1008, "logits": 1008, SPATIAL: 2023}
FAST, EXACT = "channels_last", "contiguous"


class FeatureExtractor:
    """Turns batches of pictures into features by layer, on the CPU, float32.

    Args:
        layers: names of the network's layers, and "spatial" for Inception.
        weights: a local file in the library's format; None lets the library fetch its own.
        variant: one of VARIANTS; other networks than Inception know only "torch_fidelity".
        name: the network's name in torch-fidelity.
        layout: "contiguous" computes bit for bit what torch-fidelity does; "channels_last" is faster on processors and
            differs by rounding.

    Raises:
        UserError: an unknown variant, layer or network, weights that do not fit, weights that cannot be fetched.
    """

    def __init__(
        self,
        layers: Sequence[str],
        weights: Path | None = None,
        *,
        variant: str = "torch_fidelity",
        name: str = INCEPTION,
        device: str = "cpu",
        layout: str = EXACT,
    ) -> None:
        if variant not in VARIANTS:
            raise UserError(f"variant {variant!r}; expected one of {', '.join(VARIANTS)}{meant(variant, VARIANTS)}")
        if variant != "torch_fidelity" and name != INCEPTION:
            raise UserError(f"variant {variant!r} with {name}; it is a rule for Inception features alone")
        self.name, self.layers, self.variant, self.device = name, tuple(layers), variant, torch.device(device)
        inner = [layer for layer in self.layers if layer != SPATIAL]
        if SPATIAL in self.layers and not set(inner) - {"64", "192"}:
            inner.append("768")  # the network ends with the last layer it is asked for, and must come as far
        self.network = load_network(name, inner, weights)
        self.weights = fingerprint(self.network)
        form = torch.channels_last if layout == FAST else torch.contiguous_format
        self.layout = layout
        self.network.to(self.device).to(memory_format=form)
        self._spatial: list[Tensor] = []
        if SPATIAL in self.layers:
            self.network.Mixed_6d.branch1x1.register_forward_hook(self._keep_spatial)

    @property
    def about(self) -> dict[str, Any]:
        """What a feature depends on."""
        resize = RESIZE[self.variant] if self.name == INCEPTION else "the network's own"
        about = {"extractor": self.name, "variant": self.variant, "resize": resize, "weights": self.weights}
        return {**about, "layout": self.layout, "device": self.device.type}

    def prepare(self, picture: Image.Image) -> Tensor:
        """One picture as the network's input: (3, H, W) uint8, for `clean` (3, 299, 299) float in 0..255."""
        return self.as_input(as_array(picture))

    def as_input(self, pixels_HWC: np.ndarray) -> Tensor:
        """Return what `prepare` does, of pixels in uint8."""
        array = clean_resize(pixels_HWC) if self.variant == "clean" else pixels_HWC
        return torch.from_numpy(np.array(array)).permute(2, 0, 1)

    def to(self, device: torch.device) -> None:
        """Go on on another device."""
        if device != self.device:
            self.network.to(device)
            self.device = device

    @torch.inference_mode()
    def __call__(self, batch_B3HW: Tensor) -> dict[str, Tensor]:
        """Features by layer, (B, D) float32."""
        self._spatial.clear()
        batch_B3HW = batch_B3HW.contiguous().to(self.device, non_blocking=True)
        if self.name != INCEPTION:
            named = self.network.convert_features_tuple_to_dict(self.network(batch_B3HW))
        else:
            named = inception_pass(self.network, batch_B3HW, self._resize, self.network.features_list)
        if SPATIAL in self.layers:
            named[SPATIAL] = torch.cat(self._spatial)
        return {layer: named[layer].float().cpu() for layer in self.layers}

    def _resize(self, batch_B3HW: Tensor) -> Tensor:
        """Pictures at the network's size, float32 in 0..255; those of `clean` are there already."""
        return batch_B3HW.float() if self.variant == "clean" else resize_as_tensorflow(batch_B3HW, SIDE)

    def sizes(self) -> dict[str, int]:
        """Channels by layer; networks other than Inception are asked once with a small picture."""
        if self.name == INCEPTION:
            return {layer: _SIZES[layer] for layer in self.layers}
        found = self(self.prepare(Image.new("RGB", (8, 8)))[None])
        return {layer: rows_BD.shape[1] for layer, rows_BD in found.items()}

    def _keep_spatial(self, module: Any, inputs: Any, output_BCHW: Tensor) -> None:
        # the evaluator's order of places and channels, which its files of mean and covariance share
        self._spatial.append(output_BCHW[:, :7].permute(0, 2, 3, 1).flatten(1))


def clean_resize(pixels_HWC: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Bicubic, antialiased resize of each channel in floating point, (side, side, C) float32 clipped to 0..255."""
    channels = []
    for channel_HW in np.moveaxis(pixels_HWC, 2, 0):
        plane = Image.fromarray(np.ascontiguousarray(channel_HW, dtype=np.float32))
        channels.append(np.asarray(plane.resize((side, side), Image.Resampling.BICUBIC)))
    return np.stack(channels, axis=2).clip(0, 255)


def load_network(name: str, layers: Sequence[str], weights: Path | None) -> Any:
    """One of torch-fidelity's networks with its weights, in evaluation mode.

    Raises UserError for a layer the network does not have, for a file of other weights, and with the library's own
    message when its weights cannot be fetched.
    """
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY as networks

    if name not in networks:
        raise UserError(f"feature extractor {name!r}; expected one of {', '.join(sorted(networks))}")
    provided = networks[name].get_provided_features_list()
    for layer in layers:
        if layer not in provided:
            raise UserError(f"{name} has no layer {layer!r}; expected one of {', '.join(provided)}")
    if weights is not None:
        _check_weights(weights)
    path = str(weights) if weights is not None else None
    try:
        return networks[name](name, list(layers), feature_extractor_weights_path=path)
    except NotImplementedError as error:
        raise UserError(f"torch-fidelity reads no weights file for {name}; leave the option out") from error
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{weights or name}: not the weights of {name} ({reason} ...)") from error
    except OSError as error:
        raise UserError(f"the weights of {name} cannot be fetched ({error}); name a local file instead") from error


def _check_weights(path: Path) -> None:
    """Opens the file without running any code in it, which the library's own loading would."""
    if not path.is_file():
        raise UserError(f"{path}: not found; expected weights in torch-fidelity's format (a .pth file)")
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        reason = str(error).split(". ")[0].splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: not a file of weights ({reason}); expected torch-fidelity's .pth file") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: {type(state).__name__}; expected names and tensors in torch-fidelity's format")
    check_finite(path, state)


def as_array(picture: Image.Image) -> np.ndarray:
    """A picture as torch-fidelity reads it, (H, W, 3): Pillow's own conversion, not turned, transparency dropped."""
    return np.asarray(picture.convert("RGB"))


def fingerprint(network: torch.nn.Module) -> str:
    """A hash of all weights: two sets of features compare only when it is the same."""
    found = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
