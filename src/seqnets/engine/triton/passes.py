"""What the printers of the forward and backward pass in Triton share."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from seqnets.engine.buffers import parameter_buffer
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
_LEAST = {"sum": "0.0", "max": "float('-inf')"}  # what changes no reduction


class PassPrinter:
    """Prints a pass; abstract.

    Attributes:
        name: "forward" or "backward".
        like: The buffer that determines the storage dtype.
        alone: Whether no program reads what another one wrote: mode "rows".
        meets: Whether programs synchronise after each stage: mode "grid".
        steps: Whether a launch is one stage of one step: mode "step".
        kernel: The kernel under construction.
        names: Variables or expressions of the nodes that it has computed.
    """

    name: str
    like: str

    def __init__(self, program: Program, tiles: Tiles) -> None:
        self.program, self.step, self.tiles = program, program.step, tiles
        self.stages = program.stages(self.name)
        self.widths = sorted({*self.step.state_sizes, *(stage.width for stage in self.stages)})
        self.units = dict(tiles.units)
        self.alone = tiles.mode == "rows"
        self.meets = tiles.mode == "grid"
        self.steps = tiles.mode == "step"
        self.kernel = Kernel(self.name)
        self.names: dict[Node, str] = {}

    def kernels(self) -> list[Kernel]:
        """Print the kernels, in execution order."""
        if self.steps:
            return self.write_steps()
        self.begin(self.name, self.widths)
        self.write_loop()
        return [self.kernel]

    # What the passes differ in.

    def write_loop(self) -> None:
        """Print the pass over all steps."""
        raise NotImplementedError

    def write_steps(self) -> list[Kernel]:
        """Print the kernels of one step."""
        raise NotImplementedError

    def reach(self, product: int) -> int:
        """The number of terms that a product sums."""
        raise NotImplementedError

    def weight(self, product: StageProduct, width: int, first: str) -> str:
        """The tile of the weight for some terms, from ``first`` on."""
        raise NotImplementedError

    @property
    def exchanged(self) -> frozenset[str]:
        """The kinds of buffers that other programs read during the pass."""
        raise NotImplementedError

    def keep(self, store: Store, stage: Stage) -> None:
        """Print a store for later stages, steps or the other pass."""
        raise NotImplementedError

    def leaf(self, node: Node, stage: Stage) -> str:
        """The variable of a leaf."""
        columns = node.what
        assert columns.source == "parameter", columns  # subclasses handle the others
        place = self.kernel.pointer(parameter_buffer(columns.key))
        name = f"v{place[1:]}_{columns.offset}_{node.width}"  # no pointer's name begins like this
        if not node.width:
            return self.kernel.once(name, f"tl.load({place}).to(tl.float32)")
        u = f"u_{self.index(node.width)}"
        first = f"{place} + {columns.offset}" if columns.offset else place
        return self.kernel.once(name, f"load_units({first}, {u}, {node.width})")

    # Where things are.

    def begin(self, name: str, widths: Sequence[int]) -> None:
        """Begin a kernel with the rows and units of a program."""
        self.kernel, self.names = Kernel(name), {}
        rows, lengths = self.tiles.rows, self.kernel.pointer("lengths")
        self.kernel.line(
            f"dtype = {self.kernel.pointer(self.like)}.dtype.element_ty",
            f"b = tl.program_id(1) * {rows} + tl.arange(0, {rows})",
            "rows = b < B",
            "length = tl.where(rows, T, 0)",
        )
        with self.kernel.given("lengths"):
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
        """The index of a width."""
        return self.widths.index(width)

    def at(
        self, place: str, row: str, columns: int, offset: int = 0, width: int = 0, *, when: str = ""
    ) -> str:
        """The place of a tile in a buffer, as kernels are told it; by default of all columns."""
        i, more = self.index(width or columns), f" + {offset}" if offset else ""
        inside = f"in_{i} & {when}" if when else f"in_{i}"
        return f"{self.kernel.pointer(place)}, {row} * {columns}{more}, u_{i}, {inside}"

    def load(self, *place: Any, when: str = "") -> str:
        """Load a tile, converted to float32; the arguments are those of ``at``."""
        return f"load({self.at(*place, when=when)})"

    def store(self, tile: str, *place: Any, when: str = "") -> None:
        """Print a store of a tile; the further arguments are those of ``at``."""
        self.kernel.line(f"store({self.at(*place, when=when)}, {tile})")

    def zeros(self, width: int) -> str:
        """A tile of zeros."""
        return f"tl.zeros([{self.tiles.rows}, {self.units[width]}], tl.float32)"

    def whole(self, node: Node | None, width: int) -> str:
        """A node broadcast to a full tile."""
        if node is None:
            return self.zeros(width)
        if node.op in COMPARISONS:
            return f"tl.where({self.names[node]}, {self.zeros(width)} + 1, 0.0)"
        return self.names[node] if _is_full(node) else f"{self.names[node]} + {self.zeros(width)}"

    def inside(self, tile: str, width: int, other: str = "0.0") -> str:
        """A tile with padding units set to zero, or another value."""
        whole = self.units[width] == width
        return tile if whole else f"tl.where(in_{self.index(width)}, {tile}, {other})"

    def reduced(self, k: int, op: str, tile: str, width: int) -> str:
        """Reduce the rows of a tile that has all units."""
        return self.variable(f"{op}_{k}", f"row_{op}({self.inside(tile, width, _LEAST[op])})")

    def reduced_by_all(self, k: int, op: str, place: str, width: int) -> str:
        """Reduce rows in memory that other programs wrote."""
        sizes = f"{width}, {power_of_two(width)}"
        rows = f"whole_rows({self.kernel.pointer(place)}, b, rows, {sizes}, {_LEAST[op]})"
        return self.variable(f"{op}_{k}", f"row_{op}({rows})")

    # What is computed.

    def compute(self, roots: Sequence[Node], stage: Stage) -> None:
        """Print the expressions that the roots need."""
        for node in walk(roots, self.names):
            if node.op == "const":
                self.names[node] = _constant(node.what)
            elif node.op == "leaf":
                self.names[node] = self.leaf(node, stage)
            else:
                self.names[node] = self.variable(f"e{node.serial}", _expression(node, self.names))

    def variable(self, name: str, value: str) -> str:
        """Print an assignment, and return the variable."""
        self.kernel.line(f"{name} = {value}")
        return name

    def load_saved(
        self, roots: Sequence[Node], nodes: dict[Node, int], row: str, when: str = ""
    ) -> None:
        """Print loads of the saved nodes that the roots need."""
        for node in reached_among(nodes, roots):
            if node not in self.names:
                size = self.program.saved_size
                value = self.load("saved", row, size, nodes[node], node.width, when=when)
                if node.op in COMPARISONS:
                    value = f"{value} != 0"
                self.names[node] = self.variable(f"k{node.serial}", value)

    def keep_all(self, stage: Stage, exchanged: bool) -> None:
        """Print a stage's stores: those that other programs read, or the rest."""
        for store in stage.stores:
            if (store.buffer.kind in self.exchanged) == exchanged:
                self.keep(store, stage)

    def product(self, product: StageProduct, width: int, operand: str, row: str) -> str:
        """Print a product whose operand other programs wrote, and return its variable."""
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

    def arrive(self) -> None:
        """Print the signal that this program's results are visible to those that share its rows."""
        if self.meets:
            self.kernel.line(f"arrive({self.counter()})")

    def wait(self) -> None:
        """Print the wait until all programs that share rows have signalled as often."""
        if self.meets:
            self.kernel.line("arrivals += tl.num_programs(0)", f"wait({self.counter()}, arrivals)")

    def counter(self) -> str:
        """The address of the group's arrival counter, alone in its cache line."""
        return f"{self.kernel.pointer('counter')} + tl.program_id(1) * 32"

    def end_beginning(self) -> None:
        """End the prologue before the loop."""
        self.kernel.end_of_beginning()
        if self.meets:
            self.kernel.line("arrivals = 0")

    def over_time(self) -> AbstractContextManager[None]:
        """The loop over steps, around the lines of the context."""
        stages = self.tiles.stages
        steps = f"tl.range(T, num_stages={stages})" if stages > 1 else "range(T)"
        return self.kernel.block(f"for i in {steps}:")

    def resets(self, time: str, when: str) -> str:
        """Whether the state of each row is reset before a step."""
        return f"is_set({self.kernel.pointer('resets')}, b * reset_b + {time} * reset_t, {when})"


def _is_full(node: Node) -> bool:
    """Whether a node's expression is known to have the shape of a full tile."""
    if node.op == "leaf":
        return bool(node.width) and node.source not in ("parameter", "reduction", "grad")
    return any(map(_is_full, node.args))


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
