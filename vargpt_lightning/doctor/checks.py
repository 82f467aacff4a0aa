"""Which checks `vargpt doctor` does, in their order."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from vargpt_lightning.doctor.findings import Check, Fault, one_line
from vargpt_lightning.doctor.machine import machine_checks
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.progress import importing


def all_checks(where: Path | None, device: str | None, full: bool, folder: Path) -> Iterator[Check]:
    """The checks of a machine, and of a run or an experiment; torch is imported after the first that need none.

    Args:
        where: a run, a converted folder or an experiment file; None looks at the debug experiment's model.
        device: such as cpu or cuda:1; None takes a GPU when there is one.
        full: also what takes minutes.
        folder: where files are written to see how fast that goes.

    Raises:
        UserError: there is no such device.
    """
    yield from machine_checks(folder)
    try:
        with importing():
            from vargpt_lightning.doctor.groups import group_checks
            from vargpt_lightning.doctor.kernels import kernel_checks
            from vargpt_lightning.doctor.losses import RECIPE, loss_checks
            from vargpt_lightning.models.core.devices import choose
    except (ImportError, OSError) as error:  # a library of CUDA's that is missing is an OSError
        said = f"torch and what stands on it cannot be imported: {one_line(error)}"
        yield Check("machine", "imports", partial(_wrong, said))
        return
    chosen = choose(device)
    yield from kernel_checks(chosen)
    yield from group_checks()
    if where is not None or RECIPE.is_file():
        yield from _drawing_checks(where or RECIPE, str(chosen))
    yield from loss_checks(chosen.type)
    if full:
        from vargpt_lightning.doctor.full import full_checks

        yield from full_checks(chosen.type)


def _wrong(said: str) -> str:
    raise Fault(said)


def _drawing_checks(where: Path, device: str) -> Iterator[Check]:
    import torch

    from vargpt_lightning.doctor.drawings import PART, Subject, drawing_checks
    from vargpt_lightning.doctor.subjects import subject_of

    found: list[Subject] = []

    def load() -> str:
        try:
            found.append(subject_of(where, torch.device(device)))
        except UserError as error:
            raise Fault(str(error)) from error
        count = sum(parameter.numel() for parameter in found[0].model.parameters())
        return f"{where}: {count:,} weights on {device}"

    yield Check(PART, "loading", load)
    if found:
        yield from drawing_checks(found[0])
