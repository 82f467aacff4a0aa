"""Where a benchmark's public mirror is: a local directory first, and the hub where there is a network."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from vargpt_lightning.utils.errors import UserError

OWNER = "lmms-lab"
REFUSED = (401, 403)


@dataclass(frozen=True)
class HubSource:
    """A data set on the hub: its name (the owner is a setting), and the configs and splits that are needed."""

    repo: str
    config: str | tuple[str, ...] | None = None
    split: str | tuple[str, ...] | None = None

    def repo_id(self, owner: str = OWNER) -> str:
        return self.repo if "/" in self.repo else f"{owner}/{self.repo}"

    def patterns(self) -> list[str]:
        """The files that are fetched, and no others: the largest sets have splits of tens of gigabytes."""
        configs = (self.config,) if isinstance(self.config, str) else self.config or ("data", "default", "")
        splits = (self.split,) if isinstance(self.split, str) else self.split or ("*",)
        folders = [f"{config}/" if config else "" for config in configs]
        names = [name for split in splits for name in (f"{split}-*.parquet", f"{split}.parquet", f"{split}/*.parquet")]
        return [folder + name for folder in folders for name in dict.fromkeys(names)]

    def fetch(self, owner: str = OWNER) -> Path:
        """Downloads what is needed (or finds it in the hub's cache) and returns its folder.

        No token is sent unless the hub refuses without one.

        Raises:
            UserError: no network, no such data set, or the hub refuses.
        """
        from huggingface_hub import get_token
        from huggingface_hub.errors import HfHubHTTPError

        name = self.repo_id(owner)
        try:
            return self._download(name, False)
        except HfHubHTTPError as error:
            status = getattr(error.response, "status_code", None)
            if status not in REFUSED:
                raise UserError(f"{name}: the hub answered {status}; {_first_line(error)}") from error
            if get_token() is None:
                raise UserError(
                    f"{name}: the hub refuses without a token ({status}): there is no such data set, or it needs "
                    f"`hf auth login`; a local directory works too"
                ) from error
        try:
            return self._download(name, True)
        except HfHubHTTPError as error:
            raise UserError(f"{name}: the hub refuses the token that is stored here; {_first_line(error)}") from error

    def _download(self, name: str, token: bool) -> Path:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        try:
            found = snapshot_download(name, repo_type="dataset", allow_patterns=self.patterns(), token=token)
        except HfHubHTTPError:
            raise
        except HFValidationError as error:
            raise UserError(f"{name!r} is not the id of a data set: expected owner/name") from error
        except OSError as error:  # no network, and not in the cache
            message = f"{name}: neither on this machine nor on the hub; name a local directory"
            raise UserError(f"{message} ({_first_line(error)})") from error
        folder = Path(found)
        if not any(folder.rglob("*.parquet")):
            raise UserError(f"{name}: no file there is one of {', '.join(self.patterns())}")
        return folder


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def resolve(path_or_hub: str | Path | None, hub: HubSource, name: str = "", owner: str = OWNER) -> Path:
    """The place of a benchmark's data.

    Args:
        path_or_hub: a local directory or file, which goes first; a directory that holds one named after the
            benchmark or its mirror; the id of a data set on the hub (owner/name); None for the public mirror.
        hub: the public mirror.
        name: the benchmark's name.
        owner: whose mirror it is.

    Raises:
        UserError: nothing of all that.
    """
    if path_or_hub is None:
        return hub.fetch(owner)
    path = Path(path_or_hub)
    if path.is_dir():
        inside = [path / part for part in (name, hub.repo.rpartition("/")[2]) if part]
        return next((folder for folder in inside if folder.exists()), path)
    if path.exists():
        return path
    text = str(path_or_hub)
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]*\w", text):
        return HubSource(text, hub.config, hub.split).fetch()
    raise UserError(f"{text}: there is no such directory, and it is no hub id (owner/name)")
