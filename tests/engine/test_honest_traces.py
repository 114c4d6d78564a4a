"""What a step does besides operations is seen when it is traced, and left to the plain loop."""

import os
import pickle
import signal
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from functools import cached_property, lru_cache, partial, partialmethod
from types import FunctionType, MethodType, SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from seqnets import Recurrent, explain, unroll
from seqnets.cells import GatedCell, LSTMCell, Zoneout
from seqnets.engine import plans
from seqnets.engine.outside import Outside
from seqnets.engine.plans import program_of
from seqnets.engine.tracing.trace import trace_step
from seqnets.errors import BackendError, DtypeError, ShapeError

from .user_cells import BareCell

B, T, I, H = 2, 5, 3, 4


class Clipped(torch.autograd.Function):
    """The same number, with a gradient of at most 10 (Graves, 2013)."""

    @staticmethod
    def forward(ctx, a):
        return a.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad.clamp(-10, 10)


def clipped_by_a_hook(a):
    a = a * 2
    if a.requires_grad:
        a.register_hook(lambda grad: grad.clamp(-10, 10))
    return a


def hooked(a):
    a = a * 2
    if a.requires_grad:
        a.register_hook(lambda grad: grad / 3)
    return a


def unseen(a):
    with torch.no_grad():
        return 2 * a


WAYS = {
    "no_grad": lambda a, h: a + unseen(h),
    "a hook": lambda a, h: hooked(a),
    "a function that clips its gradient": lambda a, h: Clipped.apply(a),
    "a hook that clips": lambda a, h: clipped_by_a_hook(a),
    "how many rows there are": lambda a, h: a / a.shape[0],
    "whether gradients are on": lambda a, h: a * (2.0 if torch.is_grad_enabled() else 1.0),
}


def cell_of(function):
    class Custom(GatedCell):
        gates = ("n",)

        def update(self, wx, uh, state):
            return (self.candidate(function(wx.n + uh.n, state[0])),)

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


@pytest.mark.parametrize(
    "divided",
    [
        lambda wx, uh, h: (wx.n + uh.n) / (1 + wx.m + uh.m),
        lambda wx, uh, h: h + (wx.n / (wx.m + uh.m)).square(),
    ],
)
def test_a_step_that_divides_by_what_may_be_nearly_zero_runs_in_loops(divided):
    class Dividing(GatedCell):
        gates = ("n", "m")

        def update(self, wx, uh, state):
            return (divided(wx, uh, state[0]),)

    cell = Dividing(I, 256)  # rounding is largest where most units are compared

    assert explain(cell, torch.randn(B, T, I)).chosen != "reference"


@pytest.mark.parametrize("shown", [lambda y: y, torch.tanh])
def test_a_step_of_which_only_the_trace_overflows_runs_in_the_plain_loop(shown):
    class Wide(GatedCell):
        gates = ("n",)

        def update(self, wx, uh, state):
            spread = (1e19 * (wx.n + uh.n)).var(-1, keepdim=True)
            return (shown(1e-38 * spread + 0 * state[0]),)

    assert explain(Wide(I, H), torch.randn(B, T, I)).chosen == "reference"


def test_a_gradient_that_overflows_in_the_step_alone_is_the_reason():
    class Near(GatedCell):
        gates = ("n",)

        def update(self, wx, uh, state):
            return (1 / (1 + self.gate(wx.n + uh.n) ** -0.3),)

    told = explain(Near(I, 64), torch.randn(B, T, I)).refusals["c"]

    assert "its gradient is infinite or NaN for large inputs" in told
    assert "hook" not in told


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


class Settings:
    __slots__ = ("__dict__",)


@pytest.mark.parametrize("kind", [SimpleNamespace, Settings])
def test_a_cell_with_an_object_that_holds_its_settings_is_traced_once(kind, monkeypatch):
    class Settled(GatedCell):
        gates = ("n",)

        def update(self, wx, uh, state):
            return (torch.tanh(self.settings.factor * (wx.n + uh.n)),)

    cell, x = Settled(I, H), torch.randn(B, T, I)
    cell.settings = kind()
    cell.settings.factor = 0.5
    unroll(cell, x)
    monkeypatch.setattr(plans, "trace_step", None)

    unroll(cell, x)


class ByNames(GatedCell):
    gates = ("n",)
    names, units = frozenset(), slice(None)

    def update(self, wx, uh, state):
        bent = wx.n.sin() if "bent" in self.names else wx.n
        return (torch.tanh(bent + uh.n + state[0][:, self.units].mean(-1, keepdim=True)),)


@pytest.mark.parametrize(
    ("name", "values"),
    [("names", [{"bent"}, set()]), ("units", [slice(0, 2), slice(None, None, 1), slice(2), ...])],
)
def test_a_set_or_a_slice_among_attributes_is_compared(name, values, monkeypatch):
    traced = []
    monkeypatch.setattr(plans, "trace_step", lambda cell: traced.append(cell) or trace_step(cell))
    cell, x = ByNames(I, H), torch.randn(B, T, I)

    for value in values * 2:
        setattr(cell, name, value)
        for _ in range(2):
            y, _ = unroll(cell, x, backend="c")
            torch.testing.assert_close(y, unroll(cell, x, backend="reference")[0])

    assert len(traced) == len(values)


