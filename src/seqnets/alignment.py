"""How many steps a transcript needs, whatever its labels are aligned with."""

from __future__ import annotations

from torch import Tensor

from seqnets.typing import IGNORE


def frames_needed(targets: Tensor) -> Tensor:
    """The fewest frames that can spell each target, (N,): its labels, and a blank where two repeat.

    Args:
        targets: Labels, (N, U); ``IGNORE`` past the end.
    """
    known = targets != IGNORE
    repeats = (targets[:, 1:] == targets[:, :-1]) & known[:, 1:]
    return known.sum(1) + repeats.sum(1)
