"""What a model reaches on a part of the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from typing_extensions import Self

from seqnets.errors import ConfigError
from seqnets.insight.canvas import Picture
from seqnets.models.heads import upcast
from seqnets.training.metrics import MeanLoss, Overview
from seqnets.training.objectives import Objective, Outcome
from seqnets.typing import Known

_MODES = {True: "max", False: "min", None: None}
"""A metric's mode by its ``higher_is_better``."""


class Scores(nn.Module):
    """The mean loss over the batches of a part, and the objective's metrics.

    They keep their dtypes when the module that contains them is converted: in half precision, sums
    over many batches would stop growing.

    Args:
        objective: Derives figures from the loss.
        metrics: Its metrics, new ones.
        overviews: Its metrics that are drawn.

    Attributes:
        modes: "min" or "max" by the metrics' names; None if unknown.
    """

    def __init__(
        self,
        objective: Objective,
        metrics: Mapping[str, Metric],
        overviews: Mapping[str, Overview],
    ) -> None:
        super().__init__()
        self.modes = {name: _MODES[m.higher_is_better] for name, m in metrics.items()}
        self.loss = MeanLoss()
        # Keyed by number: names may contain dots, which those of modules may not. Compute groups
        # would merge metrics that agree after the first batch, even if that has no targets.
        numbered: dict[str, Any] = {str(n): m for n, m in enumerate(metrics.values())}
        self.metrics = MetricCollection(numbered, compute_groups=False)
        self._shown = list(overviews)
        self.overviews: Any = nn.ModuleList(overviews.values())
        self._seen: list[Any] = []
        self._derived = objective.derived

    def update(self, outcome: Outcome) -> None:
        """Add a batch."""
        self.loss.update(outcome.loss, outcome.scored)
        predictions, targets = upcast(outcome.predictions), upcast(outcome.targets)
        scales = {} if outcome.scales is None else {"scales": outcome.scales}
        self.metrics.update(predictions, targets, **scales)  # to those that take them
        for overview in self.overviews:
            overview.update(predictions, targets)

    def take(self) -> dict[str, Any]:
        """The figures by name, the loss first; the next part begins from nothing."""
        loss, found = float(self.loss.compute()), self.metrics.compute()
        self._seen = [overview.compute() for overview in self.overviews]
        for metric in (self.loss, self.metrics, *self.overviews):
            metric.reset()
        named = {name: found[str(number)] for number, name in enumerate(self.modes)}
        return {"loss": loss, **self._derived(loss), **named}

    def pictures(self) -> dict[str, Picture]:
        """The overviews of the part that was taken last, by name; none before."""
        seen = zip(self._shown, self.overviews, self._seen, strict=False)
        return {name: overview.draw(value) for name, overview, value in seen}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Apply changes of device only."""
        device = fn(torch.zeros(())).device
        return super()._apply(lambda tensor: tensor.to(device), recurse)


def scores_of_parts(objective: Objective, known: Known) -> dict[str, Scores]:
    """Prepare an objective, and return its scores of validation and test.

    Raises:
        ConfigError: It needs something of the data that they do not have.
    """
    try:
        objective.prepare(known)
        validated, tested = objective.metrics(known), objective.metrics(known)
        overviews = objective.overviews(known)
    except KeyError as error:
        missing = error.args[0] if error.args else None
        there = [*known.get("sizes", ()), *known]
        if missing is None or missing in there:
            raise  # it is missing elsewhere
        raise ConfigError(
            f"objective: {type(objective).__name__} asks for {missing!r}, which these data do not "
            f"have.\n  They have {', '.join(there) or 'nothing'}. Choose an objective for "
            f"such data: `seqnets list objectives`."
        ) from error
    return {
        "val": Scores(objective, validated, overviews),
        "test": Scores(objective, tested, {}),
    }
