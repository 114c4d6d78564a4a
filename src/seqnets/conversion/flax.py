"""Flax: parameter trees of SimpleCell, GRUCell and (Optimized)LSTMCell, of linen and of NNX.

A tree holds arrays only: the reader says to which cell they belong, and with which activation.
Those of NNX are read, as linen's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from seqnets.cells import Cell, GatedCell, GRUCell, LSTMCell, RNNCell
from seqnets.checks import name_of
from seqnets.conversion.equations import equation_of, fill, gate_rows, summed_bias
from seqnets.conversion.libraries import Array, library, need_cell
from seqnets.conversion.networks import Layers, layers_of, stack
from seqnets.errors import ConfigError
from seqnets.layers import CellFactory, DeepRNN

Tree = Mapping[str, Any]

_NAMES: dict[type[GatedCell], str] = {
    RNNCell: "SimpleCell",
    GRUCell: "GRUCell",
    LSTMCell: "OptimizedLSTMCell",
}
_DIRECTIONS = ("forward_rnn", "backward_rnn")
_GATES_OF_NNX = ("",), ("r", "z", "n"), ("i", "f", "g", "o")
"""The gates that a matrix of NNX may have side by side."""


class Network(NamedTuple):
    """A Flax parameter tree, and the seqnets network with the same cells."""

    params: Tree
    module: nn.Module


def to_flax(module: nn.Module) -> dict[str, Any]:
    """Convert to the parameters of a ``linen.Sequential`` of ``RNN`` and ``Bidirectional``.

    Returns:
        A tree of NumPy arrays, which the module's ``apply`` takes as ``{"params": tree}``.

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
    """Convert a parameter tree, as :func:`to_flax` returns or of one layer or cell, to a network.

    Args:
        params: The tree, with or without ``{"params": ...}`` around it; of an NNX module what
            ``nnx.to_pure_dict(nnx.state(module, nnx.Param))`` returns.
        cell: Cell factory: of RNNCell, GRUCell or LSTMCell.

    Raises:
        ConfigError: The tree does not have the parameters of these cells.
    """
    params = _tree("params", params)
    params = _as_linens(_tree("params", params.get("params", params)))
    trees = [params]
    if "layers_0" in params:
        names = [f"layers_{depth}" for depth in range(len(params))]
        trees = [_tree(name, params.get(name)) for name in names]
    layers: Layers = []
    for tree in trees:
        parts = [_tree(name, tree[name]) for name in _DIRECTIONS if name in tree] or [tree]
        layers.append(tuple(cell_of(part.get("cell", part), cell) for part in parts))
    return stack(layers)


def params_of(cell: Cell) -> dict[str, dict[str, Array]]:
    """A cell's parameters as a Flax tree, in which biases that only add up are one.

    Raises:
        ConfigError: Flax has no such cell.
    """
    equation = equation_of(cell, _NAMES, "Flax")
    equation.check_functions("Flax")
    equation.check_projection("Flax")
    inner, params = equation.cell, {}
    for gate, name in _gate_names(inner):
        w = {"kernel": gate_rows(inner, "weight_ih", [gate]).T}
        u = {"kernel": gate_rows(inner, "weight_hh", [gate]).T}
        if isinstance(inner, GRUCell) and gate == "n":
            w["bias"], u["bias"] = (
                gate_rows(inner, f"bias_{side}", [gate]) for side in ("ih", "hh")
            )
        else:
            (u if isinstance(inner, LSTMCell) else w)["bias"] = summed_bias(inner, [gate])
        params[f"i{name}"], params[f"h{name}"] = w, u
    return params


def cell_of(params: Tree, cell: CellFactory) -> Cell:
    """Create a cell from its parameters as a Flax tree.

    Raises:
        ConfigError: The parameters are those of another cell.
    """
    params = _as_linens(_tree("a cell", params))
    example = equation_of(cell(input_size=1, hidden_size=1), _NAMES, "Flax").cell
    names = _gate_names(example)
    expected = {f"{side}{name}" for _, name in names for side in "ih"}
    if set(params) != expected:
        raise ConfigError(
            f"Flax: the parameters are {', '.join(sorted(params))}, expected "
            f"{', '.join(sorted(expected))} for {name_of(example)}."
        )
    order = [gate for gate, _ in names]
    W, U = (_concatenate(params, side, names, "kernel") for side in "ih")
    b, d = (_concatenate(params, side, names, "bias") for side in "ih")
    filled = cell(input_size=W.shape[1], hidden_size=U.shape[1])
    return fill(filled, order, weight_ih=W, weight_hh=U, bias_ih=b, bias_hh=d)


