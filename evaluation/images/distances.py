"""The distances of one measurement: which features they need, of which pictures, and what is refused beforehand."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from vargpt_lightning.evaluation.features.feature_sums import FeatureSums, Moments, load_moments, require_alike
from vargpt_lightning.evaluation.features.inception import DINOV2, SPATIAL, VGG16, FeatureExtractor
from vargpt_lightning.evaluation.images.adm_npz import write_adm
from vargpt_lightning.evaluation.images.feature_store import Measured, measure_features, resize_and_crop
from vargpt_lightning.evaluation.images.picture_lists import list_pictures, references
from vargpt_lightning.evaluation.images.settings import ON_PICTURES, TWO_SIDED, WORK, Measurement
from vargpt_lightning.evaluation.metrics.base import Given, SetMetric
from vargpt_lightning.evaluation.metrics.cmmd import CLIPMaximumMeanDiscrepancy
from vargpt_lightning.evaluation.metrics.density_coverage import DensityCoverage
from vargpt_lightning.evaluation.metrics.fid import FrechetInceptionDistance
from vargpt_lightning.evaluation.metrics.inception_score import InceptionScore
from vargpt_lightning.evaluation.metrics.kid import KernelInceptionDistance
from vargpt_lightning.evaluation.metrics.networks import ClipExtractor, ClipFeatures
from vargpt_lightning.evaluation.metrics.precision_recall import PrecisionRecall
from vargpt_lightning.utils.errors import UserError

if TYPE_CHECKING:
    from vargpt_lightning.evaluation.features.clip import ClipModel

ALONE: dict[str, Any] = {"sync_on_compute": False}  # what is measured here is of all processes already


def check_samples(name: str, size: int, drawn: int, real: int | None, allow: Collection[str] = ()) -> list[str]:
    """Marks for a set with fewer pictures than features, whose distance says more of its size than of its pictures.

    A count that a file does not tell is marked too. Raises UserError for too few unless "few_samples" is allowed.
    """
    marks = []
    for side, count in (("drawn", drawn), ("real", real)):
        if count is None:
            marks.append(
                f"unknown_statistics: {name} is measured against statistics that do not say how they were made"
            )
        elif count < size:
            if "few_samples" not in allow:
                raise UserError(
                    f"{name}: {count} {side} pictures for {size} features; expected at least as many, "
                    "or add --allow few_samples, and the result is marked"
                )
            marks.append(f"few_samples: {name} of {count} {side} pictures with {size} features")
    return marks


def find_reference(work: Measurement, reference: Path | None) -> None:
    """Finds the real side: a folder, saved statistics, or the prompts' own pictures; UserError when it does not do."""
    if reference is None:
        if not work.prompts:
            names = ", ".join(name for name in work.settings.metrics if name in TWO_SIDED)
            raise UserError(f"{names}: nothing to compare with; name --reference (a folder, or .npz) or --prompts")
        work.real = references(work.prompts)
        work.facts["reference"] = "the prompts' own pictures"
        work.facts["reference_distinct"] = len({file.path for file in work.real})
    elif reference.suffix == ".npz":
        needs = [name for name in work.settings.metrics if name in ON_PICTURES]
        if needs:
            raise UserError(f"{reference}: {', '.join(needs)} need real pictures; statistics are for fid alone")
        work.real_moments = load_moments(reference)
        work.facts["reference"] = {"file": reference.name, **work.real_moments.about}
    else:
        work.real = list_pictures(reference)
        work.facts["reference"] = str(reference)


def _measured(work: Measurement, side: str, extractor: Any, sums: Sequence[str], keep: Sequence[str]) -> Measured:
    size = work.settings.resize_and_crop
    found = measure_features(
        work.drawings if side == "drawn" else work.real,
        extractor,
        work.out / WORK / side,
        sum_layers=sums,
        keep_layers=keep,
        batch_size=work.settings.batch_size,
        allow=work.settings.allow,
        prepare=None if size is None else resize_and_crop(size),
        prepared_as="" if size is None else f"resize and crop {size}",
        processes=work.processes,
        progress=work.progress,
        title=f"{extractor.name}, {side} pictures",
    )
    if found.broken:
        work.marks.append(f"broken: {found.broken} {side} pictures do not decode")
    if side == "drawn":
        work.n = found.count
    work.facts[f"{side}_list"] = found.digest
    work.facts[f"{side}_n"] = found.count
    return found