@pytest.mark.parametrize("container", [dict, list, set, frozenset, tuple])
def test_a_containers_own_attributes_are_compared_too(container):
    class Named(container):
        bent = False

    class ByAttribute(GatedCell):
        gates = ("n",)

        def update(self, wx, uh, state):
            return (torch.tanh((wx.n.sin() if self.names.bent else wx.n) + uh.n),)

    cell, x = ByAttribute(I, H), torch.randn(B, T, I)
    cell.names = Named()
    unroll(cell, x, backend="c")

    cell.names.bent = True

    expected = unroll(cell, x, backend="reference")[0]
    torch.testing.assert_close(unroll(cell, x, backend="c")[0], expected)


def test_a_set_that_changes_is_another_one():
    cell, x = ByNames(I, H), torch.randn(B, T, I)
    cell.names = {"plain"}
    unroll(cell, x)

    cell.names.add("bent")

    expected = unroll(cell, x, backend="reference")[0]
    torch.testing.assert_close(unroll(cell, x, backend="c")[0], expected)


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


def test_an_attribute_that_a_step_writes_once_is_said_to_belong_into_init():
    class Lazy(GatedCell):
        gates = ("n",)

        @cached_property
        def scale(self):
            return self.hidden_size**-0.5

        def update(self, wx, uh, state):
            return (torch.tanh(wx.n + self.scale * uh.n),)

    told = explain(Lazy(I, H), torch.randn(B, T, I)).refusals["c"]

    assert "it writes its attribute scale, which was not there; instead: in __init__" in told


class Adaptive(GatedCell):
    """Steps by a gradient over the root of what is never negative."""

    gates = ("g",)
    states = ("h", "v")

    def update(self, wx, uh, state):
        h, v = state
        g = torch.tanh(wx.g + uh.g)
        v = 0.9 * v + 0.1 * g * g
        return 0.9 * h + g / unseen((v + 1e-3).sqrt()), v


def test_no_grad_is_seen_where_a_state_may_not_be_negative():
    told = explain(Adaptive(I, H), torch.randn(B, T, I))

    assert told.chosen == "reference"
    assert "no_grad" in told.refusals["c"]


class Listing(GatedCell):
    gates = ("n",)

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.seen = []

    def update(self, wx, uh, state):
        self.seen.append(wx.n.shape)
        return (torch.tanh(wx.n + uh.n),)


class Counting(GatedCell):
    gates = ("n",)

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.register_buffer("seen", torch.zeros(()))

    def update(self, wx, uh, state):
        self.seen.add_(1)
        return (torch.tanh(wx.n + uh.n),)


@pytest.mark.parametrize("cell_cls", [Listing, Counting])
def test_a_step_that_adds_to_what_it_has_is_run_as_often_as_there_are_steps(cell_cls):
    cell, x = cell_cls(I, H), torch.randn(B, T, I)

    told = explain(cell, x)
    unroll(cell, x)

    assert told.chosen == "reference"
    assert list(cell.seen) == [(B, H)] * T if cell_cls is Listing else cell.seen == T


def test_a_module_with_hooks_is_called_at_every_step_and_with_nothing_else():
    class Inner(GatedCell):
        gates = ("n",)

        def __init__(self, *sizes):
            super().__init__(*sizes)
            self.squashed = nn.Tanh()

        def update(self, wx, uh, state):
            return (self.squashed(wx.n + uh.n),)

    cell, shapes = Inner(I, H), []
    cell.squashed.register_forward_hook(lambda module, given, made: shapes.append(made.shape))
    x = torch.randn(B, T, I)

    unroll(cell, x)

    assert shapes == [(B, H)] * T
    assert "squashed has hooks, which a loop would not call" in explain(cell, x).refusals["c"]


def test_a_module_with_hooks_is_named_by_its_whole_path():
    cell = Zoneout(LSTMCell(I, H), 0.1)
    cell.cell.bend = nn.Sequential(nn.Tanh())
    cell.cell.bend[0].register_forward_hook(lambda *_: None)

    assert "cell.bend.0 has hooks" in explain(cell, torch.randn(B, T, I)).refusals["c"]


def test_to_explain_changes_nothing_of_a_module_that_counts_what_it_sees():
    class Normed(GatedCell):
        gates = ("n",)

        def __init__(self, *sizes):
            super().__init__(*sizes)
            self.norm = nn.BatchNorm1d(H)

        def project(self, x):
            wx = super().project(x)
            return self.norm(wx.flatten(0, -2)).view_as(wx)

        def update(self, wx, uh, state):
            return (torch.tanh(wx.n + uh.n),)

    cell = Normed(I, H)
    before = {name: buffer.clone() for name, buffer in cell.named_buffers()}

    explain(cell, torch.randn(B, T, I))

    torch.testing.assert_close(dict(cell.named_buffers()), before, rtol=0, atol=0)


def newer(self, wx, uh, state):
    return (torch.sin(wx.n + uh.n),)


def doubled(self, a):
    return 2 * torch.tanh(a)


def halved(self):
    return 0.5


