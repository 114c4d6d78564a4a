"""Sequences in NumPy archives."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from seqnets.datasets.readers.cells import LARGEST, Row
from seqnets.datasets.readers.records import SPLIT, TIME, Names, Source, Wanted
from seqnets.errors import DataError, counted

_KEYS = ("x", "lengths", "y", "ids", "split")


def read_npz(path: Path, wanted: Wanted) -> Source:
    """Read an archive of arrays, rejecting pickled objects.

    - ``x``: sequences of equal length, (N, T, I) or (N, T); or, with ``lengths``, of different
      lengths: padded, (N, T, I), or concatenated, (steps, I) or (steps,).
    - ``lengths`` (optional): length of each sequence, (N,).
    - ``y``: one target per sequence, (N,), or several, (N, K); optional for prediction.
    - ``ids``, ``split`` (optional): identifier and part of each sequence, (N,).
    - if groups or weights are wanted, an array of that name: those of each sequence, (N,).
    - if times are wanted, an array of that name: those of each step, of the shape of ``x`` without
      its features.

    Raises:
        DataError: The file is damaged or malformed; the message says in which array, sequence and
            step.
    """
    arrays = _load(path)
    clock = wanted.clock
    keys = (*_KEYS, *wanted.beside_targets, *([] if clock is None else [clock.column]))
    strange = sorted(arrays.keys() - {*keys})
    if strange or "x" not in arrays:
        raise DataError(
            f"{path}: got the arrays {', '.join(sorted(arrays)) or 'none'}, expected x and "
            f"optionally {', '.join(keys[1:])}."
        )
    sequences = _cut(path, arrays["x"], arrays.get("lengths"))
    if not wanted.new and "y" not in arrays:
        raise DataError(f"{path}: got no array y, expected the target of each sequence.")
    for key, what, name in (
        ("groups", "group of each sequence", None if wanted.new else wanted.groups),
        ("weight", "weight of each sequence", None if wanted.new else wanted.weight),
        ("time", "time of each step", wanted.time),
    ):
        if name is not None and name not in arrays:
            raise DataError(
                f"{path}: got no array {name}, expected the {what}.\n"
                f"  dataset.{key}=ARRAY names another."
            )
    rows = _rows(path, arrays, len(sequences), wanted)
    times = [] if wanted.time is None else _times(path, arrays, wanted.time)
    names = Names()
    records = []
    for place, (steps, row) in enumerate(zip(sequences, rows, strict=True), start=1):
        where = f"{path}, sequence {place}"
        if "ids" in row:
            names.add(where, row["ids"])
        _check_values(where, steps, wanted)
        if clock is not None:
            steps = clock.beside_array(where, steps, times[place - 1])
        records.append(wanted.record(where, row, steps, row.get("ids")))
    return Source(records, {} if clock is None else {TIME: clock.kind})


def _times(path: Path, arrays: Mapping[str, np.ndarray], name: str) -> list[np.ndarray]:
    """The times of the steps of each sequence, (T,)."""
    x, times, lengths = arrays["x"], arrays[name], arrays.get("lengths")
    padded = x.ndim == 3 or (x.ndim == 2 and lengths is None)
    expected = x.shape[: 2 if padded else 1]
    if times.dtype.kind not in "fiu" or times.shape != expected:
        raise DataError(
            f"{path}: {name} is {times.dtype} of shape {times.shape}, expected numbers, "
            f"{expected}: the time of each step of x."
        )
    return [found[:, 0] for found in _cut(path, times[..., None], lengths)]


def read_npy(path: Path, wanted: Wanted) -> np.ndarray:
    """Read the steps of one sequence, an array (T, I) or (T,), rejecting pickled objects.

    Returns:
        Features, (T, I).

    Raises:
        DataError: The file is damaged, or is no such array.
    """
    with _reading(path, "array"), path.open("rb") as file:
        steps = np.load(file, allow_pickle=False)
        if not isinstance(steps, np.ndarray):
            raise ValueError("it is an archive of arrays")
    if steps.dtype.kind not in "fiu" or steps.ndim not in (1, 2) or not steps.size:
        raise DataError(
            f"{path}: is {steps.dtype} of shape {steps.shape}, expected numbers, (T, I) or (T,)."
        )
    steps = steps.reshape(len(steps), -1)
    steps = steps if steps.dtype == np.float32 else steps.astype(np.float64)
    _check_values(str(path), steps, wanted)
    return steps


def _load(path: Path) -> dict[str, np.ndarray]:
    # given a path, NumPy would leak the handle of a damaged file
    with _reading(path, "archive"), path.open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise ValueError("it is a single array")
        return {name: archive[name] for name in archive.files}


def _rows(path: Path, arrays: Mapping[str, np.ndarray], count: int, wanted: Wanted) -> list[Row]:
    """What each sequence has of target, identifier, split, group and weight."""
    columns: dict[str, tuple[str, ...]] = {"ids": ("ids",), "split": (SPLIT,)}
    if not wanted.new:
        columns |= {name: (name,) for name in wanted.beside_targets}
    columns["y"] = wanted.columns
    rows: list[Row] = [{} for _ in range(count)]
    for key in (key for key in columns if key in arrays):
        values, size = arrays[key], len(columns[key])
        expected = (count, size)
        if values.shape != expected and (size > 1 or values.shape != expected[:1]):
            several = key == "y" and wanted.several and values.ndim == 2
            raise DataError(
                f"{path}: {key} has shape {values.shape}, expected {expected}"
                f"{'' if size > 1 else f' or {expected[:1]}'}: x has {counted(count, 'sequence')}."
                + ("\n  'dataset.targets=[NAME,...]' names the columns of y." if several else "")
            )
        for row, of_row in zip(rows, values.reshape(expected).tolist(), strict=True):
            row.update(zip(columns[key], of_row, strict=True))
    return rows


@contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    """Turn NumPy's errors about a file into a DataError."""
    try:
        yield
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"{path}: cannot be read as a NumPy {what} without pickled objects: {reason}."
        ) from None


