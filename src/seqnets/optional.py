"""Libraries that not every installation has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from seqnets.errors import ConfigError


@contextmanager
def optional(what: str, extra: str) -> Iterator[None]:
    """Import a library of an extra, and say how to get it where it is missing.

    For instance::

        with optional("Parquet is read by pyarrow", "tables"):
            from pyarrow import parquet

    Args:
        what: What the library is for, ending with its name.
        extra: The extra of seqnets that brings it.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{what}, which is not installed.\n  Install it: pip install 'seqnets[{extra}]'"
        ) from error
