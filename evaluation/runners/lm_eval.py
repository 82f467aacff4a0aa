"""The LM Evaluation Harness with our systems in it, for its tasks with pictures.

    python -m vargpt_lightning.evaluation.runners.lm_eval run --model vargpt --model_args run=runs/name --tasks mmmu_val

The harness has no entry points for models: this module registers ours and hands over to its command line. Tried with
lm-eval 0.4.13.
"""

from __future__ import annotations

from typing import Any, NoReturn

from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from tqdm import tqdm

from vargpt_lightning.evaluation.runners.asking import Asked, Asker, ends


@register_model("vargpt")
class VARGPT(LM):
    """A system as the harness asks one; see `Asker` for the arguments."""

    MULTIMODAL = True

    def __init__(self, run: str, batch_size: int | str | None = None, **options: Any) -> None:
        super().__init__()
        options.pop("max_batch_size", None)
        self.asker = Asker(run, batch_size, **options)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Answer questions, with their pictures where a task has some, each as long as its task allows."""
        questions = []
        for request in requests:
            words, settings, *more = request.args
            length = settings.get("max_gen_toks", settings.get("max_new_tokens"))
            shown = more[0].get("visual", []) if more else []
            questions.append(Asked(words, shown, length, ends(settings.get("until"))))
        with tqdm(total=len(questions), desc=self.asker.name, disable=disable_tqdm) as bar:
            return self.asker.answers(questions, bar.update)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> NoReturn:
        """Refuse: tasks that compare likelihoods of answers are not supported."""
        raise NotImplementedError("vargpt answers questions; tasks of the type loglikelihood are not supported")

    loglikelihood_rolling = loglikelihood


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
