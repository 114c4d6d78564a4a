"""Text coloured by the surprisal of its tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from seqnets.insight.page import Passage, draw_page, laid_out

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_surprise(passages: Sequence[Passage], columns: int = 96, lines: int = 32) -> Figure:
    """Write passages with each token on a coloured background: darker means more surprising.

    An empty line separates passages. The colour scale ends at the 99th percentile of the
    surprisals drawn.

    Args:
        passages: Passages to write: tokens, and the surprisal of each in nats, NaN for context.
        columns: Letters per line.
        lines: Maximum number of lines to draw.
    """
    page = laid_out(passages, columns, lines)
    known = [cost for line in page for *_, cost in line if math.isfinite(cost)]
    highest = max(float(np.quantile(known, 0.99)) if known else 0.0, 1e-3)
    return draw_page(page, columns, "YlOrRd", 0, highest, "nats", "max")
