"""Learning without backpropagation through time: RTRL, SnAp-1 and e-prop."""

import math
import weakref
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import prune, weight_norm
from torch.utils._python_dispatch import TorchDispatchMode

from seqnets import DeepRNN, Recurrent, cells
from seqnets.cells import (
    CfCCell,
    GRUCell,
    IndRNNCell,
    IRNNCell,
    LayerNorm,
    LearnedState,
    LRUCell,
    LSTMCell,
    MinGRUCell,
    OriginalGRUCell,
    RetentionCell,
    RNNCell,
    SSDCell,
    Zoneout,
)
from seqnets.errors import ConfigError, ShapeError
from seqnets.layers import (
    RTRL,
    ConvFront1d,
    ConvFront2d,
    EProp,
    Fronted,
    SnAp1,
    Truncated,
    detach,
)
from tests.cells.final import FINAL_CELLS, ONE_OF_EACH_KIND, sized
from tests.slow import mostly_slow

B, I, H = 3, 2, 4

APART = {
    IndRNNCell: 1,
    LRUCell: 2,
    MinGRUCell: 1,
    cells.HGRNCell: 1,
    cells.QRNNCell: 4,
    cells.S5Cell: 2,
    cells.SRUCell: 1,
}
"""Cells whose units depend on no other's past, and the parts of their states that count."""


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def plain(cell):
    """A layer in float64 that waits for no compiler."""
    return Recurrent(cell.double(), backend="reference")


def stream(layer):
    """A stream in pieces: the arguments of calls that follow each other."""
    x = torch.randn(B, 9, layer.input_size, dtype=torch.float64)
    resets = torch.tensor([[0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]]).bool()
    return [
        {"x": x[:, :1]},
        {"x": x[:, 1:2]},
        {"x": x[:, 2:5], "lengths": torch.tensor([3, 0, 2])},
        {"x": x[:, 5:], "resets": resets},
    ]


def gradients(layer, pieces, *, between=detach, of=lambda y, state: y):
    """The gradients of a loss that has terms in every piece."""
    state, total = None, torch.zeros((), dtype=torch.float64)
    for piece in pieces:
        y, state = layer(**piece, state=between(state))
        scored = of(y, state)
        weights = torch.linspace(0.5, 1.5, scored.numel(), dtype=torch.float64)
        total = total + (scored.flatten() * weights).square().sum()
    found = torch.autograd.grad(total, list(layer.parameters()), allow_unused=True)
    return [torch.zeros(()) if grad is None else grad for grad in found]


def apart(a, b):
    """The largest difference between two lists of gradients."""
    return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True))


def same(state):
    return state


@pytest.mark.parametrize("cell_cls", mostly_slow(FINAL_CELLS, ONE_OF_EACH_KIND))
def test_gradients_of_detached_pieces_are_those_of_the_whole_stream(cell_cls):
    layer = plain(sized(cell_cls, I, H))
    pieces = stream(layer)

    whole = gradients(layer, pieces, between=same)

    assert apart(gradients(RTRL(layer), pieces), whole) < 1e-10
    assert apart(gradients(layer, pieces), whole) > 1e-6  # which truncation loses


def test_a_stack_is_exact_as_a_whole_and_layer_by_layer_but_for_what_lies_below():
    net = DeepRNN([GRUCell, LSTMCell], I, H, backend="reference").double()
    pieces, split = stream(net), len([*net.layers[0].parameters()])
    whole = gradients(net, pieces, between=same)

    together = gradients(RTRL(net), pieces)
    net.layers = nn.ModuleList(map(RTRL, net.layers))
    each = gradients(net, pieces)

    assert apart(together, whole) < 1e-10
    assert apart(each[split:], whole[split:]) < 1e-10
    assert apart(each[:split], whole[:split]) > 1e-6


def test_losses_of_states_and_learned_initial_states_count():
    layer = plain(LearnedState(LSTMCell(I, H)))
    pieces = stream(layer)

    def memory(y, state):
        return (state if isinstance(state[0], torch.Tensor) else state[0])[1]

    whole = gradients(layer, pieces, between=same, of=memory)

    assert apart(gradients(RTRL(layer), pieces, of=memory), whole) < 1e-10
    assert all(grad.any() for grad in whole)


