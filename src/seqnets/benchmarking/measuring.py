"""Time a case: everybody who computes it, in one run, once they are proven right."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from time import perf_counter

import torch

from seqnets.benchmarking.cases import Case
from seqnets.benchmarking.contestants import (
    Absent,
    Builder,
    CellFactory,
    Contestant,
    Workload,
    make_workload,
    ours,
)
from seqnets.benchmarking.flax_linen import flax
from seqnets.benchmarking.floor import floor
from seqnets.benchmarking.gate import ALLOWED, disagreement
from seqnets.benchmarking.memory import peak_memory
from seqnets.benchmarking.onnx_runtime import onnx_runtime
from seqnets.benchmarking.precision import precision
from seqnets.benchmarking.results import Measured, Row
from seqnets.benchmarking.timer import race, wait_for
from seqnets.benchmarking.torch_nn import torch_nn
from seqnets.errors import BackendError


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        budget: Seconds for the rounds of a case.
        compiled: Whether to time the Python loop under torch.compile too.
        memory: Whether to measure the memory of training.
        device: Where it runs.
    """

    budget: float = 3.0
    compiled: bool = False
    memory: bool = True
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass
class _Entries:
    """Who may be timed, how long the first run took in ms, and why others may not."""

    admitted: list[Contestant] = field(default_factory=list)
    first_ms: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)


def measure(case: Case, make: CellFactory, settings: Settings | None = None) -> Measured:
    """Compare everybody with the reference, then time those who agree with it.

    Args:
        case: What to time.
        make: Makes the cell from I and H.
        settings: How.
    """
    settings = settings or Settings()
    training = case.pass_ == "training"
    with torch.set_grad_enabled(training), precision(case.dtype):
        work = make_workload(case, make, settings.device)
        entries = _admit(work, settings)
        runs = {contestant.name: contestant.run for contestant in entries.admitted}
        times = race(runs, settings.budget, settings.device)
        counted = [c for c in entries.admitted if c.on_torch and training and settings.memory]
        mib = {c.name: peak_memory(c.run, settings.device) for c in counted}
    ms = {c.name: times[c.name].median * c.scale for c in entries.admitted}
    rows = [
        Row(
            name=c.name,
            ms=ms[c.name],
            iqr=times[c.name].iqr * c.scale,
            rounds=times[c.name].rounds,
            vs_torch=ms["torch.nn"] / ms[c.name] if "torch.nn" in ms else None,
            vs_floor=ms[c.name] / ms["floor"] if "floor" in ms else None,
            steps_per_s=case.B * case.T / ms[c.name] * 1e3,
            mib=mib.get(c.name),
            first_ms=entries.first_ms.get(c.name),
            note=c.note,
        )
        for c in entries.admitted
    ]
    return Measured(case, rows, entries.refused, entries.absent)


def _builders(case: Case, settings: Settings) -> dict[str, Builder]:
    limit_and_rivals: dict[str, Builder] = {
        "floor": floor,
        "torch.nn": torch_nn,
        "ONNX Runtime": onnx_runtime,
        "Flax": flax,
    }
    known = limit_and_rivals | ours(case.pass_, settings.compiled)
    return known if case.rows is None else {name: known.get(name, _unknown) for name in case.rows}


def _unknown(work: Workload) -> Contestant:
    raise Absent("is asked for, and is no row of this pass")


def _admit(work: Workload, settings: Settings) -> _Entries:
    """Ask everybody in, and turn away who is not there or disagrees with the reference."""
    entries = _Entries()
    expected, rounded, allowed = work.expected(), cache(work.rounded), ALLOWED[work.case.dtype]
    for name, builder in _builders(work.case, settings).items():
        try:
            contestant = builder(work)
            if contestant.outcome is not None:
                start = perf_counter()
                got = contestant.outcome()
                wait_for(settings.device)
                entries.first_ms[name] = (perf_counter() - start) * 1e3
                if wrong := disagreement(got, expected, allowed, rounded):
                    entries.refused[name] = f"disagrees with the reference: {wrong}"
                    continue
            entries.admitted.append(contestant)
        except Absent as reason:
            entries.absent[name] = str(reason)
        except BackendError as error:
            told = str(error).splitlines()[0]
            entries.absent[name] = told.partition("refuses: ")[2] or told
        except Exception as error:  # it is told in the table: one who breaks must not end the run
            told = str(error).strip() or "no reason given"
            entries.refused[name] = f"{type(error).__name__}: {told.splitlines()[0]}"
    return entries
