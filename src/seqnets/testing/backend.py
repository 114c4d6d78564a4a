"""Comparison of a backend with the reference."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from seqnets.cells import Cell
from seqnets.cells.checks import check_is_cell
from seqnets.checks import name_of
from seqnets.engine import BACKENDS, runs, unroll
from seqnets.errors import BackendError
from seqnets.testing.laws import agree, makes_nan, perturb
from seqnets.typing import State

TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5}
"""Maximum difference from the reference by dtype, relative to the largest value.

A recurrence may amplify rounding errors. A backend may therefore also differ by thirty times the
difference of the reference from its result in float64, or for inputs changed by rounding, if that
is more.
"""

STEPS = (1, 2, 63, 257)


@dataclass(frozen=True)
class Variant:
    """Options of a call.

    Attributes:
        rows: Sequences in the batch, B.
        ragged: Whether there are lengths, from 0 to T, with NaN as padding.
        resets: Whether there are resets within rows.
        reverse: Whether time runs backwards.
        given: Whether the initial state is given.
        strided: Whether inputs and states are non-contiguous.
    """

    rows: int = 5
    ragged: bool = False
    resets: bool = False
    reverse: bool = False
    given: bool = False
    strided: bool = False

    def __str__(self) -> str:
        options = [name for name, value in vars(self).items() if value is True]
        return ", ".join([f"B={self.rows}", *options])


VARIANTS = (
    Variant(),
    Variant(rows=1, given=True),
    Variant(strided=True, given=True),
    Variant(reverse=True),
    Variant(ragged=True),
    Variant(ragged=True, reverse=True, given=True),
    Variant(resets=True),
    Variant(resets=True, ragged=True, reverse=True, given=True, strided=True),
    Variant(rows=2, ragged=True, resets=True),
    Variant(rows=33, ragged=True, reverse=True),
)


def check_backend(
    cell: Cell,
    backend: str,
    *,
    steps: Sequence[int] = STEPS,
    dtypes: Iterable[torch.dtype] = tuple(TOLERANCES),
    variants: Sequence[Variant] = VARIANTS,
) -> dict[str, str]:
    """Check that a backend gives the reference's outputs, final states and all gradients.

    Sequences of all ``steps`` are compared for each of ``variants``: ragged or full, forwards or
    backwards, with or without an initial state, resets and gaps in memory. New memory is filled
    with NaN, which reveals reads of uninitialised values.

    Args:
        cell: The recurrence, on the backend's device. Odd sizes find more errors.
        backend: Name of the backend that must run.
        steps: Lengths T of the sequences.
        dtypes: Floating-point types, each a key of ``TOLERANCES``.
        variants: Options of the calls; fewer take less time.

    Returns:
        The variants that the backend refuses, each with its reason.

    Raises:
        AssertionError: A number differs, another backend ran, or the backend refuses all variants,
            or one at some T only.
        BackendError: No backend has this name.
        ConfigError: ``cell`` is not a cell.

    Example:
        >>> check_backend(cells.GRUCell(3, 5), "native")
        {'B=5, resets': "GRUCell: backend 'native' refuses: torch's kernels cannot ..."}
    """
    if backend not in BACKENDS:
        raise BackendError(
            f"check_backend: backend is {backend!r}, expected one of {', '.join(BACKENDS)}."
        )
    check_is_cell("check_backend", cell)
    refused: dict[str, str] = {}
    ran: set[str] = set()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        cell = copy.deepcopy(cell).double()
        perturb(cell, 0.3 / max(9.0, cell.output_size) ** 0.5)  # more lets rounding errors explode
        for dtype, variant, T in product(dtypes, variants, steps):
            try:
                _compare(copy.deepcopy(cell).to(dtype), backend, variant, T)
                ran.add(str(variant))
            except BackendError as error:
                refused[str(variant)] = str(error).splitlines()[0]
    name = f"{name_of(cell)} on backend '{backend}'"
    if not ran:
        raise AssertionError(f"{name}: everything is refused: {refused}.")
    if sometimes := ran & refused.keys():
        raise AssertionError(f"{name}: refused at some T or dtype only: {sorted(sometimes)}.")
    return refused


def _compare(cell: Cell, backend: str, variant: Variant, T: int) -> None:
    """Compare one call with the reference; raise AssertionError if anything differs."""
    arguments = arguments_for(cell, variant, T)
    dtype = arguments[0].dtype
    where = f"{name_of(cell)} on backend '{backend}', T={T}, {variant}, {dtype}"

    before = runs[backend]
    with poisoned_memory():
        got = everything(cell, *arguments, reverse=variant.reverse, backend=backend)
    if runs[backend] == before:
        raise AssertionError(f"{where}: another backend ran.")

    expected = everything(cell, *arguments, reverse=variant.reverse, backend="reference")
    others: list[dict[str, Tensor]] = []
    for what, numbers in expected.items():
        largest = numbers.detach().abs().max().item()
        allowed = TOLERANCES[dtype] * max(1.0, largest)
        close = torch.allclose(got[what], numbers, rtol=0, atol=allowed)
        if not close:
            perturbations = _with_rounded_inputs, in_double  # either may be close by chance
            others = others or [run(cell, arguments, variant) for run in perturbations]
            rounding = max((numbers - other[what]).abs().max().item() for other in others)
            allowed = max(allowed, 30 * rounding)
        agree(got[what], numbers, f"{where}: {what} is not the reference's", allowed)


def in_double(cell: Cell, arguments: tuple[Any, ...], variant: Variant) -> dict[str, Tensor]:
    """The reference's results in float64."""
    x, state, *rest = arguments
    state = None if state is None else tuple(part.double() for part in state)
    double = copy.deepcopy(cell).double()
    return everything(
        double, x.double(), state, *rest, reverse=variant.reverse, backend="reference"
    )


