"""Drop-in replacements for torch.nn's modules of one step, for every cell."""

from __future__ import annotations

from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, Generic, overload

import torch
from torch import Tensor

from seqnets.cells import GatedCell
from seqnets.cells.constructors import checks_calls
from seqnets.engine import native
from seqnets.errors import ShapeError
from seqnets.layers.checks import as_flag, as_size
from seqnets.layers.torch_base import Device, Hidden, Pair, TorchBase, leaf_call
from seqnets.typing import State

_what_is_checked = attrgetter("shape", "dtype", "device")


class TorchLikeCell(TorchBase, Generic[Hidden]):
    """A cell with the interface of ``torch.nn.LSTMCell``: one step, batched or not.

    Name the cell in the class statement:
    ``class MGUCell(TorchLikeCell, cell=seqnets.cells.MGUCell)``.

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        bias: Whether the affine maps have biases.
        device: Where the parameters live.
        dtype: Their floating-point type.
        options: What the cell takes beyond these.

    Raises:
        TypeError: An option is unknown.
    """

    _fixed: ClassVar[tuple[str, ...]] = ("input_size", "hidden_size", "bias")

    _checked_kinds: tuple[Any, ...] = ()  # the class's for modules pickled by earlier versions

    @checks_calls
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Device = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self._check_names(options)
        input_size, hidden_size = as_size(input_size), as_size(hidden_size)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        self._cell_factories = {}
        make = partial(self.cell_class, input_size, hidden_size, bias=as_flag(bias), **options)
        self._equation = [self._declare(make, "", device, dtype)]  # in a list: not a submodule
        for name, parameter in self._equation[0]._parameters.items():
            if parameter is None:  # a step of torch.nn has None for a bias that it lacks
                self.register_parameter(name, None)
        self.reset_parameters()

    if TYPE_CHECKING:

        @overload
        def __call__(self: TorchLikeCell[Pair], input: Tensor, hx: State) -> Pair: ...

        @overload
        def __call__(self, input: Tensor, hx: Hidden | None = None) -> Hidden: ...

        def __call__(self, input: Any, hx: Any = None) -> Any:
            """As :meth:`forward`."""

    def forward(self, input: Tensor, hx: Hidden | None = None) -> Hidden:
        """Take one step.

        Args:
            input: (B, I), or (I,) without a batch.
            hx: The state before the step, each (B, H), or (H,) without a batch; zeros if
                omitted. A tensor for cells with one state, else a tuple.

        Returns:
            The state after the step, shaped like ``hx``.

        Raises:
            ShapeError: The input or a state has the wrong shape.
        """
        if isinstance(input, torch.fx.Proxy):
            return leaf_call(self, input, hx)
        if not isinstance(input, Tensor) or input.dim() not in (1, 2):
            got = f"{input.dim()}D" if isinstance(input, Tensor) else type(input).__name__
            raise ShapeError(f"{self._name}: Expected input to be 1D or 2D, got {got} instead.")
        cell = self._bound(self._equation[0], "")
        self._check_parameters(cell)
        unbatched = input.dim() == 1
        single = len(cell.states) == 1
        state: Any = (hx,) if single and hx is not None else hx
        if unbatched:
            input = input.unsqueeze(0)
            if isinstance(state, tuple | list):
                state = tuple(self._row(part) for part in state)
        _, state = native.step(cell, input, state)
        if unbatched:
            state = tuple(part.squeeze(0) for part in state)
        return state[0] if single else state

    def extra_repr(self) -> str:
        """The sizes, and the bias where there is none, as torch.nn prints them; then options."""
        parts = [f"{self.input_size}, {self.hidden_size}"]
        parts += [f"bias={self.bias}"] * (self.bias is not True)
        return ", ".join(parts + self._shown_with(self._equation[0]))

    def _check_parameters(self, cell: GatedCell) -> None:
        """Raise as the cell does; parameters of kinds that were checked are not checked again."""
        if torch.compiler.is_compiling():
            cell.check_parameters()
            return
        own = cell._parameters.values()
        kinds = tuple([_what_is_checked(tensor) for tensor in own if tensor is not None])
        if kinds != self._checked_kinds:
            cell.check_parameters()
            if not torch.jit.is_tracing():  # there, sizes are tensors of the trace
                self._checked_kinds = kinds

    def _row(self, part: Any) -> Any:
        if not isinstance(part, Tensor):
            return part  # for the cell to reject
        if part.dim() != 1:
            raise ShapeError(
                f"{self._name}: state has shape {tuple(part.shape)}, expected (H,).\n"
                f"  The input has no batch, so the state has none either."
            )
        return part.unsqueeze(0)
