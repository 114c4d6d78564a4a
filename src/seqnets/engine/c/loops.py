"""``Loops`` in C: compiles a printed program, and passes tensors to it in a ``Call`` struct."""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache
from itertools import repeat
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqnets.engine.buffers import (
    addresses_of,
    backward_buffers,
    final_gradients,
    forward_buffers,
    numbered,
)
from seqnets.engine.c import compiler
from seqnets.engine.c.printer import print_program
from seqnets.engine.c.projected import can_project
from seqnets.engine.c.text import MEMBERS, SET_BY_CALLS, with_headers
from seqnets.engine.c.threads import most_threads, openmp
from seqnets.engine.c.tiles import has_tiles
from seqnets.engine.layout import Layout
from seqnets.engine.loops import Gradients, Grads, Inputs, Kept, Order, Results
from seqnets.engine.program import Program
from seqnets.engine.workspaces import room
from seqnets.typing import State

_Values = dict[str, int]


class Settings(NamedTuple):
    """The members of a call that are not addresses; see ``text.MEMBERS``.

    They are the key under which prepared calls are cached.
    """

    B: int
    T: int
    threads: int
    row_groups: int
    row_b: int = 1
    row_t: int = 0
    reverse: bool = False
    save: bool = False
    save_b: int = 1
    save_t: int = 0
    reset_b: int = 0
    reset_t: int = 0
    features: int = 0


class Library:
    """A program's loops for one floating-point type.

    Args:
        program: The program.
        dtype: float32 or float64.
        tiled: Whether tiles of bfloat16 may multiply.

    Attributes:
        tiled: Whether they do: in float32, if the weights are worth it, and there are tiles.

    Raises:
        NoCompiler: They cannot be compiled here.
    """

    def __init__(self, program: Program, dtype: torch.dtype, tiled: bool = False) -> None:
        is_worth = dtype == torch.float32 and program.weight_numbers >= _WORTH_TILES
        self.tiled = tiled and is_worth and has_tiles()
        source = print_program(program, self.tiled)
        headers = ["vector.h", "loops.h"]
        if self.tiled:
            headers += ["tiles.h", "tiled_loops.h"]
        text = with_headers(source.text, *headers, double=dtype == torch.float64)
        self._library = compiler.load(text)
        self.lanes = ctypes.c_int64.in_dll(self._library, "lanes_of_a_vector").value
        sizes = [f"n{i}" for i in range(len(source.sizes))]
        self._fixed = dict(zip(sizes, source.sizes, strict=True)) | openmp()
        shared = *MEMBERS, *sizes
        self._places, self._first = {name: i for i, name in enumerate(shared)}, len(shared)
        self._set_by_calls = *SET_BY_CALLS, *source.pointers
        self._struct = ctypes.c_int64 * (self._first + len(self._set_by_calls))

    def call(self, name: str, settings: Settings, values: _Values, like: Tensor) -> None:
        """Run a pass, with a workspace of its own."""
        function, members, scratch = _ready(self, name, settings)
        memory = room(like, scratch)
        values["scratch"] = memory.data_ptr()
        function(self.members(members, values))

    def members(self, like: ctypes.Array[Any], values: _Values) -> ctypes.Array[ctypes.c_int64]:
        """A copy of a ``Call`` struct with the addresses of a call's buffers, and the like.

        Values without a member are ignored: the program does not read these buffers.
        """
        call = self._struct.from_buffer_copy(like)
        call[self._first :] = [*map(values.get, self._set_by_calls, repeat(0))]
        return call

    def ready(self, name: str, settings: Settings) -> _Ready:
        """What calls of a pass with these settings share."""
        function, scratch = getattr(self._library, name), getattr(self._library, f"{name}_scratch")
        function.restype, scratch.restype = None, ctypes.c_int64
        members = self._struct()
        for member, value in (self._fixed | settings._asdict()).items():
            members[self._places[member]] = value
        return function, members, scratch(members)


_Ready = tuple[Any, ctypes.Array[ctypes.c_int64], int]
"""A pass, its ``Call`` struct without addresses, and the number of elements of its workspace."""


@lru_cache(maxsize=4096)
def _ready(library: Library, name: str, settings: Settings) -> _Ready:
    return library.ready(name, settings)


def settings_of(
    library: Library, program: Program, order: Order, save: bool, features: int = 0
) -> Settings:
    """The settings of a call: the order of its steps, and the division among threads."""
    resets = (0, 0) if order.resets is None else order.resets.stride()
    most = most_threads()
    return _settings(
        program, library.lanes, order.layout, order.reverse, save, resets, features, most
    )


@lru_cache(maxsize=4096)
def _settings(
    program: Program,
    lanes: int,
    layout: Layout,
    reverse: bool,
    save: bool,
    resets: tuple[int, int],
    features: int,
    most_threads: int,
) -> Settings:
    B, T, rows = layout.B, layout.T, (layout.row_b, layout.row_t)
    split = threads_and_groups(program, lanes, B, T, most_threads, features)
    saved = rows if save else (1, 0)
    return Settings(B, T, *split, *rows, reverse, save, *saved, *resets, features)


