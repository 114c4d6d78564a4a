"""A program as C: one function a stage, and around them the two passes over time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files

from seqnets.engine.c.text import Text
from seqnets.engine.graph import Node, reached_among, walk
from seqnets.engine.program import Buffer, Program, Stage, StageProduct, Store

_REGISTERS = {"== 32": 24, "!= 32": 12}  # vectors of sums that stay in registers, by NREGS
_TALLEST = 12  # rows at once
_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
_ZERO = "(vec){0}"


@dataclass
class Source:
    """A printed program.

    Attributes:
        text: The C, without the headers.
        sizes: What the size members of a call are to hold, in order.
        pointers: What its pointer members are to point at, in order.
    """

    text: str
    sizes: list[int]
    pointers: list[str]


def print_program(program: Program) -> Source:
    """Print both passes, or the forward one alone if that is all there is."""
    text = Text()
    passes: list[_Pass] = [_Forward(program, text)]
    if program.backward:
        passes.append(_Backward(program, text))
    for each in passes:
        each.write()
    products = _products(sorted(set().union(*(each.widths for each in passes))))
    whole = [_EXPORTS, text.struct(), _ROWS, *products, "", *text.lines]
    return Source("\n".join(whole), list(text.sizes), text.pointers)


def with_headers(text: str, *, double: bool) -> str:
    """A printed program with all it needs to compile."""
    folder = files("seqnets.engine.c")
    headers = [(folder / name).read_text(encoding="utf-8") for name in ("vector.h", "loops.h")]
    return "\n".join(["#define SEQNETS_DOUBLE"] * double + [*headers, text])


def _products(widths: Sequence[int]) -> list[str]:
    """The code of products, for each number of rows whose sums the registers hold."""
    text = []
    for registers, room in _REGISTERS.items():
        text.append(f"#if NREGS {registers}")
        for width in widths:
            most = max(1, min(_TALLEST, room // width))
            text += [f"PRODUCT({width}, {rows})" for rows in range(1, most + 1)]
            names = ", ".join(f"product_{width}_{rows}" for rows in range(1, most + 1))
            text.append(f"static const Product product_{width}[] = {{0, {names}}};")
            text.append(f"#define MOST_{width} {most}")
        text.append("#endif")
    return text


class _Pass:
    """One of the two passes: what they share.

    Attributes:
        name: "forward" or "backward".
        source: In C, another step whose numbers a stage's products may multiply.
        stages: The program's, for this pass.
        widths: Vectors in a panel of each product.
    """

    name: str
    source: str

    def __init__(self, program: Program, text: Text, stages: Sequence[Stage]) -> None:
        self.program, self.step, self.text, self.stages = program, program.step, text, stages
        self.line, self.size, self.pointer = text.line, text.size, text.pointer
        self.arguments = f"const Call *c, const {self.name.title()}Room *m, const Share *s"
        self.exchanges = bool(self.step.products or self.step.sums)
        self.widths = {p.blocks * _vectors(s) for s in stages for p in s.products}

    # What the passes differ in.

    def room(self) -> dict[str, str]:
        """Scratch memory beside the weights: members, and how many numbers each is."""
        raise NotImplementedError

    def reach(self, product: int) -> int:
        """How many numbers of a row a product sums up."""
        raise NotImplementedError

    def pack(self, product: StageProduct, stage: Stage, panel: str) -> str:
        """The call that packs a panel of a weight."""
        raise NotImplementedError

    def leaf(self, node: Node, stage: Stage) -> str:
        """A leaf of an expression."""
        columns = node.what
        assert columns.source == "parameter", columns  # the passes know all others
        name = self.pointer(f"p_{columns.key}")
        return (
            _load(f"{name} + {self.column(columns.offset)}") if node.width else f"v_set({name}[0])"
        )

    def write_stage(self, n: int, stage: Stage) -> None:
        """The function of a stage."""
        raise NotImplementedError

    def write_loop(self) -> None:
        """The function that a thread runs."""
        raise NotImplementedError

    # What they share.

    def write(self) -> None:
        """All functions of the pass."""
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
        """The distance of rows in scratch memory."""
        return f"ROW({self.size(columns)})"

    def column(self, offset: int) -> str:
        """Where a vector of units lies that begin at an offset of a row."""
        return f"{self.size(offset)} + u" if offset else "u"

    def at(self, name: str, columns: int, offset: int = 0, row: str = "row") -> str:
        """Where a vector of units lies in a buffer of the caller's."""
        return f"{self.pointer(name)} + {row} * {self.size(columns)} + {self.column(offset)}"

    def saved_at(self, offset: int, time: str = "t") -> str:
        """The same in what is saved."""
        row = f"(b * c->save_b + {time} * c->save_t)"
        return self.at("saved", self.program.saved_size, offset, row)

    def in_room(self, name: str, columns: int, turn: str = "") -> str:
        """Where row b begins in scratch memory; of two turns, which."""
        row = f"({turn} * c->B + b)" if turn else "b"
        return f"m->{name} + {row} * {self.row(columns)}"

    def shares(self, body: Callable[[], None]) -> None:
        """A loop over the rows that a thread copies: its group's, in turns."""
        with self.text.block("for (long b = s->first + s->unit; b < s->last; b += s->units)"):
            body()

    def begin_loop(self, pack: str) -> None:
        """The first lines of the function that a thread runs."""
        self.line("const Call *c = ((Team *)team)->call;")
        self.line("const Share mine = share(team), *s = &mine;")
        self.line(f"{self.name.title()}Room room, *m = &room;")
        self.line(f"{self.name}_room(c, m);", pack)

    def meet(self) -> None:
        """Wait for the group, where its threads read what others wrote."""
        if self.exchanges:
            self.line("meet(s->own, s->units);")

    def _write_room(self) -> None:
        members = {}
        for stage in self.stages:
            for p in stage.products:
                panels = f"panels({self.size(stage.width)}, {_vectors(stage)})"
                members[f"weight_{p.product}"] = f"{panels} * {self._panel(p, stage)}"
        members |= self.room()
        room = f"{self.name.title()}Room"
        with self.text.block("typedef struct", f"}} {room};"):
            self.line(*(f"real *{member};" for member in members))
        self.line("")
        with self.text.function(f"static int64_t {self.name}_room(const Call *c, {room} *m)"):
            self.line("int64_t n = 0;")
            for member, numbers in members.items():
                self.line(f"m->{member} = c->scratch + n, n += {numbers};")
            self.line("return n;")
        with self.text.function(f"EXPORT int64_t {self.name}_scratch(const Call *c)"):
            self.line(f"{room} m;", f"return {self.name}_room(c, &m);")

    def _write_pack(self) -> None:
        with self.text.function(f"static void {self.name}_pack({self.arguments})"):
            self.line("(void)c, (void)m, (void)s;")
            for stage in self.stages:
                for p in stage.products:
                    panels = f"panels({self.size(stage.width)}, {_vectors(stage)})"
                    self.line(f"for (long p = s->thread; p < {panels}; p += s->threads)")
                    to = f"m->weight_{p.product} + p * {self._panel(p, stage)}"
                    self.line("    " + self.pack(p, stage, to))

    def _panel(self, product: StageProduct, stage: Stage) -> str:
        numbers = self.size(self.reach(product.product))
        return f"{numbers} * {product.blocks * _vectors(stage)} * LANES"

    @contextmanager
    def units_of_rows(self, stage: Stage, rows: dict[int, str]) -> Iterator[None]:
        """The loops over panels, rows and vectors, with the products at hand.

        Args:
            stage: The stage.
            rows: For each of its products where the rows lie that it multiplies: in C, the row
                ``b0`` and the distance of rows.
        """
        vectors, W = _vectors(stage), self.size(stage.width)
        tall = f"MOST_{max(p.blocks * vectors for p in stage.products)}" if rows else "8"
        sums = [s.buffer.key for s in stage.stores if s.buffer.kind == "unit"]
        self.line(f"const long many = panels({W}, {vectors});")
        self.line("const long last = share_of(many, s->unit + 1, s->units);")
        with self.text.block("for (long p = share_of(many, s->unit, s->units); p < last; p++)"):
            self.line(*(f"vec unit_{i}[{vectors}] = {{{{0}}}};" for i in sums))
            self.line("long high;")
            with self.text.block("for (long b0 = s->first; b0 < s->last; b0 += high)"):
                self.line(f"high = tile(s->last - b0, {tall});")
                if stage.products:
                    self.line(f"const int some = some_valid(c, b0, high, t, {self.source});")
                for p in stage.products:
                    k, wide = p.product, p.blocks * vectors
                    self.line(f"_Alignas(64) real z_{k}[{tall} * {wide} * LANES];")
                    weight = f"m->weight_{k} + p * {self._panel(p, stage)}"
                    reach = self.size(self.reach(k))
                    self.line(
                        f"if (some) product_{wide}[high]({rows[k]}, {weight}, {reach}, z_{k});",
                        f"else __builtin_memset(z_{k}, 0, sizeof z_{k});",
                    )
                with self.text.block("for (long i = 0; i < high; i++)"):
                    self.line("const long b = b0 + i, row = b * c->row_b + t * c->row_t;")
                    self.line("const long soon = b * c->row_b + then * c->row_t;")
                    self.line("const int valid = is_valid(c, b, t);")
                    with self._vector_by_vector(vectors, W):
                        yield
            if sums:
                with self._vector_by_vector(vectors, W):
                    for i in sums:
                        to = self.at(f"unit_{i}", self._unit_numbers(i), row="s->group")
                        self.line(_store(to, f"{_load(to)} + unit_{i}[j]"))

    def _unit_numbers(self, i: int) -> int:
        """How many numbers the gradient of a parameter has; of one for all, one a unit."""
        leaf, width = list(self.program.units.items())[i]
        return self.step.parameters[leaf.what.key][0] if leaf.width else width

    @contextmanager
    def _vector_by_vector(self, vectors: int, W: str) -> Iterator[None]:
        """A loop over the vectors of a panel, as far as there are units."""
        more = f" && (p * {vectors} + j) * LANES < {W}" if vectors > 1 else ""
        with self.text.block(f"for (int j = 0; j < {vectors}{more}; j++)"):
            self.line(f"const long u = (p * {vectors} + j) * LANES;")
            self.line(f"const int n = lanes({W} - u);")
            yield

    def sums_of_rows(self, stage: Stage, kind: str) -> None:
        """The sums over rows that a stage begins with."""
        for k in stage.sums:
            width = self.step.sums[k].width
            row = f"row_sum({self.in_room(f'{kind}_{k}', width)}, {self.size(width)})"
            self.line("for (long b = s->first; b < s->last; b++)")
            self.line(f"    m->sum_{k}[s->thread * c->B + b] = {row};")

    def prefetch(self, place: str, *, to_write: bool = False) -> None:
        """Ask for what the step that runs next will need: rows may be far apart in memory."""
        self.line(f"__builtin_prefetch({place}, {int(to_write)});")

    def compute(
        self, stage: Stage, roots: Sequence[Node], given: dict[Node, str]
    ) -> Callable[[Node], str]:
        """Write what the roots need, one number a line; returns their names."""
        names = dict(given)
        for node in walk(list(roots), given):
            if node.op == "const":
                names[node] = _constant(node.what)
                continue
            names[node] = f"e{node.serial}"
            value = self.leaf(node, stage) if node.op == "leaf" else _expression(node, names)
            self.line(f"const vec e{node.serial} = {value};")
        return names.__getitem__

    def load_saved(self, roots: Sequence[Node], nodes: dict[Node, int]) -> dict[Node, str]:
        """Load what of some saved nodes the roots need; returns their names."""
        names = {node: f"k{node.serial}" for node in reached_among(nodes, roots)}
        for node, name in names.items():
            self.prefetch(self.saved_at(nodes[node], "then"))
            self.line(f"const vec {name} = {_load(self.saved_at(nodes[node]))};")
        return names


