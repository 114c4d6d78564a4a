"""Room for large tensors that stay inside the engine.

A process gets memory page by page, at the first write to each, and an allocator gives large pieces
back as soon as they are free. So a training step pays for its memory anew each time: 0.5 ms for a
MiB by pages of 4 KiB, a tenth to a fifth of the whole step. Here pieces are kept for the next one.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
from torch import Tensor

_LARGE = 2**18  # bytes; smaller ones an allocator keeps by itself
_PRIVATE = getattr(mmap, "MAP_PRIVATE", 0) | getattr(mmap, "MAP_ANONYMOUS", 0)  # for forks


class _Pieces:
    """Pieces of memory that nobody uses, by size; of too many, those go that waited longest.

    Attributes:
        limit: How many bytes are kept at the most.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._free: OrderedDict[int, list[mmap.mmap]] = OrderedDict()  # the size used last is last
        self._kept = 0
        self._lock = threading.RLock()  # pieces come back from wherever a tensor ends

    def take(self, size: int) -> mmap.mmap:
        """A piece of memory, used before or new."""
        with self._lock:
            if size in self._free:
                self._free.move_to_end(size)
                return self._let_go(size)
        piece = mmap.mmap(-1, size, flags=_PRIVATE)
        if hasattr(mmap, "MADV_HUGEPAGE"):  # by pages of 2 MiB it takes a quarter of the time
            with suppress(OSError):  # not every kernel has them
                piece.madvise(mmap.MADV_HUGEPAGE)
        return piece

    def give_back(self, piece: mmap.mmap) -> None:
        """Keep a piece for later, and let others go for it."""
        size = len(piece)
        if size > self.limit:
            return
        with self._lock:
            self._free.setdefault(size, []).append(piece)
            self._free.move_to_end(size)
            self._kept += size
            while self._kept > self.limit:
                self._let_go(next(iter(self._free)))

    def _let_go(self, size: int) -> mmap.mmap:
        pieces = self._free[size]
        piece = pieces.pop()
        self._kept -= size
        if not pieces:
            del self._free[size]
        return piece


_pieces = _Pieces(2**28)


def _forget() -> None:
    """Begin anew in a forked process, where whoever held the lock does not exist."""
    _pieces._lock = threading.RLock()
    _pieces._free.clear()
    _pieces._kept = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def room(like: Tensor, *shape: int) -> Tensor:
    """A tensor without numbers, of the dtype and device of another one.

    Its memory is kept for others once nobody sees it any more. It cannot be resized.
    """
    count = math.prod(shape)
    size = count * like.itemsize
    if size < _LARGE or not like.is_cpu or not _pieces.limit or not _PRIVATE:
        return like.new_empty(shape)
    step = 2 ** max(size.bit_length() - 4, 12)  # sizes an eighth apart, so that pieces fit often
    piece = _pieces.take(-(-size // step) * step)
    loan = (ctypes.c_char * len(piece)).from_buffer(piece)
    weakref.finalize(loan, _pieces.give_back, piece).atexit = False
    return torch.frombuffer(loan, dtype=like.dtype, count=count).view(shape)


@contextmanager
def nothing_kept() -> Iterator[None]:
    """Take all memory from torch's allocator, as whoever counts it wants."""
    before, _pieces.limit = _pieces.limit, 0
    try:
        yield
    finally:
        _pieces.limit = before
