"""A builder for the source of one Triton kernel, and the integer arguments that all take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple


class Numbers(NamedTuple):
    """The integer arguments of every kernel.

    Attributes:
        B: Rows of the batch.
        T: Steps.
        row_b, row_t: Strides: row b of step t is row ``b * row_b + t * row_t`` of a buffer.
        kept_b, kept_t: Strides of what is kept for the backward pass.
        turn_t: With kept_b, strides of the state before a step.
        reset_b, reset_t: Strides of the resets.
        i: Index of the step in execution order, for a launch of one step.
        piece: Steps of a program, where programs share the steps of a row.
    """

    B: int
    T: int
    row_b: int
    row_t: int
    kept_b: int
    kept_t: int
    turn_t: int
    reset_b: int = 0
    reset_t: int = 0
    i: int = 0
    piece: int = 0


class Kernel:
    """A kernel under construction.

    Attributes:
        name: The function's name.
        pointers: The buffers that it takes.
        scans: Number of scans over time for each unit.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.scans = 0
        self.pointers: dict[str, None] = {}
        self._lines: list[str] = []
        self._first: dict[str, str] = {}
        self._place = 0
        self._depth = 1
        self._ended = ("", 0, 0)  # the last block: its head, depth and end

    def line(self, *lines: str) -> None:
        """Append lines."""
        self._lines += ["    " * self._depth + line for line in lines]

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Enclose the lines of the context in a block; adjacent ones of equal head are merged."""
        if self._ended != (head, self._depth, len(self._lines)):
            self.line(head)
        self._depth += 1
        yield
        self._depth -= 1
        self._ended = head, self._depth, len(self._lines)

    def given(self, name: str) -> AbstractContextManager[None]:
        """Enclose the lines of the context in a block for a buffer that callers may leave out."""
        return self.block(f"if {self.pointer(name)} is not None:")

    def once(self, name: str, value: str) -> str:
        """Hoist a value: compute it once, before the first step."""
        self._first.setdefault(name, f"    {name} = {value}")
        return name

    def end_of_beginning(self) -> None:
        """Mark where hoisted values go, before the first step."""
        self._place = len(self._lines)

    def pointer(self, name: str) -> str:
        """The argument for one of the caller's buffers."""
        self.pointers[name] = None
        return name

    def text(self, constants: Sequence[str] = ()) -> str:
        """The kernel's source.

        Args:
            constants: Integer arguments that are compile-time constants.
        """
        names = Numbers._fields
        numbers = [f"{name}: tl.constexpr" if name in constants else name for name in names]
        return "\n".join(
            [
                f"@triton.jit(do_not_specialize={[n for n in names if n not in constants]})",
                f"def {self.name}(",
                *(f"    {name}," for name in self.pointers),
                f"    {', '.join(numbers)},",
                "    SAVE: tl.constexpr, REVERSE: tl.constexpr, PRECISION: tl.constexpr,",
                "):",
                *self._lines[: self._place],
                *self._first.values(),
                *self._lines[self._place :],
                "",
            ]
        )