@pytest.mark.parametrize("cell_cls", [GRUCell, LRUCell])
def test_rows_without_a_step_keep_the_gradient_of_their_state_or_say_that_they_cannot(cell_cls):
    layer = plain(cell_cls(I, H))
    pieces = [{"x": torch.randn(B, 3, I).double()} for _ in range(2)]
    pieces[1]["lengths"] = torch.tensor([3, 0, 1])

    def last(y, state):
        return (state if isinstance(state[0], torch.Tensor) else state[0])[0]

    whole = gradients(layer, pieces, between=same, of=last)

    if cell_cls is GRUCell:
        assert apart(gradients(RTRL(layer), pieces, of=last), whole) < 1e-10
    else:  # no later step reads its output
        with pytest.raises(ConfigError, match=r"rows with no step in their last call \(length 0\)"):
            gradients(RTRL(layer), pieces, of=last)


def test_a_call_without_steps_says_that_it_cannot_keep_the_gradient_of_an_output():
    layer = RTRL(plain(LRUCell(I, H)))
    x = torch.randn(B, 3, I, dtype=torch.float64)

    _, state = layer(x)
    _, ((h, *_), _) = layer(x[:, :0], detach(state))
    with pytest.raises(ConfigError, match="rows with no step in their last call"):
        h.sum().backward()


