"""Checks of layers' arguments, shared so that errors read the same everywhere."""

from __future__ import annotations

import numbers
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from seqnets.cells import Cell
from seqnets.cells.checks import check_untimed, is_timed, takes_elapsed, wrong_argument
from seqnets.checks import check_choice, name_of
from seqnets.engine import BACKENDS
from seqnets.errors import ConfigError, DtypeError, ShapeError, counted
from seqnets.layers.around import Around
from seqnets.layers.torch_base import TorchBase
from seqnets.warn import warn


def check_is_layer(
    who: str, given: Any, what: str = "layer", expected: str = "a recurrent layer"
) -> None:
    """Raise ConfigError unless something has an ``output_size`` and ``Recurrent``'s interface."""
    if isinstance(given, (type, Cell, TorchBase)) or not hasattr(given, "output_size"):
        raise wrong_argument(who, what, given, expected)


def check_gives_one_output(who: str, layer: nn.Module) -> None:
    """Raise ConfigError if a layer gives a pair of outputs, one for each direction."""
    inside: Any = layer
    while isinstance(inside, Around):
        inside = inside.layer
    if getattr(inside, "merge", None) == "none":
        raise ConfigError(
            f"{who}: {name_of(inside)} has merge='none', expected 'concat', 'sum' or 'mean'.\n"
            f"  {who} reads one output, not a pair."
        )


def runs_forward(module: nn.Module) -> bool:
    """Whether no part of a layer runs backwards in time."""
    return not any(getattr(part, "reverse", False) for part in module.modules())


def check_forward_steps(who: str, layer: nn.Module, why: str) -> None:
    """Raise ConfigError unless a layer runs forwards, and takes one step at a time.

    Args:
        who: Who asks.
        layer: Any module.
        why: A sentence that says what for.
    """
    check_is_layer(who, layer)
    if not runs_forward(layer):
        raise ConfigError(
            f"{who}: the layer runs backwards or in both directions, expected a forward layer.\n"
            f"  {why}"
        )
    for part in layer.modules():
        if hasattr(part, "lengths_after") and not getattr(part, "per_step", False):
            raise ConfigError(
                f"{who}: {type(part).__name__} mixes several steps, expected a layer that takes "
                f"one step at a time.\n"
                f"  Its input would be cut through; put {who} around the recurrent layer inside."
            )


def check_every_step(who: str, layer: nn.Module, y: Tensor, x: Tensor) -> None:
    """Raise ShapeError unless a layer's outputs are as many steps as its inputs."""
    if y.shape[1] != x.shape[1]:
        raise ShapeError(
            f"{who}: {type(layer).__name__} returned {counted(y.shape[1], 'step')} for "
            f"{x.shape[1]}, expected one output for each step."
        )


def check_reads_units(who: str, depth: int, cell: Cell) -> None:
    """Raise ConfigError if a cell above the first layer takes a unit for the time."""
    if depth:
        check_untimed(
            f"{who}, layer {depth}",
            cell,
            "It would take the last unit of the layer below for the time. DeepRNN(..., timed=True) "
            "gives the time to\n  all layers; of a list of cells, one per layer, the first may "
            "have times alone.",
        )


def takes_no_times(who: str, make: Any) -> ConfigError:
    """The error for something that makes cells, and has no option ``timed``."""
    while isinstance(make, partial):
        make = make.func
    return ConfigError(
        f"{who}: got timed=True, and {getattr(make, '__name__', 'the cell')} takes no times, "
        "expected a cell that does, such as CfCCell.\n"
        "  With timed=False, it has the time as a feature like any other."
    )


def check_reads_times(who: str, cell: Cell) -> None:
    """Raise ConfigError unless a cell takes times."""
    if not is_timed(cell):
        raise ConfigError(
            f"{who}: got timed=True, and {name_of(cell.innermost)} takes no times, expected a cell "
            f"with timed=True.\n  Every layer gets the time, and it would be a feature to this one."
        )


def check_forward_in_time(who: str, cell: Cell) -> None:
    """Raise ConfigError if a cell would take the time before a step for the time after it."""
    if takes_elapsed(cell):
        raise ConfigError(
            f"{who}: got bidirectional and timed=True, expected one of the two.\n"
            f"  Backwards the time elapsed is that to the next step: Bidirectional and DeepRNN see "
            f"to it."
        )


def check_reads_no_times(who: str, layer: nn.Module, what: str) -> None:
    """Raise ConfigError if a cell takes for the time what a model or another layer computes.

    Args:
        who: The model, or what has both layers.
        layer: A layer over what is computed.
        what: What that is.
    """
    for part in layer.modules():
        if isinstance(part, Cell):
            check_untimed(who, part, f"No feature of {what} is the time.")


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


def as_flag(given: Any) -> Any:
    """True or False for 1 or 0, where torch.nn takes these for a flag; else what is given."""
    return bool(given) if given in (0, 1) else given


def as_size(given: Any) -> Any:
    """Python's number for one of NumPy's, which torch.nn's steps take; else what is given."""
    return int(given) if isinstance(given, numbers.Integral) else given


def check_torch_options(
    who: str, num_layers: Any, bias: Any, batch_first: Any, dropout: Any, bidirectional: Any
) -> None:
    """Raise unless the options of a module like ``torch.nn.LSTM`` have its types and ranges.

    Warns, as torch.nn does, where dropout has no layers to act between.
    """
    flags = {"bias": bias, "batch_first": batch_first, "bidirectional": bidirectional}
    for flag, value in flags.items():
        if not isinstance(value, bool):
            raise DtypeError(f"{who}: {flag} should be of type bool, got {type(value).__name__}.")
    if isinstance(num_layers, bool) or not isinstance(num_layers, numbers.Integral):
        raise DtypeError(
            f"{who}: num_layers should be of type int, got {type(num_layers).__name__}."
        )
    if num_layers < 1:
        raise ConfigError(f"{who}: num_layers must be greater than zero.")
    number = isinstance(dropout, numbers.Real) and not isinstance(dropout, bool)
    if not number or not 0 <= dropout <= 1:
        raise ConfigError(f"{who}: dropout should be a number in range [0, 1], got {dropout!r}.")
    if dropout > 0 and num_layers == 1:
        warn(f"{who}: dropout={dropout} acts between layers, and num_layers=1 has none.")


def check_packed(who: str, packed: PackedSequence) -> None:
    """Raise ShapeError unless packed rows and their batch sizes fit each other."""
    data, sizes = packed.data, packed.batch_sizes
    if data.dim() != 2 or not len(sizes) or not bool((sizes > 0).all()):
        raise ShapeError(
            f"{who}: packed data is {tuple(data.shape)} with batch sizes {sizes.tolist()[:8]}, "
            f"expected (sum of batch sizes, I) and positive sizes."
        )
    if bool((sizes[1:] > sizes[:-1]).any()) or int(sizes.sum()) != len(data):
        raise ShapeError(
            f"{who}: packed data has {len(data)} rows and batch sizes {sizes.tolist()[:8]}, "
            f"expected non-increasing sizes that sum to the rows."
        )
