"""Where a number comes from: machine, versions, revision, date."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import seqnets

_PACKAGES = ("numpy", "triton", "onnxruntime", "onnx", "jax", "flax")
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
_ALLOCATOR = (
    *("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_"),
    *("GLIBC_TUNABLES", "LD_PRELOAD"),
)


def write_found(path: Path, found: Mapping[str, Any]) -> None:
    """Write what a script has found as JSON, with machine, versions, revision and date."""
    whole = {**found, "machine": machine(), "versions": versions(), "commit": commit()}
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**whole, "date": now()}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """Processor, cores, load, threads, how they wait, allocator, vectors, compiler, GPU.

    Where there is a GPU: its name, its driver, CUDA and cuDNN too.
    """
    return {
        "processor": _processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "threads": torch.get_num_threads(),
        "waiting": {name: os.environ[name] for name in _WAITING if name in os.environ},
        "allocator": {name: os.environ[name] for name in _ALLOCATOR if name in os.environ},
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "compiler": _compiler(),
        **(_gpu() if torch.cuda.is_available() else {"gpu": None}),
    }


def versions() -> dict[str, str]:
    """Of Python, seqnets and the packages that may run."""
    found = {"python": platform.python_version(), "seqnets": seqnets.__version__}
    found["torch"] = str(torch.__version__)  # says what it was built for; its package may not
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> dict[str, Any] | None:
    """The revision of the source tree, and whether the package differs from it."""
    package = Path(seqnets.__file__).parent
    # An installed package may lie inside somebody else's repository.
    if _printed("git", "-C", str(package), "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    revision = _printed("git", "-C", str(package), "rev-parse", "HEAD")
    changes = _printed("git", "-C", str(package), "status", "--porcelain", "--", ".")
    return {"id": revision, "dirty": changes != ""} if revision else None


def now() -> str:
    """Date and time in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _processor() -> str:
    """The model's name, as Linux tells it, on ARM by a command, or macOS."""
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        told = ""
    for line in [*told.splitlines(), *(_printed("lscpu") or "").splitlines()]:
        name, _, value = line.partition(":")
        if name.strip().lower() == "model name":
            return value.strip()
    on_macos = _printed("sysctl", "-n", "machdep.cpu.brand_string")
    return on_macos or platform.processor() or platform.machine()


def _compiler() -> str | None:
    name = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    printed = _printed(name, "--version") if name else None
    return printed.splitlines()[0] if printed else None


def _gpu() -> dict[str, Any]:
    query = ("--query-gpu=driver_version", "--format=csv,noheader")
    drivers = _printed("nvidia-smi", *query)
    return {
        "gpu": torch.cuda.get_device_name(),
        "driver": drivers.splitlines()[0] if drivers else None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def _printed(*command: str) -> str | None:
    """What a command prints; None if it fails or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
