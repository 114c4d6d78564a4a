"""Check the engine on a GPU: correctness, and the resources of its kernels.

python scripts/gpu_checks.py FOLDER                             # writes FOLDER/checks.json
compute-sanitizer python scripts/gpu_checks.py FOLDER --small   # in one process, small sizes

Outputs, final states and all gradients are compared with the reference in float64, for a sample of
all cells, sizes, dtypes, lengths, resets and directions that is as large as time allows. Needs only
torch and the dependencies of the backend.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import combinations, islice
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from seqnets import cells
from seqnets.benchmarking.devices import found_device
from seqnets.benchmarking.gate import disagreement
from seqnets.benchmarking.precision import DTYPES, precision
from seqnets.benchmarking.surroundings import write_results
from seqnets.cells.convolutional import ConvolutionalCell
from seqnets.engine import BACKENDS, runs, triton
from seqnets.engine.request import make_request
from seqnets.errors import BackendError
from seqnets.testing.backend import Variant, arguments_for, everything, in_double, poisoned_memory
from seqnets.testing.laws import perturb

INPUTS = 5
SIZES = {"T": (1, 2, 63, 257), "H": (1, 3, 17, 64, 257), "rows": (1, 2, 5, 33)}
FLAGS = ("ragged", "resets", "reverse", "given", "strided")
ALLOWED = {"float32": 2e-5, "tf32": 1e-2, "float16": 1e-2, "bfloat16": 3e-2}
"""Maximum difference from the reference, relative to its largest value."""

AMPLIFIED = 30
"""Maximum difference as a multiple of the plain loop's, for recurrences that amplify rounding."""

LARGEST = {"float16": 2.0**11}
"""Largest value up to which intermediate results fit into the dtype."""

PATIENCE = 45.0  # s; a trial that takes longer, compilation included, counts as hanging
SMALL = ("LSTMCell", "GRUCell", "MultiplicativeLSTMCell", "MinGRUCell", "LayerNorm(LSTMCell)")


@dataclass(frozen=True)
class Trial:
    """A comparison of a backend with the reference.

    Attributes:
        backend: Name of the backend.
        cell: The cell, a key of :func:`makers`.
        dtype: The precision, a key of ``ALLOWED``.
        T: Steps.
        H: Units.
        rows: Number of sequences, B.
        flags: Options of ``Variant`` that are set.
    """

    backend: str
    cell: str
    dtype: str
    T: int
    H: int
    rows: int
    flags: tuple[str, ...] = ()

    @property
    def variant(self) -> Variant:
        """The variant of the call."""
        return Variant(self.rows, **dict.fromkeys(self.flags, True))

    def __str__(self) -> str:
        sizes = f"B={self.rows} T={self.T} H={self.H}"
        return ", ".join([f"{self.backend}: {self.cell}", self.dtype, sizes, *self.flags])


@cache
def makers() -> dict[str, Callable[[int], cells.Cell]]:
    """Factories, given H, of all cells that are traced, and of two with layer norm."""
    abstract = cells.Cell, cells.GatedCell, cells.MemoryCell, cells.SpikingCell
    others = cells.Wrapper, ConvolutionalCell, cells.MatrixMemoryCell
    known = {
        name: partial(_sized, found)
        for name, found in vars(cells).items()
        if name in cells.__all__
        and isinstance(found, type)
        and issubclass(found, cells.Cell)
        and found not in abstract
        and not issubclass(found, others)
    }
    normed = [cells.LSTMCell, cells.GRUCell]
    return known | {f"LayerNorm({c.__name__})": partial(_normed, c) for c in normed}


def _sized(kind: Any, H: int) -> cells.Cell:
    return kind(H if getattr(kind, "square", False) else INPUTS, H)


def _normed(kind: Any, H: int) -> cells.Cell:
    return cells.LayerNorm(kind(INPUTS, H))


def check(trial: Trial, device: torch.device) -> str | None:
    """What is wrong as text; None if nothing is.

    Raises:
        BackendError: The backend refuses the request.
    """
    with precision(trial.dtype), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        cell = makers()[trial.cell](trial.H).double()
        perturb(cell, 0.3 / max(9.0, cell.output_size) ** 0.5)  # more lets rounding errors explode
        cell = cell.to(device, DTYPES[trial.dtype])
        arguments = arguments_for(cell, trial.variant, trial.T)
        call = partial(everything, cell, *arguments, reverse=trial.variant.reverse)

        before = runs[trial.backend]
        with poisoned_memory():
            got, again = (call(backend=trial.backend) for _ in range(2))
        if runs[trial.backend] != before + 2:
            return "another backend ran"
        exact = in_double(cell, arguments, trial.variant)
        largest = max(numbers.abs().max().item() for numbers in exact.values())
        if largest > LARGEST.get(trial.dtype, largest):
            raise BackendError(f"{trial.dtype} is too small for numbers of {largest:.0e}")
        rounded = cache(partial(call, backend="reference"))
        if wrong := disagreement(got, exact, ALLOWED[trial.dtype], rounded, AMPLIFIED):
            return wrong
        for what, numbers in got.items():
            if not torch.equal(numbers, again[what]):
                return f"{what} is not the same, bit by bit, when it is computed again"
    return None


