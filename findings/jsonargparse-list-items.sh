#!/usr/bin/env bash
# jsonargparse 4.53.0: an item of a list in a second config file takes what it leaves out from the first file's list.
#
# Two config files are given, and each holds a list of dataclasses. The second list takes the place of the first, as a
# list of numbers does. But if both are of one length, a field that an item leaves out has not its default: it has the
# value of the item in the same place of the first file's list, whatever that item is about. One item more, and all
# fields that are left out have their defaults again.
#
# Output seen:
#   own.yaml:                Stage(name='tune', frozen=False)
#   base.yaml, own.yaml:     Stage(name='tune', frozen=True)
#   base.yaml, longer.yaml:  Stage(name='tune', frozen=False), Stage(name='last', frozen=False)
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check jsonargparse==4.53.0 pyyaml==6.0.3 >&2
cat >"$work/base.yaml" <<'YAML'
stages:
  - {name: warmup, frozen: true}
YAML
cat >"$work/own.yaml" <<'YAML'
stages:
  - {name: tune}
YAML
cat >"$work/longer.yaml" <<'YAML'
stages:
  - {name: tune}
  - {name: last}
YAML
cat >"$work/show.py" <<'PYTHON'
import sys
from dataclasses import dataclass

from jsonargparse import ArgumentParser


@dataclass
class Stage:
    name: str
    frozen: bool = False


def stages(*files: str) -> list[Stage]:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_argument("--stages", type=list[Stage])
    words = [word for file in files for word in ("--config", f"{sys.argv[1]}/{file}")]
    return parser.instantiate(parser.parse_args(words)).stages


found = {files: stages(*files) for files in (("own.yaml",), ("base.yaml", "own.yaml"), ("base.yaml", "longer.yaml"))}
for files, made in found.items():
    print(f"{', '.join(files) + ':':24} {', '.join(map(str, made))}")
expected = [[Stage("tune")], [Stage("tune", frozen=True)], [Stage("tune"), Stage("last")]]
sys.exit(0 if list(found.values()) == expected else "the behaviour has changed")
PYTHON
"$work/venv/bin/python" "$work/show.py" "$work"
