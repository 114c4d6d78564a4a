"""LSTMs with exponential gates against their papers, in plain floats."""

import copy
import math
import pickle
from functools import partial

import pytest
import torch

from seqnets import unroll
from seqnets.cells import SLSTMCell
from seqnets.errors import ConfigError
from seqnets.testing import check_backend, check_cell, one_unit, step

from .plain import sigmoid

FOUR = {
    "w": (0.5, -0.3, 0.8, 0.9),
    "u": (0.7, 0.2, -0.6, 0.4),
    "b": (0.1, -0.4, 0.3, 0.6),
    "d": (0.05, 0.4, -0.2, -0.1),
}


def gates(x, h):
    """What the gates i, f, g, o squash."""
    return [w * x + b + u * h + d for w, u, b, d in zip(*FOUR.values(), strict=True)]


@pytest.mark.parametrize(("forget", "opened"), [("sigmoid", sigmoid), ("exp", math.exp)])
def test_slstm_follows_its_paper(forget, opened):
    cell = one_unit(SLSTMCell, **FOUR)
    cell.forget = forget
    state = (-1.5, 0.9, 1.7, 0.3)

    for x in (2.0, -0.7, 0.4):
        h, c, n, m = state
        i, f, g, o = gates(x, h)
        log_f = math.log(opened(f))
        m_after = max(log_f + m, i)
        kept, written = math.exp(log_f + m - m_after), math.exp(i - m_after)
        c, n = kept * c + written * math.tanh(g), kept * n + written
        expected = sigmoid(o) * c / n, c, n, m_after

        assert step(cell, x, *state) == pytest.approx(expected, abs=1e-12)
        state = expected


@pytest.mark.parametrize(("forget", "opened"), [("sigmoid", sigmoid), ("exp", math.exp)])
def test_slstm_computes_the_same_as_without_its_stabiliser(forget, opened):
    cell = one_unit(SLSTMCell, **FOUR)
    cell.forget = forget
    h, c, n = 0.0, 0.0, 0.0
    state = (0.0, 0.0, 0.0, 0.0)

    for x in (2.0, -0.7, 0.4, 1.1):
        i, f, g, o = gates(x, h)
        c, n = opened(f) * c + math.exp(i) * math.tanh(g), opened(f) * n + math.exp(i)
        h = sigmoid(o) * c / n
        state = step(cell, x, *state)

        assert state[0] == pytest.approx(h, abs=1e-12)
        assert state[1] * math.exp(state[3]) == pytest.approx(c, abs=1e-12)
        assert state[2] * math.exp(state[3]) == pytest.approx(n, abs=1e-12)


@pytest.mark.parametrize("n", [-1.0, 1e-30, 0.4])
def test_slstm_divides_by_no_less_than_one(n):
    cell = one_unit(SLSTMCell, **FOUR)
    o = gates(-9.0, 0.2)[3]

    h, c, _, _ = step(cell, -9.0, 0.2, 0.9, n, 20.0)

    assert h == pytest.approx(sigmoid(o) * c, abs=1e-12)


@pytest.mark.parametrize("bias", [-300.0, 300.0])
@pytest.mark.parametrize("forget", ["sigmoid", "exp"])
def test_slstm_neither_overflows_nor_divides_by_zero(bias, forget):
    cell = SLSTMCell(3, 4, forget=forget)
    torch.nn.init.constant_(cell.split(cell.bias_ih.data).i, bias)
    x = torch.randn(2, 50, 3, requires_grad=True)

    y, state = unroll(cell, x)
    y.sum().backward()

    assert y.abs().max() <= 1
    assert all(torch.isfinite(part).all() for part in (*state, x.grad, cell.weight_hh.grad))


def test_heads_recur_apart():
    cell = SLSTMCell(3, 6, num_heads=3)
    blocks = cell.parametrizations.weight_hh.original

    assert blocks.shape == (24, 2)
    for k, gate in enumerate(cell.weight_hh.chunk(4)):
        parts = blocks[6 * k : 6 * k + 6].view(3, 2, 2)
        torch.testing.assert_close(gate, torch.block_diag(*parts))
        torch.testing.assert_close(gate @ gate.T, torch.eye(6))


def test_a_full_matrix_loaded_into_heads_keeps_its_diagonal_blocks():
    cell = SLSTMCell(3, 6, num_heads=3)
    weight = torch.randn(24, 6)

    cell.weight_hh = weight

    expected = [
        torch.block_diag(*[g[i : i + 2, i : i + 2] for i in (0, 2, 4)]) for g in weight.chunk(4)
    ]
    torch.testing.assert_close(cell.weight_hh, torch.cat(expected))


@pytest.mark.parametrize("options", [{"num_heads": 2}, {"forget": "exp"}])
def test_slstm_with_options_obeys_the_laws_and_runs_compiled(options):
    check_cell(partial(SLSTMCell, hidden_size=4, **options))
    check_backend(SLSTMCell(3, 6, **options), "eager", steps=(1, 5))


def test_heads_can_be_pickled():
    cell = SLSTMCell(3, 4, num_heads=2)
    x = torch.randn(2, 5, 3)

    torch.testing.assert_close(unroll(pickle.loads(pickle.dumps(cell)), x), unroll(cell, x))


def test_heads_can_be_copied_and_reset():
    cell = SLSTMCell(3, 4, num_heads=2)
    before = copy.deepcopy(cell)

    cell.reset_parameters()

    assert not torch.equal(cell.weight_hh, before.weight_hh)
    assert torch.equal(cell.weight_hh == 0, before.weight_hh == 0)
    assert not cell.bias_hh.any()


@pytest.mark.parametrize("heads", [3, 5])
def test_heads_that_do_not_divide_the_units_are_refused(heads):
    with pytest.raises(ConfigError, match=f"num_heads is {heads}, expected a divisor of hidden_si"):
        SLSTMCell(3, 4, num_heads=heads)


def test_an_unknown_forget_gate_is_refused():
    with pytest.raises(ConfigError, match="forget is 'relu', expected one of sigmoid, exp"):
        SLSTMCell(3, 4, forget="relu")


def test_slstm_does_not_project():
    with pytest.raises(ConfigError, match="SLSTMCell: proj_size is 2, expected 0"):
        SLSTMCell(3, 4, proj_size=2)
