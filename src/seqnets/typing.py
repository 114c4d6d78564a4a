"""The few types that all floors share."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

State = tuple[Tensor, ...]
"""What a cell carries from step to step, each (B, H); the first is its output."""

Sizes = dict[str, int]
"""What a dataset knows and a model needs: vocab_size, input_size, num_classes, output_size."""

IGNORE = -100
"""A target that is not scored: torch's own ``ignore_index``."""


class Batch(NamedTuple):
    """What every dataset yields and every objective takes.

    Attributes:
        x: Tokens, (B, T) int64, or features, (B, T, I) float32.
        y: Next tokens or a label a step, (B, T) int64, ``IGNORE`` where none is; one label a
            sequence, (B,) int64; or values, (B, K) float32.
        lengths: Valid steps of each row, (B,) int64; all T if omitted.
        carry: Whether each row continues the same row of the batch before.
    """

    x: Tensor
    y: Tensor
    lengths: Tensor | None = None
    carry: bool = False
