"""Spiking neurons against their papers in plain floats, and the derivatives of spikes."""

import math
import pickle
from functools import partial
from itertools import product

import pytest
import torch

from seqnets import unroll
from seqnets.cells import ALIFCell, CubaLIFCell, LICell, LIFCell, RLIFCell
from seqnets.cells.surrogates import SURROGATES, fast_sigmoid
from seqnets.errors import ConfigError, DtypeError
from seqnets.testing import check_backend, one_unit, step

XS = (3.0, 2.2, -0.7, 1.9, 2.5, 2.5, -3.0, 4.0)
INPUT = {"w": (0.5,), "b": (0.1,)}
RECURRENT = {**INPUT, "u": (0.7,), "d": (-0.3,)}
PLAIN = {
    "fast_sigmoid": lambda v: 1 / (10 * abs(v) + 1) ** 2,
    "arctan": lambda v: 1 / (1 + (math.pi * v) ** 2),
    "triangle": lambda v: 0.3 * max(0.0, 1 - abs(v)),
    "boxcar": lambda v: 1.0 if -0.5 <= v <= 0.5 else 0.0,
}
CELLS = (LIFCell, RLIFCell, CubaLIFCell, ALIFCell)


def near(numbers):
    return pytest.approx(numbers, abs=1e-12)


def spike(above):
    return 1.0 if above > 0 else 0.0


def follows(cell, rule, *state):
    """Check steps of a cell with one neuron, which fires in some of them and not in others."""
    fired = []
    for x in XS:
        expected = rule(x, *state)

        assert step(cell, x, *state) == near(expected)
        state = expected
        fired.append(state[0])
    assert set(fired) == {0.0, 1.0}


def test_a_leaky_integrator_follows_its_paper():
    cell = one_unit(LICell, **INPUT)

    assert step(cell, 3.0, 0.4) == near(0.9 * 0.4 + 0.5 * 3.0 + 0.1)


def test_a_leaky_integrator_forgets_at_its_own_rate():
    cell = one_unit(partial(LICell, decay_v=0.8), **INPUT)

    assert step(cell, 3.0, 0.4) == near(0.8 * 0.4 + 0.5 * 3.0 + 0.1)


def test_lif_follows_its_paper():
    def rule(x, s, v):
        v = 0.9 * v + 0.5 * x + 0.1 - s
        return spike(v - 1), v

    follows(one_unit(LIFCell, **INPUT), rule, 0.0, 0.4)


@pytest.mark.parametrize("theta", [0.7, 1.6])
def test_a_spike_takes_the_threshold_off_the_potential(theta):
    def rule(x, s, v):
        v = 0.8 * v + 0.5 * x + 0.1 - theta * s
        return spike(v - theta), v

    follows(one_unit(partial(LIFCell, decay_v=0.8, threshold=theta), **INPUT), rule, 1.0, 0.4)


def test_a_spike_sets_the_potential_to_zero_if_asked_to():
    def rule(x, s, v):
        v = (0.0 if s else 0.9 * v) + 0.5 * x + 0.1
        return spike(v - 1), v

    follows(one_unit(partial(LIFCell, reset="zero"), **INPUT), rule, 1.0, 0.4)


def test_a_spike_leaves_the_potential_as_it_is_if_asked_to():
    def rule(x, s, v):
        v = 0.9 * v + 0.5 * x + 0.1
        return spike(v - 1), v

    follows(one_unit(partial(LIFCell, reset="none"), **INPUT), rule, 1.0, -2.0)


