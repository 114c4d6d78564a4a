"""Cells such as a user writes, each in his own folder, for no other edit to be needed."""

import torch
import torch.nn.functional as F

from seqnets import GatedCell


class MGUCell(GatedCell):
    """Minimal gated unit (Zhou et al., 2016)."""

    gates = ("f", "n")

    def update(self, wx, uh, state):
        (h,) = state
        f = torch.sigmoid(wx.f + uh.f)
        n = torch.tanh(wx.n + f * uh.n)
        return (h + f * (n - h),)


class LayerNormCell(GatedCell):
    """Two sums over each row, one after the other, in the middle of a step."""

    gates = ("z", "n")
    per_unit = ("gain", "shift")

    def update(self, wx, uh, state):
        (h,) = state
        z = torch.sigmoid(wx.z + uh.z)
        n = F.layer_norm(wx.n + uh.n, (self.hidden_size,), self.gain, self.shift)
        return (z * h + (1 - z) * torch.tanh(n),)


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


class ZoneoutCell(GatedCell):
    """Zoneout (Krueger et al., 2017): masks are drawn with the projection, for all steps at once."""

    gates = ("h",)

    def project(self, x):
        wx = super().project(x)
        torch.manual_seed(int(1000 * x.shape[-1]))  # the same masks for whoever is compared
        kept = (torch.rand(wx.shape[:-1] + (self.hidden_size,), dtype=torch.float64) < 0.3).to(wx)
        return torch.cat([wx, kept], -1)

    def step(self, wx, state):
        (h,) = state
        z, kept = wx.split(self.hidden_size, -1)
        return (torch.where(kept > 0, h, torch.tanh(z + self.recur(h).h)),)


class LeakyCell(GatedCell):
    """Units that do not see each other: nothing to multiply, nothing to wait for."""

    gates = ("x",)
    per_unit = ("leak",)

    def step(self, wx, state):
        (h,) = state
        a = torch.sigmoid(self.leak)
        return (a * h + (1 - a) * torch.tanh(wx),)


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


USER_CELLS = (
    MGUCell,
    LayerNormCell,
    ScalarCell,
    DeepTransitionCell,
    ZoneoutCell,
    LeakyCell,
    CrossedStatesCell,
)
