"""torch.nn: its recurrent modules, and files of weights under their names."""

from __future__ import annotations

import io
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
from seqnets.conversion.equations import Equation, equation_of
from seqnets.conversion.libraries import Array, need_cell
from seqnets.conversion.networks import layers_of
from seqnets.errors import ConfigError
from seqnets.layers import CellFactory, DeepRNN
from seqnets.layers.dropout import LockedDropout
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
from seqnets.warn import warn

_OWNER = "torch.nn"
_TORCH_CLASSES: dict[type[GatedCell], type[nn.RNNBase]] = {
    RNNCell: nn.RNN,
    GRUCell: nn.GRU,
    LSTMCell: nn.LSTM,
}
_TORCH_LIKE_CLASSES: dict[type[GatedCell], type[TorchLike]] = {
    RNNCell: RNN,
    GRUCell: GRU,
    LSTMCell: LSTM,
    OriginalGRUCell: OriginalGRU,
    PeepholeLSTMCell: PeepholeLSTM,
    CoupledLSTMCell: CoupledLSTM,
    NoForgetLSTMCell: NoForgetLSTM,
}
_WEIGHT_NAME = re.compile(r"(weight_(ih|hh|hr)|bias_(ih|hh)|p_[ifo])_l\d+(_reverse)?")


def to_torch(module: nn.Module) -> nn.RNNBase:
    """The torch.nn module with a network's weights, dtype and device.

    It is ``batch_first``, as the network is; a cell's module is not, and that of a torch-like
    network keeps its setting. Dropout that torch.nn lacks is left out: that within cells, and
    ``locked`` dropout between layers, of which a warning tells in training mode.

    Raises:
        ConfigError: torch.nn has no such cell, or the layers are not alike.
    """
    return _converted(module, _TORCH_CLASSES)


def to_torch_like(module: nn.Module) -> nn.RNNBase | TorchLike:
    """The torch.nn module, or the torch-like one for cells that torch.nn lacks.

    Raises:
        ConfigError: Neither has the cell, or the layers are not alike.
    """
    return _converted(module, _TORCH_LIKE_CLASSES | _TORCH_CLASSES)


def from_torch(module: nn.RNNBase | TorchLike) -> TorchLike:
    """The torch-like module with the weights and options of a torch.nn module.

    Frozen parameters stay frozen.

    Raises:
        ConfigError: The module is not an RNN, GRU or LSTM.
    """
    if isinstance(module, TorchLike):
        return module
    kinds = [kind for kind, theirs in _TORCH_CLASSES.items() if isinstance(module, theirs)]
    if not kinds:
        raise ConfigError(
            f"from_torch: module is {type(module).__name__}, expected torch.nn's RNN, GRU or LSTM."
        )
    names = ["num_layers", "bias", "batch_first", "bidirectional", "proj_size"]
    names += ["nonlinearity"] * isinstance(module, nn.RNN)
    options = {name: getattr(module, name) for name in names}
    like: Any = module.weight_ih_l0
    layer = _TORCH_LIKE_CLASSES[kinds[0]](
        module.input_size, module.hidden_size, **options, device=like.device, dtype=like.dtype
    )
    layer.dropout = float(module.dropout)  # set here, as the constructor would warn again
    layer.load_state_dict(module.state_dict())
    _copy_requires_grad(layer, dict(module.named_parameters()))
    return layer.train(module.training)


def load(path: Path, cell: CellFactory | None) -> nn.RNNBase | TorchLike:
    """Read the ``state_dict`` of a recurrent module, or of a model that contains one.

    Args:
        path: The file, with weights under torch.nn's names.
        cell: Cell factory, as the file does not store the cell's type.

    Raises:
        ConfigError: The file cannot be read, holds more than tensors, or does not fit the cell.
    """
    weights = _read(path)
    example: Any = need_cell(path, cell)(input_size=1, hidden_size=1)
    if isinstance(example, Wrapper):
        raise ConfigError(
            f"{path}: the cell is {type(example).__name__}, expected one without options."
        )
    first = weights["weight_ih_l0"]
    return _build_module(
        equation_of(example, _TORCH_LIKE_CLASSES, _OWNER),
        _TORCH_LIKE_CLASSES | _TORCH_CLASSES,
        weights,
        first.shape[1],
        len(first) // len(example.inputs),
    )


def save(module: nn.RNNBase | TorchLike, path: Path) -> None:
    """Write a module's ``state_dict``, which ``torch.load`` reads with ``weights_only=True``."""
    whole = io.BytesIO()  # torch's writer of files hides why a disk takes no more
    torch.save(module.state_dict(), whole)
    path.write_bytes(whole.getbuffer())