def test_recurrent_lif_follows_its_paper():
    def rule(x, s, v):
        v = 0.9 * v + 0.5 * x + 0.1 + 0.7 * s - 0.3 - s
        return spike(v - 1), v

    follows(one_unit(RLIFCell, **RECURRENT), rule, 1.0, 0.4)


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
def test_lif_with_synapses_follows_its_paper(reset):
    def rule(x, s, v, i):
        v, i = 0.9 * v + i, 0.6 * i + 0.5 * x + 0.1 + 0.7 * s - 0.3
        v -= {"subtract": s, "zero": 0.9 * before * s, "none": 0}[reset]
        return spike(v - 1), v, i

    cell = one_unit(partial(CubaLIFCell, decay_i=0.6, reset=reset), **RECURRENT)
    state = (1.0, 0.4, -0.2)
    for x in XS:
        before = state[1]
        expected = rule(x, *state)

        assert step(cell, x, *state) == near(expected)
        state = expected


def test_lif_with_synapses_fires_one_step_late():
    cell = one_unit(CubaLIFCell, w=(2.0,), u=(0.0,))
    x = torch.tensor([[[1.0], [0.0], [0.0]]], dtype=torch.float64)

    y, _ = unroll(cell, x, backend="reference")

    assert y.flatten().tolist() == [0.0, 1.0, 1.0]


def test_alif_follows_its_paper():
    alpha, rho = math.exp(-1 / 20), math.exp(-1 / 200)

    def rule(x, s, v, a):
        v = alpha * v + (1 - alpha) * (0.5 * x + 0.1 + 0.7 * s - 0.3) - (0.01 + 1.8 * a) * s
        a = rho * a + (1 - rho) * s
        return spike(v - (0.01 + 1.8 * a)), v, a

    follows(one_unit(ALIFCell, **RECURRENT), rule, 1.0, 0.02, 0.005)


def test_alif_adapts_by_the_numbers_given():
    numbers = {"decay_v": 0.7, "decay_a": 0.9, "beta": 0.6, "threshold": 0.3}

    def rule(x, s, v, a):
        v = 0.7 * v + 0.3 * (0.5 * x + 0.1 + 0.7 * s - 0.3) - (0.3 + 0.6 * a) * s
        a = 0.9 * a + 0.1 * s
        return spike(v - (0.3 + 0.6 * a)), v, a

    follows(one_unit(partial(ALIFCell, **numbers), **RECURRENT), rule, 1.0, 0.2, 0.4)


@pytest.mark.usefixtures("plain_loop")
@pytest.mark.parametrize("cell_cls", CELLS)
def test_potentials_stay_bounded_over_long_sequences(cell_cls):
    _, (_, v, *_) = unroll(cell_cls(3, 100), torch.randn(2, 600, 3))

    assert v.abs().max() < 1000


@pytest.mark.parametrize("name", SURROGATES)
def test_the_derivative_of_a_spike_is_its_surrogate(name):
    above = torch.linspace(-1.9, 1.9, 77, dtype=torch.float64, requires_grad=True)
    spikes = LIFCell(1, 1, surrogate=name).spike(above)
    (slopes,) = torch.autograd.grad(spikes.sum(), above)

    assert spikes.tolist() == [spike(a) for a in above.tolist()]
    assert slopes.tolist() == near([PLAIN[name](a) for a in above.tolist()])


@pytest.mark.parametrize("backend", ["reference", "c"])
@pytest.mark.parametrize("cell_cls", CELLS)
def test_potentials_near_the_largest_number_fire_as_others_do(cell_cls, backend):
    cell = cell_cls(1, 2)
    with torch.no_grad():
        cell.weight_ih.copy_(torch.tensor([[1.0], [-1.0]]))
    x = torch.full((1, 4, 1), 3e38)

    y, _ = unroll(cell, x, backend=backend)

    late = int(cell_cls is CubaLIFCell)
    assert y[0, :, 0].tolist() == [0.0] * late + [1.0] * (4 - late)
    assert not y[0, :, 1].any()
    grads = torch.autograd.grad(y.sum(), cell.parameters())
    assert all(grad.isfinite().all() for grad in grads)


def test_a_neuron_at_its_threshold_does_not_fire():
    assert LIFCell(1, 1).spike(torch.zeros(1)).item() == 0


