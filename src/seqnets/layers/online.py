"""Real-time recurrent learning: the influence of parameters on a state is carried with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from seqnets.cells.constructors import checks_calls
from seqnets.checks import check_number, name_of
from seqnets.engine.modes import under_transform
from seqnets.errors import ConfigError, ShapeError, counted
from seqnets.layers.around import Around
from seqnets.layers.checks import check_forward_steps, check_parts
from seqnets.layers.influence import Influence, Numbers
from seqnets.layers.probing import influence_of
from seqnets.layers.state import leaves
from seqnets.layers.truncated import Truncated


class RTRL(Around):
    r"""Real-time recurrent learning: the gradients of whole streams, from calls over their pieces.

    The state carries with it the influence of the layer's parameters,

    .. math::
        J_t = \frac{\partial s_t}{\partial \theta} =
        \frac{\partial s_t}{\partial s_{t-1}} J_{t-1} +
        \left.\frac{\partial s_t}{\partial \theta}\right|_{s_{t-1}}

    which takes the place of the graph of earlier calls: the state is detached between two calls,
    and the gradient is that of backpropagation through all of them, as long as the parameters do
    not change. Inside a call gradients flow back in time as usual. Calls of one step are the
    algorithm of Williams & Zipser; longer ones are Schmidhuber's, with the same gradients in less
    time.

    The influence is that of the layer's own parameters. What lies below it learns from gradients
    of the inputs, which end where a call begins; around a whole stack all its layers are exact.

    It takes B·S·P numbers for S units of state and P parameters. Where no unit depends on another's
    past (IndRNN, LRU, minGRU, SRU, QRNN, ...), which is detected, it takes B·K·P for the K parts of
    the state. Each call takes its steps a second time, in Python, and pulls S gradients, or K, back
    through them.

    Outputs are the layer's own. Where gradients are off, it runs as without RTRL, and there is no
    influence.

    Args:
        layer: A forward recurrent layer with one output per step: Recurrent or DeepRNN.
        limit: The largest influence, in MiB. Computing it takes about three times as much.

    Raises:
        ConfigError: The layer is not recurrent, runs backwards or in both directions, mixes
            several steps, has no ``input_size``, or contains RTRL or Truncated.

    Example:
        >>> layer, state = RTRL(Recurrent(cells.GRUCell(8, 16))), None
        >>> for x in torch.randn(4, 100, 8).split(1, 1):
        ...     y, state = layer(x, detach(state))  # y: (4, 1, 16)
        ...     y.square().mean().backward()

    References:
        Williams & Zipser, 1989, "A Learning Algorithm for Continually Running Fully Recurrent
        Neural Networks"; Schmidhuber, 1992, "A Fixed Size Storage O(n^3) Time Complexity Learning
        Algorithm for Fully Recurrent Continually Running Networks"; of units apart: Zucchet et al.,
        2023, "Online learning of long-range dependencies", arXiv:2305.15947.
    """

    @checks_calls
    def __init__(self, layer: nn.Module, *, limit: float = 4096) -> None:
        super().__init__()
        who = name_of(self)
        check_forward_steps(who, layer, "Only a forward layer carries its state to the next call.")
        check_number(who, above=0, limit=limit)
        if not hasattr(layer, "input_size"):
            raise ConfigError(
                f"{who}: {name_of(layer)} has no input_size, expected one: random steps show what "
                f"influences what.\n  Put {who} around the recurrent layer inside."
            )
        for part in layer.modules():
            if isinstance(part, (RTRL, Truncated)):
                raise ConfigError(
                    f"{who}: {name_of(part)} is inside, expected a layer that learns by "
                    f"backpropagation through time: two rules contradict each other."
                )
        self.layer = layer
        self.limit = limit
        self._known: tuple[list[str], Influence] | None = None

    @property
    def influence(self) -> Influence:
        """Which derivatives are kept; found when first asked for, and trained parameters change."""
        trained = [name for name, p in self.layer.named_parameters() if p.requires_grad]
        if self._known is None or self._known[0] != trained:
            self._known = trained, influence_of(self.layer)
        return self._known[1]

    def forward(
        self,
        x: Tensor,
        state: Any = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """The layer's outputs, and the pair of its state and of the influence on it.

        Args:
            x: Inputs, (B, T, I).
            state: The pair that the call before returned, detached; None at the start.
            lengths: Valid steps of each row, (B,); all T if omitted.
            resets: Steps before which the state, and with it the influence, is reset, (B, T).

        Raises:
            ConfigError: The influence is larger than its limit, the layer draws random numbers, or
                a function transform runs.
            ShapeError: The state is not such a pair, or the influence is of another layer or batch.
        """
        before, numbers = self._parted(state)
        if not torch.is_grad_enabled():
            y, after = self.layer(x, before, lengths, resets)
            return y, (after, None)
        if under_transform():
            raise ConfigError(
                f"{name_of(self)}: runs under a function transform (vmap, grad, ...), expected "
                f"backward() or torch.autograd.grad.\n"
                f"  Call the layer inside, or turn gradients off."
            )
        kept = self.influence
        if numbers is not None:
            self._check_numbers(numbers, before)
            parts = leaves(before)
            if all(parts[p].grad_fn is None for p in kept.parts):
                if lengths is None and 0 not in x.shape:  # every row takes a step
                    kept = kept._replace(shown=())
                before = kept.attached(before, numbers, self.layer)
        drawn = _random_states(x)
        y, after = self.layer(x, before, lengths, resets)
        if not all(map(torch.equal, drawn, _random_states(x))):
            raise ConfigError(
                f"{name_of(self)}: the layer draws random numbers, expected none: the influence "
                f"comes from a second run.\n"
                f"  Put dropout around it, and take zoneout and the like out of its cells."
            )
        self._check_size(after)
        if not len(x):
            return y, (after, kept.of_no_rows(self.layer, after))
        return y, (after, kept.after(self.layer, before, numbers, x, lengths, resets))

    if TYPE_CHECKING:  # torch.nn.Module says that a call returns Any
        __call__ = forward

    def step(
        self, x: Tensor, state: Any = None, resets: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Take one step: x (B, I) and the pair before, to output (B, H) and the pair after.

        Args:
            x: Inputs of the step, (B, I).
            state: The pair before it.
            resets: Rows whose state is reset before the step, (B,) boolean.
        """
        if torch.is_grad_enabled():
            y, state = self(x[:, None], state, None, None if resets is None else resets[:, None])
            return y[:, 0], state
        y, after = self.layer.step(x, self._parted(state)[0], resets)
        return y, (after, None)

    def _parted(self, state: Any) -> tuple[Any, Numbers | None]:
        """A state's two parts: the layer's own, and the influence."""
        if state is None:
            return None, None
        who = name_of(self)
        check_parts(who, state, 2, "a pair: (state of the layer, influence)")
        before, numbers = state
        return before, None if before is None else numbers

    def _check_numbers(self, numbers: Numbers, before: Any) -> None:
        """Raise ShapeError unless an influence is of this layer and of as many rows."""
        expected = self.influence.shapes(self.layer, before)
        came = [tuple(part.shape) for part in leaves(numbers)]
        if came != expected:
            raise ShapeError(
                f"{name_of(self)}: the influence has shapes {came}, expected {expected}.\n"
                f"  They follow from the layer's parameters and the state beside it.\n"
                f"  Pass the pair as the layer returned it, or None at the start."
            )

    def _check_size(self, after: Any) -> None:
        """Raise ConfigError if the influence on a state would be too large."""
        shapes = self.influence.shapes(self.layer, after)
        counts = [torch.Size(shape).numel() for shape in shapes]
        theta = map(self.layer.get_parameter, self.influence.names)
        pairs = zip(counts, theta, strict=True)
        count, size = sum(counts), sum(n * p.element_size() for n, p in pairs) / 2**20
        if size <= self.limit:
            return
        (B, ways), mixes = shapes[0][:2], self.influence.mixes
        raise ConfigError(
            f"{name_of(self)}: the influence would take {size:,.0f} MiB, expected at most limit = "
            f"{self.limit:,g}.\n"
            f"  It has {counted(count, 'number')}: {counted(B, 'row')}, "
            f"{counted(ways, 'unit' if mixes else 'part')} of the state, "
            f"{counted(count // (B * ways), 'parameter')}.\n"
            f"  Take fewer rows or units"
            + ", a cell whose units depend on no other's past (minGRU, ...), or SnAp1" * mixes
            + "."
        )

    def extra_repr(self) -> str:
        """The limit, where it differs from the default."""
        return "" if self.limit == 4096 else f"limit={self.limit:g}"


def _random_states(x: Tensor) -> list[Tensor]:
    """The states of the generators that a layer could draw from."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(x.device)] if x.is_cuda else states
