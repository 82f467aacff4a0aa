"""Names of modules before the rooms were named after their work: they work for one version, and warn.

Imports nothing of the package until an old name is asked for.
"""

from __future__ import annotations

import importlib
import warnings
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MODULES = {
    "capacity": "utils.capacity",
    "chat_endpoint": "utils.http.chat_endpoint",
    "claims": "runs.locks",
    "commands.arguments": "utils.arguments",
    "commands.benchmark_results": "evaluation.run.benchmark_results",
    "commands.benchmarks": (
        "evaluation.harness.data commands.options evaluation.formats.hub commands.evaluate_images.run "
        "evaluation.run.benchmark_results distributed.torchrun"
    ),
    "commands.config_check": "experiment.check",
    "commands.config_references": "experiment.references",
    "commands.converted": "checkpoints.export",
    "commands.data_check": "commands.data.check",
    "commands.data_pack": "commands.data.pack data.packing.summary data.packing.source_text",
    "commands.data_pages": "data.openmoji.pictures",
    "commands.data_plots": (
        "evaluation.data_reports.plots evaluation.base.sheets commands.runs evaluation.base.benchmark"
    ),
    "commands.data_sheet": "evaluation.data_reports.sheet",
    "commands.data_show": "commands.data.show evaluation.data_reports.sheet",
    "commands.data_stats": "commands.data.stats evaluation.data_reports.stats_page",
    "commands.data_tokenize": "commands.data.tokenize data.packing.summary",
    "commands.data_write_instructions": "commands.data.write_instructions commands.data.options",
    "commands.experiment": "experiment.schema experiment.parser",
    "commands.final_evaluation": "training.final_evaluation",
    "commands.finished_stages": "training.resume",
    "commands.fit_help": "experiment.help",
    "commands.launch": "training.launch",
    "commands.loading": "inference.load runs.config checkpoints.stage_weights checkpoints.tokens",
    "commands.loggers": "training.loggers",
    "commands.names": "inference.named experiment.places",
    "commands.paths": "utils.paths",
    "commands.plan_plots": "planning.plots",
    "commands.plan_tables": "planning.tables",
    "commands.progress": "utils.progress",
    "commands.quiet": "training.console",
    "commands.request_examples": "training.data.request_examples",
    "commands.reuse_stages": "training.reuse",
    "commands.sample_requests": "training.data.samples",
    "commands.stage_benchmarks": "training.benchmarks",
    "commands.stage_contents": "training.contents",
    "commands.stage_data": "training.data.stage_data training.data.features",
    "commands.stage_inputs": "training.data.inputs",
    "commands.stage_runner": "training.runner checkpoints.stage_weights",
    "commands.stage_tokens": "training.data.visual_tokens",
    "commands.systems": "evaluation.systems.open",
    "commands.tokenizer_loading": "inference.tokenizer",
    "commands.trainers": "training.trainer",
    "counted": "utils.counted",
    "data.batching": "data.mixing.batching",
    "data.caches": "data.loading.feature_cache",
    "data.chat": "data.text.chat",
    "data.collate": "data.loading.collate",
    "data.colours": "data.openmoji.colours",
    "data.dataset": "data.shards.dataset",
    "data.examples": "data.loading.examples",
    "data.fast_resize": "data.images.fast_resize",
    "data.file_hashes": "data.shards.file_hashes",
    "data.images.fits": "data.images.resize_modes",
    "data.jpeg_files": "data.images.jpeg",
    "data.lengths": "data.mixing.lengths",
    "data.loader": "data.loading.loader",
    "data.mixture": "data.mixing.mixture",
    "data.mixture_spec": "data.mixing.spec",
    "data.offsets": "data.shards.offsets",
    "data.openmoji_source": "data.openmoji.source",
    "data.pack_check": "data.packing.check",
    "data.pack_job": "data.packing.job",
    "data.pack_parts": "data.packing.parts",
    "data.pack_pictures": "data.packing.pictures",
    "data.pack_pool": "data.packing.pool",
    "data.pack_reasons": "data.packing.reasons",
    "data.pack_state": "data.packing.state",
    "data.pack_stats": "data.packing.stats",
    "data.packed": "data.loading.packed",
    "data.picture_families": "data.openmoji.picture_families",
    "data.picture_files": "data.images.picture_files",
    "data.picture_fits": "data.images.resize_modes",
    "data.pictures": "data.images.pictures",
    "data.questions": "data.openmoji.questions",
    "data.readers": "data.loading.readers",
    "data.records": "data.shards.records",
    "data.schedule": "data.mixing.schedule",
    "data.slots": "data.images.shared_memory",
    "data.text_pieces": "data.text.text_pieces",
    "data.text_tokenizer": "data.text.text_tokenizer",
    "data.token_sampler": "data.mixing.token_sampler",
    "data.tokenize_job": "data.visual_tokens.job",
    "data.wording": "data.openmoji.wording",
    "devices": "moved data.sources.tars utils.names models.core.devices",
    "distributed_checkpoint": "checkpoints.dcp checkpoints.dcp.folder",
    "distributed_reader": "checkpoints.dcp.reader",
    "errors": "utils.errors",
    "evaluation.adapters.files": "evaluation.systems.files",
    "evaluation.adapters.foreign_rows": "evaluation.systems.foreign_rows",
    "evaluation.adapters.missed_drawings": "inference.missed_drawings",
    "evaluation.adapters.model_files": "evaluation.systems.model_files",
    "evaluation.adapters.model_loading": "evaluation.systems.model_loading",
    "evaluation.adapters.openai_endpoint": "evaluation.systems.openai_endpoint",
    "evaluation.adapters.ours": (
        "inference.assistant training.data.samples utils.http.chat_endpoint evaluation.systems.own"
    ),
    "evaluation.adapters.picture_models": "evaluation.systems.picture_models",
    "evaluation.adapters.prediction_rows": "evaluation.systems.prediction_rows",
    "evaluation.adapters.transformers_model": "evaluation.systems.transformers_model",
    "evaluation.adapters.wording": "evaluation.systems.wording",
    "evaluation.adm_npz": "evaluation.images.adm_npz",
    "evaluation.benchmark_asked": "evaluation.harness.select",
    "evaluation.benchmark_batches": "evaluation.harness.batcher",
    "evaluation.benchmark_drawings": "evaluation.reports.benchmark_drawings",
    "evaluation.benchmark_examples": "evaluation.reports.benchmark_examples",
    "evaluation.benchmark_measured": "evaluation.reports.benchmark_measured",
    "evaluation.benchmark_outputs": "evaluation.harness.outputs",
    "evaluation.benchmark_progress": "evaluation.harness.progress",
    "evaluation.benchmark_report": "evaluation.reports.benchmarks",
    "evaluation.benchmark_runner": "evaluation.harness.run",
    "evaluation.benchmark_scoring": "evaluation.harness.score",
    "evaluation.benchmark_table_text": "evaluation.reports.table_text",
    "evaluation.benchmark_tables": "evaluation.reports.tables",
    "evaluation.benchmarks.base": "evaluation.base.benchmark",
    "evaluation.benchmarks.hub": "evaluation.formats.hub",
    "evaluation.benchmarks.layouts": "evaluation.formats.layouts",
    "evaluation.benchmarks.layouts_parquet": "evaluation.formats.layouts_parquet",
    "evaluation.benchmarks.layouts_rows": "evaluation.formats.layouts_rows",
    "evaluation.benchmarks.layouts_text": "evaluation.formats.layouts_text",
    "evaluation.benchmarks.letter_lenient": "evaluation.rules.letter_lenient",
    "evaluation.benchmarks.letter_rules": "evaluation.rules.letter_rules",
    "evaluation.benchmarks.letters": "evaluation.rules.letters evaluation.rules.shared",
    "evaluation.benchmarks.mmmu_answers": "evaluation.rules.mmmu_answers",
    "evaluation.benchmarks.vqa_accuracy": "evaluation.rules.vqa_accuracy evaluation.rules.shared",
    "evaluation.benchmarks.vqa_coco": "evaluation.formats.vqa_coco",
    "evaluation.benchmarks.vqa_files": "evaluation.formats.vqa_files",
    "evaluation.benchmarks.vqa_lenient": "evaluation.rules.vqa_lenient",
    "evaluation.benchmarks.vqa_normalise": "evaluation.rules.vqa_normalise",
    "evaluation.benchmarks.yes_no": "evaluation.rules.yes_no evaluation.rules.shared",
    "evaluation.clip_score": "evaluation.images.clip_score evaluation.features.clip evaluation.metrics.clip_score",
    "evaluation.clip_weights": "evaluation.features.clip_weights",
    "evaluation.comparisons": "evaluation.analysis.comparisons",
    "evaluation.curves": "evaluation.reports.curves",
    "evaluation.error_sheets": "evaluation.analysis.error_sheets",
    "evaluation.feature_store": "evaluation.images.feature_store",
    "evaluation.feature_sums": "evaluation.features.feature_sums",
    "evaluation.figures": "evaluation.base.figures",
    "evaluation.files": "evaluation.base.files",
    "evaluation.finite": "evaluation.features.finite",
    "evaluation.frechet": (
        "evaluation.metrics.inception_score evaluation.metrics.fid evaluation.images.distances "
        "evaluation.metrics.kid evaluation.metrics.precision_recall"
    ),
    "evaluation.image_distances": "evaluation.images.distances",
    "evaluation.image_measures": "evaluation.images.measures",
    "evaluation.image_metrics": (
        "evaluation.metrics.efficientnet evaluation.metrics.identification evaluation.run.baselines "
        "evaluation.metrics.kid evaluation.metrics.fid"
    ),
    "evaluation.image_settings": "evaluation.images.settings",
    "evaluation.inception": "evaluation.features.inception evaluation.images.settings",
    "evaluation.instruct_set": "evaluation.images.instruct_set",
    "evaluation.instruct_sources": "evaluation.images.instruct_sources",
    "evaluation.picture_lists": "evaluation.images.picture_lists",
    "evaluation.picture_runs": "evaluation.images.picture_runs",
    "evaluation.plot_texts": "evaluation.base.plot_texts",
    "evaluation.processes": "distributed.group",
    "evaluation.protocols": "evaluation.base.protocols",
    "evaluation.published": "evaluation.reports.published",
    "evaluation.questions": "evaluation.base.exact_match",
    "evaluation.radar": "evaluation.reports.radar",
    "evaluation.report": "evaluation.reports.report",
    "evaluation.report_pictures": "evaluation.reports.report_pictures",
    "evaluation.run_plots": "evaluation.analysis.run_plots",
    "evaluation.runner": "evaluation.run.runner",
    "evaluation.scoring": "evaluation.run.scoring",
    "evaluation.sheets": "evaluation.base.sheets",
    "evaluation.summary": "evaluation.reports.summary",
    "evaluation.word_attention": "evaluation.analysis.word_attention",
    "experiment_files": "experiment.files",
    "flat_sharding": "distributed.fsdp1",
    "gpus": "utils.gpus",
    "heldout": "utils.heldout",
    "http_calls": "utils.http.calls",
    "models.adapters": "models.language.lora",
    "models.answers": "models.generation.answers",
    "models.attention": "models.decoder.attention",
    "models.attention_maps": "models.generation.attention_maps",
    "models.attention_masks": "models.core.masks",
    "models.backbone": "models.language.llama",
    "models.checkpoints": "checkpoints.published.layouts",
    "models.codebook": "models.tokenizer.codebook",
    "models.config": "models.core.config",
    "models.convolutions": "models.tokenizer.convolutions",
    "models.decoder_blocks": "models.decoder.blocks",
    "models.drawing": "models.generation.drawing",
    "models.exact": "models.core.exact",
    "models.first_weights": "checkpoints.deferred",
    "models.generate": "models.generation.generate",
    "models.image_tokenizer": "models.tokenizer.image_tokenizer",
    "models.init_from": "checkpoints.init_from",
    "models.init_settings": "recipe.init_from",
    "models.llm_cache": "models.language.kv_cache",
    "models.losses": "models.core.losses",
    "models.low_bits": "models.language.quantization",
    "models.multiscale_quantizer": "models.tokenizer.quantizer",
    "models.opened": "checkpoints.open",
    "models.packed_rows": "models.core.packed_rows",
    "models.placing": "checkpoints.copy",
    "models.pretrained": "checkpoints.hub checkpoints.format",
    "models.published_config": "checkpoints.published.config",
    "models.published_sizes": "checkpoints.published.infer_config",
    "models.recorded_init": "checkpoints.meta_init",
    "models.row_draws": "models.core.shared_random",
    "models.sampling": "models.decoder.sampling",
    "models.scales": "models.core.scales",
    "models.settings": "models.core.settings utils.ranges",
    "models.submodules": "models.core.submodules",
    "models.towers": "models.vision",
    "models.towers.clip": "models.vision.clip runs.locks utils.ranges checkpoints.hub",
    "models.towers.clip_network": "models.vision.networks.clip",
    "models.towers.efficientnet_lite0": "models.vision.clip runs.locks checkpoints.hub",
    "models.towers.efficientnet_network": "models.vision.networks.efficientnet",
    "models.visual_decoder": "models.decoder.visual_decoder",
    "module_names": "utils.plugins modules.objectives",
    "modules.heads": "modules.objectives modules.optim.optimizers",
    "modules.muon": "modules.optim.muon",
    "modules.optimizers": "modules.optim.optimizers",
    "modules.sharding_config": "recipe.sharding",
    "modules.shards": "distributed.tensors",
    "modules.stage": "recipe.stage",
    "modules.step_batches": "modules.step_counts",
    "names": "utils.names",
    "planning.settings": "recipe.plan",
    "planning.shallow": "planning.truncated_model",
    "provenance": "runs.provenance",
    "ranges": "utils.ranges",
    "results_tables": "runs.tables",
    "sharding": "distributed.fsdp2",
    "strategies": "distributed.strategies",
    "weights.distributed": "checkpoints.dcp.tensors",
    "weights.locate": "checkpoints.locate",
    "weights.shards": "checkpoints.write",
    "weights.stored": "checkpoints.lazy_tensors",
    "yaml_text": "utils.yaml_text",
}
"""Old modules, and where their definitions are now, below the package; the first of several that has a name counts."""

