"""The scan as kernels, in Triton's interpreter or on a GPU: what the plain loop computes."""

from functools import partial
from itertools import product

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from seqnets.cells import LRUCell
from seqnets.engine import linear_scan
from seqnets.engine.triton import access, tiles
from seqnets.engine.triton import scan as kernels
from seqnets.testing import check_backend
from tests.engine.test_scan import loop
from tests.slow import mostly_slow

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
EXACT = {torch.float32: torch.float64, torch.complex64: torch.complex128}
GRID = [*product((1, 2, 63, 257, 1000), EXACT, (False, True))]
QUICK = [
    (steps, dtype, reverse)
    for steps, dtype, reverse in GRID
    if steps <= 2 or (steps == 257 and dtype.is_complex == reverse)
]


@pytest.fixture(params=["whole", "in pieces"])
def _way(request, monkeypatch):
    """Time whole, or in pieces: more of them than a tile has steps, each of more than one tile."""
    monkeypatch.setattr(tiles, "_FULL", 0 if request.param == "whole" else 2**30)
    if access.interpreted():
        monkeypatch.setattr(tiles, "_ENOUGH", 16)


@pytest.fixture(autouse=True)
def interpreter(monkeypatch, quick_scans):
    """Small tiles."""
    if access.interpreted():
        monkeypatch.setattr(kernels, "_NUMBERS", 128)


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch):
    """Memory that nobody has written holds NaN, also as whole numbers that stand for complex."""

    def empty(*args, make=torch.empty, **kwargs):
        tensor = make(*args, **kwargs)
        return tensor.fill_(-1 if tensor.dtype == torch.int64 else float("nan"))

    monkeypatch.setattr(torch, "empty", empty)


@pytest.fixture
def asked(monkeypatch):
    """``linear_scan`` takes the kernels on any device, and counts that it did."""
    counts = {"forward": 0, "backward": 0}

    class Counting:
        def __getattr__(self, name):
            counts[name] += 1
            return getattr(kernels, name)

    found = Counting()
    monkeypatch.setattr(linear_scan, "_kernels", lambda like: found)
    return counts


def numbers(B, T, H, dtype):
    """Factors around 1, what is added, the first h, and a gradient of every h."""
    made = partial(torch.randn, dtype=dtype, device=DEVICE)
    a, b, grad = made(3, B, T, H)
    return a / a.abs().clamp(min=0.8), b, made(B, H), grad


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize(("steps", "dtype", "reverse"), mostly_slow(GRID, QUICK))
def test_kernels_are_the_loop_and_its_gradients(steps, dtype, reverse):
    a, b, first, grad = numbers(1 if steps > 100 else 3, steps, 5, dtype)
    exact = [tensor.to(EXACT[dtype]).requires_grad_() for tensor in (a, b, first)]
    expected = loop(*exact, reverse)

    h = kernels.forward(a, b, first, reverse)
    found = kernels.backward(a, h, first, grad, reverse)

    close = partial(torch.testing.assert_close, rtol=1e-4, atol=2e-4)
    close(h, expected.to(dtype))
    gradients = torch.autograd.grad(expected, exact, grad.to(EXACT[dtype]))
    close(found, tuple(gradient.to(dtype) for gradient in gradients))


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize(("B", "H"), [(1, 1), (3, 17), pytest.param(2, 70, marks=pytest.mark.slow)])
def test_rows_and_units_may_be_any(B, H, dtype):
    a, b, first, grad = numbers(B, 9, H, dtype)

    h = kernels.forward(a, b, first, False)
    _, grad_b, grad_first = kernels.backward(a, h, first, grad, False)

    torch.testing.assert_close(h, loop(a, b, first, False), rtol=1e-4, atol=1e-5)
    remains = torch.cat([a[:, 1:], torch.zeros_like(a[:, :1])], 1).conj()
    total = loop(remains, grad, torch.zeros_like(first), True)
    torch.testing.assert_close(grad_b, total, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(grad_first, a[:, 0].conj() * total[:, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("dtype", EXACT)
def test_layouts_may_be_any(dtype):
    a, b, first, grad = numbers(3, 40, 5, dtype)
    whole = a[:1, :1].conj()
    a, b_there = whole.expand_as(b), b.transpose(0, 1).contiguous().transpose(0, 1)
    first_there = first.mT.contiguous().mT
    grad = grad[:, :1, :1].expand_as(b)

    h = kernels.forward(a, b_there, first_there, True)
    found = kernels.backward(a, h, first_there, grad, True)

    torch.testing.assert_close(h, loop(a, b, first, True), rtol=1e-4, atol=1e-4)
    plain = [t.resolve_conj().contiguous() for t in (a, h, first, grad)]
    torch.testing.assert_close(found, kernels.backward(*plain, True), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_only_what_is_stored(dtype):
    a, b, first, grad = (n.to(dtype) for n in numbers(2, 40, 5, torch.float32))
    wide = [n.float() for n in (a, b, first)]

    h = kernels.forward(a, b, first, False)
    found = kernels.backward(a, h, first, grad, False)

    torch.testing.assert_close(h, loop(*wide, False).to(dtype))
    expected = kernels.backward(wide[0], h.float(), wide[2], grad.float(), False)
    torch.testing.assert_close(found, tuple(n.to(dtype) for n in expected))


@pytest.mark.usefixtures("_way")
def test_what_decays_to_nothing_and_what_is_forgotten_at_once_stay_exact():
    a = torch.full((1, 400, 2), 1e-30, device=DEVICE)
    a[0, 200] = 0
    b = torch.ones_like(a)
    first = torch.full((1, 2), 1e30, device=DEVICE)

    found = kernels.forward(a, b, first, False)

    torch.testing.assert_close(found, loop(a, b, first, False), rtol=1e-6, atol=0)


@pytest.mark.usefixtures("_way")
def test_the_same_numbers_give_the_same_bits():
    a, b, first, grad = numbers(2, 100, 5, torch.float32)

    once, again = (
        (h := kernels.forward(a, b, first, False), *kernels.backward(a, h, first, grad, False))
        for _ in range(2)
    )

    assert all(map(torch.equal, once, again))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", EXACT)
def test_second_derivatives_are_right(dtype, reverse, asked):
    a, b, first, grad = numbers(2, 20, 3, dtype)
    given = [tensor.requires_grad_() for tensor in (a, b, first)]
    exact = [tensor.detach().to(EXACT[dtype]).requires_grad_() for tensor in given]

    def second(h, wanted):
        ones = grad.to(h.dtype)
        found = torch.autograd.grad(h, wanted, ones, create_graph=True)
        norm = sum((g.abs() ** 2).sum() for g in found)
        return torch.autograd.grad(norm, wanted)

    found = second(linear_scan.linear_scan(*given, reverse=reverse), given)

    expected = tuple(g.to(dtype) for g in second(loop(*exact, reverse), exact))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert all(asked.values())


def test_a_cell_of_complex_numbers_runs_through_the_kernels(asked):
    cell = LRUCell(3, 5).to(DEVICE)

    assert check_backend(cell, "scan", steps=(5,), dtypes=[torch.float32]) == {}
    assert all(asked.values())
