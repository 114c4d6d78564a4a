"""A program as Triton: its two passes over time, for tiles of rows and units.

A pass is one kernel that runs over all steps, or in steps one kernel for each stage. In "rows" a
program keeps whole rows in its registers; else what others need goes through memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache

from seqnets.engine.graph import COMPARISONS, Node, reached_among, walk
from seqnets.engine.program import Buffer, Program, Stage, StageProduct, Store
from seqnets.engine.triton.tiles import Tiles, power_of_two

_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/",
    "gt": ">", "lt": "<", "ge": ">=", "le": "<=", "eq": "==", "ne": "!=",
}  # fmt: skip
_OF_TRITON = {
    "sigmoid", "exp", "log", "abs", "sqrt", "rsqrt", "sin", "cos", "erf", "floor", "where",
}  # fmt: skip
NUMBERS = (
    "B", "T",
    "row_b", "row_t",  # row b of step t is the (b * row_b + t * row_t)-th of a buffer
    "kept_b", "kept_t",  # the same for what is kept of a step
    "turn_t",  # the same, with kept_b, for the state before a step
    "reset_b", "reset_t",
    "i",  # which step it is, counted from the first that runs; for a launch of one step
    "piece",  # steps of a program, where programs share a row's
)  # fmt: skip
"""Whole numbers that every kernel takes."""


class Kernel:
    """A kernel as it is written.

    Attributes:
        name: Of its function.
        pointers: Buffers that it takes.
        scans: How many numbers of a unit are scanned over time.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.scans = 0
        self.pointers: dict[str, None] = {}
        self._lines: list[str] = []
        self._first: dict[str, str] = {}
        self._place = 0
        self._depth = 1
        self._ended = ("", 0, 0)  # the last block: its head, depth and end

    def line(self, *lines: str) -> None:
        """Write lines."""
        self._lines += ["    " * self._depth + line for line in lines]

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Write a block around what is written inside; two of the same head are one."""
        if self._ended != (head, self._depth, len(self._lines)):
            self.line(head)
        self._depth += 1
        yield
        self._depth -= 1
        self._ended = head, self._depth, len(self._lines)

    def once(self, name: str, value: str) -> str:
        """Compute something before the first step."""
        self._first.setdefault(name, f"    {name} = {value}")
        return name

    def end_of_beginning(self) -> None:
        """Here belongs what is computed before the first step."""
        self._place = len(self._lines)

    def pointer(self, name: str) -> str:
        """A buffer of the caller's."""
        name = name.replace(".", "_of_")  # a parameter of a cell inside the cell
        self.pointers[name] = None
        return name

    def text(self, constants: Sequence[str] = ()) -> str:
        """The function.

        Args:
            constants: Numbers for each of whose values it is compiled anew.
        """
        numbers = [f"{name}: tl.constexpr" if name in constants else name for name in NUMBERS]
        return "\n".join(
            [
                f"@triton.jit(do_not_specialize={[n for n in NUMBERS if n not in constants]})",
                f"def {self.name}(",
                *(f"    {name}," for name in self.pointers),
                f"    {', '.join(numbers)},",
                "    SAVE: tl.constexpr, REVERSE: tl.constexpr, PRECISION: tl.constexpr,",
                "):",
                *self._lines[: self._place],
                *self._first.values(),
                *self._lines[self._place :],
                "",
            ]
        )


def print_forward(program: Program, tiles: Tiles) -> list[Kernel]:
    """The forward pass: a kernel, or in steps one for each stage."""
    return ForwardPrinter(program, tiles, program.forward).kernels()


def print_backward(program: Program, tiles: Tiles) -> list[Kernel]:
    """The backward pass; in steps the last kernel is for the state before the first step."""
    return BackwardPrinter(program, tiles, program.backward).kernels()


@lru_cache(maxsize=256)
def unit_columns(program: Program) -> dict[Node, int]:
    """Where the gradients of parameters with one number a unit lie beside each other."""
    leaves = sorted(program.units, key=lambda leaf: (leaf.what.key, leaf.what.offset))
    columns, size = {}, 0
    for leaf in leaves:
        columns[leaf], size = size, size + program.units[leaf]
    return columns


