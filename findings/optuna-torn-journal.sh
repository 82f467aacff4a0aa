#!/usr/bin/env bash
# Optuna 5.0.0: a journal whose last line was cut short loads once, and never again after the next write.
#
# `JournalFileBackend` appends one JSON line for each operation. If the last append is cut short (a full disk, a power
# cut), the file can still be read: an incomplete last line is ignored. But the next writer appends to that incomplete
# line, without a line break before it. Its own operation is swallowed (`ask` raises AttributeError), and after one more
# write the broken line is no longer the last one: loading the study raises JSONDecodeError from then on.
#
# Output seen:
#   cut short:    2 finished trials
#   first ask:    AttributeError
#   second ask:   JSONDecodeError
#   load again:   JSONDecodeError
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check optuna==5.0.0 >&2
cat >"$work/show.py" <<'PYTHON'
import sys
import warnings
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

warnings.simplefilter("ignore")
optuna.logging.set_verbosity(optuna.logging.CRITICAL)
journal = Path(sys.argv[1]) / "journal.log"


def load() -> optuna.Study:
    return optuna.load_study(study_name="study", storage=JournalStorage(JournalFileBackend(str(journal))))


def error_of(call) -> str:
    try:
        call()
    except Exception as error:
        return type(error).__name__
    return "no error"


optuna.create_study(study_name="study", storage=JournalStorage(JournalFileBackend(str(journal))))
load().optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
written = journal.read_bytes()
last = written.splitlines(keepends=True)[-1]
journal.write_bytes(written[: -len(last) // 2])  # the last append was cut short

study = load()
finished = sum(trial.state.is_finished() for trial in study.trials)
seen = {"first ask": error_of(study.ask), "second ask": error_of(study.ask), "load again": error_of(load)}
print(f"cut short:    {finished} finished trials")
for what, error in seen.items():
    print(f"{what + ':':13} {error}")
same = finished == 2 and list(seen.values()) == ["AttributeError", "JSONDecodeError", "JSONDecodeError"]
sys.exit(0 if same else "the behaviour has changed")
PYTHON
"$work/venv/bin/python" "$work/show.py" "$work"
