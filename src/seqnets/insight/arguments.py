"""Arguments of the functions that draw: arrays, tensors and lists, checked in the same words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from seqnets.errors import ConfigError, DtypeError, ShapeError


def listed(who: str, name: str, given: Any, expected: str) -> list[Any]:
    """An argument as a list; raise DtypeError unless there is something to go through."""
    try:
        return list(given)
    except TypeError:
        raise DtypeError(f"{who}: {name} is {given!r}, expected {expected}.") from None


def array_of(
    who: str,
    name: str,
    given: Any,
    legend: Mapping[str, int | None],
    advice: str = "",
    *,
    finite: bool = False,
    is_complex: bool = False,
) -> np.ndarray:
    """An argument as an array: whole numbers as they are, others as float64 or complex128.

    Args:
        who: Who asks for it, for error messages.
        name: The argument, likewise.
        given: An array, a tensor on any device, with gradients or without, or lists of these or
            of numbers.
        legend: The letters of its dimensions, and the size of each if it is known.
        advice: A line of advice for another shape.
        finite: Whether all numbers have to be finite.
        is_complex: Whether numbers may be complex.

    Raises:
        ConfigError: A number is not finite, but has to be.
        DtypeError: There are no numbers inside, or complex ones that may not be.
        ShapeError: Its shape is another one.
    """
    letters = ", ".join(legend) + "," * (len(legend) == 1)
    array = _plain(given)
    if array is None or array.dtype.kind not in ("iufc" if is_complex else "iuf"):
        of = "" if array is None or array.dtype == object else f" of {array.dtype}"
        raise DtypeError(
            f"{who}: {name} is {type(given).__name__}{of}, expected an array of numbers, "
            f"({letters})."
        )
    pairs = zip(array.shape, legend.values(), strict=False)
    if array.ndim != len(legend) or any(known not in (None, size) for size, known in pairs):
        known = ", ".join(f"{k} = {size}" for k, size in legend.items() if size is not None)
        raise ShapeError(
            f"{who}: {name} has shape {array.shape}, expected ({letters})"
            + (f" with {known}." if known else ".")
            + (f"\n  {advice}" if advice else "")
        )
    if finite and not np.isfinite(array).all():
        raise ConfigError(f"{who}: {name} has numbers that are not finite, expected finite ones.")
    return array


def _plain(given: Any) -> np.ndarray | None:
    """What is given as an array of a dtype that NumPy computes with; None if it is none."""
    import torch  # late, as in all of insight: the command line's completion needs none

    try:
        if isinstance(given, torch.Tensor):
            wide = torch.float32 if given.dtype is torch.bfloat16 else given.dtype
            given = given.to(wide).numpy(force=True)
        elif isinstance(given, list | tuple) and given and isinstance(given[0], torch.Tensor):
            return _plain(torch.stack(list(given)))
        array = np.asarray(given)
    except (TypeError, ValueError, RuntimeError):  # of several lengths, sparse, or without values
        return None
    kind = {"b": np.int64, "f": np.float64, "c": np.complex128}.get(array.dtype.kind)
    return array if kind is None else array.astype(kind, copy=False)
