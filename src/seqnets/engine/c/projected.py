"""The projection of the input in printed C, where the loop computes it itself.

Its product is one more of a stage, beside those of the state, and its results are read where those
of a product for all steps would be: one source serves calls of both kinds.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import chain
from typing import NamedTuple

from seqnets.engine.graph import Place, overlap, places_read, reached_among, walk
from seqnets.engine.program import Program, Stage


class Projected(NamedTuple):
    """The columns of the projected input that a stage reads, which are adjacent.

    Attributes:
        first: The first one.
        blocks: Their number, in multiples of the stage's width.
    """

    first: int
    blocks: int


@lru_cache(maxsize=1024)
def can_project(program: Program) -> bool:
    """Whether the loop forward can project the input.

    It can where each column is read by one stage as one number of a unit, beside products that
    have as many numbers of a unit or more.
    """
    reading = [stage for stage in program.forward if _read(program, stage)]
    places = sorted(chain(*(_read(program, stage) for stage in reading)))
    if not places or overlap(places):
        return False
    return all(projected_by(program, stage) is not None for stage in reading)


def projected_by(program: Program, stage: Stage) -> Projected | None:
    """The columns that a stage projects; None if it cannot, or reads none."""
    places = _read(program, stage)
    blocks = len(places)
    if not places or blocks > max((p.blocks for p in stage.products), default=0):
        return None
    first = places[0][0]
    adjacent = [(first + k * stage.width, stage.width) for k in range(blocks)]
    return Projected(first, blocks) if places == adjacent else None


def _read(program: Program, stage: Stage) -> list[Place]:
    """The pieces of the projected input that a stage reads."""
    roots = [*stage.state.values(), *stage.stored]
    nodes = walk(roots, reached_among(program.crossing_into(stage), roots))
    return places_read(nodes).get(("wx", None), [])