class PassPrinter:
    """What both passes share.

    Attributes:
        name: "forward" or "backward".
        layout: The buffer whose dtype is that of all that is stored.
        kernel: What is being written.
        names: Variables, or expressions, of nodes that are known there.
    """

    name: str
    layout: str

    def __init__(self, program: Program, tiles: Tiles, stages: Sequence[Stage]) -> None:
        self.program, self.step, self.tiles, self.stages = program, program.step, tiles, stages
        self.widths = sorted({*program.step.state_sizes, *(stage.width for stage in stages)})
        self.units = dict(tiles.units)
        self.alone = tiles.mode == "rows"  # a program needs nothing of what others compute
        self.steps = tiles.mode == "step"
        self.exchanges = bool(self.step.products or self.step.sums)
        self.kernel = Kernel(self.name)
        self.names: dict[Node, str] = {}

    def kernels(self) -> list[Kernel]:
        """All of them, in the order in which they run."""
        if self.steps:
            return self.write_steps()
        self.begin(self.name, self.widths)
        self.write_loop()
        return [self.kernel]

    # What the passes differ in.

    def write_loop(self) -> None:
        """The pass over all steps."""
        raise NotImplementedError

    def write_steps(self) -> list[Kernel]:
        """Kernels for a step."""
        raise NotImplementedError

    def reach(self, product: int) -> int:
        """How many numbers of a row a product sums up."""
        raise NotImplementedError

    def weight(self, product: StageProduct, width: int, first: str) -> str:
        """What some columns are multiplied by."""
        raise NotImplementedError

    def leaf(self, node: Node, stage: Stage) -> str:
        """The variable of a leaf."""
        columns = node.what
        assert columns.source == "parameter", columns  # the passes know all others
        place = self.kernel.pointer(f"p_{columns.key}")
        if not node.width:
            return self.kernel.once(f"{place}_0", f"tl.load({place}).to(tl.float32)")
        u = f"u_{self.index(node.width)}"
        first = f"{place} + {columns.offset}" if columns.offset else place
        value = f"load_units({first}, {u}, {node.width})"
        return self.kernel.once(f"{place}_{columns.offset}", value)

    # Where things are.

    def begin(self, name: str, widths: Sequence[int]) -> None:
        """Begin a kernel: which rows and units a program computes."""
        self.kernel, self.names = Kernel(name), {}
        rows, lengths = self.tiles.rows, self.kernel.pointer("lengths")
        self.kernel.line(
            f"dtype = {self.kernel.pointer(self.layout)}.dtype.element_ty",
            f"b = tl.program_id(1) * {rows} + tl.arange(0, {rows})",
            "rows = b < B",
            "length = tl.where(rows, T, 0)",
        )
        with self.kernel.block(f"if {lengths} is not None:"):
            self.kernel.line(f"length = tl.load({lengths} + b, mask=rows, other=0)")
        self.kernel.line("b = b.to(tl.int64)")
        for width in widths:
            i, units = self.index(width), self.units[width]
            self.kernel.line(
                f"first_{i} = tl.program_id(0) * {units}",
                f"u_{i} = first_{i} + tl.arange(0, {units})",
                f"in_{i} = rows[:, None] & (u_{i} < {width})[None, :]",
            )

    def index(self, width: int) -> int:
        """Which of the widths it is."""
        return self.widths.index(width)

    def at(
        self, place: str, row: str, columns: int, offset: int, width: int, when: str = ""
    ) -> str:
        """Where a tile of units lies in a buffer, as ``load`` and ``store`` take it."""
        i, more = self.index(width), f" + {offset}" if offset else ""
        inside = f"in_{i} & {when}" if when else f"in_{i}"
        return f"{self.kernel.pointer(place)}, {row} * {columns}{more}, u_{i}, {inside}"

    def load(
        self, place: str, row: str, columns: int, offset: int, width: int, when: str = ""
    ) -> str:
        """A tile of units, in the precision of arithmetic."""
        return f"load({self.at(place, row, columns, offset, width, when)})"

    def store(
        self,
        place: str,
        row: str,
        columns: int,
        offset: int,
        width: int,
        value: str,
        when: str = "",
    ) -> None:
        """Store a tile of units."""
        at = self.at(place, row, columns, offset, width, when)
        self.kernel.line(f"store({at}, {value})")

    def zeros(self, width: int) -> str:
        """A tile of nothing."""
        return f"tl.zeros([{self.tiles.rows}, {self.units[width]}], tl.float32)"

    def whole(self, node: Node | None, width: int) -> str:
        """A node as a tile, even if all its rows or units are alike."""
        if node is None:
            return self.zeros(width)
        if node.op in COMPARISONS:
            return f"tl.where({self.names[node]}, {self.zeros(width)} + 1, 0.0)"
        return self.names[node] if _of_rows(node) else f"{self.names[node]} + {self.zeros(width)}"

    def inside(self, tile: str, width: int) -> str:
        """A tile with zeros beyond the last unit."""
        return (
            tile if self.units[width] == width else f"tl.where(in_{self.index(width)}, {tile}, 0.0)"
        )

    # What is computed.

    def compute(self, roots: Sequence[Node], stage: Stage) -> None:
        """Write what the roots need, one number a line."""
        for node in walk(list(roots), self.names):
            if node.op == "const":
                self.names[node] = _constant(node.what)
            elif node.op == "leaf":
                self.names[node] = self.leaf(node, stage)
            else:
                self.names[node] = self.variable(f"e{node.serial}", _expression(node, self.names))

    def variable(self, name: str, value: str) -> str:
        """Give a value a name."""
        self.kernel.line(f"{name} = {value}")
        return name

    def load_saved(self, roots: Sequence[Node], nodes: dict[Node, int], row: str) -> None:
        """Load what of some saved nodes the roots need."""
        for node in reached_among(nodes, roots):
            if node not in self.names:
                value = self.load("saved", row, self.program.saved_size, nodes[node], node.width)
                if node.op in COMPARISONS:
                    value = f"{value} != 0"
                self.names[node] = self.variable(f"k{node.serial}", value)

    def product(self, product: StageProduct, width: int, operand: str, row: str) -> str:
        """A product with rows that other programs wrote: its name."""
        tiles, k = self.tiles, product.product
        z, reach = f"z_{k}", self.reach(k)
        units = self.units[width] * power_of_two(product.blocks)
        self.kernel.line(f"{z} = nothing({tiles.rows}, {units}, {tiles.split})")
        place = self.kernel.pointer(operand)

        def add(first: str, weight: str) -> None:
            shape = f"{reach}, {tiles.split}, {tiles.depth}"
            self.kernel.line(
                f"value = shared_rows({place}, {row}, rows, {first}, {shape})",
                f"{z} = tl.dot(value, {weight}, {z}, input_precision=PRECISION)",
            )

        if tiles.resident:
            for j, first in enumerate(map(str, range(0, reach, tiles.depth))):
                add(first, self.kernel.once(f"w_{k}_{j}", self.weight(product, width, first)))
        else:
            head = f"for first in tl.range(0, {reach}, {tiles.depth}, num_stages=3):"
            with self.kernel.block(head):
                self.kernel.line(f"weight = {self.weight(product, width, 'first')}")
                add("first", "weight")
        if tiles.split > 1:
            self.kernel.line(f"{z} = shares_added({z}, {tiles.rows}, {units}, {tiles.split})")
        return z

    def meet(self) -> None:
        """Wait for the programs that share rows."""
        if self.tiles.mode == "grid" and self.exchanges:
            counter = f"{self.kernel.pointer('counter')} + tl.program_id(1) * 32"
            self.kernel.line("meetings += 1", f"meet({counter}, meetings, tl.num_programs(0))")

    def end_beginning(self) -> None:
        """Go over to the steps."""
        self.kernel.end_of_beginning()
        if self.tiles.mode == "grid" and self.exchanges:
            self.kernel.line("meetings = 0")

    def over_time(self) -> AbstractContextManager[None]:
        """The loop itself."""
        stages = self.tiles.stages
        steps = f"tl.range(T, num_stages={stages})" if stages > 1 else "range(T)"
        return self.kernel.block(f"for i in {steps}:")

    def resets(self, time: str, when: str) -> str:
        """Whether the state of each row is set anew before a step."""
        return f"is_set({self.kernel.pointer('resets')}, b * reset_b + {time} * reset_t, {when})"