NAMES = {
    "data.openmoji": "data.openmoji.pictures",
    "data.packing": "data.shards.format",
    "data.visual_tokens": "data.visual_tokens.codes",
    "evaluation.rules.letters": "evaluation.rules.shared",
    "evaluation.rules.yes_no": "evaluation.rules.shared",
    "models.vargpt": "checkpoints.hub",
    "results": "runs.folder utils.files",
}
"""Modules that are still there, and where definitions that they had are now."""

RENAMED = {
    "Answerer": "TextModel",
    "COMPANIONS": "TOKENIZER_FILES",
    "Claim": "LeaseLock",
    "Described": "TensorLike",
    "Drawer": "ImageModel",
    "Expecting": "HasExpectedIds",
    "FITS": "RESIZE_MODES",
    "FiniteGuard": "NonFiniteGuard",
    "FirstWeights": "DeferredWeights",
    "Gathered": "FullTensor",
    "HEADS": "OBJECTIVES",
    "Held": "MemoryTensor",
    "PATIENCE": "LEASE_TIMEOUT",
    "Patience": "RetryPolicy",
    "Pretrained": "VARGPT",
    "Ring": "RingBuffer",
    "RowDraws": "RankInvariantRng",
    "Speaker": "Assistant",
    "Spread": "ShardedTensor",
    "Stored": "FileTensor",
    "copy_into": "load_tensor",
    "holder": "owner",
    "one_picture": "pictures",
    "read_companions": "read_tokenizer_files",
    "shares": "by_group",
}
"""Definitions with another name now."""


