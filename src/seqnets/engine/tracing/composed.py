"""Decompositions of aten operations into those that the recorder knows.

Their derivatives equal torch's too: at kinks, at a norm of zero, and for large arguments, where the
branch of a ``where`` that is not taken must not overflow (0 times infinity is NaN).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from seqnets.checks import is_torch_from
from seqnets.engine.graph import Untraceable
from seqnets.engine.tracing.meanings import ACROSS_ROWS

SHARED_AT_TIES = is_torch_from(2, 14)
"""Whether equal operands of ``fmax``, ``fmin`` and a clamp by one tensor share the gradient."""


def _layer_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The variance is a second sum, after the mean, to avoid cancellation."""
    if len(shape) != 1:
        raise Untraceable("aten.native_layer_norm over more than the units of a row")
    mean = x.mean(-1, keepdim=True)
    centred = x - mean
    scale = (centred.square().mean(-1, keepdim=True) + eps).rsqrt()
    return _affine(centred * scale, weight, bias), mean, scale


def _affine(y: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _variance(x: Tensor, dim: Any = None, *, correction: float = 1, keepdim: bool = False) -> Any:
    centred = x - x.mean(dim, keepdim=True)
    count = x.shape[-1] if dim is None else math.prod(x.shape[d] for d in dim)
    return centred.square().sum(dim, keepdim=keepdim) / (count - correction)


def _group_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    rows: int,
    channels: int,
    places: int,
    groups: int,
    eps: float,
) -> Any:
    if places != 1:
        raise Untraceable("aten.native_group_norm over more than the units of a row")
    parts = x.view(rows, groups, -1)
    y, mean, scale = _layer_norm(parts, parts.shape[2:], None, None, eps)
    return _affine(y.view(x.shape), weight, bias), mean[..., 0], scale[..., 0]


def _batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> Any:
    if training or x.dim() != 2:
        raise Untraceable(ACROSS_ROWS)
    return _affine((x - mean) / (variance + eps).sqrt(), weight, bias), mean, variance


def _deviation(x: Tensor, dim: Any = None, *, correction: float = 1, keepdim: bool = False) -> Any:
    return _root(_variance(x, dim, correction=correction, keepdim=keepdim))


def _and_mean(spread: Callable[..., Any]) -> Callable[..., Any]:
    def both(x: Tensor, dim: Any = None, *, correction: float = 1, keepdim: bool = False) -> Any:
        return spread(x, dim, correction=correction, keepdim=keepdim), x.mean(dim, keepdim=keepdim)

    return both