class ForwardPrinter(PassPrinter):
    """The forward pass."""

    name = "forward"
    layout = "wx"

    def reach(self, product: int) -> int:
        """The columns of its weight."""
        return self.step.products[product].weight.columns

    def weight(self, product: StageProduct, width: int, first: str) -> str:
        """The gates of some units, side by side."""
        k, tiles, places = product.product, self.tiles, power_of_two(product.blocks)
        sizes = f"{self.units[width]}, {width}, {product.blocks}, {places}, {self.reach(k)}"
        where = f"{self.kernel.pointer(f'weight_{k}')}, first_{self.index(width)}, {first}"
        return f"gate_weights({where}, {sizes}, {tiles.split}, {tiles.depth})"

    def multiplied(self) -> set[int]:
        """State parts that other programs multiply."""
        if self.alone:
            return set()
        parts = (self.program.part_of(k) for k in range(len(self.step.products)))
        return {part for part in parts if part is not None}

    def leaf(self, node: Node, stage: Stage) -> str:
        """What the step has: its input's product, its state, and products and sums of that."""
        source, key, offset = node.what.source, node.what.key, node.what.offset
        if source == "wx":
            value = self.load("wx", "row", self.step.wx_size, offset, node.width)
            return self.variable(f"wx_{offset}", value)
        if source == "state":
            return self.state(key)
        if source == "product":
            return f"z_{key}_{offset // stage.width}"
        if source == "sum":
            return self.sum(key)
        return super().leaf(node, stage)

    def state(self, p: int) -> str:
        """The state part before the step."""
        if self.steps and p not in self._loaded:
            self._loaded.add(p)
            size = self.step.state_sizes[p]
            value = self.load(f"state_{p}", "((i % 2) * B + b)", size, 0, size)
            self.kernel.line(f"s_{p} = {value}")
        return f"s_{p}"

    def sum(self, k: int) -> str:
        """The sum over a row."""
        node = self.step.sums[k]
        if self.alone:
            tile = self.inside(self.whole(node, node.width), node.width)
            self.kernel.line(f"sum_{k} = tl.sum({tile}, 1)[:, None]")
        else:
            place = self.kernel.pointer(f"summand_{k}")
            sizes = f"{node.width}, {power_of_two(node.width)}"
            self.kernel.line(f"sum_{k} = row_sum({place}, b, rows, {sizes})")
        return f"sum_{k}"

    # Kernels.

    def write_loop(self) -> None:
        """One kernel."""
        sizes = list(enumerate(self.step.state_sizes))
        for p, size in sizes:
            self.kernel.line(f"s_{p} = {self.load(f'initial_{p}', 'b', size, 0, size)}")
        self.kernel.line("t = T - 1 if REVERSE else 0")
        with self.kernel.block(f"if {self.kernel.pointer('resets')} is not None:"):
            self.kernel.line(f"fresh = {self.resets('t', 't < length')}")
            for p, size in sizes:
                start = self.load(f"start_{p}", "b", size, 0, size)
                self.kernel.line(f"s_{p} = tl.where(fresh, {start}, s_{p})")
        self.end_beginning()
        for p, _ in sizes:
            self.keep_before(p, "t", "0", "t < length")
        self.meet()
        with self.over_time():
            self.write_places()
            for n, stage in enumerate(self.stages):
                self.write_stage(stage)
                if n + 1 < len(self.stages):
                    self.meet()
            self.write_end([p for p, _ in sizes])
            self.meet()
        for p, size in sizes:
            self.store(f"final_{p}", "b", size, 0, size, f"s_{p}")

    def write_steps(self) -> list[Kernel]:
        """A kernel for each stage."""
        kernels = []
        for n, stage in enumerate(self.stages):
            self.begin(f"{self.name}_{n}", [stage.width])
            self.kernel.end_of_beginning()
            self._loaded: set[int] = set()
            self.write_places()
            self.load_saved(self.roots(stage), self.program.crossing_into(stage), "kept")
            self.write_stage(stage)
            self.write_end(sorted(stage.state))
            kernels.append(self.kernel)
        return kernels

    def roots(self, stage: Stage) -> list[Node]:
        """What a stage computes."""
        return [*stage.state.values(), *(s.node for s in stage.stores if s.node is not None)]

    def write_places(self) -> None:
        """Which step it is, and where its rows lie."""
        self.kernel.line(
            "t = T - 1 - i if REVERSE else i",
            "then = t - 1 if REVERSE else t + 1",
            "valid = (t < length)[:, None]",
            "row = b * row_b + t * row_t",
            "kept = b * kept_b + t * kept_t",
            "before = b * kept_b + (t if SAVE else i % 2) * turn_t",
        )

    def write_stage(self, stage: Stage) -> None:
        """What a stage computes and keeps."""
        for product in stage.products:
            self.write_product(product, stage.width)
        self.compute(self.roots(stage), stage)
        for store in stage.stores:
            self.keep(store)

    def write_product(self, product: StageProduct, width: int) -> None:
        """A product, and its gates as tiles."""
        k, value = product.product, product.value
        places = power_of_two(product.blocks)
        units = self.units[width]
        if self.alone:
            node = self.step.products[k].value
            size = node.width
            tile = self.state(value.key) if value.kind == "state" else self.whole(node, size)
            shape = f"{units}, {width}, {product.blocks}, {places}, {size}, 1, {self.units[size]}"
            place = self.kernel.pointer(f"weight_{k}")
            weight = self.kernel.once(f"w_{k}", f"gate_weights({place}, 0, 0, {shape})")
            self.kernel.line(
                f"z_{k} = tl.dot(({self.inside(tile, size)}).to(dtype), {weight}, "
                f"input_precision=PRECISION)"
            )
        elif value.kind == "state":
            self.product(product, width, f"before_{value.key}", "before")
        else:
            self.product(product, width, f"value_{k}", "kept")
        names = [f"z_{k}_{g}" if g < product.blocks else "_" for g in range(places)]
        gates = f"gates_{places}(z_{k}, {self.tiles.rows}, {units})"
        self.kernel.line(f"{', '.join(names)} = {gates}" if places > 1 else f"{names[0]} = z_{k}")

    def keep(self, store: Store) -> None:
        """Store what later stages, or the backward pass, read."""
        node, k = store.node, store.buffer.key
        assert node is not None  # the forward pass stores what it computes
        width = node.width
        tile = f"tl.where(valid, {self.whole(node, width)}, 0.0)"
        if store.buffer.kind == "summand" and not self.alone:
            self.store(f"summand_{k}", "b", width, 0, width, self.whole(node, width))
        if store.buffer.kind == "value":
            with self.saving(not self.alone):
                self.store(f"value_{k}", "kept", width, 0, width, tile)
        if store.buffer.kind == "saved":
            with self.saving(self.steps and store.offset < self.program.crossing):
                size = self.program.saved_size
                self.store("saved", "kept", size, store.offset, width, tile)

    @contextmanager
    def saving(self, always: bool) -> Iterator[None]:
        """Around what is written for the backward pass alone, unless others need it too."""
        if always:
            yield
        else:
            with self.kernel.block("if SAVE:"):
                yield

    def keep_before(self, p: int, time: str, i: str, when: str) -> None:
        """Store a state part before a step, for those that multiply it and the backward pass."""
        size = self.step.state_sizes[p]
        if p not in self.program.befores and p not in self.multiplied():
            return
        row = f"(b * kept_b + ({time} if SAVE else {i} % 2) * turn_t)"
        tile = f"tl.where(({when})[:, None], s_{p}, 0.0)"
        with self.saving(p in self.multiplied()):
            self.store(f"before_{p}", row, size, 0, size, tile, f"({time} >= 0) & ({time} < T)")

    def write_end(self, parts: Sequence[int]) -> None:
        """From a step to the next."""
        for p in parts:
            after = self.whole(self.step.state[p], self.step.state_sizes[p])
            self.kernel.line(f"after_{p} = tl.where(valid, {after}, {self.state(p)})")
        for p in parts:
            size = self.step.state_sizes[p]
            if p == 0:
                self.store("y", "row", size, 0, size, "tl.where(valid, after_0, 0.0)")
            self.kernel.line(f"s_{p} = after_{p}")
        if not parts:
            return
        with self.kernel.block(f"if {self.kernel.pointer('resets')} is not None:"):
            within = "(then < length) & (then >= 0) & (then < T)"
            self.kernel.line(f"fresh = {self.resets('then', within)}")
            for p in parts:
                size = self.step.state_sizes[p]
                start = self.load(f"start_{p}", "b", size, 0, size, "fresh")
                self.kernel.line(f"s_{p} = tl.where(fresh, {start}, s_{p})")
        for p in parts:
            size = self.step.state_sizes[p]
            if self.steps:
                self.store(f"state_{p}", "(((i + 1) % 2) * B + b)", size, 0, size, f"s_{p}")
            self.keep_before(p, "then", "(i + 1)", "then < length")


