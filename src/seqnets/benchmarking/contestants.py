"""Who is timed: what all contestants share, and those that are seqnets' own."""

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
"""How many steps are compared with the reference before a single one is timed."""

CellFactory = Callable[[int, int], Cell]
Outcome = dict[str, Tensor]


class Absent(Exception):  # noqa: N818 - it is no error
    """A contestant cannot take part, and says why."""


@dataclass(frozen=True)
class Workload:
    """A case with its numbers.

    Attributes:
        case: What is timed.
        cell: The recurrence.
        x: Inputs, (B, T, I); :data:`STEPS_COMPARED` steps if the pass is a step.
        grad: What flows back into the outputs, (B, T, output size).

    Time is the first dimension in the memory of both, as all contestants can take it.
    """

    case: Case
    cell: Cell
    x: Tensor
    grad: Tensor

    def expected(self) -> Outcome:
        """What the reference computes, in double precision."""
        return self._by_reference(torch.float64)

    def rounded(self) -> Outcome:
        """What the reference computes in the workload's own precision."""
        return self._by_reference(self.x.dtype)

    def _by_reference(self, dtype: torch.dtype) -> Outcome:
        cell = copy.deepcopy(self.cell).to(dtype)
        call = partial(_unrolled, cell, "reference")
        parameters = dict(cell.named_parameters())
        return run_pass(self.case.pass_, call, self.x.to(dtype), self.grad.to(dtype), parameters)


@dataclass(frozen=True)
class Contestant:
    """Somebody who computes a case.

    Attributes:
        name: What the row is called.
        run: The pass that is timed.
        outcome: What the gate compares with the reference; None for what computes another thing.
        scale: What its time is multiplied with.
        note: What one should know of the row.
        on_torch: Whether its memory is torch's, and can be counted.
    """

    name: str
    run: Callable[[], Any]
    outcome: Callable[[], Outcome] | None
    scale: float = 1.0
    note: str = ""
    on_torch: bool = True


Builder = Callable[[Workload], Contestant]
"""Makes a contestant for a case, or raises :class:`Absent`."""


def make_workload(case: Case, make: CellFactory, device: torch.device) -> Workload:
    """A cell and sequences of random numbers, the same in every run."""
    dtype = DTYPES[case.dtype]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        cell = make(case.I, case.H).to(device, dtype)
        native.flatten_parameters([cell])  # as a layer does
        for vector in (p for p in cell.parameters() if p.dim() == 1):  # zeros would hide mistakes
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
    """Outputs, and in training the gradients of the inputs and of all parameters."""
    if pass_ != "training":
        return {"y": call(x)}
    leaves = {"x": x.detach().requires_grad_(), **parameters}
    y = call(leaves["x"])
    found = torch.autograd.grad(y, tuple(leaves.values()), grad, materialize_grads=True)
    return {"y": y} | {f"gradient of {n}": g for n, g in zip(leaves, found, strict=True)}


class Stepper:
    """A single step, with the state that it carries on.

    Args:
        advance: From an input, and the state or None, to the output and the state after it.
        inputs: The input of each step.
    """

    def __init__(
        self, advance: Callable[[Any, Any], tuple[Any, Any]], inputs: Sequence[Any]
    ) -> None:
        self.advance = advance
        self.inputs = inputs
        self.state: Any = None

    def run(self) -> None:
        """Take one step from where the last one ended."""
        _, self.state = self.advance(self.inputs[0], self.state)

    def outcome(self) -> Outcome:
        """The outputs of all steps from the start, (B, T, output size)."""
        self.state, outputs = None, []
        for x in self.inputs:
            y, self.state = self.advance(x, self.state)
            outputs.append(torch.as_tensor(y).clone())  # it may be a buffer that is used again
        return {"y": torch.stack(outputs, 1)}


def ours(pass_: str, compiled: bool) -> dict[str, Builder]:
    """The rows of seqnets for a pass, by name."""
    if pass_ == "step":
        return {"step": step, "stream": stream}
    named = {name: partial(backend, name) for name in BACKENDS if name != "reference"}
    loops: dict[str, Builder] = {"loop": loop}
    if compiled:
        loops["compiled loop"] = compiled_loop
    return {**loops, **named, "auto": auto}


def loop(work: Workload) -> Contestant:
    """The plain Python loop."""
    return _over_time(work, "loop", partial(_unrolled, work.cell, "reference"))


def compiled_loop(work: Workload) -> Contestant:
    """The Python loop under torch.compile, which unrolls it."""

    def outputs(x: Tensor) -> Tensor:
        # Not through dispatch: what that counts changes, and torch.compile would start again.
        return reference.run(make_request(work.cell, x, None, None, None, False))[0]

    return _over_time(work, "compiled loop", torch.compile(outputs, dynamic=False))


def backend(name: str, work: Workload) -> Contestant:
    """A backend by its name."""
    return _over_time(work, name, partial(_unrolled, work.cell, name))


def auto(work: Workload) -> Contestant:
    """What people call: the layer, which picks a backend."""
    layer = Recurrent(work.cell)
    note = f"backend {explain(work.cell, work.x).chosen}"
    return _over_time(work, "auto", lambda x: layer(x)[0], note)


def step(work: Workload) -> Contestant:
    """One step of the layer."""
    stepper = Stepper(Recurrent(work.cell).step, work.x.unbind(1))
    return Contestant("step", stepper.run, stepper.outcome)


def stream(work: Workload) -> Contestant:
    """One step of a stream, which holds state and buffers itself."""
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
    parameters = dict(work.cell.named_parameters())
    run = partial(run_pass, work.case.pass_, call, work.x, work.grad, parameters)
    return Contestant(name, run, run, note=note)


def _unrolled(cell: Cell, backend: str, x: Tensor) -> Tensor:
    return unroll(cell, x, backend=backend)[0]
