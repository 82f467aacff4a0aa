"""Part of vargpt_lightning: import it as `vargpt_lightning.evaluation`."""

if __name__ == "evaluation":
    raise ImportError("import vargpt_lightning.evaluation instead of evaluation")
