"""State space models against their papers: one unit in plain floats, several in NumPy."""

import cmath
import math
from functools import partial

import numpy as np
import pytest
import torch

from seqnets import unroll
from seqnets.cells import LinOSSCell, LonghornCell, S4DCell, S5Cell, S6Cell
from seqnets.engine.plans import plan_of
from seqnets.errors import ConfigError
from seqnets.testing import check_backend, check_cell, one_unit, step
from seqnets.testing.laws import perturb

from .plain import after, sigmoid

XS = (2.0, -0.7, 0.4)
FLOAT64 = (torch.float64,)


def arrays(cell):
    """A cell's parameters as arrays, by name."""
    return {name: p.detach().numpy() for name, p in cell.named_parameters()}


def outputs(cell, x):
    """What a cell gives for one row, (T, I)."""
    return unroll(cell, torch.tensor(x)[None])[0][0].detach().numpy()


def test_s4d_follows_its_paper_in_complex_numbers():
    rates = {"rho": (-0.6, 0.2, -1.1, 0.4), "omega": (1.7, 0.0, -0.8, 3.1), "delta": -0.9}
    re, im = (0.65, -0.2, 0.9, 0.1), (-0.35, 0.8, 0.3, -0.6)
    cell = one_unit(S4DCell, w=(0.5,), b=(0.1,), **rates, weight_re=re, weight_im=im, D=1.1)
    each = [-math.exp(r) + 1j * w for r, w in zip(rates["rho"], rates["omega"], strict=True)]
    kept = [cmath.exp(rate * math.exp(-0.9)) for rate in each]
    s = [0.9 - 0.2j, -0.4 + 1.3j, 0.6j, 0.7]

    for x in XS:
        u, before = 0.5 * x + 0.1, [[s_n.real for s_n in s], [s_n.imag for s_n in s]]
        s = [k * s_n + (k - 1) / rate * u for k, s_n, rate in zip(kept, s, each, strict=True)]
        shown = [
            (complex(*c) * s_n).real for c, s_n in zip(zip(re, im, strict=True), s, strict=True)
        ]
        expected = [2 * sum(shown) + 1.1 * u], [s_n.real for s_n in s], [s_n.imag for s_n in s]

        assert after(cell, [x], [-1.5], *before) == [pytest.approx(part) for part in expected]


def test_s4d_of_several_units_follows_its_paper():
    cell = S4DCell(3, 2, state_size=5, dtype=torch.float64)
    perturb(cell)
    p, x = arrays(cell), np.random.default_rng(0).normal(size=(9, 3))
    rate, C = -np.exp(p["rho"]) + 1j * p["omega"], p["weight_re"] + 1j * p["weight_im"]
    kept = np.exp(rate * np.exp(p["delta"]))
    u, times = x @ p["weight_ih"].T + p["bias_ih"], np.arange(9)[:, None, None]
    kernel = 2 * (C * (kept - 1) / rate * kept**times).sum(1).real  # a convolution, as there

    expected = [(kernel[: t + 1][::-1] * u[: t + 1]).sum(0) + p["D"] * u[t] for t in range(9)]

    np.testing.assert_allclose(outputs(cell, x), expected, rtol=0, atol=1e-12)


def test_s4d_starts_as_its_published_code_does():
    cell = S4DCell(3, 4000, state_size=3, dt_min=0.01, dt_max=0.5, dtype=torch.float64)
    C = torch.complex(cell.weight_re, cell.weight_im)

    assert cell.rho.exp().eq(0.5).all()
    torch.testing.assert_close(cell.omega[:, 7], math.pi * torch.arange(3).double())
    assert math.log(0.01) <= cell.delta.min() < -4.5 < -0.8 < cell.delta.max() <= math.log(0.5)
    assert C.abs().square().mean().item() == pytest.approx(1, abs=0.1)
    assert cell.D.std().item() == pytest.approx(1, abs=0.1)


def test_each_number_of_s4d_is_a_piece_of_its_state_and_takes_no_product():
    plan = plan_of(S4DCell(64, 256, state_size=16))

    assert plan.pieces == (1, 16, 16)
    assert plan.program.step.products == ()


