"""Prints the backward pass as C."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from seqnets.engine.c.expressions import ZERO, loaded, stored
from seqnets.engine.c.panels import vectors_of
from seqnets.engine.c.passes import PassPrinter
from seqnets.engine.graph import Node
from seqnets.engine.program import Buffer, Stage, StageProduct, Store


class BackwardPrinter(PassPrinter):
    """Prints the loop from the last step to the first, which computes gradients."""

    name = "backward"
    source = "after"
    coming = "after"

    def room(self) -> dict[str, str]:
        """Members of the workspace beside the weights."""
        step = self.step
        members = {
            f"carry_{p}": f"2 * c->B * {self.row(size)}" for p, size in enumerate(step.state_sizes)
        }
        for k in sorted(self.program.differentiated):
            members[f"dz_{k}"] = f"2 * c->B * {self.row(self.reach(k))}"
        for k, reduction in enumerate(step.reductions):
            if reduction.op == "sum":
                members[f"dsum_{k}"] = f"c->B * {self.row(reduction.width)}"
                members[f"sum_{k}"] = "c->threads * c->B"
        if self.program.crossing:
            members["dcross"] = f"c->B * {self.row(self.program.crossing)}"
        return members

    def reach(self, product: int) -> int:
        """The width of the product's forward result."""
        return self.step.products[product].weight.rows

    def pack(self, product: StageProduct, stage: Stage, panel: str) -> str:
        """The call that packs columns of a weight."""
        k, vectors = product.product, vectors_of(stage)
        weight = f"{self.pointer(f'weight_{k}')}, {self.size(self.reach(k))}"
        shape = f"{self.size(stage.width)}, {vectors}, p * {vectors} * LANES"
        return f"pack_columns({weight}, {shape}, {panel});"

    def leaf(self, node: Node, stage: Stage) -> str:
        """A leaf of an expression."""
        source, key, offset = node.what.source, node.what.key, node.what.offset
        if source == "state":
            size = self.step.state_sizes[key]
            self.prefetch(self.at(f"before_{key}", size, offset, "soon"))
            return loaded(self.at(f"before_{key}", size, offset))
        if source != "grad":
            return super().leaf(node, stage)
        kind, k = key
        if kind == "state":
            return f"g_{k}"
        if kind == "value":
            return self._product(k, stage)
        if kind == "reduced":
            return f"v_set(m->sum_{k}[s->thread * c->B + b])"
        return loaded(self.unit_in_room("dcross", self.program.crossing, offset=k))

    def write_stage(self, n: int, stage: Stage) -> None:
        """Print the function of a stage."""
        head = f"{self.declared} void backward_{n}({self.arguments}, long t, long after, long now)"
        with self.text.function(head):
            self.line("const long then = after < 0 ? t : t + t - after;")
            for k in stage.reductions:
                self.reduce(k, "sum", "dsum", self.step.reductions[k].width)
            with self.units_of_rows(stage, self._multiplied(stage)):
                self._come_in(stage)
                with self.text.block("if (!valid)"):
                    self._pass_by(stage)
                    self.line("continue;")
                if 0 in stage.state:
                    y = loaded(self.at("grad_y", self.step.state_sizes[0]))
                    self.line(f"if (c->grad_y) g_0 += {y};")
                    self.prefetch(self.at("grad_y", self.step.state_sizes[0], row="soon"))
                kept = self.load_saved(stage.stored, self.program.saved)
                name = self.compute(stage, stage.stored, kept)
                for store in stage.stores:
                    self._store(store, name)
        if stage.state:
            self._write_end(n, stage)

    def _write_end(self, n: int, stage: Stage) -> None:
        """Print the function for the gradient of the state before the first step."""
        parts = [p for p in stage.products if self.program.part_of(p.product) is not None]
        ending = Stage(stage.width, parts, state=stage.state)
        head = f"{self.declared} void backward_end_{n}({self.arguments}, long after, long now)"
        with self.text.function(head):
            self.line("const long t = after, then = after;")
            with self.units_of_rows(ending, self._multiplied(ending)):
                self.line("(void)row, (void)soon, (void)valid;")
                self._come_in(ending)
                for p in stage.state:
                    size = self.step.state_sizes[p]
                    self.line(stored(self.at(f"grad_initial_{p}", size, row="b"), f"g_{p}"))

    def _multiplied(self, stage: Stage) -> dict[int, str]:
        """Operands of the products: a state reads the later step's gradients, others this one's."""
        rows = {}
        for p in stage.products:
            turn = "now" if self.program.part_of(p.product) is None else "(1 - now)"
            row = self.row(self.reach(p.product))
            rows[p.product] = f"m->dz_{p.product} + ({turn} * c->B + b0) * {row}, {row}"
        return rows

    def _product(self, k: int, stage: Stage) -> str:
        return f"v_load(z_{k} + (i * {vectors_of(stage)} + j) * LANES)"

    def _carry(self, p: int, turn: str) -> str:
        return self.in_room(f"carry_{p}", self.step.state_sizes[p], turn)

    def _carry_at(self, p: int, turn: str) -> str:
        return self.unit_in_room(f"carry_{p}", self.step.state_sizes[p], turn)

    def _dz(self, k: int, turn: str) -> str:
        return self.in_room(f"dz_{k}", self.reach(k), turn)

    def _come_in(self, stage: Stage) -> None:
        """The incoming gradient of each state part that a stage computes, without the output's."""
        for p in stage.state:
            terms = [f"v_load({self._carry_at(p, 'now')})"]
            terms += [
                self._product(x.product, stage)
                for x in stage.products
                if self.program.part_of(x.product) == p
            ]
            self.line(f"vec g_{p} = {' + '.join(terms)};")
            start = self.at(f"grad_start_{p}", self.step.state_sizes[p], row="b")
            with self.text.block(f"if ({self.is_reset()})"):
                self.line(stored(start, f"{loaded(start)} + g_{p}"), f"g_{p} = {ZERO};")

    def _pass_by(self, stage: Stage) -> None:
        """A step past a row's end: the gradient of the state passes through."""
        for store in stage.stores:
            passes = store.buffer.kind == "carry" and store.buffer.key in stage.state
            if not store.add and not passes:  # units are added to, all of them
                for place in self._places(store.buffer, store.offset):
                    self.line(stored(place, ZERO))
        for p in stage.state:
            self.line(f"v_store({self._carry_at(p, '(1 - now)')}, g_{p});")

    def _store(self, store: Store, name: Callable[[Node], str]) -> None:
        value = ZERO if store.node is None else name(store.node)
        if store.buffer.kind == "unit":
            self.line(f"unit_{store.buffer.key}[j] += {value};")
        elif store.node is not None or not store.add:
            for place in self._places(store.buffer, store.offset):
                self.line(stored(place, f"{loaded(place)} + {value}" if store.add else value))

    def _places(self, buffer: Buffer, offset: int) -> Iterator[str]:
        """Where a gradient is stored: in the workspace for later stages, and for the caller."""
        kind, k = buffer.kind, buffer.key
        if kind == "dwx":
            self.prefetch(self.at("grad_wx", self.step.wx_size, offset, "soon"), to_write=True)
            yield self.at("grad_wx", self.step.wx_size, offset)
        elif kind == "dz":
            yield self.unit_in_room(f"dz_{k}", self.reach(k), "now", offset)
            if k in self.program.learned - self.program.shared:
                yield self.at(f"grad_z_{k}", self.reach(k), offset)
        elif kind == "dsum":
            yield self.unit_in_room(f"dsum_{k}", self.step.reductions[k].width)
        elif kind == "dcross":
            yield self.unit_in_room("dcross", self.program.crossing, offset=offset)
        else:
            yield self._carry_at(k, "(1 - now)")

    def write_loop(self) -> None:
        """Print the function that each thread runs."""
        gaps = {buffer.key for buffer in self.program.gaps if buffer.kind == "dz"}

        def begin() -> None:
            for p, size in enumerate(self.step.state_sizes):
                n, final = self.size(size), self.pointer(f"grad_final_{p}")
                row = f"{final} ? {final} + b * {n} : 0"
                self.line(f"copy_row({self._carry(p, '0')}, {row}, {n});")
            for k in sorted(self.program.differentiated):
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
            self.end_loop()