class _Forward(_Pass):
    name = "forward"
    source = "t"

    def __init__(self, program: Program, text: Text) -> None:
        super().__init__(program, text, program.forward)

    def room(self) -> dict[str, str]:
        members = {
            f"state_{p}": f"2 * c->B * {self.row(size)}"
            for p, size in enumerate(self.step.state_sizes)
        }
        for store in (store for stage in self.stages for store in stage.stores):
            if store.buffer.kind in ("value", "summand") and store.node is not None:
                name = f"{store.buffer.kind}_{store.buffer.key}"
                members[name] = f"c->B * {self.row(store.node.width)}"
        return members | {f"sum_{k}": "c->threads * c->B" for k in range(len(self.step.sums))}

    def reach(self, product: int) -> int:
        return self.step.products[product].weight.columns

    def pack(self, product: StageProduct, stage: Stage, panel: str) -> str:
        k, vectors = product.product, _vectors(stage)
        weight = f"{self.pointer(f'weight_{k}')}, {self.size(self.reach(k))}"
        shape = f"{self.size(stage.width)}, {product.blocks}, {vectors}, p * {vectors} * LANES"
        return f"pack_rows({weight}, {shape}, {panel});"

    def leaf(self, node: Node, stage: Stage) -> str:
        source, key, offset = node.what.source, node.what.key, node.what.offset
        if source == "wx":
            self.prefetch(self.at("wx", self.step.wx_size, offset, "soon"))
            return _load(self.at("wx", self.step.wx_size, offset))
        if source == "x":
            return _load(self.at("x", self.step.wx_size, offset))
        if source == "state":
            return f"v_load({self._state(key, 'now')} + {self.column(offset)})"
        if source == "product":
            blocks = next(p.blocks for p in stage.products if p.product == key)
            block = f"i * {blocks} + {offset // stage.width}"
            return f"v_load(z_{key} + (({block}) * {_vectors(stage)} + j) * LANES)"
        if source == "sum":
            return f"v_set(m->sum_{key}[s->thread * c->B + b])"
        return super().leaf(node, stage)

    def write_stage(self, n: int, stage: Stage) -> None:
        rows = {p.product: self._multiplied(p) for p in stage.products}
        head = f"static void forward_{n}({self.arguments}, long t, long next, long now)"
        with self.text.function(head):
            self.line("const long then = next < 0 ? t : next;")
            self.sums_of_rows(stage, "summand")
            with self.units_of_rows(stage, rows):
                with self.text.block("if (!valid)"):
                    self._pass_by(stage)
                    self.line("continue;")
                roots = [*stage.state.values(), *(s.node for s in stage.stores if s.node)]
                earlier = self.program.crossing_into(stage)
                name = self.compute(stage, roots, self.load_saved(roots, earlier))
                self._store(stage, name)

    def _multiplied(self, product: StageProduct) -> str:
        K = self.reach(product.product)
        value = product.value
        if value.kind == "x":
            row = f"(b0 * c->row_b + t * c->row_t) * {self.size(K)}"
            return f"{self.pointer('x')} + {row}, c->row_b * {self.size(K)}"
        turn = "(now * c->B + b0)" if value.kind == "state" else "b0"
        return f"m->{value.kind}_{value.key} + {turn} * {self.row(K)}, {self.row(K)}"

    def _state(self, p: int, turn: str) -> str:
        return self.in_room(f"state_{p}", self.step.state_sizes[p], turn)

    def _pass_by(self, stage: Stage) -> None:
        """A step beyond a row's end: its state stays, and zeros are all that is seen of it."""
        for p in stage.state:
            self._store_state(p, f"v_load({self._state(p, 'now')} + u)", _ZERO, _ZERO)
        for store in stage.stores:
            self._keep_store(store, _ZERO)

    def _store(self, stage: Stage, name: Callable[[Node], str]) -> None:
        for p, node in stage.state.items():
            before = f"v_load({self._state(p, 'now')} + u)"
            self._store_state(p, name(node), name(node), before)
        for store in stage.stores:
            assert store.node is not None  # the forward pass stores what it computes
            if store.buffer.kind in ("value", "summand"):
                place = f"{store.buffer.kind}_{store.buffer.key}"
                self.line(
                    f"v_store({self.in_room(place, store.node.width)} + u, {name(store.node)});"
                )
            self._keep_store(store, name(store.node))

    def _store_state(self, p: int, after: str, y: str, before: str) -> None:
        """Leave a state part to the next step, which may begin anew, and to who asked for it."""
        size = self.step.state_sizes[p]
        start = _load(self.at(f"start_{p}", size, row="b"))
        self.line(f"v_store({self._state(p, '(1 - now)')} + u,")
        self.line(f"        is_reset(c, b, next) ? {start} : {after});")
        if p == 0:
            self.prefetch(self.at("y", size, row="soon"), to_write=True)
            self.line(_store(self.at("y", size), y))
        if p in self.program.befores:
            self.prefetch(self.at(f"before_{p}", size, row="soon"), to_write=True)
            self.line(f"if (c->save) {_store(self.at(f'before_{p}', size), before)}")

    def _keep_store(self, store: Store, value: str) -> None:
        """Keep a number for the backward pass, and what crosses stages in any case."""
        assert store.node is not None  # as above
        k = store.buffer.key
        if store.buffer.kind == "saved":
            self.prefetch(self.saved_at(store.offset, "then"), to_write=True)
            always = store.offset < self.program.crossing
            kept = _store(self.saved_at(store.offset), value)
            self.line(kept if always else f"if (c->save) {kept}")
        elif store.buffer.kind == "value" and self.program.backward:
            kept = _store(self.at(f"value_{k}", store.node.width), value)
            self.line(f"if (c->save) {kept}")

    def write_loop(self) -> None:
        sizes = self.step.state_sizes

        def begin() -> None:
            self.line("const int fresh = is_reset(c, b, step(c, 0));")
            for p, size in enumerate(sizes):
                begins = f"fresh ? {self.pointer(f'start_{p}')} : {self.pointer(f'initial_{p}')}"
                n = self.size(size)
                self.line(f"copy_row({self._state(p, '0')}, ({begins}) + b * {n}, {n});")

        def end() -> None:
            for p, size in enumerate(sizes):
                n, final = self.size(size), self.pointer(f"final_{p}")
                self.line(f"copy_row({final} + b * {n}, {self._state(p, 'now')}, {n});")

        with self.text.function("static void forward_thread(void *team)"):
            self.begin_loop("if (!c->packed) forward_pack(c, m, s);")
            self.shares(begin)
            self.line("meet(s->all, s->threads);")
            self.line("long now = 0;")
            with self.text.block("for (long i = 0; i < c->T; i++, now = 1 - now)"):
                self.line("const long t = step(c, i), next = step(c, i + 1);")
                for n in range(len(self.stages)):
                    self.line(f"forward_{n}(c, m, s, t, next, now);")
                    self.meet()
            if not self.exchanges:
                self.line("meet(s->own, s->units);")
            self.shares(end)