@pytest.mark.parametrize("cell_cls", [S4DCell, S5Cell])
def test_short_steps_lose_no_digits_of_what_enters(cell_cls):
    cell = cell_cls(1, 1, state_size=1)
    with torch.no_grad():
        cell.delta.fill_(math.log(1e-4))
        cell.omega.fill_(0)
    x = torch.ones(1, 1, 1)

    entered = unroll(cell, x)[1][1]
    exact = unroll(cell.double(), x.double())[1][1]

    torch.testing.assert_close(entered.double(), exact, rtol=1e-6, atol=0)


OSCILLATOR = {"w": (0.5,), "b": (0.1,), "alpha": -0.6, "delta": 0.4, "weight_y": 0.65, "D": 1.1}


def oscillated(solver, x, y, z):
    """Position and velocity after a step of LinOSS, as the paper has it."""
    A, dt, force = math.exp(-0.6), sigmoid(0.4), 0.5 * x + 0.1
    if solver == "im":
        y_after = (y + dt * z + dt**2 * force) / (1 + dt**2 * A)  # of both equations
        return y_after, z + dt * (-A * y_after + force)
    z_after = z + dt * (-A * y + force)
    return y + dt * z_after, z_after


def as_complex(solver, y, z):
    """The state of the cell that stands for a position and a velocity."""
    A, dt = math.exp(-0.6), sigmoid(0.4)
    if solver == "im":
        return z, math.sqrt(A) * y
    return z, math.sqrt(A / (1 - dt**2 * A / 4)) * (y - dt * z / 2)


@pytest.mark.parametrize("solver", ["im", "imex"])
def test_linoss_follows_its_paper(solver):
    cell = one_unit(LinOSSCell, **OSCILLATOR)
    cell.solver = solver
    y, z = 0.9, -0.2

    for x in XS:
        before = as_complex(solver, y, z)
        y, z = oscillated(solver, x, y, z)
        expected = 0.65 * y + 1.1 * x, *as_complex(solver, y, z)

        assert step(cell, x, -1.5, *before) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("inputs", "units"), [(3, 2), (4, 4)])
@pytest.mark.parametrize("solver", ["im", "imex"])
def test_linoss_of_several_units_follows_its_paper(solver, inputs, units):
    cell = LinOSSCell(inputs, units, state_size=5, solver=solver, dtype=torch.float64)
    perturb(cell)
    p, x = arrays(cell), np.random.default_rng(0).normal(size=(9, inputs))
    A, dt, state, expected = np.exp(p["alpha"]), 1 / (1 + np.exp(-p["delta"])), np.zeros(10), []
    one, A, dt = np.eye(5), np.diag(A), np.diag(dt)
    driven = [[one, dt @ A], [-dt, one]] if solver == "im" else [[one, 0 * one], [-dt, one]]
    kept = [[one, 0 * one if solver == "im" else -dt @ A], [0 * one, one]]
    driven, kept = np.block(driven), np.block(kept)  # of velocities, then positions

    for x_t in x:
        force = dt @ (p["weight_ih"] @ x_t + p["bias_ih"])
        state = np.linalg.solve(driven, kept @ state + np.concatenate([force, np.zeros(5)]))
        shown = p["D"] * (p["weight_x"] @ x_t if inputs == 3 else x_t)
        expected.append(p["weight_y"] @ state[5:] + shown)

    np.testing.assert_allclose(outputs(cell, x), expected, rtol=0, atol=1e-12)


def test_linoss_keeps_oscillating_by_one_solver_and_comes_to_rest_by_the_other():
    state = torch.zeros(1, 4), torch.ones(1, 4), torch.ones(1, 4)
    x = torch.zeros(1, 5000, 4)

    kept, lost = (
        unroll(LinOSSCell(4, 4, bias=False, solver=s), x, state)[1][1:] for s in ("imex", "im")
    )

    torch.testing.assert_close(
        torch.hypot(*kept), torch.full((1, 4), math.sqrt(2)), rtol=1e-2, atol=0
    )
    assert (torch.hypot(*lost) < 0.9 * math.sqrt(2)).all()


def test_linoss_whose_frequencies_outgrow_its_steps_stays_bounded():
    cell = LinOSSCell(3, 4, solver="imex")
    with torch.no_grad():
        cell.alpha.fill_(9)

    y, _ = unroll(cell, torch.randn(2, 2000, 3))

    assert y.isfinite().all()
    assert y[:, 1000:].std() < 30


