"""What stands in for `vargpt fit` in a sweep's tests: a run folder in milliseconds, with the same arguments.

`fake.seconds` is how long it works; `fake.fail: true` fails; `fake.kill: N` ends by SIGKILL the first N times;
`fake.gain` makes a metric of a stage; `fake.score` is the score, also one that is no
number. Each start is a line in `started.txt` beside the trials.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import yaml

from vargpt_lightning.runs.folder import RunFolder
from vargpt_lightning.utils.files import write_bytes


def main(arguments: list[str]) -> int:
    given = dict(zip(arguments[::2], arguments[1::2], strict=True))
    file = Path(given["-c"])
    tree = yaml.safe_load(file.read_text())
    base = yaml.safe_load((file.parent / tree["base"]).read_text())
    fake = {**base.get("fake", {}), **tree.get("fake", {})}
    root, name = Path(given["--run.root"]), given["--run.name"]
    with open(root.parent / "started.txt", "a") as out:
        out.write(f"{name} {os.getpid()}\n")
    starts = sum(line.startswith(f"{name} ") for line in (root.parent / "started.txt").read_text().splitlines())
    run = RunFolder.start(root / name, command=arguments, seed=tree.get("seed", 0))
    print("working", flush=True)
    if starts <= fake.get("kill", 0):
        os.kill(os.getpid(), signal.SIGKILL)
    if fake.get("fail") and not (root.parent / "mended").exists():
        run.end("failed")
        print("vargpt: error: fake.fail=True; expected false", file=sys.stderr)
        return 2
    stage = run.stage(1, "train")
    for step in range(1, 6):
        time.sleep(fake.get("seconds", 0.0) / 5)
        stage.log(step, {"loss": fake.get("gain", 1.0) / step})
    stage.update(status="finished")
    score = fake.get("cfg", 1.0) * 10 + fake.get("k", 0) + tree.get("seed", 0)
    score = float(fake.get("score", score))
    metrics = {"headline": [{"key": "score", "value": score}], "deep": {"kid": 5.0}}
    write_bytes(run.evaluation / "metrics.json", json.dumps(metrics).encode())
    run.end("finished")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
