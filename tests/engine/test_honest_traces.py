"""What a step does besides operations is seen when it is traced, and left to the plain loop."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from seqnets import Recurrent, explain, unroll
from seqnets.cells import GatedCell, LSTMCell
from seqnets.engine.plans import program_of
from seqnets.errors import DtypeError

B, T, I, H = 2, 5, 3, 4


class Straight(torch.autograd.Function):
    """Rounds, with the gradient of what does not."""

    @staticmethod
    def forward(ctx, a):
        return (a > 0).to(a.dtype)

    @staticmethod
    def backward(ctx, grad):
        return grad


def hooked(a):
    a = a * 2
    if a.requires_grad:
        a.register_hook(lambda grad: grad / 3)
    return a


def unseen(a):
    with torch.no_grad():
        return torch.sigmoid(a)


WAYS = {
    "detach": lambda a, h: (a > 0).to(a.dtype) + a - a.detach(),
    "no_grad": lambda a, h: a + unseen(h),
    "a function with a backward of its own": lambda a, h: Straight.apply(a),
    "a hook": lambda a, h: hooked(a),
    "how many rows there are": lambda a, h: a / a.shape[0],
    "whether gradients are on": lambda a, h: a * (2.0 if torch.is_grad_enabled() else 1.0),
}


def cell_of(function):
    class Custom(GatedCell):
        gates = ("n",)

        def update(self, wx, uh, state):
            return (torch.tanh(function(wx.n + uh.n, state[0])),)

    return Custom(I, H)


@pytest.mark.parametrize("way", WAYS)
def test_a_step_that_is_more_than_its_operations_runs_in_the_plain_loop(way):
    cell, x = cell_of(WAYS[way]), torch.randn(B, T, I)

    found = []
    for backend in ("auto", "reference"):
        y, _ = unroll(cell, x, backend=backend)
        (gradient,) = torch.autograd.grad(y.square().sum(), cell.weight_ih)
        found.append((y, gradient))

    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    told = explain(cell, x)
    assert told.chosen == "reference"
    assert "it gives something else" in told.refusals["c"] or "gradient" in told.refusals["c"]


class Dropping(GatedCell):
    gates = ("n",)

    def update(self, wx, uh, state):
        return (F.dropout(torch.tanh(wx.n + uh.n), 0.5, self.training),)


class Halving(GatedCell):
    gates = ("n",)

    def update(self, wx, uh, state):
        n = torch.tanh(wx.n + uh.n)
        return (n / 2 if self.training else n,)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("cell_cls", [Dropping, Halving])
def test_a_step_may_read_the_mode_whichever_comes_first(cell_cls, first):
    cell, x = cell_cls(I, H), torch.randn(B, T, I)

    for training in (first, not first):
        cell.train(training)
        y, expected = (
            torch.random.manual_seed(0) and unroll(cell, x, backend=backend)[0]
            for backend in ("auto", "reference")
        )
        torch.testing.assert_close(y, expected)


def test_most_cells_have_one_program_for_both_modes():
    cell = LSTMCell(I, H)

    assert program_of(cell.train()) is program_of(cell.eval())


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_compiled_layer_follows_the_mode_of_any_cell():
    layer, x = Recurrent(Halving(I, H)), torch.randn(B, T, I)
    compiled = torch.compile(layer, backend="aot_eager")

    for training in (True, False, True):
        layer.train(training)
        torch.testing.assert_close(compiled(x)[0], unroll(layer.cell, x, backend="reference")[0])


def test_no_steps_at_all_have_a_gradient():
    x = torch.zeros(B, 0, I, requires_grad=True)

    y, _ = unroll(LSTMCell(I, H), x)
    y.sum().backward()

    assert y.shape == (B, 0, H)
    assert x.grad.shape == x.shape


class Inside(GatedCell):
    """Modules of torch.nn, in the step and before it."""

    gates = ("n",)

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.act = nn.SiLU()
        self.before = nn.Sequential(nn.Linear(input_size, hidden_size), nn.Tanh())
        self.within = nn.Linear(hidden_size, hidden_size)
        self.norm = nn.LayerNorm(hidden_size)
        self.factors = nn.ParameterList([torch.rand(hidden_size)])

    def project(self, x):
        return super().project(x) + self.before(x)

    def update(self, wx, uh, state):
        a = self.norm(self.act(self.within(wx.n + uh.n)))
        return (torch.tanh(a) * self.factors[0],)


@pytest.mark.parametrize("backend", ["c", "eager"])
def test_modules_inside_a_cell_are_read_and_learn_as_its_parameters_do(backend):
    cell, x = Inside(I, H), torch.randn(B, T, I)
    parameters = dict(cell.named_parameters())

    found = []
    for name in (backend, "reference"):
        y, _ = unroll(cell, x, backend=name)
        found.append((y, *torch.autograd.grad(y.square().sum(), list(parameters.values()))))

    assert len(parameters) == 11
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_a_cell_with_modules_is_traced_once(monkeypatch):
    cell, x = Inside(I, H), torch.randn(B, T, I)
    unroll(cell, x)
    monkeypatch.setattr("seqnets.engine.plans.trace_step", None)

    unroll(cell, x)


def test_a_recurrent_module_of_torch_inside_a_cell_learns_too():
    class Before(GatedCell):
        gates = ("n",)

        def __init__(self, input_size, hidden_size):
            super().__init__(input_size, hidden_size)
            self.rnn = nn.LSTM(input_size, input_size, batch_first=True)

        def project(self, x):
            return super().project(self.rnn(x if x.dim() == 3 else x[:, None])[0].view_as(x))

        def update(self, wx, uh, state):
            return (torch.tanh(wx.n + uh.n),)

    cell, x = Before(I, H), torch.randn(B, T, I)
    wanted = list(cell.parameters())

    slopes = [
        torch.autograd.grad(unroll(cell, x, backend=name)[0].sum(), wanted)
        for name in ("c", "reference")
    ]

    torch.testing.assert_close(*slopes)


def test_a_projection_by_a_tensor_from_elsewhere_that_learns_runs_in_the_plain_loop():
    outside = nn.Linear(I, H)

    class Sharing(GatedCell):
        gates = ("n",)

        def project(self, x):
            return super().project(x) + outside(x)

        def update(self, wx, uh, state):
            return (torch.tanh(wx.n + uh.n),)

    cell, x = Sharing(I, H), torch.randn(B, T, I)
    unroll(cell, x)[0].sum().backward()

    assert outside.weight.grad is not None
    assert "none of its parameters" in explain(cell, x).refusals["c"]


def test_a_step_that_keeps_what_it_saw_runs_in_the_plain_loop():
    class Keeping(GatedCell):
        gates = ("n",)

        def update(self, wx, uh, state):
            self.last = torch.tanh(wx.n + uh.n)
            return (self.last,)

    cell, x = Keeping(I, H), torch.randn(B, T, I)

    y, _ = unroll(cell, x)

    assert "it writes its attribute last" in explain(cell, x).refusals["eager"]
    torch.testing.assert_close(cell.last, y[:, -1])


def test_random_numbers_inside_a_step_are_the_reason():
    class Noisy(GatedCell):
        gates = ("n",)

        def update(self, wx, uh, state):
            return (F.dropout(torch.tanh(wx.n + uh.n), 0.5),)

    told = explain(Noisy(I, H), torch.randn(B, T, I)).refusals["eager"]

    assert "for random numbers: project is to draw them" in told


def test_what_is_true_counts_as_one_wherever_it_is_computed_with():
    class Spiking(GatedCell):
        gates = ("n",)

        def update(self, wx, uh, state):
            a = wx.n + uh.n
            return (1 - (a > 0).to(a.dtype) + (a > 1).to(a.dtype) * state[0],)

    cell, x = Spiking(I, H), torch.randn(B, T, I)

    found = [unroll(cell, x, backend=backend)[0] for backend in ("c", "eager", "reference")]

    torch.testing.assert_close(found[:2], [found[2]] * 2)


def test_a_projection_that_is_no_tensor_is_told():
    class Pair(GatedCell):
        gates = ("n",)

        def project(self, x):
            return x, x

    with pytest.raises(DtypeError, match="project gives tuple, expected a tensor"):
        unroll(Pair(I, H), torch.randn(B, T, I))