CHANGES = {
    "an attribute of its class": lambda cls: setattr(cls, "alpha", 3.0),
    "a private one": lambda cls: setattr(cls, "_beta", 3.0),
    "one that is taken away": lambda cls: delattr(cls, "gamma"),
    "a method of its class": lambda cls: setattr(cls, "update", newer),
    "the code of a method": lambda cls: setattr(cls.update, "__code__", newer.__code__),
    "the code of a helper": lambda cls: setattr(cls._act, "__code__", doubled.__code__),
    "the code of a property": lambda cls: setattr(cls.rate.fget, "__code__", halved.__code__),
    "the code of a static method": lambda cls: setattr(
        cls.shifted, "__code__", (lambda a: a + 1).__code__
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_equation_that_was_changed_is_traced_anew(change):
    class Base(GatedCell):
        gates = ("n",)
        gamma = 1.0

    class Scaled(Base):
        alpha, _beta, gamma = 1.0, 1.0, 2.0

        @property
        def rate(self):
            return 1.0

        @staticmethod
        def shifted(a):
            return a

        def _act(self, a):
            return torch.tanh(a)

        def update(self, wx, uh, state):
            a = self.alpha * self._beta * self.gamma * self.rate * (wx.n + uh.n)
            return (self._act(self.shifted(a)),)

    cell, x = Scaled(I, H), torch.randn(B, T, I)
    before, _ = unroll(cell, x)

    CHANGES[change](Scaled)

    torch.testing.assert_close(unroll(cell, x)[0], unroll(cell, x, backend="reference")[0])
    assert not torch.allclose(before, unroll(cell, x)[0])


def test_a_number_of_a_buffer_that_is_read_as_pythons_is_followed():
    class Annealed(GatedCell):
        gates = ("n",)

        def __init__(self, *sizes):
            super().__init__(*sizes)
            self.register_buffer("alpha", torch.zeros(()))

        def update(self, wx, uh, state):
            return (torch.tanh(wx.n + uh.n) + self.alpha.tolist() * state[0],)

    cell, x = Annealed(I, H), torch.randn(B, T, I)
    unroll(cell, x)

    cell.alpha.fill_(0.7)

    torch.testing.assert_close(unroll(cell, x)[0], unroll(cell, x, backend="reference")[0])


class Masked(GatedCell):
    """Draws which units stay as they are, for all steps at once."""

    gates = ("n",)

    def project(self, x):
        stays = torch.rand(*x.shape[:-1], self.hidden_size, dtype=x.dtype) < 0.5
        return torch.cat([super().project(x), stays.to(x.dtype)], -1)

    def step(self, wx, state):
        wx, stays = wx.chunk(2, -1)
        return (torch.where(stays > 0, state[0], torch.tanh(wx + self.recur(state[0]).n)),)


def test_masks_are_drawn_once_for_a_gradient_and_its_gradient():
    cell, x = Masked(I, H).double(), torch.randn(B, T, I).double().requires_grad_()

    found, drawn_next = [], []
    for again in (False, True):
        torch.manual_seed(3)
        total = (unroll(cell, x, backend="c")[0].sin() * torch.rand(T, 1)).sum()
        found.append(torch.autograd.grad(total, x, create_graph=again)[0])
        drawn_next.append(torch.rand(3))

    torch.testing.assert_close(*found)
    assert torch.equal(*drawn_next)


def test_to_trace_a_cell_that_draws_leaves_random_numbers_where_they_were():
    cell, x = Masked(I, H + 1), torch.randn(B, T, I)
    torch.manual_seed(3)
    expected = torch.rand(3)

    torch.manual_seed(3)
    explain(cell, x)

    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


@pytest.mark.parametrize("memory", ["full", "lean"])
@pytest.mark.parametrize("time_first", [False, True])
def test_a_projection_may_look_at_other_steps(time_first, memory):
    class Averaging(GatedCell):
        gates = ("n",)

        def project(self, x):
            if x.dim() == 3:
                x = x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None]
            return super().project(x)

        def update(self, wx, uh, state):
            return (torch.tanh(wx.n + uh.n),)

    cell, x = Averaging(I, H), torch.randn(B, 70, I)  # steps in two chunks
    if time_first:
        x = x.transpose(0, 1).contiguous().transpose(0, 1)

    backends = "c", "eager", "reference"
    found = [unroll(cell, x, backend=backend, memory=memory)[0] for backend in backends]

    torch.testing.assert_close(found[:2], [found[2]] * 2)


def test_an_equation_first_met_while_anomalies_are_looked_for_is_traced():
    class Fresh(GatedCell):
        gates = ("n",)

        def update(self, wx, uh, state):
            return (torch.tanh(wx.n + uh.n) * 0.75,)

    with torch.autograd.set_detect_anomaly(True):
        unroll(Fresh(I, H), torch.randn(B, T, I))

    assert explain(Fresh(I, H), torch.randn(B, T, I)).chosen == "c"


def test_anomalies_are_looked_for_again_after_several_threads_have_traced_at_once():
    def trace(begun, done):
        plans._in_own_thread(lambda: (begun.set(), done.wait(5)))

    events = [(threading.Event(), threading.Event()) for _ in range(2)]
    threads = [threading.Thread(target=trace, args=both) for both in events]
    with torch.autograd.set_detect_anomaly(True):
        for thread, (begun, _) in zip(threads, events, strict=True):
            thread.start()
            assert begun.wait(5)
        for thread, (_, done) in zip(threads, events, strict=True):
            done.set()
            thread.join()

        assert torch.is_anomaly_check_nan_enabled()


def test_an_anomaly_mode_that_looks_for_no_nan_looks_for_none_after_a_trace():
    for check_nan in (True, False):
        with torch.autograd.set_detect_anomaly(True, check_nan):
            plans._in_own_thread(lambda: None)

            assert torch.is_anomaly_check_nan_enabled() == check_nan


def test_an_anomaly_mode_that_is_left_while_a_thread_traces_stays_off():
    begun, done = threading.Event(), threading.Event()
    thread = threading.Thread(
        target=lambda: plans._in_own_thread(lambda: (begun.set(), done.wait(5)))
    )

    with torch.autograd.set_detect_anomaly(True):
        thread.start()
        assert begun.wait(5)
    done.set()
    thread.join()

    assert not torch.is_anomaly_enabled()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_process_that_is_forked_while_a_thread_traces_looks_for_anomalies():
    begun, done = threading.Event(), threading.Event()

    def trace():
        plans._in_own_thread(lambda: (begun.set(), done.wait(5)))

    thread = threading.Thread(target=trace)
    with torch.autograd.set_detect_anomaly(True):
        thread.start()
        assert begun.wait(5)
        child = os.fork()
        if child == 0:
            before = torch.is_anomaly_check_nan_enabled()
            plans._in_own_thread(lambda: None)
            os._exit(not (before and torch.is_anomaly_check_nan_enabled()))
        done.set()
        thread.join()

    assert os.waitpid(child, 0)[1] == 0


def test_threads_that_need_the_same_equation_trace_it_once(monkeypatch):
    class Fresh(GatedCell):
        gates = ("n",)

        def update(self, wx, uh, state):
            return (torch.tanh(wx.n + uh.n) * 0.625,)

    traced, trace = [], plans.trace_step

    def slowly(cell):
        traced.append(cell)
        time.sleep(0.1)  # until the others have come
        return trace(cell)

    monkeypatch.setattr(plans, "trace_step", slowly)
    cell = Fresh(I, H)
    with ThreadPoolExecutor(plans._MOST_TRACES + 1) as threads:
        made = list(threads.map(plans.plan_of, [cell] * (plans._MOST_TRACES + 1)))

    assert len(traced) == 1
    assert all(plan is made[0] for plan in made)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_process_that_is_forked_while_another_thread_traces_can_trace(monkeypatch):
    class Fresh(GatedCell):
        gates = ("n",)

        def update(self, wx, uh, state):
            return (torch.tanh(wx.n + uh.n) * 0.375,)

    tracing, done, trace = threading.Event(), threading.Event(), plans.trace_step

    def waiting(cell):
        tracing.set()
        assert done.wait(20)
        return trace(cell)

    monkeypatch.setattr(plans, "trace_step", waiting)
    cell = Fresh(I, H)
    thread = threading.Thread(target=plans.plan_of, args=(cell,))
    thread.start()
    assert tracing.wait(5)
    child = os.fork()
    if child == 0:
        signal.alarm(10)  # it would wait for ever
        done.set()
        plans.plan_of(cell)
        os._exit(0)
    done.set()
    thread.join()

    assert os.waitpid(child, 0)[1] == 0


def test_random_numbers_inside_a_step_are_the_reason():
    class Noisy(GatedCell):
        gates = ("n",)

        def update(self, wx, uh, state):
            return (F.dropout(torch.tanh(wx.n + uh.n), 0.5),)

    told = explain(Noisy(I, H), torch.randn(B, T, I)).refusals["eager"]

    assert "for random numbers: project is to draw them, and no step to call it" in told


def in_order(a):
    return a.sort(-1)[0]


class Sorting(GatedCell):
    gates = ("n",)

    def update(self, wx, uh, state):
        n = torch.tanh(wx.n + uh.n)
        return (in_order(n),)


class Failing(Sorting):
    def update(self, wx, uh, state):
        n = torch.tanh(wx.n + uh.n)
        return (n.repeat(n.shape[0]).view(3, 3),)


@pytest.mark.parametrize(
    ("cell_cls", "function", "at"), [(Sorting, in_order, 1), (Failing, Failing.update, 2)]
)
def test_a_refusal_names_the_users_line_that_it_was_found_at(cell_cls, function, at):
    told = explain(cell_cls(I, H), torch.randn(B, T, I)).refusals["eager"]

    line, name = function.__code__.co_firstlineno + at, function.__name__
    assert told.endswith(f" (line {line} of test_honest_traces.py, in {name})")


def test_a_refusal_names_the_cell_of_a_notebook_as_it_is_shown(monkeypatch):
    class Another(Failing):
        pass

    names = {__file__: ("Cell", "In[3]")}  # of IPython, which keeps cells in files of other names
    shell = SimpleNamespace(compile=SimpleNamespace(format_code_name=names.get))
    ipython = SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)

    told = explain(Another(I, H), torch.randn(B, T, I)).refusals["eager"]

    assert told.endswith(" of Cell In[3], in update)")


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


