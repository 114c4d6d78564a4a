"""A program as C: one function a stage, and around them the two passes over time.

Sizes are members of the struct that a call passes, so that one text serves every width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files

from seqnets.engine.program import Buffer, Program, Stage, Store
from seqnets.engine.trace import Node, walk

SETTINGS = (
    "B", "T", "row_b", "row_t", "save_b", "save_t", "reverse", "threads", "row_groups", "save",
    "packed", "reset_b", "reset_t", "lengths", "resets", "parallel", "thread", "team", "scratch",
)  # fmt: skip
"""The members of a call that every program has, in order."""

_TYPES = {
    "lengths": "const int64_t *",
    "resets": "const uint8_t *",
    "parallel": "void (*parallel)(void (*)(void *), void *, unsigned, unsigned)",
    "thread": "int (*thread)(void)",
    "team": "int (*team)(void)",
    "scratch": "real *",
}

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/"}


@dataclass
class Source:
    """A printed program.

    Attributes:
        text: The C, without the headers.
        sizes: What the size members are to hold, in order.
        pointers: What the pointer members are to point at, in order.
    """

    text: str
    sizes: list[int]
    pointers: list[str]


def print_program(program: Program) -> Source:
    """Print both passes, or the forward one alone if that is all there is."""
    printer = _Printer(program)
    printer.forward()
    if program.backward:
        printer.backward()
    return Source(printer.finished(), list(printer.sizes), printer.pointers)


def with_headers(text: str, *, double: bool) -> str:
    """A printed program with all it needs to compile."""
    folder = files("seqnets.engine.c")
    headers = [(folder / name).read_text(encoding="utf-8") for name in ("vector.h", "loops.h")]
    return "\n".join(["#define SEQNETS_DOUBLE"] * double + [*headers, text])


@dataclass
class _Pass:
    """What one of the two passes needs while it is printed."""

    name: str
    stages: Sequence[Stage]
    room: list[tuple[str, str]] = field(default_factory=list)  # scratch: member, numbers


class _Printer:
    def __init__(self, program: Program) -> None:
        self.program, self.step = program, program.step
        self.sizes: dict[int, str] = {}
        self.pointers: list[str] = []
        self.bodies: list[str] = []
        self.lines: list[str] = []
        self.depth = 0
        self.vectors: set[int] = set()
        self.names: dict[Node, str] = {}

    # -- writing

    def line(self, text: str = "") -> None:
        self.lines.append("    " * self.depth + text if text else "")

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        self.line(head + " {")
        self.depth += 1
        yield
        self.depth -= 1
        self.line("}")

    def size(self, value: int) -> str:
        """A number as the member that holds it."""
        if value == 0:
            return "0"
        return self.sizes.setdefault(value, f"c->n{len(self.sizes)}")

    def pointer(self, name: str) -> str:
        """A buffer of the caller's as the member that points at it."""
        if name not in self.pointers:
            self.pointers.append(name)
        return f"c->{name}"

    def finished(self) -> str:
        members = [
            f"{_TYPES[s]}{s}"
            if s in _TYPES and "(" not in _TYPES[s]
            else _TYPES.get(s, f"int64_t {s}")
            for s in SETTINGS
        ]
        members += [f"int64_t n{i}" for i in range(len(self.sizes))]
        members += [f"real *{name}" for name in self.pointers]
        struct = "\n".join(["typedef struct {", *(f"    {m};" for m in members), "} Call;"])
        return "\n".join([_HELPERS_BEFORE, struct, _HELPERS, *self._products(), *self.lines, ""])

    def _products(self) -> list[str]:
        """The products' code for each number of rows up to what the registers hold."""
        text = []
        for many, room in (("== 32", 24), ("!= 32", 12)):
            text.append(f"#if NREGS {many}")
            for v in sorted(self.vectors):
                most = max(1, min(12, room // v))
                text += [f"PRODUCT({v}, {r})" for r in range(1, most + 1)]
                names = ", ".join(f"product_{v}_{r}" for r in range(1, most + 1))
                text.append(f"static const Product product_{v}[] = {{0, {names}}};")
                text.append(f"#define MOST_{v} {most}")
            text.append("#endif")
        return text

    # -- both passes

    def vectors_of(self, stage: Stage) -> int:
        """Vectors of units in a panel: two where each holds but one product's numbers."""
        return 2 if all(product.blocks == 1 for product in stage.products) else 1

    def rows_of(self, stage: Stage) -> str:
        """How many rows are computed at once."""
        wide = [p.blocks * self.vectors_of(stage) for p in stage.products]
        return f"MOST_{max(wide)}" if wide else "8"

    def room(self, one: _Pass) -> None:
        """The struct of scratch memory, and how it is laid out."""
        with self.block("typedef struct"):
            for member, _ in one.room:
                self.line(f"real *{member};")
        self.lines[-1] = f"}} {one.name.title()}Room;"
        self.line()
        head = f"static int64_t {one.name}_room(const Call *c, {one.name.title()}Room *m)"
        with self.block(head):
            self.line("int64_t n = 0;")
            for member, count in one.room:
                self.line(f"m->{member} = c->scratch + n;")
                self.line(f"n += {count};")
            self.line("return n;")
        self.line()
        self.line(f"EXPORT int64_t {one.name}_scratch(const Call *c) {{")
        self.line(f"    {one.name.title()}Room m;")
        self.line(f"    return {one.name}_room(c, &m);")
        self.line("}")
        self.line()

    def weights(self, one: _Pass) -> None:
        """Scratch memory for packed weights, and a function that packs a thread's share."""
        reach = []
        for stage in one.stages:
            v = self.vectors_of(stage)
            for p in stage.products:
                weight = self.step.products[p.product].weight
                K = weight.columns if one.name == "forward" else weight.rows
                panel = f"{self.size(K)} * {p.blocks * v} * LANES"
                self.vectors.add(p.blocks * v)
                count = f"panels({self.size(stage.width)}, {v}) * {panel}"
                one.room.append((f"weight_{p.product}", count))
                reach.append((p, stage, v, K, panel))
        self._packing = (one, reach)

    def packing(self) -> None:
        one, reach = self._packing
        with self.block(f"static void {one.name}_pack({_ARGUMENTS(one)})"):
            if not reach:
                self.line("(void)c, (void)m, (void)s;")
            for p, stage, v, K, panel in reach:
                W = self.size(stage.width)
                pointer = self.pointer(f"weight_{p.product}")
                with self.block(f"for (long p = s->thread; p < panels({W}, {v}); p += s->threads)"):
                    to = f"m->weight_{p.product} + p * {panel}"
                    if one.name == "forward":
                        self.line(
                            f"pack_rows({pointer}, {self.size(K)}, {W}, {p.blocks}, {v}, p * {v} * LANES, {to});"
                        )
                    else:
                        self.line(
                            f"pack_columns({pointer}, {self.size(K)}, {W}, {v}, p * {v} * LANES, {to});"
                        )
        self.line()

    @contextmanager
    def tiles(
        self, one: _Pass, stage: Stage, products: Sequence[tuple[int, str]]
    ) -> Iterator[None]:
        """The loops over panels, rows and vectors, with the products at hand.

        ``products`` names each product of the stage and where the rows that it multiplies lie:
        a C expression of the row ``b0`` and the distance of rows, or nothing for no product.
        """
        v = self.vectors_of(stage)
        W = self.size(stage.width)
        blocks = {p.product: p.blocks for p in stage.products}
        self.line(f"const long many = panels({W}, {v});")
        self.line("const long most = share_of(many, s->unit + 1, s->units);")
        head = "for (long p = share_of(many, s->unit, s->units); p < most; p++)"
        with self.block(head):
            units = [
                self.program.units and store.buffer.key
                for store in stage.stores
                if store.buffer.kind == "unit"
            ]
            for i in units:
                self.line(f"vec unit_{i}[{v}] = {{{{0}}}};")
            self.line("long high;")
            with self.block("for (long b0 = s->first; b0 < s->last; b0 += high)"):
                self.line(f"high = tile(s->last - b0, {self.rows_of(stage)});")
                for k, rows in products:
                    wide = blocks[k] * v
                    K = self.step.products[k].weight
                    numbers = self.size(K.columns if one.name == "forward" else K.rows)
                    self.line(f"_Alignas(64) real z_{k}[{self.rows_of(stage)} * {wide} * LANES];")
                    self.line(
                        f"product_{wide}[high]({rows}, m->weight_{k} + p * {numbers} * {wide} * LANES, {numbers}, z_{k});"
                    )
                with self.block("for (long i = 0; i < high; i++)"):
                    self.line("const long b = b0 + i, row = b * c->row_b + t * c->row_t;")
                    self.line("const int valid = is_valid(c, b, t);")
                    loop = self.block(f"for (int j = 0; j < {v}; j++)") if v > 1 else _nothing()
                    if v == 1:
                        self.line("const int j = 0;")
                    with loop:
                        self.line(f"const long u = (p * {v} + j) * LANES;")
                        if v > 1:
                            self.line(f"if (u >= {W}) break;")
                        self.line(f"const int n = lanes({W} - u);")
                        yield
            for i in units:
                with self.block(f"for (int j = 0; j < {v} && (p * {v} + j) * LANES < {W}; j++)"):
                    self.line(f"const long u = (p * {v} + j) * LANES;")
                    self.line(f"real *to = {self.pointer(f'unit_{i}')} + s->group * {W} + u;")
                    self.line(
                        f"v_store_n(to, v_load_n(to, lanes({W} - u)) + unit_{i}[j], lanes({W} - u));"
                    )

    def sums_of(self, stage: Stage, kind: str) -> None:
        """The sums over rows that a stage begins with."""
        for k in stage.sums:
            W = self.step.sums[k].width
            with self.block("for (long b = s->first; b < s->last; b++)"):
                self.line(
                    f"m->sum_{k}[s->thread * c->B + b] = row_sum(m->{kind}_{k} + b * ROW({self.size(W)}), {self.size(W)});"
                )

    def compute(self, roots: Sequence[Node], given: dict[Node, str]) -> Callable[[Node], str]:
        """Print what the roots need, one number a line; returns their names."""
        names = dict(given)
        for node in walk(list(roots), given):
            if node.op == "const":
                names[node] = _constant(node.what)
            elif node.op == "leaf":
                names[node] = f"l{node.serial}"
                self.line(f"const vec l{node.serial} = {self.leaf(node)};")
            else:
                names[node] = f"e{node.serial}"
                self.line(f"const vec e{node.serial} = {_expression(node, names)};")
        return lambda node: names[node]

    def leaf(self, node: Node) -> str:
        """A leaf as C, where the passes agree on it."""
        columns = node.what
        if columns.source == "parameter":
            name = self.pointer(f"p_{columns.key}")
            if not node.width:
                return f"v_set({name}[0])"
            return f"v_load_n({name} + {_plus(self.size(columns.offset))}u, n)"
        raise AssertionError(columns)  # the passes know all others

    # -- forward

    def forward(self) -> None:
        program, step = self.program, self.step
        one = _Pass("forward", program.forward)
        self.weights(one)
        for p, size in enumerate(step.state_sizes):
            one.room.append((f"state_{p}", f"2 * c->B * ROW({self.size(size)})"))
        for store in (s for stage in program.forward for s in stage.stores):
            if store.buffer.kind in ("value", "summand") and store.node is not None:
                name = f"{store.buffer.kind}_{store.buffer.key}"
                one.room.append((name, f"c->B * ROW({self.size(store.node.width)})"))
        one.room += [(f"sum_{k}", "c->threads * c->B") for k in range(len(step.sums))]
        self.room(one)
        self.packing()
        for n, stage in enumerate(program.forward):
            self._forward_stage(one, n, stage)
        self._forward_pass(one)

    def _state(self, p: int, now: str) -> str:
        row = f"ROW({self.size(self.step.state_sizes[p])})"
        return f"m->state_{p} + ({now} * c->B + b) * {row}"

    def _next_state(self, p: int, value: str) -> None:
        """Leave a state part to the next step, which may begin anew."""
        start = f"{self.pointer(f'start_{p}')} + b * {self.size(self.step.state_sizes[p])} + u"
        fresh = f"is_reset(c, b, next) ? v_load_n({start}, n) : {value}"
        self.line(f"v_store({self._state(p, '(1 - now)')} + u, {fresh});")

    def _forward_stage(self, one: _Pass, n: int, stage: Stage) -> None:
        products = []
        for p in stage.products:
            K = self.size(self.step.products[p.product].weight.columns)
            if p.value.kind == "x":
                x = self.pointer("x")
                products.append(
                    (p.product, f"{x} + (b0 * c->row_b + t * c->row_t) * {K}, c->row_b * {K}")
                )
            elif p.value.kind == "state":
                from_ = f"m->state_{p.value.key} + (now * c->B + b0) * ROW({K})"
                products.append((p.product, f"{from_}, ROW({K})"))
            else:
                products.append((p.product, f"m->value_{p.value.key} + b0 * ROW({K}), ROW({K})"))
        blocks = {p.product: p.blocks for p in stage.products}
        v = self.vectors_of(stage)
        W = stage.width

        def leaf(node: Node) -> str:
            source, key, offset = node.what.source, node.what.key, node.what.offset
            if source == "wx":
                at = f"{self.pointer('wx')} + row * {self.size(self.step.wx_size)}"
                return f"v_load_n({at} + {_plus(self.size(offset))}u, n)"
            if source == "state":
                return f"v_load({self._state(key, 'now')} + u)"
            if source == "product":
                return f"v_load(z_{key} + ((i * {blocks[key]} + {offset // W}) * {v} + j) * LANES)"
            if source == "sum":
                return f"v_set(m->sum_{key}[s->thread * c->B + b])"
            return _Printer.leaf(self, node)

        self.leaf = leaf  # type: ignore[method-assign]
        with self.block(f"static void forward_{n}({_ARGUMENTS(one)}, long t, long next, long now)"):
            self.line("(void)next;")
            self.sums_of(stage, "summand")
            with self.tiles(one, stage, products):
                with self.block("if (!valid)"):
                    self._forward_invalid(stage)
                    self.line("continue;")
                earlier = self._from_earlier(stage, n)
                roots = [*stage.state.values(), *(s.node for s in stage.stores if s.node)]
                name = self.compute(roots, earlier)
                self._forward_stores(stage, name)
        self.line()
        del self.leaf

    def _from_earlier(self, stage: Stage, n: int) -> dict[Node, str]:
        """What earlier stages of the step have computed for this one, loaded."""
        mine = {s.node for s in stage.stores if s.buffer.kind == "saved"}
        roots = [*stage.state.values(), *(s.node for s in stage.stores if s.node)]
        crossing = {
            node: offset
            for node, offset in self.program.saved.items()
            if offset < self.program.crossing and node not in mine
        }
        reached = {arg for node in walk(roots, crossing) for arg in node.args} | set(roots)
        given = {}
        for node, offset in crossing.items():
            if node in reached:
                given[node] = f"k{node.serial}"
                self.line(f"const vec k{node.serial} = {self._saved(offset)};")
        return given

    def _saved(self, offset: int) -> str:
        return f"v_load_n({self.pointer('saved')} + {self._saved_place(offset)}, n)"

    def _saved_place(self, offset: int) -> str:
        row = f"(b * c->save_b + t * c->save_t) * {self.size(self.program.saved_size)}"
        return f"{row} + {_plus(self.size(offset))}u"

    def _forward_invalid(self, stage: Stage) -> None:
        """A step beyond a row's end: its state stays, and zeros are all that is seen of it."""
        for p in stage.state:
            size = self.size(self.step.state_sizes[p])
            self._next_state(p, f"v_load({self._state(p, 'now')} + u)")
            if p == 0:
                self.line(f"v_store_n({self.pointer('y')} + row * {size} + u, (vec){{0}}, n);")
            if p in self.program.befores:
                self._keep(f"before_{p}", f"row * {size} + u", "(vec){0}")
        for store in stage.stores:
            self._keep_store(store, "(vec){0}")

    def _keep(self, name: str, place: str, value: str) -> None:
        """Store a number for the backward pass, if one will follow."""
        self.line(f"if (c->save) v_store_n({self.pointer(name)} + {place}, {value}, n);")

    def _keep_store(self, store: Store, value: str) -> None:
        assert store.node is not None  # the forward pass stores what it computes
        if store.buffer.kind == "saved" and store.offset >= self.program.crossing:
            self._keep("saved", self._saved_place(store.offset), value)
        elif store.buffer.kind == "saved":
            self.line(
                f"v_store_n({self.pointer('saved')} + {self._saved_place(store.offset)}, {value}, n);"
            )
        elif store.buffer.kind == "value" and self.program.backward:
            self._keep(
                f"value_{store.buffer.key}", f"row * {self.size(store.node.width)} + u", value
            )

    def _forward_stores(self, stage: Stage, name: Callable[[Node], str]) -> None:
        for p, node in stage.state.items():
            size = self.size(self.step.state_sizes[p])
            self._next_state(p, name(node))
            if p == 0:
                self.line(f"v_store_n({self.pointer('y')} + row * {size} + u, {name(node)}, n);")
            if p in self.program.befores:
                before = f"v_load({self._state(p, 'now')} + u)"
                self._keep(f"before_{p}", f"row * {size} + u", before)
        for store in stage.stores:
            assert store.node is not None  # as above
            kind, k = store.buffer.kind, store.buffer.key
            if kind in ("value", "summand"):
                row = f"ROW({self.size(store.node.width)})"
                self.line(f"v_store(m->{kind}_{k} + b * {row} + u, {name(store.node)});")
            self._keep_store(store, name(store.node))

    def _forward_pass(self, one: _Pass) -> None:
        sizes = self.step.state_sizes
        with self.block("static void forward_thread(void *team)"):
            self.line("const Call *c = ((Team *)team)->call;")
            self.line("const Share mine = share(team), *s = &mine;")
            self.line("ForwardRoom room, *m = &room;")
            self.line("forward_room(c, m);")
            self.line("if (!c->packed) forward_pack(c, m, s);")
            with self.block("for (long b = s->first + s->unit; b < s->last; b += s->units)"):
                self.line("const int fresh = is_reset(c, b, step(c, 0));")
                for p, size in enumerate(sizes):
                    S = self.size(size)
                    start, initial = self.pointer(f"start_{p}"), self.pointer(f"initial_{p}")
                    self.line(
                        f"copy_row({self._state(p, '0')}, (fresh ? {start} : {initial}) + b * {S}, {S});"
                    )
            self.line("meet(s->all, s->threads);")
            self.line("long now = 0;")
            with self.block("for (long i = 0; i < c->T; i++, now = 1 - now)"):
                self.line("const long t = step(c, i), next = step(c, i + 1);")
                for n in range(len(one.stages)):
                    self.line(f"forward_{n}(c, m, s, t, next, now);")
                    if self._exchanges:
                        self.line("meet(s->own, s->units);")
            if not self._exchanges:
                self.line("meet(s->own, s->units);")
            with self.block("for (long b = s->first + s->unit; b < s->last; b += s->units)"):
                for p, size in enumerate(sizes):
                    S = self.size(size)
                    self.line(
                        f"copy_row({self.pointer(f'final_{p}')} + b * {S}, {self._state(p, 'now')}, {S});"
                    )
        self.line()
        self._entry(one)

    @property
    def _exchanges(self) -> bool:
        return bool(self.step.products or self.step.sums)

    def _entry(self, one: _Pass) -> None:
        with self.block(f"EXPORT void {one.name}(const Call *c)"):
            self.line(
                "Team team = {.call = c, .rows = c->B, .threads = c->threads, .row_groups = c->row_groups,"
            )
            self.line("             .thread = c->thread, .team = c->team};")
            self.line("if (c->threads > 1)")
            self.line(f"    c->parallel({one.name}_thread, &team, (unsigned)c->threads, 0);")
            self.line("else")
            self.line(f"    team.team = 0, {one.name}_thread(&team);")
        self.line()

    # -- backward

    def backward(self) -> None:
        program, step = self.program, self.step
        one = _Pass("backward", program.backward)
        self.weights(one)
        for p, size in enumerate(step.state_sizes):
            one.room.append((f"carry_{p}", f"2 * c->B * ROW({self.size(size)})"))
        for k, product in enumerate(step.products):
            one.room.append((f"dz_{k}", f"2 * c->B * ROW({self.size(product.weight.rows)})"))
        for k, node in enumerate(step.sums):
            one.room.append((f"dsum_{k}", f"c->B * ROW({self.size(node.width)})"))
            one.room.append((f"sum_{k}", "c->threads * c->B"))
        if program.crossing:
            one.room.append(("dcross", f"c->B * ROW({self.size(program.crossing)})"))
        self.room(one)
        self.packing()
        for n, stage in enumerate(program.backward):
            self._backward_stage(one, n, stage)
        self._backward_pass(one)

    def _carry(self, p: int, now: str) -> str:
        row = f"ROW({self.size(self.step.state_sizes[p])})"
        return f"m->carry_{p} + ({now} * c->B + b) * {row}"

    def _dz(self, k: int, now: str, b: str = "b") -> str:
        row = f"ROW({self.size(self.step.products[k].weight.rows)})"
        return f"m->dz_{k} + ({now} * c->B + {b}) * {row}"

    def _incoming(self, stage: Stage, one: _Pass) -> list[tuple[int, str]]:
        """Where the rows lie that a stage's products multiply.

        Those of a state's product are of the step that ran after this one.
        """
        rows = []
        for p in stage.products:
            K = self.size(self.step.products[p.product].weight.rows)
            of = "(1 - now)" if self.program.part_of(p.product) is not None else "now"
            rows.append((p.product, f"{self._dz(p.product, of, 'b0')}, ROW({K})"))
        return rows

    def _state_gradients(self, stage: Stage) -> None:
        """The gradient of each state part that a stage makes, but for what comes by the output."""
        v = self.vectors_of(stage)
        for p in stage.state:
            S = self.size(self.step.state_sizes[p])
            terms = [f"v_load({self._carry(p, 'now')} + u)"]
            terms += [
                f"v_load(z_{x.product} + (i * {v} + j) * LANES)"
                for x in stage.products
                if self.program.part_of(x.product) == p
            ]
            self.line(f"vec g_{p} = {' + '.join(terms)};")
            with self.block("if (is_reset(c, b, after))"):
                to = f"{self.pointer(f'grad_start_{p}')} + b * {S} + u"
                self.line(f"v_store_n({to}, v_load_n({to}, n) + g_{p}, n);")
                self.line(f"g_{p} = (vec){{0}};")

    def _backward_stage(self, one: _Pass, n: int, stage: Stage) -> None:
        v = self.vectors_of(stage)

        def leaf(node: Node) -> str:
            source, key, offset = node.what.source, node.what.key, node.what.offset
            if source == "state":
                S = self.size(self.step.state_sizes[key])
                at = f"{self.pointer(f'before_{key}')} + row * {S}"
                return f"v_load_n({at} + {_plus(self.size(offset))}u, n)"
            if source == "grad":
                kind, k = key
                if kind == "state":
                    return f"g_{k}"
                if kind == "value":
                    return f"v_load(z_{k} + (i * {v} + j) * LANES)"
                if kind == "summand":
                    return f"v_set(m->sum_{k}[s->thread * c->B + b])"
                at = f"m->dcross + b * ROW({self.size(self.program.crossing)})"
                return f"v_load_n({at} + {_plus(self.size(k))}u, n)"
            return _Printer.leaf(self, node)

        self.leaf = leaf  # type: ignore[method-assign]
        head = f"static void backward_{n}({_ARGUMENTS(one)}, long t, long after, long now)"
        with self.block(head):
            self.line("(void)after;")
            self.sums_of(stage, "dsum")
            with self.tiles(one, stage, self._incoming(stage, one)):
                self._state_gradients(stage)
                with self.block("if (!valid)"):
                    self._backward_invalid(stage)
                    self.line("continue;")
                if 0 in stage.state:
                    S = self.size(self.step.state_sizes[0])
                    y = self.pointer("grad_y")
                    self.line(f"if ({y}) g_0 += v_load_n({y} + row * {S} + u, n);")
                roots = [s.node for s in stage.stores if s.node is not None]
                reached = {x for node in walk(roots, self.program.saved) for x in node.args}
                given = {}
                for node, offset in self.program.saved.items():
                    if node in reached or node in roots:
                        given[node] = f"k{node.serial}"
                        self.line(f"const vec k{node.serial} = {self._saved(offset)};")
                name = self.compute(roots, given)
                for store in stage.stores:
                    self._backward_store(store, stage, name)
        self.line()
        del self.leaf
        if stage.state:
            self._end(one, n, stage)

    def _places(self, buffer: Buffer, offset: int) -> Iterator[tuple[str, str]]:
        """Where a gradient is stored, and by which function."""
        column = f"{_plus(self.size(offset))}u"
        kind, k = buffer.kind, buffer.key
        if kind == "dwx":
            at = f"{self.pointer('grad_wx')} + row * {self.size(self.step.wx_size)}"
            yield f"{at} + {column}", "_n"
        elif kind == "dz":
            yield f"{self._dz(k, 'now')} + {column}", "_n"
            if k not in self.program.shared:
                rows = self.size(self.step.products[k].weight.rows)
                yield f"{self.pointer(f'grad_z_{k}')} + row * {rows} + {column}", "_n"
        elif kind == "dsum":
            yield f"m->dsum_{k} + b * ROW({self.size(self.step.sums[k].width)}) + u", ""
        elif kind == "dcross":
            yield f"m->dcross + b * ROW({self.size(self.program.crossing)}) + {column}", "_n"
        elif kind == "carry":
            yield f"{self._carry(k, '(1 - now)')} + u", ""

    def _put(self, place: str, suffix: str, value: str, add: bool = False) -> None:
        n = ", n" if suffix else ""
        if add:
            value = f"v_load{suffix}({place}{n}) + {value}"
        self.line(f"v_store{suffix}({place}, {value}{n});")

    def _backward_store(self, store: Store, stage: Stage, name: Callable[[Node], str]) -> None:
        value = "(vec){0}" if store.node is None else name(store.node)
        if store.buffer.kind == "unit":
            self.line(f"unit_{store.buffer.key}[j] += {value};")
            return
        if store.add and store.node is None:
            return
        for place, suffix in self._places(store.buffer, store.offset):
            self._put(place, suffix, value, store.add)

    def _backward_invalid(self, stage: Stage) -> None:
        """A step beyond a row's end: the gradient of the state passes by."""
        for store in stage.stores:
            passes = store.buffer.kind == "carry" and store.buffer.key in stage.state
            if store.buffer.kind == "unit" or store.add or passes:
                continue
            for place, suffix in self._places(store.buffer, store.offset):
                self._put(place, suffix, "(vec){0}")
        for p in stage.state:
            self._put(f"{self._carry(p, '(1 - now)')} + u", "", f"g_{p}")

    def _end(self, one: _Pass, n: int, stage: Stage) -> None:
        """The gradient of the state before the first step."""
        parts = [p for p in stage.products if self.program.part_of(p.product) is not None]
        ending = Stage(stage.width, parts, state=stage.state)
        head = f"static void backward_end_{n}({_ARGUMENTS(one)}, long after, long now)"
        with self.block(head):
            self.line("const long t = after;")
            with self.tiles(one, ending, self._incoming(ending, one)):
                self.line("(void)row, (void)valid;")
                self._state_gradients(ending)
                for p in stage.state:
                    S = self.size(self.step.state_sizes[p])
                    self.line(
                        f"v_store_n({self.pointer(f'grad_initial_{p}')} + b * {S} + u, g_{p}, n);"
                    )
        self.line()

    def _backward_pass(self, one: _Pass) -> None:
        step, program = self.step, self.program
        gaps = {b.key for b in program.gaps if b.kind == "dz"}
        with self.block("static void backward_thread(void *team)"):
            self.line("const Call *c = ((Team *)team)->call;")
            self.line("const Share mine = share(team), *s = &mine;")
            self.line("BackwardRoom room, *m = &room;")
            self.line("backward_room(c, m);")
            self.line("backward_pack(c, m, s);")
            with self.block("for (long b = s->first + s->unit; b < s->last; b += s->units)"):
                for p, size in enumerate(step.state_sizes):
                    S, final = self.size(size), self.pointer(f"grad_final_{p}")
                    self.line(
                        f"copy_row({self._carry(p, '0')}, {final} ? {final} + b * {S} : 0, {S});"
                    )
                for k, product in enumerate(step.products):
                    K = self.size(product.weight.rows)
                    self.line(f"copy_row({self._dz(k, '1')}, 0, ROW({K}));")
                    if k in gaps:
                        self.line(f"copy_row({self._dz(k, '0')}, 0, ROW({K}));")
            self.line("meet(s->all, s->threads);")
            self.line("long now = 0, after = -1;")
            with self.block("for (long i = c->T - 1; i >= 0; i--, now = 1 - now)"):
                self.line("const long t = step(c, i);")
                for n in range(len(one.stages)):
                    self.line(f"backward_{n}(c, m, s, t, after, now);")
                    if self._exchanges:
                        self.line("meet(s->own, s->units);")
                self.line("after = t;")
            if not self._exchanges:
                self.line("meet(s->own, s->units);")
            for n, stage in enumerate(one.stages):
                if stage.state:
                    self.line(f"backward_end_{n}(c, m, s, after, now);")
        self.line()
        self._entry(one)


def _ARGUMENTS(one: _Pass) -> str:
    return f"const Call *c, const {one.name.title()}Room *m, const Share *s"


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _plus(size: str) -> str:
    return "" if size == "0" else f"{size} + "


def _constant(value: float) -> str:
    if value != value or value in (float("inf"), float("-inf")):
        word = "NAN" if value != value else "INFINITY" if value > 0 else "-INFINITY"
        return f"v_set({word})"
    return f"v_set((real){value!r})"


def _expression(node: Node, names: dict[Node, str]) -> str:
    args = [names[arg] for arg in node.args]
    if node.op in _INFIX:
        return f"{args[0]} {_INFIX[node.op]} {args[1]}"
    if node.op == "neg":
        return f"-{args[0]}"
    return f"v_{node.op}({', '.join(args)})"


_HELPERS_BEFORE = """\
#define EXPORT __attribute__((visibility("default")))

EXPORT const int64_t lanes_of_a_vector = LANES;
"""

_HELPERS = """\

/* The step that is i-th to run; -1 past the last. */
INLINE long step(const Call *c, long i) {
    return i >= c->T ? -1 : c->reverse ? c->T - 1 - i : i;
}

INLINE int is_valid(const Call *c, long b, long t) { return !c->lengths || t < c->lengths[b]; }

/* Whether the state of a row is set anew before a step. */
INLINE int is_reset(const Call *c, long b, long t) {
    return t >= 0 && c->resets && c->resets[b * c->reset_b + t * c->reset_t] && is_valid(c, b, t);
}

/* Rows left, in tiles of about the same height. */
INLINE long tile(long left, long most) { return (left + (left + most - 1) / most - 1) / ((left + most - 1) / most); }
"""
