"""Prints the forward pass as Triton, for the sequential modes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from seqnets.engine.graph import Node, walk
from seqnets.engine.program import Stage, StageProduct, Store
from seqnets.engine.triton.kernel import Kernel
from seqnets.engine.triton.passes import PassPrinter
from seqnets.engine.triton.tiles import power_of_two


class ForwardPrinter(PassPrinter):
    """Prints the forward pass: outputs, states, and what is kept."""

    name = "forward"
    like = "wx"
    exchanged = frozenset({"value", "reduced"})

    def reach(self, product: int) -> int:
        """The columns of the product's weight."""
        return self.step.products[product].weight.columns

    def weight(self, product: StageProduct, width: int, first: str) -> str:
        """The weights of some units' gates, concatenated."""
        k, tiles, places = product.product, self.tiles, power_of_two(product.blocks)
        sizes = f"{self.units[width]}, {width}, {product.blocks}, {places}, {self.reach(k)}"
        where = f"{self.kernel.pointer(f'weight_{k}')}, first_{self.index(width)}, {first}"
        return f"gate_weights({where}, {sizes}, {tiles.split}, {tiles.depth})"

    def multiplied(self) -> set[int]:
        """State parts that are operands of other programs' products."""
        if self.alone:
            return set()
        parts = (self.program.part_of(k) for k in range(len(self.step.products)))
        return {part for part in parts if part is not None}

    def leaf(self, node: Node, stage: Stage) -> str:
        """The variable of a leaf: of input, state, product or reduction."""
        source, key, offset = node.what.source, node.what.key, node.what.offset
        if source == "wx":
            place = self.at("wx", "row", self.step.wx_size, offset, node.width)
            return self.variable(f"wx_{offset}", f"{'fetch' if self.meets else 'load'}({place})")
        if source == "state":
            return self.state(key)
        if source == "product":
            return f"z_{key}_{offset // stage.width}"
        if source == "reduction":
            return self.reduction(key)
        return super().leaf(node, stage)

    def state(self, p: int) -> str:
        """The variable of a state part before the step."""
        if self.steps and p not in self._loaded:
            self._loaded.add(p)
            size = self.step.state_sizes[p]
            value = self.load(f"state_{p}", "((i % 2) * B + b)", size)
            self.kernel.line(f"s_{p} = {value}")
        return f"s_{p}"

    def reduction(self, k: int) -> str:
        """The variable of a reduction."""
        node, op = self.step.reductions[k].value, self.step.reductions[k].op
        if self.alone:
            return self.reduced(k, op, self.whole(node, node.width), node.width)
        return self.reduced_by_all(k, op, f"reduced_{k}", node.width)

    # Kernels.

    def write_loop(self) -> None:
        """Print one kernel for all steps."""
        self.write_prologue()
        parts = range(len(self.step.state))
        multiplied = sorted(self.multiplied())
        others = [p for p in parts if p not in multiplied]
        self.keep_before(multiplied, "t", "0", "t < length")
        self.arrive()
        self.keep_before(others, "t", "0", "t < length")
        with self.over_time():
            self.write_places()
            self.load_inputs()
            for n, stage in enumerate(self.stages):
                if n:
                    self.arrive()
                    self.keep_all(self.stages[n - 1], exchanged=False)
                self.wait()
                self.write_stage(stage)
                self.keep_all(stage, exchanged=True)
            self.write_end(parts)
            self.keep_before(multiplied, "then", "(i + 1)", "then < length")
            self.arrive()
            self.keep_before(others, "then", "(i + 1)", "then < length")
            self.keep_all(self.stages[-1], exchanged=False)
            self.keep_output()
        for p, size in enumerate(self.step.state_sizes):
            self.store(f"s_{p}", f"final_{p}", "b", size)

    def write_prologue(self) -> None:
        """Print what precedes the loop: the state before the first step."""
        sizes = list(enumerate(self.step.state_sizes))
        for p, size in sizes:
            self.kernel.line(f"s_{p} = {self.zeros(size)}")
            with self.kernel.given(f"initial_{p}"):
                self.kernel.line(f"s_{p} = {self.load(f'initial_{p}', 'b', size)}")
        self.kernel.line("t = T - 1 if REVERSE else 0")
        with self.kernel.given("resets"):
            self.kernel.line(f"fresh = {self.resets('t', 't < length')}")
            for p, size in sizes:
                start = self.load(f"start_{p}", "b", size)
                self.kernel.line(f"s_{p} = tl.where(fresh, {start}, s_{p})")
        self.end_beginning()

    def write_steps(self) -> list[Kernel]:
        """Print a kernel for each stage of a step."""
        kernels = []
        for n, stage in enumerate(self.stages):
            self.begin(f"{self.name}_{n}", [stage.width])
            self.kernel.end_of_beginning()
            self._loaded: set[int] = set()
            self.write_places()
            self.load_saved(self.roots(stage), self.program.crossing_into(stage), "kept")
            if stage.state:
                self.load_fresh()
            self.write_stage(stage)
            self.keep_all(stage, exchanged=True)
            self.keep_all(stage, exchanged=False)
            if parts := sorted(stage.state):
                self.write_end(parts)
                for p in parts:
                    size = self.step.state_sizes[p]
                    self.store(f"s_{p}", f"state_{p}", "(((i + 1) % 2) * B + b)", size)
                self.keep_before(parts, "then", "(i + 1)", "then < length")
                if 0 in parts:
                    self.keep_output()
            kernels.append(self.kernel)
        return kernels

    def roots(self, stage: Stage) -> list[Node]:
        """The expressions that a stage computes."""
        return [*stage.state.values(), *stage.stored]

    def write_places(self) -> None:
        """Print the step's time, and its row in each buffer."""
        self.kernel.line(
            "t = T - 1 - i if REVERSE else i",
            "then = t - 1 if REVERSE else t + 1",
            "valid = (t < length)[:, None]",
            "row = b * row_b + t * row_t",
            "kept = b * kept_b + t * kept_t",
            "before = b * kept_b + (t if SAVE else i % 2) * turn_t",
        )

    def write_stage(self, stage: Stage) -> None:
        """Print a stage's products and expressions."""
        for product in stage.products:
            self.write_product(product, stage.width)
        if self.meets and stage is self.stages[0]:
            self.convert_inputs()
        self.compute(self.roots(stage), stage)

    def load_inputs(self) -> None:
        """Print loads that need no synchronisation."""
        roots = [root for stage in self.stages for root in self.roots(stage)]
        for node in walk(roots, self.names):
            if node.source == "wx":
                self.names[node] = self.leaf(node, self.stages[0])
        self.load_fresh()

    def convert_inputs(self) -> None:
        """Print the conversion of inputs that were fetched before programs met."""
        for node, name in self.names.items():
            if node.source == "wx":
                self.kernel.line(f"{name} = {name}.to(tl.float32)")

    def load_fresh(self) -> None:
        """Print the load of the next step's resets."""
        with self.kernel.given("resets"):
            within = "(then < length) & (then >= 0) & (then < T)"
            self.kernel.line(f"fresh = {self.resets('then', within)}")

    def write_product(self, product: StageProduct, width: int) -> None:
        """Print a product, and the split of its result into tiles by gate."""
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

    def keep(self, store: Store, stage: Stage) -> None:
        """Print a store for later stages or the backward pass."""
        node, k = store.node, store.buffer.key
        assert node is not None  # the forward pass stores what it computes
        width = node.width
        tile = f"tl.where(valid, {self.whole(node, width)}, 0.0)"
        if store.buffer.kind == "reduced" and not self.alone:
            self.store(self.whole(node, width), f"reduced_{k}", "b", width)
        if store.buffer.kind == "value" and not (self.alone and k not in self.program.learned):
            with self.saving(not self.alone):
                self.store(tile, f"value_{k}", "kept", width)
        if store.buffer.kind == "saved":
            with self.saving(self.steps and store.offset < self.program.crossing):
                size = self.program.saved_size
                self.store(tile, "saved", "kept", size, store.offset, width)

    @contextmanager
    def saving(self, always: bool) -> Iterator[None]:
        """Guard stores by ``SAVE``, unless ``always``."""
        if always:
            yield
        else:
            with self.kernel.block("if SAVE:"):
                yield

    def keep_before(self, parts: Sequence[int], time: str, i: str, when: str) -> None:
        """Print stores of the state before a step, for other programs and the backward pass."""
        for p in parts:
            if p not in self.program.befores:  # which has all that are multiplied
                continue
            size = self.step.state_sizes[p]
            row = f"(b * kept_b + ({time} if SAVE else {i} % 2) * turn_t)"
            tile = f"tl.where(({when})[:, None], s_{p}, 0.0)"
            with self.saving(p in self.multiplied()):
                self.store(tile, f"before_{p}", row, size, when=f"({time} >= 0) & ({time} < T)")

    def write_end(self, parts: Sequence[int]) -> None:
        """Print the transition to the next step: lengths, then resets."""
        for p in parts:
            after = self.whole(self.step.state[p], self.step.state_sizes[p])
            self.kernel.line(f"after_{p} = tl.where(valid, {after}, {self.state(p)})")
        for p in parts:
            self.kernel.line(f"s_{p} = after_{p}")
        with self.kernel.given("resets"):
            for p in parts:
                size = self.step.state_sizes[p]
                start = self.load(f"start_{p}", "b", size, when="fresh")
                self.kernel.line(f"s_{p} = tl.where(fresh, {start}, s_{p})")

    def keep_output(self) -> None:
        """Print the store of the output."""
        size = self.step.state_sizes[0]
        self.store("tl.where(valid, after_0, 0.0)", "y", "row", size)
