"""The distances of one measurement: which features they need, of which pictures, and what is refused beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vargpt_lightning.evaluation.features.feature_sums import Moments, load_moments, require_alike
from vargpt_lightning.evaluation.features.inception import DINOV2, SPATIAL, VGG16, FeatureExtractor
from vargpt_lightning.evaluation.images.adm_npz import write_adm
from vargpt_lightning.evaluation.images.feature_store import Measured, measure_features, resize_and_crop
from vargpt_lightning.evaluation.images.frechet import (
    check_samples,
    frechet_distance,
    inception_score,
    kernel_distance,
    moments,
    precision_recall,
)
from vargpt_lightning.evaluation.images.picture_lists import list_pictures, references
from vargpt_lightning.evaluation.images.settings import ON_PICTURES, TWO_SIDED, WORK, Measurement
from vargpt_lightning.utils.errors import UserError


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
    keep = [layer] * work.wants("kid", "prc") + ["logits_unbiased"] * work.wants("isc")
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
        work.metrics |= inception_score(drawn.features["logits_unbiased"], variant=set_.variant, splits=set_.isc_splits)
    if work.real:
        real = _measured(work, "real", extractor, sums, [name for name in keep if name == layer])
        for name, on in (("fid", layer), ("sfid", SPATIAL)):
            if work.wants(name):
                _distance(work, name, moments(drawn.sums[on]), moments(real.sums[on]))
        if work.wants("kid"):
            sizes = {"subsets": set_.kid_subsets, "subset_size": set_.kid_subset_size}
            work.metrics |= kernel_distance(drawn.features[layer], real.features[layer], **sizes)
        if work.wants("prc"):
            both = drawn.features[layer], real.features[layer]
            work.metrics |= precision_recall(*both, neighbours=set_.prc_neighbours)
    elif work.real_moments is not None:
        _distance(work, "fid", moments(drawn.sums[layer]), work.real_moments)


def _enough_pictures(work: Measurement, sizes: dict[str, int], layers: dict[str, str]) -> None:
    """Refuses too few pictures before they are measured."""
    real = len(work.real) if work.real_moments is None else work.real_moments.count
    for name, layer in layers.items():
        if work.wants(name):
            check_samples(name, sizes[layer], len(work.drawings), real, work.settings.allow)


def _distance(work: Measurement, name: str, drawn: Moments, real: Moments) -> None:
    work.marks += check_samples(name, len(drawn.mu), drawn.count or 0, real.count, work.settings.allow)
    if real.count is not None and real.count != drawn.count:
        work.marks.append(f"counts_differ: {name} of {drawn.count} drawn pictures against {real.count} real ones")
    work.metrics[name] = frechet_distance(drawn, real)


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
    _distance(work, "fd_dinov2", moments(drawn.sums["dinov2"]), moments(real.sums["dinov2"]))


def vgg16_precision_recall(work: Measurement) -> None:
    """Precision and recall of VGG16 features: what torch-fidelity itself takes where no network is named."""
    set_ = work.settings
    extractor = FeatureExtractor(["fc2_relu"], set_.vgg16_weights, name=VGG16, device=set_.device, layout=set_.layout)
    work.facts["vgg16"] = extractor.about
    drawn, real = (_measured(work, side, extractor, [], ["fc2_relu"]) for side in ("drawn", "real"))
    both = drawn.features["fc2_relu"], real.features["fc2_relu"]
    found = precision_recall(*both, neighbours=set_.prc_neighbours)
    work.metrics |= {f"{name}_vgg16": value for name, value in found.items()}
