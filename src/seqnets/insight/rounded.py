"""Numbers formatted for reading."""

from __future__ import annotations


def rounded(value: float) -> str:
    """Format a number with four significant digits, and all digits before the decimal point.

    Example:
        >>> rounded(0.5), rounded(0.00015522), rounded(10_000.4)
        ('0.5000', '0.0001552', '10,000')
    """
    return f"{value:,.0f}" if 999.95 <= abs(value) < 1e9 else f"{value:#.4g}"
