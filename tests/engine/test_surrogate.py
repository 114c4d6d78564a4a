"""Functions with a backward pass of their own in a step, as spiking networks have."""

import pytest
import torch
import torch.nn.functional as F

from seqnets import explain, unroll
from seqnets.testing import check_backend
from tests.engine.user_cells import BareCell

B, T, I, H = 3, 6, 4, 8


class FastSigmoid(torch.autograd.Function):
    """SuperSpike (Zenke & Ganguli, 2018)."""

    @staticmethod
    def forward(ctx, v):
        ctx.save_for_backward(v)
        return (v > 0).to(v.dtype)

    @staticmethod
    def backward(ctx, grad):
        (v,) = ctx.saved_tensors
        return grad.clone() / (1 + 10 * v.abs()) ** 2


class ArcTangent(torch.autograd.Function):
    """With a setting, set up apart, which keeps what it gave too."""

    @staticmethod
    def forward(v, sharpness):
        return torch.where(v > 0, torch.ones_like(v), torch.zeros_like(v))

    @staticmethod
    def setup_context(ctx, inputs, output):
        v, ctx.sharpness = inputs
        ctx.save_for_backward(v, output)

    @staticmethod
    def backward(ctx, grad):
        v, spikes = ctx.saved_tensors
        return (1 + spikes) / (1 + (ctx.sharpness * v) ** 2) * grad.neg().neg(), None


class Straight(torch.autograd.Function):
    """Signs, whose gradient is let by where the input is small (Courbariaux et al., 2016)."""

    @staticmethod
    def forward(ctx, v):
        ctx.save_for_backward(v)
        return torch.sign(v)

    @staticmethod
    def backward(ctx, grad):
        (v,) = ctx.saved_tensors
        return torch.where(v.abs() < 1, grad, 0)


class Hard(FastSigmoid):
    """Spikes, whose gradient is filled with zeros in place where the input is large."""

    @staticmethod
    def backward(ctx, grad):
        (v,) = ctx.saved_tensors
        grad = grad.clone()
        grad[v.abs() > 0.5] = 0
        return grad.masked_fill_(v < -0.4, 0)


class Leaky(FastSigmoid):
    """Spikes, whose gradient is a sum: nowhere zero."""

    @staticmethod
    def backward(ctx, grad):
        (v,) = ctx.saved_tensors
        return 0.1 * grad + grad / (1 + 10 * v.abs()) ** 2


class Scaled(torch.autograd.Function):
    """Signs times a mean (Rastegari et al., 2016): the gradient is one of all units of a row."""

    @staticmethod
    def forward(ctx, w):
        ctx.save_for_backward(w)
        return w.sign() * w.abs().mean(-1, keepdim=True)

    @staticmethod
    def backward(ctx, grad):
        (w,) = ctx.saved_tensors
        through = torch.where(w.abs() < 1, grad, torch.zeros_like(grad))
        return through + w.sign() * (grad * w.sign()).mean(-1, keepdim=True)


class Rounded(torch.autograd.Function):
    """To multiples of a step that is learned (Esser et al., 2020)."""

    @staticmethod
    def forward(ctx, w, step, largest):
        ctx.save_for_backward(w, step)
        return (w / step).round().clamp(-largest, largest) * step

    @staticmethod
    def backward(ctx, grad):
        w, step = ctx.saved_tensors
        return grad, (grad * ((w / step).round() - w / step)).sum(), None


class InPlace(torch.autograd.Function):
    """Signs as many write them."""

    @staticmethod
    def forward(ctx, w):
        ctx.save_for_backward(w)
        signs = w.clone()
        signs[w >= 0] = 1
        signs[w < 0] = -1
        return signs

    @staticmethod
    def backward(ctx, grad):
        (w,) = ctx.saved_tensors
        grad = grad.clone()
        grad[w.abs() > 1] = 0
        return grad


class Clipped(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v):
        return v.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad.clamp(-1e9, 1e9)


class Joined(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b):
        return a + b

    @staticmethod
    def backward(ctx, grad):
        return grad, -grad


class Thrice(torch.autograd.Function):
    """A product that is said to have another derivative, and none of one of them."""

    @staticmethod
    def forward(ctx, a, b, c):
        ctx.save_for_backward(a, b, c)
        return a * b * c

    @staticmethod
    def backward(ctx, grad):
        a, b, c = ctx.saved_tensors
        return grad * b * c, None, 0.5 * a * b * grad


class SpikingCell(BareCell):
    """Leaky integrate and fire."""

    states = ("s", "v")
    spike = None

    def make(self, I, H):
        self.w, self.u = self.weight(H, I), self.weight(H, H)

    def step(self, x, state):
        s, v = state
        excites = F.relu(self.u) * torch.ones(H).cumsum(0).sin().sign()
        v = 0.9 * v * (1 - s.detach()) + F.linear(x, self.w) + s @ (self.u + excites)
        return type(self).spike(v - 0.3), v


class BinaryCell(BareCell):
    """A state of signs or spikes alone, which NaN and infinity do not enter."""

    function = None

    def make(self, I, H):
        self.w, self.u = self.weight(H, I), self.weight(H, H)

    def step(self, x, state):
        return (type(self).function(F.linear(x, self.w) + F.linear(state[0], self.u)),)


def spiking_by(function):
    return type("Spiking", (SpikingCell,), {"spike": staticmethod(function)})(I, H)