@torch.no_grad()
def run(module: nn.RNNBase | TorchLike, x: Array, lengths: Array) -> Array:
    """A module's outputs (B, T, H) for padded sequences (B, T, I)."""
    like = next(module.parameters())
    steps = torch.from_numpy(lengths).long()
    packed = pack_padded_sequence(torch.from_numpy(x).to(like), steps, batch_first=True)
    y, _ = pad_packed_sequence(module(packed)[0], batch_first=True)
    return np.asarray(y.float().cpu())


def _converted(module: nn.Module, kinds: dict[type[GatedCell], Any]) -> Any:
    """A module with the same cell in all layers, as torch.nn's are."""
    layers = [[equation_of(cell, kinds, _OWNER) for cell in layer] for layer in layers_of(module)]
    for equation in (equation for layer in layers for equation in layer):
        equation.check_functions(_OWNER)
    first = layers[0][0]
    if len({_signature(equation, len(layer)) for layer in layers for equation in layer}) > 1:
        raise ConfigError(
            f"{_OWNER}: the layers differ in cell, size or direction, expected all alike."
        )
    tensors = {
        f"{name}_l{depth}{suffix}": tensor
        for depth, layer in enumerate(layers)
        for suffix, equation in zip(("", "_reverse"), layer, strict=False)
        for name, tensor in equation.cell.tensors().items()
    }
    weights = {name: tensor.detach() for name, tensor in tensors.items()}
    result = _build_module(first, kinds, weights, first.cell.input_size, first.cell.hidden_size)
    _copy_requires_grad(result, tensors)
    result.batch_first = getattr(module, "batch_first", not isinstance(module, Cell))
    if isinstance(module, (DeepRNN, TorchLike)):
        result.dropout = _dropout_of(module)
    return result.train(module.training)


def _dropout_of(module: DeepRNN | TorchLike) -> float:
    """The probability of dropout between layers, which draws a mask anew at each step there."""
    if isinstance(module, TorchLike):
        return module.dropout
    p = module.dropout.p
    if not isinstance(module.dropout, LockedDropout):
        return p
    if p and module.training:
        warn(
            f"{_OWNER}: dropout={p} is locked, one mask for all steps, which {_OWNER} does not "
            f"have: it is left out.\n"
            f"  Set `dropout` of the result for one that draws a mask at each step."
        )
    return 0.0


def _copy_requires_grad(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Freeze the parameters that are frozen in ``tensors``, and only those."""
    for name, tensor in tensors.items():
        if isinstance(tensor, nn.Parameter):  # a computed tensor may lack a gradient in eval mode
            module.get_parameter(name).requires_grad_(tensor.requires_grad)


def _signature(equation: Equation, directions: int) -> tuple[Any, ...]:
    """What all layers of a torch.nn module have in common."""
    cell = equation.cell
    options = tuple(_options(cell).values())
    return equation.kind, cell.hidden_size, cell.bias_ih is None, options, directions


def _build_module(
    equation: Equation,
    kinds: dict[type[GatedCell], Any],
    weights: dict[str, Tensor],
    input_size: int,
    hidden_size: int,
) -> Any:
    """Create the module of a cell with these weights, whose names give its other options."""
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
            f"{_OWNER}: the weights are not those of {equation.kind.__name__}: {error}"
        ) from error
    return module.eval()


def _options(cell: GatedCell) -> dict[str, Any]:
    """A cell's constructor options that a torch.nn module has too."""
    names = ("nonlinearity", "proj_size")
    return {name: getattr(cell, name) for name in names if getattr(cell, name, 0)}


def _read(path: Path) -> dict[str, Tensor]:
    """Read a file of tensors, and return the weights of its recurrent module."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ConfigError(
            f"{path}: cannot be read as tensors alone: {str(error).splitlines()[0]}\n"
            f"  Write it with torch.save(module.state_dict(), path)."
        ) from error
    tensors = found if _is_state_dict(found) else {}
    names = [name for name in tensors if name.endswith("weight_ih_l0")]
    if len(names) != 1:
        raise ConfigError(
            f"{path}: has {len(names)} weights called weight_ih_l0, expected the one of a "
            f"recurrent module's state_dict."
        )
    prefix = names[0].removesuffix("weight_ih_l0")
    weights = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    return {name: tensor for name, tensor in weights.items() if _WEIGHT_NAME.fullmatch(name)}


def _is_state_dict(found: Any) -> bool:
    return isinstance(found, dict) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in found.items()
    )
