"""Printed loops, compiled and called: how tensors become the members of a call."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from seqnets.engine.c import compiler
from seqnets.engine.c.printer import print_program
from seqnets.engine.c.text import SETTINGS, with_headers
from seqnets.engine.c.threads import most_threads, openmp
from seqnets.engine.loops import (
    Gradients,
    Kept,
    Order,
    numbered,
    parameter_buffers,
    room_for_gradients,
    room_for_kept,
)
from seqnets.engine.memory import room
from seqnets.engine.program import Program
from seqnets.typing import State

_Values = dict[str, int]


class Library:
    """A program's loops for one floating-point type.

    Raises:
        NoCompiler: They cannot be compiled here.
    """

    def __init__(self, program: Program, dtype: torch.dtype) -> None:
        source = print_program(program)
        text = with_headers(source.text, "vector.h", "loops.h", double=dtype == torch.float64)
        self._library = compiler.load(text)
        self.lanes = ctypes.c_int64.in_dll(self._library, "lanes_of_a_vector").value
        sizes = [f"n{i}" for i in range(len(source.sizes))]
        self._fixed = dict(zip(sizes, source.sizes, strict=True)) | openmp()
        self._names = *SETTINGS, *sizes, *source.pointers
        self._struct = ctypes.c_int64 * len(self._names)
        self._place_of_scratch = self._names.index("scratch")

    def call(self, name: str, values: _Values, like: Tensor) -> None:
        """Run a pass, with scratch memory of its own."""
        members = self.members(values)
        scratch = room(like, self.scratch(name, members))
        members[self._place_of_scratch] = scratch.data_ptr()
        self.function(name)(members)

    def members(self, values: _Values) -> ctypes.Array[ctypes.c_int64]:
        """The struct that a pass takes; members without a value are zero.

        Values without a member are left out: a program without this buffer has no use for it.
        """
        given = self._fixed | values
        return self._struct(*[given.get(name, 0) for name in self._names])

    def scratch(self, name: str, members: ctypes.Array[ctypes.c_int64]) -> int:
        """How many numbers of scratch memory a pass needs."""
        return int(self.function(f"{name}_scratch")(members))

    def function(self, name: str) -> Any:
        """A pass, to be called with the members of a call."""
        function = getattr(self._library, name)
        function.restype = ctypes.c_int64 if name.endswith("_scratch") else None
        return function


def settings(library: Library, program: Program, B: int, T: int) -> _Values:
    """How the work of a call is split among threads."""
    return _settings(program, library.lanes, B, T, most_threads())


@lru_cache(maxsize=4096)
def _settings(program: Program, lanes: int, B: int, T: int, threads: int) -> _Values:
    products = [product.weight for product in program.step.products]
    numbers = sum(weight.rows * weight.columns for weight in products)
    width = min(stage.width for stage in program.forward)
    work = B * (numbers if products else T * width)
    if work < _WORTH_A_THREAD * 2:
        threads = 1
    threads = min(threads, max(1, work // _WORTH_A_THREAD))
    rows = threads if B >= _ROWS_OF_A_THREAD * threads and numbers <= _NUMBERS_OF_A_CORE else 1
    if rows == 1 and width < threads * lanes:
        rows = min(threads, B)
        threads = rows
    return {"B": B, "T": T, "threads": threads, "row_groups": rows}


_WORTH_A_THREAD = 8192
_ROWS_OF_A_THREAD = 8
_NUMBERS_OF_A_CORE = 131072


class CLoops:
    """``Loops`` in C."""

    skips_padding = True

    def __init__(self) -> None:
        # by a program's id, and with the program, so that no other one gets the id
        self._libraries: dict[tuple[int, torch.dtype], tuple[Program, Library]] = {}
        self._refused: dict[tuple[Any, ...], tuple[Program, str]] = {}

    def library(self, program: Program, dtype: torch.dtype) -> Library:
        """A program's loops, printed and compiled when they are first asked for.

        Raises:
            NoCompiler: They cannot be compiled here.
        """
        key = id(program), dtype
        if key not in self._libraries:
            again = *key, os.environ.get("CC"), os.environ.get("PATH")  # where a compiler may be
            if again in self._refused:
                raise compiler.NoCompiler(self._refused[again][1])
            try:
                library = Library(program, dtype)
            except compiler.NoCompiler as reason:
                self._refused[again] = program, str(reason)
                raise
            self._libraries[key] = program, library
        return self._libraries[key][1]

    def forward(
        self,
        program: Program,
        wx: Tensor,
        initial: State,
        start: State,
        parameters: dict[str, Tensor],
        order: Order,
        save: bool,
    ) -> tuple[Tensor, State, Kept | None]:
        """Outputs (B, T, H), the state after each row's last step, and if asked what to keep."""
        step = program.step
        B, T, _ = order.layout
        parameters = {name: tensor.contiguous() for name, tensor in parameters.items()}
        library = self.library(program, wx.dtype)
        initial = tuple(part.contiguous() for part in initial)
        start = tuple(part.contiguous() for part in start)
        y = order.layout.empty(wx, step.state_sizes[0])
        final = tuple(wx.new_empty(B, size) for size in step.state_sizes)
        kept = None
        buffers = {"wx": wx, "y": y} | parameter_buffers(program, parameters)
        buffers |= numbered("initial", initial) | numbered("start", start)
        buffers |= numbered("final", final)
        if save:
            kept = room_for_kept(program, wx)
            buffers |= {f"before_{p}": before for p, before in kept.befores.items()}
            buffers |= {f"value_{k}": value for k, value in kept.values.items()}
            buffers["saved"] = kept.saved
        elif program.crossing:
            buffers["saved"] = wx.new_empty(B, program.saved_size)

        values = settings(library, program, B, T) | _order(order)
        values |= {"save_b": 1, "save_t": 0} if kept is None else _saving(order)
        values |= {"save": int(save)} | addresses(buffers)
        library.call("forward", values, wx)
        return y, final, kept

    def backward(
        self,
        program: Program,
        kept: Kept,
        grad_y: Tensor | None,
        grad_final: Sequence[Tensor | None],
        parameters: dict[str, Tensor],
        order: Order,
    ) -> Gradients:
        """All gradients, from those of outputs and final state; None stands for zeros."""
        step, like = program.step, kept.saved
        B, T, _ = order.layout
        parameters = {name: tensor.contiguous() for name, tensor in parameters.items()}
        library = self.library(program, like.dtype)
        split = settings(library, program, B, T)
        final = [None if grad is None else grad.contiguous() for grad in grad_final]
        threads = split["threads"]  # each adds up what it finds: pieces of a parameter may overlap
        sums = {
            leaf.what.key: like.new_zeros(threads, math.prod(step.parameters[leaf.what.key]))
            if leaf.width
            else like.new_zeros(threads, width)
            for leaf, width in program.units.items()
        }
        found = Gradients(
            *room_for_gradients(program, like),
            {},
            tuple(like.new_empty(B, size) for size in step.state_sizes),
            ()
            if order.resets is None
            else tuple(like.new_zeros(B, size) for size in step.state_sizes),
        )
        buffers = {f"before_{p}": before for p, before in kept.befores.items()}
        buffers |= {"saved": like, "grad_wx": found.wx} | parameter_buffers(program, parameters)
        buffers |= {f"grad_z_{k}": grad for k, grad in found.products.items()}
        buffers |= numbered("grad_initial", found.initial) | numbered("grad_start", found.start)
        buffers |= {f"grad_final_{p}": grad for p, grad in enumerate(final) if grad is not None}
        if grad_y is not None:
            buffers["grad_y"] = grad_y.contiguous()

        values = split | _order(order) | _saving(order)
        values |= addresses(buffers)
        for i, leaf in enumerate(program.units):
            skipped = leaf.what.offset * like.element_size()
            values[f"unit_{i}"] = sums[leaf.what.key].data_ptr() + skipped
        library.call("backward", values, like)
        for leaf in program.units:
            name = leaf.what.key
            total = sums[name][0] if threads == 1 else sums[name].sum(0)
            found.units[name] = (total if leaf.width else total.sum()).view(step.parameters[name])
        return found


def addresses(buffers: dict[str, Tensor]) -> _Values:
    """Where buffers lie."""
    return {name: tensor.data_ptr() for name, tensor in buffers.items()}


def _saving(order: Order) -> _Values:
    return {"save_b": order.layout.row_b, "save_t": order.layout.row_t}


def _order(order: Order) -> _Values:
    values = {"row_b": order.layout.row_b, "row_t": order.layout.row_t}
    values["reverse"] = int(order.reverse)
    if order.lengths is not None:
        values["lengths"] = order.lengths.data_ptr()
    if order.resets is not None:
        values["resets"] = order.resets.data_ptr()
        values["reset_b"], values["reset_t"] = order.resets.stride()
    return values


C_LOOPS = CLoops()
