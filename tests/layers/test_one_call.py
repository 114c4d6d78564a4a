"""Modules with torch.nn's interface run by one call of torch's kernels, where that is faster."""

import copy
import sys
from collections import Counter

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import seqnets
from seqnets import cells
from seqnets.cells import GRUCell
from seqnets.engine import preference, recent_calls, runs, stack
from seqnets.engine.native import layers, over_time

B, T, I, H = 2, 5, 3, 4
KINDS = {"LSTM": 5, "GRU": 3, "RNN": 5}
"""Modules, and steps that are few for them."""
SHAPES = [
    {"num_layers": 2},
    {"bidirectional": True},
    {"num_layers": 3, "bidirectional": True, "bias": False, "batch_first": True},
    {"num_layers": 2, "dropout": 0.5, "bidirectional": True},
]


@pytest.fixture
def calls(monkeypatch):
    """The number of cells that each call of torch's kernels runs."""
    made, call = [], over_time.call

    def counted(*args):
        _, layers, _, _, bidirectional, _ = args[-1]
        made.append(layers * (1 + bidirectional))
        return call(*args)

    for module in (layers, over_time):
        monkeypatch.setattr(module, "call", counted)
    return made


@pytest.fixture
def one_by_one(monkeypatch):
    """What runs a module without the calls that take several layers."""

    def run(module, *args):
        with monkeypatch.context() as patched:
            patched.setitem(vars(module), "_one_call", lambda *args, **options: None)
            patched.setitem(vars(module), "_last", None)
            return module(*args)

    return run


def pair(kind="LSTM", units=H, **options):
    torch.manual_seed(0)
    theirs = getattr(torch.nn, kind)(I, units, **options)
    ours = getattr(seqnets, kind)(I, units, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def results(module, x, state):
    torch.manual_seed(1)
    y, after = module(x, state)
    after = after if isinstance(after, tuple) else (after,)
    total = y.square().sum() + sum(part.sin().sum() for part in after)
    before = () if state is None else state if isinstance(state, tuple) else (state,)
    return y, *after, *torch.autograd.grad(total, (x, *before, *module.parameters()))


@pytest.mark.parametrize("given", [False, True], ids=["from zeros", "from a state"])
@pytest.mark.parametrize("options", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_small_stack_is_one_call_with_torchs_numbers(kind, options, given, calls):
    theirs, ours = pair(kind, **options)
    first = options.get("batch_first", False)
    x = torch.randn(*((B, KINDS[kind]) if first else (KINDS[kind], B)), I, requires_grad=True)
    cells = len(ours.bound_cells())
    h, c = (torch.randn(cells, B, H, requires_grad=True) for _ in range(2))
    state = (h, c) if kind == "LSTM" else h

    for _ in range(2):  # the second is a call like the one before
        for a, b in zip(
            *(results(module, x, state if given else None) for module in (ours, theirs)),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=0, atol=0)

    assert calls == [cells, cells]


@pytest.mark.parametrize("place", [0, 1], ids=["outputs", "state"])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}], ids=str)
@pytest.mark.parametrize("units", [H, 100])  # the many run layer by layer
@pytest.mark.parametrize("kind", ["RNN", "GRU"])
def test_results_may_be_changed_in_place_as_torchs_may(kind, units, options, steps, place):
    x = torch.randn(steps, B, I)

    def gradients(module):
        found = module(x)
        found[place].mul_(2)
        return torch.autograd.grad(found[place].sum(), module.parameters())

    theirs, ours = pair(kind, units, **options)
    for _ in range(2):  # the second is a call like the one before
        torch.testing.assert_close(gradients(ours), gradients(theirs))


