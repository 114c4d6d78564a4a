import pytest
import torch

from seqnets.errors import ConfigError
from seqnets.training import DelayedExponential


def test_a_delayed_exponential_keeps_the_rate_and_then_divides_it_each_epoch():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=8.0)
    schedule = DelayedExponential(optimizer, delay=3, gamma=0.5)

    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()

    assert rates == [8, 8, 8, 4, 2, 1]


@pytest.mark.parametrize("options", [{"delay": -1, "gamma": 0.5}, {"delay": 1, "gamma": 0.0}])
def test_a_delayed_exponential_refuses_invalid_options(options):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)

    with pytest.raises(ConfigError, match="DelayedExponential"):
        DelayedExponential(optimizer, **options)
