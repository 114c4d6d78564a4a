"""Products by a processor's tiles of bfloat16, beside the loops and in them."""

import ctypes
import mmap
from functools import partial
from itertools import product

import pytest
import torch
from torch import nn

from seqnets import unroll
from seqnets.cells import (
    GatedCell,
    GRUCell,
    LayerNorm,
    LMUCell,
    LSTMCell,
    MultiplicativeLSTMCell,
    PeepholeLSTMCell,
    RecurrentHighwayCell,
    optioned,
)
from seqnets.engine import c
from seqnets.engine import products as engine_products
from seqnets.engine.c import products
from seqnets.engine.c.loops import C_LOOPS, CLoops
from seqnets.engine.c.products import can_multiply, multiply
from seqnets.engine.c.tiles import has_tiles
from seqnets.engine.plans import program_of

if not has_tiles():
    pytest.skip("no tiles of bfloat16, which Intel's AMX has", allow_module_level=True)

SIZES = [  # m, k and n: less than a tile, whole ones, and parts of tiles, strips and blocks
    *[(1, 1, 1), (5, 3, 2), (16, 32, 16), (32, 64, 32), (7, 257, 65), (96, 40, 512)],
    *[(100, 600, 30), (49, 513, 129), (16, 5, 600), (3, 2, 1000), (33, 1025, 33)],
]


def matrix(rows, columns, turned=False):
    return torch.randn(columns, rows).T if turned else torch.randn(rows, columns)


def multiplied(a, b, bias=None):
    out = a.new_full((len(a), b.shape[1]), torch.nan)
    assert multiply(a, b, bias, out, tiled=True)
    return out


def error(found, a, b, bias=0):
    """The largest difference from the product in double precision, over that of magnitudes."""
    wanted = a.double() @ b.double() + bias
    return float(((found - wanted).abs() / (a.double().abs() @ b.double().abs()).max()).max())


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_products_are_right_to_sixteen_bits_whatever_lies_how_in_memory(sizes):
    m, k, n = sizes
    for a_turned, b_turned, with_bias in product((False, True), repeat=3):
        a, b = matrix(m, k, a_turned), matrix(k, n, b_turned)
        bias = torch.randn(n) if with_bias else None

        found = multiplied(a, b, bias)

        assert error(found, a, b, bias if with_bias else 0) < 2**-16


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("which", ["a", "b", "both"])
def test_numbers_of_bfloat16_lose_nothing(which, sizes):
    m, k, n = sizes
    a, b = matrix(m, k), matrix(k, n, turned=True)
    a = a if which == "b" else a.bfloat16().float()
    b = b if which == "a" else b.bfloat16().float()

    found = error(multiplied(a, b), a, b)

    assert found < (2**-21 if which == "both" else 2**-16)


def test_small_and_large_numbers_are_split_too():
    a = torch.randn(40, 50) * 10 ** torch.linspace(-30, 30, 40)[:, None]
    b = torch.randn(50, 40)

    found, wanted = multiplied(a, b).double(), a.double() @ b.double()

    scale = a.double().abs() @ b.double().abs()
    assert float(((found - wanted).abs() / scale).max()) < 2**-16


def test_rows_may_lie_apart_columns_repeat_and_numbers_be_stored_as_their_opposites():
    a, b = torch.randn(40, 19)[::2, 1:], torch.randn(18, 1).expand(18, 70)
    turned = torch.randn(13, 6, dtype=torch.complex64).conj().imag
    assert turned.is_neg()

    assert error(multiplied(a, b), a, b) < 2**-16
    assert error(multiplied(turned, b[:6]), turned, b[:6]) < 2**-16


def test_nothing_is_written_beside_the_product():
    around = torch.zeros(45, 70)

    multiply(torch.randn(43, 5), torch.randn(5, 50), None, around[1:44, :50], tiled=True)

    assert around[1:44, :50].all()
    assert around.count_nonzero() == 43 * 50


