"""Vector mathematics against many more digits, and against torch where numbers are special."""

import ctypes
import mmap
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch

from seqnets.engine import graph
from seqnets.engine.c import compiler
from seqnets.engine.c.compiler import NoCompiler
from seqnets.engine.c.expressions import expression
from seqnets.engine.graph import Columns, Graph

HEADER = Path(compiler.__file__).with_name("vector.h").read_text()
UNARY = sorted(graph.UNARY - {"detach"})
BINARY = sorted((graph.BINARY - {"atan2"}) | graph.COMPARISONS)
EXPORT = '__attribute__((visibility("default"))) '
WRAPPERS = [
    f"{EXPORT}int lanes(void) {{ return LANES; }}",
    f"{EXPORT}void copy(const real *p, real *y, int n) {{ v_store_n(y, v_load_n(p, n), n); }}",
    f"{EXPORT}void load(const real *p, real *y, int n) {{ v_store(y, v_load_n(p, n)); }}",
    f"{EXPORT}void sum(const real *p, real *y) {{ *y = v_sum(v_load(p)); }}",
]


def printed(name, count):
    """A function of so many vectors as programs have it."""
    made = Graph()
    names = {made.leaf(Columns("x", k), 4): f"v_load(a{k} + i)" for k in range(count)}
    return expression(made.apply(name, *names), names)


for count, names in enumerate([UNARY, [*BINARY, "atan2"], ["where"]], 1):
    parameters = ", ".join(f"const real *a{k}" for k in range(count))
    WRAPPERS += [
        f"{EXPORT}void test_{name}({parameters}, real *y, long n) "
        f"{{ for (long i = 0; i < n; i += LANES) v_store(y + i, {printed(name, count)}); }}"
        for name in names
    ]

DTYPES = [np.float32, np.float64]
ULP = {np.float32: 2.0**-24, np.float64: 2.0**-53}  # half of one: the least that any result errs

# Points, and the greatest relative error in units of ULP.
LARGEST_EXP = {np.float32: 88.7, np.float64: 709.7}
LEAST_EXP = {np.float32: -87.3, np.float64: -708.3}
RELATIVE = {
    "sigmoid": (LEAST_EXP, LARGEST_EXP, 5),
    "tanh": (-25.0, 25.0, 5),
    "exp": (LEAST_EXP, LARGEST_EXP, 3),
    "expm1": (-50.0, LARGEST_EXP, 4),
    "log": (1e-3, 8.0, 3),
    "log1p": (-0.99, 8.0, 4),
    "sqrt": (0.0, 9.0, 1.01),
    "rsqrt": (1e-3, 9.0, 3),
    "reciprocal": (0.1, 9.0, 1.01),
    "exp2": ({np.float32: -125.9, np.float64: -1021.9}, {np.float32: 127.9, np.float64: 1023.9}, 3),
    "sinh": ({d: -v for d, v in LARGEST_EXP.items()}, {np.float32: 89.4, np.float64: 710.4}, 5),
    "cosh": ({d: -v for d, v in LARGEST_EXP.items()}, {np.float32: 89.4, np.float64: 710.4}, 4),
    "asinh": (-1e3, 1e3, 5),
    "acosh": (1.0, 1e3, 5),
    "asin": (-1.0, 1.0, 4),
    "acos": (-1.0, 1.0, 4),
    "atan": (-30.0, 30.0, 4),
    "erf": (-6.0, 6.0, 3),
}
REFERENCE = {
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "reciprocal": lambda x: 1 / x,
    "rsqrt": lambda x: 1 / mpmath.sqrt(x),
    "exp2": lambda x: mpmath.mpf(2) ** x,
}


PLAIN = [f"#undef {name}" for name in ("__AVX512F__", "__AVX__", "__SSE2__")]


@pytest.fixture(autouse=True, params=[[], PLAIN], ids=["this processor", "any processor"])
def header(request, monkeypatch):
    """The header with all instructions of this processor, or with those that all have."""
    monkeypatch.setitem(globals(), "HEADER", "\n".join([*request.param, HEADER]))


def _library(dtype):
    double = "#define SEQNETS_DOUBLE\n" if dtype == np.float64 else ""
    try:
        compiler.compiler()
    except NoCompiler as reason:
        pytest.skip(str(reason))
    return compiler.load("\n".join([double, HEADER, *WRAPPERS]))


