"""Memory that is kept for the next tensor."""

import errno
import mmap
import os
import signal
import threading
from collections import OrderedDict

import pytest
import torch

from seqnets.engine import workspaces
from seqnets.engine.workspaces import nothing_kept, room

LIKE = torch.zeros(1)
N = 2**18  # numbers, a MiB


@pytest.fixture(autouse=True)
def pieces(monkeypatch):
    """Pieces of memory for this test alone."""
    mine = workspaces._FreeBlocks(2**24)
    monkeypatch.setattr(workspaces, "_free_blocks", mine)
    return mine


def test_memory_that_nobody_sees_any_more_is_used_again():
    tensor = room(LIKE, N)
    address = tensor.data_ptr()
    view = tensor[1:].view(-1)[5:]
    del tensor

    assert room(LIKE, N).data_ptr() != address
    del view
    assert room(LIKE, N).data_ptr() == address


def test_two_tensors_alive_never_share_memory():
    tensors = [room(LIKE, N).fill_(i) for i in range(8)]

    assert all(bool((tensor == i).all()) for i, tensor in enumerate(tensors))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_tensor_has_the_shape_and_the_dtype_that_were_asked_for(dtype):
    tensor = room(LIKE.to(dtype), 3, 5, N)

    assert tensor.shape == (3, 5, N)
    assert tensor.dtype == dtype
    assert tensor.is_contiguous()


def test_small_tensors_come_from_torch_itself(pieces):
    room(LIKE, 10)

    assert not pieces._free


def test_no_more_is_kept_than_the_limit(pieces):
    tensors = [room(LIKE, N) for _ in range(40)]
    del tensors

    assert pieces._kept <= pieces.limit
    assert sum(len(kept) * size for size, kept in pieces._free.items()) == pieces._kept


def test_sizes_that_nobody_asks_for_any_more_give_way_to_others(pieces):
    first = [room(LIKE, N) for _ in range(10)]
    others = [room(LIKE, 2 * N) for _ in range(10)]
    del first, others  # as many as there may be, and more
    tensor = room(LIKE, 3 * N)
    address = tensor.data_ptr()
    del tensor

    assert room(LIKE, 3 * N).data_ptr() == address
    assert min(pieces._free) > 4 * N  # what was used last is there still
    assert pieces._kept <= pieces.limit


def test_what_is_used_in_turns_is_all_kept(pieces):
    for _ in range(3):
        addresses = {room(LIKE, count * N).data_ptr() for count in (1, 2, 3)}
    assert {room(LIKE, count * N).data_ptr() for count in (1, 2, 3)} == addresses


@pytest.mark.parametrize("inside", ["move_to_end", "setdefault"])
def test_memory_may_be_given_back_while_other_memory_is_taken_or_given_back(pieces, inside):
    dropped = []

    def collect(self, *args):  # as a garbage collection may, which runs anywhere
        result = getattr(OrderedDict, inside)(self, *args)
        dropped.clear()
        return result

    pieces._free = type("Collecting", (OrderedDict,), {inside: collect})()
    room(LIKE, N)
    dropped += [room(LIKE, 2 * N) for _ in range(9)]  # more than is kept
    tensor = room(LIKE, N)
    dropped += [room(LIKE, 2 * N) for _ in range(9)]
    del tensor
    dropped.clear()

    assert sum(len(kept) * size for size, kept in pieces._free.items()) == pieces._kept
    assert 0 < pieces._kept <= pieces.limit


def test_memory_that_is_asked_for_while_other_memory_is_taken_is_new(pieces):
    with pieces._lock:
        tensor = room(LIKE, N)
        del tensor

    assert not pieces._free
    room(LIKE, N)
    assert pieces._free


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_process_that_is_forked_while_another_thread_takes_a_piece_can_take_one(pieces):
    taking, done = threading.Event(), threading.Event()

    def take():
        with pieces._lock:
            taking.set()
            done.wait(20)

    thread = threading.Thread(target=take)
    thread.start()
    assert taking.wait(5)
    child = os.fork()
    if child == 0:
        signal.alarm(5)  # it would wait for ever
        room(LIKE, N)
        os._exit(0)
    done.set()
    thread.join()

    assert os.waitpid(child, 0)[1] == 0


def test_whoever_counts_memory_finds_it_with_torchs_allocator(pieces):
    with nothing_kept():
        tensor = room(LIKE, N)
    del tensor

    assert not pieces._free
    assert pieces.limit


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_writes_into_memory_of_its_own():
    tensor = room(LIKE, N).fill_(1)

    child = os.fork()
    if child == 0:
        tensor.fill_(2)
        os._exit(0)
    os.waitpid(child, 0)

    assert bool((tensor == 1).all())


def test_a_kernel_without_large_pages_gives_small_ones(monkeypatch):
    class WithoutLargePages(mmap.mmap):
        def madvise(self, *args):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(workspaces.mmap, "mmap", WithoutLargePages)

    assert room(LIKE, N).zero_().sum() == 0


def test_more_memory_than_there_is_is_an_error_of_torchs_which_says_how_much():
    with pytest.raises(RuntimeError, match=f"tried to allocate {2**47} bytes"):
        room(LIKE, 2**45)
