"""Cells as a user may write them: what seqnets' own do not have."""

import torch
import torch.nn.functional as F
from torch import nn

from seqnets.cells import Cell, GatedCell


class MGUCell(GatedCell):
    """Minimal gated unit (Zhou et al., 2016)."""

    gates = ("f", "n")

    def update(self, wx, uh, state):
        (h,) = state
        f = torch.sigmoid(wx.f + uh.f)
        n = torch.tanh(wx.n + f * uh.n)
        return (h + f * (n - h),)


class NormedCell(GatedCell):
    """A layer norm, one number for all units, and a parameter's own function."""

    gates = ("h", "z")

    def add_parameters(self, parameter):
        self.gain = parameter(self.hidden_size)
        self.shift = parameter(self.hidden_size)
        self.rate = parameter(1)
        self.decay = parameter(self.hidden_size)

    def update(self, wx, uh, state):
        (h,) = state
        n = F.layer_norm(wx.h + uh.h, (self.hidden_size,), self.gain, self.shift)
        z = torch.sigmoid(wx.z + uh.z + self.rate * h)
        return (z * h + (1 - z) * torch.tanh(n) * torch.exp(-(self.decay**2)),)


class SmoothCell(GatedCell):
    """Functions that torch puts together from simpler ones, and a branch on numbers."""

    gates = ("a", "b", "c")
    states = ("h", "m")

    def update(self, wx, uh, state):
        h, m = state
        a = F.silu(wx.a + uh.a) + F.elu(h) - F.leaky_relu(m, 0.1)
        b = F.softplus(wx.b + uh.b) + F.gelu(h)
        c = torch.where(m > 0, torch.abs(uh.c), wx.c.clamp(-1, 1))
        return torch.tanh(a * b), 0.5 * m + 0.1 * torch.maximum(c, h) / (1 + b * b)


class AttentiveCell(GatedCell):
    """A sum over the units of a row between two products."""

    gates = ("q", "v")

    def step(self, wx, state):
        (h,) = state
        w = self.split(wx)
        (q,) = self.recur(h, "q")
        weights = torch.sigmoid(w.q + q)
        weights = weights / (1 + weights.sum(-1, keepdim=True))
        (v,) = self.recur(weights * h, "v")
        return (torch.tanh(w.v + v + weights.mean(-1, keepdim=True) * h),)


class RememberingCell(GatedCell):
    """A state part that is another's last value, and one that is the same as another."""

    gates = ("h",)
    states = ("h", "last", "same")

    def update(self, wx, uh, state):
        h, last, same = state
        new = torch.tanh(wx.h + uh.h - 0.5 * last + 0.1 * same)
        return new, h, new


class ScalarCell(GatedCell):
    """One number for all units, as in FastGRNN (Kusupati et al., 2018), and several functions."""

    gates = ("a", "b")

    def add_parameters(self, parameter):
        self.zeta = parameter(1)

    def update(self, wx, uh, state):
        (h,) = state
        z = F.hardtanh(wx.a + uh.a, 0.0, 1.0)
        n = F.softplus(wx.b + uh.b) - F.silu(uh.a).clamp(max=1.0)
        return (z * h + torch.sigmoid(self.zeta) * torch.tanh(n),)


class DeepTransitionCell(GatedCell):
    """Three products in a step, one upon the other (Pascanu et al., 2014)."""

    gates = ("h",)

    def add_parameters(self, parameter):
        self.weight_2 = parameter(self.hidden_size, self.hidden_size)
        self.weight_3 = parameter(self.hidden_size, self.hidden_size)

    def step(self, wx, state):
        (u,) = self.recur(state[0])
        first = torch.tanh(wx + u)
        second = torch.relu(F.linear(first, self.weight_2) + first)
        return (torch.tanh(F.linear(second, self.weight_3) + 0.5 * state[0]),)


class CrossedStatesCell(GatedCell):
    """Parts of the state that a later stage reads before an earlier one, on its way back, does."""

    gates = ("i", "n")
    states = ("h", "c", "m")

    def step(self, wx, state):
        h, c, m = state
        w = self.split(wx)
        (u_i,) = self.recur(h, "i")
        i = torch.sigmoid(w.i + u_i + m)
        c_new = i * c + (1 - i) * h
        (u_n,) = self.recur(c_new, "n")
        n = torch.tanh(w.n + u_n)
        return (i * n + c, c_new, m * 0.5 + n * h)


