"""Exact match of texts."""

from __future__ import annotations

from collections.abc import Sequence


def exact_match(predictions: Sequence[str], targets: Sequence[str]) -> float:
    """The fraction of predictions that equal their target, 0..1."""
    return sum(p == t for p, t in zip(predictions, targets, strict=True)) / len(targets)
