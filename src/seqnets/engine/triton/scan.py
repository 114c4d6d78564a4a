"""The scan h_t = a_t h_{t-1} + b_t in Triton, for cells whose step torch's operations compute.

A program runs some units of a row through a piece of time, tile by tile. Where rows and units are
too few to occupy a GPU, time is cut: one launch summarises the effect of each piece on any h (two
numbers per unit), and in a second one each program combines those of the pieces before its own. The
order of summation is fixed, so results are deterministic.

Memory traffic in units of (B, T, H): 2 reads and 1 write; with pieces 4 and 1, though the second
reads may hit the cache. Backward 3 and 2; with pieces 5 and 2.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from seqnets.engine.triton.library import last_step, two_steps
from seqnets.engine.triton.tiles import tiles_of_a_piece

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.complex64)
"""Storage dtypes; arithmetic is in float32."""

_UNITS, _STEPS = 16, 128  # the most of a tile
_NUMBERS = 512  # elements of a tile: a program is one warp, since warps scan serially


def forward(a: Tensor, b: Tensor, first: Tensor, reverse: bool) -> Tensor:
    """Every h, (B, T, H), contiguous.

    Args:
        a: Factors, (B, T, H), in any layout.
        b: Summands, (B, T, H).
        first: The h before the first step, (B, H).
        reverse: Whether time runs backwards.
    """
    h = torch.empty(b.shape, dtype=b.dtype, device=b.device)
    _launch(a, b, first, {"out": h}, reverse)
    return h


def backward(
    a: Tensor, h: Tensor, first: Tensor, grad: Tensor, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a, b and first, from that of every h, the result of :func:`forward`."""
    grad_a, grad_b = (torch.empty(h.shape, dtype=h.dtype, device=h.device) for _ in range(2))
    grad_first = torch.empty(first.shape, dtype=first.dtype, device=first.device)
    buffers = {"out": grad_b, "h": h, "grad_a": grad_a, "grad_first": grad_first}
    _launch(a, grad, first, buffers, not reverse)
    return grad_a, grad_b, grad_first


