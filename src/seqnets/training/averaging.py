"""Weights averaged over the steps of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from seqnets.checks import check_count
from seqnets.errors import CheckpointError, ConfigError
from seqnets.typing import HALF


class NonMonotonicASGD(torch.optim.SGD):
    """SGD that averages the weights once the validation loss stops falling.

    It is plain SGD until a validation loss exceeds the lowest of those before the last
    ``patience``. From then on the weights are averaged; training continues on the weights
    themselves, while validations and checkpoints use the averages (:meth:`averaged`).

    ``state_dict`` holds everything needed to resume. A state saved inside :meth:`averaged`, next
    to a model with averaged weights, must be loaded after that model's weights, and restores the
    weights that training continues with.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate, unchanged while averaging.
        patience: Last validations exempt from the comparison, at least 1.
        options: Passed to ``torch.optim.SGD``: ``weight_decay``, ``momentum``.

    Attributes:
        losses: Validation losses so far.
        count: Weight snapshots in the average; 0 before averaging starts.

    Raises:
        ConfigError: ``patience`` is not positive, or a parameter is of half precision.

    References:
        Polyak & Juditsky, 1992, "Acceleration of Stochastic Approximation by Averaging";
        Merity et al., 2018, "Regularizing and Optimizing LSTM Language Models",
        arXiv:1708.02182, Algorithm 1.
    """

    def __init__(self, params: Any, lr: float, patience: int = 5, **options: Any) -> None:
        check_count(type(self).__name__, patience=patience)
        super().__init__(params, lr=lr, **options)
        half = next((p.dtype for p in self._parameters() if p.dtype in HALF), None)
        if half is not None:
            raise ConfigError(
                f"{type(self).__name__}: weights are {str(half).removeprefix('torch.')}, expected "
                "float32: in half precision, a mean over many steps would stop changing.\n"
                "  trainer.precision=bf16-mixed computes in half precision, with float32 weights."
            )
        self.patience = patience
        self.losses: list[float] = []
        self.count = 0
        self._swapped = False

    @torch.no_grad()
    def observe(self, loss: float) -> None:
        """Record a validation loss, and start averaging once the losses stop falling."""
        older = self.losses[: -self.patience]
        self.losses.append(loss)
        if not self.count and older and loss > min(older):
            self.count = 1
            for parameter in self._parameters():
                self.state[parameter]["average"] = parameter.clone()

    def step(self, closure: Any = None) -> Any:
        """Take a step, and update the averages with the new weights."""
        loss = super().step(closure)
        if self.count:
            self.count += 1
            with torch.no_grad():
                for parameter in self._parameters():
                    self.state[parameter]["average"].lerp_(parameter, 1 / self.count)
        return loss

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Swap the averages in as weights, if there are any, and restore the weights on exit."""
        outermost = bool(self.count) and not self._swapped
        if outermost:
            self._swap()
        try:
            yield
        finally:
            if outermost:
                self._swap()

    def finish(self) -> None:
        """Replace the weights by the averages permanently, if there are any."""
        if self.count and not self._swapped:
            self._swap()

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to resume."""
        averaging = {"losses": list(self.losses), "count": self.count, "exchanged": self._swapped}
        return {**super().state_dict(), "averaging": averaging}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a state after the model's weights have been loaded.

        Raises:
            CheckpointError: The state is from another optimizer.
        """
        averaging = state_dict.get("averaging")
        if averaging is None:
            raise CheckpointError(
                f"{type(self).__name__}: got a state without 'averaging', expected one of its "
                "own.\n  Continue with the optimizer that wrote the checkpoint."
            )
        super().load_state_dict(state_dict)
        self.losses, self.count = list(averaging["losses"]), averaging["count"]
        self._swapped = averaging["exchanged"]
        if self._swapped:
            self._swap()

    def _parameters(self) -> Iterator[Tensor]:
        return (parameter for group in self.param_groups for parameter in group["params"])

    @torch.no_grad()
    def _swap(self) -> None:
        """Swap weights and averages in place, bit for bit."""
        for parameter in self._parameters():
            average = self.state[parameter]["average"]
            weights = parameter.clone()
            parameter.copy_(average)
            average.copy_(weights)
        self._swapped = not self._swapped