def outcome(trial: Trial, device: torch.device) -> dict[str, str]:
    """Run a trial; return {} if it passes, otherwise why it was refused or failed."""
    try:
        wrong = check(trial, device)
        return {"failed": wrong} if wrong else {}
    except BackendError as error:
        return {"refused": str(error).splitlines()[0].partition("refuses: ")[2] or str(error)}
    except Exception as error:  # one failure must not end the run
        lines = str(error).strip().splitlines() or ["no reason given"]
        return {"failed": f"{type(error).__name__}: {lines[0]}"}


def refusals(
    backends: Sequence[str], names: Sequence[str], device: torch.device
) -> dict[tuple[str, str], str]:
    """Why a backend refuses all requests of a cell, by backend and cell."""
    found = {}
    for name in names:
        cell = makers()[name](4).to(device)
        request = make_request(
            cell, torch.zeros(2, 3, cell.input_size, device=device), None, None, None, False
        )
        for backend in backends:
            if reason := BACKENDS[backend].refusal(request):
                found[backend, name] = reason
    return found


def sample(pairs: Sequence[tuple[str, str]], dtypes: Sequence[str]) -> Iterator[Trial]:
    """Yield trials endlessly, for each backend and cell in turn.

    Each is the one, of several random ones, that covers most new values with this cell and new
    pairs of values.
    """
    draw = random.Random(0)
    seen: set[Any] = set()

    def drawn(backend: str, cell: str) -> Trial:
        sizes = {name: draw.choice(values) for name, values in SIZES.items()}
        flags = tuple(flag for flag in FLAGS if draw.random() < 0.4)
        return Trial(backend, cell, draw.choice(dtypes), flags=flags, **sizes)

    def covered(trial: Trial) -> set[Any]:
        values = set(vars(trial).items()) - {("flags", trial.flags)}
        values |= {(flag, flag in trial.flags) for flag in FLAGS}
        singles = {(trial.cell, trial.backend, value) for value in values}
        return singles | set(map(frozenset, combinations(values, 2)))

    while pairs:
        for backend, cell in pairs:
            candidates = [drawn(backend, cell) for _ in range(12)]
            best = max(candidates, key=lambda trial: len(covered(trial) - seen))
            seen |= covered(best)
            yield best


def small(pairs: Sequence[tuple[str, str]], dtypes: Sequence[str]) -> Iterator[Trial]:
    """Yield two small trials per cell: all options in the first dtype, none in the last."""
    for backend, cell in pairs:
        yield Trial(backend, cell, dtypes[0], 3, 17, 2, ("ragged", "resets", "reverse"))
        yield Trial(backend, cell, dtypes[-1], 3, 64, 5)


class Worker:
    """A process that runs trials, so that a crash does not end this process."""

    def __init__(self, device: str, log: Path) -> None:
        self._command = [sys.executable, __file__, "-", "--device", device]
        self._log = log
        self._process: subprocess.Popen[str] | None = None

    def ask(self, trial: Trial) -> dict[str, Any]:
        """Run a trial in the process, and return its outcome."""
        return self._answer(json.dumps(asdict(trial)))

    def close(self) -> dict[str, Any]:
        """End the process, and return the resources of its kernels, as "resources"."""
        found = self._answer("") if self._process is not None else {}
        self._end()
        return found

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()  # waits, and closes the pipes
            self._process = None

    def _answer(self, line: str) -> dict[str, Any]:
        if self._process is None:
            with self._log.open("a") as log:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        alarm = threading.Timer(PATIENCE, process.kill)
        alarm.start()
        try:
            print(line, file=process.stdin, flush=True)
            answer = process.stdout.readline()
        except BrokenPipeError:  # the process has ended already
            answer = ""
        found: dict[str, Any] = json.loads(answer) if answer else {}
        if not answer:
            code = process.wait()
            why = f"hung for {PATIENCE:g} s" if code == -9 else f"ended with {code}"
            found = {"failed": f"the process {why}: {self._log.name}"}
        alarm.cancel()
        if not answer or found.get("broken"):
            self._end()
        return found


def work(device: torch.device) -> None:
    """Run as a worker: read a trial per line from stdin, and write its outcome to stdout."""
    for line in sys.stdin:
        if not line.strip():
            print(json.dumps({"resources": resources()}), flush=True)
            return
        read = json.loads(line)
        trial = Trial(**{**read, "flags": tuple(read["flags"])})
        found: dict[str, Any] = dict(outcome(trial, device))
        if "failed" in found:
            try:
                torch.zeros(1, device=device).item()
            except RuntimeError:  # a device error is permanent for its process
                found["broken"] = True
        print(json.dumps(found), flush=True)


def resources() -> list[dict[str, Any]]:
    """Registers, spills and shared memory of the Triton kernels run in this process."""
    return triton.resources() if runs["triton"] else []