def _launch(a: Tensor, b: Tensor, first: Tensor, buffers: dict[str, Tensor], reverse: bool) -> None:
    B, T, H = b.shape
    complex_ = b.is_complex()
    back = "h" in buffers
    units = min(_UNITS, triton.next_power_of_2(H))
    steps = min(_STEPS, _NUMBERS // units // (2 if complex_ else 1))
    count = T + 1 if back else T  # backward, the step before the first yields grad_first
    blocks = triton.cdiv(H, units)
    piece = steps * tiles_of_a_piece(B * blocks, triton.cdiv(count, steps))
    pieces = triton.cdiv(count, piece)

    given = {"a": _plain(a), "b": _plain(b), "first": _plain(first).contiguous()}
    given |= {name: _plain(buffer) for name, buffer in buffers.items()}
    options = {"T": T, "count": count, "piece": piece, "H": H}
    for name in ("a", "b"):
        options |= zip((f"{name}_b", f"{name}_t", f"{name}_h"), given[name].stride(), strict=True)
    options |= {"UNITS": units, "STEPS": steps, "num_warps": 1}
    options |= {"REVERSE": reverse, "BACK": back, "COMPLEX": complex_}
    shape = 2, B, pieces - 1, H
    kind = torch.int64 if complex_ else torch.float32
    through, ends = torch.empty(shape, dtype=kind, device=b.device)
    with torch.cuda.device_of(b):
        if pieces > 1:
            summarise[B * blocks, pieces - 1](given["a"], given["b"], through, ends, **options)
        absent = dict.fromkeys({"h", "grad_a", "grad_first"} - given.keys())
        scan[B * blocks, pieces](**given, **absent, through=through, ends=ends, **options)


def _plain(tensor: Tensor) -> Tensor:
    """View complex numbers as integers of their size, which Triton can load."""
    return tensor.resolve_conj().view(torch.int64) if tensor.is_complex() else tensor


@triton.jit(do_not_specialize=["T", "count", "piece"])
def summarise(
    a, b, through, ends,
    T, count, piece, H, a_b, a_t, a_h, b_b, b_t, b_h,
    UNITS: tl.constexpr, STEPS: tl.constexpr,
    REVERSE: tl.constexpr, BACK: tl.constexpr, COMPLEX: tl.constexpr,
):  # fmt: skip
    """What a piece does to the h before it: times the product of its a, plus an end."""
    row, u = _row_and_units(H, UNITS)
    c = tl.program_id(1)
    a += row * a_b
    b += row * b_b
    i = _steps(c * piece, STEPS)
    whole, end = _constant(1.0, UNITS, COMPLEX), _constant(0.0, UNITS, COMPLEX)
    done = 0
    while done < piece:
        a_i = _factors(a, i, u, T, count, H, a_t, a_h, REVERSE, BACK, COMPLEX)
        b_i = _load(b, _time(i, T, REVERSE) * b_t + u * b_h, (i < T) & (u < H), 0.0, COMPLEX)
        product, h = _scanned(a_i, b_i, COMPLEX)
        product, h = _last(product, STEPS, COMPLEX), _last(h, STEPS, COMPLEX)
        end = _sum(_product(product, end, COMPLEX), h, COMPLEX)
        whole = _product(product, whole, COMPLEX)
        i += STEPS
        done += STEPS
    at = (row * tl.num_programs(1) + c) * H + u
    _store(through, at, whole, u < H, COMPLEX)
    _store(ends, at, end, u < H, COMPLEX)


@triton.jit(do_not_specialize=["T", "count", "piece"])
def scan(
    a, b, first, h, out, grad_a, grad_first, through, ends,
    T, count, piece, H, a_b, a_t, a_h, b_b, b_t, b_h,
    UNITS: tl.constexpr, STEPS: tl.constexpr,
    REVERSE: tl.constexpr, BACK: tl.constexpr, COMPLEX: tl.constexpr,
):  # fmt: skip
    """A piece, after what the pieces before it do.

    Backwards (BACK) the steps are those of the total gradient, to which a multiplies one step
    later, and one more, whose total is the gradient of the first h.
    """
    row, u = _row_and_units(H, UNITS)
    c = tl.program_id(1)
    carry = _constant(0.0, UNITS, COMPLEX)
    if not BACK:
        carry = _load(first, row * H + u, u < H, 0.0, COMPLEX)
    j = _steps(0, STEPS)
    done = 0
    while done < c:
        at = (row * (tl.num_programs(1) - 1) + j) * H + u
        a_j = _load(through, at, (j < c) & (u < H), 1.0, COMPLEX)
        b_j = _load(ends, at, (j < c) & (u < H), 0.0, COMPLEX)
        product, end = _scanned(a_j, b_j, COMPLEX)
        product, end = _last(product, STEPS, COMPLEX), _last(end, STEPS, COMPLEX)
        carry = _sum(_product(product, carry, COMPLEX), end, COMPLEX)
        j += STEPS
        done += STEPS

    a += row * a_b
    b += row * b_b
    i = _steps(c * piece, STEPS)
    a_i = _factors(a, i, u, T, count, H, a_t, a_h, REVERSE, BACK, COMPLEX)
    b_i = _load(b, _time(i, T, REVERSE) * b_t + u * b_h, (i < T) & (u < H), 0.0, COMPLEX)
    done = c * piece
    stop = tl.minimum(done + piece, count)
    while done < stop:
        inside = (i < T) & (u < H)
        at = (row * T + _time(i, T, REVERSE)) * H + u
        if BACK:
            before = (row * T + _time(i + 1, T, REVERSE)) * H + u
            h_i = _load(h, before, (i + 1 < T) & (u < H), 0.0, COMPLEX)
            begin = _load(first, row * H + u + i * 0, (i + 1 == T) & (u < H), 0.0, COMPLEX)
        # The next tile is on its way while this one is computed.
        i += STEPS
        more = done + STEPS < stop
        next_a = _factors(a, i, u, T, tl.where(more, count, 0), H, a_t, a_h, REVERSE, BACK, COMPLEX)
        next_b = _load(
            b, _time(i, T, REVERSE) * b_t + u * b_h, (i < T) & (u < H) & more, 0.0, COMPLEX
        )
        product, total = _scanned(a_i, b_i, COMPLEX)
        total = _sum(_product(product, carry, COMPLEX), total, COMPLEX)
        carry = _last(total, STEPS, COMPLEX)
        _store(out, at, total, inside, COMPLEX)
        if BACK:
            h_i = _conjugate(_sum(h_i, begin, COMPLEX), COMPLEX)
            _store(grad_a, at, _product(total, h_i, COMPLEX), inside, COMPLEX)
            last = (i - STEPS == T) & (u < H)
            _store(grad_first, row * H + u + i * 0, total, last, COMPLEX)
        a_i, b_i = next_a, next_b
        done += STEPS


@triton.jit
def _row_and_units(H, UNITS: tl.constexpr):
    """The row of a program, and its units, (1, UNITS)."""
    blocks = tl.cdiv(H, UNITS)
    block = tl.program_id(0) % blocks
    return (tl.program_id(0) // blocks).to(tl.int64), block * UNITS + tl.arange(0, UNITS)[None, :]


@triton.jit
def _steps(begin, STEPS: tl.constexpr):
    """The steps of a tile in the order of the scan, (STEPS, 1)."""
    return (begin + tl.arange(0, STEPS)[:, None]).to(tl.int64)


@triton.jit
def _time(i, T, REVERSE: tl.constexpr):
    """Where in time a step of the scan is."""
    return T - 1 - i if REVERSE else i


@triton.jit
def _factors(
    a, i, u, T, count, H, a_t, a_h,
    REVERSE: tl.constexpr, BACK: tl.constexpr, COMPLEX: tl.constexpr,
):  # fmt: skip
    """By what each step multiplies; past the last one by 1."""
    j = i - 1 if BACK else i
    at = _time(j, T, REVERSE) * a_t + u * a_h
    factors = _load(a, at, (j >= 0) & (i < count) & (u < H), 1.0, COMPLEX)
    return _conjugate(factors, COMPLEX) if BACK else factors


@triton.jit
def _scanned(a, b, COMPLEX: tl.constexpr):
    """The products of all a so far, and every h if the one before the tile is 0."""
    ab = (a[0], a[1], b[0], b[1]) if COMPLEX else (a[0], b[0])
    ab = tl.associative_scan(ab, 0, _after_complex if COMPLEX else two_steps)
    return ((ab[0], ab[1]), (ab[2], ab[3])) if COMPLEX else ((ab[0],), (ab[1],))


@triton.jit
def _after_complex(a, c, b, d, a_next, c_next, b_next, d_next):
    """As ``two_steps``: a + ic and b + id."""
    return (
        a_next * a - c_next * c,
        a_next * c + c_next * a,
        a_next * b - c_next * d + b_next,
        a_next * d + c_next * b + d_next,
    )


@triton.jit
def _last(x, STEPS: tl.constexpr, COMPLEX: tl.constexpr):
    """The last step of a tile, (1, UNITS)."""
    return (
        (last_step(x[0], STEPS), last_step(x[1], STEPS)) if COMPLEX else (last_step(x[0], STEPS),)
    )


@triton.jit
def _product(x, y, COMPLEX: tl.constexpr):
    return (x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]) if COMPLEX else (x[0] * y[0],)


@triton.jit
def _sum(x, y, COMPLEX: tl.constexpr):
    return (x[0] + y[0], x[1] + y[1]) if COMPLEX else (x[0] + y[0],)


@triton.jit
def _conjugate(x, COMPLEX: tl.constexpr):
    return (x[0], -x[1]) if COMPLEX else x


@triton.jit
def _constant(value, UNITS: tl.constexpr, COMPLEX: tl.constexpr):
    re = tl.full([1, UNITS], value, tl.float32)
    return (re, tl.zeros([1, UNITS], tl.float32)) if COMPLEX else (re,)


@triton.jit
def _load(place, at, inside, other, COMPLEX: tl.constexpr):
    """Numbers, (real,) or (real, imaginary); ``other`` where there are none."""
    x = tl.load(place + at, mask=inside, other=0 if COMPLEX else other)
    return _unpacked(x, inside, other) if COMPLEX else (x.to(tl.float32),)


@triton.jit
def _unpacked(x, inside, other):
    """A complex number from a whole one."""
    re = x.to(tl.int32).to(tl.float32, bitcast=True)
    im = (x >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    return tl.where(inside, re, other), im


@triton.jit
def _store(place, at, x, inside, COMPLEX: tl.constexpr):
    if COMPLEX:
        re = x[0].to(tl.int32, bitcast=True).to(tl.uint32, bitcast=True).to(tl.int64)
        im = x[1].to(tl.int32, bitcast=True).to(tl.int64)
        tl.store(place + at, (im << 32) | re, mask=inside)
    else:
        tl.store(place + at, x[0].to(place.dtype.element_ty), mask=inside)
