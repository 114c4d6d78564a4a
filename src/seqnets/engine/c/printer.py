"""Prints a program as C: one function for each stage, and the two passes over time around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seqnets.engine.c.backward import BackwardPrinter
from seqnets.engine.c.forward import ForwardPrinter
from seqnets.engine.c.passes import PassPrinter
from seqnets.engine.c.text import Text
from seqnets.engine.program import Program

_SUMS = (24, 20, 12)  # vector accumulators that fit in registers, as in vector.h
_TALLEST = 12  # rows of a tile at most, as in loops.h


@dataclass
class Source:
    """A printed program.

    Attributes:
        text: The C source, without headers.
        sizes: Values of the size members of ``Call``, in order.
        pointers: Names of its pointer members, in order.
    """

    text: str
    sizes: list[int]
    pointers: list[str]


def print_program(program: Program, tiled: bool = False) -> Source:
    """Print both passes, or the forward pass alone if the program has no other.

    Args:
        program: The program.
        tiled: Whether tiles of bfloat16 multiply; then ``tiled_loops.h`` comes before.
    """
    text = Text()
    passes: list[PassPrinter] = [ForwardPrinter(program, text, tiled)]
    if program.backward:
        passes.append(BackwardPrinter(program, text, tiled))
    for each in passes:
        each.write()
    products = _products(sorted(set().union(*(each.widths for each in passes))))
    whole = [text.struct(), _ROWS, *products, "", *text.lines]
    return Source("\n".join(whole), list(text.sizes), text.pointers)


def _products(widths: Sequence[int]) -> list[str]:
    """Print the product kernels, one for each tile height whose accumulators fit in registers."""
    text = []
    for room in _SUMS:
        text.append(f"#if SUMS == {room}")
        for width in widths:
            most = max(1, min(_TALLEST, room // width))
            text += [f"PRODUCT({width}, {rows})" for rows in range(1, most + 1)]
            names = ", ".join(f"product_{width}_{rows}" for rows in range(1, most + 1))
            text.append(f"static const Product product_{width}[] = {{0, {names}}};")
            text.append(f"#define MOST_{width} {most}")
        text.append("#endif")
    return text


_ROWS = """
/* The step that is i-th to run; -1 past the last. */
INLINE long step(const Call *c, long i) {
    return i >= c->T ? -1 : c->reverse ? c->T - 1 - i : i;
}

INLINE int is_valid(const Call *c, long b, long t) { return !c->lengths || t < c->lengths[b]; }

/* Whether some of a tile's rows run at one of two steps. */
INLINE int some_valid(const Call *c, long b0, long high, long t, long source) {
    int some = !c->lengths;
    for (long b = b0; b < b0 + high && !some; b++)
        some = is_valid(c, b, t) || is_valid(c, b, source);
    return some;
}

/* Whether the state of a row is set anew before a step. */
INLINE int is_reset(const Call *c, long b, long t) {
    return t >= 0 && c->resets && c->resets[b * c->reset_b + t * c->reset_t] && is_valid(c, b, t);
}
"""