def inception_distances(work: Measurement, save_statistics: Path | None, export_adm_statistics: Path | None) -> None:
    """Measures Inception features once and takes from them what is asked for.

    Raises UserError for too few pictures, or statistics that were measured otherwise, before anything is measured.
    """
    set_, layer = work.settings, work.settings.layer
    spatial = work.wants("sfid") or export_adm_statistics is not None
    sums = [layer] * (work.wants("fid") or bool(save_statistics or export_adm_statistics)) + [SPATIAL] * spatial
    keep = [layer] * work.wants("kid", "prc", "dc") + ["logits_unbiased"] * work.wants("isc")
    wanted = list(dict.fromkeys([*sums, *keep]))
    extractor = FeatureExtractor(
        wanted, set_.inception_weights, variant=set_.variant, device=set_.device, layout=set_.layout
    )
    work.facts["inception"] = {**extractor.about, "layer": layer}
    if work.real_moments is not None:
        require_alike({**extractor.about, "layer": layer}, work.real_moments.about)
    _enough_pictures(work, extractor.sizes(), {"fid": layer, "sfid": SPATIAL})
    drawn = _measured(work, "drawn", extractor, sums, keep)
    if save_statistics is not None and work.processes.first:
        drawn.sums[layer].save(save_statistics)
    if export_adm_statistics is not None and work.processes.first:
        _export_statistics(work, export_adm_statistics, drawn, layer)
    if work.wants("isc"):
        logits = drawn.features["logits_unbiased"]
        score = InceptionScore(_given(logits), splits=set_.isc_splits, variant=set_.variant, **ALONE)
        score.update(logits)
        work.metrics |= score.compute_all()
    if work.real:
        real = _measured(work, "real", extractor, sums, [name for name in keep if name == layer])
        for name, on in (("fid", layer), ("sfid", SPATIAL)):
            if work.wants(name):
                _distance(work, name, drawn.sums[on], real.sums[on])
        if work.wants("kid"):
            sizes: dict[str, Any] = {"subsets": set_.kid_subsets, "subset_size": set_.kid_subset_size}
            kid = KernelInceptionDistance(_given(drawn.features[layer]), **sizes, **ALONE)
            work.metrics |= _compared(kid, drawn, real, layer)
        if work.wants("prc"):
            prc = PrecisionRecall(_given(drawn.features[layer]), neighbours=set_.prc_neighbours, **ALONE)
            work.metrics |= _compared(prc, drawn, real, layer)
        if work.wants("dc"):
            both = DensityCoverage(_given(drawn.features[layer]), neighbours=set_.dc_neighbours, **ALONE)
            work.metrics |= _compared(both, drawn, real, layer)
    elif work.real_moments is not None:
        _distance(work, "fid", drawn.sums[layer], work.real_moments)


def _enough_pictures(work: Measurement, sizes: dict[str, int], layers: dict[str, str]) -> None:
    """Refuses too few pictures before they are measured."""
    real = len(work.real) if work.real_moments is None else work.real_moments.count
    for name, layer in layers.items():
        if work.wants(name):
            check_samples(name, sizes[layer], len(work.drawings), real, work.settings.allow)


def _given(features_ND: Tensor) -> Given:
    return Given(features_ND.shape[1])


def _compared(metric: SetMetric, drawn: Measured, real: Measured, layer: str) -> dict[str, float]:
    """What a metric says of a layer's features."""
    metric.update(drawn.features[layer], real=False)
    metric.update(real.features[layer], real=True)
    return metric.compute_all()


def _distance(work: Measurement, name: str, drawn: FeatureSums, real: FeatureSums | Moments) -> None:
    work.marks += check_samples(name, drawn.size, drawn.count, real.count, work.settings.allow)
    if real.count is not None and real.count != drawn.count:
        work.marks.append(f"counts_differ: {name} of {drawn.count} drawn pictures against {real.count} real ones")
    metric = FrechetInceptionDistance(Given(drawn.size), real if isinstance(real, Moments) else None, **ALONE)
    metric.add(drawn, real=False)
    if isinstance(real, FeatureSums):
        metric.add(real, real=True)
    work.metrics[name] = metric.compute_all()["fid"]


def _export_statistics(work: Measurement, path: Path, drawn: Measured, layer: str) -> None:
    if layer != "2048" or work.settings.variant == "clean":
        raise UserError(
            f"ADM statistics of layer {layer}, variant {work.settings.variant}; expected layer 2048 and not clean"
        )
    pool, spatial = drawn.sums[layer], drawn.sums[SPATIAL]
    found = {"mu": pool.mean(), "sigma": pool.covariance(), "mu_s": spatial.mean(), "sigma_s": spatial.covariance()}
    write_adm(path, work.drawings, found)


def dinov2_distance(work: Measurement) -> None:
    """The Frechet distance of DINOv2 ViT-L/14 features, with the library's own network and download."""
    extractor = FeatureExtractor(["dinov2"], name=DINOV2, device=work.settings.device, layout=work.settings.layout)
    work.facts["dinov2"] = extractor.about
    _enough_pictures(work, extractor.sizes(), {"fd_dinov2": "dinov2"})
    drawn, real = (_measured(work, side, extractor, ["dinov2"], []) for side in ("drawn", "real"))
    _distance(work, "fd_dinov2", drawn.sums["dinov2"], real.sums["dinov2"])


def clip_discrepancy(work: Measurement, model: ClipModel) -> None:
    """CMMD of a CLIP model's embeddings."""
    extractor = ClipExtractor(ClipFeatures(model))
    work.facts["cmmd"] = extractor.about
    drawn, real = (_measured(work, side, extractor, [], ["clip"]) for side in ("drawn", "real"))
    metric = CLIPMaximumMeanDiscrepancy(_given(drawn.features["clip"]), **ALONE)
    work.metrics |= _compared(metric, drawn, real, "clip")


def vgg16_precision_recall(work: Measurement) -> None:
    """Precision and recall of VGG16 features: what torch-fidelity itself takes where no network is named."""
    set_ = work.settings
    extractor = FeatureExtractor(["fc2_relu"], set_.vgg16_weights, name=VGG16, device=set_.device, layout=set_.layout)
    work.facts["vgg16"] = extractor.about
    drawn, real = (_measured(work, side, extractor, [], ["fc2_relu"]) for side in ("drawn", "real"))
    metric = PrecisionRecall(_given(drawn.features["fc2_relu"]), neighbours=set_.prc_neighbours, **ALONE)
    found = _compared(metric, drawn, real, "fc2_relu")
    work.metrics |= {f"{name}_vgg16": value for name, value in found.items()}
