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


def spiking_by(function):
    return type("Spiking", (SpikingCell,), {"spike": staticmethod(function)})(I, H)


SPIKES = {
    "a fast sigmoid": FastSigmoid.apply,
    "an arc tangent": lambda v: ArcTangent.apply(v, 2.0),
    "straight through": Straight.apply,
    "one function after another": lambda v: FastSigmoid.apply(Straight.apply(v) * v),
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


REFUSED = {
    "a gradient that is clipped": (Clipped.apply, "Clipped: it is not a factor times the gradient"),
    "several tensors": (lambda v: Joined.apply(v, 2 * v), "Joined, a function of several tensors"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_another_function_is_left_to_the_plain_loop(kind):
    function, reason = REFUSED[kind]

    told = explain(spiking_by(function), torch.randn(B, T, I))

    assert told.chosen == "reference"
    assert reason in told.refusals["c"]


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