def _cut(path: Path, x: np.ndarray, lengths: np.ndarray | None) -> list[np.ndarray]:
    """The sequences, each (T, I)."""
    if x.dtype.kind not in "fiu" or x.size == 0:
        raise DataError(f"{path}: x is {x.dtype} of shape {x.shape}, expected numbers.")
    if x.dtype != np.float32:
        x = x.astype(np.float64)
    if lengths is None:
        if x.ndim not in (2, 3):
            raise DataError(
                f"{path}: x has shape {x.shape}, expected (N, T, I) or (N, T).\n"
                "  Sequences of different lengths need an array lengths."
            )
        return list(x.reshape(*x.shape[:2], -1))
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or not len(lengths):
        raise DataError(
            f"{path}: lengths is {lengths.dtype} of shape {lengths.shape}, expected (N,) whole "
            "numbers."
        )
    most = x.shape[1] if x.ndim == 3 else len(x)
    wrong = np.flatnonzero((lengths < 1) | (lengths > most))
    if len(wrong):
        raise DataError(
            f"{path}, sequence {wrong[0] + 1}: its length is {lengths[wrong[0]]}, expected 1 to "
            f"{most}."
        )
    padded = x.ndim == 3 and len(x) == len(lengths)
    if padded:
        return [steps[:length] for steps, length in zip(x, lengths, strict=True)]
    if x.ndim not in (1, 2) or len(x) != int(lengths.sum()):
        raise DataError(
            f"{path}: x has shape {x.shape}, expected (N, T, I) or (steps, I) for the "
            f"{counted(len(lengths), 'length')} with the sum {int(lengths.sum())}."
        )
    return np.split(x.reshape(len(x), -1), np.cumsum(lengths)[:-1])


def _check_values(where: str, steps: np.ndarray, wanted: Wanted) -> None:
    fits = np.abs(steps) <= LARGEST
    if wanted.missing:
        fits |= np.isnan(steps)
    if not fits.all():
        step, feature = np.argwhere(~fits)[0]
        wanted.value(
            where, f"x, step {step + 1}, feature {feature + 1}", float(steps[step, feature])
        )