def nodes_of(y):
    """The names of the nodes of a graph, and how many have each."""
    found, ahead = set(), [y.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is not None and node not in found:
            found.add(node)
            ahead += [before for before, _ in node.next_functions]
    return Counter(node.name() for node in found)


@pytest.mark.parametrize("options", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_its_graph_has_torchs_nodes_and_no_more(kind, options):
    x = torch.randn(3, 3, I)

    ours, theirs = (nodes_of(module(x)[0]) for module in pair(kind, **options))
    assert ours == theirs


def test_an_order_of_dimensions_that_is_changed_is_read_at_the_next_call():
    theirs, ours = pair("GRU", num_layers=2)
    x = torch.randn(3, 3, I)
    first, _ = ours(x)
    theirs.batch_first = ours.batch_first = True

    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)
    assert not torch.allclose(ours(x)[0], first)


@pytest.mark.parametrize("options", [{}, *SHAPES[:3]], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_its_second_derivatives_are_those_of_the_layers(kind, options, one_by_one):
    _, ours = pair(kind, **options | {"batch_first": False})
    x = torch.randn(KINDS[kind], B, I, requires_grad=True)
    found = []
    for run in (lambda: ours(x), lambda: one_by_one(ours, x)):
        y, after = run()
        after = after if isinstance(after, tuple) else (after,)
        total = y.pow(3).sum() + sum(part.exp().sum() for part in after)
        slopes = torch.autograd.grad(total, (x, *ours.parameters()), create_graph=True)
        penalty = sum(slope.square().sum() for slope in slopes)
        found.append((*slopes, *torch.autograd.grad(penalty, (x, *ours.parameters()))))

    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


def test_layers_that_do_not_learn_stay_as_they_are_under_second_derivatives():
    _, ours = pair(num_layers=2)
    ours.weight_ih_l0.requires_grad_(False)
    x = torch.randn(T, B, I, requires_grad=True)
    (slope,) = torch.autograd.grad(ours(x)[0].pow(3).sum(), x, create_graph=True)
    slope.square().sum().backward()

    assert ours.weight_ih_l0.grad is None
    assert ours.weight_ih_l1.grad.abs().sum() > 0


def test_dropout_without_gradients_acts_in_training_and_not_in_evaluation():
    theirs, ours = pair(num_layers=2, dropout=0.5)
    x = torch.randn(T, B, I)
    for training in (True, False):
        theirs.train(training), ours.train(training)
        found = []
        with torch.no_grad():
            for module in (ours, theirs):
                torch.manual_seed(1)
                found.append(module(x)[0])

        torch.testing.assert_close(*found, rtol=0, atol=0)


@pytest.mark.parametrize(
    "change",
    [
        lambda module: setattr(module.bound_cells()[1], "candidate", torch.relu),
        lambda module: module.weight_hh_l1.data.mul_(0.5),
        lambda module: setattr(
            module, "weight_hh_l1", torch.nn.Parameter(torch.full((4 * H, H), 0.1))
        ),
    ],
    ids=["equation", "numbers", "parameter"],
)
def test_changes_of_a_layer_apply_to_the_next_call(change, one_by_one):
    _, ours = pair(num_layers=2)
    x = torch.randn(T, B, I)
    before, _ = ours(x)
    change(ours)

    y, _ = ours(x)

    assert not torch.allclose(y, before)
    torch.testing.assert_close(y, one_by_one(ours, x)[0])


@pytest.mark.parametrize("given", [False, True], ids=["from zeros", "from a state"])
@pytest.mark.parametrize("kind", ["GRU", "RNN"])
def test_a_layer_that_torchs_kernel_ran_is_one_call_from_then_on(kind, given, calls, monkeypatch):
    theirs, ours = pair(kind)
    x, h = torch.randn(2, B, I, requires_grad=True), torch.randn(1, B, H, requires_grad=True)
    state = h if given else None
    first = results(ours, x, state)
    unrolled = []
    torch_like = sys.modules["seqnets.layers.torch_like"]
    unroll = torch_like.unroll
    monkeypatch.setattr(
        torch_like, "unroll", lambda *args, **kw: unrolled.append(args) or unroll(*args, **kw)
    )

    second = results(ours, x, state)

    assert (calls, unrolled) == ([1, 1], [])
    for a, b, c in zip(first, second, results(theirs, x, state), strict=True):
        torch.testing.assert_close((a, b), (c, c), rtol=0, atol=0)


@pytest.mark.usefixtures("plain_loop")
@pytest.mark.parametrize("kind", KINDS)
def test_the_first_call_of_a_layer_can_be_run_again_by_a_checkpoint(kind):
    ours = getattr(seqnets, kind)(I, H, batch_first=True, dtype=torch.float64)
    x = torch.randn(B, T, I, dtype=torch.float64, requires_grad=True)

    checkpoint(ours, x, use_reentrant=False)[0].sum().backward()
    found = {name: p.grad for name, p in ours.named_parameters()}
    ours.zero_grad()
    ours(x)[0].sum().backward()

    torch.testing.assert_close(found, {name: p.grad for name, p in ours.named_parameters()})


@pytest.mark.parametrize("kind", ["GRU", "RNN"])
def test_a_small_layer_is_one_call_where_loops_in_c_are_faster_than_unrolling_it(
    kind, calls, monkeypatch
):
    monkeypatch.setattr(preference, "_speed", lambda *sizes: 0.0)
    theirs, ours = pair(kind)
    x = torch.randn(3, B, I)

    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)
    assert calls == [1]


def test_a_layer_with_more_steps_than_its_last_call_is_decided_anew():
    _, ours = pair("GRU")
    ours(torch.randn(1, B, I)), ours(torch.randn(1, B, I))
    before = runs.copy()

    ours(torch.randn(100, B, I))

    assert "native" not in runs - before


def test_many_lengths_in_turn_are_decided_once_each_for_a_layer_of_the_loops_in_c(monkeypatch):
    monkeypatch.setattr(preference, "_speed", lambda *sizes: 0.0)
    decided, as_one = [], stack._as_one
    monkeypatch.setattr(
        stack,
        "_as_one",
        lambda cells, x, *rest: decided.append(x.shape[1]) or as_one(cells, x, *rest),
    )
    module, few = seqnets.RNN(I, H), stack._FEW_STEPS[cells.RNNCell][False][0]
    lengths = range(few, few + 80)  # the first is one call

    with torch.no_grad():
        for steps in (*lengths, *lengths):
            module(torch.randn(steps, B, I))

    assert decided == [*lengths]


def test_a_layer_that_torchs_kernels_do_not_run_has_its_parameters_compared_once_a_call(
    monkeypatch,
):
    module, x = seqnets.LSTM(I, H), torch.randn(T, B, I)
    module(x)
    compared, fits = [], recent_calls.Kind.fits
    monkeypatch.setattr(
        recent_calls.Kind, "fits", lambda kind, *args: compared.append(args) or fits(kind, *args)
    )

    module(x)

    assert len(compared) == 1


def test_larger_stacks_and_other_cells_run_layer_by_layer(calls, monkeypatch):
    monkeypatch.setattr(preference, "_speed", lambda *sizes: 0.0)
    stacks = [
        (seqnets.LSTM(I, stack._FEW_UNITS + 1, 2), torch.randn(T, B, I)),
        (seqnets.LSTM(I, H, 2), torch.randn(stack._FEW_NUMBERS // (B * H) + 1, B, I)),
        (seqnets.LSTM(I, H, 2).double(), torch.randn(T, B, I).double()),
        (seqnets.LSTM(I, H, 2, proj_size=2), torch.randn(T, B, I)),
        (seqnets.GRU(I, H, 2), torch.randn(stack._FEW_STEPS[GRUCell][True][1] + 1, B, I)),
        (seqnets.RNN(I, H, 2), torch.randn(5, stack._FEW_ROWS + 1, I)),
        (seqnets.PeepholeLSTM(I, H, 2), torch.randn(T, B, I)),
    ]
    for module, x in stacks:
        module(x)
        module(x)

    assert all(cells == 1 for cells in calls)


def test_a_stack_is_counted_by_its_cells_and_can_be_copied():
    _, ours = pair(num_layers=2, bidirectional=True)
    x = torch.randn(T, B, I)
    before = runs.copy()
    y, _ = ours(x)

    assert runs - before == {"native": 4}
    assert torch.equal(copy.deepcopy(ours)(x)[0], y)


def test_what_a_choice_depends_on_is_found_once_in_a_call_of_another_kind(monkeypatch):
    module, found, kind_of = seqnets.LSTM(I, H, 2), [], recent_calls.kind_of
    module(torch.randn(T, B, I))
    monkeypatch.setattr(recent_calls, "kind_of", lambda *args: found.append(1) or kind_of(*args))

    module(torch.randn(T + 1, B, I))

    assert len(found) == 1


@pytest.mark.parametrize("given", [False, True], ids=["from zeros", "from a state"])
@pytest.mark.parametrize("options", [{}, *SHAPES], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_single_step_is_a_step_of_each_cell_with_torchs_numbers(kind, options, given, calls):
    units = 70  # more than a small stack has
    theirs, ours = (
        getattr(library, kind)(I, units, **options).double() for library in (torch.nn, seqnets)
    )
    ours.load_state_dict(theirs.state_dict())
    cells = len(ours.bound_cells())
    x = torch.randn(*((40, 1) if ours.batch_first else (1, 40)), I).double().requires_grad_()
    h, c = (torch.randn(cells, 40, units).double().requires_grad_() for _ in range(2))
    state = ((h, c) if kind == "LSTM" else h) if given else None
    before = runs.copy()

    for _ in range(2):  # the second is a call like the one before
        found, expected = (results(module, x, state) for module in (ours, theirs))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)

    assert not calls
    assert runs - before == {"native": 2 * cells}


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_single_step_returns_can_be_changed_in_place(kind):
    layer, module = seqnets.Recurrent(getattr(cells, f"{kind}Cell")(I, H)), pair(kind)[1]

    for found in (layer(torch.randn(B, 1, I)), module(torch.randn(1, B, I))):
        y, state = found[0].detach(), found[1]
        h = (state[0] if isinstance(state, tuple) else state).detach()
        before = y.clone()
        h.zero_()
        assert torch.equal(y, before)


def test_a_single_step_has_second_derivatives_and_runs_under_transforms():
    module, x = pair("GRU")[1].double(), torch.randn(1, B, I).double().requires_grad_()

    assert torch.autograd.gradgradcheck(lambda x: module(x)[0], (x,))
    each = torch.func.vmap(lambda row: module(row[:, None])[0][:, 0], 1, 1)(x)
    torch.testing.assert_close(each, module(x)[0])