def threads_and_groups(
    program: Program, lanes: int, B: int, T: int, most_threads: int, features: int = 0
) -> tuple[int, int]:
    """The number of threads of a call, and of groups of rows among which they are divided.

    Args:
        program: The program.
        lanes: Units of a vector.
        B: Rows of the batch.
        T: Steps.
        most_threads: The most threads.
        features: Columns of the input, where the loop projects it.
    """
    numbers = program.weight_numbers + features * program.step.wx_size
    width = min(stage.width for stage in program.forward)
    work = B * (numbers or T * width)
    threads = min(most_threads, max(1, work // _WORTH_A_THREAD))
    rows = threads if B >= _ROWS_OF_A_THREAD * threads and numbers <= _NUMBERS_OF_A_CORE else 1
    if rows == 1 and width < threads * lanes:
        rows = min(threads, B)
        threads = rows
    return threads, rows


_WORTH_TILES = 2**15  # numbers in the weights of a step
_WORTH_A_THREAD = 2**13  # multiplications of a step; without weights, units of all steps
_ROWS_OF_A_THREAD = 8  # at least, where each thread has rows of its own and all units
_NUMBERS_OF_A_CORE = 2**17  # weights that each thread may read whole, from its core's cache


class CLoops:
    """``Loops`` in C.

    Args:
        tiled: Whether products may be by tiles of bfloat16, where the processor has them.
    """

    skips_padding = True

    def __init__(self, tiled: bool = False) -> None:
        self.tiled = tiled
        self._libraries: dict[tuple[Program, torch.dtype], Library] = {}
        self._refused: dict[tuple[Any, ...], str] = {}

    def library(self, program: Program, dtype: torch.dtype) -> Library:
        """A program's loops, printed and compiled on first use.

        Raises:
            NoCompiler: They cannot be compiled here.
        """
        key = program, dtype
        if key not in self._libraries:
            again = *key, os.environ.get("CC"), os.environ.get("PATH")  # decide on the compiler
            if again in self._refused:
                raise compiler.NoCompiler(self._refused[again])
            try:
                self._libraries[key] = Library(program, dtype, self.tiled)
            except compiler.NoCompiler as reason:
                self._refused[again] = str(reason)
                raise
        return self._libraries[key]

    def projects(self, program: Program) -> bool:
        """See ``Loops.projects``."""
        return not self.tiled and can_project(program)

    def forward(self, program: Program, inputs: Inputs, order: Order, save: bool) -> Results:
        """See ``Loops.forward``."""
        results, buffers = forward_buffers(program, inputs, order, save)
        wx = inputs.wx
        if program.crossing and not save:
            buffers["saved"] = wx.new_empty(order.layout.B, program.saved_size)
        library = self.library(program, wx.dtype)
        features = 0 if inputs.projection is None else wx.shape[1]
        settings = settings_of(library, program, order, save, features)
        library.call("forward", settings, _addresses(buffers, order), wx)
        return results

    def backward(
        self, kept: Kept, grads: Grads, parameters: dict[str, Tensor], order: Order
    ) -> Gradients:
        """See ``Loops.backward``."""
        program, like = kept.program, kept.saved
        sizes = program.step.state_sizes
        library = self.library(program, like.dtype)
        settings = settings_of(library, program, order, save=True)
        sums = None  # per thread, since leaves of a parameter may overlap
        if program.units:
            sums = like.new_zeros(settings.threads, program.unit_size)
        dwx, products, buffers = backward_buffers(kept, grads[0], parameters)
        initial = tuple([like.new_empty(settings.B, size) for size in sizes])
        start: State = ()
        if order.resets is not None:
            start = tuple([like.new_zeros(settings.B, size) for size in sizes])
        buffers |= numbered("grad_initial", initial) | numbered("grad_start", start)
        buffers |= final_gradients(grads[1:])

        values = _addresses(buffers, order)
        if sums is not None:
            for i, unit in enumerate(program.units):
                column = program.unit_columns[unit]
                values[f"unit_{i}"] = sums.data_ptr() + column * sums.element_size()
        library.call("backward", settings, values, like)
        units = None
        if sums is not None:
            units = sums[0] if settings.threads == 1 else sums.sum(0)
        return Gradients(dwx, products, units, initial, start)


def _addresses(buffers: dict[str, Tensor], order: Order) -> _Values:
    """The addresses of buffers, lengths and resets, by member name."""
    found = addresses_of(buffers)
    if order.lengths is not None:
        found["lengths"] = order.lengths.data_ptr()
    if order.resets is not None:
        found["resets"] = order.resets.data_ptr()
    return found


C_LOOPS = CLoops()
TILED_LOOPS = CLoops(tiled=True)
