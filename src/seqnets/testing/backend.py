"""One backend against the reference."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from seqnets.cells import Cell
from seqnets.cells.checks import check_is_cell
from seqnets.engine import BACKENDS, runs, unroll
from seqnets.errors import BackendError
from seqnets.testing.laws import agree, perturb
from seqnets.typing import State

TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5}
"""By dtype: the largest difference allowed, as a share of the largest number.

A recurrence may make rounding itself grow: the reference's own distance from what it finds for the
next numbers is allowed too, thirty times over, or from what it finds in float64 if that is more.
"""

STEPS = (1, 2, 63, 257)


@dataclass(frozen=True)
class Variant:
    """What a call asks for beyond outputs.

    Attributes:
        rows: Sequences in the batch, B.
        ragged: Lengths from 0 to T, and NaN for padding.
        resets: New sequences inside rows.
        reverse: Time runs backwards.
        given: The state before the first step is given.
        strided: Neither inputs nor states are contiguous.
    """

    rows: int = 5
    ragged: bool = False
    resets: bool = False
    reverse: bool = False
    given: bool = False
    strided: bool = False

    def __str__(self) -> str:
        asked = [name for name, value in vars(self).items() if value is True]
        return ", ".join([f"B={self.rows}", *asked])


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
    """Raise unless a backend gives the reference's outputs, states and all gradients.

    It is compared over sequences of all ``steps`` with each of ``variants``: ragged and full,
    forwards and backwards, with and without a state, resets and gaps in memory. The memory that
    it is given holds NaN, which shows where it reads what it has not written.

    Args:
        cell: The recurrence, on the device that the backend is for. Odd sizes find more.
        backend: The name of the backend that must run.
        steps: Lengths T of the sequences.
        dtypes: Floating-point types, each a key of ``TOLERANCES``.
        variants: What the calls ask for; fewer take less time.

    Returns:
        The variants that the backend refuses, each with its reason.

    Raises:
        AssertionError: A number differs, another backend ran, or the backend refuses everything,
            or one variant at some T and not at others.
        BackendError: No backend has this name.
        ConfigError: ``cell`` is no cell.

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
        perturb(cell, 0.3 / max(9.0, cell.output_size) ** 0.5)  # not so far that rounding explodes
        for dtype, variant, T in product(dtypes, variants, steps):
            try:
                _compare(copy.deepcopy(cell).to(dtype), backend, variant, T)
                ran.add(str(variant))
            except BackendError as error:
                refused[str(variant)] = str(error).splitlines()[0]
    name = f"{type(cell).__name__} on backend '{backend}'"
    if not ran:
        raise AssertionError(f"{name}: everything is refused: {refused}.")
    if partly := ran & refused.keys():
        raise AssertionError(f"{name}: refused at some T or dtype only: {sorted(partly)}.")
    return refused


def _compare(cell: Cell, backend: str, variant: Variant, T: int) -> None:
    arguments = arguments_for(cell, variant, T)
    dtype = arguments[0].dtype
    where = f"{type(cell).__name__} on backend '{backend}', T={T}, {variant}, {dtype}"

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
            ways = _of_the_next_numbers, in_double  # either may be near by chance
            others = others or [way(cell, arguments, variant) for way in ways]
            rounding = max((numbers - other[what]).abs().max().item() for other in others)
            allowed = max(allowed, 30 * rounding)
        agree(got[what], numbers, f"{where}: {what} is not the reference's", allowed)


def in_double(cell: Cell, arguments: tuple[Any, ...], variant: Variant) -> dict[str, Tensor]:
    """What the reference finds in float64."""
    x, state, *rest = arguments
    state = None if state is None else tuple(part.double() for part in state)
    double = copy.deepcopy(cell).double()
    return everything(
        double, x.double(), state, *rest, reverse=variant.reverse, backend="reference"
    )


def _of_the_next_numbers(
    cell: Cell, arguments: tuple[Any, ...], variant: Variant
) -> dict[str, Tensor]:
    """What the reference finds for inputs that are larger by a rounding or two."""
    x, *rest = arguments
    x = x * (1 + 4 * torch.finfo(x.dtype).eps)
    return everything(cell, x, *rest, reverse=variant.reverse, backend="reference")


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Let every tensor of floating-point numbers that is made without any hold NaN."""

    def poisoned(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def made(*args: Any, **kwargs: Any) -> Tensor:
            tensor = make(*args, **kwargs)
            return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

        return made

    homes: list[tuple[Any, str]] = [(torch, "empty"), (torch, "empty_like"), (torch, "frombuffer")]
    homes += [(Tensor, "new_empty")]
    before = [getattr(home, name) for home, name in homes]
    try:
        for (home, name), make in zip(homes, before, strict=True):
            setattr(home, name, poisoned(make))
        yield
    finally:
        for (home, name), make in zip(homes, before, strict=True):
            setattr(home, name, make)


def arguments_for(cell: Cell, variant: Variant, T: int) -> tuple[Any, ...]:
    """Inputs, state, lengths and resets, as for ``unroll``."""
    like = cell._like
    B = variant.rows

    def random(*shape: int) -> Tensor:
        strided = torch.randn(*shape, 2).to(like)[..., 0]
        return strided if variant.strided else strided.contiguous()

    x, state, lengths, resets = random(B, T, cell.input_size), None, None, None
    if variant.given:
        state = tuple(random(B, size) for size in cell.state_sizes)
    if variant.ragged:
        lengths = torch.tensor([T, 0, (T + 1) // 2, 1, T - 1]).repeat(B)[:B].to(x.device)
        past = torch.arange(T, device=x.device) >= lengths[:, None]
        x.masked_fill_(past[..., None], float("nan"))
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
        torch.manual_seed(0)  # the same masks, where some are drawn
        y, final = unroll(
            cell, wanted["x"], state, lengths, resets, reverse=reverse, backend=backend
        )
    outcome = {"y": y, **_named("final", cell, final)}
    loss = torch.stack([(v * torch.cos(v.detach() + 1)).sum() for v in outcome.values()]).sum()
    found = torch.autograd.grad(loss, tuple(wanted.values()), materialize_grads=True)
    return outcome | {f"gradient of {n}": g for n, g in zip(wanted, found, strict=True)}


def _named(when: str, cell: Cell, state: State) -> dict[str, Tensor]:
    return {f"{when} {name}": part for name, part in zip(cell.states, state, strict=True)}