class Projecting(BareCell):
    """Projects all steps at once to something else than a row of columns for each."""

    def make(self, I, H):
        self.weight_hh = self.weight(H, H)

    def step(self, wx, state):
        return (torch.tanh(wx[..., :H] + F.linear(state[0], self.weight_hh)),)


class StepsAsColumns(Projecting):
    def project(self, x):
        return F.pad(x, (0, 2))[:, 1:]


class OneForAllRows(Projecting):
    def project(self, x):
        return F.pad(x, (0, 1)).mean(0, keepdim=True) if x.dim() == 3 else F.pad(x, (0, 1))


@pytest.mark.parametrize("backend", ["auto", "c", "eager", "reference"])
@pytest.mark.parametrize("cell_cls", [StepsAsColumns, OneForAllRows])
def test_a_projection_of_another_shape_is_refused_before_any_loop_reads_it(cell_cls, backend):
    with pytest.raises((ShapeError, BackendError), match="project gives"):
        unroll(cell_cls(I, H), torch.randn(B, T, I), backend=backend)


class Growing(Projecting):
    def project(self, x):
        return F.pad(x, (0, 1 if x.dim() < 3 or x.shape[1] < 20 else 2))


class Narrowing(Projecting):
    def project(self, x):
        wx = F.pad(x, (0, 1))
        return wx.half() if x.shape[1] == 20 else wx


