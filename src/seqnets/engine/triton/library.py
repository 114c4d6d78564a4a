"""The device functions that printed kernels call: memory, scans, products and synchronisation.

Tiles are (rows, units). A product sums ``DEPTH`` terms at a time; with ``SPLIT`` each warp sums a
part of these, (SPLIT, rows, units), and the partial sums are added up last.
"""

from __future__ import annotations

import triton
import triton.language as tl

from seqnets.engine.triton.access import interpreted
from seqnets.engine.triton.functions import maximum


@triton.jit
def fetch(place, row, units, inside):
    """A tile of units, in the precision of the buffer; zeros where it is not inside."""
    at = place + row[:, None] + units[None, :]
    return tl.load(at, mask=inside, other=0.0)


@triton.jit
def load(place, row, units, inside):
    """A tile in the precision of arithmetic: unlike ``fetch``, this waits until it is there."""
    return fetch(place, row, units, inside).to(tl.float32)


@triton.jit
def store(place, row, units, inside, tile):
    """Store a tile of units, in the precision of the buffer."""
    at = place + row[:, None] + units[None, :]
    tl.store(at, tile.to(place.dtype.element_ty), mask=inside)


@triton.jit
def load_units(place, units, WIDTH: tl.constexpr):
    """A parameter with one number a unit, as one row."""
    return tl.load(place + units, mask=units < WIDTH, other=0.0)[None, :].to(tl.float32)


@triton.jit
def row_of(place, at, units, WIDTH: tl.constexpr, UNITS: tl.constexpr):
    """A row of units; zeros where there is no buffer."""
    row = tl.zeros([1, UNITS], tl.float32)
    if place is not None:
        row = load_units(place + at, units, WIDTH)
    return row


@triton.jit
def store_row(place, at, units, WIDTH: tl.constexpr, row):
    """Store a row of units."""
    tl.store(place + at + units[None, :], row, mask=(units < WIDTH)[None, :])


@triton.jit
def scanned(a, b):
    """Over the steps of a tile: the products of all a so far, and h = a h + b that begins at 0."""
    return tl.associative_scan((a, b), 0, two_steps)


@triton.jit
def two_steps(a, b, a_next, b_next):
    """Two steps of a scan as one."""
    return a_next * a, a_next * b + b_next


@triton.jit
def last_step(x, STEPS: tl.constexpr):
    """The last step of a tile, as a row."""
    last = tl.arange(0, STEPS)[:, None] == STEPS - 1
    return tl.sum(tl.where(last, x, 0.0), 0)[None, :]


@triton.jit
def handed_on(
    through, ends, at, c, units, WIDTH: tl.constexpr, UNITS: tl.constexpr, STEPS: tl.constexpr
):
    """What the pieces of time before one make of 0, each of which multiplies it and adds an end."""
    h = tl.zeros([1, UNITS], tl.float32)
    j = tl.arange(0, STEPS)[:, None]
    done = 0
    while done < c:
        inside = (j < c) & (units < WIDTH)[None, :]
        place = at + j * WIDTH + units[None, :]
        a, b = scanned(
            tl.load(through + place, mask=inside, other=1.0),
            tl.load(ends + place, mask=inside, other=0.0),
        )
        h = last_step(a, STEPS) * h + last_step(b, STEPS)
        j += STEPS
        done += STEPS
    return h


@triton.jit
def is_set(flags, at, inside):
    """Whether a flag of each row is set, (rows, 1)."""
    return (tl.load(flags + at, mask=inside, other=0) != 0)[:, None]


@triton.jit
def columns(first, SPLIT: tl.constexpr, DEPTH: tl.constexpr):
    """Indices of the next columns, (SPLIT, DEPTH / SPLIT)."""
    share: tl.constexpr = DEPTH // SPLIT
    return first + tl.arange(0, SPLIT)[:, None] * share + tl.arange(0, share)[None, :]


@triton.jit
def nothing(ROWS: tl.constexpr, UNITS: tl.constexpr, SPLIT: tl.constexpr):
    """A product before its first piece."""
    if SPLIT == 1:
        z = tl.zeros([ROWS, UNITS], tl.float32)
    else:
        z = tl.zeros([SPLIT, ROWS, UNITS], tl.float32)
    return z


