"""Flax linen: trees of parameters of SimpleCell, GRUCell and (Optimized)LSTMCell.

A tree holds numbers alone: of which cell they are, and with which activation, its reader says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from seqnets.cells import Cell, GatedCell, GRUCell, LSTMCell, RNNCell
from seqnets.conversion.parts import (
    Array,
    Layers,
    equation_of,
    fill,
    layers_of,
    library,
    one_bias,
    rows,
    stack,
)
from seqnets.errors import ConfigError
from seqnets.layers import CellFactory, DeepRNN

Tree = Mapping[str, Any]

_NAMES: dict[type[GatedCell], str] = {
    RNNCell: "SimpleCell",
    GRUCell: "GRUCell",
    LSTMCell: "OptimizedLSTMCell",
}
_DIRECTIONS = ("forward_rnn", "backward_rnn")


class Network(NamedTuple):
    """Flax' parameters, and a network that says of which cells they are."""

    params: Tree
    cells: nn.Module


def to_flax(module: nn.Module) -> dict[str, Any]:
    """The parameters of a ``linen.Sequential`` of ``linen.RNN`` and ``linen.Bidirectional``.

    Returns:
        The tree that such a module's ``apply`` takes as ``{"params": tree}``, of NumPy arrays.

    Raises:
        ConfigError: Flax has no such cell.
    """
    return {
        f"layers_{depth}": (
            {"cell": params_of(layer[0])}
            if len(layer) == 1
            else {
                name: {"cell": params_of(cell)}
                for name, cell in zip(_DIRECTIONS, layer, strict=True)
            }
        )
        for depth, layer in enumerate(layers_of(module))
    }


def from_flax(params: Tree, cell: CellFactory) -> DeepRNN:
    """A network from a tree as :func:`to_flax` makes it, or as one layer or cell has it.

    Args:
        params: The tree, inside of ``{"params": ...}`` or not.
        cell: What the numbers are parameters of: RNNCell, GRUCell or LSTMCell.

    Raises:
        ConfigError: The tree is not that of such cells.
    """
    params = params.get("params", params)
    trees = [params]
    if "layers_0" in params:
        trees = [params[f"layers_{depth}"] for depth in range(len(params))]
    layers: Layers = []
    for tree in trees:
        parts = [tree[name] for name in _DIRECTIONS if name in tree] or [tree]
        layers.append(tuple(cell_of(part.get("cell", part), cell) for part in parts))
    return stack(layers)


def params_of(cell: Cell) -> dict[str, dict[str, Array]]:
    """A cell's parameters as Flax has them: biases that only add up are one there."""
    equation = equation_of(cell, _NAMES, "Flax")
    equation.check_functions("Flax")
    inner = equation.cell
    if getattr(inner, "proj_size", 0):
        raise ConfigError(f"Flax: proj_size is {inner.proj_size}, expected 0: no projection.")
    params = {}
    for gate, name in _letters(inner):
        w = {"kernel": rows(inner, "weight_ih", [gate]).T}
        u = {"kernel": rows(inner, "weight_hh", [gate]).T}
        if isinstance(inner, GRUCell) and gate == "n":
            w["bias"], u["bias"] = (rows(inner, f"bias_{side}", [gate]) for side in ("ih", "hh"))
        else:
            (u if isinstance(inner, LSTMCell) else w)["bias"] = one_bias(inner, [gate])
        params[f"i{name}"], params[f"h{name}"] = w, u
    return params


def cell_of(params: Tree, cell: CellFactory) -> Cell:
    """A cell from Flax' parameters.

    Raises:
        ConfigError: They are those of another cell.
    """
    kind = equation_of(cell(input_size=1, hidden_size=1), _NAMES, "Flax").cell
    letters = _letters(kind)
    expected = {f"{side}{name}" for _, name in letters for side in "ih"}
    if set(params) != expected:
        raise ConfigError(
            f"Flax: the parameters are {', '.join(sorted(params))}, expected "
            f"{', '.join(sorted(expected))} for {type(kind).__name__}."
        )
    order = [gate for gate, _ in letters]
    W, U = (_joined(params, side, letters, "kernel") for side in "ih")
    b, d = (_joined(params, side, letters, "bias") for side in "ih")
    made = cell(input_size=W.shape[1], hidden_size=U.shape[1])
    return fill(made, order, weight_ih=W, weight_hh=U, bias_ih=b, bias_hh=d)


def load(path: Path, cell: CellFactory | None) -> Network:
    """Read a tree that ``flax.serialization`` wrote as msgpack.

    Args:
        path: The file.
        cell: What the numbers are parameters of, for they do not say it.

    Raises:
        ConfigError: It is unreadable, or does not fit the cell.
        AbsentError: Flax is not installed.
    """
    try:
        params = library("flax.serialization").msgpack_restore(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as Flax' msgpack: {error}.") from error
    if not isinstance(params, dict):
        raise ConfigError(f"{path}: holds {type(params).__name__}, expected a tree of parameters.")
    if cell is None:
        raise ConfigError(
            f"{path}: holds numbers alone, and does not say of which cell.\n"
            f"  Say it: model/cell=lstm, model/cell=gru or model/cell=rnn."
        )
    return Network(params, from_flax(params, cell))


def save(network: Network, path: Path) -> None:
    """Write the tree as msgpack, for ``flax.serialization.msgpack_restore``."""
    path.write_bytes(library("flax.serialization").msgpack_serialize({"params": network.params}))


def run(network: Network, x: Array, lengths: Array) -> Array:
    """Outputs over padded sequences, layer by layer: Flax computes them, on the CPU."""
    jax, linen = library("jax"), library("flax.linen")
    params = network.params.get("params", network.params)
    with jax.default_device(jax.devices("cpu")[0]):
        for depth, layer in enumerate(layers_of(network.cells)):
            parts = [linen.RNN(linen_cell(cell)) for cell in layer]
            both = len(layer) == 2
            module = linen.Bidirectional(*parts) if both else parts[0]
            tree = params.get(f"layers_{depth}", params)
            tree = tree if both or "cell" in tree else {"cell": tree}
            x = module.apply({"params": tree}, x, seq_lengths=lengths)
        return np.asarray(x)


def linen_cell(cell: Cell) -> Any:
    """Flax' module for a cell.

    Raises:
        ConfigError: Flax has none.
        AbsentError: Flax is not installed.
    """
    equation = equation_of(cell, _NAMES, "Flax")
    options = {}
    if equation.functions["candidate"] == "relu":
        options["activation_fn"] = library("jax").nn.relu
    return getattr(library("flax.linen"), _NAMES[equation.kind])(cell.hidden_size, **options)


def _letters(cell: GatedCell) -> list[tuple[str, str]]:
    """Each gate of ours, and what Flax' names end with; a gate that is alone has no name there."""
    return [("h", "")] if isinstance(cell, RNNCell) else [(gate, gate) for gate in cell.inputs]


def _joined(params: Tree, side: str, letters: Sequence[tuple[str, str]], what: str) -> Any:
    """Rows of all gates; zeros where Flax has no bias."""
    H = params[f"h{letters[0][1]}"]["kernel"].shape[0]
    places = [params[f"{side}{name}"] for _, name in letters]
    return np.concatenate(
        [np.asarray(place.get(what, np.zeros(H, np.float32))).T for place in places]
    )