class ZoneoutCell(GatedCell):
    """Zoneout (Krueger et al., 2017): masks are drawn with the projection, for all steps."""

    gates = ("h",)

    def project(self, x):
        wx = super().project(x)
        torch.manual_seed(int(1000 * x.shape[-1]))  # the same masks for whoever is compared
        kept = (torch.rand((*wx.shape[:-1], self.hidden_size), dtype=torch.float64) < 0.3).to(wx)
        return torch.cat([wx, kept], -1)

    def step(self, wx, state):
        (h,) = state
        z, kept = wx.split(self.hidden_size, -1)
        return (torch.where(kept > 0, h, torch.tanh(z + self.recur(h).h)),)


class PhaseCell(GatedCell):
    """Remainders: of a clock by a number, and of the input by periods that are learned."""

    gates = ("h",)
    states = ("h", "t")
    clocks = ("t",)
    per_unit = ("period",)

    def update(self, wx, uh, state):
        phase = (state[1] % 0.7) / 0.7
        rest = (3 * wx.h) % (self.period.abs() + 1)
        return torch.tanh(wx.h + uh.h) + phase + rest, state[1] + 1000.0


class MaskedCell(GatedCell):
    """Buffers that are no real numbers: which units may write, and how long each remembers."""

    gates = ("h",)

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        units = torch.arange(hidden_size)
        self.register_buffer("writes", units % 2 == 0)
        self.register_buffer("quarters", units % 4)

    def update(self, wx, uh, state):
        (h,) = state
        n = torch.tanh(wx.h + uh.h)
        kept = h * self.quarters / 4
        return (torch.where(self.writes, n + kept, kept) - 0.1 * n * self.writes * (h > 0),)


class LinearCell(Cell):
    """A cell that is no gated one: an input matrix, and whatever a subclass adds."""

    gates = 1
    per_unit = ()

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        rows = self.gates * hidden_size
        self.weight_ih = nn.Parameter(torch.randn(rows, input_size) / input_size**0.5)
        self.bias_ih = nn.Parameter(torch.randn(rows))
        for name in self.per_unit:
            setattr(self, name, nn.Parameter(torch.randn(hidden_size)))

    def project(self, x):
        return F.linear(x, self.weight_ih, self.bias_ih)


class MinGRUCell(LinearCell):
    """Feng et al., 2024: a gate and a candidate that see the input only."""

    gates = 2

    def step(self, wx, state):
        (h,) = state
        z, candidate = wx.chunk(2, -1)
        z = torch.sigmoid(z)
        return ((1 - z) * h + z * candidate,)


class LeakyCell(LinearCell):
    """A leaky integrator with one rate a unit, which starts at a learned state."""

    per_unit = ("rate", "start")

    def initial_state(self, batch_size):
        return (self.start.expand(batch_size, -1),)

    def step(self, wx, state):
        (h,) = state
        return (h + torch.sigmoid(self.rate) * (wx - h),)


class SRUCell(LinearCell):
    """Lei et al., 2018, without peepholes: a linear memory, and an output that nothing reads."""

    gates = 3
    states = ("h", "c")

    def step(self, wx, state):
        _, c = state
        candidate, f, r = wx.chunk(3, -1)
        f, r = torch.sigmoid(f), torch.sigmoid(r)
        c = f * c + (1 - f) * candidate
        return r * torch.tanh(c) + (1 - r) * candidate, c


class CascadeCell(LinearCell):
    """One memory feeds the next, which is linear in itself but not in the first."""

    gates = 2
    states = ("h", "m")

    def step(self, wx, state):
        h, m = state
        f, candidate = wx.chunk(2, -1)
        new = torch.where(candidate > 0, m / 2, -m) + candidate
        return torch.sigmoid(m) * h - f * torch.tanh(new - 2 * m), new


class SelectiveCell(LinearCell):
    """Products and sums of the input, and of nothing else, are as good as the input."""

    gates = 1

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.weight_mix = nn.Parameter(torch.randn(hidden_size, hidden_size))

    def step(self, wx, state):
        (h,) = state
        mixed = F.linear(torch.tanh(wx), self.weight_mix)
        return (torch.sigmoid(mixed) * h + wx * wx.mean(-1, keepdim=True),)


USER_CELLS = tuple(
    cell
    for cell in list(globals().values())
    if isinstance(cell, type) and issubclass(cell, Cell) and cell.__module__ == __name__
    if cell is not LinearCell
)
