"""Prints the forward pass as C."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

from seqnets.engine.c.expressions import ZERO, loaded, stored
from seqnets.engine.c.panels import vectors_of
from seqnets.engine.c.passes import PassPrinter
from seqnets.engine.c.projected import can_project, projected_by
from seqnets.engine.c.text import Text
from seqnets.engine.graph import Node
from seqnets.engine.program import Program, Stage, StageProduct, Store


class ForwardPrinter(PassPrinter):
    """Prints the loop over steps, which computes outputs, states and what is kept."""

    name = "forward"
    source = "t"
    coming = "next"

    def __init__(self, program: Program, text: Text, tiled: bool) -> None:
        super().__init__(program, text, tiled)
        projects = not tiled and can_project(program)
        found = [projected_by(program, stage) for stage in self.stages if projects]
        self._projected = {n: each for n, each in enumerate(found) if each is not None}
        self._stage = 0  # the one that is being printed
        self.widths |= {*map(self._width_of_projection, self._projected)}

    def room(self) -> dict[str, str]:
        """Members of the workspace beside the weights."""
        members = {
            f"state_{p}": f"2 * c->B * {self.row(size)}"
            for p, size in enumerate(self.step.state_sizes)
        }
        for store in (store for stage in self.stages for store in stage.stores):
            if store.buffer.kind in ("value", "reduced") and store.node is not None:
                name = f"{store.buffer.kind}_{store.buffer.key}"
                members[name] = f"c->B * {self.row(store.node.width)}"
        for n in self._projected:
            panels = f"{self.panels.count(self.stages[n])} * {self._size_of_projection(n)}"
            members[f"projection_{n}"] = f"(c->features ? {panels} : 0)"
        return members | {
            f"{reduction.op}_{k}": "c->threads * c->B"
            for k, reduction in enumerate(self.step.reductions)
        }

    def reach(self, product: int) -> int:
        """The width of the product's operand."""
        return self.step.products[product].weight.columns

    def pack(self, product: StageProduct, stage: Stage, panel: str) -> str:
        """The call that packs rows of a weight."""
        k, vectors = product.product, vectors_of(stage)
        weight = f"{self.pointer(f'weight_{k}')}, {self.size(self.reach(k))}"
        shape = f"{self.size(stage.width)}, {product.blocks}, {vectors}, p * {vectors} * LANES"
        return f"pack_rows({weight}, {shape}, {panel});"

    def leaf(self, node: Node, stage: Stage) -> str:
        """A leaf of an expression."""
        source, key, offset = node.what.source, node.what.key, node.what.offset
        if source == "wx" and self._stage in self._projected:
            return self._projected_leaf(offset)
        if source == "wx":
            self.prefetch(self.at("wx", self.step.wx_size, offset, "soon"))
            return loaded(self.at("wx", self.step.wx_size, offset))
        if source == "x":
            return loaded(self.at("x", self.step.wx_size, offset))
        if source == "state":
            return f"v_load({self._state_at(key, 'now', offset)})"
        if source == "product":
            blocks = next(p.blocks for p in stage.products if p.product == key)
            block = f"i * {blocks} + {offset // stage.width}"
            return f"v_load(z_{key} + (({block}) * {vectors_of(stage)} + j) * LANES)"
        if source == "reduction":
            return f"v_set(m->{self.step.reductions[key].op}_{key}[s->thread * c->B + b])"
        return super().leaf(node, stage)

    def write_stage(self, n: int, stage: Stage) -> None:
        """Print the function of a stage."""
        rows = {p.product: self._multiplied(p) for p in stage.products}
        self._stage = n
        head = f"{self.declared} void forward_{n}({self.arguments}, long t, long next, long now)"
        with self.text.function(head):
            self.line("const long then = next < 0 ? t : next;")
            for k in stage.reductions:
                reduction = self.step.reductions[k]
                self.reduce(k, reduction.op, "reduced", reduction.value.width)
            with self.units_of_rows(stage, rows):
                with self.text.block("if (!valid)"):
                    self._pass_by(stage)
                    self.line("continue;")
                roots = [*stage.state.values(), *stage.stored]
                earlier = self.program.crossing_into(stage)
                name = self.compute(stage, roots, self.load_saved(roots, earlier))
                self._store(stage, name)

    def pack_projection(self) -> None:
        """Print the packing of the input's weight and bias, for each stage."""
        for n, projected in self._projected.items():
            stage = self.stages[n]
            vectors, many = vectors_of(stage), f"c->features ? {self.panels.count(stage)} : 0"
            affine = f"{self.pointer('weight_wx')}, {self.pointer('bias_wx')}"
            rows = f"{self.size(projected.first)}, c->features, {self.size(stage.width)}"
            shape = f"{projected.blocks}, {vectors}, p * {vectors} * LANES"
            with self.text.block(f"for (long p = s->thread; p < ({many}); p += s->threads)"):
                self.line(f"pack_affine({affine}, {rows}, {shape},")
                self.line(f"            {self._projection_at(n)});")

    def write_projection(self, tall: str) -> None:
        """Print the projection of the input, where the loop computes it."""
        if self._stage not in self._projected:
            return
        row, wide = "(b0 * c->row_b + t * c->row_t) * c->features", self._width_of_projection()
        self.line(f"_Alignas(64) real z_wx[{tall} * {wide} * LANES];")
        with self.text.block("if (some && c->features)"):
            self.line(f"const real *panel = {self._projection_at(self._stage)};")
            self.line(f"product_{wide}[high]({self.pointer('x')} + {row}, c->row_b * c->features,")
            self.line(f"    panel, c->features, panel + c->features * {wide} * LANES, z_wx);")

    def _projection_at(self, n: int) -> str:
        """The address of panel p of the input's weight, whose last row is the bias."""
        return f"m->projection_{n} + p * {self._size_of_projection(n)}"

    def _size_of_projection(self, n: int) -> str:
        return f"(c->features + 1) * {self._width_of_projection(n)} * LANES"

    def _width_of_projection(self, n: int | None = None) -> int:
        """Vectors in a row of such a panel, by default that of the stage being printed."""
        n = self._stage if n is None else n
        return self._projected[n].blocks * vectors_of(self.stages[n])

    def _projected_leaf(self, offset: int) -> str:
        """A vector of the projected input, by the loop or before it."""
        stage, first = self.stages[self._stage], self._projected[self._stage].first
        vectors, wx, x = vectors_of(stage), self.pointer("wx"), self.pointer("x")
        whole, skipped = self.size(self.step.wx_size), self.size(first)
        here = f"z_wx + i * {self._width_of_projection()} * LANES"
        there = f"{wx} + row * {whole} + {skipped} + p * {vectors} * LANES"
        row = self._once_a_row("const real *const", "wx_row", f"c->features ? {here} : {there}")
        block = f"c->features ? {vectors} * LANES : {self.size(stage.width)}"
        block = self._once_a_row("const long", "wx_block", block)
        soon = f"c->features ? {x} + soon * c->features : {wx} + soon * {whole} + {skipped}"
        soon = self._once_a_row("const real *const", "wx_soon", soon)
        self.prefetch(f"{soon} + {self.column(offset - first)}")
        return loaded(f"{row} + {(offset - first) // stage.width} * {block} + j * LANES")

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

    def _state_at(self, p: int, turn: str, offset: int = 0) -> str:
        return self.unit_in_room(f"state_{p}", self.step.state_sizes[p], turn, offset)

    def _pass_by(self, stage: Stage) -> None:
        """A step past a row's end: the state stays, and all that is stored is zero."""
        for p in stage.state:
            self._store_state(p, f"v_load({self._state_at(p, 'now')})", ZERO, ZERO)
        for store in stage.stores:
            self._keep_store(store, ZERO)

    def _store(self, stage: Stage, name: Callable[[Node], str]) -> None:
        for p, node in stage.state.items():
            before = f"v_load({self._state_at(p, 'now')})"
            self._store_state(p, name(node), name(node), before)
        for store in stage.stores:
            assert store.node is not None  # the forward pass stores what it computes
            if store.buffer.kind in ("value", "reduced"):
                place = f"{store.buffer.kind}_{store.buffer.key}"
                to = self.unit_in_room(place, store.node.width)
                self.line(f"v_store({to}, {name(store.node)});")
            self._keep_store(store, name(store.node))

    def _store_state(self, p: int, after: str, y: str, before: str) -> None:
        """Store a state part for the next step, which may follow a reset, and for the caller."""
        size = self.step.state_sizes[p]
        start = loaded(self.at(f"start_{p}", size, row="b"))
        place = self._state_at(p, "(1 - now)")
        self.line(f"v_store({place}, {self.is_reset()} ? {start} : {after});")
        if p == 0:
            self.prefetch(self.at("y", size, row="soon"), to_write=True)
            self.line(stored(self.at("y", size), y))
        if p in self.program.befores:
            with self.text.block(f"if ({self.saves()})"):
                self.prefetch(self.at(f"before_{p}", size, row="soon"), to_write=True)
                self.line(stored(self.at(f"before_{p}", size), before))

    def _keep_store(self, store: Store, value: str) -> None:
        """Store a value for the backward pass, or, in any case, for later stages."""
        assert store.node is not None  # as above
        k = store.buffer.key
        if store.buffer.kind == "saved":
            always = store.offset < self.program.crossing
            with nullcontext() if always else self.text.block(f"if ({self.saves()})"):
                self.prefetch(self.saved_at(store.offset, "then"), to_write=True)
                self.line(stored(self.saved_at(store.offset), value))
        elif store.buffer.kind == "value" and k in self.program.learned:
            kept = stored(self.at(f"value_{k}", store.node.width), value)
            self.line(f"if ({self.saves()}) {kept}")

    def write_loop(self) -> None:
        """Print the function that each thread runs."""
        sizes = self.step.state_sizes

        def begin() -> None:
            self.line("const int fresh = is_reset(c, b, step(c, 0));")
            for p, size in enumerate(sizes):
                begins = f"fresh ? {self.pointer(f'start_{p}')} : {self.pointer(f'initial_{p}')}"
                n = self.size(size)
                self.line(f"const real *begins_{p} = {begins};")
                row = f"begins_{p} ? begins_{p} + b * {n} : 0"
                self.line(f"copy_row({self._state(p, '0')}, {row}, {n});")

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
            self.end_loop()