def _pointer(array):
    return ctypes.c_void_p(array.ctypes.data)


def compute(name, dtype, *args):
    """A function of arrays, whatever their size."""
    library = _library(dtype)
    lanes = library.lanes()
    args = np.broadcast_arrays(*(np.asarray(arg, dtype) for arg in args))
    size = args[0].size
    padded = [np.pad(arg, (0, -size % lanes)) for arg in args]
    y = np.empty_like(padded[0])
    getattr(library, f"test_{name}")(*map(_pointer, padded), _pointer(y), ctypes.c_long(y.size))
    return y[:size]


def exact(name, x):
    """A function with so many digits that the rounding of its argument is all that is left."""
    function = REFERENCE.get(name) or getattr(mpmath, name)
    with mpmath.workdps(40):
        return np.array([function(mpmath.mpf(float(value))) for value in x])


def _relative_error(found, expected):
    with mpmath.workdps(40):
        pairs = zip(found, expected, strict=True)
        errors = [float(abs(mpmath.mpf(float(y)) - z) / (abs(z) or 1)) for y, z in pairs]
    return np.max(errors)  # NaN if one is


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", RELATIVE)
def test_a_function_is_right_to_the_last_bits(name, dtype):
    low, high, tolerance = RELATIVE[name]
    low, high = (end[dtype] if isinstance(end, dict) else end for end in (low, high))
    around_zero = np.geomspace(1e-30, 1, 500)
    x = np.concatenate([np.linspace(low, high, 2001), around_zero, -around_zero]).astype(dtype)
    x = x[(low <= x) & (x <= high) & (x != 0)]

    assert _relative_error(compute(name, dtype, x), exact(name, x)) <= tolerance * ULP[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["sin", "cos"])
def test_a_circle_is_round_far_out(name, dtype):
    high = {np.float32: 1e4, np.float64: 1e6}[dtype]
    x = np.concatenate([np.linspace(-high, high, 2001), np.linspace(-7, 7, 2001)]).astype(dtype)

    difference = np.abs(compute(name, dtype, x) - exact(name, x)).max()

    assert difference <= {np.float32: 1e-7, np.float64: 3e-16}[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["sin", "cos"])
