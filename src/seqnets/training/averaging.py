"""Weights averaged over the steps of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from seqnets.checks import check_count
from seqnets.errors import CheckpointError


class NonMonotonicASGD(torch.optim.SGD):
    """SGD that averages the weights from where the validation loss no longer falls.

    It is plain SGD until a validation loss is higher than the lowest of those before the last
    ``patience``. The weights from then on are averaged; training goes on with the weights
    themselves, and validations and checkpoints take the averages (:meth:`averaged`).

    ``state_dict`` has everything to go on from. A state that was saved inside :meth:`averaged`,
    beside a model of averages, is loaded after that model's weights and puts back those that
    training goes on with.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate, kept by the average.
        patience: Validations whose losses may be higher than one before them, from 1.
        options: As for ``torch.optim.SGD``: ``weight_decay``, ``momentum``.

    Attributes:
        losses: Those of the validations so far.
        count: How many weights an average is of; 0 before it begins.

    Raises:
        ConfigError: ``patience`` is not positive.

    References:
        Polyak & Juditsky, 1992, "Acceleration of Stochastic Approximation by Averaging";
        Merity et al., 2018, "Regularizing and Optimizing LSTM Language Models",
        arXiv:1708.02182, Algorithm 1.
    """

    def __init__(self, params: Any, lr: float, patience: int = 5, **options: Any) -> None:
        check_count(type(self).__name__, patience=patience)
        super().__init__(params, lr=lr, **options)
        self.patience = patience
        self.losses: list[float] = []
        self.count = 0
        self._exchanged = False

    @torch.no_grad()
    def observe(self, loss: float) -> None:
        """Hear of a validation's loss, and begin to average if it has not fallen for long."""
        older = self.losses[: -self.patience]
        self.losses.append(loss)
        if not self.count and older and loss > min(older):
            self.count = 1
            for parameter in self._parameters():
                self.state[parameter]["average"] = parameter.clone()

    def step(self, closure: Any = None) -> Any:
        """Take a step, and add where it leads to the averages."""
        loss = super().step(closure)
        if self.count:
            self.count += 1
            with torch.no_grad():
                for parameter in self._parameters():
                    self.state[parameter]["average"].lerp_(parameter, 1 / self.count)
        return loss

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Have the averages as weights, if there are any, and afterwards the weights again."""
        outermost = bool(self.count) and not self._exchanged
        if outermost:
            self._exchange()
        try:
            yield
        finally:
            if outermost:
                self._exchange()

    def finish(self) -> None:
        """Have the averages as weights for good, if there are any."""
        if self.count and not self._exchanged:
            self._exchange()

    def state_dict(self) -> dict[str, Any]:
        """Everything to go on from."""
        mine = {"losses": list(self.losses), "count": self.count, "exchanged": self._exchanged}
        return {**super().state_dict(), "averaging": mine}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state, whose model's weights are loaded already.

        Raises:
            CheckpointError: It is another optimizer's.
        """
        mine = state_dict.get("averaging")
        if mine is None:
            raise CheckpointError(
                f"{type(self).__name__}: got a state without 'averaging', expected one of its "
                "own.\n  Go on with the optimizer that wrote the checkpoint."
            )
        super().load_state_dict(state_dict)
        self.losses, self.count = list(mine["losses"]), mine["count"]
        self._exchanged = mine["exchanged"]
        if self._exchanged:
            self._exchange()

    def _parameters(self) -> Iterator[Tensor]:
        return (parameter for group in self.param_groups for parameter in group["params"])

    @torch.no_grad()
    def _exchange(self) -> None:
        """Put averages where weights are and weights where averages are, each bit for bit."""
        for parameter in self._parameters():
            average = self.state[parameter]["average"]
            weights = parameter.clone()
            parameter.copy_(average)
            average.copy_(weights)
        self._exchanged = not self._exchanged