def test_linoss_starts_as_its_published_code_does():
    cell = LinOSSCell(4, 3000, state_size=2000)

    for drawn in (cell.alpha.exp(), cell.delta):
        assert 0 < drawn.min() < 0.01 < 0.99 < drawn.max() <= 1
    assert cell.alpha.exp().mean().item() == pytest.approx(0.5, abs=0.05)
    for weight, most in ((cell.weight_ih, 0.5), (cell.weight_y, 2000**-0.5)):
        assert 0.99 * most < weight.abs().max() <= most
    assert cell.D.std().item() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("solver", ["im", "imex"])
def test_linoss_of_more_memories_than_outputs_obeys_the_laws_and_is_scanned(solver):
    make = partial(LinOSSCell, hidden_size=4, state_size=6, solver=solver)

    check_cell(make)
    assert check_backend(make(3), "scan", steps=(5,), dtypes=FLOAT64) == {}


def test_linoss_by_an_unknown_solver_is_refused():
    with pytest.raises(ConfigError, match="LinOSSCell: solver is 'ex', expected"):
        LinOSSCell(3, 4, solver="ex")


def test_s5_follows_its_paper_in_complex_numbers():
    rates = {"rho": -0.6, "omega": 1.7, "delta": -0.9}
    shown = {"weight_re": 0.65, "weight_im": -0.35, "D": 1.1}
    cell = one_unit(S5Cell, w=(0.5, -0.3), b=(0.1, -0.4), **rates, **shown)
    rate, dt = -math.exp(-0.6) + 1.7j, math.exp(-0.9)
    h = 0.9 - 0.2j

    for x in XS:
        kept = cmath.exp(rate * dt)
        h_after = kept * h + (kept - 1) / rate * ((0.5 - 0.3j) * x + (0.1 - 0.4j))
        y = 2 * ((0.65 - 0.35j) * h_after).real + 1.1 * x

        assert step(cell, x, -1.5, h.real, h.imag) == pytest.approx(
            (y, h_after.real, h_after.imag), abs=1e-12
        )
        h = h_after


@pytest.mark.parametrize(("inputs", "units"), [(3, 2), (4, 4)])
def test_s5_of_several_units_follows_its_paper(inputs, units):
    cell = S5Cell(inputs, units, state_size=5, bias=False, dtype=torch.float64)
    perturb(cell)
    p, x = arrays(cell), np.random.default_rng(0).normal(size=(9, inputs))
    rate, dt = -np.exp(p["rho"]) + 1j * p["omega"], np.exp(p["delta"])
    B, C = p["weight_ih"][:5] + 1j * p["weight_ih"][5:], p["weight_re"] + 1j * p["weight_im"]
    kept = np.exp(rate * dt)
    h, expected = np.zeros(5, complex), []

    for x_t in x:
        h = kept * h + (kept - 1) / rate * (B @ x_t)
        expected.append(2 * (C @ h).real + p["D"] * (p["weight_x"] @ x_t if inputs == 3 else x_t))

    np.testing.assert_allclose(outputs(cell, x), expected, rtol=0, atol=1e-12)


def test_s5_holds_its_input_during_a_step():
    cell = S5Cell(2, 2, state_size=3, bias=False, dtype=torch.float64)
    x = torch.randn(1, 1, 2, dtype=torch.float64).expand(1, 4, 2)
    longer = S5Cell(2, 2, state_size=3, bias=False, dtype=torch.float64)
    longer.load_state_dict(cell.state_dict() | {"delta": cell.delta + math.log(4)})

    many, one = unroll(cell, x)[1], unroll(longer, x[:, :1])[1]

    torch.testing.assert_close(many, one)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_s5_starts_at_the_eigenvalues_of_the_normal_part_of_hippo(size):
    root = np.sqrt(2 * np.arange(2 * size) + 1)
    hippo = -np.tril(np.outer(root, root)) + np.diag(np.arange(2 * size))
    normal = hippo + np.outer(root, root) / 2
    rates = np.linalg.eigvals(normal)

    cell = S5Cell(3, 4, state_size=size, dtype=torch.float64)

    np.testing.assert_allclose(-np.exp(arrays(cell)["rho"]), rates.real[:size])
    np.testing.assert_allclose(arrays(cell)["omega"], np.sort(rates.imag[rates.imag > 0]))


