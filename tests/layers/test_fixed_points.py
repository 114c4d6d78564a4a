"""``fixed_points``: where a state stays as it is, against what theory says of known systems."""

import math
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import Tensor

from seqnets.cells import (
    ALIFCell,
    AllStates,
    Cell,
    CubaLIFCell,
    GRUCell,
    LIFCell,
    LRUCell,
    LSTMCell,
    Mogrifier,
    PhasedLSTMCell,
    QRNNCell,
    RNNCell,
    Zoneout,
    optioned,
)
from seqnets.errors import ConfigError, DtypeError, ShapeError
from seqnets.layers import FixedPoints, fixed_points, watch
from tests.cells.final import ONE_OF_EACH_KIND, sized

H = 3

BISTABLE = 0.9575040240772687
"""Where tanh(2 h) = h."""


class Linear(Cell):
    """A user's cell that is linear: h' = A h + x."""

    def __init__(self, A: Tensor) -> None:
        super().__init__()
        self.input_size = self.hidden_size = len(A)
        self.A = torch.nn.Parameter(A)

    def project(self, x):
        return x

    def step(self, wx, state):
        return (wx + state[0] @ self.A.T,)


def one_unit(w):
    """A network of one unit, h' = tanh(w h + x)."""
    cell = RNNCell(1, 1, bias=False)
    with torch.no_grad():
        cell.weight_hh.fill_(w)
        cell.weight_ih.fill_(1)
    return cell


def visited(cell, x):
    return tuple(part.flatten(0, 1) for part in watch(cell, x).states.values())


def test_a_bistable_unit_has_two_stable_points_and_an_unstable_one_between_them():
    found = fixed_points(one_unit(2.0), torch.zeros(1), (torch.linspace(-1, 1, 9)[:, None],))

    order = found.states[:, 0].argsort()
    assert found.fixed.tolist() == [True] * 3
    assert found.states[order, 0].tolist() == pytest.approx(
        [-0.9575040240772687, 0, 0.9575040240772687]
    )
    slope = 2 * (1 - BISTABLE**2)  # of tanh(2 h)
    assert found.eigenvalues[order, 0].real.tolist() == pytest.approx([slope, 2, slope])


def test_points_are_shown_in_a_line():
    found = fixed_points(one_unit(2.0), torch.zeros(1), (torch.linspace(-1, 1, 9)[:, None],))
    some = found._replace(
        speeds=torch.tensor([0, 1e-5, 0.25]), fixed=torch.tensor([True, False, False])
    )
    none = FixedPoints(*(part[:0] for part in found))

    assert repr(some) == "FixedPoints(3 points of 1 number, 1 fixed, speeds 0 to 0.25)"
    assert repr(none) == "FixedPoints(0 points of 1 number)"


def test_a_unit_that_forgets_has_one_stable_point_that_its_input_moves():
    found = fixed_points(one_unit(0.5), torch.full((1,), 0.75), (torch.rand(4, 1),))

    (h,) = found.states[:, 0].tolist()
    assert h == pytest.approx(math.tanh(0.5 * h + 0.75), abs=1e-12)
    assert abs(found.eigenvalues.item()) < 1


def test_a_linear_cell_has_the_eigenvalues_of_its_matrix_wherever_its_point_is():
    A, x = torch.randn(H, H) / 3, torch.randn(H)

    found = fixed_points(Linear(A), x, (torch.randn(8, H),))

    A, x = A.double(), x.double()
    expected = torch.linalg.eigvals(A)
    torch.testing.assert_close(found.states, torch.linalg.solve(torch.eye(H) - A, x)[None])
    torch.testing.assert_close(found.jacobians, A[None])
    torch.testing.assert_close(
        found.eigenvalues[0], expected[expected.abs().argsort(descending=True, stable=True)]
    )


def test_a_rotation_has_a_marginal_pair_that_turns_as_it_does():
    turn = 0.3
    A = torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])

    found = fixed_points(Linear(A), torch.zeros(2), (torch.randn(5, 2),))

    (pair,) = found.eigenvalues
    torch.testing.assert_close(found.states, torch.zeros(1, 2).double(), atol=1e-8, rtol=0)
    assert pair.abs().tolist() == pytest.approx([1, 1], abs=1e-6)
    assert sorted(pair.angle().tolist()) == pytest.approx([-turn, turn], abs=1e-6)