def guarded(tensor):
    """A copy of a tensor that ends where reading on would end the process."""
    size = tensor.numel() * 4
    pages = -(-size // mmap.PAGESIZE) + 1
    memory = mmap.mmap(-1, pages * mmap.PAGESIZE)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    last = ctypes.c_void_p(begin + (pages - 1) * mmap.PAGESIZE)
    assert not ctypes.CDLL(None).mprotect(last, ctypes.c_size_t(mmap.PAGESIZE), 0)
    first = (pages - 1) * mmap.PAGESIZE - size
    copy = torch.frombuffer(memory, dtype=torch.float32, count=tensor.numel(), offset=first)
    return copy.view(tensor.shape).copy_(tensor)


@pytest.mark.parametrize("sizes", [(3, 5, 2), (33, 47, 35), (20, 600, 530)], ids=str)
def test_nothing_is_read_beyond_the_ends(sizes):
    m, k, n = sizes
    for a_turned, b_turned in product((False, True), repeat=2):
        a = guarded(torch.randn(k, m)).T if a_turned else guarded(torch.randn(m, k))
        b = guarded(torch.randn(n, k)).T if b_turned else guarded(torch.randn(k, n))
        bias, out = guarded(torch.randn(n)), guarded(torch.zeros(m, n))

        multiply(a, b, bias, out, tiled=True)

        assert error(out, a, b, bias) < 2**-16


def test_a_row_has_the_same_bits_alone_among_others_and_on_any_number_of_threads(monkeypatch):
    a, b = torch.randn(200, 600), torch.randn(600, 128)
    together = multiplied(a, b)

    torch.testing.assert_close(multiplied(a[150:157], b), together[150:157], rtol=0, atol=0)
    for threads in (1, 2, 3):
        monkeypatch.setattr(products, "most_threads", lambda threads=threads: threads)
        torch.testing.assert_close(multiplied(a, b), together, rtol=0, atol=0)


LARGEST = torch.finfo(torch.float32).max  # infinite in bfloat16
NOT_IN_TILES = [torch.inf, -torch.inf, torch.nan, LARGEST, -LARGEST]


@pytest.mark.parametrize("value", NOT_IN_TILES)
@pytest.mark.parametrize("k", [36, 600])
def test_products_of_numbers_beyond_bfloat16_are_those_of_float32(monkeypatch, k, value):
    monkeypatch.setattr(engine_products, "_tiles_pay", lambda m, k, n: True)
    for of_a, of_b in [((41, 2), None), (None, (1, 39)), ((41, 2), (1, 39))]:
        a, b = torch.randn(43, k), torch.randn(k, 40)
        b[2, 5] = 0
        for matrix, place in [(a, of_a), (b, of_b)]:
            if place is not None:
                matrix[place] = value

        found = engine_products.product(a, b, tiled=True)

        torch.testing.assert_close(found, a @ b, equal_nan=True)


def test_sums_beyond_float32_are_infinite_as_in_float32(monkeypatch):
    monkeypatch.setattr(engine_products, "_tiles_pay", lambda m, k, n: True)
    a, b = 1e25 * (torch.rand(43, 36) + 1), 1e25 * (torch.rand(36, 40) + 1)

    assert not multiply(a, b, None, torch.empty(43, 40), tiled=True)
    assert (engine_products.product(a, b, tiled=True) == torch.inf).all()


def test_tiles_take_float32_alone():
    assert can_multiply(torch.float32, tiled=True)
    assert not can_multiply(torch.float64, tiled=True)
    assert not can_multiply(torch.bfloat16, tiled=True)


CELLS = {
    "gru": GRUCell,
    "lstm with peepholes": PeepholeLSTMCell,
    "projected lstm": partial(LSTMCell, proj_size=19),
    "a product of a product": MultiplicativeLSTMCell,
    "several products": RecurrentHighwayCell,
    "weights that are mostly zeros": LMUCell,
    "a layer norm before the loop": partial(optioned, cell=GRUCell, options=[LayerNorm]),
}


@pytest.fixture
def tiled(monkeypatch, unoptimised):
    """Loops in which tiles multiply, and so they do beside them, whatever the sizes are."""
    monkeypatch.setattr(c.loops, "_WORTH_TILES", 0)
    monkeypatch.setattr(engine_products, "_tiles_pay", lambda m, k, n: True)
    return CLoops(tiled=True)


def weighted_sum(*tensors):
    """A loss whose gradients, the weights, are numbers of bfloat16."""
    torch.manual_seed(1)
    return sum((t.double() * torch.randn(t.shape).bfloat16()).sum() for t in tensors)


def results(cell, x, loops, mixed=False, **options):
    """Outputs, state and all gradients of a weighted sum, by some loops in C."""
    x = x.detach().requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(c, "_loops", lambda *_: loops)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            y, state = unroll(cell, x, backend="c", **options)
        loss = weighted_sum(y, *state)
        grads = torch.autograd.grad(loss, [x, *cell.parameters()], allow_unused=True)
    return [y, *state, *(grad for grad in grads if grad is not None)]


def all_options(B, T):
    lengths, resets = torch.randint(0, T + 1, (B,)), torch.rand(B, T) < 0.1
    return {"lengths": lengths, "resets": resets, "reverse": True, "memory": "lean"}


def assert_alike(found, expected, bits):
    """Equal but for some bits of the largest number of each tensor."""
    for ours, theirs in zip(found, expected, strict=True):
        scale = max(float(theirs.detach().abs().max()), 1e-3)
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=0, atol=scale * 2**-bits)