def softplus(a):
    return math.log1p(math.exp(a))


def test_s6_follows_its_paper():
    w, b = (0.5, -0.3, 0.8, 0.9, 0.4, -0.7, 0.2, 0.6), (0.1, -0.4, 0.3, 0.6, 0.2, -0.1, 0.5, -0.2)
    rates = {"weight_r": 0.7, "weight_step": -1.3, "bias_step": 0.4}
    alpha, s = (0.2, 0.9, -0.5, 1.1), (0.9, -0.2, 0.4, -1.3)
    cell = one_unit(S6Cell, w=w, b=b, alpha=alpha, D=1.1, **rates)

    for x in XS:
        dt = softplus(-1.3 * 0.7 * x + 0.4)
        into, out = ([w[n] * x + b[n] for n in part] for part in (range(4), range(4, 8)))
        rate = [math.exp(-math.exp(a) * dt) for a in alpha]
        before, s = s, [r * s_n + i * dt * x for r, s_n, i in zip(rate, s, into, strict=True)]
        y = sum(o * s_n for o, s_n in zip(out, s, strict=True)) + 1.1 * x

        assert after(cell, [x], [-1.5], before) == [pytest.approx([y]), pytest.approx(s)]


@pytest.mark.parametrize(("inputs", "units"), [(3, 2), (4, 4)])
def test_s6_of_several_units_follows_its_paper(inputs, units):
    cell = S6Cell(inputs, units, state_size=3, rank=2, bias=False, dtype=torch.float64)
    perturb(cell)
    p, x = arrays(cell), np.random.default_rng(0).normal(size=(9, inputs))
    A, s, expected = -np.exp(p["alpha"]), np.zeros((3, units)), []

    for x_t in x:
        B, C = np.split(p["weight_ih"] @ x_t, 2)
        dt = np.log1p(np.exp(p["weight_step"] @ (p["weight_r"] @ x_t) + p["bias_step"]))
        enters = p["weight_x"] @ x_t if inputs == 3 else x_t
        s = np.exp(dt * A) * s + np.outer(B, dt * enters)
        expected.append(C @ s + p["D"] * enters)

    np.testing.assert_allclose(outputs(cell, x), expected, rtol=0, atol=1e-12)


def test_s6_starts_as_its_published_code_does():
    cell = S6Cell(3, 800, state_size=3, dt_min=0.01, dt_max=0.5)
    dt = torch.nn.functional.softplus(cell.bias_step)

    assert cell.rank == 50
    assert 0.0099 <= dt.min() < 0.011 < 0.45 < dt.max() <= 0.5001
    torch.testing.assert_close(cell.alpha.exp(), torch.tensor([[1.0], [2.0], [3.0]]).expand(3, 800))
    assert cell.D.eq(1).all()
    assert 0.95 * 50**-0.5 < cell.weight_step.abs().max() <= 50**-0.5


def test_longhorn_follows_its_paper():
    w = (0.5, -0.3, 0.8, 0.9, 0.4, -0.7, 0.2, 1.2)
    b = (0.1, -0.4, 0.3, 0.6, 0.2, -0.1, 0.5, -0.2)
    rates = {"weight_r": 0.7, "weight_step": -1.3, "bias_step": 0.4}
    cell, s = one_unit(LonghornCell, w=w, b=b, D=1.1, **rates), (0.9, -0.2, 0.4, -1.3)

    for x in XS:
        beta = sigmoid(-1.3 * 0.7 * x + 0.4)
        k, q = ([w[n] * x + b[n] for n in part] for part in (range(4), range(4, 8)))
        epsilon = beta / (1 + beta * sum(k_n**2 for k_n in k))
        kept, before = [1 - epsilon * k_n**2 for k_n in k], s
        s = [a * s_n + epsilon * x * k_n for a, s_n, k_n in zip(kept, s, k, strict=True)]
        y = sum(q_n * s_n for q_n, s_n in zip(q, s, strict=True)) + 1.1 * x

        assert after(cell, [x], [-1.5], before) == [pytest.approx([y]), pytest.approx(s)]


