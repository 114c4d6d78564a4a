"""Whose product of two matrices is taken."""

from functools import partial

import pytest
import torch

from seqnets import cells, unroll
from seqnets.cells import GRUCell, PeepholeLSTMCell
from seqnets.engine import products, projection
from seqnets.engine.measured import of_processor
from seqnets.engine.products import product


@pytest.fixture
def speed_of_torch(monkeypatch):
    """Lets torch's product be so many times as fast as ours, or not have been measured."""

    def let(speed):
        rows = {"speed_of_torch": [[1, 1, 1, speed]]}
        tables = {} if speed is None else {of_processor("products"): rows}
        monkeypatch.setattr(products, "table", lambda: tables)
        forget()

    def forget():
        products._ours.cache_clear()
        products.torch_is_slow.cache_clear()

    yield let
    forget()


@pytest.fixture
def ours(monkeypatch):
    """Sizes of products that went to our code."""
    seen = []

    def multiply(a, b, bias, out, tiled):
        seen.append((*a.shape, b.shape[1]))
        products_of_c(a, b, bias, out, tiled)

    products_of_c = products.multiply
    monkeypatch.setattr(products, "multiply", multiply)
    return seen


@pytest.mark.parametrize(("speed", "sizes"), [(0.5, [(4, 3, 5)]), (2, []), (None, [])])
def test_the_faster_product_is_taken_and_torchs_where_nobody_measured(
    speed, sizes, speed_of_torch, ours
):
    speed_of_torch(speed)
    a, b, bias = torch.randn(4, 3), torch.randn(3, 5), torch.randn(5)

    torch.testing.assert_close(product(a, b, bias), a @ b + bias)
    assert ours == sizes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_are_torchs(dtype, speed_of_torch, ours):
    speed_of_torch(0.5)
    a, b = torch.randn(4, 3, dtype=dtype), torch.randn(3, 5, dtype=dtype)

    torch.testing.assert_close(product(a, b), a @ b)
    assert not ours


def test_nothing_times_nothing_is_nothing(speed_of_torch):
    speed_of_torch(0.5)

    assert product(torch.ones(0, 3), torch.ones(3, 2)).shape == (0, 2)
    torch.testing.assert_close(product(torch.ones(2, 0), torch.ones(0, 2)), torch.zeros(2, 2))


@pytest.mark.parametrize(
    "b",
    [torch.ones(2, 5), torch.ones(4, 5), torch.ones(3, 5).double()],
    ids=["fewer rows", "more rows", "another dtype"],
)
def test_matrices_that_do_not_fit_are_refused_as_torch_does(b, speed_of_torch):
    speed_of_torch(0.5)

    with pytest.raises(RuntimeError, match=r"shapes cannot be multiplied|same dtype"):
        product(torch.ones(4, 3), b)


def test_a_product_may_go_where_there_is_room(speed_of_torch):
    speed_of_torch(0.5)
    a, b, out = torch.randn(4, 3), torch.randn(3, 5), torch.empty(4, 5)

    assert product(a, b, out=out) is out
    torch.testing.assert_close(out, a @ b)


@pytest.mark.parametrize("lengths", [None, [9, 0, 2, 1]], ids=["whole", "ragged"])
@pytest.mark.parametrize("cell_cls", [GRUCell, PeepholeLSTMCell])
def test_a_layer_and_its_gradients_are_the_same_by_either(
    cell_cls, lengths, speed_of_torch, ours, monkeypatch
):
    monkeypatch.setattr(projection, "_pays_in_the_loop", lambda *sizes: False)
    cell, x = cell_cls(5, 7).double(), torch.randn(4, 9, 5, dtype=torch.float64, requires_grad=True)
    lengths = None if lengths is None else torch.tensor(lengths)

    found = []
    for speed in (2, 0.5):
        speed_of_torch(speed)
        y, state = unroll(cell, x, lengths=lengths, backend="c")
        loss = y.cos().sum() + sum(part.sin().sum() for part in state)
        found.append((y, torch.autograd.grad(loss, [x, *cell.parameters()])))

    rows = 36 if lengths is None else 12
    assert ours[0] == (rows, 5, len(cell.weight_ih))
    assert len(ours) == 4  # of the inputs, their gradient, and those of both weights
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("option", [cells.LayerNorm, partial(cells.Zoneout, p=0.3)])
def test_a_projection_that_is_more_than_a_product_has_it_too(option, speed_of_torch, ours):
    cell = cells.optioned(5, 7, cell=GRUCell, options=[option]).double()
    x = torch.randn(4, 9, 5, dtype=torch.float64, requires_grad=True)

    found = []
    for speed in (2, 0.5):
        speed_of_torch(speed)
        torch.manual_seed(0)
        y, _ = unroll(cell, x, backend="c")
        found.append(torch.autograd.grad(y.cos().sum(), [x, *cell.parameters()]))

    assert len(ours) == 4
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-12)
