"""Prints a program that is linear in its state as Triton kernels, parallel over time.

Each GPU program runs some units of one row through a piece of time, tile by tile. What a step reads
of the step before comes from an associative scan over the tile, of that step's factor and summand;
these are recomputed from data that is loaded a second time, from the cache. All else is the step's
expressions, as in sequential loops. Where rows and units are too few to occupy a GPU, time is cut:
a first launch summarises the effect of each piece on any state.

Memory traffic of a minimal GRU, in units of (B, T, H): forward 2 reads and 4 writes (outputs, and
what the backward pass needs), backward 4 and 2; with pieces, 2 more reads in each pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from seqnets.engine.graph import Columns, Node
from seqnets.engine.linear import Linear, recurrences
from seqnets.engine.program import Program, Stage, Store
from seqnets.engine.triton.backward import BackwardPrinter
from seqnets.engine.triton.forward import ForwardPrinter
from seqnets.engine.triton.kernel import Kernel
from seqnets.engine.triton.passes import PassPrinter
from seqnets.engine.triton.tiles import Tiles


class _OverTime(PassPrinter):
    """What both passes share.

    Attributes:
        linear: The recurrences of this pass, by state part.
        shift: By how many steps the values under construction precede the tile's.
        scans: The scans so far: pairs of state part and shift.
    """

    linear: dict[int, Linear]
    shift: int = 0

    def __init__(self, program: Program, tiles: Tiles) -> None:
        super().__init__(program, tiles)
        found = recurrences(program)
        assert found is not None  # else this mode is not chosen
        self.linear = getattr(found, self.name)
        self.width = program.step.state_sizes[0]
        self.scans: list[tuple[int, int]] = []

    # What the passes differ in.

    def time_of(self, step: str) -> str:
        """The time of a step of the pass."""
        raise NotImplementedError

    first: str
    """The first step of the pass within the lengths."""

    def write_tile(self) -> None:
        """Print the computation of a tile."""
        raise NotImplementedError

    def write_last(self) -> None:
        """Print what follows the last tile."""

    def coming(self, p: int) -> str:
        """The variable of what a step reads of the step before, in the order of the pass."""
        raise NotImplementedError

    # Kernels.

    def kernels(self) -> list[Kernel]:
        """Print the kernel that summarises pieces, and the pass itself."""
        self.summarises = False
        self.begin_row(self.name)
        with self.over_tiles():
            self.write_tile()
        self.write_last()
        whole = self.kernel

        scans, self.summarises = self.scans, True
        self.scans = []
        self.begin_row(f"{self.name}_ends")
        with self.over_tiles():
            for p, shift in scans:
                with self.earlier(shift):
                    self.coming(p)
        for j in range(len(scans)):
            at = f"(({j} * B + b) * tl.num_programs(1) + c) * {self.width}"
            for name in ("through", "ends"):
                self.store_row(name, at, f"{name}_{j}")
        for kernel in (self.kernel, whole):
            kernel.scans = len(scans)
        return [self.kernel, whole]

    def begin_row(self, name: str) -> None:
        """Begin a kernel with the row, units and piece of time of a program."""
        self.kernel = Kernel(name)
        programs, units = self.tiles.programs, self.units[self.width]
        self.kernel.line(
            f"b = (tl.program_id(0) // {programs}).to(tl.int64)",
            "c = tl.program_id(1)",
            f"u_0 = tl.program_id(0) % {programs} * {units} + tl.arange(0, {units})",
            "length = T",
        )
        with self.kernel.given("lengths"):
            self.kernel.line("length = tl.load(lengths + b)")
        self.kernel.line(f"begin = {self.first}")

    @contextmanager
    def over_tiles(self) -> Iterator[None]:
        """Print the loop over a piece's tiles, around the lines of the context."""
        self.write_beginning()
        self.kernel.end_of_beginning()
        self.kernel.line("done = c * piece", "stop = tl.minimum(done + piece, T)")
        self.names_of: dict[int, dict[Node, str]] = {}
        with self.kernel.block("while done < stop:"):
            with self.earlier(0):
                yield
            self.kernel.line(f"done += {self.tiles.rows}")

    def write_beginning(self) -> None:
        """Print what precedes the first tile."""

    # Steps before those of the tile.

    @contextmanager
    def earlier(self, shift: int) -> Iterator[None]:
        """Compute, within the context, values ``shift`` steps before the tile's."""
        outer = self.shift, self.names
        self.shift = shift
        if shift not in self.names_of:
            self.names_of[shift] = {}
            self.write_places()
        self.names = self.names_of[shift]
        yield
        self.shift, self.names = outer

    def own(self, name: str, shift: int | None = None) -> str:
        """The name of a variable at a shift, by default the current one."""
        shift = self.shift if shift is None else shift
        return f"{name}_{shift}_before" if shift else name

    def variable(self, name: str, value: str) -> str:
        return super().variable(self.own(name), value)

    def at(
        self, place: str, row: str, columns: int, offset: int = 0, width: int = 0, *, when: str = ""
    ) -> str:
        row = self.own(row) if row == "row" else row
        more, inside = f" + {offset}" if offset else "", self.own("in_0")
        inside = f"{inside} & {when}" if when else inside
        return f"{self.kernel.pointer(place)}, {row} * {columns}{more}, u_0, {inside}"

    def write_places(self) -> None:
        """Print the steps of the tile at the current shift, and their rows in the buffers."""
        back = f" - {self.shift}" if self.shift else ""
        self.variable("step", f"done{back} + tl.arange(0, {self.tiles.rows})")
        step, t = self.own("step"), self.own("t")
        self.variable("t", self.time_of(step))
        self.variable("there", f"({step} >= 0) & ({step} < T)")
        there = self.own("there")
        self.variable("in_0", f"{there}[:, None] & (u_0 < {self.width})[None, :]")
        self.variable("row", f"b * row_b + {t} * row_t")
        self.variable("valid", f"({there} & ({t} < length))[:, None]")
        self.variable("begins", f"({step} == begin)[:, None]")
        with self.kernel.given("resets"):
            self.variable("fresh", self.resets(t, f"{there} & ({t} < length)"))

    def value(self, node: Node, shift: int) -> str:
        """The variable of a node's value ``shift`` steps before the tile's."""
        with self.earlier(shift):
            self.load_saved([node], self.program.saved if self.name == "backward" else {}, "row")
            self.compute([node], self.stages[0])
            return self.whole(node, self.width)

    # Scans.

    def of_step_before(self, p: int) -> tuple[str, str | None]:
        """The summand of the step before, and its factor, None for a delay.

        Both are zero where that step is not within the lengths.
        """
        linear, then = self.linear[p], self.shift + 1
        summand = self.value(linear.b[0], then)
        factor = None if linear.moves else self.value(linear.a[0], then)
        valid = self.own("valid", then)
        summand = self.variable(f"summand_{p}", f"tl.where({valid}, {summand}, 0.0)")
        if factor is not None:
            factor = self.variable(f"factor_{p}", f"tl.where({valid}, {factor}, 0.0)")
        return summand, factor

    def row(self, place: str, p: int) -> str:
        """A row of units of a state part, hoisted; zeros if the buffer is absent."""
        name = self.kernel.pointer(f"{place}_{p}")
        value = f"row_of({name}, b * {self.width}, u_0, {self.width}, {self.units[self.width]})"
        return self.kernel.once(f"{name}_row", value)

    def store_row(self, place: str, at: str, row: str) -> None:
        """Print the store of a row of units."""
        place = self.kernel.pointer(place)
        self.kernel.line(f"store_row({place}, {at}, u_0, {self.width}, {row})")

    def scanned(self, p: int, factor: str, summand: str) -> str:
        """Print the scan of a recurrence over the tile, and return its variable."""
        j, steps, units = len(self.scans), self.tiles.rows, self.units[self.width]
        self.scans.append((p, self.shift))
        product, total = self.own(f"product_{p}"), self.own(f"total_{p}")
        self.kernel.line(f"{product}, {total} = scanned({factor}, {summand})")
        if self.summarises:
            self.kernel.once(f"through_{j}", f"tl.full([1, {units}], 1.0, tl.float32)")
            self.kernel.once(f"ends_{j}", f"tl.zeros([1, {units}], tl.float32)")
            self.kernel.line(
                f"last = last_step({product}, {steps})",
                f"ends_{j} = last * ends_{j} + last_step({total}, {steps})",
                f"through_{j} = last * through_{j}",
            )
            return total
        places = f"{self.kernel.pointer('through')}, {self.kernel.pointer('ends')}"
        at = f"({j} * B + b) * (tl.num_programs(1) - 1) * {self.width}"
        self.kernel.once(
            f"carry_{j}", f"handed_on({places}, {at}, c, u_0, {self.width}, {units}, {steps})"
        )
        self.kernel.line(
            f"{total} = {product} * carry_{j} + {total}",
            f"carry_{j} = last_step({total}, {steps})",
        )
        return total

    def last(self, time: str) -> None:
        """Print the mask of a row's last step; for an empty row, of its first one."""
        self.kernel.line(
            f"end = {time}",
            "last = ((t == end) & (length > 0) | (step == 0) & (length == 0))[:, None]",
        )