def _norm(
    x: Tensor, order: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Any:
    if order <= 0 or dtype is not None:
        raise Untraceable(f"aten.linalg_vector_norm of order {order}, or in another dtype")
    if order == math.inf:
        return x.abs().amax(dim, keepdim=keepdim)
    if order == 2:
        return _root(x.square().sum(dim, keepdim=keepdim))
    powers = x.abs() ** order if order >= 1 else _root(x.abs(), 1 / order)
    whole = powers.sum(dim, keepdim=keepdim)
    return whole if order == 1 else _root(whole, order)


def _round(x: Tensor, *, decimals: int = 0) -> Tensor:
    """Round half to even."""
    if decimals:
        return _round(x * 10.0**decimals) / 10.0**decimals
    below = x.floor()
    middle = below + below.remainder(2)
    return torch.where(x - below > 0.5, below + 1, torch.where(x - below == 0.5, middle, below))


def _root(x: Tensor, order: float = 2) -> Tensor:
    """A root of what is not negative, with gradient zero at zero."""
    return torch.where(x > 0, torch.where(x > 0, x, 1.0) ** (1 / order), x)


def _at_most(x: Tensor, bound: float) -> Tensor:
    """The smaller of the two; at the bound ``x``, which a clamp is before torch 2.14 only."""
    return torch.where(x > bound, bound, x)


def _softplus(x: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    near = _at_most(x * beta, threshold).exp().log1p() / beta
    return torch.where(x * beta > threshold, x, near)


def _log_sigmoid(x: Tensor) -> tuple[Tensor, Tensor]:
    below = _at_most(x, 0)
    below = below - below.exp().log1p()
    y = torch.where(x < 0, below, -_at_most(-x, 0).exp().log1p())
    return y, y


def _elu(x: Tensor, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Tensor:
    below = (_at_most(x, 0) * input_scale).expm1() * (alpha * scale)
    return torch.where(x > 0, x * scale, below)


def _hardtanh(x: Tensor, low: float = -1, high: float = 1) -> Tensor:
    return torch.where(x <= low, low, torch.where(x >= high, high, x))


def _hardswish(x: Tensor) -> Tensor:
    return torch.where(x <= -3, 0.0, torch.where(x < 3, x * (x + 3) / 6, x))


def _sinc(x: Tensor) -> Tensor:
    small = x * x == 0
    angle = torch.where(small, 1.0, x * math.pi)
    return torch.where(small, 1.0, angle.sin() / angle)


def _with_sign(x: Tensor, sign: Any) -> Tensor:
    if not isinstance(sign, Tensor):
        return x.abs() * math.copysign(1, sign)
    return torch.where(sign.signbit(), -x.abs(), x.abs())


def _fmod(a: Tensor, b: Any) -> Tensor:
    return torch.where(a < 0, -(-a).remainder(abs(b)), a.remainder(abs(b)))


def _hypot(a: Tensor, b: Tensor) -> Tensor:
    """Scaled by the larger operand, so that squares do not overflow; the scale is detached."""
    large = torch.maximum(a.abs(), b.abs()).detach()
    large = torch.where((large > 0) & (large < math.inf), large, 1.0)
    return large * ((a / large).square() + (b / large).square()).sqrt()


def _times_logarithm(x: Tensor, y: Any) -> Tensor:
    """``x * log(y)``, which is 0 where x is, with the logarithm as its slope where that is real."""
    y = y if isinstance(y, Tensor) else torch.full_like(x, y)
    return x * torch.where((x == 0) & ((y <= 0) | (y == math.inf)), 1.0, y).log()


def _larger_number(a: Tensor, b: Tensor) -> Tensor:
    """The larger of two numbers, or that which is one."""
    tie = a / 2 + b / 2 if SHARED_AT_TIES else a
    return torch.where(a == b, tie, torch.where((a > b) | (b != b), a, b))


def _softshrink(x: Tensor, bound: float = 0.5) -> Tensor:
    between = torch.where(x == x, 0.0, x)  # keeps NaN
    return torch.where(x > bound, x - bound, torch.where(x < -bound, x + bound, between))


def _bilinear(a: Tensor, weight: Tensor, b: Tensor, *dims: list[int]) -> Tensor:
    if dims != ([1, 3], [0], [1, 2], [2, 3]):
        raise Untraceable("aten._trilinear other than that of F.bilinear")
    outputs, given, other = weight.shape
    through = a @ weight.transpose(0, 1).reshape(given, outputs * other)
    return (through.view(-1, outputs, other) * b[:, None]).sum(-1)


def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    if dropout_p:
        raise Untraceable("aten.scaled_dot_product_attention with dropout: project is to draw it")
    scores = q @ k.transpose(-2, -1) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        scores = torch.where(seen, scores, -math.inf)
    if attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(-1) @ v, scores.logsumexp(-1)


def _fill(x: Tensor, value: Any) -> Tensor:
    return value.expand(x.shape) if isinstance(value, Tensor) else torch.full_like(x, value)


def _index_put(
    x: Tensor, places: Sequence[Any], values: Tensor, accumulate: bool = False
) -> Tensor:
    if [place is None for place in places] == [True, False] and x.dim() == 2 and not accumulate:
        return _put_at(x, places[1], values)
    (mask, *others), one = places, values.numel() == 1 and not accumulate
    if others or mask.dtype != torch.bool or mask.shape != x.shape or not one:
        raise Untraceable(
            "aten.index_put of more than one number where a mask is true; instead: torch.where"
        )
    return torch.where(mask, values, x)


def _put_at(x: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """Units of which those at some places are replaced."""
    if places.dtype == torch.bool:
        raise Untraceable("units written by a mask, as many as are true; instead: torch.where")
    here = places.remainder(x.shape[1])[:, None] == torch.arange(x.shape[1])
    put = values.expand(len(x), len(places)) @ here.to(x.dtype)
    return torch.where(here.any(0), put, x)


def _cast(x: Tensor, *, dtype: torch.dtype | None = None, **_: Any) -> Any:
    """What is nonzero, NaN too; NotImplemented for a cast to numbers, or of what is true."""
    return x != 0 if dtype == torch.bool != x.dtype else NotImplemented


COMPOSED: dict[str, Callable[..., Any]] = {
    "native_layer_norm": _layer_norm,
    "var": _variance,
    "std": _deviation,
    "var_mean": _and_mean(_variance),
    "std_mean": _and_mean(_deviation),
    "native_group_norm": _group_norm,
    "native_batch_norm": _batch_norm,
    "linalg_vector_norm": _norm,
    "softplus": _softplus,
    "log_sigmoid_forward": _log_sigmoid,
    "mish": lambda x: x * _softplus(x).tanh(),
    "elu": _elu,
    "celu": lambda x, alpha=1: _elu(x, alpha, 1, 1 / alpha),
    "hardtanh": _hardtanh,
    "hardsigmoid": lambda x: _hardtanh(x + 3, 0, 6) / 6,
    "hardswish": _hardswish,
    "sinc": _sinc,
    "softshrink": _softshrink,
    "index_put": _index_put,
    "_to_copy": _cast,
    "fill": _fill,
    "_trilinear": _bilinear,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "amin": lambda x, dim=(), keepdim=False: -(-x).amax(dim, keepdim),
    "isnan": lambda x: x != x,
    "signbit": lambda x: (x < 0) | (x.reciprocal() < 0),  # also for -0
    "copysign": _with_sign,
    "fmod": _fmod,
    "hypot": _hypot,
    "xlogy": _times_logarithm,
    "fmax": _larger_number,
    "fmin": lambda a, b: -_larger_number(-a, -b),
    "heaviside": lambda x, at_zero: torch.where(x == 0, at_zero, (x > 0).to(x.dtype)).detach(),
    "tan": lambda x: x.sin() / x.cos(),
    "log2": lambda x: x.log() / math.log(2),
    "log10": lambda x: x.log() / math.log(10),
    "atanh": lambda x: (x.log1p() - (-x).log1p()) / 2,
    "ceil": lambda x: -(-x).floor(),
    "round": _round,
    "trunc": lambda x: torch.where(x < 0, -(-x).floor(), x.floor()),
    "lerp": lambda a, b, weight: a + weight * (b - a),
    "logaddexp": lambda a, b: torch.maximum(a, b) + (-(a - b).abs()).exp().log1p(),
    "addcmul": lambda x, a, b, *, value=1: x + value * (a * b),
}
"""By the operation's name; they take precedence over torch's own decompositions.

They return NotImplemented for what is not a composition."""

_PARTS = "real numbers, real and imaginary parts apart"
_ABOVE = "exponentials of sums of logarithms, of what is above 0"

INSTEAD: dict[str, str] = {
    **dict.fromkeys(("sort", "median", "kthvalue", "cummax", "cummin"), "max, or topk of a few"),
    **dict.fromkeys(("prod", "cumprod"), _ABOVE),
    **dict.fromkeys(("complex", "view_as_complex", "polar", "angle", "_fft_r2c"), _PARTS),
    **dict.fromkeys(("index_add", "index_copy", "scatter_add"), "torch.cat of the parts"),
    "logcumsumexp": "the logarithm of a cumsum of exponentials",
    **dict.fromkeys(("any", "all"), "those of each row, as any(-1); checks before the layer"),
    "_cdist_forward": "the norms of differences, (x[:, None] - y).norm(dim=-1)",
    "erfc": "1 - torch.erf(x)",
    **dict.fromkeys(("_linalg_solve_ex", "linalg_solve_triangular"), "x @ torch.linalg.inv(A).T"),
    **dict.fromkeys(("bucketize", "searchsorted"), "a sum of comparisons"),
    **dict.fromkeys(("masked_select", "masked_scatter"), "torch.where"),
    "heaviside": "the same of x.detach(), as torch has no derivative of it",
    "index": "the places of units as numbers, x[:, [0, 2]]",
    "max_pool2d_with_indices": "x.unfold(-1, size, step).amax(-1)",
    "_local_scalar_dense": "tensors in place of numbers, torch.where in place of branches",
}
"""For operations that no graph can represent: what to write instead, for refusals."""
