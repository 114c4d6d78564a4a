"""What the printers of the forward and backward pass in C share.

A pass becomes one function for each stage, and one around them that each thread runs over time.
Products work on panels: weights packed by columns of a few vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from seqnets.engine.buffers import parameter_buffer
from seqnets.engine.c.expressions import constant, expression, loaded, stored
from seqnets.engine.c.panels import Panels, vectors_of, wide_of
from seqnets.engine.c.text import Text
from seqnets.engine.graph import Node, reached_among, walk
from seqnets.engine.program import Program, Stage, StageProduct

_TURNS = {"": "room", "now": "now", "(1 - now)": "next"}  # how rows of the workspace are called


class PassPrinter:
    """Prints a pass; abstract.

    Attributes:
        name: "forward" or "backward".
        source: C expression of the other step that a stage's products may read.
        coming: C expression of the step before which a stage may set the state of a row anew.
        stages: The program's stages of this pass.
        widths: Vectors in a panel, of each product and of the input's projection.
        panels: The panels of its weights.
        declared: How a stage's function is declared.
        tiled: Whether tiles of bfloat16 multiply, as in ``tiled_loops.h``.
    """

    name: str
    source: str
    coming: str

    def __init__(self, program: Program, text: Text, tiled: bool) -> None:
        self.program, self.step, self.text, self.tiled = program, program.step, text, tiled
        self.stages = stages = program.stages(self.name)
        self.line, self.size, self.pointer = text.line, text.size, text.pointer
        self.arguments = f"const Call *c, const {self.name.title()}Room *m, const Share *s"
        self.exchanges = bool(self.step.products or self.step.reductions)
        self.panels = Panels(text, self.reach, tiled)
        self._of_row: dict[str, str] = {}  # declarations by the names that they declare
        self.widths = {wide_of(p, s) for s in stages for p in s.products}
        self.declared = "APART" if len(stages) > 1 else "static"  # one alone: in the loop

    # What the passes differ in.

    def room(self) -> dict[str, str]:
        """Members of the workspace beside the weights, and the number of elements of each."""
        raise NotImplementedError

    def reach(self, product: int) -> int:
        """The number of terms that a product sums."""
        raise NotImplementedError

    def pack(self, product: StageProduct, stage: Stage, panel: str) -> str:
        """The call that packs a panel of a weight."""
        raise NotImplementedError

    def leaf(self, node: Node, stage: Stage) -> str:
        """A leaf of an expression."""
        columns = node.what
        assert columns.source == "parameter", columns  # subclasses handle the others
        name = self.pointer(parameter_buffer(columns.key))
        return (
            loaded(f"{name} + {self.column(columns.offset)}") if node.width else f"v_set({name}[0])"
        )

    def write_stage(self, n: int, stage: Stage) -> None:
        """Print the function of a stage."""
        raise NotImplementedError

    def write_loop(self) -> None:
        """Print the function that each thread runs."""
        raise NotImplementedError

    def pack_projection(self) -> None:
        """Print the packing of the input's weight, if the pass may project it."""

    def write_projection(self, tall: str) -> None:
        """Print the projection of the input for a panel and a tile of at most so many rows."""

    # What they share.

    def write(self) -> None:
        """Print all functions of the pass."""
        self._write_room()
        self._write_pack()
        for n, stage in enumerate(self.stages):
            self.write_stage(n, stage)
        self.write_loop()
        with self.text.function(f"EXPORT void {self.name}(const Call *c)"):
            self.line("Team team = {.call = c, .rows = c->B, .threads = c->threads,")
            self.line("             .row_groups = c->row_groups, .thread = c->thread,")
            self.line("             .team = c->threads > 1 ? c->team : 0};")
            self.line("if (c->threads > 1)")
            self.line(f"    c->parallel({self.name}_thread, &team, (unsigned)c->threads, 0);")
            self.line("else")
            self.line(f"    {self.name}_thread(&team);")

    def row(self, columns: int) -> str:
        """The row stride of a workspace buffer."""
        return f"ROW({self.size(columns)})"

    def column(self, offset: int) -> str:
        """The position in a row of a vector of units, from a column offset."""
        return f"{self.size(offset)} + u" if offset else "u"

    def at(self, name: str, columns: int, offset: int = 0, row: str = "row") -> str:
        """The address of a vector of units in one of the caller's buffers.

        Args:
            name: The buffer.
            columns: The length of its rows.
            offset: The vector's first column, for unit 0.
            row: "row", "soon" (of the next step) or "b", as the loop over rows has them.
        """
        start = f"{self.pointer(name)} + {row} * {self.size(columns)}"
        return f"{self._row_at(f'{name}_{row}', start)} + {self.column(offset)}"

    def saved_at(self, offset: int, time: str = "t") -> str:
        """The address of a vector of units in the buffer "saved", at step ``t`` or ``then``."""
        row = f"(b * c->save_b + {time} * c->save_t)"
        start = f"{self.pointer('saved')} + {row} * {self.size(self.program.saved_size)}"
        return f"{self._row_at(f'saved_{time}', start)} + {self.column(offset)}"

    def in_room(self, name: str, columns: int, turn: str = "") -> str:
        """The address of row b in a workspace buffer; ``turn`` selects half of a double buffer."""
        row = f"({turn} * c->B + b)" if turn else "b"
        return f"m->{name} + {row} * {self.row(columns)}"

    def unit_in_room(self, name: str, columns: int, turn: str = "", offset: int = 0) -> str:
        """The address of a vector of units in row b of a workspace buffer."""
        which = f"{name}_{_TURNS[turn]}"
        return f"{self._row_at(which, self.in_room(name, columns, turn))} + {self.column(offset)}"

    def is_reset(self) -> str:
        """Whether the row's state is set anew before the coming step."""
        return self._once_a_row("const int", "reset", f"is_reset(c, b, {self.coming})")

    def saves(self) -> str:
        """Whether the backward pass will follow."""
        return self._once_a_row("const int", "save", "c->save != 0")

    def _row_at(self, name: str, address: str) -> str:
        return self._once_a_row("real *const", name, address)

    def _once_a_row(self, kind: str, name: str, value: str) -> str:
        """The name of what is found once for each row, before the loop over its vectors."""
        self._of_row[name] = f"{kind} {name} = {value};"
        return name

    def shares(self, body: Callable[[], None]) -> None:
        """Print a loop over a thread's share of its group's rows."""
        with self.text.block("for (long b = s->first + s->unit; b < s->last; b += s->units)"):
            body()

    def begin_loop(self, pack: str) -> None:
        """Print the prologue of the function that each thread runs."""
        self.line("const Call *c = ((Team *)team)->call;")
        self.line("const Share mine = share(team), *s = &mine;")
        self.line(f"{self.name.title()}Room room, *m = &room;")
        self.line(f"{self.name}_room(c, m);", pack)
        if self.tiled:
            self.line("use_tiles();")

    def end_loop(self) -> None:
        """Print what each thread does at last."""
        if self.tiled:
            self.line("leave_tiles();")

    def meet(self) -> None:
        """Print a barrier for the group, if its threads read each other's results."""
        if self.exchanges:
            self.line("meet(s->own, s->units);")

    def _write_room(self) -> None:
        members: dict[str, str] = {}
        for stage in self.stages:
            members |= self.panels.members(stage)
        members |= self.room()
        room = f"{self.name.title()}Room"
        with self.text.block("typedef struct", f"}} {room};"):
            self.line(*(f"real *{member};" for member in members))
        self.line("")
        with self.text.function(f"static int64_t {self.name}_room(const Call *c, {room} *m)"):
            self.line("int64_t n = 0;")
            for member, numbers in members.items():
                wide = f"({numbers} + LANES - 1) / LANES * LANES" if self.tiled else numbers
                self.line(f"m->{member} = c->scratch + n, n += {wide};")
            self.line("return n;")
        with self.text.function(f"EXPORT int64_t {self.name}_scratch(const Call *c)"):
            self.line(f"{room} m;", f"return {self.name}_room(c, &m);")

    def _write_pack(self) -> None:
        products = [(stage, p) for stage in self.stages for p in stage.products]
        with self.text.function(f"APART void {self.name}_pack({self.arguments})"):
            self.line("(void)c, (void)m, (void)s;")
            for stage, p in products:
                panel, kept = self.panels.at(p, stage)
                shape = f"{self.panels.terms(p)}, {wide_of(p, stage)}"
                many = self.panels.count(stage)
                with self.text.block(f"for (long p = s->thread; p < {many}; p += s->threads)"):
                    self.line(self.pack(p, stage, panel))
                    self.line(f"keep_rows({panel}, {shape}, {kept});")
                    if self.tiled:
                        self.line(f"pack_tiles({panel}, {shape}, {kept});")
            self.pack_projection()

    @contextmanager
    def units_of_rows(self, stage: Stage, rows: dict[int, str]) -> Iterator[None]:
        """Print the loops over panels, rows and vectors, around the lines of the context.

        Args:
            stage: The stage, whose products are computed for each panel and tile of rows.
            rows: For each of its products the operand in C: address of row ``b0``, and row stride.
        """
        if self.tiled and rows:
            blocks = "for (long from = s->first; from < s->last; from += ROWS_AT_ONCE)"
            with self.text.block(blocks):
                self.line("const long to = least(from + ROWS_AT_ONCE, s->last);")
                self._write_tiles(stage, rows)
                with self._units_of_block(stage, rows, "from", "to"):
                    yield
        else:
            with self._units_of_block(stage, rows, "s->first", "s->last"):
                yield

    @contextmanager
    def _units_of_block(
        self, stage: Stage, rows: dict[int, str], begin: str, end: str
    ) -> Iterator[None]:
        """Print these loops for rows ``begin`` ... ``end - 1``, which tiles find packed."""
        vectors, W = vectors_of(stage), self.size(stage.width)
        tall = f"MOST_{max(wide_of(p, stage) for p in stage.products)}" if rows else "8"
        high = f"tile({end} - b0, {tall})"
        if self.tiled and rows:
            tall, high = "OF_TILES", f"least({end} - b0, OF_TILES)"
        sums = [s.buffer.key for s in stage.stores if s.buffer.kind == "unit"]
        self.line(f"const long many = {self.panels.count(stage)};")
        self.line("const long last = share_of(many, s->unit + 1, s->units);")
        with self.text.block("for (long p = share_of(many, s->unit, s->units); p < last; p++)"):
            self.line(*(f"vec unit_{i}[{vectors}] = {{{{0}}}};" for i in sums))
            self.line("long high;")
            with self.text.block(f"for (long b0 = {begin}; b0 < {end}; b0 += high)"):
                self.line(f"high = {high};")
                self._write_products(stage, rows, tall)
                self.write_projection(tall)
                with self.text.block("for (long i = 0; i < high; i++)"):
                    self.line("const long b = b0 + i, row = b * c->row_b + t * c->row_t;")
                    self.line("const long soon = b * c->row_b + then * c->row_t;")
                    self.line("const int valid = is_valid(c, b, t);")
                    before, self._of_row = len(self.text.lines), {}
                    with self._vector_by_vector(vectors, W):
                        yield
                    self.text.insert(before, self._of_row.values())
            if sums:
                with self._vector_by_vector(vectors, W):
                    for i in sums:
                        unit = f"{self.pointer(f'unit_{i}')} + s->thread"
                        to = f"{unit} * {self.size(self.program.unit_size)} + u"
                        self.line(stored(to, f"{loaded(to)} + unit_{i}[j]"))

    def _write_products(self, stage: Stage, rows: dict[int, str], tall: str) -> None:
        """Print the products of a stage for a panel and a tile; zeros where no row is valid."""
        if stage.products:
            self.line(f"const int some = some_valid(c, b0, high, t, {self.source});")
        for p in stage.products:
            k, wide = p.product, wide_of(p, stage)
            self.line(f"_Alignas(64) real z_{k}[{tall} * {wide} * LANES];")
            panel = ", ".join(self.panels.at(p, stage))
            self.line("if (some)")
            if self.tiled:
                kernels, packed = f"product_{wide}, MOST_{wide}", self.panels.operand_at(p)
                self.line(f"    times_tiles({kernels}, {rows[k]}, high, {packed},")
                self.line(f"                {panel}, {self.panels.terms(p)}, {wide}, z_{k});")
            else:
                self.line(f"    times_panel(product_{wide}[high], {rows[k]}, high,")
                self.line(f"                {panel}, {wide}, z_{k});")
            self.line(f"else __builtin_memset(z_{k}, 0, sizeof z_{k});")

    def _write_tiles(self, stage: Stage, rows: dict[int, str]) -> None:
        """Print the packing of a block of a stage's operands, which each thread does for itself."""
        with self.text.block("for (long b0 = from; b0 < to; b0 += OF_TILES)"):
            self.line("const long high = least(to - b0, OF_TILES);")
            for p in stage.products:
                shape, packed = f"high, {self.panels.terms(p)}", self.panels.operand_at(p)
                self.line(f"pack_numbers({rows[p.product]}, {shape}, {packed});")

    @contextmanager
    def _vector_by_vector(self, vectors: int, W: str) -> Iterator[None]:
        """Print a loop over the vectors of a panel that hold units."""
        more = f" && (p * {vectors} + j) * LANES < {W}" if vectors > 1 else ""
        with self.text.block(f"for (int j = 0; j < {vectors}{more}; j++)"):
            self.line(f"const long u = (p * {vectors} + j) * LANES;")
            self.line(f"const int n = lanes({W} - u);")
            yield

    def reduce(self, k: int, op: str, buffer: str, width: int) -> None:
        """Print a row reduction, which each thread computes redundantly."""
        row = f"row_{op}({self.in_room(f'{buffer}_{k}', width)}, {self.size(width)})"
        self.line("for (long b = s->first; b < s->last; b++)")
        self.line(f"    m->{op}_{k}[s->thread * c->B + b] = {row};")

    def prefetch(self, place: str, *, to_write: bool = False) -> None:
        """Print a prefetch for the next step, whose rows may be far away in memory."""
        self.line(f"__builtin_prefetch({place}, {int(to_write)});")

    def compute(
        self, stage: Stage, roots: Sequence[Node], given: dict[Node, str]
    ) -> Callable[[Node], str]:
        """Print the expressions that the roots need; returns a lookup of variable names."""
        names = dict(given)
        for node in walk(list(roots), given):
            if node.op == "const":
                names[node] = constant(node.what)
                continue
            names[node] = f"e{node.serial}"
            value = self.leaf(node, stage) if node.op == "leaf" else expression(node, names)
            self.line(f"const vec e{node.serial} = {value};")
        return names.__getitem__

    def load_saved(self, roots: Sequence[Node], nodes: dict[Node, int]) -> dict[Node, str]:
        """Print loads of the saved nodes that the roots need; returns their variable names."""
        names = {node: f"k{node.serial}" for node in reached_among(nodes, roots)}
        for node, name in names.items():
            self.prefetch(self.saved_at(nodes[node], "then"))
            self.line(f"const vec {name} = {loaded(self.saved_at(nodes[node]))};")
        return names
