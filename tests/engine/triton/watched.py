"""What kernels access in Triton's interpreter: as a sanitiser sees on a GPU, and who shares it."""

from collections import defaultdict
from itertools import permutations

import numpy as np
from triton.runtime.interpreter import GridExecutor, interpreter_builder


class Launch:
    """The accesses of a launch's programs, which on a GPU run at once or in any order.

    Args:
        name: The kernel's name.
        tensors: All that the launch is told of.

    Attributes:
        meets: Whether programs wait for each other.
    """

    meets = False

    def __init__(self, name, tensors):
        self._name = name
        self._begins, self._ends = np.array([*map(_extent, tensors)]).T
        self._loaded, self._stored = defaultdict(set), defaultdict(set)  # addresses, by program

    def loads(self, pointers, mask):
        """Note a load."""
        self._note(self._loaded, pointers, mask)

    def stores(self, pointers, mask):
        """Note a store."""
        self._note(self._stored, pointers, mask)

    def _note(self, accessed, pointers, mask):
        """Note an access, and check that it is within one tensor; masked lanes are anywhere."""
        there, inside = np.broadcast_arrays(pointers.data.astype(np.int64), mask.data.astype(bool))
        there = there[inside]
        if not there.size:
            return
        end = there.max() + pointers.get_element_ty().primitive_bitwidth // 8
        if not np.any((self._begins <= there.min()) & (end <= self._ends)):
            raise AssertionError(f"{self._name} accesses memory outside its tensors")
        accessed[tuple(interpreter_builder.grid_idx)].update(there.tolist())

    def check_apart(self):
        """Check that no program accesses what another one stores, unless they wait."""
        if self.meets:
            return
        for one, other in permutations(self._stored.keys() | self._loaded.keys(), 2):
            if self._stored[one] & (self._stored[other] | self._loaded[other]):
                raise AssertionError(f"{self._name}: {other} accesses what {one} stores")


def _extent(tensor):
    """The addresses of a tensor's first element and behind its last."""
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    count = 1 + sum((size - 1) * stride for size, stride in steps) if tensor.numel() else 0
    return tensor.data_ptr(), tensor.data_ptr() + count * tensor.element_size()


def watch_launches(monkeypatch):
    """Check every launch from now on."""
    now, call, count = [], GridExecutor.__call__, interpreter_builder.create_atomic_rmw
    load, store = interpreter_builder.create_masked_load, interpreter_builder.create_masked_store

    def called(self, *arguments, **options):
        given = (*arguments, *options.values())
        tensors = [argument for argument in given if hasattr(argument, "data_ptr")]
        now[:] = [Launch(self.fn.__name__, tensors)]
        call(self, *arguments, **options)
        now[0].check_apart()

    def loaded(pointers, mask, *rest):
        now[0].loads(pointers, mask)
        return load(pointers, mask, *rest)

    def stored(pointers, value, mask, *rest):
        now[0].stores(pointers, mask)
        return store(pointers, value, mask, *rest)

    def counted(*arguments):
        now[0].meets = True
        return count(*arguments)

    monkeypatch.setattr(GridExecutor, "__call__", called)
    monkeypatch.setattr(interpreter_builder, "create_masked_load", loaded)
    monkeypatch.setattr(interpreter_builder, "create_masked_store", stored)
    monkeypatch.setattr(interpreter_builder, "create_atomic_rmw", counted)
