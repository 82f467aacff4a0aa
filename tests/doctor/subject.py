"""A model to look at: the debug experiment's with fresh weights."""

from __future__ import annotations

from pathlib import Path

import torch

from vargpt_lightning.doctor.drawings import Subject
from vargpt_lightning.doctor.subjects import subject_of

DEBUG = Path(__file__).resolve().parents[2] / "experiments" / "debug.yaml"


def fresh_subject(device: str = "cpu") -> Subject:
    return subject_of(DEBUG, torch.device(device))