class _Backward(_Pass):
    name = "backward"
    source = "after"

    def __init__(self, program: Program, text: Text) -> None:
        super().__init__(program, text, program.backward)

    def room(self) -> dict[str, str]:
        step = self.step
        members = {
            f"carry_{p}": f"2 * c->B * {self.row(size)}" for p, size in enumerate(step.state_sizes)
        }
        for k, product in enumerate(step.products):
            members[f"dz_{k}"] = f"2 * c->B * {self.row(product.weight.rows)}"
        for k, node in enumerate(step.sums):
            members[f"dsum_{k}"] = f"c->B * {self.row(node.width)}"
            members[f"sum_{k}"] = "c->threads * c->B"
        if self.program.crossing:
            members["dcross"] = f"c->B * {self.row(self.program.crossing)}"
        return members

    def reach(self, product: int) -> int:
        return self.step.products[product].weight.rows

    def pack(self, product: StageProduct, stage: Stage, panel: str) -> str:
        k, vectors = product.product, _vectors(stage)
        weight = f"{self.pointer(f'weight_{k}')}, {self.size(self.reach(k))}"
        shape = f"{self.size(stage.width)}, {vectors}, p * {vectors} * LANES"
        return f"pack_columns({weight}, {shape}, {panel});"

    def leaf(self, node: Node, stage: Stage) -> str:
        source, key, offset = node.what.source, node.what.key, node.what.offset
        if source == "state":
            size = self.step.state_sizes[key]
            self.prefetch(self.at(f"before_{key}", size, offset, "soon"))
            return _load(self.at(f"before_{key}", size, offset))
        if source != "grad":
            return super().leaf(node, stage)
        kind, k = key
        if kind == "state":
            return f"g_{k}"
        if kind == "value":
            return self._product(k, stage)
        if kind == "summand":
            return f"v_set(m->sum_{k}[s->thread * c->B + b])"
        return _load(f"{self.in_room('dcross', self.program.crossing)} + {self.column(k)}")

    def write_stage(self, n: int, stage: Stage) -> None:
        head = f"static void backward_{n}({self.arguments}, long t, long after, long now)"
        with self.text.function(head):
            self.line("const long then = after < 0 ? t : t + t - after;")
            self.sums_of_rows(stage, "dsum")
            with self.units_of_rows(stage, self._multiplied(stage)):
                self._come_in(stage)
                with self.text.block("if (!valid)"):
                    self._pass_by(stage)
                    self.line("continue;")
                if 0 in stage.state:
                    y = _load(self.at("grad_y", self.step.state_sizes[0]))
                    self.line(f"if (c->grad_y) g_0 += {y};")
                    self.prefetch(self.at("grad_y", self.step.state_sizes[0], row="soon"))
                roots = [store.node for store in stage.stores if store.node is not None]
                name = self.compute(stage, roots, self.load_saved(roots, self.program.saved))
                for store in stage.stores:
                    self._store(store, name)
        if stage.state:
            self._write_end(n, stage)

    def _write_end(self, n: int, stage: Stage) -> None:
        """The gradient of the state before the first step."""
        parts = [p for p in stage.products if self.program.part_of(p.product) is not None]
        ending = Stage(stage.width, parts, state=stage.state)
        head = f"static void backward_end_{n}({self.arguments}, long after, long now)"
        with self.text.function(head):
            self.line("const long t = after, then = after;")
            with self.units_of_rows(ending, self._multiplied(ending)):
                self.line("(void)row, (void)soon, (void)valid;")
                self._come_in(ending)
                for p in stage.state:
                    size = self.step.state_sizes[p]
                    self.line(_store(self.at(f"grad_initial_{p}", size, row="b"), f"g_{p}"))

    def _multiplied(self, stage: Stage) -> dict[int, str]:
        """A state's product has the rows of the step that ran after this one, others this one's."""
        rows = {}
        for p in stage.products:
            turn = "now" if self.program.part_of(p.product) is None else "(1 - now)"
            row = self.row(self.reach(p.product))
            rows[p.product] = f"m->dz_{p.product} + ({turn} * c->B + b0) * {row}, {row}"
        return rows

    def _product(self, k: int, stage: Stage) -> str:
        return f"v_load(z_{k} + (i * {_vectors(stage)} + j) * LANES)"

    def _carry(self, p: int, turn: str) -> str:
        return self.in_room(f"carry_{p}", self.step.state_sizes[p], turn)

    def _dz(self, k: int, turn: str) -> str:
        return self.in_room(f"dz_{k}", self.reach(k), turn)

    def _come_in(self, stage: Stage) -> None:
        """The gradient of each state part that a stage makes, but for what comes by the output."""
        for p in stage.state:
            terms = [f"v_load({self._carry(p, 'now')} + u)"]
            terms += [
                self._product(x.product, stage)
                for x in stage.products
                if self.program.part_of(x.product) == p
            ]
            self.line(f"vec g_{p} = {' + '.join(terms)};")
            start = self.at(f"grad_start_{p}", self.step.state_sizes[p], row="b")
            with self.text.block("if (is_reset(c, b, after))"):
                self.line(_store(start, f"{_load(start)} + g_{p}"), f"g_{p} = {_ZERO};")

    def _pass_by(self, stage: Stage) -> None:
        """A step beyond a row's end: the gradient of the state passes by."""
        for store in stage.stores:
            passes = store.buffer.kind == "carry" and store.buffer.key in stage.state
            if store.buffer.kind != "unit" and not store.add and not passes:
                for place in self._places(store.buffer, store.offset):
                    self.line(_store(place, _ZERO))
        for p in stage.state:
            self.line(f"v_store({self._carry(p, '(1 - now)')} + u, g_{p});")

    def _store(self, store: Store, name: Callable[[Node], str]) -> None:
        value = _ZERO if store.node is None else name(store.node)
        if store.buffer.kind == "unit":
            self.line(f"unit_{store.buffer.key}[j] += {value};")
        elif not store.add:
            for place in self._places(store.buffer, store.offset):
                self.line(_store(place, value))
        elif store.node is not None:
            for place in self._places(store.buffer, store.offset):
                self.line(_store(place, f"{_load(place)} + {value}"))

    def _places(self, buffer: Buffer, offset: int) -> Iterator[str]:
        """Where a gradient is stored: in scratch memory for the next stage, and for the caller."""
        kind, k = buffer.kind, buffer.key
        if kind == "dwx":
            self.prefetch(self.at("grad_wx", self.step.wx_size, offset, "soon"), to_write=True)
            yield self.at("grad_wx", self.step.wx_size, offset)
        elif kind == "dz":
            yield f"{self._dz(k, 'now')} + {self.column(offset)}"
            if k not in self.program.shared:
                yield self.at(f"grad_z_{k}", self.reach(k), offset)
        elif kind == "dsum":
            yield f"{self.in_room(f'dsum_{k}', self.step.sums[k].width)} + u"
        elif kind == "dcross":
            yield f"{self.in_room('dcross', self.program.crossing)} + {self.column(offset)}"
        else:
            yield f"{self._carry(k, '(1 - now)')} + u"

    def write_loop(self) -> None:
        gaps = {buffer.key for buffer in self.program.gaps if buffer.kind == "dz"}

        def begin() -> None:
            for p, size in enumerate(self.step.state_sizes):
                n, final = self.size(size), self.pointer(f"grad_final_{p}")
                row = f"{final} ? {final} + b * {n} : 0"
                self.line(f"copy_row({self._carry(p, '0')}, {row}, {n});")
            for k in range(len(self.step.products)):
                for turn in ("0", "1") if k in gaps else ("1",):
                    self.line(f"copy_row({self._dz(k, turn)}, 0, {self.row(self.reach(k))});")

        with self.text.function("static void backward_thread(void *team)"):
            self.begin_loop("backward_pack(c, m, s);")
            self.shares(begin)
            self.line("meet(s->all, s->threads);")
            self.line("long now = 0, after = -1;")
            with self.text.block("for (long i = c->T - 1; i >= 0; i--, now = 1 - now)"):
                self.line("const long t = step(c, i);")
                for n in range(len(self.stages)):
                    self.line(f"backward_{n}(c, m, s, t, after, now);")
                    self.meet()
                self.line("after = t;")
            if not self.exchanges:
                self.line("meet(s->own, s->units);")
            for n, stage in enumerate(self.stages):
                if stage.state:
                    self.line(f"backward_end_{n}(c, m, s, after, now);")