def run(
    trials: Iterator[Trial], seconds: float, device: str, workers: int, folder: Path
) -> tuple[dict[Trial, dict[str, Any]], list[dict[str, Any]]]:
    """Run trials until time is up; return the outcome of each, and the result of each process."""
    end = monotonic() + seconds
    ends: dict[Trial, dict[str, Any]] = {}
    closed: list[dict[str, Any]] = []
    if not workers:
        for trial in trials:
            if monotonic() > end:
                break
            ends[trial] = outcome(trial, torch.device(device))
        return ends, [{"resources": resources()}]

    waiting: queue.Queue[Trial | None] = queue.Queue(maxsize=workers)

    def take(worker: Worker) -> None:
        while (trial := waiting.get()) is not None:
            ends[trial] = worker.ask(trial)
        closed.append(worker.close())

    threads = [
        threading.Thread(target=take, args=[Worker(device, folder / f"worker_{i}.log")])
        for i in range(workers)
    ]
    for thread in threads:
        thread.start()
    for trial in trials:
        if monotonic() > end:
            break
        waiting.put(trial)
    for _ in threads:
        waiting.put(None)
    for thread in threads:
        thread.join()
    return ends, closed


def report(
    ends: dict[Trial, dict[str, Any]],
    refused: dict[tuple[str, str], str],
    closed: list[dict[str, Any]],
    max_spills: int,
) -> dict[str, Any]:
    """All outcomes as plain values for JSON."""
    every = [kernel for one in closed for kernel in one.get("resources", ())]
    taken = list({json.dumps(kernel): kernel for kernel in every}.values())
    by_backend: dict[str, Any] = {}
    for trial, found in ends.items():
        counts = by_backend.setdefault(trial.backend, Counter(agreed=0, refused=0, failed=0))
        counts[next((key for key in ("failed", "refused") if key in found), "agreed")] += 1
    spilling = [found for found in taken if found["spills"] > max_spills]
    failed = {str(trial): found["failed"] for trial, found in ends.items() if "failed" in found}
    if lost := [one["failed"] for one in closed if "failed" in one]:
        failed["resources"] = lost[0]
    return {
        "trials": {name: dict(counts) for name, counts in by_backend.items()},
        "cells": sorted({trial.cell for trial, found in ends.items() if not found}),
        "failed": failed,
        "refused": {str(t): found["refused"] for t, found in ends.items() if "refused" in found},
        "cells_refused": {f"{backend}: {cell}": why for (backend, cell), why in refused.items()},
        "resources": taken,
        "spilling": spilling,
    }


def show(found: dict[str, Any], total: int | None) -> None:
    """Print a summary."""
    for trial, why in found["failed"].items():
        print(f"FAILED {trial}\n       {why}")
    for taken in found["spilling"]:
        print(f"SPILLS {taken}")
    of = "" if total is None else f" of {total}"
    print(f"{'backend':10}{'ran' + of:>14}{'agreed':>10}{'refused':>10}{'failed':>10}")
    for name, counts in found["trials"].items():
        ran = sum(counts.values())
        print(f"{name:10}{ran:>14}" + "".join(f"{counts[k]:>10}" for k in counts))
    print(f"cells: {len(found['cells'])} of {len(makers())} agreed")
    if taken := found["resources"]:
        largest = {key: max(k[key] for k in taken) for key in ("registers", "spills", "shared")}
        print(f"kernels: {len(taken)}, at most {largest}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, write and print; return 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where checks.json goes")
    parser.add_argument(
        "--backend", default="triton,scan", help="backends to check, separated by commas"
    )
    parser.add_argument("--device", type=found_device, default="cuda")
    parser.add_argument("--dtype", default=",".join(ALLOWED), help="separated by commas")
    parser.add_argument(
        "--seconds", type=float, default=120, help="time after which no trial begins"
    )
    parser.add_argument("--trials", type=int, help="maximum number of trials")
    parser.add_argument("--workers", type=int, default=min(8, max(1, (os.cpu_count() or 2) // 2)))
    parser.add_argument("--small", action="store_true", help="few small trials, in this process")
    parser.add_argument(
        "--max-spills", type=int, default=0, help="maximum bytes that a kernel may spill"
    )
    args = parser.parse_args(arguments)
    device, backends, dtypes = args.device, args.backend.split(","), args.dtype.split(",")
    torch.set_num_threads(1)
    if str(args.folder) == "-":
        work(torch.device(device))
        return 0
    args.folder.mkdir(parents=True, exist_ok=True)  # workers write their logs there
    names = SMALL if args.small else list(makers())
    refused = refusals(backends, names, torch.device(device))
    pairs = [(b, cell) for cell in names for b in backends if (b, cell) not in refused]
    total = 2 * len(pairs) if args.small else args.trials
    trials = islice((small if args.small else sample)(pairs, dtypes), total)
    workers = 0 if args.small else args.workers
    ends, closed = run(trials, args.seconds, device, workers, args.folder)
    found = report(ends, refused, closed, args.max_spills)
    write_results(args.folder / "checks.json", found)
    show(found, total)
    return 0 if ends and not found["failed"] and not found["spilling"] else 1


if __name__ == "__main__":
    sys.exit(main())