def test_a_circle_is_round_at_the_end_of_the_world(name, dtype):
    x = np.array([3e4, -1e7, 1e22, 1, -2e30], dtype)

    assert np.abs(compute(name, dtype, x) - exact(name, x)).max() <= 2 * ULP[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
def test_tiny_numbers_are_their_own_tanh(dtype):
    x = np.array([1e-20, -1e-20, 1e-30, 3e-38], dtype)

    np.testing.assert_array_equal(compute("tanh", dtype, x), x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_logarithms_of_denormal_numbers_are_right(dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    x = tiny * np.array([1, 2, 3, 1000, 12345], dtype)

    assert _relative_error(compute("log", dtype, x), exact("log", x)) <= 3 * ULP[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
def test_exponentials_that_are_denormal_err_by_one_of_their_steps(dtype):
    x = np.linspace(LEAST_EXP[dtype] - 20, LEAST_EXP[dtype], 500).astype(dtype)

    difference = np.abs(compute("exp", dtype, x) - exact("exp", x)).max()

    assert difference <= np.finfo(dtype).smallest_subnormal


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", UNARY)
def test_special_numbers_give_what_torch_gives(name, dtype):
    info = np.finfo(dtype)
    ends = [info.max, info.tiny, info.smallest_subnormal, np.inf, 0.0, 1.0, 0.5, 2.5]
    x = np.array([*ends, *(-end for end in ends), np.nan], dtype)

    function = getattr(torch.nn.functional, name, None) or getattr(torch, name)
    given = torch.from_numpy(x)
    expected = function(given.double()).to(given.dtype).numpy()  # ARM's erf in float32 flushes to 0

    found = compute(name, dtype, x)
    least = info.tiny if name == "sigmoid" else info.smallest_subnormal
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=least)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BINARY)
def test_two_numbers_give_what_torch_gives(name, dtype):
    values = np.array([0.0, -0.0, 1.5, -2.5, 3e30, -np.inf, np.inf, np.nan], dtype)
    a, b = (side.ravel() for side in np.meshgrid(values, values))

    expected = getattr(torch, name)(torch.from_numpy(a), torch.from_numpy(b)).to(torch.float64)

    np.testing.assert_array_equal(compute(name, dtype, a, b), expected.numpy().astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_angle_is_right_all_around_and_of_zeros_and_infinities(dtype):
    info = np.finfo(dtype)
    ends = [0.0, 1.5, 0.6, 1e-9, info.max, info.tiny, info.smallest_subnormal, np.inf]
    y, x = (side.ravel() for side in np.meshgrid(*2 * [[*ends, *(-end for end in ends), np.nan]]))
    around = np.linspace(-3.14, 3.14, 500)
    y, x = (
        np.r_[given, more].astype(dtype)
        for given, more in ((y, np.sin(around)), (x, np.cos(around)))
    )

    found, expected = compute("atan2", dtype, y, x), np.arctan2(y.astype(float), x.astype(float))

    np.testing.assert_allclose(found, expected, rtol=4 * ULP[dtype], atol=info.smallest_subnormal)
    np.testing.assert_array_equal(np.signbit(found[expected == 0]), np.signbit(y[expected == 0]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_choice_is_made_lane_by_lane(dtype):
    c = np.array([1, 0, -0.0, 0.5, np.nan, np.inf], dtype)
    a, b = np.arange(6, dtype=dtype), np.array([np.nan, -1, -2, np.nan, -4, -5], dtype)

    np.testing.assert_array_equal(compute("where", dtype, c, a, b), [0, -1, -2, 3, 4, 5])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sum_has_all_lanes_once(dtype):
    library = _library(dtype)
    x, y = 2.0 ** np.arange(library.lanes(), dtype=dtype), np.empty(1, dtype)

    library.sum(_pointer(x), _pointer(y))

    assert y == 2 ** library.lanes() - 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_lanes_past_the_end_are_zero_and_stay_unwritten(dtype):
    library = _library(dtype)
    lanes = library.lanes()
    x = np.arange(1, lanes + 1, dtype=dtype)

    for n in range(lanes + 1):
        loaded, stored = np.full(lanes, np.nan, dtype), np.full(lanes, -1, dtype)
        library.load(_pointer(x), _pointer(loaded), n)
        library.copy(_pointer(x), _pointer(stored), n)
        np.testing.assert_array_equal(loaded, [*x[:n], *[0] * (lanes - n)])
        np.testing.assert_array_equal(stored, [*x[:n], *[-1] * (lanes - n)])


@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_past_the_end_is_not_touched(dtype):
    library = _library(dtype)
    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 2 * page)
    view = np.frombuffer(memory, dtype)
    end, size = view.ctypes.data + page, np.dtype(dtype).itemsize
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    x = np.arange(1, library.lanes() + 1, dtype=dtype)

    assert protect(end, page, 0) == 0  # to touch the second page ends the process
    for n in range(library.lanes() + 1):
        start = ctypes.c_void_p(end - n * size)
        library.copy(_pointer(x), start, n)
        library.copy(start, _pointer(x), n)
        np.testing.assert_array_equal(view[page // size - n : page // size], x[:n])
    protect(end, page, mmap.PROT_READ | mmap.PROT_WRITE)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_remainder_is_torchs_and_never_leaves_its_range(dtype):
    random = np.random.default_rng(0)
    a = np.concatenate([random.normal(size=3000) * 10.0**k for k in (-3, 0, 3, 7, 20)])
    a = np.concatenate([a, np.arange(-3000, 3000) * 0.7, [0.0, -0.0]]).astype(dtype)
    special = np.array([0.0, 1.0, -1.0, np.inf, -np.inf, np.nan], dtype)

    for b in (0.7, -0.7, 3.0, 1e-3):
        found, expected = (
            compute("remainder", dtype, a, b),
            torch.remainder(torch.tensor(a), torch.tensor(b, dtype=torch.tensor(a).dtype)).numpy(),
        )
        np.testing.assert_allclose(found, expected, rtol=0, atol=4 * ULP[dtype] * abs(b))
        assert np.all((found >= 0) & (found <= b) if b > 0 else (found <= 0) & (found >= b))
    pairs = np.array([(x, y) for x in special for y in special], dtype).T
    np.testing.assert_array_equal(
        compute("remainder", dtype, *pairs), torch.remainder(*map(torch.tensor, pairs)).numpy()
    )
