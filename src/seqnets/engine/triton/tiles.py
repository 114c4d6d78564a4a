"""The choice of tile sizes and launch mode for a pass on a GPU, by sizes alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from seqnets.engine.program import Program


@dataclass(frozen=True)
class Device:
    """The resources that a choice depends on.

    Attributes:
        processors: Multiprocessors; at least as many programs run concurrently.
        memory: Bytes of shared memory of a program.
    """

    processors: int
    memory: int


@dataclass(frozen=True)
class Tiles:
    """How a pass is divided among programs and launched.

    Attributes:
        mode: "rows" (a program computes some rows alone, over all steps), "grid" (programs share
            the units of some rows and synchronise after each stage), "step" (a launch for each
            stage of each step), or "time" (programs share the steps of a row).
        rows: Rows of a tile; in "time", steps of one row.
        units: Units of a tile, by the width of a stage.
        programs: Programs that share rows.
        groups: Number of such groups; in "time" each row is one, and this is 1.
        split: Parts of a product's sum, one for each warp; 1 where warps do not split it.
        depth: Terms of a product's sum at a time.
        resident: Whether the weights stay on chip over all steps.
        warps: Warps of a program.
        stages: Steps that are pipelined.
    """

    mode: str
    rows: int
    units: tuple[tuple[int, int], ...]
    programs: int
    groups: int
    split: int
    depth: int
    resident: bool
    warps: int
    stages: int = 1

    @property
    def why(self) -> str:
        """The choice in words."""
        if self.mode == "time":
            return f"steps side by side, {self.rows} x {self.units[0][1]} units at a time"
        weights = "weights on chip" if self.resident else "weights from memory"
        shared = f"{self.groups} x {self.programs} programs of {self.rows} rows"
        if self.mode == "rows":
            return f"one launch, each program alone with its rows, {shared}"
        if self.mode == "grid":
            return f"one launch, programs meet at every stage, {shared}, {weights}"
        return f"a launch a stage, {shared}, {weights}"

    def piece(self, B: int, T: int) -> int:
        """Steps of a row for each program; in "time", few enough to occupy the GPU.

        Args:
            B: Rows.
            T: Steps.
        """
        if self.mode != "time":
            return T
        return self.rows * tiles_of_a_piece(self.programs * B, _parts(T, self.rows))

    def pieces(self, B: int, T: int) -> int:
        """The number of pieces into which a row's steps are cut."""
        return _parts(T, self.piece(B, T))