def attribute(module: str, name: str) -> Any:
    """Return what a module had under a name, from where it is now, with a DeprecationWarning.

    Args:
        module: its old name, in full.

    Raises:
        AttributeError: it never had such a name.
    """
    package, _, old = module.partition(".")
    if name == "__all__":  # of `from module import *`
        return _public(package, old)
    found: dict[str, Any] = {}
    for place in {**MODULES, **NAMES}.get(old, "").split() if not name.startswith("__") else ():
        there = importlib.import_module(f"{package}.{place}")
        found |= {
            f"{there.__name__}.{each}": getattr(there, each)
            for each in (name, RENAMED.get(name, name))
            if hasattr(there, each)
        }
    # a module may have imported what another one defines
    for now, value in sorted(found.items(), key=lambda item: item[0].rpartition(".")[0] != _home(item[1])):
        message = f"{module}.{name} is {now} now; the old name goes with the next version"
        warnings.warn(message, DeprecationWarning, stacklevel=3)
        return value
    raise AttributeError(f"module {module!r} has no attribute {name!r}")


def _public(package: str, old: str) -> list[str]:
    places = [importlib.import_module(f"{package}.{place}") for place in {**MODULES, **NAMES}.get(old, "").split()]
    return sorted({name for place in places for name in vars(place) if not name.startswith("_")})


def _home(value: Any) -> str:
    return str(getattr(value, "__module__", ""))


class _Loader:
    """Makes an empty module whose names are looked up where they are now."""

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        module.__getattr__ = lambda name: attribute(module.__name__, name)  # type: ignore[method-assign]


def spec_of(name: str) -> ModuleSpec | None:
    """Return how an old module is imported; None for a name that never was."""
    loader: Any = _Loader()
    old = name.partition(".")[2]
    parts = any(each.startswith(f"{old}.") for each in MODULES)
    return ModuleSpec(name, loader, is_package=parts) if parts or old in MODULES else None
