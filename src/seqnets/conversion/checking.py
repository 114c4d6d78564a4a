"""The proof of a conversion: both sides are given the same sequences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from seqnets.conversion.parts import Array, layers_of, stack

LIMIT = 1e-4
"""The largest difference of outputs in float32 that rounding explains."""

Run = Callable[[Array, Array], Array]
"""From inputs (B, T, I) and valid steps (B,) to outputs (B, T, H)."""

_STEPS = (9, 4, 1)


@torch.no_grad()
def difference(module: nn.Module, run: Run) -> float:
    """The largest difference between the outputs of a network and of its counterpart.

    It counts in the largest output where that is above 1, which a ReLU's can be by far.

    Args:
        module: The network of seqnets.
        run: Its counterpart over sequences of different lengths; outputs past the end may be
            anything.
    """
    network = stack(layers_of(module)).to("cpu", torch.float32)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(_STEPS), max(_STEPS), network.input_size, generator=generator)
    lengths = torch.tensor(_STEPS, dtype=torch.int32)

    ours = network(x, lengths=lengths)[0].numpy()
    theirs = np.asarray(run(x.numpy(), lengths.numpy()))

    valid = np.arange(max(_STEPS)) < lengths.numpy()[:, None]
    if theirs.shape != ours.shape:
        return float("inf")
    size = max(1.0, float(np.abs(ours[valid]).max()))
    return float(np.abs(ours - theirs)[valid].max()) / size
