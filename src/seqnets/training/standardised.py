"""How a dataset standardises the features that a model reads."""

from __future__ import annotations

from torch import nn

from seqnets.cells import Cell
from seqnets.cells.checks import is_timed
from seqnets.checks import name_of
from seqnets.datasets.scaling import Scaling
from seqnets.errors import ConfigError
from seqnets.typing import Known


def input_scaling(known: Known) -> Scaling | None:
    """How the dataset standardises features, wherever it says so."""
    scaling = known.get("scaling") or {}
    plain = known.get("numbers") or (scaling if "mean" in scaling else scaling.get("x"))
    return None if plain is None else Scaling.read(plain)


def check_times(model: nn.Module, known: Known) -> None:
    """Raise ConfigError if a cell takes for the time a feature that is standardised."""
    scaling = input_scaling(known)
    if scaling is None or (scaling.mean[-1] == 0 and scaling.deviation[-1] == 1):
        return
    timed = (part for part in model.modules() if isinstance(part, Cell) and is_timed(part))
    if (cell := next(timed, None)) is not None:
        raise ConfigError(
            f"{name_of(model)}: {name_of(cell.innermost)} takes the last feature for the time, and "
            f"the dataset standardises it, expected times as they are.\n"
            f"  dataset.standardise=false leaves features alone, where a dataset has it."
        )