SPIKES = {
    "a fast sigmoid": FastSigmoid.apply,
    "an arc tangent": lambda v: ArcTangent.apply(v, 2.0),
    "straight through": Straight.apply,
    "one function after another": lambda v: FastSigmoid.apply(Straight.apply(v) * v),
    "a gradient that is filled in place": Hard.apply,
    "a sum of two multiples of the gradient": Leaky.apply,
    "a function of two tensors": lambda v: Joined.apply(v.tanh(), v.sin()),
    "a function of three": lambda v: Thrice.apply(v.tanh(), v.cos(), v[:, :1].sin()),
    "a view of what it gave": lambda v: FastSigmoid.apply(v).view(-1, 2, H // 2).flatten(1),
}


@pytest.mark.parametrize("kind", SPIKES)
@pytest.mark.parametrize("backend", ["c", "eager"])
def test_a_function_whose_gradient_is_a_factor_runs_in_the_loops(kind, backend):
    cell = spiking_by(SPIKES[kind]).double()
    x = torch.randn(B, T, I, dtype=torch.float64, requires_grad=True)
    found = []

    for name in (backend, "reference"):
        y, (_, v) = unroll(cell, x, backend=name)
        total = (y * y).sum() + v.sin().sum()
        found.append((y, v, *torch.autograd.grad(total, (x, *cell.parameters()))))

    assert found[0][-1].abs().max() > 0
    torch.testing.assert_close(found[0], found[1])


class QuantisedCell(BareCell):
    """Weights that are quantised, by a function with a backward pass of its own."""

    quantise = None

    def make(self, I, H):
        self.w, self.u, self.b = self.weight(H, I), self.weight(H, H), self.weight(H)
        self.size = torch.nn.Parameter(torch.tensor(0.3))

    def step(self, x, state):
        q = self.quantise
        return (torch.tanh(F.linear(x, q(self.w), q(self.b)) + state[0] @ q(self.u).T),)


def quantised_by(function):
    return type("Quantised", (QuantisedCell,), {"quantise": function})(I, H)


WEIGHTS = {
    "straight through": lambda self, w: Straight.apply(w),
    "a gradient of all units of a row": lambda self, w: Scaled.apply(w),
    "a step that is learned": lambda self, w: Rounded.apply(w, self.size, 3.0),
    "in place": lambda self, w: InPlace.apply(w),
    "what it gave is kept": lambda self, w: ArcTangent.apply(w, 2.0),
    "one function after another": lambda self, w: Scaled.apply(w * Rounded.apply(w, self.size, 2)),
}


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("backend", ["c", "eager"])
def test_a_function_of_weights_alone_may_have_any_linear_gradient(kind, backend):
    cell = quantised_by(WEIGHTS[kind]).double()
    x = torch.randn(B, T, I, dtype=torch.float64, requires_grad=True)
    found = []

    for name in (backend, "reference"):
        y, _ = unroll(cell, x, backend=name)
        wanted = (x, *cell.parameters())
        found.append((y, *torch.autograd.grad((y * y).sum(), wanted, materialize_grads=True)))

    assert found[0][2].abs().max() > 0
    torch.testing.assert_close(found[0], found[1])


def test_second_derivatives_of_such_a_function_are_the_plain_loops():
    cell, found = quantised_by(WEIGHTS["a gradient of all units of a row"]).double(), []
    x = torch.randn(B, T, I, dtype=torch.float64)

    for name in ("c", "reference"):
        y, _ = unroll(cell, x, backend=name)
        (grad,) = torch.autograd.grad((y * y).sum(), cell.u, create_graph=True)
        found.append(torch.autograd.grad((grad * grad).sum(), cell.u)[0])

    torch.testing.assert_close(*found)


REFUSED = {
    "a gradient that is clipped": (Clipped.apply, "Clipped: it is not a factor times the gradient"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_another_function_is_left_to_the_plain_loop(kind):
    function, reason = REFUSED[kind]

    told = explain(spiking_by(function), torch.randn(B, T, I))

    assert told.chosen == "reference"
    assert reason in told.refusals["c"]


def test_a_gradient_of_weights_that_is_clipped_at_each_step_is_left_to_the_plain_loop():
    told = explain(quantised_by(lambda self, w: Clipped.apply(w)), torch.randn(B, T, I))

    assert told.chosen == "reference"
    assert "Clipped: aten.clamp is not linear in the gradient" in told.refusals["c"]


def test_a_function_on_the_way_agrees_in_all_variants():
    class Smooth(torch.autograd.Function):
        """A sigmoid with another slope: no threshold that rounding might pass."""

        @staticmethod
        def forward(ctx, v):
            ctx.save_for_backward(v)
            return torch.sigmoid(4 * v)

        @staticmethod
        def backward(ctx, grad):
            (v,) = ctx.saved_tensors
            return grad / (1 + v.abs())

    assert check_backend(spiking_by(Smooth.apply), "c", steps=(1, 19)) == {}


@pytest.mark.parametrize("function", [Straight, FastSigmoid, Hard])
@pytest.mark.parametrize("odd", [torch.nan, torch.inf])
def test_a_function_that_ends_what_is_no_number_does_so_in_a_loop(function, odd):
    kind = type("Binary", (BinaryCell,), {"function": staticmethod(function.apply)})
    cell, x = kind(I, H), torch.randn(B, T, I)
    x[0, 2, 1] = x[1, 0, 0] = odd

    (y, _), (plain, _) = (unroll(cell, x, backend=name) for name in ("c", "reference"))

    assert torch.equal(y, plain)