def _with_rounded_inputs(
    cell: Cell, arguments: tuple[Any, ...], variant: Variant
) -> dict[str, Tensor]:
    """The reference's results for inputs that differ by about a rounding error each.

    One factor for all would hardly change what is a difference of inputs.
    """
    x, *rest = arguments
    x = x * (1 + 4 * torch.finfo(x.dtype).eps * torch.randn_like(x).sign())
    return everything(cell, x, *rest, reverse=variant.reverse, backend="reference")


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Fill new uninitialised floating-point tensors with NaN."""

    def poisoned(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def allocate_poisoned(*args: Any, **kwargs: Any) -> Tensor:
            tensor = allocate(*args, **kwargs)
            return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

        return allocate_poisoned

    allocators: list[tuple[Any, str]] = [
        (torch, "empty"),
        (torch, "empty_like"),
        (torch, "frombuffer"),
        (Tensor, "new_empty"),
    ]
    originals = [getattr(owner, name) for owner, name in allocators]
    try:
        for (owner, name), original in zip(allocators, originals, strict=True):
            setattr(owner, name, poisoned(original))
        yield
    finally:
        for (owner, name), original in zip(allocators, originals, strict=True):
            setattr(owner, name, original)


def arguments_for(cell: Cell, variant: Variant, T: int) -> tuple[Any, ...]:
    """Random inputs, state, lengths and resets for ``unroll``."""
    like = cell._like
    B = variant.rows

    def random(*shape: int) -> Tensor:
        strided = torch.randn(*shape, 2).to(like)[..., 0]
        return strided if variant.strided else strided.contiguous()

    x, state, lengths, resets = random(B, T, cell.input_size), None, None, None
    if variant.given:
        state = tuple(random(B, size) for size in cell.state_sizes)
        first, plain = x[:, :1], partial(unroll, cell, backend="reference")
        if makes_nan(plain, first, state):
            state = tuple(part.detach() for part in plain(first)[1])
    if variant.ragged:
        lengths = torch.tensor([T, 0, (T + 1) // 2, 1, T - 1]).repeat(B)[:B].to(x.device)
        outside = torch.arange(T, device=x.device) >= lengths[:, None]
        x.masked_fill_(outside[..., None], float("nan"))
    if variant.resets:
        resets = (torch.rand(B, T) < 0.2).to(x.device)
    return x, state, lengths, resets


def everything(
    cell: Cell,
    x: Tensor,
    state: State | None,
    lengths: Tensor | None,
    resets: Tensor | None,
    *,
    reverse: bool,
    backend: str,
) -> dict[str, Tensor]:
    """Outputs, final states and all gradients, by name."""
    wanted = {"x": x.detach().requires_grad_(), **dict(cell.named_parameters())}
    if state is not None:
        state = tuple(part.detach().requires_grad_() for part in state)
        wanted |= _named("initial", cell, state)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the same dropout masks in all calls
        y, final = unroll(
            cell, wanted["x"], state, lengths, resets, reverse=reverse, backend=backend
        )
    outcome = {"y": y, **_named("final", cell, final)}
    loss = torch.stack([(v * torch.cos(v.detach() + 1)).sum() for v in outcome.values()]).sum()
    found = tuple(torch.zeros_like(tensor) for tensor in wanted.values())
    if loss.requires_grad:  # not where all that a step gives is the answer of comparisons
        found = torch.autograd.grad(loss, tuple(wanted.values()), materialize_grads=True)
    return outcome | {f"gradient of {n}": g for n, g in zip(wanted, found, strict=True)}


def _named(when: str, cell: Cell, state: State) -> dict[str, Tensor]:
    return {f"{when} {name}": part for name, part in zip(cell.states, state, strict=True)}
