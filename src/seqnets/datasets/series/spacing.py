"""The times of steps that follow those of a series, where its spacing says what they are."""

from __future__ import annotations

import math
import re
from calendar import monthrange
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import pairwise

from seqnets.datasets.readers.cells import parse_number
from seqnets.datasets.readers.timestamps import moment_of

_CLOCK = re.compile(r"[\d:.,]+")
"""The time of the day in a timestamp, from its twelfth character on, without its zone."""

_TIMESPECS = {2: "hours", 5: "minutes", 8: "seconds", 12: "milliseconds"}
"""How much of the time of the day is written, by its number of characters."""


@dataclass(frozen=True)
class Months:
    """Steps that are months apart, each on one day of its month, at one time of the day.

    Attributes:
        apart: Months from one step to the next.
        day: The day of the month; in a month that has fewer, its last.
    """

    apart: int
    day: int

    @classmethod
    def of(cls, times: Sequence[str]) -> Months | None:
        """The spacing of steps at these times; None if it is another."""
        first = moments_of(times[:2])
        if len(first) < 2 or _month(first[0]) == _month(first[1]):
            return None
        moments = moments_of(times)
        at_ends = all(moment.day == _days(moment) for moment in moments)
        day = 31 if at_ends else max(moment.day for moment in moments)
        found = cls(_month(first[1]) - _month(first[0]), day)
        return found if found.are_between(times) else None

    def are_between(self, times: Sequence[str]) -> bool:
        """Whether steps at these times have this spacing."""
        moments = moments_of(times)
        months = [_month(moment) for moment in moments]
        return (
            len({(moment.time(), moment.utcoffset()) for moment in moments}) == 1
            and all(moment.day == min(self.day, _days(moment)) for moment in moments)
            and all(b - a == self.apart for a, b in pairwise(months))
        )

    def after(self, moment: datetime, steps: int) -> datetime:
        """The time so many steps after one."""
        year, month = divmod(_month(moment) + self.apart * steps, 12)
        first = moment.replace(year=year, month=month + 1, day=1)
        return first.replace(day=min(self.day, _days(first)))


def times_after(times: Sequence[str], count: int, months: Months | None) -> list[str] | None:
    """The times of the next steps, written as the last time is; None if they are not known.

    Times with an offset from UTC have the last one's: they are right as moments, even if clocks are
    set in between. Times without one are taken to be of a clock that is never set.

    Args:
        times: The times of a series.
        count: How many steps follow.
        months: The spacing of the steps; None for one of equal length, which ``times`` have.
    """
    last, steps = times[-1].strip(), range(1, count + 1)
    try:
        if months is not None:
            if not months.are_between(times):
                return None
            ahead = [months.after(moment, step) for moment in moments_of([last]) for step in steps]
        elif len(times) < 2:
            return None
        elif _is_number(last):
            return _numbers_after(Decimal(times[-2]), Decimal(last), count)
        else:
            before, moment = moments_of(times[-2:])
            ahead = [moment + (moment - before) * step for step in steps]
    except (OverflowError, ValueError):  # the year 10,000
        return None
    return [_written(moment, last) for moment in ahead]


def moments_of(times: Sequence[str]) -> list[datetime]:
    """Timestamps as such; none at all if one of them is a number or no timestamp."""
    found = [None if _is_number(time) else moment_of(time) for time in times]
    return [] if None in found else [moment for moment in found if moment is not None]


def _is_number(time: str) -> bool:
    return math.isfinite(parse_number(time))


def _month(moment: datetime) -> int:
    """The number of a month, from the year 0 on."""
    return moment.year * 12 + moment.month - 1


def _days(moment: datetime) -> int:
    """The number of days of a month."""
    return monthrange(moment.year, moment.month)[1]


def _numbers_after(before: Decimal, last: Decimal, count: int) -> list[str]:
    ahead = [last + (last - before) * step for step in range(1, count + 1)]
    return [_number(value) for value in ahead]


def _number(value: Decimal) -> str:
    """A number as text, without what binary fractions have added to it."""
    exact = value == value.to_integral_value() or len(value.as_tuple().digits) <= 15
    return f"{value:f}" if exact else f"{float(value):.15g}"


def _written(moment: datetime, like: str) -> str:
    """A time as text, in the form of another if that can say it."""
    clock = _CLOCK.match(like, 11)
    if clock is None:
        short = moment.date().isoformat()
    else:
        short = moment.isoformat(like[10], _TIMESPECS.get(len(clock[0]), "auto"))
        if like.endswith("Z"):
            short = short.replace("+00:00", "Z")
    return short if moment_of(short) == moment else str(moment)