@pytest.mark.parametrize("B", [1, 3, 21])
@pytest.mark.parametrize("name", CELLS)
def test_loops_by_tiles_are_those_without_to_five_digits(name, B, tiled):
    torch.manual_seed(0)
    cell, x = CELLS[name](18, 37), torch.randn(B, 13, 18)

    for options in ({}, all_options(B, 13)):
        expected = results(cell, x, C_LOOPS, **options)
        found = results(cell, x, tiled, mixed=True, **options)

        assert_alike(found, expected, bits=13)
        assert any((ours != theirs).any() for ours, theirs in zip(found, expected, strict=True))


def winners(units):
    """Of each four units, the largest; the others are zero. Units are compared with moved ones."""
    groups = units.view(-1, 5, 4)
    return (groups * (groups == groups.amax(-1, keepdim=True))).flatten(1)


class Winners(GatedCell):
    gates = ("n",)
    states = ("h",)

    def update(self, wx, uh, state):
        return (winners(torch.tanh(wx.n + uh.n)),)


class WinnersOfTheInput(Winners):  # which are found before the loop
    def update(self, wx, uh, state):
        return (winners(wx.n),)


@pytest.mark.parametrize("cell_cls", [Winners, WinnersOfTheInput])
def test_units_are_moved_without_a_loss_by_tiles_so_that_they_equal_themselves(cell_cls, tiled):
    cell, x = cell_cls(4, 20), torch.randn(3, 6, 4)

    expected = results(cell, x, C_LOOPS)
    found = results(cell, x, tiled, mixed=True)

    assert (found[0] != 0).view(3, 6, 5, 4).sum(-1).eq(1).all()
    assert_alike(found, expected, bits=13)


@pytest.mark.parametrize("cell_cls", [GRUCell, PeepholeLSTMCell])
def test_rows_that_are_not_packed_at_once_are_multiplied_too(cell_cls, tiled):
    torch.manual_seed(0)
    cell, x = cell_cls(18, 37), torch.randn(300, 3, 18)

    expected = results(cell, x, C_LOOPS)
    found = results(cell, x, tiled, mixed=True)

    assert_alike(found, expected, bits=13)


def test_packed_rows_of_many_threads_take_no_more_memory_for_more_rows(tiled):
    program = program_of(GRUCell(4, 128))
    library = tiled.library(program, torch.float32)

    def memory_of_threads(B):
        one, many = (c.loops.Settings(B, 8, threads, 1) for threads in (1, 16))
        return library.ready("backward", many)[2] - library.ready("backward", one)[2]

    assert memory_of_threads(16) < memory_of_threads(128) == memory_of_threads(1000) > 0


@pytest.mark.parametrize("value", NOT_IN_TILES)
@pytest.mark.parametrize("where", ["x", "state", "weight"])
@pytest.mark.parametrize("cell_cls", [GRUCell, LSTMCell])
def test_numbers_beyond_bfloat16_make_nan_where_they_do_in_float32(cell_cls, where, value, tiled):
    torch.manual_seed(0)
    cell, x = cell_cls(18, 37), torch.randn(21, 5, 18)
    state = tuple(torch.randn(21, size) for size in program_of(cell).step.state_sizes)
    numbers = {"x": x[:, 1], "state": state[0], "weight": cell.weight_hh.data}[where]
    numbers[9, 2] = value

    expected = results(cell, x, C_LOOPS, state=state)
    found = results(cell, x, tiled, mixed=True, state=state)

    for ours, theirs in zip(found, expected, strict=True):
        usual = theirs[theirs.abs() < 1e30]
        scale = float(usual.detach().abs().max()) if len(usual) else 1
        torch.testing.assert_close(
            ours, theirs, rtol=2**-13, atol=scale * 2**-13, equal_nan=True, check_dtype=False
        )