@pytest.mark.parametrize(("inputs", "units"), [(3, 2), (4, 4)])
def test_longhorn_of_several_units_follows_its_paper(inputs, units):
    cell = LonghornCell(inputs, units, state_size=3, rank=2, bias=False, dtype=torch.float64)
    perturb(cell)
    p, x = arrays(cell), np.random.default_rng(0).normal(size=(9, inputs))
    s, expected = np.zeros((units, 3)), []

    for x_t in x:
        k, q = np.split(p["weight_ih"] @ x_t, 2)
        beta = 1 / (1 + np.exp(-p["weight_step"] @ (p["weight_r"] @ x_t) - p["bias_step"]))
        epsilon = beta / (1 + beta * (k @ k))
        enters = p["weight_x"] @ x_t if inputs == 3 else x_t
        s = (1 - np.outer(epsilon, k**2)) * s + np.outer(epsilon * enters, k)
        expected.append(s @ q + p["D"] * enters)

    np.testing.assert_allclose(outputs(cell, x), expected, rtol=0, atol=1e-12)


def test_one_number_of_longhorn_solves_the_least_squares_problem_of_its_step():
    cell = LonghornCell(4, 4, state_size=1, dtype=torch.float64)
    x, s = torch.randn(1, 4, dtype=torch.float64), torch.randn(1, 4, dtype=torch.float64)
    k, _, product, _ = cell.split_steps(cell.project(x))

    _, after = cell.step(cell.project(x), (torch.zeros_like(s), s))

    slope = 2 * (after - s) + 2 * torch.sigmoid(product) * (after * k - x) * k
    torch.testing.assert_close(slope, torch.zeros_like(slope))


def test_longhorn_starts_as_its_published_code_does():
    cell = LonghornCell(3, 800)

    assert cell.rank == 50
    assert cell.D.eq(1).all()
    for started in (cell.weight_step, cell.bias_step):
        assert 0.95 * 50**-0.5 < started.abs().max() <= 50**-0.5


@pytest.mark.parametrize("cell_cls", [S4DCell, S6Cell, LonghornCell])
def test_models_of_separate_units_are_scanned(cell_cls):
    cell = cell_cls(3, 5, state_size=2)

    assert check_backend(cell, "scan", steps=(5,), dtypes=FLOAT64) == {}


@pytest.mark.parametrize("cell_cls", [S6Cell, LonghornCell])
def test_a_memory_of_state_space_models_takes_no_product(cell_cls):
    plan = plan_of(cell_cls(64, 256, state_size=16))

    assert plan.pieces == (1, 16)
    assert plan.program.step.products == ()


def test_steps_of_state_space_models_start_uniform_in_their_logarithm():
    delta = S5Cell(3, 4, state_size=200, dt_min=0.01, dt_max=0.5).delta

    assert math.log(0.01) <= delta.min() < -4.3 < -1.0 < delta.max() <= math.log(0.5)
    assert delta.mean().item() == pytest.approx((math.log(0.01) + math.log(0.5)) / 2, abs=0.35)


def test_a_cell_that_was_made_under_the_meta_device_leaves_later_ones_whole():
    with torch.device("meta"):
        S5Cell(3, 4, state_size=9)

    assert S5Cell(3, 4, state_size=9).omega.isfinite().all()


@pytest.mark.parametrize("cell_cls", [S4DCell, S5Cell, S6Cell])
@pytest.mark.parametrize(
    "steps", [(0, 0.1), (0.1, 0.1), (0.2, 0.1), (0.1, math.inf), (None, 0.1), (0.1, True)]
)
def test_invalid_lengths_of_steps_are_refused(cell_cls, steps):
    with pytest.raises(ConfigError, match=r": dt_min and dt_max are .*expected 0 < dt_min < dt_"):
        cell_cls(3, 4, dt_min=steps[0], dt_max=steps[1])


@pytest.mark.parametrize("cell_cls", [LinOSSCell, S4DCell, S5Cell, S6Cell, LonghornCell])
def test_states_of_no_size_are_refused(cell_cls):
    with pytest.raises(ConfigError, match="Cell: state_size is 0, expected at least 1"):
        cell_cls(3, 4, state_size=0)


def test_s5_of_more_memories_than_outputs_obeys_the_laws_and_is_scanned():
    check_cell(partial(S5Cell, hidden_size=4, state_size=6))
    assert check_backend(S5Cell(3, 4, state_size=6), "scan", steps=(5,), dtypes=FLOAT64) == {}