def test_cells_have_the_surrogates_of_their_papers():
    assert [cell(1, 1).surrogate for cell in CELLS] == 3 * ["fast_sigmoid"] + ["triangle"]


def test_a_surrogate_may_be_a_function():
    above = torch.tensor([0.3], requires_grad=True)
    cell = LIFCell(1, 1, surrogate=partial(fast_sigmoid, slope=25.0))

    (slope,) = torch.autograd.grad(cell.spike(above), above)

    assert slope.item() == pytest.approx(1 / (1 + 25 * 0.3) ** 2)


class Threshold(torch.autograd.Function):
    """A spike as other libraries write it."""

    @staticmethod
    def forward(ctx, above):
        ctx.save_for_backward(above)
        return (above > 0).to(above.dtype)

    @staticmethod
    def backward(ctx, grad):
        (above,) = ctx.saved_tensors
        return grad / (10 * above.abs() + 1) ** 2


@pytest.mark.parametrize("backend", ["reference", "c"])
@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
def test_gradients_are_those_of_an_autograd_function_in_a_loop(reset, detached, backend):
    cell = RLIFCell(3, 4, reset=reset, detach_reset=detached, dtype=torch.float64)
    x = torch.randn(2, 9, 3, dtype=torch.float64)
    s = v = torch.zeros(2, 4, dtype=torch.float64)
    spikes = []

    for now in x.unbind(1):
        fired = s.detach() if detached else s
        current = now @ cell.weight_ih.T + cell.bias_ih + s @ cell.weight_hh.T + cell.bias_hh
        left = {"subtract": 0.9 * v - fired, "zero": 0.9 * v * (1 - fired), "none": 0.9 * v}
        v = left[reset] + current
        s = Threshold.apply(v - 1)
        spikes.append(s)
    y, _ = unroll(cell, x, backend=backend)

    weights = torch.randn_like(y)
    expected = torch.autograd.grad((torch.stack(spikes, 1) * weights).sum(), cell.parameters())
    found = torch.autograd.grad((y * weights).sum(), cell.parameters())
    torch.testing.assert_close(y, torch.stack(spikes, 1))
    torch.testing.assert_close(found, expected)
    assert expected[0].any()


LEARNING = (*CELLS, LICell)


@pytest.mark.usefixtures("plain_loop")
@pytest.mark.parametrize("cell_cls", LEARNING)
def test_decays_that_are_learned_start_where_fixed_ones_stay(cell_cls):
    fixed, learned = cell_cls(3, 4), cell_cls(3, 4, learn_decays=True)
    learned.load_state_dict(fixed.state_dict(), strict=False)
    x = torch.randn(2, 9, 3)

    y, state = unroll(learned, x)

    torch.testing.assert_close((y, state), unroll(fixed, x))
    y.sum().backward()
    for name in cell_cls.decaying:
        assert learned.learned(f"logit_{name}").grad.any(), name
        assert getattr(fixed, f"logit_{name}") is None


@pytest.mark.usefixtures("plain_loop")
@pytest.mark.parametrize("cell_cls", CELLS)
def test_a_threshold_that_is_learned_starts_where_a_fixed_one_stays_and_is_above_zero(cell_cls):
    fixed, learned = (
        cell_cls(3, 4, threshold=0.3),
        cell_cls(3, 4, threshold=0.3, learn_threshold=True),
    )
    learned.load_state_dict(fixed.state_dict(), strict=False)
    x = torch.randn(2, 9, 3)

    y, state = unroll(learned, x)

    torch.testing.assert_close((y, state), unroll(fixed, x))
    y.sum().backward()
    assert learned.log_threshold.grad.any()
    with torch.no_grad():
        learned.log_threshold.sub_(50)
    assert (learned.fires_at() > 0).all()


