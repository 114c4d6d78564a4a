"""The objective: a loss, its metrics, and how predictions are written, read and drawn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torchmetrics import Metric

from seqnets.datasets import DataModule
from seqnets.datasets.scaling import Scaling
from seqnets.errors import ConfigError
from seqnets.insight.canvas import Picture
from seqnets.training.metrics import Overview
from seqnets.typing import Batch, Known

Row = dict[str, Any]
"""A prediction as plain values, with the truth under "target"; None where unknown."""

BEFORE = "initial_"
"""Before the name of a part of a state that is given to a step, in what :meth:`Objective.served`
gives and in the inputs of files."""


class Outcome(NamedTuple):
    """The result of an objective on a batch.

    Attributes:
        loss: Mean over the scored targets, times their weights if they have any, a scalar.
        scored: Number of scored targets, a scalar.
        predictions: The model's predictions, in the form that the metrics take.
        targets: The targets, in the same form.
        state: The model's state after the batch.
        details: Further results for pictures, such as attention weights.
        penalty: Regularisation term added to the loss in training, a scalar; never logged.
        scales: What errors are divided by, for metrics whose ``update`` takes ``scales``.
    """

    loss: Tensor
    scored: Tensor
    predictions: Tensor
    targets: Tensor
    state: Any
    details: Any = None
    penalty: Tensor | None = None
    scales: Tensor | None = None

    @property
    def total(self) -> Tensor:
        """The training loss: loss plus penalty."""
        return self.loss if self.penalty is None else self.loss + self.penalty


class Objective(ABC):
    """A loss, its metrics, and the metric by which checkpoints are compared.

    Attributes:
        metric: Name of the metric by which models are compared: "loss", or one of :meth:`metrics`
            or :meth:`derived`.
        mode: "min" or "max": the direction in which it improves.
    """

    metric: str = "loss"
    mode: str = "min"

    def prepare(self, known: Known) -> None:  # noqa: B027 (most need nothing)
        """Take what is needed of the dataset's description of itself, before anything is scored."""

    def check(self, model: nn.Module, data: DataModule) -> None:  # noqa: B027 (most need nothing)
        """Raise DataError for data that the model cannot learn, before it is trained on them."""

    @abstractmethod
    def __call__(self, model: nn.Module, batch: Batch, state: Any = None) -> Outcome:
        """Run the model over a batch and score its output."""

    @abstractmethod
    def metrics(self, known: Known) -> dict[str, Metric]:
        """New metrics beside the loss, by name; each takes (predictions, targets).

        One whose ``update`` has an argument ``scales`` is given those of the outcomes, if they have
        any.

        Args:
            known: The dataset's description of itself.
        """

    def derived(self, loss: float) -> dict[str, float]:
        """Further figures that are functions of the mean loss."""
        return {}

    def in_metric(self, baselines: Mapping[str, float], known: Known) -> dict[str, float]:
        """A dataset's ``baselines()`` in the main metric; none if another one's do not convert.

        Baselines of a dataset that names no metric are taken to be in the objective's own.

        Args:
            baselines: Scores by name.
            known: The dataset's description of itself; "metric" is what its baselines are in, if
                the dataset has several.
        """
        return dict(baselines) if known.get("metric", self.metric) == self.metric else {}

    def served(
        self, model: nn.Module, x: Tensor, state: Any, lengths: Tensor | None
    ) -> tuple[dict[str, Tensor], Any]:
        """Run a model as another program does: its outputs by what they are, and the state.

        Every output has a row for each of ``x``; :func:`~seqnets.training.export` writes them into
        a file.

        Raises:
            ConfigError: What this objective asks of a model is not a function of such inputs.
        """
        y, state = model(x, state, lengths)
        return {"output": y}, state

    def scaling(self, known: Known) -> Scaling | None:
        """How the numbers that a model predicts are standardised, (K,); None if they are not."""
        return None

    def rows(self, outcome: Outcome, batch: Batch, known: Known) -> list[Row]:
        """Predictions for a batch as they are written to a file: a row per sequence or step.

        Raises:
            ConfigError: This objective writes no predictions.
        """
        raise ConfigError(f"{type(self).__name__}: writes no predictions.")

    def read(self, rows: Sequence[Row], known: Known) -> tuple[Tensor, Tensor]:
        """The predictions and targets of rows that :meth:`rows` wrote, as the metrics take them.

        Raises:
            DataError: A row lacks an entry, or has one that the dataset does not know.
        """
        raise ConfigError(f"{type(self).__name__}: reads no predictions.")

    def scores(self, rows: Sequence[Row], known: Known) -> dict[str, float]:
        """The metrics of rows that :meth:`rows` wrote."""
        predictions, targets = self.read(rows, known)
        metrics = self.metrics(known).items()
        return {name: float(metric(predictions, targets)) for name, metric in metrics}

    def overviews(self, known: Known) -> Mapping[str, Overview]:
        """Metrics that TensorBoard shows as pictures of the whole validation part, by name."""
        return {}

    def pictures(self, outcome: Outcome, batch: Batch, known: Known) -> dict[str, Picture]:
        """Figures, sounds and texts about a batch, by name, for TensorBoard."""
        return {}
