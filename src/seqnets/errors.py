"""Every error that seqnets raises on purpose.

A message says who complains, what came, what was expected, where that expectation comes from and
what to do. Each class also is the built-in error that torch.nn raises in its place, so that code
written for torch.nn catches it.
"""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """How many of a thing there are, in words: "1 row", "2,000 rows"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def cut_short(text: str, longest: int) -> str:
    """A text of at most so many characters; dots stand for the rest of a longer one."""
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


class SeqnetsError(Exception):
    """Base of all errors below: catch it to catch them all."""


class ShapeError(SeqnetsError, ValueError, RuntimeError):
    """A tensor has the wrong rank or size, or a length lies outside 0..T."""


class DtypeError(SeqnetsError, TypeError, ValueError, RuntimeError):
    """A tensor or a value has the wrong type."""


class DeviceError(SeqnetsError, RuntimeError):
    """A tensor is on the wrong device, or the device asked for is not there."""


class BackendError(SeqnetsError, RuntimeError):
    """The backend asked for cannot run this request."""


class ConfigError(SeqnetsError, ValueError):
    """An option, a configuration key or a combination of them makes no sense."""


class DataError(SeqnetsError, ValueError):
    """A data file is missing, malformed or does not fit the task."""


class CheckpointError(SeqnetsError, RuntimeError):
    """A checkpoint is missing, damaged, unsafe or of another model."""


class DivergenceError(SeqnetsError, ArithmeticError):
    """Training left the numbers: the loss is NaN or infinite."""
