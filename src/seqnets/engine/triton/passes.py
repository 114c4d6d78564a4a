"""A pass over time as Triton: what the forward and the backward one share."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from seqnets.engine.graph import COMPARISONS, Node, reached_among, walk
from seqnets.engine.program import Program, Stage, StageProduct, Store
from seqnets.engine.triton.kernel import Kernel
from seqnets.engine.triton.tiles import Tiles, power_of_two

_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/",
    "gt": ">", "lt": "<", "ge": ">=", "le": "<=", "eq": "==", "ne": "!=",
}  # fmt: skip
_OF_TRITON = {
    "sigmoid", "exp", "exp2", "log", "abs", "sqrt", "rsqrt", "sin", "cos", "erf", "floor", "where",
}  # fmt: skip


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
        self.exchanges = bool(self.step.products or self.step.reductions)
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

    @property
    def told(self) -> frozenset[str]:
        """The kinds of buffers that other programs read within the pass."""
        raise NotImplementedError

    def keep(self, store: Store, stage: Stage) -> None:
        """Store what later stages, steps or the other pass read."""
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

    def inside(self, tile: str, width: int, other: str = "0.0") -> str:
        """A tile with zeros, or another number, beyond the last unit."""
        whole = self.units[width] == width
        return tile if whole else f"tl.where(in_{self.index(width)}, {tile}, {other})"

    def reduced(self, k: int, op: str, tile: str, width: int) -> str:
        """One number of each row of a tile that has all units."""
        least = {"sum": "0.0", "max": "float('-inf')"}[op]
        value = f"row_{op}({self.inside(tile, width, least)})"
        return self.variable(f"{op}_{k}", value)

    def reduced_by_all(self, k: int, op: str, place: str, width: int) -> str:
        """The same of rows that other programs wrote."""
        sizes = f"{width}, {power_of_two(width)}"
        least = {"sum": "0.0", "max": "float('-inf')"}[op]
        rows = f"whole_rows({self.kernel.pointer(place)}, b, rows, {sizes}, {least})"
        return self.variable(f"{op}_{k}", f"row_{op}({rows})")

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

    def load_saved(
        self, roots: Sequence[Node], nodes: dict[Node, int], row: str, when: str = ""
    ) -> None:
        """Load what of some saved nodes the roots need."""
        for node in reached_among(nodes, roots):
            if node not in self.names:
                size = self.program.saved_size
                value = self.load("saved", row, size, nodes[node], node.width, when)
                if node.op in COMPARISONS:
                    value = f"{value} != 0"
                self.names[node] = self.variable(f"k{node.serial}", value)

    def keep_all(self, stage: Stage, told: bool) -> None:
        """Store what a stage keeps: what other programs read, or the rest."""
        for store in stage.stores:
            if (store.buffer.kind in self.told) == told:
                self.keep(store, stage)

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

    @property
    def meets(self) -> bool:
        """Whether programs wait for each other."""
        return self.tiles.mode == "grid" and self.exchanges

    def arrive(self) -> None:
        """Tell the programs that share rows that what they need of this one is there."""
        if self.meets:
            self.kernel.line(f"arrive({self.counter()})")

    def wait(self) -> None:
        """Wait until all that share rows have arrived as often as this one."""
        if self.meets:
            self.kernel.line("arrivals += tl.num_programs(0)", f"wait({self.counter()}, arrivals)")

    def counter(self) -> str:
        """Where arrivals are counted: a line of memory for each group of programs."""
        return f"{self.kernel.pointer('counter')} + tl.program_id(1) * 32"

    def end_beginning(self) -> None:
        """Go over to the steps."""
        self.kernel.end_of_beginning()
        if self.meets:
            self.kernel.line("arrivals = 0")

    def over_time(self) -> AbstractContextManager[None]:
        """The loop itself."""
        stages = self.tiles.stages
        steps = f"tl.range(T, num_stages={stages})" if stages > 1 else "range(T)"
        return self.kernel.block(f"for i in {steps}:")

    def resets(self, time: str, when: str) -> str:
        """Whether the state of each row is set anew before a step."""
        return f"is_set({self.kernel.pointer('resets')}, b * reset_b + {time} * reset_t, {when})"


def _of_rows(node: Node) -> bool:
    """Whether a node differs from row to row, and has a number for each unit."""
    if node.op == "leaf":
        return bool(node.width) and node.what.source not in ("parameter", "reduction", "grad")
    return any(map(_of_rows, node.args))


def _constant(value: float) -> str:
    if value != value or value in (float("inf"), float("-inf")):
        return f"float('{value}')"
    return repr(value)


def _expression(node: Node, names: dict[Node, str]) -> str:
    args = [f"({names[arg]})" if names[arg].startswith("-") else names[arg] for arg in node.args]
    if node.op in _INFIX:
        return f"{args[0]} {_INFIX[node.op]} {args[1]}"
    if node.op == "detach":
        return args[0]
    if node.op == "neg":
        return f"-{args[0]}"
    if node.op == "reciprocal":
        return f"1.0 / {args[0]}"
    return f"{'tl.' if node.op in _OF_TRITON else ''}{node.op}({', '.join(args)})"