def test_other_rows_have_the_same_bits_beside_one_with_nan(tiled):
    cell, x = GRUCell(18, 70), torch.randn(21, 13, 18)
    state = torch.randn(21, 70)
    expected = results(cell, x, tiled, mixed=True, state=(state,))[0]

    state[9, 2] = torch.nan
    found = results(cell, x, tiled, mixed=True, state=(state,))[0]

    others = [b for b in range(21) if b != 9]
    assert found[9].isnan().all()
    torch.testing.assert_close(found[others], expected[others], rtol=0, atol=0)


@pytest.mark.parametrize("cell_cls", [GRUCell, PeepholeLSTMCell, LSTMCell])
def test_layers_of_bfloat16_are_those_of_float64_rounded_once(cell_cls, tiled):
    half, x = cell_cls(33, 70).bfloat16(), torch.randn(20, 40, 33).bfloat16()
    oracle = cell_cls(33, 70).double()
    oracle.load_state_dict({name: value.double() for name, value in half.state_dict().items()})

    found = results(half, x, tiled)
    expected = results(oracle, x.double(), C_LOOPS)

    assert {tensor.dtype for tensor in found} == {torch.bfloat16}
    assert_alike(found, expected, bits=8)


def test_gradients_are_nearer_to_those_of_float64_than_torchs_in_bfloat16(tiled):
    half, x = LSTMCell(33, 70).bfloat16(), torch.randn(20, 40, 33).bfloat16()
    oracle, theirs = LSTMCell(33, 70).double(), nn.LSTM(33, 70, batch_first=True).bfloat16()
    oracle.load_state_dict({name: value.double() for name, value in half.state_dict().items()})
    theirs.load_state_dict({f"{name}_l0": value for name, value in half.state_dict().items()})

    ours = results(half, x, tiled)[3:]
    expected = results(oracle, x.double(), C_LOOPS)[3:]
    x = x.requires_grad_()
    y, state = theirs(x)
    grads = torch.autograd.grad(
        weighted_sum(y, *(part[0] for part in state)), [x, *theirs.parameters()]
    )

    for mine, yours, right in zip(ours, grads, expected, strict=True):
        assert (mine - right).abs().max() < (yours - right).abs().max()


def test_loops_by_tiles_have_the_same_bits_on_any_number_of_threads(monkeypatch, tiled):
    cell, x = GRUCell(18, 70), torch.randn(37, 13, 18)

    found = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(c.loops, "most_threads", lambda threads=threads: threads)
        *rest, _ = results(cell, x, tiled, mixed=True)
        found.append(rest)  # without a bias's gradient, which is a sum of the threads' sums

    for each in found[1:]:
        torch.testing.assert_close(each, found[0], rtol=0, atol=0)


def test_half_and_mixed_precision_take_tiles_and_float32_does_not(monkeypatch):
    taken, run = [], c.fused.run
    monkeypatch.setattr(
        c.fused, "run", lambda loops, request: taken.append(loops.tiled) or run(loops, request)
    )
    cell, x = GRUCell(4, 5), torch.randn(2, 3, 4)

    unroll(cell, x, backend="c")
    with torch.autocast("cpu", torch.bfloat16):
        unroll(cell, x, backend="c")
        unroll(cell, x.double().float(), backend="c")
    unroll(cell.double(), x.double(), backend="c")
    unroll(cell.bfloat16(), x.bfloat16(), backend="c")

    assert taken == [False, True, True, False, True]


def test_a_processor_without_tiles_runs_loops_without_them(monkeypatch):
    monkeypatch.setattr(c.loops, "has_tiles", lambda: False)

    assert not c.loops.Library(program_of(GRUCell(4, 128)), torch.float32, tiled=True).tiled


def test_small_weights_are_not_worth_tiles_and_small_products_neither():
    small, large = (program_of(GRUCell(4, H)) for H in (64, 128))

    assert not c.loops.Library(small, torch.float32, tiled=True).tiled
    assert c.loops.Library(large, torch.float32, tiled=True).tiled
    assert not c.loops.Library(large, torch.float64, tiled=True).tiled
    assert engine_products._tiles_pay(2048, 128, 512)
    assert not engine_products._tiles_pay(16, 256, 1024)
    assert not engine_products._tiles_pay(64, 64, 64)
