"""The places that an experiment names, looked for before torch is imported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vargpt_lightning.utils.errors import UserError, near_folder
from vargpt_lightning.utils.paths import output_folder

if TYPE_CHECKING:  # the schema needs torch
    from vargpt_lightning.experiment.schema import Experiment


def check_places(experiment: Experiment) -> None:
    """Make sure that an experiment's data and first weights are there, and that its run's folder is no other thing.

    Raises:
        UserError: naming the key and the path.
    """
    from vargpt_lightning.checkpoints.locate import check_place
    from vargpt_lightning.data.shards.format import INDEX_NAME

    for corpora in (getattr(experiment.data, split, None) for split in ("train", "val")):
        for folder in corpora.values() if isinstance(corpora, dict) else ():
            if not (Path(folder) / INDEX_NAME).is_file():
                near = near_folder(folder)
                raise UserError(f"{Path(folder) / INDEX_NAME}: not found; expected a folder of packed records{near}")
    for name, where in vars(experiment.init_from).items():
        if isinstance(where, str) and name != "new_rows":
            try:
                check_place(where)
            except UserError as error:
                raise UserError(f"init_from.{name}: {error}") from error
    run = Path(experiment.run.root) / str(experiment.run.name)
    output_folder(run)
    others = run.is_dir() and any(not entry.name.startswith(".") for entry in run.iterdir())
    if others and not (run / "run.json").is_file():
        raise UserError(f"{run} is neither empty nor a run folder (run.json is missing); name another folder")
