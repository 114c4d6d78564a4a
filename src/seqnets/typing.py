"""The few types that all floors share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)
"""The dtypes of half precision."""

ROUNDING = 1e-4
"""The largest difference of float32 outputs that rounding explains."""

State = tuple[Tensor, ...]
"""What a cell carries from step to step, each (B, H); the first is its output."""

Sizes = dict[str, int]
"""What a dataset knows and a model needs: vocab_size or input_size, or the channels, height and
width of frames; num_classes, output_size."""

Known = Mapping[str, Any]
"""What a dataset says of itself and a checkpoint keeps, as plain values: "sizes", "unit",
"counts", "vocabulary", "labels", and what else the dataset knows."""

IGNORE = -100
"""A target that is not scored: torch's own ``ignore_index``."""

END = 0
"""The token that ends a written sequence, and that a decoder is given before the first one."""

BLANK = 0
"""The class "no label here" of a transcription's frames: its labels are 1..C-1, and
``known["labels"][BLANK]`` is the empty text."""


class Batch(NamedTuple):
    """What every dataset yields and every objective takes.

    Attributes:
        x: Tokens, (B, T) int64, or with their spelling (B, T, 1 + bytes), features, (B, T, I)
            float32, or frames, (B, T, C, height, width) float32.
        y: Next tokens or a label a step, (B, T) int64, ``IGNORE`` where none is; one label a
            sequence, (B,) int64; values, (B, K) float32; values or a frame a step, (B, T, K) or
            as ``x``, float32, ``IGNORE`` where none are; or the tokens of another sequence, or the
            labels of a whole sequence, (B, U) int64, padded with ``IGNORE``; (B, 0) if unknown.
        lengths: Valid steps of each row, (B,) int64; all T if omitted.
        carry: Whether each row continues the same row of the batch before.
        ahead: Of forecasts the features that are known ahead, at the steps to forecast,
            (B, horizon, A) float32; None if none are.
        weights: Of labels and values of whole sequences how much each row counts in the loss, (B,)
            float32, with a mean of 1 over the part; None if all count alike.
        scales: Of forecasts what scaled errors are divided by: the mean absolute error of a naive
            forecast of each row's series in its training part, (B, K) float32; None if unknown.
    """

    x: Tensor
    y: Tensor
    lengths: Tensor | None = None
    carry: bool = False
    ahead: Tensor | None = None
    weights: Tensor | None = None
    scales: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with what a function gives for each tensor in its place."""
        return Batch._make(function(each) if isinstance(each, Tensor) else each for each in self)
