"""Versions against the ranges that are tested, devices, memory, and how fast disk and shared memory are."""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from vargpt_lightning.doctor.findings import Check, Fault, Noteworthy, NotHere
from vargpt_lightning.utils.capacity import GIB, cores, free_memory

PART = "machine"
PACKAGE = "vargpt-lightning"
CONSTRAINTS = Path(__file__).resolve().parents[2] / "constraints.txt"
SHARED = Path("/dev/shm")  # where loaders hand pictures over
WRITTEN = 64 << 20
LEAST_MEMORY, LEAST_SHARED, LEAST_DISK = 2 * GIB, 64 << 20, 2 * GIB
SLOW = 50e6  # bytes a second of a disk on which checkpoints take long
LOOKED_AT = ("torch", "lightning", "torchvision", "transformers", "tokenizers", "numpy", "safetensors", "pillow")


def machine_checks(folder: Path) -> Iterator[Check]:
    """The checks of this machine; files are written below `folder`, and removed."""
    yield Check(PART, "versions", versions)
    yield Check(PART, "tested versions", tested_versions)
    yield Check(PART, "processor and memory", memory)
    yield Check(PART, "devices", devices)
    yield Check(PART, "disk", lambda: disk(folder))
    yield Check(PART, "shared memory", shared_memory)


# ---------------------------------------------------------------------------------------------------- versions


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version, without what follows them: (2, 13, 0) of 2.13.0+cu130."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def fits(version: str, specifier: str) -> bool:
    """Whether a version is in a range such as `>=2.8,<2.15`, the only form that this project's dependencies have.

    Raises:
        ValueError: another form.
    """
    for part in filter(None, (part.strip() for part in specifier.split(","))):
        sign = re.fullmatch(r"(>=|<)\s*([\d.]+)", part)
        if sign is None:
            raise ValueError(f"{specifier!r}: expected >= and <")
        bound, own = release(sign[2]), release(version)
        width = max(len(bound), len(own))
        ordered = _padded(own, width) >= _padded(bound, width)
        if ordered != (sign[1] == ">="):
            return False
    return True


def _padded(numbers: tuple[int, ...], width: int) -> tuple[int, ...]:
    return numbers + (0,) * (width - len(numbers))


def requirements() -> Iterator[tuple[str, str, bool]]:
    """(package, range, whether it is needed always) of this project's dependencies, as they were installed."""
    for text in metadata.requires(PACKAGE) or ():
        found = re.match(r"([A-Za-z0-9._-]+)\s*(?:\[[^\]]*\])?\s*([^;]*)(;.*)?$", text)
        if found:
            yield found[1], found[2].strip(), "extra ==" not in (found[3] or "")


def versions() -> str:
    """Compare all installed dependencies with the ranges of pyproject.toml."""
    wrong = []
    for name, range_, needed in requirements():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            if needed:
                wrong.append(f"{name} is not installed, expected {range_}")
            continue
        if not fits(version, range_):
            wrong.append(f"{name} {version}, expected {range_}")
    if wrong:
        raise Fault("; ".join(wrong))
    found = (f"{name} {metadata.version(name)}" for name in LOOKED_AT)
    return f"all in their ranges: Python {platform.python_version()}, {', '.join(found)}"


def pins(constraints: str, python: str) -> dict[str, str]:
    """Return the version of each package that constraints name for a Python such as "3.11"."""
    found = {}
    for name, version, marker in re.findall(r"^([\w.-]+)==([^\s;]+)\s*(?:;(.*))?$", constraints, re.MULTILINE):
        pythons = re.findall(r'python_version == "([\d.]+)"', marker)
        if not pythons or python in pythons:
            found[name] = version
    return found


def tested_versions() -> str:
    """Compare with constraints.txt, the very versions that tests and figures were made with."""
    if not CONSTRAINTS.is_file():
        raise NotHere("constraints.txt comes with a checkout of the repository")
    pinned = pins(CONSTRAINTS.read_text(encoding="utf-8"), ".".join(platform.python_version_tuple()[:2]))
    others = []
    for name, _, needed in requirements():
        key = name.lower().replace("_", "-")
        if needed and key in pinned and release(metadata.version(name)) != release(pinned[key]):
            others.append(f"{name} {metadata.version(name)} (tested: {pinned[key]})")
    return Noteworthy(f"others than tested: {', '.join(others)}") if others else "those of constraints.txt"


# ------------------------------------------------------------------------------------------------ what is there


def memory() -> str:
    """What this process may use; a container's limit counts."""
    import psutil

    free, whole = free_memory(), int(psutil.virtual_memory().total)
    said = f"{cores()} cores, {platform.machine()}, {free / GIB:.1f} GiB free of {whole / GIB:.1f}"
    if free < LEAST_MEMORY:
        raise Fault(f"{said}; expected {LEAST_MEMORY / GIB:.0f} GiB free or more, which the debug recipe needs")
    return said


def devices() -> str:
    """What torch computes on: each GPU with its memory, and bfloat16 where it has it."""
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda or getattr(torch.version, "hip", None)
        if built and shutil.which("nvidia-smi"):
            raise Fault(f"there is a GPU driver, and torch {torch.__version__} for {built} does not see the GPU")
        threads = f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
        return f"processor alone ({threads}); torch {torch.__version__}"
    told = []
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        free, whole = torch.cuda.mem_get_info(number)
        halves = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no bf16"
        kind = f"{about.major}.{about.minor}, {halves}"
        told.append(f"cuda:{number} {about.name} ({kind}), {free / GIB:.1f} GiB free of {whole / GIB:.1f}")
    return f"{'; '.join(told)}; torch {torch.__version__}, CUDA {torch.version.cuda}"


def disk(folder: Path) -> str:
    """Write and read a file where runs are kept, as checkpoints are written: with fsync."""
    free = shutil.disk_usage(folder).free
    written, read = _speed(folder)
    said = (
        f"{folder}: writes {written / 1e6:,.0f} MB/s, reads {read / 1e6:,.0f} MB/s (cached), {free / GIB:.0f} GiB free"
    )
    if free < LEAST_DISK:
        raise Fault(f"{said}; expected {LEAST_DISK / GIB:.0f} GiB free or more")
    return Noteworthy(f"{said}; checkpoints of large models will take long") if written < SLOW else said


def shared_memory() -> str:
    """Write to what loaders hand pictures over in; a container often has 64 MB of it."""
    if not SHARED.is_dir():
        raise NotHere(f"no {SHARED} on {platform.system()}")
    free = shutil.disk_usage(SHARED).free
    if free < LEAST_SHARED:
        raise Fault(
            f"{SHARED} has {free / 1e6:.0f} MB free; expected {LEAST_SHARED / 1e6:.0f} or more: docker run --ipc=host, "
            "or data.workers: 0"
        )
    written, _ = _speed(SHARED, min(WRITTEN, free // 4))
    said = f"{SHARED}: {written / 1e6:,.0f} MB/s, {free / GIB:.1f} GiB free"
    return Noteworthy(f"{said}; little for many workers: docker run --ipc=host gives more") if free < GIB else said


def _speed(folder: Path, size: int = WRITTEN) -> tuple[float, float]:
    """Bytes a second, written with fsync and read again."""
    block = os.urandom(1 << 20)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".vargpt-doctor-") as file:
        begin = time.perf_counter()
        for _ in range(max(1, size >> 20)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        written = time.perf_counter() - begin
        file.seek(0)
        begin = time.perf_counter()
        while file.read(1 << 20):
            pass
        return size / written, size / (time.perf_counter() - begin)
