"""The layers of a network, which all formats take apart and stack."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator

from torch import nn

from seqnets.cells import Cell
from seqnets.cells.checks import takes_elapsed
from seqnets.errors import ConfigError, ShapeError, counted
from seqnets.layers import Bidirectional, DeepRNN, Recurrent
from seqnets.layers.torch_like import TorchLike

Layers = list[tuple[Cell, ...]]
"""The cells of each layer: one, or a forward and a backward one."""


def layers_of(module: nn.Module, merges: Collection[str] = ("concat",)) -> Layers:
    """Copies of a network's cells in evaluation mode, layer by layer.

    Args:
        module: A cell, a recurrent layer, a stack of layers, or a module that contains exactly one
            of these, such as a trained model.
        merges: The ways to merge directions that the other library has, by their names here.

    Raises:
        ConfigError: The module contains none or several, or its layers have more than outputs to
            read, merge directions in another way, run backwards only, or in both directions of
            times elapsed.
    """
    merge = merge_of(module)
    if merge not in merges:
        raise ConfigError(
            f"convert: merge is {merge!r}, expected {' or '.join(map(repr, merges))}."
        )
    return [tuple(copy.deepcopy(cell).eval() for cell in layer) for layer in _iter_layers(module)]


def merge_of(module: nn.Module) -> str:
    """How a network merges its directions; "concat" if it has only one."""
    found = (part.merge for part in module.modules() if isinstance(part, Bidirectional))
    return next(found, "concat")


def stack(layers: Layers, merge: str = "concat") -> DeepRNN:
    """Stack layers of cells to a network in evaluation mode.

    Raises:
        ShapeError: A layer's input size is not the output size of the layer below.
    """
    cells = (cell for layer in layers for cell in layer)

    def next_cell(*, input_size: int, hidden_size: int) -> Cell:
        cell = next(cells)
        if cell.input_size != input_size:
            raise ShapeError(
                f"convert: a layer takes {counted(cell.input_size, 'feature')}, expected "
                f"{input_size}, the output size of the layer below."
            )
        return cell

    return DeepRNN(
        next_cell,
        layers[0][0].input_size,
        [layer[0].hidden_size for layer in layers],
        bidirectional=[len(layer) == 2 for layer in layers],
        merge=merge,
    ).eval()


def _iter_layers(module: nn.Module) -> Iterator[tuple[Cell, ...]]:
    """Yield the cells of each layer; see :func:`layers_of`."""
    if isinstance(module, Cell):
        yield (module,)
    elif isinstance(module, TorchLike):
        cells = module.bound_cells()
        D = 1 + module.bidirectional
        yield from (tuple(cells[k : k + D]) for k in range(0, len(cells), D))
    elif isinstance(module, Bidirectional):
        pair = module.forward_layer, module.backward_layer
        if not all(isinstance(layer, Recurrent) for layer in pair):
            raise ConfigError(
                f"convert: the directions are {type(pair[0]).__name__} layers, expected two cells."
            )
        if takes_elapsed(pair[1].cell):
            raise ConfigError(
                "convert: the directions take times elapsed, expected time stamps, or no times.\n"
                "  Backwards they are those to the steps that follow; convert each cell alone."
            )
        yield tuple(layer.cell for layer in pair)
    elif getattr(module, "reverse", False):
        raise ConfigError(
            "convert: a layer runs backwards only, expected forwards or both directions."
        )
    elif isinstance(module, Recurrent):
        yield (module.cell,)
    elif isinstance(module, DeepRNN):
        if not module.is_bare:
            raise ConfigError(
                "convert: the network has skip connections, norms, feed-forward layers or times, "
                "expected connection='none', norm='none', feed_forward=0 and timed=False.\n"
                "  Its layers, in `network.layers`, can be converted one by one."
            )
        for layer in module.layers:
            yield from _iter_layers(layer)
    else:
        yield from _iter_layers(_recurrent_child(module))


def _recurrent_child(module: nn.Module) -> nn.Module:
    """The only child that contains recurrent layers."""
    found = [
        child
        for child in module.children()
        if any(isinstance(part, (Cell, TorchLike)) for part in child.modules())
    ]
    if len(found) != 1:
        raise ConfigError(
            f"convert: {type(module).__name__} has {len(found)} recurrent parts, expected one.\n"
            f"  Pass the part itself: a cell, a recurrent layer, or a stack of layers."
        )
    return found[0]
