"""How a dataset standardises the features that a model reads."""

from __future__ import annotations

from torch import nn

from seqnets.cells import Cell
from seqnets.cells.checks import is_timed, takes_elapsed, timed_cells
from seqnets.checks import name_of
from seqnets.datasets.scaling import Scaling
from seqnets.datasets.sequences.times import Times
from seqnets.errors import ConfigError
from seqnets.typing import Known


def input_scaling(known: Known) -> Scaling | None:
    """How the dataset standardises features, wherever it says so."""
    scaling = known.get("scaling") or {}
    plain = known.get("numbers") or (scaling if "mean" in scaling else scaling.get("x"))
    return None if plain is None else Scaling.read(plain)


def check_times(model: nn.Module, known: Known) -> None:
    """Raise ConfigError if a cell would take another feature, or another time, for its own."""
    if (times := Times.known(known)) is not None:
        _check_read(model, times)
        return
    scaling = input_scaling(known)
    if scaling is None or (scaling.mean[-1] == 0 and scaling.deviation[-1] == 1):
        return
    if cells := timed_cells(model):
        raise ConfigError(
            f"{name_of(model)}: {name_of(cells[0].innermost)} takes the last feature for the "
            f"time, and the dataset standardises it, expected times as they are.\n"
            f"  dataset.time=COLUMN makes times of a column; dataset.standardise=false leaves all "
            f"features alone."
        )


def _check_read(model: nn.Module, times: Times) -> None:
    """Raise ConfigError unless cells that can read times do so, and as the dataset has them.

    For other cells the time is a feature.
    """
    inner = (part.innermost for part in model.modules() if isinstance(part, Cell))
    cells = [cell for cell in inner if hasattr(cell, "timed")]
    timed = [cell for cell in cells if is_timed(cell)]
    if cells and not timed:
        raise ConfigError(
            f"{name_of(model)}: {name_of(cells[0])} has timed=False, expected True: dataset.time "
            f"makes the times in {times.column} the last feature.\n"
            f"  model.timed=true has every layer read them; without them, dataset.leave_out."
        )
    of = ("the step before", "a sequence's first step")
    for cell in timed:
        if takes_elapsed(cell) == times.stamps:
            raise ConfigError(
                f"{name_of(model)}: {name_of(cell)} reads the time since {of[not times.stamps]}, "
                f"and the dataset has that since {of[times.stamps]}.\n"
                f"  dataset.time_stamps={str(not times.stamps).lower()} makes it so."
            )
