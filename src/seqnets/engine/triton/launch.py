"""Printed kernels, compiled by Triton, and their launches on tensors."""

from __future__ import annotations

import linecache
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import reduce
from operator import or_
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from seqnets.engine.buffers import addresses_of
from seqnets.engine.triton import functions, library
from seqnets.engine.triton.access import interpreted
from seqnets.engine.triton.kernel import Kernel, Numbers
from seqnets.engine.triton.tiles import Tiles

INTERPRETED = interpreted()

Buffers = dict[str, Tensor]
"""Tensors by the names of a kernel's pointers, which are None where there is no tensor."""

Constants = tuple[bool, bool, str]
"""The arguments SAVE, REVERSE and PRECISION of every kernel."""


class Pass:
    """The kernels of a pass over time, for some tiles.

    Attributes:
        source: Their source.
        tiles: How they are launched.
        scans: Number of scans over time for each unit.
        too_large: Whether a launch failed for lack of resources.
    """

    too_large = False

    def __init__(self, kernels: Sequence[Kernel], tiles: Tiles) -> None:
        # With numpy 2.4 or newer the interpreter supports only constant loop bounds.
        constants = ["T"] if INTERPRETED else []
        self.source = "\n\n".join(kernel.text(constants) for kernel in kernels)
        self.tiles = tiles
        self.scans = max(kernel.scans for kernel in kernels)
        self._pointers = {kernel.name: kernel.pointers for kernel in kernels}
        self.functions = _compiled(self.source, tuple(self._pointers))
        self._compiled: dict[Any, Any] = {}

    def run(self, buffers: Buffers, numbers: Numbers, constants: Constants) -> None:
        """Run all steps."""
        names, tiles = list(self.functions), self.tiles
        if tiles.mode == "time":
            pieces = tiles.pieces(numbers.B, numbers.T)
            for name, n in zip(names, (pieces - 1, pieces), strict=True):
                if n:
                    grid = tiles.programs * numbers.B, n, 1
                    self._launch(name, buffers, numbers, constants, grid)
        elif tiles.mode == "step":
            ends = [name for name in names if name.endswith("_end")]
            stages = names[: len(names) - len(ends)]
            for i in range(numbers.T):
                for name in stages:
                    self._launch(name, buffers, numbers._replace(i=i), constants)
            for name in ends:
                self._launch(name, buffers, numbers._replace(i=numbers.T), constants)
        else:
            self._launch(names[0], buffers, numbers, constants)

    def _launch(
        self,
        name: str,
        buffers: Buffers,
        numbers: Numbers,
        constants: Constants,
        grid: tuple[int, ...] = (),
    ) -> None:
        pointers, rest = self._pointers[name], (*numbers, *constants)
        grid = grid or (self.tiles.programs, self.tiles.groups, 1)
        if INTERPRETED:
            self.functions[name][grid](*map(buffers.get, pointers), *rest)
            return
        # A launch cache by Triton's own specialisation key, since Triton's lookup takes longer than
        # a launch. One buffer's dtype determines all, and raw addresses skip checks of tensors.
        places = addresses_of(buffers)
        aligned = reduce(or_, places.values()) % 16 == 0  # as torch's allocator does
        kind = () if aligned else tuple([place % 16 for place in places.values()])
        dtype, device = buffers["saved"].dtype, torch.cuda.current_device()
        key = name, dtype, tuple(places), kind, constants, device
        if key in self._compiled:
            self._compiled[key][grid](*map(places.get, pointers), *rest)
            return
        options: dict[str, Any] = {"num_warps": self.tiles.warps}
        if self.tiles.mode == "grid":
            options["launch_cooperative_grid"] = True  # fails rather than deadlocks
        tensors = map(buffers.get, pointers)
        self._compiled[key] = self.functions[name][grid](*tensors, *rest, **options)

    @property
    def resources(self) -> list[dict[str, Any]]:
        """What each kernel that has run uses."""
        return [
            {
                "kernel": key[0],
                "mode": self.tiles.mode,
                "registers": kernel.n_regs,  # per thread
                "spills": kernel.n_spills,  # bytes per thread
                "shared": kernel.metadata.shared,  # bytes of a program
                "warps": self.tiles.warps,  # of a program
            }
            for key, kernel in self._compiled.items()
        ]


def _compiled(source: str, names: Sequence[str]) -> dict[str, Any]:
    """Define the functions of a source, which Triton and tracebacks find in ``linecache``."""
    file = f"<seqnets kernels {abs(hash(source)):x}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    called = vars(library) | vars(functions)
    scope = {name: value for name, value in called.items() if not name.startswith("_")}
    scope |= {"triton": triton, "tl": tl, "__name__": library.__name__}
    exec(compile(source, file, "exec"), scope)  # text that was printed in this process
    return {name: scope[name] for name in names}


def on_device(device: torch.device) -> AbstractContextManager[Any]:
    """A context in which launches go to a device's current stream."""
    here = device.type != "cuda" or device.index == torch.cuda.current_device()
    return _HERE if here else torch.cuda.device(device)


_HERE = nullcontext()
