"""Checks of layers' arguments, shared so that errors read the same everywhere."""

from __future__ import annotations

from typing import Any

from seqnets.cells import Cell
from seqnets.cells.checks import wrong_argument
from seqnets.checks import check_choice
from seqnets.engine import BACKENDS
from seqnets.errors import ConfigError, ShapeError, counted
from seqnets.layers.torch_like import TorchLike


def check_is_layer(
    who: str, given: Any, what: str = "layer", expected: str = "a recurrent layer"
) -> None:
    """Raise ConfigError unless something has an ``output_size`` and ``Recurrent``'s interface."""
    if isinstance(given, (type, Cell, TorchLike)) or not hasattr(given, "output_size"):
        raise wrong_argument(who, what, given, expected)


def check_run_options(who: str, backend: str, memory: str) -> None:
    """Raise ConfigError unless both options have known values."""
    check_choice(who, ("auto", *BACKENDS), backend=backend)
    check_choice(who, ("full", "lean"), memory=memory)


def check_parts(who: str, state: Any, count: int, expected: str) -> None:
    """Raise ShapeError unless a state is a tuple of ``count`` parts."""
    if not isinstance(state, tuple | list):
        raise ShapeError(f"{who}: state is {type(state).__name__}, expected {expected}.")
    if len(state) != count:
        raise ShapeError(f"{who}: state has {counted(len(state), 'part')}, expected {expected}.")


def cannot_step(who: str, runs: str) -> ConfigError:
    """The error for ``step`` of a layer that needs future inputs."""
    return ConfigError(
        f"{who}: step was called, but {runs}.\n"
        f"  A step would need future inputs; call the layer with whole sequences."
    )
