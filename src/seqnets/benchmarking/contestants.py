"""Contestants: the implementations that a benchmark compares, and seqnets' own ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from seqnets.benchmarking.cases import Case
from seqnets.benchmarking.precision import DTYPES
from seqnets.cells import Cell
from seqnets.engine import BACKENDS, explain, native, reference, unroll
from seqnets.engine.request import make_request
from seqnets.layers import Recurrent, Stream

STEPS_COMPARED = 8
"""Number of steps compared with the reference before a single step is timed."""

CellFactory = Callable[[int, int], Cell]
Outcome = dict[str, Tensor]


class Absent(Exception):  # noqa: N818 - not an error
    """A contestant cannot take part; the message says why."""


@dataclass(frozen=True)
class Workload:
    """A case with its cell and data.

    Attributes:
        case: The case.
        cell: The recurrence.
        x: Inputs, (B, T, I); :data:`STEPS_COMPARED` steps if the pass is a step.
        grad: Gradient of the outputs, (B, T, output size).

    Both tensors are stored with time first, a layout that all contestants accept.
    """

    case: Case
    cell: Cell
    x: Tensor
    grad: Tensor

    def expected(self) -> Outcome:
        """The reference's outcome in double precision."""
        return self._by_reference(torch.float64)

    def rounded(self) -> Outcome:
        """The reference's outcome in the workload's precision."""
        return self._by_reference(self.x.dtype)

    def _by_reference(self, dtype: torch.dtype) -> Outcome:
        """The reference's outcome in the given precision."""
        cell = copy.deepcopy(self.cell).to(dtype)
        call = partial(_unrolled, cell, "reference")
        parameters = dict(cell.named_parameters())
        return run_pass(self.case.pass_, call, self.x.to(dtype), self.grad.to(dtype), parameters)


@dataclass(frozen=True)
class Contestant:
    """An implementation that computes a case.

    Attributes:
        name: Name of its row.
        run: Runs the pass that is timed.
        outcome: Returns the values to compare with the reference; None if it computes another
            function.
        scale: Factor for its time.
        note: Remark for the reader of the row.
        on_torch: Whether it allocates memory through torch, so that it can be measured.
    """

    name: str
    run: Callable[[], Any]
    outcome: Callable[[], Outcome] | None
    scale: float = 1.0
    note: str = ""
    on_torch: bool = True


Builder = Callable[[Workload], Contestant]
"""Creates a contestant for a workload, or raises :class:`Absent`."""


def make_workload(case: Case, make: CellFactory, device: torch.device) -> Workload:
    """Create the cell and random sequences of a case, the same in every run."""
    dtype = DTYPES[case.dtype]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        cell = make(case.I, case.H).to(device, dtype)
        native.flatten_parameters([cell])  # as a layer does
        for vector in (p for p in cell.parameters() if p.dim() == 1):  # zeros could hide errors
            torch.nn.init.uniform_(vector, -0.1, 0.1)
        T = STEPS_COMPARED if case.pass_ == "step" else case.T
        x, grad = (torch.randn(T, case.B, size) for size in (case.I, cell.output_size))
    x, grad = (tensor.to(device, dtype).transpose(0, 1) for tensor in (x, grad))
    return Workload(case, cell, x, grad)


def run_pass(
    pass_: str,
    call: Callable[[Tensor], Tensor],
    x: Tensor,
    grad: Tensor,
    parameters: Mapping[str, Tensor],
) -> Outcome:
    """The outputs and, in training, the gradients of the inputs and all parameters."""
    if pass_ != "training":
        return {"y": call(x)}
    leaves = {"x": x.detach().requires_grad_(), **parameters}
    y = call(leaves["x"])
    found = torch.autograd.grad(y, tuple(leaves.values()), grad, materialize_grads=True)
    return {"y": y} | {f"gradient of {n}": g for n, g in zip(leaves, found, strict=True)}


class Stepper:
    """Runs single steps, and keeps the state between them.

    Args:
        advance: Maps an input and the state (None at the start) to the output and the next state.
        inputs: The input of each step.
    """

    def __init__(
        self, advance: Callable[[Any, Any], tuple[Any, Any]], inputs: Sequence[Any]
    ) -> None:
        self.advance = advance
        self.inputs = inputs
        self.state: Any = None

    def run(self) -> None:
        """Take one step from the last state."""
        _, self.state = self.advance(self.inputs[0], self.state)

    def outcome(self) -> Outcome:
        """The outputs of all steps from the start, (B, T, output size)."""
        self.state, outputs = None, []
        for x in self.inputs:
            y, self.state = self.advance(x, self.state)
            outputs.append(torch.as_tensor(y).clone())  # it may be a buffer that is reused
        return {"y": torch.stack(outputs, 1)}


def ours(pass_: str, compiled: bool) -> dict[str, Builder]:
    """The builders of seqnets' own contestants for a pass, by name."""
    if pass_ == "step":
        return {"step": step, "stream": stream}
    named = {name: partial(backend, name) for name in BACKENDS if name != "reference"}
    loops: dict[str, Builder] = {"loop": loop}
    if compiled:
        loops["compiled loop"] = compiled_loop
    return {**loops, **named, "auto": auto}


def loop(work: Workload) -> Contestant:
    """The plain Python loop as a contestant."""
    return _over_time(work, "loop", partial(_unrolled, work.cell, "reference"))


def compiled_loop(work: Workload) -> Contestant:
    """The Python loop under torch.compile, which unrolls it."""

    def outputs(x: Tensor) -> Tensor:
        # Not through dispatch, whose counters change: torch.compile would recompile each time.
        return reference.run(make_request(work.cell, x, None, None, None, False))[0]

    return _over_time(work, "compiled loop", torch.compile(outputs, dynamic=False))


def backend(name: str, work: Workload) -> Contestant:
    """A named backend as a contestant."""
    return _over_time(work, name, partial(_unrolled, work.cell, name))


def auto(work: Workload) -> Contestant:
    """The layer, which chooses a backend, as users call it."""
    layer = Recurrent(work.cell)
    note = f"backend {explain(work.cell, work.x).chosen}"
    return _over_time(work, "auto", lambda x: layer(x)[0], note)


def step(work: Workload) -> Contestant:
    """Single steps of the layer."""
    stepper = Stepper(Recurrent(work.cell).step, work.x.unbind(1))
    return Contestant("step", stepper.run, stepper.outcome)


def stream(work: Workload) -> Contestant:
    """Single steps of a stream, which keeps the state and buffers itself."""
    streamed = Stream(Recurrent(work.cell), batch_size=work.case.B)

    def advance(x: Tensor, started: Any) -> tuple[Tensor, bool]:
        if started is None:
            streamed.reset()
        return streamed(x), True

    stepper = Stepper(advance, work.x.unbind(1))
    return Contestant("stream", stepper.run, stepper.outcome, note=f"backend {streamed.backend}")


def _over_time(
    work: Workload, name: str, call: Callable[[Tensor], Tensor], note: str = ""
) -> Contestant:
    """A contestant that computes all steps by one call."""
    parameters = dict(work.cell.named_parameters())
    run = partial(run_pass, work.case.pass_, call, work.x, work.grad, parameters)
    return Contestant(name, run, run, note=note)


def _unrolled(cell: Cell, backend: str, x: Tensor) -> Tensor:
    return unroll(cell, x, backend=backend)[0]
