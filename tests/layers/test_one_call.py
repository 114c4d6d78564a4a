"""Stacks with torch.nn's interface run by one call of torch's kernels, where that is faster."""

import copy
import sys

import pytest
import torch

import seqnets
from seqnets.engine import native, runs, stack

B, T, I, H = 2, 5, 3, 4
SHAPES = [
    {"num_layers": 2},
    {"bidirectional": True},
    {"num_layers": 3, "bidirectional": True, "bias": False, "batch_first": True},
    {"num_layers": 2, "dropout": 0.5, "bidirectional": True},
]


@pytest.fixture
def calls(monkeypatch):
    """The number of cells that each call of torch's kernels runs."""
    made, call = [], native._call
    monkeypatch.setattr(
        native, "_call", lambda cells, *args: made.append(len(cells)) or call(cells, *args)
    )
    return made


@pytest.fixture
def one_by_one(monkeypatch):
    """What runs a module without the calls that take several layers."""

    def run(module, *args):
        with monkeypatch.context() as patched:
            torch_like = sys.modules["seqnets.layers.torch_like"]
            patched.setattr(torch_like, "run_layers", lambda *args, **options: None)
            return module(*args)

    return run


def pair(**options):
    torch.manual_seed(0)
    theirs = torch.nn.LSTM(I, H, **options)
    ours = seqnets.LSTM(I, H, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def results(module, x, state):
    torch.manual_seed(1)
    y, after = module(x, state)
    total = y.square().sum() + sum(part.sin().sum() for part in after)
    return y, *after, *torch.autograd.grad(total, (x, *(state or ()), *module.parameters()))


@pytest.mark.parametrize("given", [False, True], ids=["from zeros", "from a state"])
@pytest.mark.parametrize("options", SHAPES, ids=str)
def test_a_small_stack_is_one_call_with_torchs_numbers(options, given, calls):
    theirs, ours = pair(**options)
    x = torch.randn(B, T, I, requires_grad=True)
    rows = B if options.get("batch_first") else T
    cells = len(ours.bound_cells())
    state = tuple(torch.randn(cells, rows, H, requires_grad=True) for _ in range(2))

    for _ in range(2):  # the second is a call like the one before
        for a, b in zip(
            *(results(module, x, state if given else None) for module in (ours, theirs)),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=0, atol=0)

    assert calls == [cells, cells]


@pytest.mark.parametrize("options", SHAPES[:3], ids=str)
def test_its_second_derivatives_are_those_of_the_layers(options, one_by_one):
    _, ours = pair(**options)
    x = torch.randn(B, T, I, requires_grad=True)
    found = []
    for run in (lambda: ours(x), lambda: one_by_one(ours, x)):
        y, (h, c) = run()
        total = y.pow(3).sum() + h.exp().sum() + c.sin().sum()
        slopes = torch.autograd.grad(total, (x, *ours.parameters()), create_graph=True)
        penalty = sum(slope.square().sum() for slope in slopes)
        found.append((*slopes, *torch.autograd.grad(penalty, (x, *ours.parameters()))))

    torch.testing.assert_close(*found)


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


def test_larger_stacks_and_other_cells_run_layer_by_layer(calls):
    stacks = [
        (seqnets.LSTM(I, stack._FEW_UNITS + 1, 2), torch.randn(T, B, I)),
        (seqnets.LSTM(I, H, 2), torch.randn(stack._FEW_NUMBERS // (B * H) + 1, B, I)),
        (seqnets.LSTM(I, H, 2).double(), torch.randn(T, B, I).double()),
        (seqnets.LSTM(I, H, 2, proj_size=2), torch.randn(T, B, I)),
        (seqnets.GRU(I, H, 2), torch.randn(T, B, I)),
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
