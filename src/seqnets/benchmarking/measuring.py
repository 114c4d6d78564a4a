"""Measurement of a case: all correct contestants are timed in one run."""

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
    """Options of a measurement.

    Attributes:
        budget: Time for the rounds of a case, in seconds.
        compiled: Whether to also time the Python loop under torch.compile.
        memory: Whether to measure the memory of training passes.
        device: The device.
    """

    budget: float = 3.0
    compiled: bool = False
    memory: bool = True
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass
class _Entries:
    """The contestants of a case.

    Attributes:
        admitted: Those that agree with the reference.
        first_ms: Duration of the first run, in ms, by name.
        refused: Why a contestant is not timed although it ran or failed, by name.
        absent: Why a contestant does not take part, by name.
    """

    admitted: list[Contestant] = field(default_factory=list)
    first_ms: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)


def measure(case: Case, make: CellFactory, settings: Settings | None = None) -> Measured:
    """Compare all contestants with the reference, then time those that agree with it.

    Args:
        case: The case to time.
        make: Creates the cell, given I and H.
        settings: Options of the measurement.
    """
    settings = settings or Settings()
    training = case.pass_ == "training"
    with torch.set_grad_enabled(training), precision(case.dtype):
        work = make_workload(case, make, settings.device)
        entries = _admit(work, settings)
        runs = {contestant.name: contestant.run for contestant in entries.admitted}
        times = race(runs, settings.budget, settings.device)
        profiled = [c for c in entries.admitted if c.on_torch and training and settings.memory]
        mib = {c.name: peak_memory(c.run, settings.device) for c in profiled}
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
    """The builders of a case's contestants, by name."""
    others: dict[str, Builder] = {
        "floor": floor,
        "torch.nn": torch_nn,
        "ONNX Runtime": onnx_runtime,
        "Flax": flax,
    }
    known = others | ours(case.pass_, settings.compiled)
    return known if case.rows is None else {name: known.get(name, _unknown) for name in case.rows}


def _unknown(work: Workload) -> Contestant:
    raise Absent("is not a contestant of this pass")


def _admit(work: Workload, settings: Settings) -> _Entries:
    """Build the contestants, and compare each with the reference."""
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
            message = str(error).splitlines()[0]
            entries.absent[name] = message.partition("refuses: ")[2] or message
        except Exception as error:  # the table shows it: one failure must not end the run
            message = str(error).strip() or "no reason given"
            entries.refused[name] = f"{type(error).__name__}: {message.splitlines()[0]}"
    return entries
