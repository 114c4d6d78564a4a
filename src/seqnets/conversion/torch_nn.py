"""torch.nn: its modules, and files of weights under its names."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seqnets.cells import (
    Cell,
    CoupledLSTMCell,
    GatedCell,
    GRUCell,
    LSTMCell,
    NoForgetLSTMCell,
    OriginalGRUCell,
    PeepholeLSTMCell,
    RNNCell,
    Wrapper,
)
from seqnets.conversion.parts import Array, Equation, equation_of, layers_of
from seqnets.errors import ConfigError
from seqnets.layers import CellFactory, DeepRNN
from seqnets.layers.torch_like import TorchLike
from seqnets.layers.torch_modules import (
    GRU,
    LSTM,
    RNN,
    CoupledLSTM,
    NoForgetLSTM,
    OriginalGRU,
    PeepholeLSTM,
)

_TWINS: dict[type[GatedCell], type[nn.RNNBase]] = {
    RNNCell: nn.RNN,
    GRUCell: nn.GRU,
    LSTMCell: nn.LSTM,
}
_MODULES: dict[type[GatedCell], type[TorchLike]] = {
    RNNCell: RNN,
    GRUCell: GRU,
    LSTMCell: LSTM,
    OriginalGRUCell: OriginalGRU,
    PeepholeLSTMCell: PeepholeLSTM,
    CoupledLSTMCell: CoupledLSTM,
    NoForgetLSTMCell: NoForgetLSTM,
}
_NAME = re.compile(r"(weight_(ih|hh|hr)|bias_(ih|hh)|p_[ifo])_l\d+(_reverse)?")


def to_torch(module: nn.Module) -> nn.RNNBase:
    """The module of torch.nn with a network's weights, dtype and device.

    It takes time where the network does: ``batch_first``, unless that is torch-like or a cell.

    Raises:
        ConfigError: torch.nn has no such cell, or the layers are not alike.
    """
    twin: nn.RNNBase = _alike(module, _TWINS, "torch.nn")
    return twin


def to_torch_like(module: nn.Module) -> nn.RNNBase | TorchLike:
    """As :func:`to_torch`, or the module of seqnets with torch.nn's interface and names.

    Raises:
        ConfigError: Neither has the cell, or the layers are not alike.
    """
    twin: nn.RNNBase | TorchLike = _alike(module, _MODULES | _TWINS, "torch.nn")
    return twin


def from_torch(module: nn.RNNBase | TorchLike) -> TorchLike:
    """The module of seqnets with the weights and options of one of torch.nn.

    Weights that are not learned there are not learned here.

    Raises:
        ConfigError: It is none of RNN, GRU and LSTM.
    """
    if isinstance(module, TorchLike):
        return module
    kinds = [kind for kind, twin in _TWINS.items() if isinstance(module, twin)]
    if not kinds:
        raise ConfigError(
            f"from_torch: module is {type(module).__name__}, expected torch.nn's RNN, GRU or LSTM."
        )
    names = ["num_layers", "bias", "batch_first", "bidirectional", "proj_size"]
    names += ["nonlinearity"] * isinstance(module, nn.RNN)
    options = {name: getattr(module, name) for name in names}
    like: Any = module.weight_ih_l0
    layer = _MODULES[kinds[0]](
        module.input_size, module.hidden_size, **options, device=like.device, dtype=like.dtype
    )
    layer.dropout = float(module.dropout)  # the constructor would warn of it once more
    layer.load_state_dict(module.state_dict())
    _freeze(layer, dict(module.named_parameters()))
    return layer.train(module.training)


def load(path: Path, cell: CellFactory | None) -> nn.RNNBase | TorchLike:
    """Read a ``state_dict`` under torch.nn's names: a recurrent module's, or a model's with one.

    Args:
        path: The file.
        cell: What the numbers are weights of, for they do not say it.

    Raises:
        ConfigError: It is unreadable, holds more than tensors, or does not fit the cell.
    """
    weights = _read(path)
    if cell is None:
        raise ConfigError(
            f"{path}: holds numbers alone, and does not say of which cell.\n"
            f"  Say it: model/cell=lstm, model/cell=gru, ..."
        )
    made: Any = cell(input_size=1, hidden_size=1)
    if isinstance(made, Wrapper):
        raise ConfigError(f"{path}: {type(made).__name__} has no place in it, expected a cell.")
    first = weights["weight_ih_l0"]
    return _filled(
        equation_of(made, _MODULES, "torch.nn"),
        _MODULES | _TWINS,
        weights,
        first.shape[1],
        len(first) // len(made.inputs),
    )


def save(module: nn.RNNBase | TorchLike, path: Path) -> None:
    """Write a module's ``state_dict``, which ``torch.load`` reads with ``weights_only=True``."""
    with path.open("wb") as file:  # which says what is wrong with it, as torch does not
        torch.save(module.state_dict(), file)


