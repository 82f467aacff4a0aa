"""Which vision tower a VARGPT has, and its sizes, as plain values that are checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar, Literal, cast, get_args

from vargpt_lightning.models import vision as towers
from vargpt_lightning.models.core.families import read_published
from vargpt_lightning.models.vision.tower import (
    NATIVE,
    Fit,
    Tower,
    check_sizes,
    leaves_rest,
    options_of,
    positions_of,
    published_of,
)
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.ranges import Depth, Range, Ranged, Rate, Size, require, require_choice

Side = Annotated[int, Range(1, 2**16)]
"""Pixels."""


@dataclass
class VisionConfig(Ranged):
    """The vision tower.

    Args:
        kind: "clip", "siglip" (SigLIP, and SigLIP 2 of fixed sizes), "siglip2_naflex" (SigLIP 2 of native shapes),
            "dinov2", "dinov3", "qwen2_vl" (vision transformers), "efficientnet_lite0" (feature map of an
            EfficientNet-Lite0), "none" (a model that sees no pictures), or the name of another tower: a file in
            `models/vision`, or an installed package's.
        picture_size: side length of input pictures in pixels; towers that see them in their own shape have none.
        patch_size, width, layers, heads, mlp: sizes of a vision transformer.
        feature_layer: index of the hidden state that is used as the feature, as in transformers, without class token
            and registers; null takes the last one behind its normalisation. Qwen2-VL's is always the last.
        feature: EfficientNet only: "head" (1280 channels after the last activation), "blocks" (320 channels of the last
            block) or "levels" (those of "head" and, the largest of each cell, 80 of a middle block, from which colours
            are read better); all at stride 32.
        pretrained: load EfficientNet's ImageNet weights from the installed package.
        fit: the resize mode, how pictures are made square: "clip" resizes the short side and takes the centre, as
            CLIP's processor does; "llava" pads with the mean colour, as LLaVA-1.5's own code does; "pad" pads with
            white; "crop" takes the middle; "siglip", "dinov2" and "dinov3" do as these families' processors. None uses
            the family's own, "pad" for other towers. "naflex" and "qwen2_vl" keep the picture's shape, and are these
            towers' alone.
        dropout: dropout on the features before the projector, while the projector is trained.
        like: a folder or hub id of a transformers model, whose config.json says kind and sizes; of those given beside
            it, what it does not say counts, and picture_size where positions can be interpolated. Weights come by
            `init_from`.
        positions: patches at a side of the table of learned positions, where it is not the picture's: they are
            interpolated; of siglip2_naflex None is 16.
        max_tokens: of a tower that sees pictures in their own shape: how many feature tokens each has; it is resized
            to no more, and what it leaves of them holds nothing.
        options: further keys of the family's configuration in transformers, such as num_register_tokens.
    """

    place: ClassVar[str] = "vision"

    kind: str = "efficientnet_lite0"
    picture_size: Side = 128
    patch_size: Side = 14
    width: Size = 1024
    layers: Depth = 24
    heads: Size = 16
    mlp: Size = 4096
    feature_layer: Annotated[int, Range(-10_001, 10_000)] | None = -2
    feature: Literal["head", "blocks", "levels"] = "head"
    pretrained: bool = True
    fit: Fit | None = None
    dropout: Rate = 0.0
    like: str | None = None
    positions: Annotated[int, Range(1, 4096)] | None = None
    max_tokens: Annotated[int, Range(1, 2**16)] = 256
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.like is not None:
            self._take(read_published(self.like, "vision.like"))
        super().__post_init__()
        require_choice("vision.kind", self.kind, (*towers.names(), towers.NONE))
        require_choice("vision.fit", self.squaring, get_args(Fit))
        require_choice("vision.feature", self.feature, ("head", "blocks", "levels"))
        if self.kind != towers.NONE:
            self._check_tower()

    def _check_tower(self) -> None:
        tower = self._tower
        own = {tower.FIT} if tower.FIT in NATIVE else set(get_args(Fit)) - set(NATIVE)
        expected = f"one of {', '.join(sorted(own))} for {self.kind}"
        require(self.squaring in own, "vision.fit", self.squaring, expected)
        for key, value in self.options.items():
            known = ", ".join(options_of(tower)) or "none"
            require(key in options_of(tower), f"vision.options.{key}", value, f"an option of {self.kind}: {known}")
        table = self.positions is None or positions_of(tower) == "interpolated"
        require(table, "vision.positions", self.positions, f"none: {self.kind} does not interpolate positions")
        if not self.native:
            stride = tower.stride(self)
            fits = self.picture_size % stride == 0 or leaves_rest(tower, self)
            expected = f"a positive multiple of {stride}, the pixels of a token of {self.kind}"
            require(fits, "vision.picture_size", self.picture_size, expected)
        check_sizes(tower, self)

    def _take(self, published: dict[str, Any]) -> None:
        """Take what a config.json says; then it is forgotten."""
        model_type = str(published.get("model_type"))
        kind = towers.of_model_type(model_type)
        if kind is None:
            known = ", ".join(towers.published_names())
            raise UserError(
                f"vision.like={self.like!r}: its family is {model_type!r}; expected a model with one of {known}"
            )
        default = {entry.name: entry.default for entry in fields(self)}
        if self.kind not in (default["kind"], kind):
            raise UserError(f"vision.like={self.like!r}: its tower is {kind!r}, but vision.kind is {self.kind!r}")
        how = published_of(towers.get(kind))
        sizes = how.sizes(published) if how is not None else {}
        side = sizes.get("picture_size")
        if side is not None and self.picture_size not in (default["picture_size"], side):
            positions = positions_of(towers.get(kind))
            expected = f"{side}, for which {self.like} has positions"
            require(positions != "fixed", "vision.picture_size", self.picture_size, expected)
            sizes["picture_size"] = self.picture_size
            if positions == "interpolated":
                sizes["positions"] = side // sizes["patch_size"]
        sizes["options"] = sizes.get("options", {}) | self.options
        for key, value in {**sizes, "kind": kind}.items():
            setattr(self, key, value)
        self.like = None

    @property
    def _tower(self) -> Tower:
        return towers.get(self.kind)

    @property
    def native(self) -> bool:
        """Whether pictures keep their own shape."""
        return self.squaring in NATIVE

    @property
    def patches(self) -> int:
        """N, the number of feature tokens of one seen picture."""
        if self.native:
            return self.max_tokens
        return 0 if self.kind == towers.NONE else (self.picture_size // self._tower.stride(self)) ** 2

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The shape of a seen picture as the tower takes it: (3, S, S), or a strip of patches with their marks."""
        if self.native:
            return 4, self.patch_size, self.patch_size * self.max_tokens * NATIVE[self.squaring] ** 2
        return 3, self.picture_size, self.picture_size

    @property
    def squaring(self) -> Fit:
        """How pictures are made square, the default resolved."""
        return cast(Fit, self.fit or ("pad" if self.kind == towers.NONE else self._tower.FIT))

    @property
    def scaling(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation by colour, of values in [0, 1], with which the tower was trained."""
        return self._tower.SCALING

    @property
    def channels(self) -> int:
        """Channels of one feature token."""
        return 0 if self.kind == towers.NONE else self._tower.channels(self)
