"""The few types that all floors share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

State = tuple[Tensor, ...]
"""What a cell carries from step to step, each (B, H); the first is its output."""

Sizes = dict[str, int]
"""What a dataset knows and a model needs: vocab_size, input_size, num_classes, output_size."""

Known = Mapping[str, Any]
"""What a dataset says of itself and a checkpoint keeps, as plain values: "sizes", "unit",
"counts", "vocabulary", "labels", and what else the dataset knows."""

IGNORE = -100
"""A target that is not scored: torch's own ``ignore_index``."""


class Batch(NamedTuple):
    """What every dataset yields and every objective takes.

    Attributes:
        x: Tokens, (B, T) int64, or features, (B, T, I) float32.
        y: Next tokens or a label a step, (B, T) int64, ``IGNORE`` where none is; one label a
            sequence, (B,) int64; values, (B, K) float32, or values a step, (B, T, K) float32,
            ``IGNORE`` where none are; or the tokens of another sequence, (B, U) int64.
        lengths: Valid steps of each row, (B,) int64; all T if omitted.
        carry: Whether each row continues the same row of the batch before.
    """

    x: Tensor
    y: Tensor
    lengths: Tensor | None = None
    carry: bool = False
