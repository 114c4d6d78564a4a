"""What is given as a layer: checked once, in the same words everywhere."""

from __future__ import annotations

from typing import Any

from seqnets.cells import Cell
from seqnets.cells.checks import mistaken
from seqnets.checks import check_choice
from seqnets.engine import BACKENDS
from seqnets.errors import ConfigError, ShapeError, counted
from seqnets.layers.torch_like import TorchLike


def check_is_layer(
    who: str, given: Any, what: str = "layer", expected: str = "a recurrent layer"
) -> None:
    """Raise ConfigError unless something says its width and can be called as ``Recurrent`` is."""
    if isinstance(given, (type, Cell, TorchLike)) or not hasattr(given, "output_size"):
        raise mistaken(who, what, given, expected)


def check_run(who: str, backend: str, memory: str) -> None:
    """Raise ConfigError unless these are a backend's name, or "auto", and a kind of memory."""
    check_choice(who, ("auto", *BACKENDS), backend=backend)
    check_choice(who, ("full", "lean"), memory=memory)


def check_parts(who: str, state: Any, count: int, expected: str) -> None:
    """Raise ShapeError unless a state is a tuple of so many parts."""
    if not isinstance(state, tuple | list):
        raise ShapeError(f"{who}: state is {type(state).__name__}, expected {expected}.")
    if len(state) != count:
        raise ShapeError(f"{who}: state has {counted(len(state), 'part')}, expected {expected}.")


def no_step(who: str, runs: str) -> ConfigError:
    """What is to be raised where a step is asked of a layer to which something comes from ahead."""
    return ConfigError(
        f"{who}: step came, but {runs}.\n"
        f"  It would have to know the future; call the layer with whole sequences."
    )
