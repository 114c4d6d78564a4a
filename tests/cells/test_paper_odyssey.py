"""The variants of the LSTM's search space against their definitions, in plain floats."""

import math

import pytest
import torch

from seqnets.cells import (
    CIFGLSTMCell,
    FGRLSTMCell,
    NFGLSTMCell,
    NIAFLSTMCell,
    NIGLSTMCell,
    NOAFLSTMCell,
    NOGLSTMCell,
    PeepholeLSTMCell,
)
from seqnets.errors import ConfigError
from seqnets.testing import one_unit, step
from seqnets.testing.laws import perturb

from .plain import after, numbers, sigmoid, times, total

W = {"i": 0.5, "f": -0.3, "g": 0.8, "o": 0.9}
U = {"i": 0.7, "f": 0.2, "g": -0.6, "o": 0.4}
B = {"i": 0.1, "f": -0.4, "g": 0.3, "o": 0.6}
D = {"i": 0.05, "f": 0.4, "g": -0.2, "o": -0.1}
P = {"i": 0.35, "f": -0.25, "o": 0.65}
FED = {
    "weight_i": (0.15, -0.45, 0.75),
    "weight_f": (0.33, 0.22, -0.11),
    "weight_o": (0.9, 0.6, -0.8),
}


def parameters(gates):
    """Those of some gates: each with a peephole, but the candidate's."""
    tables = {"w": W, "u": U, "b": B, "d": D}
    peepholes = {f"p_{k}": P[k] for k in gates if k != "g"}
    return {name: [table[k] for k in gates] for name, table in tables.items()} | peepholes


def opened(k, x, h, c, more=0.0):
    return sigmoid(W[k] * x + B[k] + U[k] * h + D[k] + P[k] * c + more)


def proposed(x, h):
    return W["g"] * x + B["g"] + U["g"] * h + D["g"]


def holds(cell, equation):
    """Two steps of a cell with one unit are those of an equation."""
    h, c = -1.5, 0.9
    for x in (2.0, -0.7):
        expected = equation(x, h, c)
        assert step(cell, x, h, c) == pytest.approx(expected, abs=1e-12)
        h, c = expected


def test_nig_has_no_input_gate():
    def equation(x, h, c):
        new = opened("f", x, h, c) * c + math.tanh(proposed(x, h))
        return opened("o", x, h, new) * math.tanh(new), new

    holds(one_unit(NIGLSTMCell, **parameters("fgo")), equation)


def test_nfg_has_no_forget_gate():
    def equation(x, h, c):
        new = c + opened("i", x, h, c) * math.tanh(proposed(x, h))
        return opened("o", x, h, new) * math.tanh(new), new

    holds(one_unit(NFGLSTMCell, **parameters("igo")), equation)


def test_nog_has_no_output_gate():
    def equation(x, h, c):
        new = opened("f", x, h, c) * c + opened("i", x, h, c) * math.tanh(proposed(x, h))
        return math.tanh(new), new

    holds(one_unit(NOGLSTMCell, **parameters("ifg")), equation)


def test_niaf_does_not_squash_its_candidate():
    def equation(x, h, c):
        new = opened("f", x, h, c) * c + opened("i", x, h, c) * proposed(x, h)
        return opened("o", x, h, new) * math.tanh(new), new

    holds(one_unit(NIAFLSTMCell, **parameters("ifgo")), equation)


def test_noaf_does_not_squash_its_output():
    def equation(x, h, c):
        new = opened("f", x, h, c) * c + opened("i", x, h, c) * math.tanh(proposed(x, h))
        return opened("o", x, h, new) * new, new

    holds(one_unit(NOAFLSTMCell, **parameters("ifgo")), equation)


def test_cifg_forgets_what_it_writes_over():
    def equation(x, h, c):
        i = opened("i", x, h, c)
        new = (1 - i) * c + i * math.tanh(proposed(x, h))
        return opened("o", x, h, new) * math.tanh(new), new

    holds(one_unit(CIFGLSTMCell, **parameters("igo")), equation)


