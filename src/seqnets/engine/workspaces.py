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


class _FreeBlocks:
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
        block = None
        if self._lock.acquire(blocking=False):
            try:
                if size in self._free:
                    self._free.move_to_end(size)
                    block = self._let_go(size)
            finally:
                self._lock.release()
            self._sort_in()
        return _new(size) if block is None else block

    def give_back(self, block: mmap.mmap) -> None:
        """Keep a block for reuse, evicting others beyond the limit."""
        if len(block) <= self.limit:
            self._returned.append(block)
            self._sort_in()

    def _sort_in(self) -> None:
        while self._returned and self._lock.acquire(blocking=False):
            try:
                while self._returned:
                    self._keep(self._returned.popleft())
            finally:
                self._lock.release()

    def _keep(self, block: mmap.mmap) -> None:
        size = len(block)
        self._free.setdefault(size, []).append(block)
        self._free.move_to_end(size)
        self._kept += size
        while self._kept > self.limit:
            self._let_go(next(iter(self._free)))

    def _let_go(self, size: int) -> mmap.mmap:
        blocks = self._free[size]
        block = blocks.pop()
        self._kept -= size
        if not blocks:
            del self._free[size]
        return block


def _new(size: int) -> mmap.mmap:
    block = mmap.mmap(-1, size, flags=_PRIVATE)
    if hasattr(mmap, "MADV_HUGEPAGE"):  # pages of 2 MiB take a quarter of the time
        with suppress(OSError):  # not supported by every kernel
            block.madvise(mmap.MADV_HUGEPAGE)
    return block


_free_blocks = _FreeBlocks(2**28)


def _forget() -> None:
    """Empty the cache in a forked process, where the lock's holder does not exist."""
    _free_blocks.__init__(_free_blocks.limit)  # type: ignore[misc]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def room(like: Tensor, *shape: int) -> Tensor:
    """An uninitialised tensor with the dtype and device of ``like``.

    Its memory is reused once no tensor refers to it. It cannot be resized.
    """
    count = math.prod(shape)
    size = count * like.itemsize
    if size < _LARGE or not like.is_cpu or not _free_blocks.limit or not _PRIVATE:
        return like.new_empty(shape)
    step = 2 ** max(size.bit_length() - 4, 12)  # size classes at most an eighth apart
    try:
        block = _free_blocks.take(-(-size // step) * step)
    except OSError:  # no memory is left, which torch's error says in its own way
        return like.new_empty(shape)
    loan = (ctypes.c_char * len(block)).from_buffer(block)
    weakref.finalize(loan, _free_blocks.give_back, block).atexit = False
    return torch.frombuffer(loan, dtype=like.dtype, count=count).view(shape)


@contextmanager
def nothing_kept() -> Iterator[None]:
    """Take all memory from torch's allocator within the context, so that it can be measured."""
    before, _free_blocks.limit = _free_blocks.limit, 0
    try:
        yield
    finally:
        _free_blocks.limit = before