def _vectors(stage: Stage) -> int:
    """Vectors of units in a panel: two where a product has but one number for each unit."""
    return 2 if all(product.blocks == 1 for product in stage.products) else 1


def _load(place: str) -> str:
    return f"v_load_n({place}, n)"


def _store(place: str, value: str) -> str:
    return f"v_store_n({place}, {value}, n);"


def _constant(value: float) -> str:
    special = {float("inf"): "INFINITY", float("-inf"): "-INFINITY"}
    return f"v_set({'NAN' if value != value else special.get(value, f'(real){value!r}')})"


def _expression(node: Node, names: dict[Node, str]) -> str:
    args = [names[arg] for arg in node.args]
    if node.op in _INFIX:
        return f"{args[0]} {_INFIX[node.op]} {args[1]}"
    return f"-{args[0]}" if node.op == "neg" else f"v_{node.op}({', '.join(args)})"


_EXPORTS = """\
#define EXPORT __attribute__((visibility("default")))

EXPORT const int64_t lanes_of_a_vector = LANES;
"""

_ROWS = """
/* The step that is i-th to run; -1 past the last. */
INLINE long step(const Call *c, long i) {
    return i >= c->T ? -1 : c->reverse ? c->T - 1 - i : i;
}

INLINE int is_valid(const Call *c, long b, long t) { return !c->lengths || t < c->lengths[b]; }

/* Whether some of a tile's rows run at one of two steps. */
INLINE int some_valid(const Call *c, long b0, long high, long t, long source) {
    int some = !c->lengths;
    for (long b = b0; b < b0 + high && !some; b++)
        some = is_valid(c, b, t) || is_valid(c, b, source);
    return some;
}

/* Whether the state of a row is set anew before a step. */
INLINE int is_reset(const Call *c, long b, long t) {
    return t >= 0 && c->resets && c->resets[b * c->reset_b + t * c->reset_t] && is_valid(c, b, t);
}
"""
