"""A perceptron after a recurrent layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from seqnets.checks import is_whole
from seqnets.errors import ConfigError
from seqnets.layers.around import Around
from seqnets.layers.checks import check_gives_one_output, check_is_layer
from seqnets.layers.lengths import without_padding
from seqnets.layers.linear import Linear


class DeepOutput(Around):
    """A multilayer perceptron over each output of a recurrent layer.

    It is made with the dtype and on the device of the layer's parameters.

    Args:
        layer: The recurrent layer, with one output per step.
        sizes: Features of each of the perceptron's layers; the last is the output size.
        activation: Factory of the activation between them; none follows the last one.

    Raises:
        ConfigError: ``sizes`` is empty or not positive, or ``layer`` is not a recurrent layer, or
            gives a pair of outputs.

    References:
        Pascanu et al., 2014, "How to Construct Deep Recurrent Neural Networks", arXiv:1312.6026
        (deep hidden-to-output function).
    """

    def __init__(
        self,
        layer: nn.Module,
        sizes: Sequence[int],
        *,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        listed = isinstance(sizes, Sequence) and len(sizes) > 0
        if not listed or not all(is_whole(size) and size > 0 for size in sizes):
            raise ConfigError(
                f"DeepOutput: sizes are {sizes!r}, expected a list of one or more positive "
                f"integers."
            )
        check_is_layer("DeepOutput", layer)
        check_gives_one_output("DeepOutput", layer)
        self.layer = layer
        self.perceptron = nn.Sequential()
        own = next((p for p in layer.parameters() if p.is_floating_point()), None)
        like: Any = {of: getattr(own, of, None) for of in ("device", "dtype")}
        width: int = self.layer.output_size
        for size in sizes:
            if len(self.perceptron):
                self.perceptron.append(activation().to(**like))
            self.perceptron.append(Linear(width, size, **like))
            width = size

    @property
    def output_size(self) -> int:
        """Features of the output, by the last of the perceptron's layers that says them."""
        layers: list[Any] = [part for part in self.perceptron if hasattr(part, "out_features")]
        return layers[-1].out_features

    def forward(
        self,
        x: Tensor,
        state: Any = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """Outputs, (B, T, last of ``sizes``), zero past each row's end, and the layer's state."""
        y, state = self.layer(x, state, lengths, resets)
        return without_padding(self.perceptron(y), self.lengths_after(lengths)), state

    if TYPE_CHECKING:  # torch.nn.Module says that a call returns Any
        __call__ = forward

    def step(
        self, x: Tensor, state: Any = None, resets: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """One step of the layer and the perceptron."""
        y, state = self.layer.step(x, state, resets)
        return self.perceptron(y), state
