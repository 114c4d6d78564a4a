"""Drop-in replacements for torch.nn's modules over sequences, for every cell.

Constructor, call, shapes, defaults, initial values and ``state_dict`` keys are torch.nn's. The
parameters live in these modules under torch.nn's names; cells provide only the equations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter, is_
from typing import TYPE_CHECKING, Any, ClassVar, Generic, overload

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from typing_extensions import Self, TypeVar

from seqnets import cells
from seqnets.cells import GatedCell
from seqnets.cells.constructors import checks_calls
from seqnets.engine import native
from seqnets.engine.modes import is_plain
from seqnets.engine.stack import OneCall, one_call
from seqnets.engine.unroll import unroll
from seqnets.errors import ConfigError, DtypeError, SeqnetsError, ShapeError, counted
from seqnets.layers.checks import (
    as_flag,
    check_forward_in_time,
    check_packed,
    check_reads_units,
    check_torch_options,
)
from seqnets.layers.layer_by_layer import LayerByLayer
from seqnets.layers.ragged import is_ragged
from seqnets.layers.torch_base import Device, Hidden, Pair, TorchBase, leaf_call
from seqnets.layers.torch_dtypes import in_torchs_dtypes
from seqnets.typing import State

Given = TypeVar("Given", Tensor, PackedSequence, Tensor | PackedSequence)
"""Sequences, padded or packed: a call returns the kind that it is given."""


class TorchLike(TorchBase, Generic[Hidden]):
    """A cell with the interface of ``torch.nn.LSTM``: deep, bidirectional, padded or packed.

    Name the cell in the class statement: ``class MGU(TorchLike, cell=MGUCell)``. Everything is as
    in torch.nn: time comes first unless ``batch_first``, states are stacked over layers and
    directions, and the state is a tensor for cells with one state, a tuple for others. To give
    calls a type, derive from ``TorchLike[Tensor]`` or ``TorchLike[tuple[Tensor, Tensor]]``.

    Args:
        input_size: Features of the input, I.
        hidden_size: Units of each layer, H.
        num_layers: Layers, L.
        bias: Whether the affine maps have biases.
        batch_first: Whether tensors are (B, T, I) instead of (T, B, I).
        dropout: Probability in [0, 1] of dropping an output between layers, in training.
        bidirectional: Whether each layer runs in both directions (D = 2).
        proj_size: Features of the projected output, P, for cells with a memory; 0 for none.
        device: Where the parameters live.
        dtype: Their floating-point type.
        options: What the cell takes beyond these.

    Raises:
        ConfigError: An option has an invalid value.
        DtypeError: An option has the wrong type.
        TypeError: An option is unknown.
    """

    _fixed: ClassVar[tuple[str, ...]] = (
        "input_size",
        "hidden_size",
        "num_layers",
        "bidirectional",
        "bias",
        "proj_size",
    )

    _last: tuple[OneCall, tuple[Any, ...], dict[str, Any]] | None = None
    """The last call of torch's kernels, with the module's options and parameters at that time."""

    _unrolls: Sequence[Callable[..., tuple[Tensor, State]]] | None = None
    """One for each layer and direction, while these are watched or explained; else ``unroll``."""

    _one_call = staticmethod(one_call)
    """What finds how to run all layers in one call; replaced while they are explained."""

    _watched = False
    """Whether the layers are watched: each then runs by itself, over whole sequences."""

    @checks_calls
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Device = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self._check_names(options)
        bidirectional = as_flag(bidirectional)
        check_torch_options(self._name, num_layers, bias, batch_first, dropout, bidirectional)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = int(num_layers)
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        if proj_size:
            if not issubclass(self.cell_class, cells.MemoryCell):
                raise ConfigError(
                    f"{self._name}: proj_size is {proj_size}, expected 0.\n"
                    f"  proj_size argument is only supported for LSTM and its variants."
                )
            options["proj_size"] = proj_size
        directions = ("", "_reverse") if bidirectional else ("",)
        self._suffixes = [f"_l{layer}{d}" for layer in range(num_layers) for d in directions]
        self._cell_factories = {}
        self._equations: list[GatedCell] = []
        for place, suffix in enumerate(self._suffixes):
            width = self.output_size if place >= len(directions) else input_size
            make = partial(self.cell_class, width, hidden_size, bias=bias, **options)
            self._equations.append(self._declare(make, suffix, device, dtype))
            check_reads_units(self._name, place // len(directions), self._equations[-1])
            if bidirectional:
                check_forward_in_time(self._name, self._equations[-1])
        first, *others = [equation.state_sizes for equation in self._equations]
        if unlike := [sizes for sizes in others if sizes != first]:
            raise ConfigError(
                f"{self._name}: its layers' states have sizes {first} and {unlike[0]}, expected "
                f"the same, since each part of the state is one tensor (L*D, B, H).\n"
                f"  DeepRNN keeps the state of each layer apart."
            )
        self.reset_parameters()
        self.flatten_parameters()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # to another device, say, or another dtype
        self.flatten_parameters()
        return self

    @property
    def output_size(self) -> int:
        """Features of the output, over both directions."""
        return (1 + self.bidirectional) * self._equations[0].output_size

    @property
    def all_weights(self) -> list[list[nn.Parameter]]:
        """The parameters of each layer and direction, as torch.nn lists them."""
        return [[getattr(self, name) for name in names] for names in self._all_weights]

    # Private in torch.nn, but by these names much code sets initial values: loops over
    # ``lstm._all_weights`` are older than ``all_weights``, and books teach ``_flat_weights_names``.

    @property
    def _all_weights(self) -> list[list[str]]:
        return [
            [name + suffix for name, _ in equation.named_parameters()]
            for equation, suffix in zip(self._equations, self._suffixes, strict=True)
        ]

    @property
    def _flat_weights_names(self) -> list[str]:
        return [name for names in self._all_weights for name in names]

    @property
    def _flat_weights(self) -> list[Any]:
        return [getattr(self, name, None) for name in self._flat_weights_names]

    @_flat_weights.setter
    def _flat_weights(self, weights: Sequence[Any]) -> None:
        names, before = self._flat_weights_names, self._flat_weights
        for name, old, new in zip(names, before, weights, strict=True):
            if new is not old:
                setattr(self, name, new)

    def bound_cells(self) -> list[GatedCell]:
        """A cell for each layer and direction, with this module's parameters."""
        return [
            self._bound(equation, suffix)
            for equation, suffix in zip(self._equations, self._suffixes, strict=True)
        ]

    def flatten_parameters(self) -> None:
        """Move the weights of each cell that cuDNN implements into one contiguous block.

        Only on a GPU in float16; elsewhere this does nothing. It also happens when the module is
        moved, but not when it is copied.
        """
        try:
            cells, directions = self.bound_cells(), 1 + self.bidirectional
        except AttributeError:  # a parameter was deleted and not yet replaced
            return
        if self.dropout:  # layers run one by one then
            for cell in cells:
                native.flatten_parameters([cell])
        else:
            native.flatten_parameters(cells, directions)

    def extra_repr(self) -> str:
        """What differs from the defaults, as torch.nn prints it, and then the cell's options."""
        parts = [f"{self.input_size}, {self.hidden_size}"]
        defaults: dict[str, Any] = {"proj_size": 0, "num_layers": 1, "bias": True}
        defaults |= {"batch_first": False, "dropout": 0.0, "bidirectional": False}
        parts += [f"{k}={getattr(self, k)}" for k, v in defaults.items() if getattr(self, k) != v]
        return ", ".join(parts + self._shown_with(self._equations[0]))

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_last": None}

    if TYPE_CHECKING:  # torch.nn.Module says that a call returns Any

        @overload  # mypy compares the two as if Given were the union in one of them
        def __call__(  # type: ignore[overload-overlap]
            self: TorchLike[Pair], input: Given, hx: State
        ) -> tuple[Given, Pair]: ...

        @overload
        def __call__(self, input: Given, hx: Hidden | None = None) -> tuple[Given, Hidden]: ...

        def __call__(self, input: Any, hx: Any = None) -> Any:
            """As :meth:`forward`."""

    def forward(self, input: Given, hx: Hidden | None = None) -> tuple[Given, Hidden]:
        """Run over sequences.

        Args:
            input: (T, B, I), (B, T, I) if ``batch_first``, (T, I) without a batch, or packed.
            hx: State before the first step, each (L*D, B, H), or (L*D, H) without a batch; zeros
                if omitted. A tensor for cells with one state, else a tuple.

        Returns:
            Outputs shaped like the input, with D*H features, and the final state of each layer
            and direction, shaped like ``hx``.

        Raises:
            ShapeError: The input or a state has the wrong shape.
            DtypeError: The input or a state has the wrong type.
            DeviceError: The input or a state is on another device than the parameters.
        """
        if (found := self._repeated(input, hx)) is not None:
            return found
        if isinstance(input, torch.fx.Proxy):
            return leaf_call(self, input, hx)
        run: Any = self._forward_padded
        if isinstance(input, PackedSequence):
            run = self._forward_packed
        try:
            return run(input, hx)
        except SeqnetsError as error:
            self._say_as_own(error)
            raise

    def _repeated(self, x: Any, hx: Any) -> Any:
        """The result of a call like the one before, if torch's kernels ran that; else None."""
        if torch.compiler.is_compiling() or self._last is None or not is_plain(x):
            return None
        call, options, parameters = self._last
        own = self._parameters
        if options != _options(self) or list(own) != list(parameters):
            return None
        if not all(map(is_, own.values(), parameters.values())):
            return None
        single = len(self.cell_class.states) == 1
        state = (hx,) if single and hx is not None else hx
        if not call.fits(x, state):
            return None
        y, state = call(x, state)
        return y, state[0] if single else state

    def _remember(self, call: OneCall) -> None:
        """Allow the call to be repeated, if it reads this module's parameters and nothing else."""
        if type(self).bound_cells is not TorchLike.bound_cells:
            return
        own = dict(self._parameters)
        read = (p for cell in call.cells for p in cell._parameters.values() if p is not None)
        if {id(p) for p in read} <= {id(p) for p in own.values() if type(p) is nn.Parameter}:
            self.__dict__["_last"] = call, _options(self), own

    def _forward_padded(self, x: Tensor, hx: Any) -> tuple[Tensor, Any]:
        dims = x.dim() if isinstance(x, Tensor) and not x.is_nested else None
        if dims not in (2, 3):
            got = type(x).__name__ if dims is None else f"{dims}D"
            pack = "\n  Pack it by pack_sequence(input.unbind(), enforce_sorted=False)."
            raise ShapeError(
                f"{self._name}: Expected input to be 2D or 3D, got {got} instead."
                + pack * getattr(x, "is_nested", False)
            )
        self._check_features(x)
        unbatched = dims == 2
        x = x.unsqueeze(0) if unbatched else x
        batch_first = unbatched or self.batch_first
        if x.shape[1 if batch_first else 0] == 0:
            raise ShapeError(f"{self._name}: Expected sequence length to be larger than 0.")
        state = None if hx is None else self._state(hx, unbatched)
        y, state = self._run(x, state, None, batch_first=batch_first)
        if unbatched:
            y, state = y.squeeze(0), tuple(part.squeeze(1) for part in state)
        return y, self._as_torch(state)

    def _forward_packed(self, packed: PackedSequence, hx: Any) -> tuple[PackedSequence, Any]:
        check_packed(self._name, packed)
        self._check_features(packed.data)
        sizes, sort, unsort = packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices
        state = None if hx is None else self._state(hx, unbatched=False)
        if sort is not None and state is not None:
            self._check_batch(state, sort.shape[0])  # torch.nn takes the first rows of more
            state = tuple(part.index_select(1, sort) for part in state)
        data, sizes, state = self._run_packed(packed.data, sizes, state)
        if unsort is not None:
            state = tuple(part.index_select(1, unsort) for part in state)
        return PackedSequence(data, sizes, sort, unsort), self._as_torch(state)

    def _run_packed(
        self, data: Tensor, sizes: Tensor, state: State | None
    ) -> tuple[Tensor, Tensor, State]:
        """Run over packed rows, without padding them where that would change results or cost much.

        Args:
            data: All rows' first steps, then all second steps and so on, (N, I).
            sizes: How many rows have each step, in descending order, (T,).
            state: State before the first step, each (L*D, B, H), longest rows first.

        Returns:
            The outputs, (N, D*H), their ``sizes``, and the final state. The sizes are those given,
            except in a trace, where rows are padded and packed again: an export needs outputs and
            sizes from the same call.
        """
        tracing = torch.jit.is_tracing()
        if not tracing and sizes[-1] == sizes[0]:  # all rows are equally long
            x = data.reshape(len(sizes), int(sizes[0]), -1)
            y, state = self._run(x, state, None, batch_first=False)
            return y.flatten(0, 1), sizes, state
        if not (tracing or self._watched) and (
            is_ragged(sizes) or (self.training and self.dropout)
        ):
            # like torch.nn, which draws dropout masks for real steps only
            if state is not None:
                self._check_batch(state, int(sizes[0]))
            layers = self._layer_by_layer(self.bound_cells())
            y, state = layers.over_packed(data, sizes, state)
            y, state = in_torchs_dtypes(self, data, y, state, packed=True)
            return y, sizes, state
        x, lengths = pad_packed_sequence(PackedSequence(data, sizes), batch_first=True)
        y, state = in_torchs_dtypes(self, x, *self._run(x, state, lengths), packed=True)
        packed = pack_padded_sequence(y, lengths, batch_first=True)
        return packed.data, packed.batch_sizes, state

    def _run(
        self, x: Tensor, state: State | None, lengths: Tensor | None, *, batch_first: bool = True
    ) -> tuple[Tensor, State]:
        """Run over a padded batch, (B, T, I), or (T, B, I) unless ``batch_first``.

        In one call of torch's kernels where that is possible and faster, else layer by layer.
        """
        if state is not None:
            self._check_batch(state, x.shape[0 if batch_first else 1])
        cells = self.bound_cells()
        if lengths is None and not self._watched:
            dropout = self.dropout if self.training and self.num_layers > 1 else 0.0
            call = self._one_call(
                cells,
                x,
                state,
                directions=1 + self.bidirectional,
                dropout=dropout,
                batch_first=batch_first,
            )
            if call is not None:
                if batch_first == self.batch_first:
                    self._remember(call)
                return call(x, state)
        x = x if batch_first else x.transpose(0, 1)
        y, state = self._layer_by_layer(cells).over_padded(x, state, lengths)
        y, state = in_torchs_dtypes(self, x, y, state)
        return y if batch_first else y.transpose(0, 1), state

    def _layer_by_layer(self, cells: Sequence[GatedCell]) -> LayerByLayer:
        unrolls = self._unrolls or (unroll,) * len(cells)
        return LayerByLayer(cells, unrolls, 1 + self.bidirectional, self.dropout, self.training)

    def _check_features(self, given: Tensor) -> None:
        """Raise ShapeError unless there are I features; the cell's own error names the cell."""
        if given.shape[-1] != self.input_size:
            raise ShapeError(
                f"{self._name}: input has {given.shape[-1]} features, shape {tuple(given.shape)}, "
                f"expected input_size = {self.input_size}."
            )

    def _state(self, hx: Any, unbatched: bool) -> State:
        """The argument ``hx`` as a tuple of (L*D, B, H)."""
        names = self.cell_class.states
        parts = (hx,) if len(names) == 1 else hx
        if not isinstance(parts, tuple | list) or len(parts) != len(names):
            listed = isinstance(parts, tuple | list)
            came = f"has {counted(len(hx), 'part')}" if listed else f"is {type(hx).__name__}"
            raise ShapeError(
                f"{self._name}: hx {came}, expected a tuple of {len(names)}: {', '.join(names)}."
            )
        for part in parts:
            if not isinstance(part, Tensor):
                raise DtypeError(f"{self._name}: hx is {type(part).__name__}, expected a tensor.")
            if part.dim() != 3 - unbatched:
                kind = "unbatched 2-D" if unbatched else "batched 3-D"
                raise ShapeError(
                    f"{self._name}: For {kind} input, hx should also be {3 - unbatched}-D but "
                    f"got {part.dim()}-D tensor."
                )
        return tuple([part.unsqueeze(1) for part in parts]) if unbatched else tuple(parts)

    def _check_batch(self, state: State, rows: int) -> None:
        """Raise ShapeError unless each part of a state is (L*D, B, H), with B ``rows``."""
        sizes = self._equations[0].state_sizes
        for name, part, size in zip(self.cell_class.states, state, sizes, strict=True):
            expected = (len(self._equations), rows, size)
            if tuple(part.shape) != expected:
                raise ShapeError(
                    f"{self._name}: Expected hidden state '{name}' of size {expected}, got "
                    f"{list(part.shape)}.\n"
                    f"  It is (layers * directions, B, H), and B comes from the input."
                )

    def _as_torch(self, state: State) -> Any:
        return state[0] if len(state) == 1 else state


_options = attrgetter("batch_first", "dropout", "training")
"""What else a module's call depends on, apart from its cells and parameters."""
