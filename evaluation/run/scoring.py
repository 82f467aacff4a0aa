"""From the files of an evaluation to its figures: nothing is asked again, so figures can be made anew at any time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from vargpt_lightning.evaluation.base.exact_match import (
    OPEN_KINDS,
    confusions,
    mode_switch,
    score_kinds,
    share,
    turn_switch,
)
from vargpt_lightning.evaluation.base.figures import headline
from vargpt_lightning.evaluation.base.files import open_picture
from vargpt_lightning.evaluation.base.protocols import TRAIN
from vargpt_lightning.evaluation.composition.composition import composition, is_scene
from vargpt_lightning.evaluation.composition.edits import edit_figures
from vargpt_lightning.evaluation.features.efficientnet import EfficientNetFeatures, FeatureFunction
from vargpt_lightning.evaluation.metrics.base import Given
from vargpt_lightning.evaluation.metrics.efficientnet import (
    NOT_COMPARABLE,
    EfficientNetKernelDistance,
    few_samples,
    frechet_distance,
)
from vargpt_lightning.evaluation.metrics.identification import IdentificationRate, cosine, identification_ranks
from vargpt_lightning.evaluation.run.baselines import blur, noise, squared_error
from vargpt_lightning.evaluation.run.cost import write_cost
from vargpt_lightning.evaluation.run.diversity import diversity
from vargpt_lightning.evaluation.run.judging import judged
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.files import plain, read_json, read_jsonl, write_json, write_jsonl
from vargpt_lightning.utils.heldout import HELDOUT, wilson

FEW_SAMPLES = "fewer pictures than feature channels: this FD is dominated by the sample's size, read KID instead"
BELOW_ZERO = (
    "KID is an unbiased estimate: where the true distance is near zero, and on few pictures, it comes out below zero, "
    "which says no more than that no distance was found"
)
MEASURING = "picture features"
ALONE: dict[str, Any] = {"sync_on_compute": False}  # this process scores all there is
Row = Mapping[str, Any]


def score_folder(out: Path | str, features: FeatureFunction | None = None, progress: Any = None) -> dict[str, Any]:
    """Scores an evaluation's folder from its files alone and writes metrics.json.

    Raises UserError when the folder holds no evaluation.
    """
    out = Path(out)
    if not (out / "inputs.json").is_file():
        raise UserError(f"{out} holds no evaluation: inputs.json is missing")
    inputs = read_json(out / "inputs.json")
    answers, drawings = read_jsonl(out / "answers.jsonl"), read_jsonl(out / "drawings.jsonl")
    expected = inputs.get("expected", {})
    complete = all(len(read_jsonl(out / f"{name}.jsonl")) == count for name, count in expected.items())
    metrics: dict[str, Any] = {"version": 1, "complete": complete}
    metrics |= {key: inputs.get(key) for key in ("model", "settings", "sampling")}
    metrics["questions"] = score_kinds(answers, inputs.get("training_answers"), inputs.get("training_prompts"))
    metrics["open_kinds"] = [kind for kind in OPEN_KINDS if kind in metrics["questions"]]
    metrics["confusion"] = confusions(answers)
    metrics["mode_switch"] = mode_switch(answers, drawings)
    if conversations := read_jsonl(out / "conversations.jsonl"):
        metrics["turn_switch"] = turn_switch(conversations)
    pictures, copies = read_jsonl(out / "pictures.jsonl"), read_jsonl(out / "reconstructions.jsonl")
    scenes = {row["id"] for row in pictures if is_scene(row)}
    if single := [row for row in pictures if row["id"] not in scenes]:
        gallery = _Gallery(out, single, inputs["settings"], features, progress)
        metrics |= gallery.figures([row for row in drawings if row.get("picture") not in scenes], copies)
        write_jsonl(out / "drawing_scores.jsonl", gallery.drawing_scores)
    if scenes:
        asked_back = read_jsonl(out / "asked_back.jsonl")
        metrics["composition"] = composition(out, drawings, pictures, copies, asked_back)
    write_cost(out, drawings)
    if repeats := read_jsonl(out / "repeats.jsonl"):
        seen_by = features or EfficientNetFeatures(inputs["settings"]["feature_size"])
        metrics["diversity"] = diversity(out, drawings, repeats, seen_by)
    if edits := read_jsonl(out / "edits.jsonl"):
        metrics["edits"] = edit_figures(out, edits)
    if names := inputs["settings"].get("judges"):
        metrics["judges"], verdicts = judged(out, names, drawings, pictures)
        write_jsonl(out / "judgements.jsonl", verdicts)
    metrics = plain(metrics)
    metrics["headline"] = headline(metrics)
    write_json(out / "metrics.json", metrics)
    return metrics


class _Gallery:
    """The real pictures with their features, and everything that is measured against them."""

    def __init__(
        self, out: Path, pictures: Sequence[Row], settings: Row, features: FeatureFunction | None, progress: Any
    ) -> None:
        self.out, self.rows, self.settings = out, list(pictures), settings
        self.features = features or EfficientNetFeatures(settings["feature_size"])
        self.say, self.steps = progress or (lambda title, done, total: None), 0
        self.place = {row["id"]: number for number, row in enumerate(self.rows)}
        self.drawing_scores: list[dict[str, Any]] = []
        self.images = [open_picture(out, row) for row in self.rows]
        self.real_NC = self._measure(self.images)
        self.given = Given(self.real_NC.shape[1])
        self.train = [number for number, row in enumerate(self.rows) if row["split"] == TRAIN]
        # Where nothing is known of a split, all pictures are the reference.
        self.reference = self.train or list(range(len(self.rows)))

    def figures(self, drawings: Sequence[Row], reconstructions: Sequence[Row]) -> dict[str, Any]:
        """The figures of the drawings by split, the baselines, and the words that must stand beside them."""
        by_split = self._by_split(drawings)
        baselines = self._baselines(reconstructions)
        name = getattr(self.features, "name", type(self.features).__name__)
        sets = [*by_split.values(), *baselines.values()]
        notes = [NOT_COMPARABLE]
        if any(figures.get("fd_few_samples") for figures in sets):
            notes.append(f"FD: {FEW_SAMPLES}.")
        if any(figures["kid_x1000"] < 0 for figures in sets):
            notes.append(f"{BELOW_ZERO}.")
        self.say(MEASURING, self.steps, self.steps)
        return {
            "features": {"name": name, "size": self.settings["feature_size"], "channels": self.real_NC.shape[1]},
            "pictures": {"gallery": len(self.rows), "reference": len(self.reference), "size": self.images[0].size},
            "drawings": by_split,
            "baselines": baselines,
            "reconstruction_psnr": self._psnr(reconstructions),
            "notes": notes,
        }

    def _by_split(self, drawings: Sequence[Row]) -> dict[str, dict[str, Any]]:
        """The figures of the drawings of each split, and of those of all held-out splits together."""
        drawn = [row for row in drawings if row.get("files")]
        place = {row["id"]: number for number, row in enumerate(drawn)}
        drawn_MC = self._measure([open_picture(self.out, row) for row in drawn])
        groups: dict[str, list[Row]] = {}
        for row in drawings:
            groups.setdefault(row["split"], []).append(row)
        heldout = [row for row in drawings if row["split"] != TRAIN]
        if heldout:
            groups[HELDOUT] = heldout
        features = {
            split: drawn_MC[[place[row["id"]] for row in rows if row["id"] in place]] for split, rows in groups.items()
        }
        return {split: self._drawings(rows, features[split], split != HELDOUT) for split, rows in groups.items()}

    def _drawings(self, rows: Sequence[Row], drawn_MC: Tensor, keep: bool) -> dict[str, Any]:
        """The figures of some drawings; `keep` notes each drawing's rank."""
        drawn = [row for row in rows if row.get("files")]
        figures = self._distances(drawn_MC) | {"prompts": len(rows), "pictures": len(drawn)}
        known = [number for number, row in enumerate(drawn) if row["picture"] in self.place]
        places = [self.place[drawn[number]["picture"]] for number in known]
        missing = sum(not row.get("files") and row["picture"] in self.place for row in rows)
        if known or missing:
            figures["identification"] = self._identification(drawn_MC[known], places, missing)
            nearest = cosine(drawn_MC[known], self.real_NC).argmax(dim=1).tolist() if known else []
            figures |= self._same_kind(nearest, places, missing)
            ranks = identification_ranks(drawn_MC[known], self.real_NC, places) if keep else []
            for number, rank, near in zip(known, ranks, nearest, strict=True) if keep else ():
                self.drawing_scores.append({"id": drawn[number]["id"], "rank": rank, "nearest": self.rows[near]["id"]})
        return figures

    def _baselines(self, reconstructions: Sequence[Row]) -> dict[str, dict[str, Any]]:
        """What the figures would be for pictures that nobody drew, measured by the same code in the same run."""
        reference = self.reference
        images = [self.images[number] for number in reference]
        sigma, width = float(self.settings["blur_sigma"]), self.images[0].size[0]
        fine = sigma * width / 128
        found: dict[str, dict[str, Any]] = {}
        copies = {row["id"]: row for row in reconstructions if row["id"] in self.place}
        copied = [number for number in reference if self.rows[number]["id"] in copies]
        if copied:
            pictures = [open_picture(self.out, copies[self.rows[number]["id"]]) for number in copied]
            found["reconstruction"] = self._baseline("reconstructions by the image tokenizer", pictures, copied)
        found["same"] = self._distances(self.real_NC[reference]) | {"label": "the very same pictures (lowest possible)"}
        heldout = [number for number in range(len(self.rows)) if number not in set(reference)]
        if heldout:
            found["heldout_real"] = self._distances(self.real_NC[heldout]) | {"label": "held-out real pictures"}
        if fine != sigma:
            label = f"Gaussian blur, sigma {fine:g} px ({sigma:g} px at 128)"
            found["blur_fine"] = self._baseline(label, [blur(image, fine) for image in images], reference)
        found["blur"] = self._baseline(
            f"Gaussian blur, sigma {sigma:g} px of {width}", [blur(image, sigma) for image in images], reference
        )
        pictures = noise(self.images[0].size, len(reference), int(self.settings["seed"]))
        found["noise"] = self._baseline("uniform noise", pictures, reference)
        return found

    def _baseline(self, label: str, pictures: Sequence[Image.Image], places: Sequence[int]) -> dict[str, Any]:
        features_MC = self._measure(pictures)
        figures = self._distances(features_MC) | {"label": label, "pictures": len(pictures)}
        return figures | {"identification": self._identification(features_MC, places)}

    def _identification(self, features_MC: Tensor, places: Sequence[int], missing: int = 0) -> dict[str, Any]:
        metric = IdentificationRate(self.real_NC, self.given, **ALONE)
        metric.update(features_MC, places, missing)
        return _rates(metric.compute_all(), len(self.rows))

    def _distances(self, features_MC: Tensor) -> dict[str, Any]:
        reference_NC = self.real_NC[self.reference]
        metric = EfficientNetKernelDistance(self.given, **ALONE)
        metric.update(reference_NC, real=True)
        metric.update(features_MC, real=False)
        kid = metric.compute_all()
        fd = frechet_distance(reference_NC, features_MC)
        measured = not math.isnan(fd)
        return {
            "pictures": len(features_MC),
            "kid_x1000": 1000 * kid["kid"],
            "kid_x1000_error": 1000 * kid["kid_error"],
            "fd": fd,
            "fd_few_samples": measured and few_samples(reference_NC, features_MC),
        }

    def _same_kind(self, nearest: Sequence[int], places: Sequence[int], missing: int) -> dict[str, Any]:
        """How often the nearest real picture is of the category asked for, beside the commonest category's share."""
        found = {}
        for key in ("category", "subcategory"):
            values = [row.get(key) for row in self.rows]
            if all(values) and len(set(values)) > 1:
                hits = [values[near] == values[place] for near, place in zip(nearest, places, strict=True)]
                commonest = Counter(values).most_common(1)[0][1] / len(values)
                found[f"same_{key}"] = share([*hits, *[False] * missing]) | {"baseline": commonest}
        return found

    def _psnr(self, reconstructions: Sequence[Row]) -> dict[str, float]:
        """Peak signal-to-noise ratio of the reconstructions in dB, by split and of all held-out ones, from the sum of
        squared errors."""
        sums: dict[str, list[float]] = {}
        for row in reconstructions:
            if row["id"] in self.place:
                copy, real = open_picture(self.out, row), self.images[self.place[row["id"]]]
                total, count = squared_error([real], [copy.resize(real.size) if copy.size != real.size else copy])
                for split in (row["split"], *([HELDOUT] if row["split"] != TRAIN else [])):
                    entry = sums.setdefault(split, [0.0, 0.0])
                    entry[0], entry[1] = entry[0] + total, entry[1] + count
        return {split: -10 * math.log10(max(total / count, 1e-10)) for split, (total, count) in sums.items()}

    def _measure(self, pictures: Sequence[Image.Image]) -> Tensor:
        self.steps += 1
        self.say(MEASURING, self.steps, max(8, self.steps))
        return self.features(pictures)


def _rates(found: Mapping[str, float], gallery: int) -> dict[str, Any]:
    n = int(found["n"])
    figures: dict[str, Any] = {"n": n, "at_1": int(found["at_1"]), "at_5": int(found["at_5"])}
    for k in (1, 5):
        low, high = wilson(figures[f"at_{k}"], n)
        figures |= {f"rate_{k}": found[f"rate_{k}"] if n else None, f"low_{k}": low, f"high_{k}": high}
        figures[f"chance_{k}"] = min(1.0, k / gallery)
    return figures
