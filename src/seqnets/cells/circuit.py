"""Neural circuits: liquid neurons whose synapses have nonlinearities of their own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from seqnets.cells.checks import check_size
from seqnets.cells.continuous import TimedCell
from seqnets.typing import State


class NCPCell(TimedCell):
    r"""Liquid neurons whose synapses each open as their sender says (neural circuit policy, NCP).

    .. math::
        s_{ij}(v) &= |w_{ij}|\, \sigma(\gamma_{ij}\, (v - \mu_{ij})) \\
        |c_i|\, \frac{dh_i}{dt} &= b_i - |g_i|\, h_i + \sum_j s_{ij}(x_{t,j})\, (E_{ij} - h_i)
        + \sum_j s_{ij}(h_j)\, (E_{ij} - h_i) \\
        h_i &\leftarrow \frac{|c_i|\, h_i + \delta\, \bigl(b_i + \sum_j s_{ij} E_{ij}\bigr)}
        {|c_i| + \delta\, \bigl(|g_i| + \sum_j s_{ij}\bigr)},
        \qquad \delta = \Delta t / N, \quad N \text{ times in a step}

    with synapses of their own from the inputs, and the sums of the last line over both kinds. A
    synapse is excitatory where E is above the potential h, and inhibitory below it. The last line
    is the fused solver of liquid time-constant networks, stable for sub-steps of any length.
    ``LTCCell`` has one nonlinearity for each unit, of a dense product.

    As in the published code (ncps), where clipping or a softplus keeps w, c and g above 0, and b is
    a potential at rest times g; its affine maps of inputs and outputs are not part of the cell. A
    synapse with :math:`w = 0` is none: a mask on ``weight_ih`` and ``weight_hh`` is a wiring.
    The start is that of the published code with clipping, fully wired: two synapses of three
    excite, with E of 1, and the others inhibit, with -1. Time and, in training, memory grow with
    H (I + N H) for each row and step: the paper's circuit has 19 units.

    State: ``(h,)``, (B, H). Output: ``h``.

    Attributes:
        weight_ih: w of the inputs' synapses, (H, I).
        weight_hh: w of the others, (H, H); one row for each receiving unit, as in all of these.
        slope_ih: :math:`\gamma`, (H, I).
        slope_hh: (H, H).
        center_ih: :math:`\mu`, (H, I).
        center_hh: (H, H).
        reversal_ih: E, (H, I).
        reversal_hh: (H, H).
        capacity: c, (H,).
        leak: g, (H,).

    Args:
        input_size: Features of the input, I; with ``timed``, the time among them, which no synapse
            reads.
        hidden_size: Units, H.
        unfolds: Sub-steps of a step, N, at least 1.
        options: ``timed``, ``bias``, ``device`` and ``dtype``, as for every :class:`TimedCell`.

    Raises:
        ConfigError: ``unfolds`` is below 1.

    References:
        Lechner et al., 2020, "Neural circuit policies enabling auditable autonomy", Nature Machine
        Intelligence 2; Hasani et al., 2021, "Liquid Time-constant Networks", arXiv:2006.04439.
    """

    gates = ("b",)
    recurrent = ()
    per_unit = ("capacity", "leak")
    slope_ih: Tensor
    slope_hh: Tensor
    center_ih: Tensor
    center_hh: Tensor
    reversal_ih: Tensor
    reversal_hh: Tensor
    capacity: Tensor
    leak: Tensor

    def __init__(
        self, input_size: int, hidden_size: int, *, unfolds: int = 6, **options: Any
    ) -> None:
        self.unfolds = check_size(self, "unfolds", unfolds)
        super().__init__(input_size, hidden_size, **options)

    def add_parameters(self, parameter: Any) -> None:
        """The synapses, four numbers each."""
        super().add_parameters(parameter)
        H, I = self.weight_ih.shape
        self.weight_hh = parameter(H, H)
        for name in ("slope", "center", "reversal"):
            self.register_parameter(f"{name}_ih", parameter(H, I))
            self.register_parameter(f"{name}_hh", parameter(H, H))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """The published code's start."""
        super().reset_parameters()
        for end in ("ih", "hh"):
            nn.init.uniform_(self.learned(f"weight_{end}"), 0.001, 1)
            nn.init.uniform_(self.learned(f"slope_{end}"), 3, 8)
            nn.init.uniform_(self.learned(f"center_{end}"), 0.3, 0.8)
            self.learned(f"reversal_{end}").bernoulli_(2 / 3).mul_(2).sub_(1)
        nn.init.uniform_(self.learned("capacity"), 0.4, 0.6)
        leak = nn.init.uniform_(self.learned("leak"), 0.001, 1)
        if self.bias_ih is not None:
            self.learned("bias_ih").uniform_(-0.2, 0.2).mul_(leak)

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """What enters a unit from outside, and how open it is to that: (..., I) to (..., 2*H)."""
        current, conductance = self.synapses(x, weight, "ih")
        return torch.cat([current if bias is None else current + bias, conductance], -1)

    def split(self, tensor: Tensor) -> Any:
        """The two parts of what is projected."""
        return tensor.chunk(2, -1)

    def synapses(self, v: Tensor, weight: Tensor, end: str) -> tuple[Tensor, Tensor]:
        """The sums over synapses of s E and of s, (..., H), for senders' potentials (..., I)."""
        slope, center, reversal = (
            getattr(self, f"{n}_{end}") for n in ("slope", "center", "reversal")
        )
        s = weight.abs() * self.gate(slope * (v.unsqueeze(-2) - center))
        return (s * reversal).sum(-1), s.sum(-1)

    def advance(self, wx: Any, elapsed: Any, state: State) -> State:
        """The equations above, where all units send at once in each sub-step."""
        (h,) = state
        delta, capacity, leak = elapsed / self.unfolds, self.capacity.abs(), self.leak.abs()
        for _ in range(self.unfolds):
            current, conductance = self.synapses(h, self.weight_hh, "hh")
            h = capacity * h + delta * (wx[0] + current)
            h = h / (capacity + delta * (leak + wx[1] + conductance))
        return (h,)