class ForwardOverTime(_OverTime, ForwardPrinter):
    """Prints the forward pass: outputs, states, and what is kept."""

    first = "T - length if REVERSE else 0"

    def time_of(self, step: str) -> str:
        """The time of a step of the pass."""
        return f"T - 1 - {step} if REVERSE else {step}"

    def leaf(self, node: Node, stage: Stage) -> str:
        """The variable of a leaf; the state comes from a scan."""
        if node.source == "state":
            return self.coming(node.what.key)
        return super().leaf(node, stage)

    def coming(self, p: int) -> str:
        """The variable of a state part before the step."""
        new, factor = self.of_step_before(p)
        begins, first = self.own("begins"), self.row("initial", p)
        self.kernel.line(f"{new} = tl.where({begins}, {first}, {new})")
        with self.kernel.given("resets"):
            fresh, start = self.own("fresh"), self.row("start", p)
            self.kernel.line(f"{new} = tl.where({fresh}, {start}, {new})")
            if factor is not None:
                self.kernel.line(f"{factor} = tl.where({fresh}, 0.0, {factor})")
        return new if factor is None else self.scanned(p, factor, new)

    def write_tile(self) -> None:
        """Print the computation of a tile, and its stores."""
        self.kernel.line("kept = b * kept_b + t * kept_t")
        self.write_stage(self.stages[0])
        self.keep_all(self.stages[0], exchanged=False)
        for p in self.program.befores:
            before = self.value(self.step.graph.leaf(Columns("state", p), self.width), 0)
            with self.saving(False):
                tile = f"tl.where(valid, {before}, 0.0)"
                self.store(tile, f"before_{p}", "kept", self.width)
        self.last("0 if REVERSE else length - 1")
        for p, node in enumerate(self.step.state):
            after = self.whole(node, self.width)
            if p == 0:
                value = f"tl.where(valid, {after}, 0.0)"
                self.store(value, "y", "row", self.width)
            value = f"tl.where(length == 0, {self.row('initial', p)}, {after})"
            self.store(value, f"final_{p}", "(b + step * 0)", self.width, when="last")


