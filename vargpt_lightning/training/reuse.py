"""Finished stages of other runs, reused where all that they depend on is the same. Imports no torch."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vargpt_lightning.data.text.text_tokenizer import FILE_NAME
from vargpt_lightning.runs.folder import RunFolder, StageFolder, find_runs
from vargpt_lightning.runs.locks import LeaseLock, owner
from vargpt_lightning.training.packages import changed_packages
from vargpt_lightning.utils.errors import UserError

if TYPE_CHECKING:
    from vargpt_lightning.training.contents import Comparison


class Contents(Protocol):
    """What a run's stages depend on, as `StageContents` says it."""

    def compare(self, run: RunFolder, folder: StageFolder, /) -> Comparison:
        """Hold a stage that was trained before against the run's at its place."""

    def packages(self, index: int, /) -> dict[str, str]:
        """Versions of the installed packages that a stage's code comes from."""


CLAIMS = ".stages"  # below the runs' folder
WAIT = 1.0


class StageReuse:
    """Looks for the stages of a run in other runs, by content hash.

    The weights are linked where the file system can do so and copied elsewhere; records, metrics and sample grids are
    copied. The text tokenizer comes with the first stage. Of several processes that train the run the first one asks.

    Args:
        run: the run that takes over.
        hashes: the content hash of each of its stages.
        folders: runs, or folders of runs, to look into; none turns all of this off.
        contents: holds a stage of another run against this run's at its place, where the hashes differ: versions
            before had other keys.
    """

    def __init__(
        self,
        run: RunFolder,
        hashes: Sequence[str],
        folders: Sequence[str | Path],
        contents: Contents | None = None,
    ) -> None:
        self.run, self.hashes, self.contents = run, list(hashes), contents
        self.folders = [Path(folder).expanduser() for folder in folders]
        self._told = set[Path]()

    def take_first(self, names: Sequence[str]) -> None:
        """Take over all stages from the first on that other runs have finished."""
        for index, name in enumerate(names):
            folder = self.run.stage(index + 1, name)
            if not _finished(folder) and not self.take(index, folder):
                return

    def take(self, index: int, folder: StageFolder) -> bool:
        """Take one stage over if another run has finished it; the stages before it are there."""
        found = self._find(index) if self.folders else None
        if found is None:
            return False
        donor, stage = found
        if not (self.run.tokenizer / FILE_NAME).is_file() or index == 0:
            _copy_folder(donor.tokenizer, self.run.tokenizer)
        _take_over(stage, folder)
        print(f"stage {folder.name}: reused from {donor.path}", flush=True)
        now = self.contents.packages(index) if self.contents is not None else {}
        if said := changed_packages(folder.record.get("packages") or {}, now):
            print(f"stage {folder.name}: {said}", flush=True)
        return True

    @contextlib.contextmanager
    def turn(self, index: int) -> Iterator[None]:
        """Hold the right to train a stage, once nobody else beside this run does; the run may find it finished then."""
        if not self.folders:
            yield
            return
        folder = self.run.path.resolve().parent / CLAIMS / self.hashes[index]
        told = False
        while (lock := LeaseLock.acquire(folder)) is None:
            if not told:
                host = (owner(folder) or {}).get("host", "another process")
                print(f"waiting: {host} trains the same stage for another run", flush=True)
                told = True
            time.sleep(WAIT)
        with lock:
            yield

    def _find(self, index: int) -> tuple[RunFolder, StageFolder] | None:
        wanted, here = self.hashes[index], self.run.path.resolve()
        for root in self.folders:
            for run in find_runs(root):
                if run.path.resolve() == here:
                    continue
                for stage in run.stages():
                    same = stage.index == index + 1 and _finished(stage)
                    if same and (stage.record.get("hash") == wanted or self._same(run, stage)):
                        return run, stage
        return None

    def _same(self, run: RunFolder, stage: StageFolder) -> bool:
        """Whether a stage, and those before it, are the same in all but the keys that there were not then."""
        before = run.stages()[: stage.index]
        if self.contents is None or [each.index for each in before] != list(range(1, stage.index + 1)):
            return False
        for each in before:
            try:
                found = self.contents.compare(run, each) if each.record.get("settings") else None
            except (UserError, KeyError, TypeError, ValueError, AttributeError) as error:  # another run's broken record
                reason = str(error) if isinstance(error, UserError) else f"{each.path}: its record cannot be read"
                self._say_once(stage, f"{reason}; {run.path} is not reused")
                return False
            if found is not None and found.unrecorded and found.of_data:
                what = f"{stage.path} has the same settings and may have other data, which it does not record"
                self._say_once(stage, f"{what}; it is not reused")
            if found is None or not found.same:
                return False
        return True

    def _say_once(self, stage: StageFolder, text: str) -> None:
        if stage.path not in self._told:
            self._told.add(stage.path)
            print(f"stage {stage.name}: {text}", flush=True)


def _finished(stage: StageFolder) -> bool:
    with contextlib.suppress(UserError):  # a broken stage.json of another run
        return stage.status == "finished" and stage.weights.is_file()
    return False


def _take_over(source: StageFolder, target: StageFolder) -> None:
    """Put a stage's files into another run, its record last: a kill before leaves a stage that is not finished."""
    target.path.mkdir(parents=True, exist_ok=True)
    target.checkpoint.unlink(missing_ok=True)
    for name in (source.weights.name, "metrics.csv"):
        if (source.path / name).is_file():
            _place(source.path / name, target.path / name, link=name == source.weights.name)
    _copy_folder(source.path / "samples", target.path / "samples")
    record = {key: value for key, value in source.record.items() if key not in ("index", "name")}
    target.update(**{**record, "taken_from": record.get("taken_from") or str(source.path.resolve())})


def _place(source: Path, target: Path, link: bool) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        if link:
            os.link(source, temporary)
        else:
            shutil.copy2(source, temporary)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, temporary)
    os.replace(temporary, target)


def _copy_folder(source: Path, target: Path) -> None:
    if source.is_dir():
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(source, temporary)
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
