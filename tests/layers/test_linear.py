"""The linear layer behaves as torch.nn's, whichever product it uses."""

from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from seqnets.engine import products
from seqnets.engine.measured import of_processor
from seqnets.engine.products import linear
from seqnets.layers import Linear


@pytest.fixture(params=["ours", "torch's"])
def whose(request, monkeypatch):
    """Whose product was measured to be faster; gives a list of how often ours is taken."""
    rows = {"speed_of_torch": [[1, 1, 1, 0.5 if request.param == "ours" else 2]]}
    monkeypatch.setattr(products, "table", lambda: {of_processor("products"): rows})
    products._ours.cache_clear()
    taken, multiply = [], products.multiply
    monkeypatch.setattr(products, "multiply", lambda *args: taken.append(1) or multiply(*args))
    yield taken if request.param == "ours" else None
    products._ours.cache_clear()


def pair(bias=True, dtype=torch.float64):
    """Ours and torch.nn's, with the same parameters."""
    ours, theirs = Linear(4, 6, bias, dtype=dtype), nn.Linear(4, 6, bias, dtype=dtype)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(4,), (5, 4), (0, 4), (3, 5, 4), (2, 3, 5, 4)], ids=str)
def test_outputs_and_gradients_are_torchs(shape, bias, whose):
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)

    found = []
    for layer in pair(bias):
        y = layer(x)
        found.append((y, torch.autograd.grad(y.sin().sum(), [x, *layer.parameters()])))

    torch.testing.assert_close(found[0], found[1])
    if whose is not None:
        assert len(whose) == (3 if len(shape) > 1 and shape[0] else 0)


def test_a_matrix_that_does_not_learn_has_no_gradient(whose):
    layer, _ = pair()
    layer.weight.requires_grad_(False)
    x = torch.randn(5, 4, dtype=torch.float64)

    layer(x).sum().backward()

    assert layer.weight.grad is None
    torch.testing.assert_close(layer.bias.grad, torch.full((6,), 5.0, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(), (1,), (1, 6), (5, 6)], ids=str)
def test_a_bias_may_have_any_shape_that_torch_spreads_over_the_rows(shape, whose):
    x, weight = torch.randn(5, 4, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
    bias = torch.randn(shape, dtype=torch.float64, requires_grad=True)

    found = []
    for function in (linear, F.linear):
        y = function(x, weight, bias)
        found.append((y, *torch.autograd.grad(y.sin().sum(), bias)))

    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize(
    ("features", "bias"),
    [(3, None), (5, None), (4, torch.zeros(5)), (4, torch.zeros(7)), (4, torch.zeros(6).half())],
    ids=["too few", "too many", "a short bias", "a long bias", "a bias of another dtype"],
)
def test_mismatched_sizes_raise_torchs_error(features, bias, whose):
    given = torch.ones(5, features), torch.ones(6, 4), bias

    with pytest.raises(RuntimeError) as theirs:
        F.linear(*given)
    with pytest.raises(RuntimeError) as ours:
        linear(*given)

    assert str(ours.value) == str(theirs.value)


def test_gradients_have_gradients_and_may_be_asked_for_many_at_once(whose):
    layer, theirs = pair()
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    y, many = layer(x), torch.randn(3, 5, 6, dtype=torch.float64)

    assert torch.autograd.gradgradcheck(layer, x)
    torch.testing.assert_close(
        torch.autograd.grad(y, x, many, is_grads_batched=True),
        torch.autograd.grad(theirs(x), x, many, is_grads_batched=True),
    )


@pytest.mark.parametrize(
    "way",
    [
        lambda layer, x: torch.func.vmap(layer)(x),
        lambda layer, x: torch.func.jvp(layer, (x,), (x,))[1],
        lambda layer, x: torch.func.jacrev(layer)(x),
        lambda layer, x: torch.compile(layer, fullgraph=True, backend="eager")(x),
        lambda layer, x: torch.export.export(layer, (x,)).module()(x),
        lambda layer, x: torch.jit.trace(layer, x, check_trace=False)(x),
        lambda layer, x: make_fx(layer, None, "symbolic", True)(x)(x),
    ],
    ids=["vmap", "jvp", "jacrev", "compile", "export", "trace", "make_fx"],
)
def test_torchs_function_runs_under_transforms_compilers_and_exporters(way, whose):
    layer, theirs = pair()
    x = torch.randn(5, 4, dtype=torch.float64)

    torch.testing.assert_close(way(layer, x), way(theirs, x))
    assert not whose


def test_under_autocast_it_computes_in_autocasts_dtype(whose):
    layer, theirs = pair(dtype=torch.float32)
    x = torch.randn(5, 4)

    with torch.autocast("cpu"):
        torch.testing.assert_close(layer(x), theirs(x), rtol=0, atol=0)
    assert not whose


class Noted(torch.Tensor):
    """A tensor of a kind of its own, which writes down what is done to it."""

    calls: ClassVar[list[object]] = []

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        cls.calls.append(func)
        return super().__torch_function__(func, types, args, kwargs)


def test_tensor_subclasses_as_weights_get_torchs_function(whose):
    layer, theirs = pair()
    x, Noted.calls = torch.randn(5, 4, dtype=torch.float64), []
    layer.weight = nn.Parameter(layer.weight.data.as_subclass(Noted))

    torch.testing.assert_close(layer(x).as_subclass(torch.Tensor), theirs(x))
    assert F.linear in Noted.calls
    assert not whose


@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning")
def test_weights_may_be_sparse(whose):
    layer, theirs = pair(bias=False)
    x = torch.randn(5, 4, dtype=torch.float64)
    layer.weight = nn.Parameter(layer.weight.data.to_sparse_csr(), requires_grad=False)

    torch.testing.assert_close(layer(x), theirs(x))
    assert not whose
