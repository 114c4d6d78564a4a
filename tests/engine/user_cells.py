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


class AngularCell(GatedCell):
    """Angles, hyperbolas and powers of two."""

    gates = ("a", "b")

    def update(self, wx, uh, state):
        (h,) = state
        a = torch.atan2(wx.a + uh.a, torch.cosh(h)) + torch.asin(0.9 * torch.tanh(wx.b))
        b = torch.asinh(uh.b) + torch.acos(0.9 * torch.sin(h)) - torch.acosh(1.5 + h.abs())
        return (torch.tanh(torch.atan(a) + torch.sinh(torch.tanh(b))) * torch.exp2(-h * h),)


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
    """Buffers that are no real numbers: one a unit, and a row of a matrix."""

    gates = ("h",)

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        units = torch.arange(hidden_size)
        self.register_buffer("writes", units % 2 == 0)
        self.register_buffer("quarters", units % 4)
        self.register_buffer("shown", (units % 3 > 0)[None])

    def update(self, wx, uh, state):
        (h,) = state
        n = torch.where(self.shown, torch.tanh(wx.h + uh.h), wx.h)
        kept = h * self.quarters / 4
        return (torch.where(self.writes, n + kept, kept) - 0.1 * n * self.writes * (h > 0),)


class InfiniteCell(GatedCell):
    """Constants that are infinite or no number."""

    gates = ("f", "n")

    def update(self, wx, uh, state):
        (h,) = state
        a, f = wx.n + uh.n, wx.f + uh.f
        shown = torch.where(a > 0, a, torch.nan)
        n = torch.where(shown == shown, torch.tanh(shown.nan_to_num()), 0.2 * h)
        closed = torch.sigmoid(torch.where(f > 0.5, torch.inf, f))
        opened = torch.sigmoid(torch.where(f < -0.5, -torch.inf, f))
        return (h + opened * closed * (n - h),)


class HalfReadCell(GatedCell):
    """A gate that does not read the state: rows of a weight, of which no gradient comes."""

    gates = ("f", "n")

    def update(self, wx, uh, state):
        (h,) = state
        return (h + torch.sigmoid(wx.f) * (torch.tanh(wx.n + uh.n) - h),)


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


class MeanCell(LinearCell):
    """The mean of all inputs so far, which divides by their number."""

    states = ("h", "n")
    clocks = ("n",)

    def step(self, wx, state):
        h, n = state[0], state[1] + 1
        return h + (wx - h) / n, n


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


class AveragingCell(SelectiveCell):
    """A product of states and a mean of one, whose gradients are made of neither state."""

    states = ("h", "c")

    def step(self, wx, state):
        h, c = state
        n = torch.tanh(wx + F.linear(h - c, self.weight_mix))
        return torch.sigmoid(c.mean(-1, keepdim=True)) * n, 0.5 * (c + n)


class BareCell(Cell):
    """A cell of whatever parameters a subclass makes; its input goes into the steps as it is."""

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.make(input_size, hidden_size)

    def weight(self, *shape):
        return nn.Parameter(torch.randn(shape) / shape[-1] ** 0.5)

    def project(self, x):
        return x


class SideBySideCell(BareCell):
    """Input and state multiplied as one row, gates normalised together and cut afterwards."""

    states = ("h", "c")

    def make(self, I, H):
        self.gates = nn.Linear(I + H, 4 * H)
        self.norm = nn.LayerNorm(4 * H)

    def step(self, x, state):
        h, c = state
        gates = self.norm(self.gates(torch.cat([x, h], -1)))
        i, f, o = torch.sigmoid(gates[:, : 3 * self.hidden_size]).chunk(3, -1)
        c = f * c + i * torch.tanh(gates[:, 3 * self.hidden_size :])
        return o * torch.tanh(c), c


class KernelCell(BareCell):
    """Kernels of (inputs, outputs), as in Keras, and a bias that is a row of a matrix."""

    def make(self, I, H):
        self.kernel, self.recurrent_kernel = self.weight(I, 3 * H), self.weight(H, 3 * H)
        self.bias = self.weight(1, H)

    def project(self, x):
        return x @ self.kernel

    def step(self, wx, state):
        (h,) = state
        uh = torch.einsum("bh,hg->bg", h, self.recurrent_kernel)
        z, r = torch.sigmoid(wx + uh)[:, : 2 * self.hidden_size].chunk(2, 1)
        n = torch.tanh(wx[:, -self.hidden_size :] + r * uh[:, -self.hidden_size :] + self.bias)
        return (z * h + (1 - z) * n,)