@pytest.mark.parametrize("cell_cls", CELLS)
def test_a_cell_pickled_before_thresholds_could_be_learned_takes_a_step(cell_cls):
    cell, x = cell_cls(3, 4), torch.randn(2, 3)
    expected, _ = cell(x)
    del cell.learn_threshold, cell.log_threshold

    before = pickle.loads(pickle.dumps(cell))

    torch.testing.assert_close(before(x)[0], expected)
    assert repr(before) == repr(cell_cls(3, 4))
    before.reset_parameters()


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
def test_each_neuron_fires_above_its_own_threshold_and_loses_that_much(reset):
    cell = LIFCell(1, 2, bias=False, reset=reset, learn_threshold=True)
    with torch.no_grad():
        cell.weight_ih.fill_(1.0)
        cell.log_threshold.copy_(torch.tensor([0.5, 2.0]).log())

    y, (_, v) = unroll(cell, torch.tensor([[[1.0], [0.0]]]))

    left = {"subtract": 0.4, "zero": 0.0, "none": 0.9}[reset]
    assert y[0, 0].tolist() == [1, 0]
    assert v[0].tolist() == pytest.approx([left, 0.9])


@pytest.mark.parametrize(
    ("cell_cls", "learned"),
    [*product(LEARNING, ["learn_decays"]), *product(CELLS, ["learn_threshold"])],
)
def test_what_neurons_learn_runs_in_the_loops(cell_cls, learned):
    cell = cell_cls(3, 5, **{learned: True})

    assert check_backend(cell, "c", steps=(1, 5), dtypes=(torch.float64,)) == {}


@pytest.mark.parametrize("cell_cls", [LIFCell, RLIFCell, CubaLIFCell])
def test_neurons_without_a_reset_run_in_the_loops(cell_cls):
    cell = cell_cls(3, 5, reset="none")

    assert check_backend(cell, "c", steps=(1, 5), dtypes=(torch.float64,)) == {}


@pytest.mark.parametrize("backend", ["c", "eager"])
@pytest.mark.parametrize("cell_cls", [LIFCell, RLIFCell, CubaLIFCell])
def test_single_precision_fires_at_the_same_steps_where_nothing_is_rounded(cell_cls, backend):
    cell = cell_cls(3, 17, decay_v=0.5, threshold=0.3, **FADING.get(cell_cls, {}))
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.copy_(torch.randint(-3, 4, parameter.shape) / 4)
    x = torch.randint(-3, 4, (5, 6, 3)) / 4

    y, _ = unroll(cell, x, backend=backend)

    assert torch.equal(y, unroll(cell, x, backend="reference")[0])
    assert 0.1 < y.mean() < 0.9


FADING = {CubaLIFCell: {"decay_i": 0.25}}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: LIFCell(3, 4, surrogate="step"),
            ConfigError,
            "LIFCell: surrogate is 'step', expected one of fast_sigmoid, arctan, triangle, boxcar",
        ),
        (lambda: LIFCell(3, 4, reset="all"), ConfigError, "LIFCell: reset is 'all', expected one "),
        (lambda: LIFCell(3, 4, threshold=0), ConfigError, "LIFCell: threshold is 0, expected a nu"),
        (lambda: LIFCell(3, 4, decay_v=1.0), ConfigError, "LIFCell: decay_v is 1.0, expected a nu"),
        (lambda: CubaLIFCell(3, 4, decay_i=0), ConfigError, "CubaLIFCell: decay_i is 0, expected"),
        (lambda: ALIFCell(3, 4, decay_a=2.0), ConfigError, "ALIFCell: decay_a is 2.0, expected a"),
        (lambda: ALIFCell(3, 4, beta=-1), ConfigError, "ALIFCell: beta is -1, expected a number"),
        (lambda: RLIFCell(3, 4, learn_decays=1), DtypeError, "RLIFCell: learn_decays is 1, expec"),
        (lambda: LIFCell(3, 4, learn_threshold=1), DtypeError, "LIFCell: learn_threshold is 1, ex"),
        (lambda: RLIFCell(3, 4, detach_reset=0), DtypeError, "RLIFCell: detach_reset is 0, expec"),
    ],
)
def test_invalid_options_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