@pytest.mark.filterwarnings("ignore:Dynamo detected a call:UserWarning")  # before the error
@pytest.mark.parametrize("run", ["c", "eager", "compiled"])
@pytest.mark.parametrize(
    ("cell_cls", "error", "told"),
    [
        (Growing, ShapeError, r"shape \(2, 20, 5\).* expected 4 columns"),
        (Narrowing, DtypeError, "project gives torch.float16 for inputs of torch.float32"),
    ],
)
def test_a_projection_that_changes_with_the_number_of_steps_is_refused(cell_cls, error, told, run):
    cell, x = cell_cls(I, H), torch.randn(2, 20, I)
    layer = Recurrent(cell) if run == "compiled" else Recurrent(cell, backend=run)
    layer = torch.compile(layer, backend="eager") if run == "compiled" else layer

    with pytest.raises(error, match=told):
        layer(x)


def test_a_projection_in_another_dtype_is_left_to_the_plain_loop():
    class Halved(Projecting):
        def project(self, x):
            return F.pad(x, (0, 1)).half()

    told = explain(Halved(I, H), torch.randn(B, T, I))

    assert told.chosen == "reference"
    assert "project gives torch.float16, not torch.float32" in told.refusals["c"]


class StartedCell(BareCell):
    """Begins where all units but one are impossible, in the logarithm of a chance."""

    def make(self, I, H):
        self.weight_hh = self.weight(H, H)

    def initial_state(self, batch_size):
        start = self.weight_hh.new_full((batch_size, self.hidden_size), -torch.inf)
        start[:, 0] = 0
        return (start,)


class ViterbiCell(StartedCell):
    def step(self, wx, state):
        return (torch.maximum(state[0], state[0].roll(1, -1)) + wx,)


class ForwardCell(StartedCell):
    def step(self, wx, state):
        return ((state[0].unsqueeze(-1) + self.weight_hh).logsumexp(1) + wx,)


class MissingCell(BareCell):
    """Reads 0 where an input of every other column is missing, NaN."""

    def make(self, I, H):
        self.weight_hh = self.weight(H, H)

    def step(self, wx, state):
        value = wx[:, ::2]
        value = torch.where(torch.isnan(value), 0.0, value)
        both = torch.cat([value, wx[:, 1::2]], -1)
        return (torch.tanh(both + state[0] @ self.weight_hh.T),)


class OverflowingCell(MissingCell):
    """Divides its halves by one number each, which is infinite for large inputs."""

    def step(self, wx, state):
        divided = wx.unflatten(-1, (2, -1)) / wx[:, :2, None].exp()
        return (torch.tanh(divided.flatten(1) + state[0] @ self.weight_hh.T),)


@pytest.mark.parametrize("cell_cls", [ViterbiCell, ForwardCell, MissingCell, OverflowingCell])
def test_what_is_no_number_does_not_spread_to_units_that_it_is_not_moved_to(cell_cls):
    cell, x = cell_cls(H, H), torch.randn(B, T, H)
    if cell_cls is MissingCell:
        x[0, 1, 2] = x[1, 0, 0] = torch.nan

    y, state = unroll(cell, x)

    expected, last = unroll(cell, x, backend="reference")
    assert expected[:, -1].isfinite().all()
    torch.testing.assert_close((y, *state), (expected, *last))
    with pytest.raises(BackendError, match=r"moves units to other places.* is no number"):
        unroll(cell, x, backend="eager")


def test_a_step_that_makes_a_number_of_nan_is_refused_for_that():
    class Powers(GatedCell):
        gates = ("n",)

        def update(self, wx, uh, state):
            return (0.1 * torch.ones_like(wx.n) ** wx.n + 0.1 * uh.n,)  # 1 ** NaN is 1

    told = explain(Powers(I, H), torch.randn(B, T, I)).refusals["c"]

    assert "a number for NaN, of which its recorded operations make NaN" in told


def test_units_that_are_moved_run_in_loops_where_all_are_numbers():
    class Rolled(ViterbiCell):
        initial_state = BareCell.initial_state

    assert explain(Rolled(H, H), torch.randn(B, T, H)).chosen != "reference"


def test_units_that_are_moved_run_in_loops_where_a_mask_hides_some_that_are_no_numbers():
    class Moved(BareCell):
        def make(self, I, H):
            self.weight_hh = self.weight(H, H)

        def step(self, wx, state):
            return (torch.tanh(wx.roll(1, -1) + state[0] @ self.weight_hh.T),)

    cell = Zoneout(Moved(H, H), 0.3).train()

    assert explain(cell, torch.randn(B, T, H)).chosen != "reference"


class Unsized:
    def __len__(self):
        raise ZeroDivisionError


@pytest.mark.parametrize("held", [torch.tensor(0.5), np.array(0.5), Unsized()], ids=type)
def test_something_without_a_length_may_be_an_attribute(held):
    class Holds(LSTMCell):
        def update(self, wx, uh, state):
            _, c = super().update(wx, uh, state)
            return c * (held if isinstance(held, torch.Tensor) else 1.0), c

    cell, x = Holds(I, H), torch.randn(B, T, I)
    cell.held = held

    assert explain(cell, x).chosen
    torch.testing.assert_close(unroll(cell, x)[0], unroll(cell, x, backend="reference")[0])


def test_zeros_of_both_signs_are_two_attributes():
    class Angle(LSTMCell):
        zero = 0.0

        def __init__(self, *sizes):
            super().__init__(*sizes)
            self.zero = 0.0

        def update(self, wx, uh, state):
            _, c = super().update(wx, uh, state)
            return torch.atan2(self.zero + 0 * c, c - 9), c

    cell, x = Angle(I, H), torch.randn(B, T, I)
    unroll(cell, x)
    cell.zero = -0.0
    torch.testing.assert_close(unroll(cell, x)[0], unroll(cell, x, backend="reference")[0])


