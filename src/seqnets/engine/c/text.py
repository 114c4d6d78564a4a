"""A builder for C source: indented lines, and the ``Call`` struct that passes arguments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.resources import files

MEMBERS = {
    "B": "int64_t B",
    "T": "int64_t T",
    "row_b": "int64_t row_b",  # row b of step t is row b * row_b + t * row_t of a buffer
    "row_t": "int64_t row_t",
    "save_b": "int64_t save_b",  # likewise in the buffer "saved"
    "save_t": "int64_t save_t",
    "reverse": "int64_t reverse",
    "threads": "int64_t threads",
    "row_groups": "int64_t row_groups",
    "save": "int64_t save",
    "reset_b": "int64_t reset_b",
    "reset_t": "int64_t reset_t",
    "features": "int64_t features",  # columns of x, where the loop projects it; else 0
    "parallel": "void (*parallel)(void (*)(void *), void *, unsigned, unsigned)",
    "thread": "int (*thread)(void)",
    "team": "int (*team)(void)",
}
"""The first members of ``Call``, each eight bytes, of every program: its sizes follow them."""

SET_BY_CALLS = {
    "packed": "int64_t packed",
    "lengths": "const int64_t *lengths",
    "resets": "const uint8_t *resets",
    "scratch": "real *scratch",
}
"""Its members after the sizes, which differ between calls: the program's buffers follow them."""


class Text:
    """C source under construction.

    Attributes:
        lines: The lines so far.
        sizes: Sizes, and the struct members that hold them, so that one source serves all widths.
        pointers: The caller's buffers, each a member of the same name.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.sizes: dict[int, str] = {}
        self.pointers: list[str] = []
        self._depth = 0

    def line(self, *lines: str) -> None:
        """Append lines."""
        self.lines += ["    " * self._depth + line if line else "" for line in lines]

    def insert(self, place: int, lines: Iterable[str]) -> None:
        """Insert lines before those from a place on, which are as deep."""
        self.lines[place:place] = ["    " * self._depth + line for line in lines]

    @contextmanager
    def block(self, head: str, tail: str = "}") -> Iterator[None]:
        """Enclose the lines of the context in a block."""
        self.line(head + " {")
        self._depth += 1
        yield
        self._depth -= 1
        self.line(tail)

    @contextmanager
    def function(self, head: str) -> Iterator[None]:
        """Enclose the lines of the context in a function, followed by an empty line."""
        with self.block(head):
            yield
        self.line("")

    def size(self, value: int) -> str:
        """The member that holds a size."""
        return "0" if value == 0 else self.sizes.setdefault(value, f"c->n{len(self.sizes)}")

    def pointer(self, name: str) -> str:
        """The member that points to one of the caller's buffers."""
        if name not in self.pointers:
            self.pointers.append(name)
        return f"c->{name}"

    def struct(self) -> str:
        """The definition of the struct ``Call``."""
        sizes = [size.removeprefix("c->") for size in self.sizes.values()]
        members = [*MEMBERS.values(), *(f"int64_t {size}" for size in sizes)]
        members += [*SET_BY_CALLS.values(), *(f"real *{name}" for name in self.pointers)]
        return "\n".join(["typedef struct {", *(f"    {member};" for member in members), "} Call;"])


def with_headers(text: str, *names: str, double: bool) -> str:
    """A complete source file: headers of this folder, then the text."""
    folder = files("seqnets.engine.c")
    headers = [(folder / name).read_text(encoding="utf-8") for name in names]
    return "\n".join(["#define SEQNETS_DOUBLE"] * double + [*headers, text])