def load(path: Path, cell: CellFactory | None) -> Network:
    """Read a tree that ``flax.serialization`` wrote as msgpack.

    Args:
        path: The file.
        cell: Cell factory, as the file does not store the cell's type.

    Raises:
        ConfigError: The file cannot be read, or does not fit the cell.
        AbsentError: Flax is not installed.
    """
    try:
        params = library("flax.serialization").msgpack_restore(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as Flax' msgpack: {error}.") from error
    if not isinstance(params, dict):
        raise ConfigError(f"{path}: holds {type(params).__name__}, expected a tree of parameters.")
    return Network(_as_linens(params), from_flax(params, need_cell(path, cell)))


def save(network: Network, path: Path) -> None:
    """Write the tree as msgpack, for ``flax.serialization.msgpack_restore``."""
    path.write_bytes(library("flax.serialization").msgpack_serialize({"params": network.params}))


def run(network: Network, x: Array, lengths: Array) -> Array:
    """The outputs (B, T, H) of a network for padded sequences, as Flax computes them."""
    jax, linen = library("jax"), library("flax.linen")
    params = network.params.get("params", network.params)
    with jax.default_device(jax.devices("cpu")[0]):
        for depth, layer in enumerate(layers_of(network.module)):
            parts = [linen.RNN(linen_cell(cell)) for cell in layer]
            bidirectional = len(layer) == 2
            module = linen.Bidirectional(*parts) if bidirectional else parts[0]
            tree = params.get(f"layers_{depth}", params)
            tree = tree if bidirectional or "cell" in tree else {"cell": tree}
            x = module.apply({"params": tree}, x, seq_lengths=lengths)
        return np.asarray(x)


def linen_cell(cell: Cell) -> Any:
    """The Flax module of a cell.

    Raises:
        ConfigError: Flax has no such cell.
        AbsentError: Flax is not installed.
    """
    equation = equation_of(cell, _NAMES, "Flax")
    options = {}
    if equation.functions["candidate"] == "relu":
        options["activation_fn"] = library("jax").nn.relu
    return getattr(library("flax.linen"), _NAMES[equation.kind])(cell.hidden_size, **options)


def _tree(what: str, given: Any) -> Tree:
    """A part of a tree that has parts itself; raise ConfigError if it has none."""
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"Flax: {what} is {type(given).__name__}, expected a tree of parameters: a mapping of "
            f"names.\n  to_flax returns one, and module.init of Flax has it under 'params'."
        )
    return given


def _as_linens(tree: Tree) -> Tree:
    """A tree by linen's names, also if it is NNX's."""
    if gates := _gates_side_by_side(tree):
        return _by_gate(tree, gates)
    layers: Any = tree.get("layers")
    numbered = isinstance(layers, Mapping) and all(str(key).isdecimal() for key in layers)
    if numbered and len(tree) == 1:
        tree = {f"layers_{depth}": layers[key] for depth, key in enumerate(sorted(layers, key=int))}
    return {
        "if" if name == "if_" else name: _as_linens(part) if isinstance(part, Mapping) else part
        for name, part in tree.items()
    }


def _gates_side_by_side(tree: Tree) -> tuple[str, ...] | None:
    """The gates of a cell of NNX whose matrices have all of them; None for anything else."""
    sides: list[Any] = [tree.get(name) for name in ("dense_i", "dense_h")]
    if len(tree) != 2 or not all(isinstance(side, Mapping) and "kernel" in side for side in sides):
        return None
    shape = np.shape(sides[1]["kernel"])
    alike = all(np.shape(leaf)[-1:] == shape[1:] for side in sides for leaf in side.values())
    if len(shape) != 2 or not alike:
        return None
    H, columns = shape
    return {len(gates) * H: gates for gates in _GATES_OF_NNX}.get(columns)


def _by_gate(tree: Tree, gates: tuple[str, ...]) -> Tree:
    """A cell's parameters by gate, of a tree that has these side by side."""
    H = len(tree["dense_h"]["kernel"])
    parts: dict[str, dict[str, Array]] = {side + gate: {} for side in "ih" for gate in gates}
    for side in "ih":
        for leaf, array in tree[f"dense_{side}"].items():
            for gate, part in zip(gates, np.split(np.asarray(array), len(gates), -1), strict=True):
                parts[side + gate][leaf] = part
    if "n" in gates:  # which NNX lacks, and linen asks for
        parts["hn"].setdefault("bias", np.zeros(H, np.float32))
    return parts


def _gate_names(cell: GatedCell) -> list[tuple[str, str]]:
    """Each gate with the suffix of its Flax parameters, which is empty for a single gate."""
    return [("h", "")] if isinstance(cell, RNNCell) else [(gate, gate) for gate in cell.inputs]


def _concatenate(params: Tree, side: str, names: Sequence[tuple[str, str]], leaf: str) -> Array:
    """Concatenate the rows of all gates, with zeros where Flax has no bias."""
    H = params[f"h{names[0][1]}"]["kernel"].shape[0]
    gates = [params[f"{side}{name}"] for _, name in names]
    return np.concatenate([np.asarray(gate.get(leaf, np.zeros(H, np.float32))).T for gate in gates])
