import numpy as np
import pytest
import torch

from seqnets.models.negative_binomial import negative_binomial_quantiles

MEANS = torch.logspace(-3, 6, 46, dtype=torch.float64)
DISPERSIONS = torch.logspace(-6, 1.5, 31, dtype=torch.float64)


@pytest.mark.parametrize("level", [0.01, 0.5, 0.9, 0.99])
def test_quantiles_are_those_of_another_library(level):
    nbinom = pytest.importorskip("scipy.stats").nbinom
    mean, dispersion = torch.meshgrid(MEANS, DISPERSIONS, indexing="ij")
    size = 1 / dispersion.numpy()
    share = size / (size + mean.numpy())
    expected = nbinom.ppf(level, size, share)

    found = negative_binomial_quantiles(mean, dispersion, [level])[..., 0].numpy()
    whole = np.ceil(found)

    missed, large = np.abs(whole - expected), expected >= 200
    assert missed[expected < 16].max() == 0
    assert missed[~large].max() <= 1
    assert (found == whole)[expected < 16].all()
    assert (nbinom.cdf(whole, size, share) > level - 0.005)[large].all()
    assert (nbinom.cdf(whole - 1, size, share) < level + 0.005)[large].all()


def test_quantiles_of_several_levels_rise():
    mean, dispersion = torch.tensor([0.2, 5.0, 4e4]), torch.tensor([2.0, 0.5, 0.1])

    found = negative_binomial_quantiles(mean, dispersion, [0.1, 0.5, 0.99])

    assert found.shape == (3, 3)
    assert (found.diff() >= 0).all()
