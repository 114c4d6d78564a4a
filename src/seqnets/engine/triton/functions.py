"""The pointwise functions of printed kernels that Triton lacks, or rounds."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tanh(x):
    """By the logistic function, which the interpreter has too; to 1e-7 of 1."""
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def relu(x):
    """NaN stays NaN."""
    return tl.where(x < 0, 0.0, x)


@triton.jit
def sign(x):
    """-1, 0 or 1; 0 for NaN."""
    return tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, 0.0))


@triton.jit
def log1p(x):
    """Exact for small numbers (Kahan)."""
    u = 1 + x
    share = tl.where(u - 1 == x, 1.0, x / tl.where(u == 1, 1.0, u - 1))  # of infinity none
    return tl.where(u == 1, x, tl.log(u) * share)


@triton.jit
def expm1(x):
    """Exact for small numbers (Kahan)."""
    u = tl.exp(x)
    plain = (u == 1) | (u - 1 == -1) | (x > 20)
    exact = (u - 1) * (x / tl.log(tl.where(plain, 2.0, u)))
    return tl.where(u == 1, x, tl.where(plain, u - 1, exact))


@triton.jit
def sinh(x):
    """Exact for small numbers, and a number where half of e^|x| is."""
    a = tl.abs(x)
    e, half = expm1(a), tl.exp(0.5 * a)
    y = tl.where(a < 20, 0.5 * (e + e / (e + 1)), 0.5 * half * half)
    return tl.where(x < 0, -y, y)


@triton.jit
def cosh(x):
    """A number where half of e^|x| is."""
    half = tl.exp(0.5 * tl.abs(x))
    return 0.5 * half * half + 0.5 / (half * half)


@triton.jit
def asinh(x):
    """Exact for small numbers; the square of large ones would overflow."""
    a = tl.abs(x)
    far = a > 1e17
    y = log1p(tl.where(far, a, a + a * a / (tl.sqrt(a * a + 1) + 1)))
    y = tl.where(far, y + 0.6931471805599453, y)
    return tl.where(x < 0, -y, y)


@triton.jit
def acosh(x):
    """Exact near 1."""
    a = x - 1
    far = a > 1e17
    y = log1p(tl.where(far, a, a + tl.sqrt(a) * tl.sqrt(a + 2)))
    return tl.where(far, y + 0.6931471805599453, y)


@triton.jit
def angle(y, x):
    """The angle of (x, y), y >= 0: that of a point turned back by eighths of a circle."""
    b = tl.abs(x)
    half, whole = y > 0.41421356 * b, y > 2.41421356 * b
    t = tl.where(whole, -b, tl.where(half, y - b, y))
    t = t / tl.where(whole, y, tl.where(half, y + b, b))
    t2 = t * t
    rest = ((-0.0645192787 * t2 + 0.107437313) * t2 - 0.142639562) * t2 + 0.199995399
    t = t + t * t2 * (rest * t2 - 0.333333313)
    eighths = tl.where(whole, 2.0, tl.where(half, 1.0, 0.0)) * 0.7853981633974483
    return tl.where(x < 0, 3.141592653589793 - eighths - t, eighths + t)


@triton.jit
def atan(x):
    """Of all numbers, infinite ones too."""
    y = angle(tl.abs(x), tl.where(x == x, 1.0, x))
    return tl.where(x < 0, -y, y)


@triton.jit
def atan2(y, x):
    """Of two infinities or zeros no quotient is a number; 0 has no sign here."""
    y = tl.where(x == x, y, x)  # one of them may be a constant, and no tile
    a, b = tl.abs(y), tl.abs(tl.where(y == y, x, y))
    scale = tl.where(maximum(a, b) > 1e17, 0.25, 1.0)
    same = a == b
    a = tl.where(same, tl.where(a > 0, 1.0, 0.0), scale * a)
    b = tl.where(same, 1.0, scale * b)
    z = angle(a, tl.where(x < 0, -b, b))
    return tl.where(y < 0, -z, z)


@triton.jit
def asin(x):
    """Exact for small numbers, and near 1."""
    a = tl.abs(x)
    y = angle(a, tl.sqrt((1 - a) * (1 + a)))
    return tl.where(x < 0, -y, y)


@triton.jit
def acos(x):
    """Exact near 1."""
    return atan2(tl.sqrt((1 - x) * (1 + x)), x)


@triton.jit
def remainder(a, b):
    """What is left of a without whole b, with the sign of b; twice, as a quotient is rounded.

    Where rounding loses a beside b, what is left stays what it is, which may be b. It is wrong for
    infinite b, and may be for quotients above 2^24.
    """
    r = tl.fma(-tl.floor(a / b), b, a)
    return tl.where(a + b == b, r, tl.fma(-tl.floor(r / b), b, r))


@triton.jit
def maximum(a, b):
    """NaN stays NaN."""
    return tl.where(a != a, a, tl.where(a > b, a, b))


@triton.jit
def minimum(a, b):
    """NaN stays NaN."""
    return tl.where(a != a, a, tl.where(a < b, a, b))
