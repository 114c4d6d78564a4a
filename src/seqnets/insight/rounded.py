"""Figures as they are read."""

from __future__ import annotations


def rounded(value: float) -> str:
    """Return a figure with four digits, and with all of them before the point.

    Example:
        >>> rounded(0.5), rounded(0.00015522), rounded(10_000.4)
        ('0.5000', '0.0001552', '10,000')
    """
    return f"{value:,.0f}" if 999.95 <= abs(value) < 1e9 else f"{value:#.4g}"
