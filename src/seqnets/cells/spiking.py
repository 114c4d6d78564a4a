"""Neurons: leaky integrators, and those that fire when they reach a threshold."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from seqnets import initializers
from seqnets.cells.gated import GatedCell
from seqnets.cells.surrogates import SURROGATES, Surrogate
from seqnets.checks import check_choice, check_flags, check_number
from seqnets.typing import State


class LeakyCell(GatedCell):
    r"""The base of neurons: a step keeps a share of their states, which is given or learned.

    For each state X that is ``decaying`` a subclass sets ``decay_X``, in (0, 1), before it calls
    this constructor.

    Attributes:
        decaying: States that decay.
        logit_v: Logit of the decay of v, (H,), if decays are learned, and else None; likewise for
            the other states that decay.

    Args:
        input_size: Features of the input, I.
        hidden_size: Neurons, H.
        learn_decays: Whether each neuron learns its decays.
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: A decay is out of its range.
    """

    decaying: ClassVar[tuple[str, ...]] = ("v",)

    def __init__(
        self, input_size: int, hidden_size: int, *, learn_decays: bool = False, **options: Any
    ) -> None:
        check_flags(self._name, learn_decays=learn_decays)
        self.learn_decays = learn_decays
        super().__init__(input_size, hidden_size, **options)

    def add_parameters(self, parameter: Any) -> None:
        """The decays, if they are learned; all are checked."""
        decays = {f"decay_{state}": getattr(self, f"decay_{state}") for state in self.decaying}
        check_number(self._name, above=0, below=1, **decays)
        for state in self.decaying:
            logit = parameter(self.hidden_size) if self.learn_decays else None
            self.register_parameter(f"logit_{state}", logit)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, and the decays that are learned."""
        super().reset_parameters()
        for state in self.decaying if self.learn_decays else ():
            decay = getattr(self, f"decay_{state}")
            self.learned(f"logit_{state}").fill_(initializers.logit(decay))

    def decay(self, state: str) -> Any:
        """The share of a state that a step keeps: a number, or one for each neuron, (H,)."""
        logit = getattr(self, f"logit_{state}")
        return getattr(self, f"decay_{state}") if logit is None else torch.sigmoid(logit)


