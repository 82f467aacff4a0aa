"""Where a stage's drawn pictures come from: codes kept beside the shards, codes that the run keeps, or the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn
from torch import Tensor

from vargpt_lightning.data.corpora import Corpora
from vargpt_lightning.data.images.pictures import ENDLESS, PictureReader
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.data.visual_tokens.codes import FOLDER_NAME, Recipe, VisualTokens, find
from vargpt_lightning.data.visual_tokens.job import tokenize
from vargpt_lightning.models.core.config import TokenizerConfig
from vargpt_lightning.models.tokenizer.multi_scale import MultiScaleTokenizer
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.utils.errors import UserError

Sources = Mapping[str, ShardDataset]


def drawn_reader(
    tokenizer: TokenizerConfig, fit: str = "crop", variants: int = 1, flip: bool = False, size: int = 0
) -> PictureReader:
    """Return how drawn pictures are read for an image tokenizer; `variants` 0 is another one each time.

    `size` says which of the sizes of pictures that are drawn.
    """
    shape = tokenizer.picture_shapes[size]
    return PictureReader(shape, fit=fit, variants=variants or ENDLESS, flip=flip)  # type: ignore[arg-type]


def recipe_of(tokenizer: MultiScaleTokenizer, settings: TokenizerConfig, reader: PictureReader) -> Recipe:
    """Return what codes of this tokenizer depend on."""
    return Recipe.of(tokenizer.encoding_state(), settings.arguments(), reader)


@dataclass
class StageTokens:
    """The codes of a run's drawn pictures, as far as its stages may use them.

    Args:
        settings: of the image tokenizer.
        corpora: where the data come from, and whether codes are to be used.
        cache: the run's own cache folder, where codes are made of corpora that have none, if features are cached.
    """

    settings: TokenizerConfig
    corpora: Corpora
    cache: Path
    _codes: dict[str, dict[str, VisualTokens]] = field(default_factory=dict)

    @property
    def reader(self) -> PictureReader:
        """How drawn pictures are read where there are no codes; those of other sizes as `readers` has it."""
        return self.readers[0]

    @property
    def readers(self) -> list[PictureReader]:
        """How drawn pictures of each size are read."""
        corpora = self.corpora
        how = (corpora.drawn_fit, corpora.drawn_variants, corpora.drawn_flip)
        return [drawn_reader(self.settings, *how, size) for size in range(len(self.settings.schedules))]

    def prepare(self, tokenizer: MultiScaleTokenizer, stage: Stage, splits: Mapping[str, Sources]) -> None:
        """Look for codes of the corpora that the stage draws from, or make them, and say which are used.

        Raises:
            UserError: they are required, and those of a training corpus are not there or were made otherwise.
        """
        self._codes = {}
        if stage.self_correction is not None and self.corpora.visual_tokens == "require":
            raise UserError(
                f"stages.{stage.name}.self_correction needs the pictures, but data.visual_tokens is 'require'; "
                "expected auto or off"
            )
        several = len(self.settings.schedules) > 1
        if several and self.corpora.visual_tokens == "require":
            raise UserError(
                "data.visual_tokens is 'require', but codes are kept of one size and model.tokenizer.sizes asks for "
                "others; expected auto or off: pictures are encoded in training"
            )
        wanted = self.corpora.visual_tokens != "off" and stage.self_correction is None and not several
        if "image_tokenizer" in stage.train or not wanted:
            return
        recipe: Recipe | None = None
        for split, sources in splits.items():
            used = {name: source for name, source in sources.items() if stage.data.get(name) and source.draws}
            if used:
                recipe = recipe or recipe_of(tokenizer, self.settings, self.reader)
                self._codes[split] = self._of_split(tokenizer, stage, split, used, recipe)
        if train := self._codes.get("train"):
            pictures = sum(codes.index["counts"]["pictures"] for codes in train.values())
            rank_zero_only(print)(
                f"stage {stage.name}: visual tokens of {pictures:,} drawn pictures are read, not encoded again: "
                + ", ".join(f"{name} from {codes.folder}" for name, codes in train.items()),
                flush=True,
            )

    def apply(self, split: str, sources: Sources) -> dict[str, ShardDataset]:
        """Return the corpora with codes in place of drawn pictures, where the stage has them."""
        codes = self._codes.get(split, {})
        return {name: source.with_codes(codes[name]) if name in codes else source for name, source in sources.items()}

    def _of_split(
        self, tokenizer: MultiScaleTokenizer, stage: Stage, split: str, sources: Sources, recipe: Recipe
    ) -> dict[str, VisualTokens]:
        """Codes of all these corpora, or of none: a batch holds either codes or pixels."""
        training = split == "train"
        if not training:  # held-out pictures are not varied
            recipe = replace(recipe, variants=1)
        found: dict[str, VisualTokens] = {}
        for name, source in sources.items():
            search = find(source.folder / FOLDER_NAME, source.index["shards"], recipe)
            if search.found is not None:
                found[name] = search.found.with_variants(recipe.variants)
            elif training and (search.objections or self.corpora.visual_tokens == "require"):
                self._complain(stage, name, source, search.objections, recipe)
        missing = {name: source for name, source in sources.items() if name not in found}
        if missing and not (self.corpora.cache_features and recipe.variants < ENDLESS):
            return {}
        reader = replace(self.reader, variants=recipe.variants)
        for name, source in missing.items():
            found[name] = self._make(tokenizer, self.cache / FOLDER_NAME / f"{split}-{name}", source, recipe, reader)
        return found

    def _make(
        self, tokenizer: MultiScaleTokenizer, root: Path, source: ShardDataset, recipe: Recipe, reader: PictureReader
    ) -> VisualTokens:
        tokens, bits = self.settings.schedule.num_tokens, tokenizer.numbers
        device = tokenizer.device
        tokenizer.eval()

        def encode(x_B3HW: Tensor) -> Tensor:
            return tokenizer.encode(x_B3HW.to(device))

        # the processes of a distributed run come here together: the first one makes them
        return VisualTokens(tokenize(source, root, recipe, reader, encode, tokens=tokens, bits=bits, wait=True))

    def _complain(self, stage: Stage, name: str, source: ShardDataset, objections: list[str], recipe: Recipe) -> None:
        """Refuse codes that will not do, or warn of them; nothing is used that was made otherwise."""
        what = "; ".join(objections) or f"{source.folder / FOLDER_NAME}: there are none"
        some = f" --variants {recipe.variants}" if 1 < recipe.variants < ENDLESS else ""
        anew = (
            f"`vargpt data tokenize {source.folder} --tokenizer {self.cache.parent}{some}` makes them with the "
            "tokenizer of the run's last finished stage"
        )
        if recipe.variants >= ENDLESS:
            anew = "data.drawn_variants: N and codes of N variants go together"
        message = f"stage {stage.name}: visual tokens of {name} cannot be used: {what}. {anew}"
        if self.corpora.visual_tokens == "require":
            raise UserError(f"{message}; data.visual_tokens: off encodes pictures in training")
        rank_zero_warn(f"{message}. Pictures are encoded again")
