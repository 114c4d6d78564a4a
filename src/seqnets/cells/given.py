"""What a cell is given, its parameters, inputs and states, checked against what it declares."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from seqnets.cells.bindable import Bindable
from seqnets.checks import name_of
from seqnets.errors import ConfigError, DeviceError, DtypeError, ShapeError, counted
from seqnets.typing import State


class ChecksGiven(Bindable):
    """A module with the states and sizes of a cell, which refuses what does not fit them.

    Attributes:
        states: Names of the state's parts.
        input_size: Features of the input, I.
    """

    states: tuple[str, ...]
    input_size: int

    @property
    @abstractmethod
    def state_sizes(self) -> tuple[int, ...]:
        """Width of each part of the state, in the order of ``states``."""

    def check_parameters(self) -> None:
        """Raise if a parameter was replaced by one of another dtype or device.

        Raises:
            DtypeError: A real-valued parameter or buffer differs in dtype from the others.
            DeviceError: A parameter or buffer is on another device than the others.
        """
        like = self._like
        device, dtype = like.device, like.dtype
        for tensors in (self._parameters, self._buffers):
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                mixed = tensor.dtype is not dtype and tensor.is_floating_point()
                if mixed or tensor.device != device:
                    self._check_kind(name, tensor, like, "the cell's other parameters have")

    def check_input(self, x: Tensor, *legend: str) -> None:
        """Raise unless ``x`` has the legend's rank, I features, and the parameters' dtype."""
        if not isinstance(x, Tensor) or x.is_nested:
            came = "a nested tensor" if isinstance(x, Tensor) else type(x).__name__
            raise DtypeError(
                f"{self._name}: input is {came}, expected a tensor ({', '.join(legend)})."
                + _how_to_make_a_tensor(x, self._like.dtype)
            )
        if x.dim() != len(legend) or x.shape[-1] != self.input_size:
            lacks_one = x.dim() == len(legend) - 1
            raise ShapeError(
                f"{self._name}: input has shape {tuple(x.shape)}, expected ({', '.join(legend)}) "
                f"with I = {self.input_size}.\n"
                f"  I is the input_size this cell was built with."
                + (_how_to_add_one(x, legend, self.input_size) if lacks_one else "")
                + (_FEATURES_LAST if x.dim() == 3 and x.shape[1] == self.input_size else "")
            )
        self._check_kind("input", x, self._like, "the parameters have")

    def check_state(self, state: State, x: Tensor) -> State:
        """The state as a tuple; raise unless each part is (B, H), with the B of ``x``."""
        if isinstance(state, Tensor) or not isinstance(state, Sequence):
            raise ShapeError(
                f"{self._name}: state is {type(state).__name__}, expected a tuple of "
                f"{len(self.states)}: {as_tuple(self.states)}."
                + (_name_of_argument(state) or _in_a_tuple(state, self.states))
            )
        if len(state) != len(self.states):
            raise ShapeError(
                f"{self._name}: state has {counted(len(state), 'part')}, expected "
                f"{len(self.states)}: {', '.join(self.states)}."
            )
        for name, part, size in zip(self.states, state, self.state_sizes, strict=True):
            if not isinstance(part, Tensor):
                raise DtypeError(
                    f"{self._name}: state '{name}' is {type(part).__name__}, expected a tensor."
                )
            if tuple(part.shape) != (x.shape[0], size):
                rows = f", or a batch of {len(part)}" if part.shape[1:] == (size,) else ""
                if part.shape == (1, x.shape[0], size):
                    rows = ", or each part as (B, H): one layer has no dimension of layers"
                raise ShapeError(
                    f"{self._name}: state '{name}' has shape {tuple(part.shape)}, "
                    f"expected (B, H) = {(x.shape[0], size)}.\n"
                    f"  B = {x.shape[0]} comes from x, shape {tuple(x.shape)}.\n"
                    f"  Pass state=None at the start of a batch{rows}."
                    + how_to_put_batch_first(part, x, size)
                )
            self._check_kind(f"state '{name}'", part, x, "the input has")
        return tuple(state)

    @property
    def _name(self) -> str:
        return name_of(self)

    @property
    def _like(self) -> Tensor:
        """A tensor of the dtype and on the device of all others."""
        return self._first_tensor()

    def _first_tensor(self) -> Tensor:
        # of a bound cell, the first may be a buffer of integers
        found: Tensor | None = next(filter(_is_no_integer, self.parameters()), None)
        if found is None:
            found = next((b for b in self.buffers() if b.is_floating_point()), None)
        if found is None:
            raise ConfigError(
                f"{self._name}: has no real-valued parameter or buffer, expected at least one: the "
                f"states take its dtype and device.\n"
                f'  For example, call self.register_buffer("like", torch.zeros(())) in __init__.'
            )
        return found

    def _check_kind(self, what: str, tensor: Tensor, like: Tensor, source: str) -> None:
        if tensor.device != like.device:
            move = f"Move it there with .to({str(like.device)!r})."
            raise DeviceError(
                f"{self._name}: {what} is on {tensor.device}, expected {like.device}.\n"
                f"  {like.device} is the device {source}.\n"
                f"  {_NO_VALUES if like.is_meta else move}"
            )
        if tensor.dtype != like.dtype and not (autocasts(tensor) and autocasts(like)):
            raise DtypeError(
                f"{self._name}: {what} is {tensor.dtype}, expected {like.dtype}.\n"
                f"  {like.dtype} is the dtype {source}.\n"
                f"  Convert it with .to({like.dtype})."
            )


_NO_VALUES = (
    "Tensors on meta hold no values: load some with load_state_dict(…, assign=True), or draw them "
    "after to_empty(device=…).\n"
    "  A library that keeps the weights elsewhere must be given whole layers: accelerate takes "
    "preload_module_classes=['Recurrent']."
)
"""Advice where the parameters are on meta."""


def as_tuple(names: Sequence[str]) -> str:
    """Names as a tuple of Python."""
    return f"({', '.join(names)}{',' * (len(names) == 1)})"


def _how_to_add_one(x: Tensor, legend: Sequence[str], features: int) -> str:
    """Advice for an ``x`` that lacks one dimension of the legend; empty if it fits nowhere."""
    if x.shape[-1] != features:
        return "\n  x.unsqueeze(-1) has one feature." if features == 1 else ""
    if "T" not in legend:
        return "\n  x.unsqueeze(0) is a batch of one."
    return "\n  x.unsqueeze(0) is one sequence, x.unsqueeze(1) one step of each row."


_FEATURES_LAST = "\n  x.transpose(1, 2) has the features last, if they are second in x."


def how_to_put_batch_first(of_rows: Tensor, x: Tensor, *sizes: int) -> str:
    """Advice where a tensor (B, *sizes) fits an ``x`` whose time is first; else empty."""
    if x.dim() != 3 or of_rows.shape != (x.shape[1], *sizes):
        return ""
    return "\n  Layers are batch first: if x is (T, B, I), pass x.transpose(0, 1)."


def _in_a_tuple(given: Any, states: Sequence[str]) -> str:
    """Advice where the only part of a state is given by itself; else empty."""
    return "\n  Pass (state,)." if isinstance(given, Tensor) and len(states) == 1 else ""


def _how_to_make_a_tensor(x: Any, dtype: torch.dtype) -> str:
    """Advice on how to make a tensor of something else, such as packed and nested sequences."""
    if isinstance(x, PackedSequence):
        return "\n  pad_packed_sequence(x, batch_first=True) gives one, and lengths."
    if isinstance(x, Tensor):
        return "\n  x.to_padded_tensor(0.0) is one; its lengths are x.offsets().diff()."
    return f"\n  torch.as_tensor(x, dtype={dtype}) makes one of numbers."


def _name_of_argument(given: Any) -> str:
    """Advice where lengths or resets seem to be given as the state; else empty."""
    if not isinstance(given, Tensor) or given.is_floating_point() or given.is_complex():
        return ""
    if given.dtype is torch.bool:
        return "\n  Resets are given by name: resets=resets."
    return "\n  Lengths are given by name: lengths=lengths."


def _is_no_integer(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def autocasts(x: Tensor) -> bool:
    """Whether autocast acts on a tensor: enabled on its device, which "meta" never is.

    It leaves float64 as it is.
    """
    if not torch._C._is_any_autocast_enabled():  # the usual case, and a cheap check
        return False
    kept = x.is_meta or x.dtype is torch.float64
    return not kept and torch.is_autocast_enabled(x.device.type)
