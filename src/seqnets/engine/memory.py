"""A caching allocator for large CPU workspaces that stay inside the engine.

The system allocator unmaps large blocks when they are freed, so every training step pays for page
faults again: 0.5 ms per MiB with pages of 4 KiB, a tenth to a fifth of the whole step. Here blocks
are kept for reuse.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
from torch import Tensor

_LARGE = 2**18  # bytes; torch's allocator reuses smaller blocks
_PRIVATE = getattr(mmap, "MAP_PRIVATE", 0) | getattr(mmap, "MAP_ANONYMOUS", 0)  # for forks


class _Pieces:
    """Free blocks by size, evicted least recently used first.

    A garbage collection may call ``give_back`` in the middle of any method. Nothing waits for the
    lock, therefore: a block that is given back meanwhile is sorted in by whoever holds it, and one
    that is asked for is new.

    Attributes:
        limit: The most bytes that are kept.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._free: OrderedDict[int, list[mmap.mmap]] = OrderedDict()  # in order of last use
        self._kept = 0
        self._returned: deque[mmap.mmap] = deque()  # not sorted in yet
        self._lock = threading.Lock()

    def take(self, size: int) -> mmap.mmap:
        """A block of memory, reused or new."""
        piece = None
        if self._lock.acquire(blocking=False):
            try:
                if size in self._free:
                    self._free.move_to_end(size)
                    piece = self._let_go(size)
            finally:
                self._lock.release()
            self._sort_in()
        return _new(size) if piece is None else piece

    def give_back(self, piece: mmap.mmap) -> None:
        """Keep a block for reuse, evicting others beyond the limit."""
        if len(piece) <= self.limit:
            self._returned.append(piece)
            self._sort_in()

    def _sort_in(self) -> None:
        while self._returned and self._lock.acquire(blocking=False):
            try:
                while self._returned:
                    self._keep(self._returned.popleft())
            finally:
                self._lock.release()

    def _keep(self, piece: mmap.mmap) -> None:
        size = len(piece)
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


def _new(size: int) -> mmap.mmap:
    piece = mmap.mmap(-1, size, flags=_PRIVATE)
    if hasattr(mmap, "MADV_HUGEPAGE"):  # pages of 2 MiB take a quarter of the time
        with suppress(OSError):  # not supported by every kernel
            piece.madvise(mmap.MADV_HUGEPAGE)
    return piece


_pieces = _Pieces(2**28)


def _forget() -> None:
    """Empty the cache in a forked process, where the lock's holder does not exist."""
    _pieces.__init__(_pieces.limit)  # type: ignore[misc]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def room(like: Tensor, *shape: int) -> Tensor:
    """An uninitialised tensor with the dtype and device of ``like``.

    Its memory is reused once no tensor refers to it. It cannot be resized.
    """
    count = math.prod(shape)
    size = count * like.itemsize
    if size < _LARGE or not like.is_cpu or not _pieces.limit or not _PRIVATE:
        return like.new_empty(shape)
    step = 2 ** max(size.bit_length() - 4, 12)  # size classes at most an eighth apart
    piece = _pieces.take(-(-size // step) * step)
    loan = (ctypes.c_char * len(piece)).from_buffer(piece)
    weakref.finalize(loan, _pieces.give_back, piece).atexit = False
    return torch.frombuffer(loan, dtype=like.dtype, count=count).view(shape)


@contextmanager
def nothing_kept() -> Iterator[None]:
    """Take all memory from torch's allocator within the context, so that it can be measured."""
    before, _pieces.limit = _pieces.limit, 0
    try:
        yield
    finally:
        _pieces.limit = before
