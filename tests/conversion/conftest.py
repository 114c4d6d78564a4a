"""Networks with random parameters, so that swapped gates are detected."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from seqnets.layers import DeepRNN


@pytest.fixture(scope="session", autouse=True)
def keras_home(tmp_path_factory):
    """Keep Keras' settings in a temporary folder, and run Keras on torch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
        patch.setenv("KERAS_BACKEND", "torch")
        yield


@torch.no_grad()
def drawn(module):
    """The module with distinct random weights."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.normal_(std=0.6, generator=generator)
    return module.eval()


def network(cell, layers=1, both=False, **options):
    """A stack with 3 input features and 5 units."""
    return drawn(DeepRNN(partial(cell, **options), 3, 5, layers, bidirectional=both))


def inputs(B=4, T=6):
    """Random sequences."""
    return torch.randn(B, T, 3, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def outputs(module, x, lengths=None):
    """The outputs of a seqnets network."""
    return module(x, lengths=lengths)[0].numpy()