class Looks(TorchDispatchMode):
    """Counts how often the program waits for a number."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("lengths", "looks"), [(None, 0), (torch.tensor([3, 0, 1]), 1)])
def test_gradients_of_outputs_are_looked_at_once_and_only_if_rows_may_take_no_step(lengths, looks):
    layer = RTRL(DeepRNN(LRUCell, I, H, 3, backend="reference").double())
    x = torch.randn(B, 3, I, dtype=torch.float64)

    _, state = layer(x)
    y, _ = layer(x, detach(state), lengths)
    with Looks() as counted:
        y.sum().backward()

    assert counted.count == looks


@pytest.mark.parametrize("cell_cls", [LSTMCell, LRUCell])
def test_batches_without_rows_have_influences_without_rows(cell_cls):
    layer, state = RTRL(plain(cell_cls(I, H))), None
    x = torch.randn(B, 2, I, dtype=torch.float64)
    _, (_, like) = layer(x)

    for _ in range(2):
        y, state = layer(x[:0], detach(state), torch.zeros(0, dtype=torch.int64))

    assert [part.shape for part in state[1]] == [(0, *part.shape[1:]) for part in like]
    y.sum().backward()
    assert not any(p.grad is not None and p.grad.any() for p in layer.parameters())


def test_a_state_that_keeps_its_graph_counts_once():
    layer = plain(GRUCell(I, H))
    pieces = stream(layer)

    whole = gradients(layer, pieces, between=same)

    assert apart(gradients(RTRL(layer), pieces, between=same), whole) < 1e-10


@pytest.mark.parametrize(
    ("cell_cls", "parts"), APART.items(), ids=lambda v: getattr(v, "__name__", v)
)
def test_the_influence_of_units_apart_is_as_large_as_the_parameters(cell_cls, parts):
    layer = plain(sized(cell_cls, I, H))

    _, (_, influence) = RTRL(layer)(torch.randn(B, 2, layer.input_size, dtype=torch.float64))

    sizes = {p.shape for p in layer.parameters()}
    assert all(part.shape[:2] == (B, parts) and part.shape[2:] in sizes for part in influence)


def test_units_that_are_apart_at_first_only_are_not_taken_for_it():
    layer = plain(IRNNCell(I, H))  # its weight is the identity

    _, (_, influence) = RTRL(layer)(torch.randn(B, 2, I, dtype=torch.float64))

    assert {part.shape[:2] for part in influence} == {(B, H)}


SPIKING = {
    "far from the threshold": partial(cells.RLIFCell, I, 4, surrogate="triangle", threshold=10.0),
    "seldom near it": partial(cells.RLIFCell, I, 3, surrogate="boxcar"),
    "adaptive": partial(cells.ALIFCell, I, 3),
}


@pytest.mark.parametrize("made", SPIKING.values(), ids=SPIKING)
def test_what_a_surrogate_lets_pass_seldom_is_under_influence(made):
    layer = plain(made())

    kept = RTRL(layer).influence

    assert kept.mixes
    assert kept.names == tuple(name for name, _ in layer.named_parameters())
    assert kept.parts == tuple(range(len(layer.cell.states)))


def test_an_influence_is_found_by_the_same_numbers_whatever_the_seed():
    drawn = []

    class Watched(Recurrent):
        def forward(self, x, *more):
            drawn.append(x)
            return super().forward(x, *more)

    layer = Watched(GRUCell(I, H), backend="reference")
    for seed in (1, 2):
        torch.manual_seed(seed)
        _ = RTRL(layer).influence

    first, again = drawn[0], drawn[len(drawn) // 2]
    assert torch.equal(first, again)
    assert torch.initial_seed() == 2


HOOKS = {"pruned": partial(prune.l1_unstructured, amount=0.5), "normed": weight_norm}


@pytest.mark.parametrize("hook", HOOKS.values(), ids=HOOKS)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_weights_that_hooks_make_before_each_call_learn(hook):
    layer = plain(GRUCell(I, H))
    hook(layer.cell, "weight_hh")
    pieces = stream(layer)

    whole = gradients(layer, pieces, between=same)

    assert apart(gradients(RTRL(layer), pieces), whole) < 1e-10
    assert apart(gradients(RTRL(layer), pieces), whole) < 1e-10  # nor does a call get in the way


@pytest.mark.parametrize("cell_cls", [GRUCell, LSTMCell, MinGRUCell])
def test_influences_keep_the_dtype_of_the_parameters_under_autocast(cell_cls):
    net, state = RTRL(Recurrent(cell_cls(I, H), backend="reference")), None
    x = torch.randn(B, 9, I)
    net.layer(x)[0].square().sum().backward()
    exact = torch.cat([p.grad.flatten() for p in net.parameters()])
    net.zero_grad()

    for piece in x.split(3, 1):
        with torch.autocast("cpu", torch.bfloat16):
            y, state = net(piece, detach(state))
        y.float().square().sum().backward()

    found = torch.cat([p.grad.flatten() for p in net.parameters()])
    assert {part.dtype for part in state[1]} == {torch.float32}
    assert (found - exact).norm() < 0.02 * exact.norm()


def test_the_limit_is_that_of_the_influence_where_autocast_halves_the_state():
    layer = RTRL(Recurrent(LSTMCell(I, 32)), limit=2)  # native, if the processor has it

    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(ConfigError, match="would take 3 MiB"),
    ):
        layer(torch.zeros(B, 2, I))


def test_parameters_count_that_act_where_values_are_missing():
    layer = plain(sized(cells.GRUDCell, I, H))
    pieces = stream(layer)
    for piece in pieces:
        piece["x"][torch.rand_like(piece["x"]) < 0.5] = torch.nan

    assert apart(gradients(RTRL(layer), pieces), gradients(layer, pieces, between=same)) < 1e-10


def test_parameters_that_are_not_trained_have_no_influence():
    layer = RTRL(plain(GRUCell(I, H)))
    x = torch.randn(B, 2, I, dtype=torch.float64)
    before = len(layer(x)[1][1])
    layer.layer.cell.weight_hh.requires_grad_(False)

    assert (before, len(layer(x)[1][1])) == (4, 3)


def test_where_gradients_are_off_there_is_no_influence_and_the_layer_runs_as_ever():
    layer = plain(LSTMCell(I, H))
    x = torch.randn(B, 5, I, dtype=torch.float64)

    with torch.no_grad():
        y, (state, influence) = RTRL(layer)(x)
        y_t, (_, without) = RTRL(layer).step(x[:, 0], (state, influence))

    torch.testing.assert_close((y, state), layer(x))
    torch.testing.assert_close(y_t, layer.step(x[:, 0], state)[0])
    assert influence is None
    assert without is None


def test_single_steps_are_calls_of_one_step():
    layer = RTRL(plain(GRUCell(I, H)))
    x, resets = torch.randn(B, 2, I, dtype=torch.float64), torch.tensor([[0], [1], [0]]).bool()
    _, before = layer(x[:, :1])

    y_t, after = layer.step(x[:, 1], detach(before), resets[:, 0])

    y, expected = layer(x[:, 1:], detach(before), None, resets)
    torch.testing.assert_close((y_t, after), (y[:, 0], expected))


def test_a_stack_of_such_layers_takes_single_steps():
    net = DeepRNN(GRUCell, I, H, 2, backend="reference").double()
    x = torch.randn(B, I, dtype=torch.float64)
    expected, _ = net.step(x)
    net.layers = nn.ModuleList(map(RTRL, net.layers))

    y, state = net.step(x)

    torch.testing.assert_close(y, expected)
    assert all(influence is not None for _, influence in state)


def test_no_graph_is_kept_from_call_to_call():
    layer, state, alive = RTRL(plain(GRUCell(I, H))), None, weakref.WeakSet()
    scale = torch.ones(I, dtype=torch.float64, requires_grad=True)

    class Saved:
        def __init__(self, tensor):
            self.tensor = tensor
            alive.add(self)

    counts, sizes = [], []
    for _ in range(4):
        with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
            x = scale * torch.randn(B, 1, I, dtype=torch.float64)
        _, state = layer(x, detach(state))
        counts.append(len(alive))
        sizes.append(sum(part.numel() for part in state[1]))

    assert counts == [counts[0]] * 4
    assert sizes == [sizes[0]] * 4


def snap_1(cell, xs):
    """Gradients by the paper's recursion: after each step, entries of other units are zeroed."""
    theta = {name: p.detach() for name, p in cell.named_parameters()}
    states = tuple([part[0] for part in cell.initial_state(1)])

    def step(theta, state, x):
        bound = cell.bind(theta)
        after = bound.step(bound.project(x[None]), tuple([part[None] for part in state]))
        return tuple([part[0] for part in after])

    mine = {n: torch.eye(H).repeat(1, len(p) // H).bool() for n, p in theta.items()}  # (H, rows)
    influence = [{n: torch.zeros(H, *p.shape) for n, p in theta.items()} for _ in states]
    total = {name: torch.zeros_like(p) for name, p in theta.items()}
    for x, weights in xs:
        derivatives = torch.func.jacrev(step, argnums=(0, 1))(theta, states, x)
        states = step(theta, states, x)
        influence = [
            {
                name: mine[name].view(H, -1, *[1] * (direct.dim() - 2))
                * (
                    direct
                    + sum(
                        torch.einsum("mn,n...->m...", by, old[name])
                        for by, old in zip(row, influence, strict=True)
                    )
                )
                for name, direct in parts.items()
            }
            for parts, row in derivatives
        ]
        for name, part in influence[0].items():
            total[name] += torch.einsum("m,m...->...", weights, part)
    return list(total.values())


@pytest.mark.parametrize("cell_cls", [RNNCell, GRUCell, LSTMCell])
def test_snap_1_follows_its_paper(cell_cls):
    cell = cell_cls(I, H).double()
    x, weights = torch.randn(1, 6, I).double(), torch.randn(1, 6, H).double()
    with torch.random.fork_rng():
        torch.set_default_dtype(torch.float64)
        try:
            expected = snap_1(cell, zip(x[0], weights[0], strict=True))
        finally:
            torch.set_default_dtype(torch.float32)

    layer, state, total = SnAp1(plain(cell)), None, 0
    for piece, weight in zip(x.split([1, 3, 2], 1), weights.split([1, 3, 2], 1), strict=True):
        y, state = layer(piece, detach(state))
        total = total + (y * weight).sum()
    found = torch.autograd.grad(total, list(layer.parameters()))

    assert apart(found, expected) < 1e-10


@pytest.mark.parametrize("rule", [SnAp1, EProp])
def test_for_units_apart_the_approximations_are_exact_and_for_others_they_are_not(rule):
    alone, mixed = plain(LRUCell(I, H)), plain(GRUCell(I, H))
    pieces = stream(alone)

    assert apart(gradients(rule(alone), pieces), gradients(RTRL(alone), pieces)) == 0
    assert apart(gradients(rule(mixed), pieces), gradients(RTRL(mixed), pieces)) > 1e-3


class LeakyCell(cells.GatedCell):
    """A leaky neuron that is no spiking one: it shows a smooth function of its memory."""

    gates = ("v",)
    states = ("z", "v")

    def update(self, wx, uh, state):
        v = 0.9 * state[1] + wx.v + uh.v
        return torch.tanh(v), v


def test_e_prop_follows_its_paper():
    cell = LeakyCell(1, 2, bias=False)
    layer, state = EProp(plain(cell)), None
    w, u = cell.weight_ih.flatten().tolist(), cell.weight_hh.tolist()
    xs, errors = [0.5, -1.0, 2.0, 0.3], [(0.2, -0.4), (1.0, 0.1), (-0.6, 0.8), (0.3, 0.5)]

    v, z, of_w, of_u = [0, 0], [0, 0], [0, 0], [[0, 0], [0, 0]]  # plain floats, no torch
    by_w, by_u = [0, 0], [[0, 0], [0, 0]]
    for x, error in zip(xs, errors, strict=True):
        of_w = [0.9 * e + x for e in of_w]  # the eligibility vectors
        of_u = [[0.9 * of_u[j][i] + z[i] for i in range(2)] for j in range(2)]
        v = [0.9 * v[j] + w[j] * x + sum(u[j][i] * z[i] for i in range(2)) for j in range(2)]
        z = [math.tanh(each) for each in v]
        for j in range(2):
            signal = error[j] * (1 - z[j] ** 2)
            by_w[j] += signal * of_w[j]
            by_u[j] = [by_u[j][i] + signal * of_u[j][i] for i in range(2)]

    for x, error in zip(xs, errors, strict=True):
        y, state = layer(torch.tensor([[[x]]]).double(), detach(state))
        (y * torch.tensor(error).double()).sum().backward()
    assert cell.weight_ih.grad.flatten().tolist() == pytest.approx(by_w, abs=1e-6)
    assert cell.weight_hh.grad.tolist() == [pytest.approx(row, abs=1e-6) for row in by_u]


@pytest.mark.parametrize("rule", [SnAp1, EProp])
def test_a_rule_changes_gradients_and_no_outputs_on_any_backend(rule):
    cell = LSTMCell(I, H).double()
    x = torch.randn(B, 5, I, dtype=torch.float64)
    reference, fast = rule(plain(cell)), rule(Recurrent(cell))
    ours, theirs = reference(x)[0], fast(x)[0]

    torch.testing.assert_close(ours, Recurrent(cell)(x)[0])
    torch.testing.assert_close(theirs, ours)
    grads = [torch.autograd.grad(y.square().sum(), list(cell.parameters())) for y in (ours, theirs)]
    assert apart(*grads) < 1e-10
    exact = torch.autograd.grad(plain(cell)(x)[0].square().sum(), list(cell.parameters()))
    assert apart(grads[0], exact) > 1e-3


def error_at_recall(rule):
    """The error after some training to tell the first of twelve inputs after the last of them.

    They come in pieces of three; 1 is that of guessing.
    """
    layer, out = rule(Recurrent(GRUCell(2, 16))), nn.Linear(16, 1)
    optimizer = torch.optim.Adam([*layer.parameters(), *out.parameters()], 0.03)
    errors = []
    for _ in range(40):
        x, state = torch.randint(0, 2, (32, 12, 2)) * 2.0 - 1, None
        x[:, :, 1] = torch.arange(12) == 0  # marks the input to remember
        for piece in x.split(3, 1):
            y, state = layer(piece, detach(state))
        errors.append((out(y[:, -1])[:, 0] - x[:, 0, 0]).square().mean())
        optimizer.zero_grad()
        errors[-1].backward()
        optimizer.step()
    return float(sum(errors[-10:]).detach()) / 10


def test_what_lies_further_back_than_a_piece_is_learned_by_rtrl_and_not_by_truncation():
    assert error_at_recall(RTRL) < 0.1
    assert error_at_recall(lambda layer: layer) > 0.8


def called(layer, *args):
    return lambda: layer(torch.zeros(B, 2, I), *args)


def second_derivative():
    layer, x = RTRL(Recurrent(GRUCell(I, H), backend="reference")), torch.zeros(B, 2, I)
    y, _ = layer(x, detach(layer(x)[1]))
    torch.autograd.grad(y.sum(), layer.layer.cell.weight_hh, create_graph=True)


REFUSED = {
    "a second derivative": (second_derivative, ConfigError, "create_graph=True"),
    "a cell": (lambda: RTRL(GRUCell(I, H)), ConfigError, "expected a recurrent layer"),
    "backwards": (
        lambda: RTRL(Recurrent(GRUCell(I, H), reverse=True)),
        ConfigError,
        "RTRL: the layer runs backwards or in both directions",
    ),
    "several steps at once": (
        lambda: RTRL(Fronted(ConvFront1d(I, I), Recurrent(GRUCell(I, H)))),
        ConfigError,
        "RTRL: Fronted mixes several steps",
    ),
    "too large": (
        called(RTRL(Recurrent(GRUCell(I, 64)), limit=5)),
        ConfigError,
        "would take 10 MiB[\\s\\S]*64 units of the state[\\s\\S]*or SnAp1",
    ),
    "too large with units apart": (
        called(RTRL(Recurrent(MinGRUCell(I, 64)), limit=0.001)),
        ConfigError,
        "3 rows, 1 part of the state, 384 parameters.\n  Take fewer rows or units.",
    ),
    "itself": (lambda: RTRL(RTRL(Recurrent(GRUCell(I, H)))), ConfigError, "RTRL is inside"),
    "another rule": (
        lambda: SnAp1(Truncated(Recurrent(GRUCell(I, H)), 2)),
        ConfigError,
        "SnAp1: Truncated is inside",
    ),
    "no product by gates": (
        lambda: SnAp1(Recurrent(SSDCell(8, 16))),
        ConfigError,
        "SnAp1: SSDCell has no .*\n  RTRL takes any cell",
    ),
    "frames": (
        lambda: RTRL(Fronted(ConvFront2d(3, 4), Recurrent(GRUCell(4, H)))),
        ConfigError,
        "RTRL: Fronted has no input_size",
    ),
    "no limit": (lambda: RTRL(Recurrent(GRUCell(I, H)), limit=0), ConfigError, "limit is 0"),
    "random": (
        called(RTRL(Recurrent(Zoneout(GRUCell(I, H), 0.5)))),
        ConfigError,
        "draws random numbers",
    ),
    "another state": (
        called(RTRL(Recurrent(GRUCell(I, H))), (torch.zeros(B, H),)),
        ShapeError,
        "state has 1 part, expected a pair",
    ),
    "another layer's influence": (
        called(
            RTRL(Recurrent(GRUCell(I, H))),
            ((torch.zeros(B, H),), SnAp1(Recurrent(GRUCell(I, H)))(torch.zeros(B, 2, I))[1][1]),
        ),
        ShapeError,
        "influence has shapes \\[\\(3, 1, 12, 2\\)[\\s\\S]*expected \\[\\(3, 4, 12, 2\\)",
    ),
    "no influence": (
        called(RTRL(Recurrent(GRUCell(I, H))), ((torch.zeros(B, H),), 3)),
        ShapeError,
        "contains int",
    ),
    "a transform": (
        lambda: torch.func.grad(lambda x: RTRL(Recurrent(GRUCell(I, H)))(x)[0].sum())(
            torch.zeros(B, 2, I)
        ),
        ConfigError,
        "runs under a function transform",
    ),
    "no values": (
        lambda: SnAp1(Recurrent(GRUCell(I, H, device="meta"))),
        ConfigError,
        "on meta",
    ),
    "a stack": (lambda: SnAp1(DeepRNN(GRUCell, I, H)), ConfigError, "layer is DeepRNN"),
    "mixed otherwise": (
        lambda: SnAp1(Recurrent(CfCCell(I, H))),
        ConfigError,
        "units of CfCCell depend on each other by more",
    ),
    "mixed twice a step": (
        lambda: SnAp1(Recurrent(OriginalGRUCell(I, H))),
        ConfigError,
        "by more than recur of the state before",
    ),
    "a parameter of several units": (
        lambda: SnAp1(Recurrent(cells.orthogonal(GRUCell(I, H)))),
        ConfigError,
        "or share parameters, as in a parametrization, expected neither",
    ),
    "mixed by a norm": (lambda: EProp(Recurrent(LayerNorm(GRUCell(I, H)))), ConfigError, "EProp"),
    "no gates": (
        lambda: EProp(Recurrent(RetentionCell(I, H))),
        ConfigError,
        "EProp: RetentionCell has no recurrent product",
    ),
    "projected": (
        lambda: SnAp1(Recurrent(LSTMCell(I, H, proj_size=2))),
        ConfigError,
        "weight_hh of LSTMCell has shape \\(16, 2\\), expected a block \\(4, 4\\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused(case):
    act, error, message = REFUSED[case]

    with pytest.raises(error, match=message):
        act()
