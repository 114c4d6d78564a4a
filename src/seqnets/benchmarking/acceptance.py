"""The acceptance table: speed ratios that a run should reach, and whether it does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seqnets.benchmarking.cases import select
from seqnets.checks import check_number
from seqnets.errors import ConfigError

if TYPE_CHECKING:
    from seqnets.benchmarking.results import Measured


@dataclass(frozen=True)
class Limit:
    """A speed ratio to reach over a set of cases.

    Attributes:
        what: Description.
        cells: Names of the cells.
        pass_: Names of the passes.
        against: Name of the row to compare with.
        ratio: Minimum, as geometric mean over cases, of ``against``'s time over ``row``'s.
        at_worst: Minimum of the ratio of each single case.
        row: Name of the row whose speed is judged.
        shapes: (B, T, H) of the cases; all if None.
        dtype: Names of the dtypes; all if None.
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

    def __post_init__(self) -> None:
        check_number(f"limits: {self.what!r}", above=0, ratio=self.ratio, at_worst=self.at_worst)

    @classmethod
    def read(cls, entry: dict[str, Any], known: Sequence[str]) -> Limit:
        """Read a limit from a configuration.

        Args:
            entry: The attributes. ``cells`` may be "all", except those in ``except``; ``at_worst``
                defaults to ``ratio``.
            known: Names of all cells.

        Raises:
            ConfigError: It is no mapping, a key is missing or unknown, or a ratio is not above 0.
        """
        if not isinstance(entry, dict):
            raise ConfigError(f"limits: has {entry!r}, expected a mapping of what is asked for.")
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
    """A limit, and the ratios that a run reached.

    Attributes:
        what: Description of the limit.
        against: Name of the row compared with.
        ratio: Minimum of the mean.
        at_worst: Minimum of each case.
        mean: Geometric mean over all cases; None if nothing was measured.
        worst: Lowest ratio of a case; None if nothing was measured.
        worst_case: The case with the lowest ratio.
        cases: Number of cases compared.
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
        """Whether the limit was reached; None if nothing was measured."""
        if self.mean is None or self.worst is None:
            return None
        return self.mean >= self.ratio and self.worst >= self.at_worst

    def cells(self) -> tuple[str, str, str]:
        """The required, the mean and the lowest ratio as text."""
        required = f"≥ {self.ratio:g}"
        if self.at_worst != self.ratio:
            required += f", never < {self.at_worst:g}"
        return required, _number(self.mean), _number(self.worst)

    def summary(self) -> str:
        """Whether the limit was met or missed, and by how much, as text."""
        if self.mean is None or self.worst is None:
            return "not measured"
        share = min(self.mean / self.ratio, self.worst / self.at_worst)
        if share >= 2:
            return f"met {share:.3g} times over"
        return f"{'met' if self.met else 'missed'} by {abs(share - 1):.0%}"


def judge(limit: Limit, measured: Sequence[Measured]) -> Verdict:
    """Compare measurements with a limit; cases without both rows do not count.

    Args:
        limit: What is asked of some cells, passes and sizes.
        measured: Cases of any kind; the limit takes those that it concerns.
    """
    ratios = {}
    for entry in measured:
        case, row, other = entry.case, entry.row(limit.row), entry.row(limit.against)
        concerned = (
            case.cell in limit.cells
            and case.pass_ in limit.pass_
            and (limit.shapes is None or case.shape in limit.shapes)
            and (limit.dtype is None or case.dtype in limit.dtype)
        )
        if concerned and row and other:
            ratios[str(case)] = other.ms / row.ms
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
