"""A kernel in Triton as it is written, line by line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple


class Numbers(NamedTuple):
    """Whole numbers that every kernel takes.

    Attributes:
        B: Rows of the batch.
        T: Steps.
        row_b, row_t: Row b of step t is the (b * row_b + t * row_t)-th of a buffer.
        kept_b, kept_t: The same for what is kept of a step.
        turn_t: The same, with kept_b, for the state before a step.
        reset_b, reset_t: Strides of the resets.
        i: Which step it is, counted from the first that runs; for a launch of one step.
        piece: Steps of a program, where programs share a row's.
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
    """A kernel as it is written.

    Attributes:
        name: Of its function.
        pointers: Buffers that it takes.
        scans: How many numbers of a unit are scanned over time.
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
        """Write lines."""
        self._lines += ["    " * self._depth + line for line in lines]

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Write a block around what is written inside; two of the same head are one."""
        if self._ended != (head, self._depth, len(self._lines)):
            self.line(head)
        self._depth += 1
        yield
        self._depth -= 1
        self._ended = head, self._depth, len(self._lines)

    def once(self, name: str, value: str) -> str:
        """Compute something before the first step."""
        self._first.setdefault(name, f"    {name} = {value}")
        return name

    def end_of_beginning(self) -> None:
        """Here belongs what is computed before the first step."""
        self._place = len(self._lines)

    def pointer(self, name: str) -> str:
        """A buffer of the caller's."""
        name = name.replace(".", "_of_")  # a parameter of a cell inside the cell
        self.pointers[name] = None
        return name

    def text(self, constants: Sequence[str] = ()) -> str:
        """The function.

        Args:
            constants: Numbers for each of whose values it is compiled anew.
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