class BackwardOverTime(_OverTime, BackwardPrinter):
    """Prints the backward pass: gradients, from the last step to the first."""

    first = "0 if REVERSE else T - length"

    def time_of(self, step: str) -> str:
        """The time of a step of the pass."""
        return f"{step} if REVERSE else T - 1 - {step}"

    def leaf(self, node: Node, stage: Stage) -> str:
        """The variable of a leaf; incoming gradients come from a scan."""
        if node.source == "grad":
            return self.coming(node.what.key[1])
        return super().leaf(node, stage)

    def coming(self, p: int) -> str:
        """The variable of the gradient of a state part after the step."""
        begins, final = self.own("begins"), self.row("grad_final", p)
        new = self.variable(f"g_{p}", f"tl.where({begins}, {final}, 0.0)")
        if p == 0:
            with self.kernel.given("grad_y"):
                value = self.load("grad_y", "row", self.width)
                self.kernel.line(f"{new} = {new} + tl.where({self.own('valid')}, {value}, 0.0)")
        if p not in self.linear:
            return new
        more, factor = self.of_step_before(p)
        with self.kernel.given("resets"):
            for found in filter(None, (more, factor)):
                self.kernel.line(
                    f"{found} = tl.where({self.own('fresh', self.shift + 1)}, 0.0, {found})"
                )
        self.kernel.line(f"{new} = {new} + {more}")
        return new if factor is None else self.scanned(p, factor, new)

    def write_beginning(self) -> None:
        """Print the sums over a piece, before its first tile."""
        if self.summarises:
            return
        for k in range(len(self.program.units)):
            self.kernel.line(f"unit_{k} = {self.no_row}")
        for p in range(len(self.step.state)):
            self.kernel.line(f"start_{p} = {self.no_row}")

    @property
    def no_row(self) -> str:
        """A row of zeros."""
        return f"tl.zeros([1, {self.units[self.width]}], tl.float32)"

    def write_tile(self) -> None:
        """Print the computation of a tile, and its stores."""
        (stage,) = self.stages
        self.load_saved(stage.stored, self.program.saved, "row")
        self.compute(stage.stored, stage)
        self.last("length - 1 if REVERSE else 0")
        for store in stage.stores:
            self.keep(store, stage)

    def keep(self, store: Store, stage: Stage) -> None:
        """Print the store of a gradient, or its addition to a sum over the piece."""
        kind, k, tile = store.buffer.kind, store.buffer.key, self.whole(store.node, self.width)
        tile = f"tl.where(valid, {tile}, 0.0)"
        if kind == "dwx":
            self.store(tile, *self.place(kind, k, store.offset), self.width)
        elif kind == "unit":
            self.kernel.line(f"unit_{k} += tl.sum({self.inside(tile, self.width)}, 0)[None, :]")
        else:
            self.kernel.line(f"next_{k} = {tile}")
            with self.kernel.given("resets"):
                self.kernel.line(
                    f"start_{k} += tl.sum(tl.where(fresh, next_{k}, 0.0), 0)[None, :]",
                    f"next_{k} = tl.where(fresh, 0.0, next_{k})",
                )
            value = f"tl.where(length == 0, {self.row('grad_final', k)}, next_{k})"
            place = f"grad_initial_{k}", "(b + step * 0)", self.width
            self.store(value, *place, when="last")

    def write_last(self) -> None:
        """Print the stores of what was summed over a piece."""
        for k in range(len(self.program.units)):
            place, _, columns, first = self.place("unit", k, 0)
            self.store_row(place, f"(c * B + b) * {columns} + {first}", f"unit_{k}")
        with self.kernel.given("resets"):
            for p in range(len(self.step.state)):
                self.store_row(f"grad_start_{p}", f"(c * B + b) * {self.width}", f"start_{p}")
