"""The choice of a backend: the table of backends, ``choose``, ``run`` and ``explain``.

"auto" tries backends in the order that ``preference.py`` gives, and takes the first that does not
refuse the request. A backend that is named runs or raises.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.autograd import profiler

from seqnets.cells import Cell
from seqnets.cells.checks import check_is_cell
from seqnets.engine import c, eager, native, reference, scan, triton
from seqnets.engine.preference import preference
from seqnets.engine.request import Request, make_request
from seqnets.errors import BackendError
from seqnets.typing import State
from seqnets.warn import warn


class Backend(Protocol):
    """A way to run requests: a module with a name and two functions.

    An optional third, ``detail(request)``, describes how the work is divided, or what is left out.
    """

    name: str

    def refusal(self, request: Request) -> str | None:
        """Why it cannot run this request; None if it can."""

    def run(self, request: Request) -> tuple[Tensor, State]:
        """Outputs (B, T, H), and the state after each row's last valid step."""


# Sizes are read to choose a backend and to check arguments; run() warns of traces of one length.
warnings.filterwarnings(
    "ignore",
    "Converting a tensor|Using len|torch.as_tensor",
    torch.jit.TracerWarning,
    r"seqnets\.(cells|engine|layers)\.",
)

BACKENDS: dict[str, Backend] = {b.name: b for b in (triton, c, scan, native, eager, reference)}
"""Every backend by name; "auto" takes the first of ``preference`` that does not refuse."""

runs: Counter[str] = Counter()
"""How often each backend has run, for tests that prove which one did."""


@dataclass(frozen=True)
class Explanation:
    """Which backend "auto" takes for a request, and why no other.

    Attributes:
        chosen: The backend's name.
        refusals: The reason of each backend that refuses.
        slower: Those that could run it too but are expected to be slower, fastest first.
        how: How the backend divides the work if it has a choice, or what it leaves out.
    """

    chosen: str
    refusals: dict[str, str]
    slower: tuple[str, ...] = ()
    how: str = ""

    def __repr__(self) -> str:  # what a notebook shows
        lines = [f"{name}: could run it, and is slower" for name in self.slower]
        lines += [f"{name}: refused, {reason}" for name, reason in self.refusals.items()]
        how = f" ({self.how})" if self.how else ""
        return "\n".join([f"{self.chosen}: chosen{how}", *lines])


def choose(request: Request, backend: str) -> str:
    """The name of the backend to use: the one named, or the one that "auto" takes.

    Raises:
        BackendError: No backend has this name, or the one named refuses.
    """
    if backend == "auto":
        return _fastest(request)
    if backend not in BACKENDS:
        raise BackendError(
            f"unroll: backend is {backend!r}, expected 'auto' or one of {', '.join(BACKENDS)}."
        )
    if reason := BACKENDS[backend].refusal(request):
        raise BackendError(
            f"{request.cell._name}: backend '{backend}' refuses: {reason}.\n"
            f"  A backend that is named runs or raises; backend='auto' would take "
            f"'{_fastest(request)}'."
        )
    return backend


def run(request: Request, backend: str) -> tuple[Tensor, State]:
    """Run a request on the backend of this name, which does not refuse it.

    Profilers show it by the names of cell and backend.
    """
    if backend == reference.name and torch.jit.is_tracing():
        warn(
            f"{request.cell._name}: torch.jit.trace records all T = {request.x.shape[1]} steps of "
            f"its plain loop; the trace is right for sequences of that length only.",
            torch.jit.TracerWarning,
        )
    if torch.compiler.is_compiling():  # a changing counter would recompile
        return BACKENDS[backend].run(request)
    y, state = run_at_once(request, backend)
    if isinstance(y.shape[1], int) and not isinstance(request.x.shape[1], int):
        warn(
            f"{request.cell._name}: a trace with open sizes records all T = {y.shape[1]} steps; it "
            f"is right for sequences of that length only.\n"
            f"  torch.export leaves T open by its dynamic_shapes."
        )
    return y, state


def run_at_once(request: Request, backend: str) -> tuple[Tensor, State]:
    """As ``run``, where no compiler and no tracer is at work."""
    runs[backend] += 1
    if not profiler._is_profiler_enabled:
        return BACKENDS[backend].run(request)
    with profiler.record_function(f"{request.cell._name} ({backend})"):
        return BACKENDS[backend].run(request)


def explain(
    cell: Cell,
    x: Tensor,
    state: State | None = None,
    lengths: Tensor | None = None,
    resets: Tensor | None = None,
    *,
    reverse: bool = False,
    memory: str = "full",
) -> Explanation:
    """Which backend ``unroll`` would take for these arguments, and why no other.

    The arguments are those of ``unroll``. ``seqnets.explain`` takes layers, too.

    Example:
        >>> print(seqnets.explain(seqnets.cells.PeepholeLSTMCell(8, 64), torch.randn(4, 100, 8)))
        c: chosen
        eager: could run it, and is slower
        reference: could run it, and is slower
        triton: refused, it runs on cuda, not on cpu
        scan: refused, the step is not linear in the state: a product by weight_hh depends on it
        native: refused, torch has no kernel for PeepholeLSTMCell, only for LSTMCell, ...
    """
    check_is_cell("explain", cell)
    request = make_request(cell, x, state, lengths, resets, reverse, memory)
    chosen, *slower = _able(request)
    detail = getattr(BACKENDS[chosen], "detail", None)
    how = detail(request) if detail is not None else ""
    return Explanation(chosen, _refusals(request), tuple(slower), how)


def _fastest(request: Request) -> str:
    """What "auto" takes."""
    for name in _able(request):
        return name
    raise BackendError(f"{request.cell._name}: every backend refuses: {_refusals(request)}.")


def _able(request: Request) -> Iterator[str]:
    """The backends that do not refuse, in the order of ``preference``.

    For steps whose products mostly move units, the plain loop comes before ``eager``.
    """
    last = []
    for name in preference(request):
        if BACKENDS[name].refusal(request) is None:
            if name == eager.name and request.plan.mostly_moves:
                last.append(name)
            else:
                yield name
    yield from last


def _refusals(request: Request) -> dict[str, str]:
    """The reason of each backend that refuses, by name."""
    reasons = {name: backend.refusal(request) for name, backend in BACKENDS.items()}
    return {name: reason for name, reason in reasons.items() if reason is not None}