class TimeAwareLSTMCell(BareCell):
    """T-LSTM (Baytas et al., 2017): the last feature of the input is a time, one for all units."""

    states = ("h", "c")

    def make(self, I, H):
        self.forget, self.shift = nn.Linear(H, H), nn.Parameter(torch.rand(1))
        self.inputs, self.gates = nn.Linear(I - 1, 4 * H), nn.Linear(H, 4 * H)

    def project(self, x):
        return torch.cat([self.inputs(x[..., :-1]), x[..., -1:].abs()], -1)

    def step(self, wx, state):
        h, c = state
        wx, time = wx[:, :-1], wx[:, -1:]
        short = torch.tanh(self.forget(c))
        c = c - short + short / torch.log(2.7 + self.shift**2 + time)
        i, f, g, o = (wx + self.gates(h)).view(-1, 4, self.hidden_size).unbind(1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class LegendreCell(BareCell):
    """LMU (Voelker et al., 2019): one number a row enters a memory of another width."""

    states = ("h", "m")
    order = 3

    @property
    def state_sizes(self):
        return self.hidden_size, self.order

    def make(self, I, H):
        self.e_x, self.e_h, self.e_m = (self.weight(1, n) for n in (I, H, self.order))
        self.w_x, self.w_h, self.w_m = (self.weight(H, n) for n in (I, H, self.order))
        self.register_buffer("a", torch.randn(self.order, self.order) / 9)
        self.register_buffer("b", torch.randn(self.order) / 9)

    def project(self, x):
        return torch.cat([F.linear(x, self.w_x), F.linear(x, self.e_x)], -1)

    def step(self, wx, state):
        h, m = state
        u = wx[:, -1:] + F.linear(h, self.e_h) + F.linear(m, self.e_m)
        m = 0.5 * m + F.linear(m, self.a) + u * self.b
        h = torch.tanh(wx[:, :-1] + F.linear(h, self.w_h) + F.linear(m, self.w_m))
        return h, m


class MixtureCell(BareCell):
    """A softmax over a few candidates, one over units, the largest unit, and one that counts."""

    states = ("h", "n")

    @property
    def state_sizes(self):
        return self.hidden_size, 1

    def make(self, I, H):
        self.inputs, self.shares = nn.Linear(I, 3 * H), nn.Linear(H, 3)
        self.u, self.v = self.weight(3 * H, H), self.weight(H)

    def project(self, x):
        return self.inputs(x)

    def step(self, wx, state):
        h, n = state
        p = F.softmax(self.shares(h) / (1 + n * n), -1)
        candidates = (wx + F.linear(h, self.u)).view(-1, 3, self.hidden_size)
        h = (torch.tanh(candidates) * 1.5).unbind(1)
        h = p[:, :1] * h[0] + p[:, 1:2] * h[1] + p[:, 2:] * h[2]
        h = h * (1 + F.softmax(h, -1)) / (1 + h.abs().amax(-1, keepdim=True))
        among = torch.stack([h, wx[:, : self.hidden_size]], 1).log_softmax(1).select(1, 0)
        open_ = torch.sigmoid(h @ self.v)[:, None]
        return open_ * h + 0.1 * among, 0.5 * n + h.mean(-1, keepdim=True)


class DecayCell(BareCell):
    """GRU-D (Che et al., 2018): values, what is known of them, and the time since; side by side."""

    states = ("h", "last")

    @property
    def state_sizes(self):
        return self.hidden_size, self.features

    def make(self, I, H):
        self.features = I // 2
        self.rate, self.mean = self.weight(self.features), self.weight(self.features)
        self.decay, self.gates = (
            nn.Linear(self.features, H),
            nn.Linear(2 * self.features + H, 2 * H),
        )
        self.proposal = nn.Linear(2 * self.features + H, H)

    def step(self, x, state):
        h, last = state
        x, gap = x[:, : self.features], x[:, -self.features :].abs()
        known = (gap < 0.5) & ~(x > 2) | (x < -1)
        last = torch.where(known, x, last)
        left = torch.exp(-torch.relu(self.rate * gap))
        x = torch.where(known, x, left * last + (1 - left) * self.mean)
        h, mask = torch.exp(-torch.relu(self.decay(gap))) * h, known.to(h.dtype)
        z, r = torch.sigmoid(self.gates(torch.cat([x, h, mask], -1))).chunk(2, -1)
        n = torch.tanh(self.proposal(torch.cat([x, r * h, mask], -1)))
        return (1 - z) * h + z * n, last


class PreparedCell(BareCell):
    """Recurrent matrices that are made of parameters: masked, without symmetry, of two factors."""

    def make(self, I, H):
        self.w, self.u, self.shares = self.weight(H, I), self.weight(H, H), self.weight(3)
        self.down, self.up = self.weight(2, H), self.weight(H, 2)
        self.register_buffer("mask", torch.rand(H, H) < 0.5)

    def step(self, x, state):
        (h,) = state
        upper, eye = self.u.triu(1), torch.eye(self.hidden_size, device=x.device)
        turning = upper - upper.T - 0.1 * eye
        p, q, r = F.softmax(self.shares, 0)
        masked = F.linear(h, self.u * self.mask)
        h = p * masked + q * (h @ turning.T) + r * F.linear(h, self.up @ self.down)
        return (torch.tanh(F.linear(x, F.softplus(self.w)) + h),)


class HeadsCell(BareCell):
    """One matrix a head, and heads beside each other as a state."""

    @property
    def state_sizes(self):
        return (2 * self.hidden_size,)

    def make(self, I, H):
        self.inputs, self.u = nn.Linear(I, 2 * H), self.weight(2, H, H)

    def project(self, x):
        return self.inputs(x)

    def step(self, wx, state):
        (h,) = state
        first, second = h.chunk(2, -1)
        uh = [torch.tanh(head @ u) for head, u in zip((second, first), self.u, strict=True)]
        return (torch.tanh(wx + torch.cat(uh, -1)) + 0.1 * torch.cat([first * second, first], -1),)


class SurrogateCell(BareCell):
    """Leaky integrate and fire, where all but spikes has another derivative (Zenke, 2018)."""

    states = ("s", "v")

    def make(self, I, H):
        self.inputs, self.u = nn.Linear(I, H), self.weight(H, H)

    def project(self, x):
        return self.inputs(x)

    def step(self, wx, state):
        s, v = state
        v = 0.9 * v * (1 - s.detach()) + wx + s @ self.u
        surrogate = 1 / (1 + 2 * (v - 0.3).abs()) ** 2
        spikes = torch.sigmoid(8 * v - 2)  # without a threshold, which rounding might pass
        return spikes.detach() + surrogate.detach() * (v - v.detach()), v


class OrderedCell(BareCell):
    """Units that move: sums so far as in ON-LSTM (Shen et al., 2019), turned round, every other."""

    @property
    def state_sizes(self):
        return (2 * self.hidden_size,)

    def make(self, I, H):
        self.inputs, self.u = nn.Linear(I, 2 * H), self.weight(2 * H, 2 * H)
        self.register_buffer("places", torch.randperm(2 * H))

    def project(self, x):
        return self.inputs(x)

    def step(self, wx, state):
        (h,) = state
        open_ = torch.cumsum(F.softmax(F.linear(h, self.u), -1), -1)
        turned = torch.cat([h[:, ::2], h[:, 1::2]], -1).flip(-1)
        return (torch.tanh(wx + open_ * h + 0.5 * turned + h.roll(1, -1) * h[:, self.places]),)


class TorchCell(BareCell):
    """torch.nn's own cells, which compute in place."""

    states = ("h", "c")

    def make(self, I, H):
        self.lstm, self.gru = nn.LSTMCell(I, H), nn.GRUCell(H, H)

    def step(self, x, state):
        h, c = self.lstm(x, state)
        return self.gru(h, c), c


class LevelsCell(BareCell):
    """States that a product's stage only compares, and that are made before it, one of no other."""

    states = ("h", "low", "high")

    def make(self, I, H):
        self.weight_ih, self.weight_hh = self.weight(H, I), self.weight(H, H)

    def project(self, x):
        return F.linear(x, self.weight_ih)

    def step(self, wx, state):
        h, low, high = state
        a = F.linear(torch.sigmoid(wx + h) * h, self.weight_hh)
        return torch.where((low < a) & (a < high), a, 0.5 * a) + wx, 0.9 * low - wx, wx


class NamesakeCell(GatedCell):
    """Names of parameters that are none in C, or differ in a dot alone."""

    gates = ("n",)

    def add_parameters(self, parameter):
        super().add_parameters(parameter)
        keys = ("1", "a,b", "a b", "a-b", "ä·b")
        self.parts = nn.ModuleDict({key: nn.LayerNorm(self.hidden_size) for key in keys})
        self.parts_of_1_of_weight = parameter(self.hidden_size)

    def update(self, wx, uh, state):
        n = uh.n + self.parts_of_1_of_weight
        for part in self.parts.values():
            n = part(n)
        return (torch.tanh(wx.n + n),)


class WatchingCell(BareCell):
    """A product, a sum and a softmax that are read by constants alone: detached products."""

    def make(self, I, H):
        self.w, self.u, self.v = self.weight(H, I), self.weight(H, H), self.weight(2, H, H)

    def project(self, x):
        return F.linear(x, self.w)

    def step(self, wx, state):
        (h,) = state
        a = F.linear(h, self.u)
        watched = a.sin() * a.tanh().sum(-1, keepdim=True)
        shares = F.linear(F.softmax(h, -1), self.v[0]).detach()
        return (torch.tanh(wx + a + F.linear(watched, self.v[1]).detach() + shares),)


USER_CELLS = tuple(
    cell
    for cell in list(globals().values())
    if isinstance(cell, type) and issubclass(cell, Cell) and cell.__module__ == __name__
    if cell not in (LinearCell, BareCell)
)

SHARING = (AttentiveCell, CrossedStatesCell, HeadsCell, NormedCell)
"""Cells of which threads wait for each other's units."""