def test_fgr_feeds_every_gate_to_every_gate():
    cell = one_unit(FGRLSTMCell, **parameters("ifgo"), **FED)
    state = (-1.5, 0.9, 0.2, 0.6, 0.7)

    for x in (2.0, -0.7):
        h, c, *gates = state
        fed = [
            sum(FED[name][k] * gate for name, gate in zip(FED, gates, strict=True))
            for k in range(3)
        ]
        i, f = opened("i", x, h, c, fed[0]), opened("f", x, h, c, fed[1])
        new = f * c + i * math.tanh(proposed(x, h))
        o = opened("o", x, h, new, fed[2])
        expected = o * math.tanh(new), new, i, f, o

        assert step(cell, x, *state) == pytest.approx(expected, abs=1e-12)
        state = expected


def test_fgr_mixes_units_from_gate_to_gate():
    cell = FGRLSTMCell(1, 2, dtype=torch.float64)
    perturb(cell)
    matrix = numbers(cell)
    state = [0.3, -0.8], [1.0, -0.5], [0.2, 0.9], [0.6, 0.1], [0.7, 0.4]
    x, (h, c, *gates) = [1.3], state

    def before(k, row, memory):
        """What gate k squashes: its place among i, f, g, o, and among i, f, o."""
        fed = total(*(times(matrix[name], v) for name, v in zip(FED, gates, strict=True)))
        w, u = times(matrix["weight_ih"], x), times(matrix["weight_hh"], h)
        biases = [matrix["bias_ih"][j] + matrix["bias_hh"][j] for j in range(8)]
        peephole = matrix[f"p_{'ifo'[row]}"]
        more = fed[2 * row : 2 * row + 2]
        return [
            w[2 * k + j] + u[2 * k + j] + biases[2 * k + j] + peephole[j] * memory[j] + more[j]
            for j in range(2)
        ]

    h_after, c_after, i, f, o = after(cell, x, *state)
    assert i == pytest.approx([sigmoid(a) for a in before(0, 0, c)], abs=1e-12)
    assert f == pytest.approx([sigmoid(a) for a in before(1, 1, c)], abs=1e-12)
    assert o == pytest.approx([sigmoid(a) for a in before(3, 2, c_after)], abs=1e-12)
    assert h_after == pytest.approx([o[j] * math.tanh(c_after[j]) for j in range(2)], abs=1e-12)


def test_fgr_without_gate_recurrence_is_vanilla():
    cell, vanilla = FGRLSTMCell(3, 4), PeepholeLSTMCell(3, 4)
    perturb(cell)
    for gate in "ifo":
        torch.nn.init.zeros_(getattr(cell, f"weight_{gate}"))
    vanilla.load_state_dict(cell.state_dict(), strict=False)
    x, state = torch.randn(2, 3), tuple(torch.randn(5, 2, 4).unbind())

    torch.testing.assert_close(cell(x, state)[1][:2], vanilla(x, state[:2])[1])


@pytest.mark.parametrize(
    ("cell_cls", "count"),
    [
        (NIGLSTMCell, 3 * (12 + 16 + 8) + 2 * 4),
        (NFGLSTMCell, 3 * (12 + 16 + 8) + 2 * 4),
        (NOGLSTMCell, 3 * (12 + 16 + 8) + 2 * 4),
        (CIFGLSTMCell, 3 * (12 + 16 + 8) + 2 * 4),
        (FGRLSTMCell, 4 * (12 + 16 + 8) + 3 * 4 + 9 * 16),
    ],
)
def test_a_variant_has_no_parameters_for_what_it_lacks(cell_cls, count):
    assert sum(p.numel() for p in cell_cls(3, 4).parameters()) == count


def test_full_gate_recurrence_does_not_project():
    with pytest.raises(ConfigError, match="FGRLSTMCell: proj_size is 2, expected 0"):
        FGRLSTMCell(3, 4, proj_size=2)
