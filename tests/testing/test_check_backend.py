from functools import partial
from types import SimpleNamespace

import pytest
import torch

from seqnets.cells import Cell, GRUCell, LSTMCell, PeepholeLSTMCell, RNNCell
from seqnets.engine import BACKENDS, reference, runs
from seqnets.errors import BackendError, ConfigError
from seqnets.testing import backend, check_backend

NATIVE = [
    GRUCell(3, 5),
    LSTMCell(3, 5),
    LSTMCell(1, 7, bias=False),
    RNNCell(3, 1),
    RNNCell(3, 5, nonlinearity="relu"),
]
FEW = (1, 2, 63)  # torch's kernels do nothing else later; one cell takes all steps, as by default


@pytest.fixture
def add_backend(monkeypatch):
    """Let ``unroll`` know a backend called "mine"."""

    def add(run, refusal=reference.refusal):
        mine = SimpleNamespace(name="mine", run=run, refusal=refusal)
        monkeypatch.setitem(BACKENDS, "mine", mine)

    return add


@pytest.mark.parametrize("cell", NATIVE, ids=repr)
def test_native_agrees_with_the_reference(cell):
    fewer = {} if cell is NATIVE[0] else {"steps": FEW}

    refused = check_backend(cell, "native", **fewer)

    assert list(refused) == [
        "B=5, resets",
        "B=5, ragged, resets, reverse, given, strided",
        "B=2, ragged, resets",
    ]


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_native_agrees_with_the_reference_on_projections():
    check_backend(LSTMCell(3, 5, proj_size=3), "native", steps=FEW)


def test_the_reference_agrees_with_itself_and_refuses_nothing():
    assert check_backend(PeepholeLSTMCell(3, 5), "reference", steps=(1, 63)) == {}


class GrowingCell(RNNCell):
    """A recurrence that folds what it stretches: gradients grow to 1e6 within 40 steps."""

    def step(self, wx, state):
        return (torch.sin(wx + 2.5 * state[0]),)


def test_amplified_rounding_is_not_an_error_in_double_precision_either():
    assert check_backend(GrowingCell(3, 5), "eager", steps=(40,), dtypes=(torch.float64,)) == {}


def test_the_backend_that_is_checked_is_the_one_that_runs():
    before = runs["native"]

    check_backend(GRUCell(3, 5), "native", steps=(2,), dtypes=(torch.float64,))

    assert runs["native"] - before == 7


def rounded(request):
    y, state = reference.run(request)
    return y + 1e-8, state


def detached(request):
    y, state = reference.run(request)
    return y, tuple(part.detach() for part in state)


def wrong_when_long(request):
    y, state = reference.run(request)
    return y * (1 + (y.shape[1] > 256)), state


def poisoned(request):
    y, state = reference.run(request)
    return y + 0 * request.x.sum(-1, keepdim=True), state


def emptied(request):
    y, (h,) = reference.run(request)
    if request.lengths is not None:
        h = h * (request.lengths > 0)[:, None]
    return y, (h,)


@pytest.mark.parametrize(
    ("run", "complaint"),
    [
        (rounded, "T=1, B=5, torch.float64: y is not"),
        (detached, "T=1, B=5, torch.float64: gradient of x is not"),
        (wrong_when_long, "T=257, B=5, torch.float64: y is not"),
        (poisoned, "T=1, B=5, ragged, torch.float64: y is not"),
        (emptied, "T=1, B=5, ragged, reverse, given, torch.float64: final h is not"),
    ],
)
def test_a_wrong_backend_is_caught(add_backend, run, complaint):
    add_backend(run)

    with pytest.raises(AssertionError, match=f"^GRUCell on backend 'mine', {complaint}"):
        check_backend(GRUCell(3, 5), "mine")


def test_a_backend_that_refuses_everything_fails(add_backend):
    add_backend(reference.run, lambda request: "no time today")

    with pytest.raises(AssertionError, match=r"everything is refused: .*no time today"):
        check_backend(GRUCell(3, 5), "mine", steps=(1,))


def test_a_backend_must_not_refuse_the_hard_half_of_a_variant(add_backend):
    add_backend(reference.run, lambda request: "too long" if request.x.shape[1] > 99 else None)

    with pytest.raises(AssertionError, match=r"refused at some T or dtype only: \['B=1, given'"):
        check_backend(GRUCell(3, 5), "mine")


@pytest.mark.parametrize("given", [GRUCell, partial(GRUCell, 3, 5)])
def test_what_only_makes_cells_is_refused(given):
    with pytest.raises(ConfigError, match=r"check_backend: cell is .*, expected a cell"):
        check_backend(given, "eager")


@pytest.mark.parametrize("name", ["cuda", "auto"])
def test_an_unknown_backend_is_an_error(name):
    with pytest.raises(BackendError, match=f"check_backend: backend is '{name}', expected one of"):
        check_backend(GRUCell(3, 5), name)


class DifferenceCell(Cell):
    """The difference of two inputs, which loses what they have in common."""

    input_size, hidden_size = 2, 1

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([[1.0, -1.0]]))

    def project(self, x):
        return x @ self.weight.T

    def step(self, wx, state):
        return (wx,)


def test_rounding_is_estimated_by_inputs_that_change_each_by_itself():
    cell, x = DifferenceCell().double(), torch.full((3, 4, 2), 1e6, dtype=torch.float64)

    rounded = backend._with_rounded_inputs(cell, (x, None, None, None), backend.Variant())

    assert rounded["y"].abs().max() > 1e-10


class AgreeingCell(Cell):
    """Whether inputs have the sign that they had a step before: without a gradient."""

    states = ("h", "s")
    input_size, hidden_size = 3, 3

    def __init__(self):
        super().__init__()
        self.register_buffer("above", torch.tensor(0.1))

    def project(self, x):
        return x

    def step(self, wx, state):
        s = (wx > self.above).to(wx)
        return (s == state[1]).to(wx), s


@pytest.mark.parametrize("name", ["c", "reference"])
def test_a_cell_without_parameters_or_gradients_is_compared_too(name):
    assert check_backend(AgreeingCell(), name, steps=(1, 3)) == {}
