"""Linear cells in parallel over time: what the plain loop computes."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from seqnets import unroll
from seqnets.cells import GatedCell, GRUCell, LRUCell, LSTMCell, NCPCell, QRNNCell
from seqnets.engine import linear_scan, runs, scan
from seqnets.engine.dispatch import BACKENDS
from seqnets.engine.linear import linear_parts
from seqnets.engine.plans import program_of
from seqnets.errors import BackendError
from seqnets.testing import check_backend
from tests.engine.derivatives import second_derivatives
from tests.engine.user_cells import (
    CascadeCell,
    LeakyCell,
    LinearCell,
    MeanCell,
    MinGRUCell,
    SelectiveCell,
    SRUCell,
)

B, T, I, H = 5, 7, 3, 4
LINEAR = [MinGRUCell, LeakyCell, SRUCell, CascadeCell, MeanCell, SelectiveCell, QRNNCell, LRUCell]
DTYPES = (torch.float64, torch.complex128)


@pytest.fixture(autouse=True)
def _known_to_unroll(monkeypatch):
    monkeypatch.setitem(BACKENDS, "scan", scan)


@pytest.fixture(params=["in chunks", "step by step"])
def _way(request, monkeypatch):
    monkeypatch.setattr(linear_scan, "_ENOUGH", 2**30 if request.param == "in chunks" else 0)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("cell_cls", LINEAR)
def test_it_agrees_with_the_reference_and_refuses_nothing(cell_cls):
    before = runs["scan"]

    assert check_backend(cell_cls(3, 5), "scan", steps=(1, 2, 3, 16, 17)) == {}
    assert runs["scan"] > before


def loop(a, b, h, reverse):
    outputs = []
    for a_t, b_t in list(zip(a.unbind(1), b.unbind(1), strict=True))[:: -1 if reverse else 1]:
        h = a_t * h + b_t
        outputs.append(h)
    return torch.stack(outputs[::-1] if reverse else outputs, 1)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("steps", [1, 2, 3, 8, 9, 10, 63, 64, 257])
def test_a_scan_is_the_loop(steps, dtype, reverse):
    a, b = torch.randn(2, B, steps, H, dtype=dtype)
    first = torch.randn(B, H, dtype=dtype)

    found = linear_scan.linear_scan(a, b, first, reverse=reverse)

    torch.testing.assert_close(found, loop(a, b, first, reverse))


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_its_first_and_second_derivatives_are_right(dtype, reverse):
    a, b = torch.randn(2, 2, 5, 3, dtype=dtype).requires_grad_()
    first = torch.randn(2, 3, dtype=dtype, requires_grad=True)

    def function(a, b, first):
        return linear_scan.linear_scan(a, b, first, reverse=reverse)

    assert gradcheck(function, (a, b, first))
    assert gradgradcheck(function, (a, b, first))


def test_what_decays_to_nothing_and_what_is_forgotten_at_once_stay_exact():
    a = torch.full((1, 400, 2), 1e-30)
    a[0, 200] = 0
    b = torch.ones(1, 400, 2)
    first = torch.full((1, 2), 1e30)

    torch.testing.assert_close(
        linear_scan.linear_scan(a, b, first), loop(a, b, first, False), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("cell_cls", LINEAR)
def test_its_gradient_can_be_differentiated_again(cell_cls):
    cell = cell_cls(I, H).double()
    x = torch.randn(B, T, I, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([4, 0, 7, 1, 7])
    resets = torch.rand(B, T) < 0.3
    given = cell, x, lengths, resets
    seconds = [second_derivatives(*given, backend) for backend in ("scan", "reference")]

    torch.testing.assert_close(*seconds)


@pytest.mark.parametrize(("cell_cls", "reverse"), [(MinGRUCell, False), (LRUCell, True)])
def test_several_gradients_may_come_in_at_once(cell_cls, reverse):
    cell, x = cell_cls(I, H).double(), torch.randn(B, T, I).double().requires_grad_()
    y, _ = unroll(cell, x, reverse=reverse, backend="scan")
    grads = torch.randn(3, *y.shape, dtype=torch.float64)

    def gradient(grad, **options):
        return torch.autograd.grad(y, x, grad, retain_graph=True, **options)[0]

    found = gradient(grads, is_grads_batched=True), torch.func.vmap(gradient)(grads)

    each = torch.stack([gradient(grad) for grad in grads])
    torch.testing.assert_close(found, (each, each))


def test_a_part_that_nothing_reads_is_computed_after_the_others():
    carried = linear_parts(program_of(SRUCell(I, H)), SRUCell.states)

    assert [linear.parts for linear in carried] == [(1,)]


def test_a_part_is_scanned_after_those_it_depends_on():
    carried = linear_parts(program_of(CascadeCell(I, H)), CascadeCell.states)

    assert [linear.parts for linear in carried] == [(1,), (0,)]


class CancellingCell(LinearCell):
    """A state that is subtracted from itself, before a function and in a factor."""

    def step(self, wx, state):
        (h,) = state
        return (torch.tanh(wx + h - h) + (0.5 + h - h) * h,)


def test_a_state_that_cancels_out_does_not_count():
    assert check_backend(CancellingCell(3, 4), "scan", steps=(1, 5)) == {}


def test_a_part_that_only_passes_on_is_not_scanned():
    carried = linear_parts(program_of(QRNNCell(I, H)), QRNNCell.states)

    assert {linear.parts: linear.moves for linear in carried} == {
        **{(p,): True for p in (2, 3, 4)},
        (1,): False,
    }


def test_two_parts_that_turn_are_one_number_and_products_of_them_come_after():
    carried = linear_parts(program_of(LRUCell(I, H)), LRUCell.states)

    assert [linear.parts for linear in carried] == [(1, 2)]


def linear_in(states, function):
    class Custom(LinearCell):
        def step(self, wx, state):
            return function(wx, *state)

    Custom.states = states
    return Custom


class Rowwise(LinearCell):
    def step(self, wx, state):
        (h,) = state
        return (wx + h * h.mean(-1, keepdim=True),)


class Random(LinearCell):
    def step(self, wx, state):
        return (state[0] + torch.rand_like(wx),)


TURNS = {
    "by a right angle": lambda wx, h, m: (wx + m, wx - h),
    "by the same number": lambda wx, h, m: (wx / 2 + h + 0.3 * m, m - 0.3 * h),
    "both scaled": lambda wx, h, m: ((h - wx * m) / 2, wx + (wx * h + m) / 2),
    "under a condition": lambda wx, h, m: (
        torch.where(wx > 0, 0.9 * h, h / 3) - torch.sin(wx) * m,
        torch.where(wx > 0, 0.9 * m, m / 3) + torch.sin(wx) * h,
    ),
}


@pytest.mark.parametrize("turn", TURNS)
def test_turns_are_recognised_however_they_are_written(turn):
    cell = linear_in(("h", "m"), TURNS[turn])(I, H)

    assert check_backend(cell, "scan", steps=(1, 6)) == {}


def test_a_turn_needs_complex_numbers():
    cell = LRUCell(I, H, dtype=torch.bfloat16)

    with pytest.raises(BackendError, match=r"complex number, and torch\.bfloat16 has none"):
        unroll(cell, torch.zeros(B, T, I, dtype=torch.bfloat16), backend="scan")


REFUSALS = {
    "an LSTM": (LSTMCell, "a product by weight_hh depends on it"),
    "a GRU": (GRUCell, "a product by weight_hh depends on it"),
    "pairs of units": (NCPCell, "a product by a matrix that is computed depends on it"),
    "a sum": (Rowwise, "a sum over the units of a row depends on it"),
    "a function": (linear_in(("h",), lambda wx, h: (torch.tanh(h) + wx,)), "tanh of 'h'"),
    "a square": (linear_in(("h",), lambda wx, h: (wx + h * h,)), "mul of 'h'"),
    "a quotient": (linear_in(("h",), lambda wx, h: (wx / h,)), "div of 'h'"),
    "a larger one": (linear_in(("h",), lambda wx, h: (torch.maximum(wx, h),)), "maximum of 'h'"),
    "a condition": (
        linear_in(("h",), lambda wx, h: (torch.where(h > 0, wx, h),)),
        "gt of 'h'",
    ),
    "two that mix": (
        linear_in(("h", "m"), lambda wx, h, m: (wx + m, wx + h)),
        "'h' depends on 'm', and that on others",
    ),
    "two that grow apart": (
        linear_in(("h", "m"), lambda wx, h, m: (wx * h + m, wx - h)),
        "'h' depends on 'm', and that on others",
    ),
    "random numbers": (Random, "the step cannot be traced: aten.rand_like"),
}


@pytest.mark.usefixtures("plain_loop")
@pytest.mark.parametrize("case", REFUSALS)
def test_it_says_what_is_not_linear(case):
    cell_cls, reason = REFUSALS[case]

    with pytest.raises(BackendError, match=rf"'scan' refuses: .*{reason}"):
        unroll(cell_cls(I, H), torch.randn(B, T, I), backend="scan")


@pytest.mark.parametrize("shape", [(0, T, I), (B, 0, I)])
def test_it_refuses_nothing_to_do(shape):
    with pytest.raises(BackendError, match="no rows or no steps"):
        unroll(MinGRUCell(I, H), torch.zeros(shape), backend="scan")


def test_it_refuses_to_keep_less_than_it_does():
    with pytest.raises(BackendError, match="can keep no less"):
        unroll(MinGRUCell(I, H), torch.zeros(B, T, I), memory="lean", backend="scan")


def test_it_refuses_mixed_precision_and_function_transforms():
    cell, x = MinGRUCell(I, H), torch.randn(B, T, I)

    with torch.autocast("cpu", torch.bfloat16), pytest.raises(BackendError, match="autocast"):
        unroll(cell, x, backend="scan")
    with pytest.raises(BackendError, match="vmap, forward-mode or functional"):
        torch.func.vmap(lambda row: unroll(cell, row[None], backend="scan")[0])(x)


def test_a_gated_cell_whose_product_is_of_the_input_only_is_linear():
    class Gated(GatedCell):
        gates = ("z", "h")

        def step(self, wx, state):
            (h,) = state
            w, u = self.split(wx), self.recur(self.split(wx).h)
            z = torch.sigmoid(w.z + u.z)
            return (z * h + (1 - z) * u.h,)

    assert check_backend(Gated(I, H), "scan", steps=(1, 9)) == {}
