"""Recurrences in continuous time, for steps that need not be equally long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from seqnets import initializers
from seqnets.cells.checks import check_size
from seqnets.cells.gated import GatedCell
from seqnets.checks import check_choice, check_flags
from seqnets.errors import ConfigError
from seqnets.typing import State


class TimedCell(GatedCell):
    """What cells in continuous time share: steps of one unit of time each, or of a given time.

    A subclass writes :meth:`advance`.

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        timed: Whether the last feature of the input is the time elapsed since the step before, at
            least 0 and in any unit; it has no weights. Else each step takes a time of 1. In
            ``Recurrent`` or ``Reversed`` that runs backwards, the step before is the one that
            follows in the sequence; ``Bidirectional`` and ``DeepRNN`` see to that themselves.
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: ``timed``, and there is no feature beside the time.
    """

    def __init__(
        self, input_size: int, hidden_size: int, *, timed: bool = False, **options: Any
    ) -> None:
        check_flags(self._name, timed=timed)
        if timed and input_size == 1:
            raise ConfigError(
                f"{self._name}: input_size is 1 with timed=True, expected at least 2.\n"
                f"  The last feature is the time elapsed, and there has to be another."
            )
        self.timed = timed  # read by super().__init__
        super().__init__(input_size, hidden_size, **options)

    def advance(self, wx: Any, elapsed: Any, state: State) -> State:
        """The state after some time.

        Args:
            wx: ``W x + b`` of this step, by gate.
            elapsed: The time, (B, H), the same for all units; or the number 1.
            state: The state before.
        """
        raise NotImplementedError(f"{self._name} does not define advance.")

    def add_parameters(self, parameter: Any) -> None:
        """The input's weight, for one feature fewer if the last one is the time."""
        if self.timed:
            rows, columns = self.block_shape(self.input_size - 1)
            self.weight_ih = parameter(len(self.inputs) * rows, columns)

    def project(self, x: Tensor) -> Tensor:
        """``W x + b`` of every gate, and the time: (..., I) to (..., G*H) or (..., G*H + H)."""
        if not self.timed:
            return super().project(x)
        wx = super().project(x[..., :-1])
        return torch.cat([wx, x[..., -1:].expand(*x.shape[:-1], self.hidden_size)], -1)

    def step(self, wx: Tensor, state: State) -> State:
        """The state after the time of a step."""
        if not self.timed:
            return self.advance(self.split(wx), 1, state)
        wx, elapsed = wx[..., : -self.hidden_size], wx[..., -self.hidden_size :]
        return self.advance(self.split(wx), elapsed, state)