class Bent:
    """What a cell may inherit besides."""

    rate = 1.0

    def bend(self, a):
        return torch.tanh(a)


class Inner(nn.Module):
    def forward(self, a):
        return torch.relu(a)


OUTSIDE = {
    "a mixin's method": (Bent, "bend", lambda self, a: torch.sin(a)),
    "a mixin's attribute": (Bent, "rate", 2.0),
    "a module's forward": (Inner, "forward", lambda self, a: torch.sin(a)),
}


@pytest.mark.parametrize("what", OUTSIDE)
def test_what_a_cell_is_made_of_may_change_without_being_a_cells(what, monkeypatch):
    class Mixed(Bent, GatedCell):
        gates = ("n",)

        def __init__(self, *sizes):
            super().__init__(*sizes)
            self.inner = Inner()

        def update(self, wx, uh, state):
            return (self.rate * self.bend(wx.n + uh.n) + 0.1 * self.inner(wx.n),)

    cell, x = Mixed(I, H), torch.randn(B, T, I)
    before, _ = unroll(cell, x)

    monkeypatch.setattr(*OUTSIDE[what])

    torch.testing.assert_close(unroll(cell, x)[0], unroll(cell, x, backend="reference")[0])
    assert not torch.allclose(before, unroll(cell, x)[0])


factor, named = 0.5, {"factor": 0.5}
beside = {"factor": 0.5, "a tensor": torch.zeros(())}
held = SimpleNamespace(factor=0.5, inside=SimpleNamespace(factor=0.5))
all_held = [SimpleNamespace(factor=0.5)]


class Held:
    factor = 0.5

    @staticmethod
    def scaled(a):
        return factor * a

    @property
    def known(self):
        return factor


class Slot:
    __slots__ = ("factor",)

    def __init__(self):
        self.factor = 0.5


def scaled(a, factor=0.5, *, more=1.0):
    return factor * more * a


def inner(a):
    return scaled(a)


def double(a):
    return 2 * a


def by_default(a, function=inner):
    return function(a)


def with_factor(factor):
    return lambda a: factor * a


def times(a):
    return factor * a


def times_all(*all_of_them):
    return times(all_of_them[-1])


@lru_cache
def remembered():
    return factor


class Called:
    def __call__(self, a):
        return self.times(a)

    def times(self, a):
        return factor * a


class Rated:
    def __init__(self):
        self.factor = 0.5

    def all_times(self, a):
        return self.times(a)

    def times(self, a):
        return self.factor * factor * a


def times_of(settings, a):
    return settings.factor * a


def times_of_another(a):
    other = rated
    return other.factor * a


def times_of_matched(a):
    match rated:
        case Rated(factor=found):
            return found * a


def times_of_imported(a):
    from tests.engine import test_honest_traces as here

    return here.factor * a


def times_of_imported_relatively(a):
    from . import test_honest_traces as here

    return here.factor * a


def times_of_found_relatively(a):
    from .test_honest_traces import factor as found

    return found * a


def times_of_own_class(a):
    class Local:
        rate = factor

    return Local.rate * a


slot, an_object, called, rated = Slot(), Held(), Called(), Rated()
bound, static = called.times, staticmethod(times)
bend, either = torch.tanh, inner
once_scaled = with_factor(0.5)
in_part, by_name = partial(inner), {"inner": inner}
HERE = sys.modules[__name__]

READ = {
    "a global": (lambda a: factor * a, (HERE, "factor", 2.0)),
    "one of an imported module": (times_of_imported, (HERE, "factor", 2.0)),
    "one of a module beside": (times_of_imported_relatively, (HERE, "factor", 2.0)),
    "one in a module beside": (times_of_found_relatively, (HERE, "factor", 2.0)),
    "one in the body of a class": (times_of_own_class, (HERE, "factor", 2.0)),
    "one in a comprehension": (lambda a: sum([factor * a for _ in "ab"]), (HERE, "factor", 2.0)),
    "one with a comprehension's name": (
        lambda a: factor * a + sum([(lambda: 0 * factor * a)() for factor in (1, 2)]),
        (HERE, "factor", 2.0),
    ),
    "a dictionary": (lambda a: named["factor"] * a, (named, "factor", 2.0)),
    "one with tensors": (lambda a: beside["factor"] * a, (beside, "factor", 2.0)),
    "an object in a list": (lambda a: all_held[0].factor * a, (all_held[0], "factor", 2.0)),
    "a slot": (lambda a: slot.factor * a, (slot, "factor", 2.0)),
    "a static method's global": (lambda a: Held.scaled(a), (HERE, "factor", 2.0)),
    "a property's global": (lambda a: an_object.known * a, (HERE, "factor", 2.0)),
    "an object's attribute": (lambda a: held.factor * a, (held, "factor", 2.0)),
    "one of its attribute": (lambda a: held.inside.factor * a, (held.inside, "factor", 2.0)),
    "a class's attribute": (lambda a: Held.factor * a, (Held, "factor", 2.0)),
    "a function": (lambda a: scaled(a), (HERE, "scaled", lambda a: 2 * a)),
    "its default": (lambda a: scaled(a), (scaled, "__defaults__", (2.0,))),
    "its default by name": (lambda a: scaled(a), (scaled, "__kwdefaults__", {"more": 2.0})),
    "its code": (lambda a: scaled(a, 1), (scaled, "__code__", (lambda a, b: 2 * a).__code__)),
    "a function's function": (lambda a: inner(a), (HERE, "scaled", lambda a: 2 * a)),
    "that of one in part": (lambda a: in_part(a), (HERE, "scaled", lambda a: 2 * a)),
    "one of two": (lambda a: inner(a) - double(a) + either(a), (HERE, "either", double)),
    "one by default": (lambda a: by_default(a), (by_default, "__defaults__", (double,))),
    "one in a dictionary": (lambda a: by_name["inner"](a), (HERE, "scaled", lambda a: 2 * a)),
    "a variable around one": (lambda a: once_scaled(a), (HERE, "once_scaled", with_factor(2.0))),
    "a function of torch": (lambda a: bend(a), (HERE, "bend", torch.sin)),
    "an object that is given on": (lambda a: times_of(rated, a), (rated, "factor", 2.0)),
    "one under another name": (times_of_another, (rated, "factor", 2.0)),
    "one in a pattern": (times_of_matched, (rated, "factor", 2.0)),
    "one of a method": (lambda a: rated.times(a), (rated, "factor", 2.0)),
    "a global of a method's method": (lambda a: rated.all_times(a), (HERE, "factor", 2.0)),
    "a bound method's global": (lambda a: bound(a), (HERE, "factor", 2.0)),
    "a called object's global": (lambda a: called(a), (HERE, "factor", 2.0)),
    "one of a static method alone": (lambda a: static(a), (HERE, "factor", 2.0)),
    "one of a function that is wrapped": (
        lambda a: (remembered.cache_clear(), remembered())[1] * a,
        (HERE, "factor", 2.0),
    ),
}


