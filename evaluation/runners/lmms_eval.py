"""A plug-in for lmms-eval: `lmms-eval --model vargpt --model_args run=runs/openmoji --tasks pope`.

lmms-eval finds it by the entry point `lmms_eval.models`; nothing there is changed. Tried with lmms-eval 0.7.3.
"""

from __future__ import annotations

from typing import Any, NoReturn

from lmms_eval.api.model import lmms
from tqdm import tqdm

from vargpt_lightning.evaluation.runners.asking import Asked, Asker, ends


class VARGPT(lmms):
    """A system as lmms-eval asks one; see `Asker` for the arguments."""

    is_simple = True

    def __init__(self, run: str, batch_size: int | str | None = None, **options: Any) -> None:
        super().__init__()
        options.pop("max_batch_size", None)
        self.asker = Asker(run, batch_size, **options)

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Answer questions about pictures, each as long as its task allows."""
        questions = []
        for request in requests:
            words, settings, pictures_of, number, task, split = request.args
            shown = pictures_of(self.task_dict[task][split][number]) if pictures_of is not None else []
            until = ends(settings.get("until"))
            questions.append(Asked(words, shown or [], settings.get("max_new_tokens"), until))
        with tqdm(total=len(questions), desc=self.asker.name, disable=self.rank != 0) as bar:
            return self.asker.answers(questions, bar.update)

    def loglikelihood(self, requests: list[Any]) -> NoReturn:
        """Refuse: tasks that compare likelihoods of answers are not supported."""
        raise NotImplementedError("vargpt answers questions; tasks of the type loglikelihood are not supported")

    def generate_until_multi_round(self, requests: list[Any]) -> NoReturn:
        """Refuse: tasks of several rounds are not supported."""
        raise NotImplementedError("vargpt answers single questions; tasks of several rounds are not supported")


def manifest() -> Any:
    """What lmms-eval reads at the entry point."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest("vargpt", simple_class_path=f"{__name__}.VARGPT")
