"""Cells with one typical mistake each."""

import torch
from torch import nn

from seqnets.cells import LSTMCell, RNNCell


class LeakingCell(RNNCell):
    """Each row depends on its neighbour."""

    def update(self, wx, uh, state):
        return (torch.tanh(wx.h + uh.h + 0.1 * state[0].roll(1, 0)),)


class BatchMeanCell(RNNCell):
    """Normalises by the batch."""

    def project(self, x):
        wx = super().project(x)
        return wx - wx.mean(0, keepdim=True)


class ForgetfulCell(LSTMCell):
    """Overwrites its memory without reading it."""

    def update(self, wx, uh, state):
        c = torch.sigmoid(wx.i + uh.i + wx.f + uh.f) * torch.tanh(wx.g + uh.g)
        return torch.sigmoid(wx.o + uh.o) * torch.tanh(c), c


class InPlaceCell(RNNCell):
    """Writes the next state over the last one."""

    def update(self, wx, uh, state):
        return (state[0].copy_(torch.tanh(wx.h + uh.h)),)


class DetachedCell(LSTMCell):
    """Cuts the memory's gradient."""

    def update(self, wx, uh, state):
        h, c = state
        return super().update(wx, uh, (h, c.detach()))


class ForesightCell(RNNCell):
    """Centres its inputs over time."""

    def project(self, x):
        return super().project(x - x.mean(-2, keepdim=True) if x.dim() == 3 else x)


class CountingCell(RNNCell):
    """Keeps information outside of its state."""

    steps = 0

    def step(self, wx, state):
        self.steps += 1
        return super().step(wx + 0.01 * self.steps, state)


class UnregisteredCell(RNNCell):
    """Has a weight that its ``state_dict`` lacks."""

    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        self.scale = torch.rand(()).item()

    def update(self, wx, uh, state):
        return (torch.tanh(wx.h + self.scale * uh.h),)


class ClosureCell(RNNCell):
    """Has an attribute that cannot be pickled."""

    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        self.squash = lambda a: torch.tanh(a)

    def update(self, wx, uh, state):
        return (self.squash(wx.h + uh.h),)


class DoublyNamedCell(RNNCell):
    """Has one module under two names."""

    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        self.once = self.again = nn.Linear(self.hidden_size, self.hidden_size)

    def update(self, wx, uh, state):
        return (torch.tanh(wx.h + self.again(self.once(uh.h))),)


class BranchingCell(RNNCell):
    """Branches in Python on the value of a tensor."""

    def update(self, wx, uh, state):
        if wx.h.shape[0] and wx.h.abs().amax() > 1e9:
            return state
        return (torch.tanh(wx.h + uh.h),)


class OnceDifferentiableCell(RNNCell):
    """Has a correct first and a wrong second derivative."""

    def update(self, wx, uh, state):
        return (_Tanh.apply(wx.h + uh.h),)


class _Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a):
        ctx.y = torch.tanh(a)
        return ctx.y.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * (1 - ctx.y * ctx.y).detach()


class InexactCell(RNNCell):
    """Has a second derivative that is a thousandth too small, by one parameter."""

    per_unit = ("scale",)

    def update(self, wx, uh, state):
        return (torch.tanh(_Scale.apply(wx.h + uh.h, 1 + self.scale)),)


class _Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, scale):
        ctx.save_for_backward(a, scale)
        return a * scale

    @staticmethod
    def backward(ctx, grad):
        a, scale = ctx.saved_tensors
        return grad * (0.999 * scale + 0.001 * scale.detach()), (grad * a).sum(0)


class EchoCell(LSTMCell):
    """A mean of its inputs, and an output that no step reads."""

    recurrent = ()

    def update(self, wx, uh, state):
        c = torch.sigmoid(wx.f) * state[1] + torch.tanh(wx.i + wx.g)
        return torch.sigmoid(wx.o) * torch.tanh(c), c
