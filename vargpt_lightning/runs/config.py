"""A run's config.yaml read as a tree, without building anything of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.utils.errors import UserError
from vargpt_lightning.utils.yaml_text import load_yaml, told


def read_experiment(folder: RunFolder) -> dict[str, Any]:
    """Return the run's resolved configuration, which has a `model` section.

    Raises:
        UserError: config.yaml is missing, is no YAML, or has no such section.
    """
    return parse_experiment(folder.config_text, folder.path / "config.yaml")


def parse_experiment(text: str, file: Path) -> dict[str, Any]:
    """Return the configuration that a file's text holds; raises as `read_experiment` does."""
    try:
        experiment = load_yaml(text)
    except yaml.YAMLError as error:
        place, problem = told(error)
        raise UserError(f"{file}{place}: {problem}") from error
    if not isinstance(experiment, dict) or not isinstance(experiment.get("model"), dict):
        there = "there is no such file" if not file.is_file() else f"it holds {_keys(experiment)}"
        raise UserError(f"{file}: expected a run's configuration with a section `model`; {there}")
    return experiment


def _keys(experiment: Any) -> str:
    return f"the keys {', '.join(map(str, experiment))}" if isinstance(experiment, dict) else "no keys"