class BackwardPrinter(PassPrinter):
    """The backward pass."""

    name = "backward"
    layout = "saved"

    def reach(self, product: int) -> int:
        """The rows of its weight."""
        return self.step.products[product].weight.rows

    def weight(self, product: StageProduct, width: int, first: str) -> str:
        """Some columns of all rows."""
        k, tiles = product.product, self.tiles
        where = f"{self.kernel.pointer(f'weight_{k}')}, first_{self.index(width)}, {first}"
        sizes = f"{self.units[width]}, {width}, {self.reach(k)}, {tiles.split}, {tiles.depth}"
        return f"turned_weights({where}, {sizes})"

    def leaf(self, node: Node, stage: Stage) -> str:
        """What the forward pass had or has kept, and gradients that come in."""
        source, key = node.what.source, node.what.key
        if source == "state":
            size = self.step.state_sizes[key]
            value = self.load(f"before_{key}", "row", size, 0, size)
            return self.variable(f"b_{key}", value)
        if source != "grad":
            return super().leaf(node, stage)
        kind, k = key
        if kind == "state":
            return f"g_{k}"
        if kind == "value":
            return self.through(k, stage.width, "row")
        if kind == "summand":
            return self.sum(k)
        return self.known("dcross", 0, k, stage.width)

    def known(self, kind: str, key: int, offset: int, width: int) -> str:
        """What another stage has left."""
        if not self.steps:
            return self.made[kind, key, offset][0]
        self.kernel.line(f"{kind}_{offset} = {self.load(*self.place(kind, key, offset), width)}")
        return f"{kind}_{offset}"

    def place(self, kind: str, key: int, offset: int) -> tuple[str, str, int, int]:
        """Where a gradient is kept: buffer, row, columns of it, and which."""
        if kind == "dwx" or (kind == "dz" and key in self.program.shared):
            return "grad_wx", "row", self.step.wx_size, offset
        if kind == "dz":
            return f"grad_z_{key}", "row", self.reach(key), offset
        if kind == "dsum":
            return f"grad_sum_{key}", "b", self.step.sums[key].width, 0
        if kind == "dcross":
            return "dcross", "b", self.program.crossing, offset
        if kind == "unit":
            leaf = list(self.program.units)[key]
            return (
                "grad_units",
                "b",
                sum(self.program.units.values()),
                unit_columns(self.program)[leaf],
            )
        return f"carries_{key}", "(((i + 1) % 2) * B + b)", self.step.state_sizes[key], 0

    def sum(self, k: int) -> str:
        """The sum over a row of gradients."""
        width = self.step.sums[k].width
        if self.alone:
            tile = self.inside(self.made["dsum", k, 0][0], width)
            self.kernel.line(f"sum_{k} = tl.sum({tile}, 1)[:, None]")
        else:
            place = self.kernel.pointer(f"grad_sum_{k}")
            self.kernel.line(f"sum_{k} = row_sum({place}, b, rows, {width}, {power_of_two(width)})")
        return f"sum_{k}"

    def through(self, k: int, width: int, row: str) -> str:
        """The gradient of what a product multiplied."""
        if not self.alone:
            product = StageProduct(k, Buffer("dz", k), 1)
            return self.product(product, width, self.place("dz", k, 0)[0], row)
        terms = []
        for (kind, key, offset), (tile, size) in self.made.items():
            if (kind, key) == ("dz", k):
                sizes = f"{self.units[width]}, {width}, {size}, 1, {self.units[size]}"
                place = f"{self.kernel.pointer(f'weight_{k}')} + {offset * width}"
                weight = f"turned_weights({place}, 0, 0, {sizes})"
                tile = f"({self.inside(tile, size)}).to(dtype)"
                weight = self.kernel.once(f"w_{k}_{offset}", weight)
                terms.append(f"tl.dot({tile}, {weight}, input_precision=PRECISION)")
        self.kernel.line(f"z_{k} = {' + '.join(terms) or self.zeros(width)}")
        return f"z_{k}"

    # Kernels.

    def write_loop(self) -> None:
        """One kernel."""
        sizes = list(enumerate(self.step.state_sizes))
        for p, size in sizes:
            self.kernel.line(f"carry_{p} = {self.zeros(size)}")
            place = self.kernel.pointer(f"grad_final_{p}")
            with self.kernel.block(f"if {place} is not None:"):
                self.kernel.line(f"carry_{p} = {self.load(place, 'b', size, 0, size)}")
            self.kernel.line(f"start_{p} = {self.zeros(size)}")
        units = list(enumerate(self.program.units.values()))
        for k, width in units:
            self.kernel.line(f"unit_{k} = {self.zeros(width)}")
        self.end_beginning()
        with self.over_time():
            self.write_places()
            for stage in self.stages:
                self.write_stage(stage)
                self.meet()
            for p, size in sizes:
                tile, _ = self.made.get(("carry", p, 0), (self.zeros(size), size))
                self.kernel.line(f"carry_{p} = {tile}")
            self.write_between("t", "row", [p for p, _ in sizes])
        self.write_initial()
        for k, width in units:
            self.store(*self.place("unit", k, 0), width, f"unit_{k}")

    def write_steps(self) -> list[Kernel]:
        """A kernel for each stage, and one for the end."""
        kernels = []
        for n, stage in enumerate(self.stages):
            self.begin(f"{self.name}_{n}", [stage.width])
            self.kernel.end_of_beginning()
            self.write_places()
            self.come_in(sorted(stage.state))
            self.write_stage(stage)
            self.leave(sorted(stage.state))
            kernels.append(self.kernel)
        self.begin(f"{self.name}_end", self.widths)
        self.kernel.end_of_beginning()
        self.write_places()
        self.come_in(range(len(self.step.state)))
        self.write_initial()
        return [*kernels, self.kernel]

    def come_in(self, parts: Sequence[int]) -> None:
        """In a launch of its own: what the step that ran before this one has left."""
        if not parts:
            return
        for p in parts:
            size = self.step.state_sizes[p]
            turn = "((i % 2) * B + b)"
            self.kernel.line(f"carry_{p} = {self.load(f'carries_{p}', turn, size, 0, size)}")
            self.kernel.line(f"start_{p} = {self.zeros(size)}")
            with self.kernel.block(f"if {self.kernel.pointer('resets')} is not None:"):
                self.kernel.line(f"start_{p} = {self.load(f'grad_start_{p}', 'b', size, 0, size)}")
        with self.kernel.block("if i > 0:"):
            self.kernel.line("later = t - 1 if REVERSE else t + 1")
            self.write_between("later", "(b * row_b + later * row_t)", parts)

    def leave(self, parts: Sequence[int]) -> None:
        """In a launch of its own: what does not depend on the stage's expressions."""
        for p in parts:
            size = self.step.state_sizes[p]
            with self.kernel.block(f"if {self.kernel.pointer('resets')} is not None:"):
                self.store(f"grad_start_{p}", "b", size, 0, size, f"start_{p}")

    def write_places(self) -> None:
        """Which step it is, and where its rows lie."""
        self.made: dict[tuple[str, int, int], tuple[str, int]] = {}
        self.kernel.line(
            "t = i if REVERSE else T - 1 - i",
            "valid = (t < length)[:, None]",
            "row = b * row_b + t * row_t",
        )

    def write_between(self, time: str, row: str, parts: Sequence[int]) -> None:
        """From a step back to the one before it."""
        for p in parts:
            for k in range(len(self.step.products)):
                if self.program.part_of(k) == p:
                    z = self.through(k, self.step.state_sizes[p], row)
                    self.kernel.line(f"carry_{p} = carry_{p} + {z}")
        with self.kernel.block(f"if {self.kernel.pointer('resets')} is not None:"):
            self.kernel.line(f"fresh = {self.resets(time, f'{time} < length')}")
            for p in parts:
                self.kernel.line(
                    f"start_{p} = start_{p} + tl.where(fresh, carry_{p}, 0.0)",
                    f"carry_{p} = tl.where(fresh, 0.0, carry_{p})",
                )

    def write_stage(self, stage: Stage) -> None:
        """The gradients of a stage."""
        for p in sorted(stage.state):
            self.kernel.line(f"g_{p} = carry_{p}")
        if 0 in stage.state:
            with self.kernel.block(f"if {self.kernel.pointer('grad_y')} is not None:"):
                size = self.step.state_sizes[0]
                value = self.load("grad_y", "row", size, 0, size)
                self.kernel.line(f"g_0 = g_0 + tl.where(valid, {value}, 0.0)")
        roots = [store.node for store in stage.stores if store.node is not None]
        self.load_saved(roots, self.program.saved, "row")
        self.compute(roots, stage)
        for store in stage.stores:
            self.keep(store, stage)

    def keep(self, store: Store, stage: Stage) -> None:
        """Hand a gradient on."""
        kind, k, width = store.buffer.kind, store.buffer.key, stage.width
        passes = kind == "carry" and k in stage.state
        if store.add and store.node is None and not passes:
            return
        place = kind, k, store.offset
        tile = self.whole(store.node, width)
        valid = f"in_{self.index(width)} & valid" if kind == "unit" else "valid"
        value = f"tl.where({valid}, {tile}, {f'g_{k}' if passes else '0.0'})"
        variable = f"{'next' if kind == 'carry' else kind}_{k}" + f"_{store.offset}" * (
            kind in ("dwx", "dz", "dcross")
        )
        if store.add and self.steps:
            value = f"{self.load(*self.place(*place), width)} + {value}"
        elif store.add:
            value = f"{variable} + {value}"
        self.kernel.line(f"{variable} = {value}")
        self.made[place] = variable, width
        shared = kind == "dz" and k in self.program.shared
        told = kind in ("dwx", "dz") or (kind == "dsum" and not self.alone) or self.steps
        if told and not shared:
            self.store(*self.place(*place), width, variable)

    def write_initial(self) -> None:
        """The gradients of the state before the first step, and of the one that a reset puts in."""
        for p, size in enumerate(self.step.state_sizes):
            self.store(f"grad_initial_{p}", "b", size, 0, size, f"carry_{p}")
            with self.kernel.block(f"if {self.kernel.pointer('resets')} is not None:"):
                self.store(f"grad_start_{p}", "b", size, 0, size, f"start_{p}")


def _of_rows(node: Node) -> bool:
    """Whether a node differs from row to row, and has a number for each unit."""
    if node.op == "leaf":
        return bool(node.width) and node.what.source not in ("parameter", "sum", "grad")
    return any(map(_of_rows, node.args))


def _constant(value: float) -> str:
    if value != value or value in (float("inf"), float("-inf")):
        return f"float('{value}')"
    return repr(value)


def _expression(node: Node, names: dict[Node, str]) -> str:
    args = [f"({names[arg]})" if names[arg].startswith("-") else names[arg] for arg in node.args]
    if node.op in _INFIX:
        return f"{args[0]} {_INFIX[node.op]} {args[1]}"
    if node.op == "neg":
        return f"-{args[0]}"
    if node.op == "reciprocal":
        return f"1.0 / {args[0]}"
    return f"{'tl.' if node.op in _OF_TRITON else ''}{node.op}({', '.join(args)})"