def tiles_of_a_piece(programs: int, tiles: int) -> int:
    """The number of tiles of time that a program runs sequentially.

    Args:
        programs: Number of programs if time is not cut.
        tiles: Number of tiles of time.
    """
    if programs >= _FULL:
        return tiles
    return max(1, tiles * programs // _ENOUGH, tiles // _MOST)


_FULL, _ENOUGH, _MOST = 1024, 2048, 256
"""Programs from which on time is not cut; programs to reach by cutting; the most pieces."""

_NUMBERS = 512
"""Elements of a tile of steps and units: a program is one warp, since warps scan serially.

Half as many where a step has more than ``_LIGHT`` numbers per unit, and a quarter where it has more
than ``_HEAVIER``, so that they fit in registers.
"""
_LIGHT, _HEAVIER = 6, 18

_Product = tuple[int, int, int]
"""A product's units, gates, and number of terms."""


@lru_cache(maxsize=4096)
def choose(
    program: Program, pass_: str, B: int, size: int, device: Device, mode: str | None = None
) -> Tiles:
    """The tiles of a pass.

    Args:
        program: The program.
        pass_: "forward" or "backward".
        B: Rows of the batch.
        size: Bytes of a product's operand element.
        device: The device.
        mode: A mode to use instead of the best.
    """
    stages = program.stages(pass_)
    widths = sorted({*program.step.state_sizes, *(stage.width for stage in stages)})
    products = _products(program, pass_)
    if mode == "time":
        return _over_time(program, widths[-1])
    alone = not program.step.products and not program.step.reductions
    if alone and mode in (None, "rows"):
        return _without_products(widths, B, device)
    if mode == "rows" or (mode is None and _fits_a_program(program, widths, size, device, pass_)):
        kept = program.saved_size + sum(program.step.state_sizes)
        light = len(products) == 1 and kept <= 6 * widths[-1]
        fewer = light and pass_ == "backward" and size == 2
        return _whole_rows(widths, products, B, 4 if fewer else 8)
    grid = mode == "grid" or (mode is None and device.processors)
    found = _grid(products, widths, B, size, device, pass_) if grid else None
    return found or _step(widths, B)


_NARROW = 64  # units: a step of so few is faster than a synchronisation (measured)


def _fits_a_program(
    program: Program, widths: Sequence[int], size: int, device: Device, pass_: str
) -> bool:
    """Whether rows are narrow, and the weights fit on chip beside what they meet there."""
    products = _products(program, pass_)
    if not products:
        return True
    weights = sum(
        max(16, power_of_two(width)) * power_of_two(gates) * power_of_two(reach) * size
        for width, gates, reach in products
    )
    needed = weights + _beside_weights(program, products, weights, size, pass_)
    return widths[-1] <= _NARROW and (needed <= device.memory or not device.processors)


def _beside_weights(
    program: Program, products: Sequence[_Product], weights: int, size: int, pass_: str
) -> int:
    """Bytes on chip that narrow rows need beside the weights, as measured on compiled kernels."""
    if len(products) > 1:
        return _OPERAND * size
    if pass_ == "backward":
        return max(_OPERAND, weights)
    ((width, gates, reach),) = products
    units = max(16, power_of_two(width))
    ahead = 2 * _parts(program.step.wx_size, width) * units * min(size, 4)  # inputs of two steps
    return 16 * (ahead + max(2 * units * power_of_two(gates), power_of_two(reach) * size))


def _whole_rows(widths: Sequence[int], products: Sequence[_Product], B: int, warps: int) -> Tiles:
    units = {width: max(16, power_of_two(width)) for width in widths}
    widest = max(units.values())
    rows = 16 if products else max(1, min(16, 2048 // widest))
    rows = max(rows, power_of_two(_parts(B, MOST_GROUPS)))
    return Tiles("rows", rows, tuple(units.items()), 1, _parts(B, rows), 1, 0, True, warps, 3)


MOST_GROUPS = 2**16 - 1
"""The most groups of rows of a launch."""


def _without_products(widths: Sequence[int], B: int, device: Device) -> Tiles:
    """Tiles for independent units: as many programs as there is work for."""
    widest = widths[-1]
    units = min(128, max(32, power_of_two(widest)))
    rows = 1
    while rows < 8 and _parts(B, rows) * _parts(widest, units) > 8 * max(1, device.processors):
        rows *= 2
    programs = _parts(widest, units)
    tiles = tuple((width, power_of_two(_parts(width, programs))) for width in widths)
    warps = max(1, min(4, rows * units // 128))
    return Tiles("rows", rows, tiles, programs, _parts(B, rows), 1, 0, True, warps, 4)


def over_time_pays(B: int, T: int, width: int, device: Device) -> bool:
    """Whether loops parallel over time are expected to be faster than sequential ones.

    A sequential step takes at least some 0.3 microseconds; parallel loops read and write all data
    up to twice. Nothing is gained once a step has as much data as a GPU moves in that time
    (computed, not measured).
    """
    return T >= 128 and B * width <= 250 * device.processors


def _over_time(program: Program, width: int) -> Tiles:
    """Tiles of steps and units of one row."""
    units = min(16, power_of_two(width))
    tiles = ((width, units),)
    of_a_step = program.step.wx_size + program.saved_size + width * len(program.befores)
    share = 1 if of_a_step <= _LIGHT * width else 2 if of_a_step <= _HEAVIER * width else 4
    steps = _NUMBERS // share // units
    return Tiles("time", steps, tiles, _parts(width, units), 1, 1, 0, True, 1)


def _products(program: Program, pass_: str) -> list[_Product]:
    """The products of a pass."""
    found = [
        (stage.width, product.blocks, program.step.products[product.product].weight)
        for stage in program.stages(pass_)
        for product in stage.products
    ]
    if pass_ == "forward":
        return [(width, gates, weight.columns) for width, gates, weight in found]
    return [(weight.columns, 1, weight.rows) for _, _, weight in found]


def _grid(
    products: Sequence[_Product],
    widths: Sequence[int],
    B: int,
    size: int,
    device: Device,
    pass_: str,
) -> Tiles | None:
    """The smallest tiles that all run concurrently; with resident weights if they fit."""
    if not products:
        return None
    widest = max(width for width, _, _ in products)
    usual = sum(16 * power_of_two(gates) * reach * size for _, gates, reach in products)
    heavy = pass_ == "forward" and usual > _HEAVY
    found = None
    for units, rows in ((8, 16), *_SHAPES) if heavy else _SHAPES:
        programs, groups = _parts(widest, units), _parts(B, rows)
        if programs * groups > device.processors:
            continue
        tiles = {width: max(8, power_of_two(_parts(width, programs))) for width in widths}
        places = max(tiles[width] * power_of_two(gates) for width, gates, _ in products)
        split = 8 if rows * places <= 4096 else 1
        longest = max(power_of_two(reach) for _, _, reach in products)
        operand = _OPERAND if split * rows * places <= _OPERAND // 2 else _OPERAND // 2
        depth = max(16 * split, min(longest, operand // (rows * size)))
        shape = tuple(tiles.items())
        while depth >= 16 * split:
            weights = sum(
                tiles[width] * power_of_two(gates) * _up(reach, depth) * size
                for width, gates, reach in products
            )
            if weights + max(_OPERAND, rows * depth * size) <= device.memory:
                return Tiles("grid", rows, shape, programs, groups, split, depth, True, 8)
            depth //= 2
        if found is None:  # each step streams the weights again, pipelined
            found = Tiles("grid", rows, shape, programs, groups, 1, 64, False, 8)
    return found


_SHAPES = (
    (16, 16), (16, 32), (8, 16), (16, 64), (8, 32), (32, 32), (32, 64), (64, 64)
)  # fmt: skip
"""Units and rows of a tile, the best first (measured)."""

_HEAVY = 96 * 2**10
"""Bytes of weights of 16 units above which reading them from shared memory takes so long that 8
are faster, though twice as many programs synchronise (measured, in the forward pass)."""

_OPERAND = 2**15  # bytes of a product's left operand at a time


def _step(widths: Sequence[int], B: int) -> Tiles:
    rows = min(32, max(16, power_of_two(B)))
    units = dict.fromkeys(widths, 16)
    programs = max(_parts(width, units[width]) for width in widths)
    tiles = tuple(units.items())
    return Tiles("step", rows, tiles, programs, _parts(B, rows), 1, 64, False, 8)


def power_of_two(number: int) -> int:
    """The smallest power of two that is at least a number."""
    return 1 << (number - 1).bit_length()


def _up(number: int, step: int) -> int:
    return _parts(number, step) * step


def _parts(whole: int, part: int) -> int:
    return -(-whole // part)
