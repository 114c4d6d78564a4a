"""The acceptance table: which ratios a run is to reach, and whether it did."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seqnets.benchmarking.cases import select
from seqnets.errors import ConfigError

if TYPE_CHECKING:
    from seqnets.benchmarking.results import Measured


@dataclass(frozen=True)
class Limit:
    """A ratio to reach, over all cases that it speaks of.

    Attributes:
        what: In words.
        cells: Names of cells.
        pass_: The passes of the cases.
        against: The row to compare with.
        ratio: What the geometric mean of ``against``'s time over ours must reach.
        at_worst: What each case must reach.
        row: Our row.
        shapes: (B, T, H) of the cases; all if None.
        dtype: In which numbers; all if None.
    """

    what: str
    cells: Sequence[str]
    pass_: Sequence[str]
    against: str
    ratio: float
    at_worst: float
    row: str = "auto"
    shapes: Sequence[tuple[int, int, int]] | None = None
    dtype: Sequence[str] | None = None

    @classmethod
    def read(cls, entry: dict[str, Any], known: Sequence[str]) -> Limit:
        """A limit from a configuration.

        Args:
            entry: The attributes; ``cells`` may be "all", less those in ``except``; ``at_worst``
                is ``ratio`` if it is left out.
            known: The names of all cells.

        Raises:
            ConfigError: A key is missing or unknown.
        """
        entry = dict(entry)
        try:
            cells = select(entry.pop("cells", "all"), entry.pop("except", ()), known)
            passes, dtypes = entry.pop("pass"), entry.pop("dtype", None)
            shapes = [tuple(shape) for shape in entry.pop("shapes", None) or ()] or None
            entry = {"at_worst": entry["ratio"], **entry}
            return cls(
                cells=cells,
                pass_=[passes] if isinstance(passes, str) else passes,
                shapes=shapes,
                dtype=[dtypes] if isinstance(dtypes, str) else dtypes,
                **entry,
            )
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f"limits: {entry.get('what', '?')!r} cannot be read: {error}."
            ) from error


@dataclass(frozen=True)
class Verdict:
    """A limit, and what a run reached.

    Attributes:
        what: The limit in words.
        against: The row that was compared with.
        ratio: What the mean was to reach.
        at_worst: What each case was to reach.
        mean: The geometric mean over all cases; None if nothing was measured.
        worst: The lowest ratio; None if nothing was measured.
        worst_case: Where that was.
        cases: How many cases were compared.
    """

    what: str
    against: str
    ratio: float
    at_worst: float
    mean: float | None
    worst: float | None
    worst_case: str
    cases: int

    @property
    def met(self) -> bool | None:
        """Whether it was reached; None if nothing was measured."""
        if self.mean is None or self.worst is None:
            return None
        return self.mean >= self.ratio and self.worst >= self.at_worst

    def cells(self) -> tuple[str, str, str]:
        """What was asked, the mean and the worst, as text."""
        asked = f"≥ {self.ratio:g}"
        if self.at_worst != self.ratio:
            asked += f", never < {self.at_worst:g}"
        return asked, _number(self.mean), _number(self.worst)

    def summary(self) -> str:
        """Met or missed, and by how much."""
        if self.mean is None or self.worst is None:
            return "not measured"
        share = min(self.mean / self.ratio, self.worst / self.at_worst)
        if share >= 2:
            return f"met {share:.3g} times over"
        return f"{'met' if self.met else 'missed'} by {abs(share - 1):.0%}"


def judge(limit: Limit, measured: Sequence[Measured]) -> Verdict:
    """Hold a limit against what was measured; a missing row of ours or theirs is no case."""
    ratios = {}
    for entry in measured:
        case, row, rival = entry.case, entry.row(limit.row), entry.row(limit.against)
        asked = (
            case.cell in limit.cells
            and case.pass_ in limit.pass_
            and (limit.shapes is None or case.shape in limit.shapes)
            and (limit.dtype is None or case.dtype in limit.dtype)
        )
        if asked and row and rival:
            ratios[str(case)] = rival.ms / row.ms
    mean = math.exp(sum(map(math.log, ratios.values())) / len(ratios)) if ratios else None
    worst = min(ratios, key=ratios.__getitem__, default="")
    return Verdict(
        limit.what,
        limit.against,
        limit.ratio,
        limit.at_worst,
        mean,
        ratios.get(worst),
        worst,
        len(ratios),
    )


def _number(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"
