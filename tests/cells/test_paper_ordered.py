"""LSTMs with ordered units against their paper, in plain floats."""

import math

import pytest
import torch

from seqnets.cells import ONLSTMCell
from seqnets.errors import ConfigError
from seqnets.testing import check_backend, one_unit, step
from seqnets.testing.laws import perturb

from .plain import after, each, numbers, sigmoid, times, total


def cumax(a, chunk):
    """The sum of a softmax so far, each number as often as a chunk is long."""
    shares = [math.exp(number) for number in a]
    return [sum(shares[: k + 1]) / sum(shares) for k in range(len(a)) for _ in range(chunk)]


@pytest.mark.parametrize("chunk", [1, 2])
def test_ordered_neurons_follow_their_paper(chunk):
    cell = ONLSTMCell(3, 4, chunk_size=chunk, dtype=torch.float64)
    perturb(cell, 1.0)
    p, x, h, c = numbers(cell), [1.3, -0.4, 0.6], [0.9, -0.8, 0.2, 0.5], [1.0, -0.5, 0.3, -1.2]

    a = total(times(p["weight_ih"], x), p["bias_ih"], times(p["weight_hh"], h), p["bias_hh"])
    i, f, o = (each(sigmoid, a[k : k + 4]) for k in (0, 4, 12))
    g, m = each(math.tanh, a[8:12]), total(times(p["weight_xm"], x), p["bias_m"])
    m = total(m, times(p["weight_hm"], h))
    master_f = cumax(m[: 4 // chunk], chunk)
    master_i = [1 - share for share in cumax(m[4 // chunk :], chunk)]
    both = each(lambda f, i: f * i, master_f, master_i)
    forget = each(lambda f, w, m: f * w + (m - w), f, both, master_f)
    write = each(lambda i, w, m: i * w + (m - w), i, both, master_i)
    memory = [forget[k] * c[k] + write[k] * g[k] for k in range(4)]

    assert after(cell, x, h, c)[1] == pytest.approx(memory, abs=1e-12)
    assert after(cell, x, h, c)[0] == pytest.approx([o[k] * math.tanh(memory[k]) for k in range(4)])


def test_the_highest_unit_keeps_its_memory():
    gates = {"w": (0.5, -0.3, 0.8, 0.9), "u": (0.7, 0.2, -0.6, 0.4)}
    master = {"weight_xm": (0.3, -1.1), "weight_hm": (0.6, 0.2), "bias_m": (1.0, 2.0)}
    cell = one_unit(ONLSTMCell, **gates, **master)

    h, c = step(cell, 2.0, -1.5, 0.9)

    assert c == pytest.approx(0.9, abs=1e-12)
    assert h == pytest.approx(sigmoid(0.9 * 2.0 - 0.4 * 1.5) * math.tanh(0.9), abs=1e-12)


def test_units_that_share_master_gates_run_in_a_loop():
    cell = ONLSTMCell(3, 6, chunk_size=3)

    assert check_backend(cell, "eager", steps=(1, 4), dtypes=(torch.float64,)) == {}


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        (3, "chunk_size is 3, expected a divisor of hidden_size = 4"),
        (0, "chunk_size is 0, expected at least 1"),
    ],
)
def test_invalid_chunks_are_refused(chunk, message):
    with pytest.raises(ConfigError, match=f"ONLSTMCell: {message}"):
        ONLSTMCell(3, 4, chunk_size=chunk)
