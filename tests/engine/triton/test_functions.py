"""Functions as kernels have them, against float64, and against torch where numbers are special."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

launch = pytest.importorskip("seqnets.engine.triton.launch", reason="Triton is not installed")
from seqnets.engine import graph  # noqa: E402
from seqnets.engine.graph import Columns, Graph  # noqa: E402
from seqnets.engine.triton import functions  # noqa: E402
from seqnets.engine.triton.passes import _expression  # noqa: E402
from seqnets.engine.triton.tiles import power_of_two  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # numpy's

UNARY = sorted(graph.UNARY - {"detach"})
BINARY = sorted(graph.BINARY | graph.COMPARISONS)
ULP = 2.0**-24  # half of one: the least that any result errs

# Points, and the greatest relative error in units of ULP.
RELATIVE = {
    "sigmoid": (-87.0, 88.0, 5),
    "exp": (-87.0, 88.0, 5),
    "expm1": (-50.0, 88.0, 5),
    "log": (1e-3, 8.0, 5),
    "log1p": (-0.99, 8.0, 5),
    "sqrt": (0.0, 9.0, 5),
    "rsqrt": (1e-3, 9.0, 5),
    "reciprocal": (0.1, 9.0, 5),
    "exp2": (-125.0, 127.0, 5),
    "sinh": (-89.0, 89.0, 9),
    "cosh": (-89.0, 89.0, 9),
    "asinh": (-1e3, 1e3, 9),
    "acosh": (1.0, 1e3, 9),
    "asin": (-1.0, 1.0, 9),
    "acos": (-1.0, 0.999, 9),
    "atan": (-30.0, 30.0, 9),
    "erf": (-6.0, 6.0, 5),
}


def compute(name, *args):
    """A function of numbers, by a kernel."""
    made, size = Graph(), power_of_two(len(args[0]))
    names = {made.leaf(Columns("x", k), 4): f"x{k}" for k in range(len(args))}
    loads = [f"    x{k} = tl.load(a{k} + i)" for k in range(len(args))]
    places = ", ".join(f"a{k}" for k in range(len(args)))
    value = _expression(made.apply(name, *names), names)
    lines = [
        "@triton.jit",
        f"def computed({places}, y):",
        f"    i = tl.arange(0, {size})",
        *loads,
        f"    tl.store(y + i, ({value}).to(tl.float32))",
    ]
    kernel = launch._compiled("\n".join([*lines, ""]), ["computed"])["computed"]
    given = [torch.ones(size) for _ in args]
    for to, arg in zip(given, args, strict=True):
        to[: len(arg)] = arg
    y = torch.empty(size)
    kernel[(1,)](*given, y)
    return y[: len(args[0])]


def expected(name, *args):
    function = getattr(torch.nn.functional, name, None) or getattr(torch, name)
    return function(*args)


@pytest.mark.parametrize("name", RELATIVE)
def test_a_function_is_right_to_the_last_bits(name):
    low, high, tolerance = RELATIVE[name]
    around_zero = np.geomspace(1e-30, 1, 500)
    x = np.concatenate([np.linspace(low, high, 2001), around_zero, -around_zero])
    x = torch.from_numpy(x[(low <= x) & (x <= high) & (x != 0)]).float()

    exact = expected(name, x.double())
    error = ((compute(name, x) - exact).abs() / exact.abs().clamp(min=1e-37)).max()

    assert error <= tolerance * ULP


def test_a_tanh_is_right_to_seven_digits_of_one():
    x = torch.linspace(-20, 20, 2001)

    torch.testing.assert_close(compute("tanh", x), x.tanh(), rtol=0, atol=2e-7)


ENDS = [0.0, 0.5, 1.0, 2.5, 1e-10, 2.0**-126, 3e38, torch.inf]
SPECIAL = torch.tensor([*ENDS, *(-end for end in ENDS), torch.nan])


@pytest.mark.parametrize("name", UNARY)
def test_special_numbers_give_what_torch_gives(name):
    found, wanted = compute(name, SPECIAL), expected(name, SPECIAL)

    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-7, equal_nan=True)


@pytest.mark.parametrize("name", BINARY)
def test_two_numbers_give_what_torch_gives(name):
    firsts, seconds = SPECIAL, SPECIAL
    if name == "atan2":  # to which 0 has no sign
        firsts, seconds = SPECIAL + 0.0, SPECIAL + 0.0
    if name == "remainder":  # whose quotients are small
        firsts = SPECIAL[SPECIAL.abs() < 3]
        seconds = firsts[(firsts.abs() >= 0.5) | (firsts == 0)]
    a, b = (side.flatten() for side in torch.meshgrid(firsts, seconds, indexing="ij"))

    found, wanted = compute(name, a, b), expected(name, a, b).float()

    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0, equal_nan=True)


class OnAGPU(torch.Tensor):
    """Quotients are as far below the exact ones as a GPU's may be."""

    def __truediv__(self, other):
        exact = self.as_subclass(torch.Tensor) / other.as_subclass(torch.Tensor)
        below = exact.nextafter(torch.zeros_like(exact))
        return torch.where(self == other, exact, below).as_subclass(OnAGPU)


def test_a_remainder_is_right_though_a_gpus_quotients_are_not(monkeypatch):
    def fma(a, b, c):
        return (a.double() * b.double() + c.double()).float()

    given = SimpleNamespace(fma=fma, floor=torch.floor, where=torch.where)
    monkeypatch.setattr(functions, "tl", given)
    b = torch.tensor([3.0, 0.7, -3.0, -0.7, 1.0, 1.0])
    a = torch.cat([*[n * b[:4] for n in (1, 2, 3, 5)], b[:4] / 2, torch.tensor([-1e-10, 1e-10])])
    b = torch.cat([*[b[:4]] * 5, b[4:]])

    found = functions.remainder.fn(a.as_subclass(OnAGPU), b.as_subclass(OnAGPU))

    torch.testing.assert_close(found.as_subclass(torch.Tensor), torch.remainder(a, b))
