"""Time and peak memory of conversions and loads, on synthetic releases of 2 GB with their true names: VARGPT-LLaVA-v1,
and a shallower Infinity-2B.

    python -m tests.benchmarks.bench_convert [--folder DIR] [--gigabytes 2] [--shard 500]

Each step runs in a process of its own. "own" is the peak of memory that belongs to the process alone (RssAnon), "all"
the peak with the pages of mapped files (VmHWM), which the system takes back when it needs them; both less what they
were when the libraries had been imported.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

STEPS = ("vargpt to ours", "ours to vargpt", "ours to llava", "ours to var", "var to ours", "load", "load, 1 of 2")
INFINITY = ("infinity to ours", "ours to infinity")


def config(gigabytes: float) -> Any:
    from vargpt_lightning.models.core.config import DecoderConfig, LanguageConfig, VARGPTConfig, VisionConfig

    layers = max(1, round((gigabytes * 1e9 / 2 - 9.2e8) / 5.1e7))
    return VARGPTConfig(
        language=LanguageConfig(width=2048, layers=layers, heads=16, mlp=5504, max_positions=4096),
        vision=VisionConfig(kind="clip", picture_size=336),
        decoder=DecoderConfig(depth=16, classes=32003),
        preset="official",
        unused_layer_norm=True,
    )


class Drawn:
    """A tensor of random bits, made when it is asked for."""

    def __init__(self, shape: Any, dtype: Any) -> None:
        self.shape, self.dtype = shape, dtype

    def part(self, *where: slice) -> Any:
        import torch

        if not self.dtype.is_floating_point:
            return torch.zeros(self.shape, dtype=self.dtype)
        return torch.randn(self.shape, dtype=torch.float32).to(self.dtype)


def make(folder: Path, gigabytes: float, limit: int) -> None:
    """Write the synthetic release."""
    import torch

    from vargpt_lightning.checkpoints.hub import VARGPT
    from vargpt_lightning.checkpoints.lazy_tensors import MemoryTensor
    from vargpt_lightning.checkpoints.published import layouts
    from vargpt_lightning.checkpoints.published.config import vargpt_config
    from vargpt_lightning.checkpoints.write import write_shards

    sizes = config(gigabytes)
    with torch.device("meta"):
        model = VARGPT(sizes)
    drawn = {key: Drawn(value.shape, torch.bfloat16) for key, value in model.state_dict().items()}
    state: dict[str, Any] = layouts.to_official(drawn, "vargpt", model.schedule)
    folder.mkdir(parents=True)
    write_shards(
        folder, {key: MemoryTensor(v) if isinstance(v, torch.Tensor) else v for key, v in state.items()}, limit
    )
    (folder / "config.json").write_text(json.dumps(vargpt_config(sizes.to_dict(), "bfloat16")))


def make_infinity(file: Path, gigabytes: float) -> None:
    """Write a synthetic decoder of Infinity's, of fewer blocks than the 2B model has."""
    import torch

    from vargpt_lightning.checkpoints.lazy_tensors import MemoryTensor
    from vargpt_lightning.checkpoints.published import layouts
    from vargpt_lightning.checkpoints.write import write_pickle
    from vargpt_lightning.models.bitwise.bitwise_decoder import BitwiseDecoder

    depth = max(2, round((gigabytes * 1e9 / 2 - 5.6e7) / 6.7e7 / 2) * 2)
    with torch.device("meta"):
        decoder = BitwiseDecoder(bits=32, depth=depth, width=2048, heads=16, text_width=2048, chunks=2)
    drawn = {f"visual_decoder.{key}": Drawn(value.shape, torch.bfloat16) for key, value in decoder.state_dict().items()}
    state: dict[str, Any] = layouts.to_official(drawn, "infinity")
    write_pickle(file, {key: MemoryTensor(v) if isinstance(v, torch.Tensor) else v for key, v in state.items()})


