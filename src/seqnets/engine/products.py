"""Matrix products outside the loops: input projections, and gradients of weights and inputs.

Each runs by torch or by the engine's own C kernel, whichever was measured to be faster on such a
processor. In half precision, a processor's tiles of bfloat16 come first.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from functools import cache, lru_cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode, has_torch_function

from seqnets.cells.given import autocasts
from seqnets.engine.c.products import can_multiply, multiply
from seqnets.engine.measured import nearest, of_processor, table
from seqnets.engine.modes import (
    PLAIN_TYPES,
    dispatches,
    is_batched,
    refusal_of_one_operation,
)


def product(
    a: Tensor,
    b: Tensor,
    bias: Tensor | None = None,
    out: Tensor | None = None,
    tiled: bool = False,
) -> Tensor:
    """``a @ b + bias``, by torch or by our kernel, whichever was faster on such a processor.

    On x86, torch's library does not use the full vectors of an AMD processor.

    Args:
        a: (m, k), of any strides.
        b: (k, n), of any strides.
        bias: (n); none if omitted.
        out: The destination, (m, n), contiguous; allocated if omitted.
        tiled: Whether tiles of bfloat16 may compute it, to 5 digits, where the processor has them.
    """
    for by_tiles in _kernels(a, b, bias, tiled):
        out = a.new_empty(len(a), b.shape[1]) if out is None else out
        if multiply(a, b, bias if bias is None else bias.contiguous(), out, by_tiles):
            return out
    return torch.mm(a, b, out=out) if bias is None else torch.addmm(bias, a, b, out=out)


def add_product(total: Tensor, a: Tensor, b: Tensor, tiled: bool = False) -> None:
    """``total += a @ b``, likewise."""
    if _kernels(a, b, None, tiled):
        total.add_(product(a, b, tiled=tiled))
    else:
        total.addmm_(a, b)


def _kernels(a: Tensor, b: Tensor, bias: Tensor | None, tiled: bool) -> list[bool]:
    """Our kernels that support the operands and are faster than torch, the fastest first.

    Each by whether it is that by tiles, which comes first where ``tiled`` permits it.
    """
    k, n = b.shape
    sizes = math.prod(a.shape[:-1]), k, n
    by_tiles, by_vectors = tiled and _tiles_pay(*sizes), _ours(*sizes)
    if not (by_tiles or by_vectors) or not _are_taken(a, b, bias):
        return []
    kernels = (True, by_tiles), (False, by_vectors)
    return [which for which, pays in kernels if pays and can_multiply(a.dtype, which)]


def _are_taken(a: Tensor, b: Tensor, bias: Tensor | None) -> bool:
    """Whether the operands agree in type and shape; if not, torch raises the error."""
    k, n = b.shape
    return (
        a.shape[-1] == k
        and (bias is None or bias.shape == (n,))
        and all(
            type(each) in PLAIN_TYPES
            and each.is_cpu
            and each.dtype == a.dtype
            and each.layout == torch.strided
            for each in (a, b, bias)
            if each is not None
        )
    )


def linear(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, tiled: bool = False
) -> Tensor:
    """``F.linear`` by :func:`product`, unless operations are traced or intercepted."""
    given = (input, weight, bias)
    if torch.compiler.is_compiling() or _is_seen(*given) or not _is_worth(*given, tiled):
        return F.linear(*given)
    y = _Linear.apply(input.flatten(0, -2), weight, bias, tiled)
    return y.unflatten(0, input.shape[:-1])


def _is_seen(input: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether operations are traced or intercepted, or a tensor is of a subclass."""
    return (
        has_torch_function((input, weight, bias))
        or dispatches(weight)
        or refusal_of_one_operation(input) is not None
    )


def _is_worth(input: Tensor, weight: Tensor, bias: Tensor | None, tiled: bool) -> bool:
    """Whether one of our kernels supports the operands and is faster."""
    if input.dim() < 2 or weight.dim() != 2 or weight.layout != torch.strided:
        return False
    return bool(_kernels(input, weight.T, bias, tiled)) and not autocasts(input)


def in_linear(x: Tensor, tiled: bool) -> AbstractContextManager[Any]:
    """A context in which :func:`linear` replaces ``F.linear``, if it may be faster."""
    return _InLinear(tiled) if x.is_cpu and (tiled or _measured()) else nullcontext()


class _InLinear(TorchFunctionMode):
    """Replaces ``F.linear`` by :func:`linear`, whatever calls it."""

    def __init__(self, tiled: bool) -> None:
        super().__init__()
        self._linear = partial(linear, tiled=tiled)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Torch's function, or its replacement."""
        return (self._linear if func is F.linear else func)(*args, **(kwargs or {}))


class _Linear(torch.autograd.Function):
    """A linear layer by :func:`product`; second derivatives are torch's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, tiled: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.tiled = tiled
        return product(x, weight.T, bias, tiled=tiled)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        by_torch = torch.is_grad_enabled() or is_batched(grad)
        multiplied = torch.mm if by_torch else partial(product, tiled=ctx.tiled)
        return (
            multiplied(grad, weight) if of_x else None,
            multiplied(grad.T, x) if of_weight else None,
            grad.sum(0) if of_bias else None,
            None,
        )


def _tiles_pay(m: int, k: int, n: int) -> bool:
    """Whether tiles multiply (m, k) and (k, n) faster: if there is much to do with each number."""
    work = m * k * n
    return work >= max(_LEAST_WORK, _TIMES_EACH * (m * k + k * n + m * n))


_LEAST_WORK = 2**21  # multiplications: a call takes 15 µs longer than torch's
_TIMES_EACH = 32  # multiplications for each number that is packed or stored


@lru_cache(maxsize=4096)
def _ours(m: int, k: int, n: int) -> bool:
    """Whether our product of (m, k) and (k, n) was measured to be faster."""
    points = _measured()
    return bool(points) and 0 not in (m, k, n) and nearest(points, (m, k, n)) < 1


@cache
def torch_is_slow() -> bool:
    """Whether large products by torch take much longer here, as they leave vectors unused."""
    points = _measured()
    return bool(points) and nearest(points, (8192, 256, 256)) < 0.75


def _measured() -> list[list[float]]:
    """Rows of sizes and the time of our product over torch's; empty if not measured."""
    found: list[list[float]] = table().get(of_processor("products"), {}).get("speed_of_torch", [])
    return found
