"""Check of a conversion: both networks run on the same sequences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from seqnets.conversion.libraries import Array
from seqnets.conversion.networks import layers_of, merge_of, stack

Run = Callable[[Array, Array], Array]
"""Maps inputs (B, T, I) and lengths (B,) to outputs (B, T, H)."""

_STEPS = (9, 4, 1)


@torch.no_grad()
def difference(module: nn.Module, run: Run) -> float:
    """The largest difference between the outputs of a network and its counterpart.

    It is relative to the largest output if that exceeds 1, as with ReLU it can by far.

    Args:
        module: The seqnets network.
        run: Its counterpart, for sequences of different lengths; outputs past the end are
            ignored.
    """
    merge = merge_of(module)
    network = stack(layers_of(module, merges=[merge]), merge).to("cpu", torch.float32)
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
