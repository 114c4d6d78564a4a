"""Texts that are right to the letter."""

from __future__ import annotations

from collections.abc import Sequence


def exact_match(predictions: Sequence[str], targets: Sequence[str]) -> float:
    """Return the share of predictions that are their target, 0..1."""
    return sum(p == t for p, t in zip(predictions, targets, strict=True)) / len(targets)
