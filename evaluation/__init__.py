"""Part of vargpt_lightning: import it as `vargpt_lightning.evaluation`.

Evaluation: benchmarks, measures of drawings, systems under test, reports.

Models are seen through the protocols of `evaluation.base` alone; when a run is evaluated is up to `training`.
"""

if __name__ == "evaluation":
    raise ImportError("import vargpt_lightning.evaluation instead of evaluation")
