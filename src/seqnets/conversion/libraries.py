"""Libraries that formats need, and the cell, which some of their files do not name."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from seqnets.errors import ConfigError
from seqnets.layers import CellFactory

Array = np.ndarray[Any, np.dtype[Any]]


_EXTRAS = {"onnx": "onnx", "onnxruntime": "onnx", "flax": "flax", "jax": "flax"}
"""The extras of seqnets that bring single libraries; "convert" brings all."""


class AbsentError(ConfigError):
    """A library that the conversion needs is not installed."""


def library(name: str) -> Any:
    """Import a library that a format needs.

    Raises:
        AbsentError: The library is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        needed = name.partition(".")[0]
        raise AbsentError(
            f"convert: needs {needed}, which cannot be imported ({error}).\n"
            f"  pip install 'seqnets[{_EXTRAS.get(needed, 'convert')}]'"
        ) from error


def need_cell(path: Path, cell: CellFactory | None) -> CellFactory:
    """The cell factory for a file that does not store the cell's type.

    Raises:
        ConfigError: There is none.
    """
    if cell is None:
        raise ConfigError(
            f"{path}: holds weights only, and does not say of which cell.\n"
            "  Name the cell: model/cell=lstm, model/cell=gru, ..."
        )
    return cell