class LICell(LeakyCell):
    r"""Leaky integrators: neurons that never fire, whose potentials read out what others fire.

    .. math::
        v_t = \beta v_{t-1} + W x_t + b

    As in the paper, whose readout they are. :math:`\beta` is called :math:`\kappa` there.

    State: ``(v,)``, the potential, (B, H). Output: ``v``.

    Args:
        input_size: Features of the input, I.
        hidden_size: Neurons, H.
        decay_v: :math:`\beta`, in (0, 1): where it starts, if it is learned.
        options: ``learn_decays``, which the paper does not have; ``bias``, ``device``, ``dtype``.

    References:
        Bellec et al., 2020, "A solution to the learning dilemma for recurrent networks of spiking
        neurons", Nature Communications 11, 3625.
    """

    gates = ("i",)
    recurrent: ClassVar[tuple[str, ...]] = ()
    states: tuple[str, ...] = ("v",)

    def __init__(
        self, input_size: int, hidden_size: int, *, decay_v: float = 0.9, **options: Any
    ) -> None:
        self.decay_v = decay_v  # read by super().__init__
        super().__init__(input_size, hidden_size, **options)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equation above."""
        (v,) = state
        return (self.decay("v") * v + wx.i,)


class SpikingCell(LeakyCell):
    r"""The base of spiking neurons: they fire above a threshold, and gradients pass through it.

    A spike is :math:`\Theta(a)`: 1 where :math:`a > 0`, and else 0. Its derivative, which is 0
    nearly everywhere, is replaced by a surrogate; the rest of the gradient is that of the equation.
    A subclass calls :meth:`spike` with the distance above the threshold, :meth:`fires_at`.

    Attributes:
        log_threshold: Logarithm of the threshold, (H,), if it is learned, and else None.

    Args:
        input_size: Features of the input, I.
        hidden_size: Neurons, H.
        surrogate: What replaces the derivative of a spike: "fast_sigmoid", "arctan", "triangle"
            or "boxcar", or a function of the distance above the threshold (see
            ``seqnets.cells.surrogates``).
        threshold: :math:`\theta`, above 0: where it starts, if it is learned.
        learn_threshold: Whether each neuron learns its threshold.
        detach_reset: Whether no gradient flows through the spike in the reset.
        options: ``learn_decays``, as for every :class:`LeakyCell`; ``bias``, ``device`` and
            ``dtype``.

    Raises:
        ConfigError: The surrogate is unknown, or a number is out of its range.
    """

    log_threshold: Tensor | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        surrogate: str | Surrogate = "fast_sigmoid",
        threshold: float = 1.0,
        learn_threshold: bool = False,
        detach_reset: bool = False,
        **options: Any,
    ) -> None:
        if not callable(surrogate):
            check_choice(self._name, SURROGATES, surrogate=surrogate)
        check_number(self._name, above=0, threshold=threshold)
        check_flags(self._name, learn_threshold=learn_threshold, detach_reset=detach_reset)
        self.surrogate, self.threshold = surrogate, threshold
        self.learn_threshold, self.detach_reset = learn_threshold, detach_reset
        super().__init__(input_size, hidden_size, **options)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickled cell; one from before thresholds could be learned has a fixed one."""
        super().__setstate__({"learn_threshold": False} | state)
        if "learn_threshold" not in state:
            self.register_parameter("log_threshold", None)

    def add_parameters(self, parameter: Any) -> None:
        """The decays and the threshold, if they are learned."""
        super().add_parameters(parameter)
        log = parameter(self.hidden_size) if self.learn_threshold else None
        self.register_parameter("log_threshold", log)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, and the decays and the threshold that are learned."""
        super().reset_parameters()
        if self.learn_threshold:
            self.learned("log_threshold").fill_(math.log(self.threshold))

    def spike(self, above: Tensor) -> Tensor:
        """Spikes of neurons that are this far above their threshold; derived by the surrogate."""
        given = self.surrogate
        slope = (SURROGATES[given] if isinstance(given, str) else given)(above).detach()
        rise = torch.where(above.abs() < math.inf, above - above.detach(), 0)  # inf - inf is NaN
        return (above > 0).to(above.dtype) + slope * rise

    def fires_at(self) -> Any:
        """The threshold: a number, or one for each neuron, (H,)."""
        return self.threshold if self.log_threshold is None else torch.exp(self.log_threshold)

    def resetting(self, s: Tensor) -> Tensor:
        """The spikes that reset a neuron: as they are, or detached."""
        return s.detach() if self.detach_reset else s


class LIFCell(SpikingCell):
    r"""Leaky integrate-and-fire neurons that see the input alone.

    .. math::
        v_t &= \beta v_{t-1} + W x_t + b - \theta s_{t-1} \quad\text{("subtract")} \\
        v_t &= \beta (1 - s_{t-1}) \odot v_{t-1} + W x_t + b \quad\text{("zero")} \\
        v_t &= \beta v_{t-1} + W x_t + b \quad\text{("none")} \\
        s_t &= \Theta(v_t - \theta)

    As in the paper, except that the input reaches the potential at once and neurons do not see each
    other: :class:`CubaLIFCell` has both. The paper resets by subtraction. Gradients pass through
    the reset as through all of the equation; with ``detach_reset`` they do not, as in the authors'
    code, which Zenke & Vogels (2021) found better. With ``reset="zero"`` and ``learn_decays`` this
    is the parametric LIF of Fang et al. (2021), except that it does not scale its input by
    :math:`1 - \beta`.

    State: ``(s, v)``, spikes and potential, (B, H) each. Output: ``s``.

    Args:
        input_size: Features of the input, I.
        hidden_size: Neurons, H.
        decay_v: :math:`\beta`, in (0, 1): where it starts, if it is learned.
        reset: What a spike does to the potential: "subtract" the threshold, set it to "zero", or
            "none" of these.
        options: ``surrogate``, ``threshold``, ``learn_decays``, ``learn_threshold`` and
            ``detach_reset``, as for every :class:`SpikingCell`; ``bias``, ``device`` and ``dtype``.

    References:
        Neftci et al., 2019, "Surrogate Gradient Learning in Spiking Neural Networks",
        arXiv:1901.09948; Zenke & Vogels, 2021, "The Remarkable Robustness of Surrogate Gradient
        Learning for Instilling Complex Function in Spiking Neural Networks", Neural Computation
        33(4); Fang et al., 2021, "Incorporating Learnable Membrane Time Constant to Enhance
        Learning of Spiking Neural Networks", arXiv:2007.05785.
    """

    gates = ("i",)
    recurrent: ClassVar[tuple[str, ...]] = ()
    states: tuple[str, ...] = ("s", "v")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        decay_v: float = 0.9,
        reset: str = "subtract",
        **options: Any,
    ) -> None:
        check_choice(self._name, ("subtract", "zero", "none"), reset=reset)
        self.decay_v, self.reset = decay_v, reset  # read by super().__init__
        super().__init__(input_size, hidden_size, **options)

    def left(self, v: Tensor, s: Tensor) -> Tensor:
        """What decay and reset leave of the potential."""
        s, v = self.resetting(s), self.decay("v") * v
        if self.reset == "none":
            return v
        return (1 - s) * v if self.reset == "zero" else v - self.fires_at() * s

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        s, v = state
        v = self.left(v, s) + wx.i
        return self.spike(v - self.fires_at()), v


class RLIFCell(LIFCell):
    r"""Leaky integrate-and-fire neurons that see each other's spikes.

    .. math::
        v_t &= \beta v_{t-1} + W x_t + b + U s_{t-1} + d - \theta s_{t-1}
               \quad\text{("subtract")} \\
        v_t &= \beta (1 - s_{t-1}) \odot v_{t-1} + W x_t + b + U s_{t-1} + d
               \quad\text{("zero")} \\
        s_t &= \Theta(v_t - \theta)

    As in the paper, except that the input reaches the potential at once, as in :class:`LIFCell`.

    The arguments are those of :class:`LIFCell`.

    State: ``(s, v)``, spikes and potential, (B, H) each. Output: ``s``.

    References:
        Neftci et al., 2019, "Surrogate Gradient Learning in Spiking Neural Networks",
        arXiv:1901.09948.
    """

    recurrent = ("i",)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        s, v = state
        v = self.left(v, s) + wx.i + uh.i
        return self.spike(v - self.fires_at()), v


class CubaLIFCell(LIFCell):
    r"""Leaky integrate-and-fire neurons with synapses: spikes cause currents that fade (CUBA).

    .. math::
        i_t &= \alpha i_{t-1} + W x_t + b + U s_{t-1} + d \\
        v_t &= \beta v_{t-1} + i_{t-1} - \theta s_{t-1} \quad\text{("subtract")} \\
        v_t &= (1 - s_{t-1}) \odot (\beta v_{t-1}) + i_{t-1} \quad\text{("zero")} \\
        s_t &= \Theta(v_t - \theta)

    As in the paper, in which an input reaches the potential one step later.

    State: ``(s, v, i)``, spikes, potential and synaptic current, (B, H) each. Output: ``s``.

    Args:
        input_size: Features of the input, I.
        hidden_size: Neurons, H.
        decay_i: :math:`\alpha`, in (0, 1): where it starts, if it is learned.
        options: ``decay_v`` (:math:`\beta`) and ``reset``, as for :class:`LIFCell`;
            ``surrogate``, ``threshold``, ``learn_decays``, ``learn_threshold`` and
            ``detach_reset``, as for every :class:`SpikingCell`; ``bias``, ``device`` and ``dtype``.

    References:
        Neftci et al., 2019, "Surrogate Gradient Learning in Spiking Neural Networks",
        arXiv:1901.09948.
    """

    recurrent = ("i",)
    states = ("s", "v", "i")
    decaying = ("v", "i")

    def __init__(
        self, input_size: int, hidden_size: int, *, decay_i: float = 0.8, **options: Any
    ) -> None:
        self.decay_i = decay_i  # read by super().__init__
        super().__init__(input_size, hidden_size, **options)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        s, v, i = state
        v = self.left(v, s) + i
        i = self.decay("i") * i + wx.i + uh.i
        return self.spike(v - self.fires_at()), v, i
