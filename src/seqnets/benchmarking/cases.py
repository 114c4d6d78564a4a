"""Benchmark cases: a cell, the sizes of its sequences, and a pass over them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import product
from typing import Any

from seqnets.benchmarking.precision import DTYPES
from seqnets.checks import is_whole
from seqnets.errors import ConfigError

PASSES = ("forward", "training", "step")
"""Outputs only; outputs and all gradients; a single step that continues from the last state."""

SIZES = ("B", "T", "I", "H")
"""The keys of sizes."""

_KEYS = {"cells", "except", "shapes", "pass", "dtype", "rows", *SIZES}
_DEFAULTS = {
    "cells": "all",
    "except": (),
    "pass": PASSES,
    "dtype": "float32",
    "rows": None,
    "shapes": None,
}


@dataclass(frozen=True)
class Case:
    """A cell, sizes and a pass to time.

    Attributes:
        cell: Name of the cell.
        B: Number of sequences.
        T: Steps of each; 1 if the pass is a step.
        I: Features of the input.
        H: Units.
        pass_: One of :data:`PASSES`.
        dtype: Precision, a key of ``seqnets.benchmarking.precision.DTYPES``.
        rows: Names of the contestants; all if None.
    """

    cell: str
    B: int
    T: int
    I: int
    H: int
    pass_: str
    dtype: str = "float32"
    rows: Sequence[str] | None = field(default=None, compare=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(B, T, H)."""
        return self.B, self.T, self.H

    @property
    def sizes(self) -> str:
        """The sizes as text, with I only if it differs from H."""
        return f"B={self.B} T={self.T} H={self.H}" + (f" I={self.I}" if self.I != self.H else "")

    @property
    def title(self) -> str:
        """Cell and pass as text, with the dtype if that is not float32."""
        rest = "" if self.dtype == "float32" else f", {self.dtype}"
        return f"{self.cell}, {self.pass_}{rest}"

    def __str__(self) -> str:
        return f"{self.title}, {self.sizes}"


def cases_of(
    grid: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    known: Sequence[str],
    given: Mapping[str, Any] | None = None,
) -> list[Case]:
    """The distinct cases of a grid.

    Args:
        grid: One entry or several, with ``cells`` (names, or "all", except those in ``except``),
            ``pass``, and either ``shapes``, a list of [B, T, H], or ``B``, ``T`` and ``H``;
            optionally ``I`` (default H) and ``dtype``. Each may be one value or a list, and all
            combinations are taken. ``rows`` are the names of the contestants, if not all take part.
        known: Names of all cells.
        given: Values that replace the grid's cells, sizes, dtype and rows; and the passes to keep.

    Raises:
        ConfigError: A key, cell, pass or dtype is unknown, a size is not a positive integer, or no
            case is left.
    """
    given = {key: value for key, value in (given or {}).items() if value is not None}
    kept = _names("pass", given.pop("pass", PASSES), PASSES)
    if "cells" in given:
        given["except"] = ()
    entries = (case for entry in listed(grid) for case in _cases(entry, known, given))
    cases = list(dict.fromkeys(entries))
    if not cases:
        raise ConfigError("cells, B, T, I, H: no case is left, expected no empty list.")
    if not any(case.pass_ in kept for case in cases):
        has = ", ".join(sorted({case.pass_ for case in cases}))
        raise ConfigError(f"pass: is {', '.join(kept)}, expected one that the suite has: {has}.")
    return [case for case in cases if case.pass_ in kept]


def select(cells: Any, excepted: Any, known: Sequence[str]) -> list[str]:
    """The names of cells, where "all" means all known ones, except some.

    Raises:
        ConfigError: A cell is unknown.
    """
    names = list(known) if cells == "all" else _names("cells", cells, known)
    return [name for name in names if name not in listed(excepted)]


def _cases(
    entry: Mapping[str, Any], known: Sequence[str], given: Mapping[str, Any]
) -> Iterator[Case]:
    """Yield the cases of one entry of a grid."""
    unknown = sorted(entry.keys() - _KEYS) if isinstance(entry, Mapping) else [str(entry)]
    if unknown:
        raise ConfigError(f"grid: has {', '.join(unknown)}, expected {', '.join(sorted(_KEYS))}.")
    options = {**_DEFAULTS, **entry, **given}
    names = select(options["cells"], options["except"], known)
    rows = options["rows"] and tuple(map(str, listed(options["rows"])))
    shapes = [{}] if options["shapes"] is None else [_shape(s) for s in listed(options["shapes"])]
    passes = _names("pass", options["pass"], PASSES)
    dtypes = _names("dtype", options["dtype"], DTYPES)
    for name, pass_, dtype, shape in product(names, passes, dtypes, shapes):
        sizes = {**options, **shape, **given}
        if pass_ == "step":
            sizes["T"] = 1
        for B, T, I, H in product(*(listed(sizes.get(key)) for key in SIZES)):
            case = Case(name, B, T, H if I is None else I, H, pass_, dtype, rows)
            for key in ("B", "T", "H", "I"):  # I last, as it defaults to H
                _check_size(key, getattr(case, key))
            yield case


def _check_size(key: str, size: Any) -> None:
    if not is_whole(size) or size < 1:
        raise ConfigError(f"{key}: is {size!r}, expected a positive integer, or a list of them.")


def _shape(shape: Any) -> dict[str, Any]:
    if not isinstance(shape, (list, tuple)) or len(shape) != 3:
        raise ConfigError(f"shapes: has {shape!r}, expected [B, T, H].")
    return dict(zip("BTH", shape, strict=True))


_FEW = 10
"""Known names that are all told in place of an unknown one; of more, as of cells, similar ones."""


def _names(key: str, value: Any, known: Collection[str]) -> list[str]:
    """A name or a list of names as a list; raise ConfigError if one is unknown."""
    names = [str(name) for name in listed(value)]
    for name in names:
        if name not in known:
            told = (len(known) > _FEW and get_close_matches(name.casefold(), known)) or known
            raise ConfigError(f"{key}: is {name!r}, expected one of {', '.join(told)}.")
    return names


def listed(value: Any) -> list[Any]:
    """A value, or a list of values, as a list."""
    return list(value) if isinstance(value, (list, tuple)) else [value]
