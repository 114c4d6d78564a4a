"""Provenance of measurements: machine, versions, revision, date."""

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
from seqnets.atomic import atomic

_PACKAGES = ("numpy", "triton", "onnxruntime", "onnx", "jax", "flax")
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
_ALLOCATOR = (
    *("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_"),
    *("GLIBC_TUNABLES", "LD_PRELOAD"),
)


def write_results(path: Path, results: Mapping[str, Any]) -> None:
    """Write a script's results as JSON, atomically, with machine, versions, revision and date."""
    text = json.dumps({**results, **surroundings()}, indent=1, ensure_ascii=False)
    with atomic(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def surroundings() -> dict[str, Any]:
    """Machine, versions, revision and date."""
    return {"machine": machine(), "versions": versions(), "commit": commit(), "date": now()}


def machine() -> dict[str, Any]:
    """A description of the machine.

    It has the processor, cores, load, threads and their wait policy, allocator settings, vector
    instructions and compiler; with a GPU also its name and driver, CUDA and cuDNN.
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
    """The versions of Python, seqnets and the packages that may be involved."""
    found = {"python": platform.python_version(), "seqnets": seqnets.__version__}
    # with the build, such as +cu128, which the package metadata may lack
    found["torch"] = str(torch.__version__)
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> dict[str, Any] | None:
    """The revision of the source tree, and whether the package differs from it."""
    package = Path(seqnets.__file__).parent
    # An installed package may lie within an unrelated repository.
    if _output_of("git", "-C", str(package), "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    revision = _output_of("git", "-C", str(package), "rev-parse", "HEAD")
    changes = _output_of("git", "-C", str(package), "status", "--porcelain", "--", ".")
    return {"id": revision, "dirty": changes != ""} if revision else None


def now() -> str:
    """Date and time in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _processor() -> str:
    """The processor's model name, on Linux (on ARM from lscpu) and macOS."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        cpuinfo = ""
    for line in [*cpuinfo.splitlines(), *(_output_of("lscpu") or "").splitlines()]:
        name, _, value = line.partition(":")
        if name.strip().lower() == "model name":
            return value.strip()
    on_macos = _output_of("sysctl", "-n", "machdep.cpu.brand_string")
    return on_macos or platform.processor() or platform.machine()


def _compiler() -> str | None:
    """The first line of the C compiler's version, if there is a compiler."""
    name = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    version_text = _output_of(name, "--version") if name else None
    return version_text.splitlines()[0] if version_text else None


def _gpu() -> dict[str, Any]:
    query = ("--query-gpu=driver_version", "--format=csv,noheader")
    drivers = _output_of("nvidia-smi", *query)
    return {
        "gpu": torch.cuda.get_device_name(),
        "driver": drivers.splitlines()[0] if drivers else None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def _output_of(*command: str) -> str | None:
    """The output of a command; None if it fails or does not exist."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