def test_a_memory_that_is_a_line_is_found_as_points_on_it_that_are_apart():
    A = torch.diag(torch.tensor([1.0, 0.5]))
    starts = torch.stack([torch.linspace(-2, 2, 50), torch.ones(50)], 1)

    found = fixed_points(Linear(A), torch.zeros(2), (starts,), apart=0.2, most=10)

    line = found.states
    assert 5 <= len(line) <= 10
    assert found.fixed.all()
    assert line[:, 1].abs().max() < 1e-5
    assert torch.pdist(line).min() > 0.2
    assert found.eigenvalues.real[:, 0].tolist() == pytest.approx([1] * len(line))


def test_where_a_state_moves_slowly_is_kept_and_said_not_to_be_fixed():
    # just beyond the fold at which the two points of h' = tanh(2 h + x) meet
    x = torch.full((1,), 0.535)

    cell, starts = one_unit(2.0), (torch.linspace(-1, 1, 9)[:, None],)
    found = fixed_points(cell, x, starts)

    assert found.fixed.tolist() == [True, False]
    assert found.states[:, 0].tolist() == pytest.approx([0.98, -0.70], abs=0.05)
    assert fixed_points(
        one_unit(2.0), x, (torch.linspace(-1, 1, 9)[:, None],), slowest=0
    ).fixed.all()


@pytest.mark.parametrize("cell_cls", [GRUCell, LSTMCell])
def test_a_step_from_a_fixed_point_leads_to_it_and_around_it_as_the_jacobian_says(cell_cls):
    cell, x = cell_cls(2, H, dtype=torch.float64), torch.randn(4, 6, 2, dtype=torch.float64)

    found = fixed_points(cell, x[0, 0], visited(cell, x))

    s = found.states[:1]
    near = s + 1e-6 * torch.randn_like(s)
    states = [tuple(each.split(cell.state_sizes, -1)) for each in (s, near)]
    after = [torch.cat(cell(x[:1, 0], state)[1], -1) for state in states]
    torch.testing.assert_close(after[0], s)
    torch.testing.assert_close(
        after[1] - s, (near - s) @ found.jacobians[0].T, atol=1e-10, rtol=1e-4
    )