class CfCCell(TimedCell):
    r"""Closed-form continuous-time network: where an equation of neurons leads, without solving it.

    .. math::
        k_t &= \lambda(W x_t + b + U h_{t-1} + d), \qquad \lambda(a) = 1.7159 \tanh(0.666\, a) \\
        g_t &= \tanh(W_g k_t + b_g), \qquad n_t = \tanh(W_n k_t + b_n) \\
        s_t &= \sigma\bigl((W_a k_t + b_a)\, \Delta t + W_b k_t + b_b\bigr) \\
        h_t &= (1 - s_t) \odot g_t + s_t \odot n_t \quad\text{("default")} \\
        h_t &= g_t + s_t \odot n_t \quad\text{("no_gate")} \\
        h_t &= A \odot \bigl(1 - f_t \odot e^{-(|\rho| + |f_t|)\, \Delta t}\bigr),
        \qquad f_t = W_f k_t + b_f \quad\text{("pure")}

    More layers of the backbone, each of K units, are
    :math:`k \leftarrow \lambda(W_\ell k + b_\ell)`.

    Differs from the paper in two places, both as its authors run it: the time gate has an offset
    beside its rate, and "pure" has the same :math:`f` in both its factors, where the paper negates
    the arguments of one.

    State: ``(h,)``, (B, H). Output: ``h``.

    Attributes:
        weight_deep: :math:`W_\ell` of the backbone's further layers, one block of rows each.
        bias_deep: :math:`b_\ell`, or None.
        weight_head: :math:`W_g, W_n, W_a, W_b`, (4*H, K); :math:`W_f`, (H, K), in "pure".
        bias_head: As many, or None.
        rate: :math:`\rho`, (H,); in "pure" alone.
        A: (H,); in "pure" alone. It starts at one.

    Args:
        input_size: Features of the input, I; with ``timed``, the time among them.
        hidden_size: Units, H.
        mode: "default", "no_gate" or "pure".
        backbone_layers: How deep the backbone is, at least 1.
        backbone_size: Units of the backbone, K; H if omitted.
        nonlinearity: What the backbone applies in the place of :math:`\lambda`: "lecun_tanh", which
            it is, "tanh", "relu", "silu" or "gelu".
        options: ``timed``, ``bias``, ``device`` and ``dtype``, as for every :class:`TimedCell`.

    Raises:
        ConfigError: The mode or the nonlinearity is none of these, or a size is below 1.

    References:
        Hasani et al., 2022, "Closed-form continuous-time neural networks", Nature Machine
        Intelligence 4, arXiv:2106.13898.
    """

    gates = ("k",)
    weight_deep: Tensor
    bias_deep: Tensor | None
    weight_head: Tensor
    bias_head: Tensor | None
    rate: Tensor
    A: Tensor

    HEADS: ClassVar[dict[str, int]] = {"default": 4, "no_gate": 4, "pure": 1}

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        mode: str = "default",
        backbone_layers: int = 1,
        backbone_size: int | None = None,
        nonlinearity: str = "lecun_tanh",
        **options: Any,
    ) -> None:
        check_choice(self._name, self.HEADS, mode=mode)
        check_choice(self._name, _NONLINEARITIES, nonlinearity=nonlinearity)
        self.mode, self.nonlinearity = mode, nonlinearity  # read by super().__init__
        self.backbone_layers = check_size(self, "backbone_layers", backbone_layers)
        if backbone_size is None:
            self.backbone_size = check_size(self, "hidden_size", hidden_size)
        else:
            self.backbone_size = check_size(self, "backbone_size", backbone_size)
        super().__init__(input_size, hidden_size, **options)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickled cell; one from before these options existed gets their old values."""
        before = {"backbone_size": state["hidden_size"], "nonlinearity": "lecun_tanh"}
        before["backbone_layers"] = state.get("deeper", 0) + 1
        super().__setstate__(before | state)

    def block_shape(self, features: int) -> tuple[int, ...]:
        """Shape of the backbone's first layer."""
        return self.backbone_size, features

    def add_parameters(self, parameter: Any) -> None:
        """The backbone's further layers and the heads."""
        super().add_parameters(parameter)
        deep = (self.backbone_layers - 1) * self.backbone_size
        heads = self.HEADS[self.mode] * self.hidden_size
        for name, rows in (("deep", deep), ("head", heads)):
            biased = rows and self.bias_ih is not None
            weight = parameter(rows, self.backbone_size) if rows else None
            self.register_parameter(f"weight_{name}", weight)
            self.register_parameter(f"bias_{name}", parameter(rows) if biased else None)
        if self.mode == "pure":
            self.rate, self.A = parameter(self.hidden_size), parameter(self.hidden_size)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, Xavier for what follows its product, and A."""
        super().reset_parameters()
        initializers.xavier_(self.learned("weight_head"), self.HEADS[self.mode])
        if self.backbone_layers > 1:
            initializers.xavier_(self.learned("weight_deep"), self.backbone_layers - 1)
        if self.mode == "pure":
            self.learned("A").fill_(1.0)

    def advance(self, wx: Any, elapsed: Any, state: State) -> State:
        """The equations above."""
        (h,) = state
        bent = _NONLINEARITIES[self.nonlinearity]
        k = bent(wx.k + self.recur(h).k)
        for layer in range(self.backbone_layers - 1):
            rows = slice(layer * self.backbone_size, (layer + 1) * self.backbone_size)
            bias = None if self.bias_deep is None else self.bias_deep[rows]
            k = bent(F.linear(k, self.weight_deep[rows], bias))
        heads = F.linear(k, self.weight_head, self.bias_head)
        if self.mode == "pure":
            decay = torch.exp(-(self.rate.abs() + heads.abs()) * elapsed)
            return (self.A * (1 - heads * decay),)
        g, n, rate, offset = heads.chunk(4, -1)
        g, n, s = self.candidate(g), self.candidate(n), self.gate(rate * elapsed + offset)
        return (g + s * n if self.mode == "no_gate" else g + s * (n - g),)


class LTCCell(TimedCell):
    r"""Liquid time-constant network: neurons whose time constants depend on what they see.

    .. math::
        \frac{dh}{dt} &= -\Bigl(\frac{1}{\tau} + f\Bigr) \odot h + f \odot A,
        \qquad f = \sigma(W x_t + b + U h + d) \\
        h &\leftarrow \frac{h + \delta\, f \odot A}{1 + \delta\, (1 / \tau + f)},
        \qquad \delta = \Delta t / N, \quad N \text{ times in a step}

    The second line is the paper's fused solver, stable for sub-steps of any length.

    Differs from the paper in one place: :math:`f` is the logistic function, and so above 0, where
    the paper has tanh too. It differs more from the model of this name in the ncps package, which
    is ``NCPCell``: there each synapse has a nonlinearity of its own, and here :math:`f` is a
    function of one dense product.

    State: ``(h,)``, (B, H). Output: ``h``.

    Attributes:
        log_tau: :math:`\log \tau`, (H,): time constants of 1 to begin with.
        A: What f drives the units towards, (H,). It starts uniform in (-1, 1).

    Args:
        input_size: Features of the input, I; with ``timed``, the time among them.
        hidden_size: Units, H.
        unfolds: Sub-steps of a step, N, at least 1.
        options: ``timed``, ``bias``, ``device`` and ``dtype``, as for every :class:`TimedCell`.

    Raises:
        ConfigError: ``unfolds`` is below 1.
        DtypeError: ``unfolds`` is no integer.

    References:
        Hasani et al., 2021, "Liquid Time-constant Networks", arXiv:2006.04439.
    """

    gates = ("f",)
    per_unit = ("log_tau", "A")
    log_tau: Tensor
    A: Tensor

    def __init__(
        self, input_size: int, hidden_size: int, *, unfolds: int = 6, **options: Any
    ) -> None:
        self.unfolds = check_size(self, "unfolds", unfolds)
        super().__init__(input_size, hidden_size, **options)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, and A."""
        super().reset_parameters()
        self.learned("A").uniform_(-1, 1)

    def advance(self, wx: Any, elapsed: Any, state: State) -> State:
        """The equations above: a product for each sub-step."""
        (h,) = state
        delta, leak = elapsed / self.unfolds, torch.exp(-self.log_tau)
        for _ in range(self.unfolds):
            f = self.gate(wx.f + self.recur(h).f)
            h = (h + delta * f * self.A) / (1 + delta * (leak + f))
        return (h,)


def _lecun_tanh(a: Tensor) -> Tensor:
    return 1.7159 * torch.tanh(0.666 * a)


_NONLINEARITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "lecun_tanh": _lecun_tanh,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "silu": F.silu,
    "gelu": F.gelu,
}