@torch.no_grad()
def run(module: nn.RNNBase | TorchLike, x: Array, lengths: Array) -> Array:
    """Outputs of a module over padded sequences."""
    like = next(module.parameters())
    steps = torch.from_numpy(lengths).long()
    packed = pack_padded_sequence(torch.from_numpy(x).to(like), steps, batch_first=True)
    y, _ = pad_packed_sequence(module(packed)[0], batch_first=True)
    return np.asarray(y.float().cpu())


def _alike(module: nn.Module, kinds: dict[type[GatedCell], Any], owner: str) -> Any:
    """A module with one cell in all layers, like torch.nn's."""
    layers = [[equation_of(cell, kinds, owner) for cell in layer] for layer in layers_of(module)]
    for equation in (equation for layer in layers for equation in layer):
        equation.check_functions(owner)
    first = layers[0][0]
    if len({_sign(equation, len(layer)) for layer in layers for equation in layer}) > 1:
        raise ConfigError(
            f"{owner}: the layers differ in cell, size or direction, expected all alike."
        )
    tensors = {
        f"{name}_l{depth}{suffix}": tensor
        for depth, layer in enumerate(layers)
        for suffix, equation in zip(("", "_reverse"), layer, strict=False)
        for name, tensor in equation.cell.tensors().items()
    }
    weights = {name: tensor.detach() for name, tensor in tensors.items()}
    twin = _filled(first, kinds, weights, first.cell.input_size, first.cell.hidden_size)
    _freeze(twin, tensors)
    twin.batch_first = getattr(module, "batch_first", not isinstance(module, Cell))
    if isinstance(module, (DeepRNN, TorchLike)):
        twin.dropout = getattr(module.dropout, "p", module.dropout)
    return twin.train(module.training)


def _freeze(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Let a module's parameters be learned where those of the same names are."""
    for name, tensor in tensors.items():
        if isinstance(tensor, nn.Parameter):  # what is computed may have no gradient just now
            module.get_parameter(name).requires_grad_(tensor.requires_grad)


def _sign(equation: Equation, directions: int) -> tuple[Any, ...]:
    """What is the same in all layers of a module of torch.nn."""
    cell = equation.cell
    options = tuple(_options(cell).values())
    return equation.kind, cell.hidden_size, cell.bias_ih is None, options, directions


def _filled(
    equation: Equation,
    kinds: dict[type[GatedCell], Any],
    weights: dict[str, Tensor],
    input_size: int,
    hidden_size: int,
) -> Any:
    depths = [int(re.findall(r"_l(\d+)", name)[-1]) for name in weights]
    like = weights["weight_ih_l0"]
    options = _options(equation.cell)
    if "weight_hr_l0" in weights:
        options["proj_size"] = len(weights["weight_hr_l0"])
    module = kinds[equation.kind](
        input_size,
        hidden_size,
        num_layers=max(depths) + 1,
        bias="bias_ih_l0" in weights,
        bidirectional="weight_ih_l0_reverse" in weights,
        device=like.device,
        dtype=like.dtype,
        **options,
    )
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigError(
            f"torch.nn: the weights are not those of {equation.kind.__name__}: {error}"
        ) from error
    return module.eval()


def _options(cell: GatedCell) -> dict[str, Any]:
    names = ("nonlinearity", "proj_size")
    return {name: getattr(cell, name) for name in names if getattr(cell, name, 0)}


def _read(path: Path) -> dict[str, Tensor]:
    """The recurrent module's part of a file of tensors."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ConfigError(
            f"{path}: cannot be read as tensors alone: {str(error).splitlines()[0]}\n"
            f"  Write it by torch.save(module.state_dict(), path)."
        ) from error
    names = [name for name in found if name.endswith("weight_ih_l0")] if _plain(found) else []
    if len(names) != 1:
        raise ConfigError(
            f"{path}: has {len(names)} weights called weight_ih_l0, expected the one of a "
            f"recurrent module's state_dict."
        )
    prefix = names[0].removesuffix("weight_ih_l0")
    inside = {name.removeprefix(prefix): found[name] for name in found if name.startswith(prefix)}
    return {name: inside[name] for name in inside if _NAME.fullmatch(name)}


def _plain(found: Any) -> bool:
    return isinstance(found, dict) and all(isinstance(t, Tensor) for t in found.values())