@pytest.mark.parametrize("what", READ)
def test_what_a_step_reads_outside_its_cell_may_change(what, monkeypatch):
    function, (owner, name, value) = READ[what]
    cell, x = cell_of(lambda a, h: function(a)), torch.randn(B, T, I)
    before, _ = unroll(cell, x)

    change = monkeypatch.setitem if isinstance(owner, dict) else monkeypatch.setattr
    change(owner, name, value)

    torch.testing.assert_close(unroll(cell, x)[0], unroll(cell, x, backend="reference")[0])
    assert not torch.allclose(before, unroll(cell, x)[0])
    assert explain(cell, x).chosen == "c"


class Calling(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, a):
        return self.function(a)


def holding(held, call=lambda held, a: held(a), of_class=False):
    """A cell that holds a function, or something with one in it."""

    class Holding(GatedCell):
        gates = ("n",)

        def update(self, wx, uh, state):
            return (torch.tanh(call(self.held, wx.n + uh.n)),)

    cell = Holding(I, H)
    (Holding if of_class else cell).held = held
    return cell


HELD = {
    "a function": lambda: holding(times),
    "one around a variable": lambda: holding((lambda f: lambda a: f(a))(times)),
    "one by default": lambda: holding(lambda a, f=times: f(a)),
    "one in part": lambda: holding(partial(times_all, 1.0)),
    "one in a list": lambda: holding([torch.tanh, times], lambda held, a: held[1](a)),
    "one in a dictionary": lambda: holding({"f": times}, lambda held, a: held["f"](a)),
    "one in settings": lambda: holding(SimpleNamespace(f=times), lambda held, a: held.f(a)),
    "one in a module": lambda: holding(Calling(times)),
    "a bound method": lambda: holding(Called().times),
    "an object that is called": lambda: holding(Called()),
    "a static method of its class": lambda: holding(staticmethod(times), of_class=True),
    "one in part as its method": lambda: holding(
        partialmethod(times_all, 1.0), lambda held, a: held(a), of_class=True
    ),
    "one in part of its class": lambda: holding(
        staticmethod(partial(times_all, 1.0)), of_class=True
    ),
    "one in its class's dictionary": lambda: holding(
        {"f": times}, lambda held, a: held["f"](a), of_class=True
    ),
    "an object of its class": lambda: holding(Called(), of_class=True),
}


@pytest.mark.parametrize("what", HELD)
def test_what_a_function_that_a_cell_holds_reads_may_change(what, monkeypatch):
    cell, x = HELD[what](), torch.randn(B, T, I)
    before, _ = unroll(cell, x)

    monkeypatch.setattr(HERE, "factor", 2.0)

    torch.testing.assert_close(unroll(cell, x)[0], unroll(cell, x, backend="reference")[0])
    assert not torch.allclose(before, unroll(cell, x)[0])
    assert explain(cell, x).chosen == "c"


def test_what_a_method_that_is_given_to_a_cell_reads_may_change(monkeypatch):
    cell, x = cell_of(lambda a, h: a), torch.randn(B, T, I)
    cell.candidate = MethodType(times_all, cell)
    before, _ = unroll(cell, x)

    monkeypatch.setattr(HERE, "factor", 2.0)

    torch.testing.assert_close(unroll(cell, x)[0], unroll(cell, x, backend="reference")[0])
    assert not torch.allclose(before, unroll(cell, x)[0])


def test_what_a_dictionary_of_a_cells_class_holds_may_change():
    held = {"factor": 0.5}
    cell = holding(held, lambda held, a: held["factor"] * a, of_class=True)
    x = torch.randn(B, T, I)
    before, _ = unroll(cell, x)

    held["factor"] = 2.0

    torch.testing.assert_close(unroll(cell, x)[0], unroll(cell, x, backend="reference")[0])
    assert not torch.allclose(before, unroll(cell, x)[0])