def memory() -> tuple[int, int]:
    """Bytes of the process's own now, and of all at the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith("kB")}
    return values["RssAnon"], values["VmHWM"]


def step(name: str, folder: Path, limit: int) -> dict[str, float]:
    """Take one step and measure it."""
    import torch

    import vargpt_lightning.checkpoints.export
    import vargpt_lightning.models.vision.networks.clip  # building a model imports it late: 140 MB of libraries
    from vargpt_lightning.checkpoints.convert import convert
    from vargpt_lightning.checkpoints.copy import local_slices
    from vargpt_lightning.checkpoints.hub import VARGPT
    from vargpt_lightning.checkpoints.open import open_checkpoint

    assert vargpt_lightning.checkpoints.export and vargpt_lightning.models.vision.networks.clip and local_slices
    peak, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.005):
            peak[0] = max(peak[0], memory()[0])

    own, every = memory()
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again
    watcher = threading.Thread(target=watch)
    watcher.start()
    began, used = time.monotonic(), time.process_time()
    size = 0
    if name == "load":
        model = VARGPT.from_pretrained(folder / "ours")
        size = sum(value.nbytes for value in model.state_dict().values())
    elif name == "load, 1 of 2":
        # what the first of two processes reads of every tensor that is sharded by rows
        held = []
        for stored in open_checkpoint(folder / "ours").state.values():
            rows = -(-stored.shape[0] // 2) if stored.shape else 1
            held.append(torch.empty((rows, *stored.shape[1:]), dtype=stored.dtype).copy_(stored.part(slice(0, rows))))
        size = sum(value.nbytes for value in held)
    elif name == "infinity to ours":
        convert(folder / "infinity.pth", folder / name, limit=limit)
    elif name == "ours to infinity":
        convert(folder / "infinity to ours", folder / name, "infinity", limit=limit)
    elif name == "var to ours":
        convert(folder / "ours to var/var_d16.pth", folder / name, limit=limit)
    else:
        source, to = name.split(" to ")
        convert(folder / source, folder / ("ours" if to == "ours" else name), to, limit=limit)
    seconds, used = time.monotonic() - began, time.process_time() - used
    stop.set()
    watcher.join()
    return {"seconds": seconds, "cpu": used, "own": peak[0] - own, "all": memory()[1] - every, "model": size}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--shard", type=int, default=500, help="MB of a shard")
    parser.add_argument("--step", choices=("make", *STEPS, *INFINITY))
    arguments = parser.parse_args()
    limit = arguments.shard * 1000**2
    if arguments.step == "make":
        make(arguments.folder / "vargpt", arguments.gigabytes, limit)
        make_infinity(arguments.folder / "infinity.pth", arguments.gigabytes)
        return
    if arguments.step:
        print(json.dumps(step(arguments.step, arguments.folder, limit)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        same = ["--folder", str(folder), "--gigabytes", str(arguments.gigabytes), "--shard", str(arguments.shard)]
        call = [sys.executable, "-m", "tests.benchmarks.bench_convert", *same, "--step"]
        subprocess.run([*call, "make"], check=True)
        files = sorted((folder / "vargpt").glob("*.safetensors"))
        total, largest = sum(file.stat().st_size for file in files), max(file.stat().st_size for file in files)
        print(f"{total / 1e9:.2f} GB in {len(files)} shards, the largest of {largest / 1e9:.2f} GB")
        print(f"{'step':<16}{'s':>8}{'cpu s':>8}{'own MB':>9}{'all MB':>9}{'model MB':>10}")
        for name in (*STEPS, *INFINITY):
            done = subprocess.run([*call, name], check=True, capture_output=True, text=True)
            row = json.loads(done.stdout.splitlines()[-1])
            sizes = "".join(f"{row[key] / 1e6:>{width}.0f}" for key, width in (("own", 9), ("all", 9), ("model", 10)))
            print(f"{name:<16}{row['seconds']:>8.1f}{row['cpu']:>8.1f}{sizes}", flush=True)


if __name__ == "__main__":
    main()