@triton.jit
def shared_rows(
    place, row, rows, first, WIDTH: tl.constexpr, SPLIT: tl.constexpr, DEPTH: tl.constexpr
):
    """Columns of rows that other programs wrote: from the cache that all share."""
    if SPLIT == 1:
        k = first + tl.arange(0, DEPTH)
        inside = rows[:, None] & (k < WIDTH)[None, :]
        at = place + row[:, None] * WIDTH + k[None, :]
    else:
        k = columns(first, SPLIT, DEPTH)
        inside = rows[None, :, None] & (k < WIDTH)[:, None, :]
        at = place + row[None, :, None] * WIDTH + k[:, None, :]
    return tl.load(at, mask=inside, other=0.0, cache_modifier=".cg")


@triton.jit
def gate_weights(
    weight,
    first_unit,
    first,
    UNITS: tl.constexpr,
    WIDTH: tl.constexpr,
    GATES: tl.constexpr,
    PLACES: tl.constexpr,
    DEPTH_OF_ALL: tl.constexpr,
    SPLIT: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """What the forward pass multiplies by: the gates of a unit side by side, in PLACES places."""
    n = tl.arange(0, UNITS * PLACES)
    unit, gate = first_unit + n // PLACES, n % PLACES
    row = gate * WIDTH + unit
    there = (unit < WIDTH) & (gate < GATES)
    if SPLIT == 1:
        k = first + tl.arange(0, DEPTH)
        inside = (k < DEPTH_OF_ALL)[:, None] & there[None, :]
        at = weight + row[None, :] * DEPTH_OF_ALL + k[:, None]
    else:
        k = columns(first, SPLIT, DEPTH)
        inside = (k < DEPTH_OF_ALL)[:, :, None] & there[None, None, :]
        at = weight + row[None, None, :] * DEPTH_OF_ALL + k[:, :, None]
    return tl.load(at, mask=inside, other=0.0)


@triton.jit
def turned_weights(
    weight,
    first_unit,
    first,
    UNITS: tl.constexpr,
    WIDTH: tl.constexpr,
    DEPTH_OF_ALL: tl.constexpr,
    SPLIT: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """What the backward pass multiplies by: some columns of all rows of the weight."""
    unit = first_unit + tl.arange(0, UNITS)
    if SPLIT == 1:
        k = first + tl.arange(0, DEPTH)
        inside = (k < DEPTH_OF_ALL)[:, None] & (unit < WIDTH)[None, :]
        at = weight + k[:, None] * WIDTH + unit[None, :]
    else:
        k = columns(first, SPLIT, DEPTH)
        inside = (k < DEPTH_OF_ALL)[:, :, None] & (unit < WIDTH)[None, None, :]
        at = weight + k[:, :, None] * WIDTH + unit[None, None, :]
    return tl.load(at, mask=inside, other=0.0)


@triton.jit
def shares_added(z, ROWS: tl.constexpr, UNITS: tl.constexpr, SPLIT: tl.constexpr):
    """A product whose warps have each summed a share: halves on halves, which moves the least."""
    if SPLIT >= 16:
        a, b = tl.split(tl.permute(tl.reshape(z, [2, SPLIT // 2, ROWS, UNITS]), (1, 2, 3, 0)))
        z = a + b
    if SPLIT >= 8:
        a, b = tl.split(tl.permute(tl.reshape(z, [2, 4, ROWS, UNITS]), (1, 2, 3, 0)))
        z = a + b
    if SPLIT >= 4:
        a, b = tl.split(tl.permute(tl.reshape(z, [2, 2, ROWS, UNITS]), (1, 2, 3, 0)))
        z = a + b
    if SPLIT >= 2:
        a, b = tl.split(tl.permute(tl.reshape(z, [2, 1, ROWS, UNITS]), (1, 2, 3, 0)))
        z = a + b
    return tl.reshape(z, [ROWS, UNITS])


@triton.jit
def gates_2(z, ROWS: tl.constexpr, UNITS: tl.constexpr):
    """The two gates of a product, from side by side into tiles of their own."""
    return tl.split(tl.reshape(z, [ROWS, UNITS, 2]))


@triton.jit
def gates_4(z, ROWS: tl.constexpr, UNITS: tl.constexpr):
    """Four."""
    even, odd = tl.split(tl.reshape(z, [ROWS, UNITS, 2, 2]))
    z_0, z_2 = tl.split(even)
    z_1, z_3 = tl.split(odd)
    return z_0, z_1, z_2, z_3


@triton.jit
def gates_8(z, ROWS: tl.constexpr, UNITS: tl.constexpr):
    """Eight."""
    even, odd = tl.split(tl.reshape(z, [ROWS, UNITS, 4, 2]))
    z_0, z_2, z_4, z_6 = gates_4(tl.reshape(even, [ROWS, UNITS * 4]), ROWS, UNITS)
    z_1, z_3, z_5, z_7 = gates_4(tl.reshape(odd, [ROWS, UNITS * 4]), ROWS, UNITS)
    return z_0, z_1, z_2, z_3, z_4, z_5, z_6, z_7


@triton.jit
def gates_16(z, ROWS: tl.constexpr, UNITS: tl.constexpr):
    """Sixteen."""
    even, odd = tl.split(tl.reshape(z, [ROWS, UNITS, 8, 2]))
    z_0, z_2, z_4, z_6, z_8, z_10, z_12, z_14 = gates_8(
        tl.reshape(even, [ROWS, UNITS * 8]), ROWS, UNITS
    )
    z_1, z_3, z_5, z_7, z_9, z_11, z_13, z_15 = gates_8(
        tl.reshape(odd, [ROWS, UNITS * 8]), ROWS, UNITS
    )
    return (
        z_0, z_1, z_2, z_3, z_4, z_5, z_6, z_7, z_8, z_9, z_10, z_11, z_12, z_13, z_14, z_15
    )  # fmt: skip


@triton.jit
def whole_rows(place, row, rows, WIDTH: tl.constexpr, PADDED: tl.constexpr, other: tl.constexpr):
    """Rows that other programs wrote; another number beyond their last unit."""
    u = tl.arange(0, PADDED)
    inside = rows[:, None] & (u < WIDTH)[None, :]
    at = place + row[:, None] * WIDTH + u[None, :]
    return tl.load(at, mask=inside, other=other, cache_modifier=".cg")


@triton.jit
def row_sum(tile):
    """The sum of each row."""
    return tl.sum(tile, 1)[:, None]


@triton.jit
def row_max(tile):
    """The largest number of each row; NaN if there is one."""
    return tl.reduce(tile, 1, maximum)[:, None]


@triton.jit
def arrive(counter):
    """Tell the programs that share rows that what this one has written so far is there."""
    tl.debug_barrier()
    tl.atomic_add(counter, 1, sem="release", scope="gpu")


@triton.jit
def wait(counter, arrivals):
    """Wait until so many have arrived: what they had written by then is there for all.

    Only for programs that all run at once.
    """
    if INTERPRETED:
        while tl.atomic_add(counter, 0, sem="acquire", scope="gpu") < arrivals:
            pass
    else:
        tl.inline_asm_elementwise(
            _LOOK, "=r,l,r", [counter.to(tl.int64), arrivals], tl.int32, is_pure=False, pack=1
        )
    tl.debug_barrier()


INTERPRETED = tl.constexpr(interpreted())

_LOOK = tl.constexpr("""{
    .reg .pred others, fewer;
    .reg .u32 thread;
    mov.u32 $0, 0;
    mov.u32 thread, %tid.x;
    setp.ne.u32 others, thread, 0;
    @others bra DONE;
AGAIN:
    ld.acquire.gpu.global.u32 $0, [$1];
    setp.lt.s32 fewer, $0, $2;
    @fewer bra AGAIN;
DONE:
}""")
"""One thread of the program looks at the counter again and again; Triton has no such load."""