def test_a_function_that_is_held_is_written_down_without_what_it_reads():
    def function(a):
        return factor * a

    unroll(holding(function), torch.randn(B, T, I))

    assert not any(pickle.loads(pickle.dumps(vars(function))).values())


def test_the_code_of_a_function_that_is_an_attribute_may_change():
    def bent(a):
        return torch.tanh(a)

    cell, x = cell_of(lambda a, h: a), torch.randn(B, T, I)
    cell.candidate = bent
    before, _ = unroll(cell, x)

    bent.__code__ = (lambda a: torch.sin(a)).__code__

    torch.testing.assert_close(unroll(cell, x)[0], unroll(cell, x, backend="reference")[0])
    assert not torch.allclose(before, unroll(cell, x)[0])


def test_what_a_step_is_the_first_to_import_may_change(tmp_path, monkeypatch):
    (tmp_path / "imported_by_a_step.py").write_text("factor = 0.5")
    monkeypatch.syspath_prepend(tmp_path)

    def times_of_new(a):
        import imported_by_a_step as new

        return new.factor * a

    cell, x = cell_of(lambda a, h: times_of_new(a)), torch.randn(B, T, I)
    before, _ = unroll(cell, x)
    unroll(cell, x)

    monkeypatch.setitem(sys.modules, "imported_by_a_step", SimpleNamespace(factor=2.0))

    torch.testing.assert_close(unroll(cell, x)[0], unroll(cell, x, backend="reference")[0])
    assert not torch.allclose(before, unroll(cell, x)[0])


def test_functions_of_installed_packages_are_not_looked_into(monkeypatch):
    installed = inner.__code__.replace(co_filename="/lib/site-packages/theirs.py")
    theirs = FunctionType(installed, {"scaled": scaled})
    traced = []
    monkeypatch.setattr(plans, "trace_step", lambda cell: traced.append(cell) or trace_step(cell))
    cell, x = cell_of(lambda a, h: theirs(a)), torch.randn(B, T, I)

    unroll(cell, x)
    theirs.__globals__["scaled"] = lambda a: 2 * a
    unroll(cell, x)

    assert len(traced) == 1


steps, counted, seen, meter = 0, Counter(), [], SimpleNamespace(steps=0)


def count_in_a_global():
    global steps
    steps += 1


def count_in_a_dictionary():
    counted["steps"] += 1


def count_in_a_list():
    seen.append(len(seen))


def count_in_an_attribute():
    meter.steps = meter.steps + 1


COUNTS = count_in_a_global, count_in_a_dictionary, count_in_a_list, count_in_an_attribute


@pytest.mark.parametrize("is_held", [False, True])
@pytest.mark.parametrize("count", COUNTS, ids=lambda count: count.__name__)
def test_what_a_step_counts_outside_its_cell_makes_no_other_equation(count, is_held, monkeypatch):
    monkeypatch.setattr(plans, "_MOST_TRACES", 4)
    cell = holding(lambda a: count() or a) if is_held else cell_of(lambda a, h: count() or a)
    x = torch.randn(B, T, I)
    for _ in range(6):
        unroll(cell, x)

    assert explain(cell, x).chosen == "c"


def scaling(factor):
    return lambda a: factor[0] * a


def test_what_takes_the_memory_of_something_that_a_step_wrote_is_not_left_out():
    written = [0.5]
    scaled = scaling(written)
    outside = Outside((lambda a: scaled(a),))
    outside.key()
    written[0] = 0.7  # as if by the step, while it is traced
    outside.leave_out_what_changed()

    freed = id(scaled.__closure__[0])
    scaled = None
    others = [scaling([0.5]) for _ in range(100)]
    scaled = next((f for f in others if id(f.__closure__[0]) == freed), others[0])
    before = outside.key()
    scaled.__closure__[0].cell_contents[0] = 0.9

    assert outside.key() != before


in_itself = {"factor": 0.5}
in_itself["itself"] = in_itself
mode = None


def traces_of(function, monkeypatch):
    """A cell's call, and the cells that were traced in it."""
    traced = []
    monkeypatch.setattr(plans, "trace_step", lambda cell: traced.append(cell) or trace_step(cell))
    cell, x = cell_of(function), torch.randn(B, T, I)
    return lambda: unroll(cell, x), traced


def test_a_dictionary_that_is_in_itself_is_no_other_one_at_every_call(monkeypatch):
    call, traced = traces_of(lambda a, h: in_itself["factor"] * a, monkeypatch)

    call()
    call()

    assert len(traced) == 1


def test_what_is_long_in_a_dictionary_is_not_looked_through_at_every_call(monkeypatch):
    long = {"factor": 0.5, "names": [*range(1000)]}
    call, traced = traces_of(lambda a, h: long["factor"] * a, monkeypatch)

    call()
    long["names"][0] = -1
    call()

    assert len(traced) == 1


class Mode(Enum):
    BENT = "bent"
    PLAIN = "plain"


def test_one_of_an_enumeration_is_the_same_each_time_that_it_comes_back(monkeypatch):
    call, traced = traces_of(lambda a, h: a.sin() if mode is Mode.BENT else a, monkeypatch)

    for _ in range(3):
        for now in Mode:
            monkeypatch.setitem(globals(), "mode", now)
            call()

    assert len(traced) == 2


def test_equations_that_are_refused_leave_no_locks(monkeypatch):
    monkeypatch.setattr(plans, "_MOST_TRACES", 2)
    cell, x = cell_of(lambda a, h: a), torch.randn(B, T, I)
    for n in range(5):
        cell.count = [n]
        unroll(cell, x)

    assert not plans._locks
