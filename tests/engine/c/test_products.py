"""Products of matrices in C, against torch's in double precision."""

from itertools import product

import pytest
import torch

from seqnets.engine.c import products
from seqnets.engine.c.products import multiply

TOLERANCES = {torch.float32: 2e-6, torch.float64: 1e-14}
SIZES = [  # m, k and n: less than a tile, whole ones, and parts of tiles, blocks and panels
    *[(1, 1, 1), (5, 3, 2), (6, 256, 64), (7, 257, 65), (96, 40, 512)],
    *[(100, 600, 30), (49, 513, 129), (16, 5, 600), (3, 2, 1000)],
]


def matrix(rows, columns, dtype, turned=False):
    numbers = torch.randn(columns, rows, dtype=dtype).T if turned else None
    return torch.randn(rows, columns, dtype=dtype) if numbers is None else numbers


def multiplied(a, b, bias=None):
    out = a.new_full((len(a), b.shape[1]), torch.nan)
    multiply(a, b, bias, out)
    return out


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_products_are_those_of_double_precision_whatever_lies_how_in_memory(sizes, dtype):
    m, k, n = sizes
    for a_turned, b_turned, with_bias in product((False, True), repeat=3):
        a, b = matrix(m, k, dtype, a_turned), matrix(k, n, dtype, b_turned)
        bias = torch.randn(n, dtype=dtype) if with_bias else None

        found = multiplied(a, b, bias)

        wanted = a.double() @ b.double() + (bias if with_bias else 0)
        assert (found - wanted).abs().max() <= TOLERANCES[dtype] * wanted.abs().max() * k**0.5


def test_rows_may_lie_apart_and_columns_repeat():
    a, b = torch.randn(20, 9)[::2, 1:], torch.randn(8, 1).expand(8, 70)

    torch.testing.assert_close(multiplied(a, b), a @ b)


@pytest.mark.parametrize("rows", [48, 50])
def test_rows_may_share_numbers(rows):
    signal, b = torch.randn(rows + 4), torch.randn(5, 20)
    windows = signal.unfold(0, 5, 1)

    torch.testing.assert_close(multiplied(windows, b), windows.clone() @ b)


def test_an_imaginary_part_may_be_stored_as_its_opposite():
    a, b = torch.randn(13, 6, dtype=torch.complex64).conj().imag, torch.randn(6, 40)
    assert a.is_neg()

    torch.testing.assert_close(multiplied(a, b), a @ b)


def test_so_may_a_bias():
    a, b, bias = torch.randn(13, 6), torch.randn(6, 1), torch.tensor([1 + 2j]).conj().imag
    assert bias.is_neg()
    assert bias.is_contiguous()

    torch.testing.assert_close(multiplied(a, b, bias), a @ b - 2)


def test_nothing_is_written_beside_the_product():
    around = torch.zeros(9, 70)

    multiply(torch.randn(7, 5), torch.randn(5, 50), None, around[1:8, :50])

    assert around[1:8, :50].all()
    assert around.count_nonzero() == 7 * 50


def test_a_row_has_the_same_bits_alone_among_others_and_on_any_number_of_threads(monkeypatch):
    a, b = torch.randn(200, 300), torch.randn(300, 128)
    together = multiplied(a, b)

    torch.testing.assert_close(multiplied(a[150:157], b), together[150:157], rtol=0, atol=0)
    for threads in (1, 2, 3):
        monkeypatch.setattr(products, "most_threads", lambda threads=threads: threads)
        torch.testing.assert_close(multiplied(a, b), together, rtol=0, atol=0)


def test_a_number_that_is_none_stays_in_its_row_and_column():
    a, b = torch.randn(13, 6), torch.randn(6, 40)
    a[4, 2], b[1, 30] = torch.nan, torch.inf

    found = multiplied(a, b)

    assert found[4].isnan().all()
    assert not found.isfinite()[:, 30].any()
    assert found.isfinite().sum() == 12 * 39


def test_a_machine_without_a_compiler_cannot(monkeypatch, tmp_path):
    monkeypatch.setenv("CC", "nobody")
    monkeypatch.setenv("SEQNETS_CACHE", str(tmp_path))
    products._library.cache_clear()
    try:
        assert not products.can_multiply(torch.float32)
    finally:
        products._library.cache_clear()
    assert not products.can_multiply(torch.bfloat16)


def test_a_processor_without_tiles_does_not_multiply_by_them(monkeypatch):
    monkeypatch.setattr(products, "has_tiles", lambda: False)
    monkeypatch.setattr(products, "_library", products._library.__wrapped__)

    assert not products.can_multiply(torch.float32, tiled=True)
    assert products.can_multiply(torch.float32)
