import math
from functools import partial

import pytest
import torch

from seqnets.errors import ConfigError
from seqnets.training import Cosine, DelayedExponential


def rates(schedule, steps, peak=8.0):
    """The learning rates of the first steps."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    schedule, found = schedule(optimizer), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_a_cosine_rises_in_a_line_and_falls_to_its_floor_where_it_stays():
    half = 4 + 4 * (1 + math.cos(math.pi / 4)) / 2

    found = rates(partial(Cosine, total_steps=6, warmup=1 / 3, floor=0.5), 8)

    assert found == pytest.approx([4, 8, 8, half, 6, 12 - half, 4, 4], abs=1e-12)


def test_a_cosine_without_warmup_begins_at_its_peak():
    found = rates(partial(Cosine, total_steps=2, warmup=0, floor=0), 4)

    assert found == pytest.approx([8, 8, 0, 0], abs=1e-12)


def test_a_delayed_exponential_keeps_the_rate_and_then_divides_it_each_epoch():
    assert rates(partial(DelayedExponential, delay=3, gamma=0.5), 6) == [8, 8, 8, 4, 2, 1]


@pytest.mark.parametrize(
    "schedule",
    [
        partial(Cosine, total_steps=9, warmup=1.0),
        partial(Cosine, total_steps=9, warmup=-0.1),
        partial(Cosine, total_steps=9, floor=1.1),
        partial(DelayedExponential, delay=-1, gamma=0.5),
        partial(DelayedExponential, delay=1, gamma=0.0),
    ],
)
def test_invalid_options_are_refused(schedule):
    with pytest.raises(ConfigError, match=f"^{schedule.func.__name__}: "):
        rates(schedule, 1)