@pytest.mark.parametrize("cell_cls", ONE_OF_EACH_KIND)
def test_every_kind_of_cell_has_points_or_says_why_not(cell_cls):
    cell = sized(cell_cls, 2, 4).eval()
    x = torch.randn(3, 4, cell.input_size)
    before = [parameter.clone() for parameter in cell.parameters()]
    counts = any(name in ("t", "phase") for name in cell.clocks)
    with pytest.raises(ConfigError, match="counts time") if counts else nullcontext():
        found = fixed_points(cell, x[0, 0], visited(cell, x), steps=20)

        size = sum(cell.state_sizes[int(cell.output_only) :])
        assert found.states.shape[1] == size
        assert found.eigenvalues.shape == (len(found.states), size)
    assert all(torch.equal(a, b) for a, b in zip(before, cell.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in cell.parameters())


def test_a_recurrence_of_complex_numbers_turns_and_fades_as_its_parameters_say():
    cell = LRUCell(2, H)
    x = torch.randn(3, 4, 2)

    found = fixed_points(cell, x[0, 0], visited(cell, x))

    radius, angle = torch.exp(-torch.exp(cell.nu.double())), torch.exp(cell.theta.double())
    expected = torch.polar(radius, angle)
    for each in torch.cat([expected, expected.conj()]):
        assert (found.eigenvalues[0] - each).abs().min() < 1e-6


@pytest.mark.parametrize(
    ("cell_cls", "decays"),
    [
        (LIFCell, [0.9]),
        (partial(LIFCell, detach_reset=True), [0.9]),
        (CubaLIFCell, [0.9, 0.8]),
        (ALIFCell, [math.exp(-1 / 200), math.exp(-1 / 20)]),
    ],
)
def test_neurons_at_rest_forget_as_they_decay_whatever_their_surrogate(cell_cls, decays):
    cell = cell_cls(2, H)
    starts = tuple(torch.zeros(2, size) for size in cell.state_sizes)

    found = fixed_points(cell, torch.full((2,), 0.01), starts)

    expected = torch.tensor(decays, dtype=torch.float64).repeat_interleave(H)
    assert found.fixed[0]
    torch.testing.assert_close(found.eigenvalues[0].abs()[: len(expected)], expected)
    assert found.eigenvalues[0].abs()[len(expected) :].max() < 1e-3


class Rounded(Linear):
    """Moves on a grid, with gradients as if there were none."""

    def step(self, wx, state):
        (h,) = super().step(wx, state)
        return (h + (h.round() - h).detach(),)


def test_the_jacobian_is_that_of_the_step_where_gradients_are_made_up():
    found = fixed_points(Rounded(0.5 * torch.eye(2)), torch.zeros(2), (torch.zeros(1, 2),))

    assert found.fixed.all()
    assert found.jacobians.count_nonzero() == 0


def test_at_a_kink_the_jacobian_is_the_gradient():
    cell = RNNCell(1, 1, bias=False, nonlinearity="relu")
    found = fixed_points(cell, torch.zeros(1), (torch.zeros(1, 1),))

    assert found.jacobians.count_nonzero() == 0


def test_a_state_that_no_step_reads_is_left_out():
    cell, x = AllStates(LSTMCell(2, H)), torch.randn(2, 4, 2)

    assert fixed_points(cell, x[0, 0], visited(cell, x), steps=5).states.shape[1] == 2 * H


@pytest.mark.parametrize(
    "option", [partial(Mogrifier, rounds=2), lambda cell: Zoneout(cell, 0.4).eval()]
)
def test_an_output_that_an_option_reads_is_part_of_a_point(option):
    cell, x = option(LRUCell(2, H, r_max=0.9)), torch.randn(2, 20, 2)

    found = fixed_points(cell, x[0, 0], visited(cell, x))

    state = tuple(found.states[:1].float().split(cell.state_sizes, -1))
    torch.testing.assert_close(cell(x[:1, 0], state)[1], state, atol=1e-5, rtol=1e-5)


def test_what_is_kept_of_the_last_inputs_is_no_clock():
    cell, x = QRNNCell(2, H), torch.randn(2, 4, 2)

    assert fixed_points(cell, x[0, 0], visited(cell, x)).fixed.any()


def test_it_works_where_no_gradients_are_kept():
    starts = (torch.rand(4, 1),)
    with torch.inference_mode():
        found = fixed_points(one_unit(0.5), torch.zeros(1), (torch.rand(4, 1),))

    torch.testing.assert_close(
        found.states, fixed_points(one_unit(0.5), torch.zeros(1), starts).states
    )


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (partial(PhasedLSTMCell, 2, H), "PhasedLSTMCell counts time in its state t"),
        (partial(optioned, 2, H, cell=GRUCell, options=[Zoneout]), "is random"),
    ],
)
def test_a_step_that_differs_from_time_to_time_is_refused(make, told):
    cell = make()
    starts = tuple(torch.randn(3, size) for size in cell.state_sizes)

    with pytest.raises(ConfigError, match=told):
        fixed_points(cell, torch.zeros(2), starts)


def test_arguments_of_other_shapes_are_refused():
    cell = GRUCell(2, H)

    with pytest.raises(ShapeError, match=r"x is \(1, 2\), expected \(I,\) = \(2,\)"):
        fixed_points(cell, torch.zeros(1, 2), (torch.zeros(3, H),))
    with pytest.raises(ShapeError, match=r"state 'h' has shape \(3, 2\)"):
        fixed_points(cell, torch.zeros(2), (torch.zeros(3, 2),))
    with pytest.raises(ShapeError, match="no starts"):
        fixed_points(cell, torch.zeros(2), (torch.zeros(0, H),))


def test_numbers_that_are_not_finite_are_refused_by_their_name():
    cell, starts = GRUCell(2, H), (torch.randn(3, H),)

    with pytest.raises(DtypeError, match=r"x is torch\.int64, expected a floating-point tensor"):
        fixed_points(cell, torch.ones(2, dtype=torch.long), starts)
    with pytest.raises(ConfigError, match="x is not finite"):
        fixed_points(cell, torch.tensor([0, math.inf]), starts)
    torch.nn.init.constant_(cell.weight_hh, math.nan)
    with pytest.raises(ConfigError, match="the step of GRUCell leads from all starts to numbers"):
        fixed_points(cell, torch.zeros(2), starts)


def test_starts_from_which_no_finite_step_leads_do_not_count():
    class Root(Linear):
        def step(self, wx, state):
            return (wx + state[0].sqrt(),)

    starts = torch.tensor([[-1.0], [0.5], [2.0]])

    found = fixed_points(Root(torch.eye(1)), torch.zeros(1), (starts,))

    assert found.fixed.all()
    assert (found.states[:, 0] - 1).abs().min() < 1e-6
