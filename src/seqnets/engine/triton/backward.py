"""Prints the backward pass as Triton, for the sequential modes."""

from __future__ import annotations

from collections.abc import Sequence

from seqnets.engine.graph import Node, walk
from seqnets.engine.program import Buffer, Stage, StageProduct, Store
from seqnets.engine.triton.kernel import Kernel
from seqnets.engine.triton.passes import PassPrinter


class BackwardPrinter(PassPrinter):
    """Prints the backward pass: gradients, from the last step to the first.

    Attributes:
        made: Variable and width of each gradient that the step has so far, by its buffer's kind and
            key, and its first column.
    """

    name = "backward"
    like = "saved"

    @property
    def exchanged(self) -> frozenset[str]:
        """Gradients of products and sums, also where they share the projected input's buffer."""
        shared = {"dwx"} if self.program.shared else set()
        return frozenset({"dz", "dsum"} | shared)

    def reach(self, product: int) -> int:
        """The rows of the product's weight."""
        return self.step.products[product].weight.rows

    def weight(self, product: StageProduct, width: int, first: str) -> str:
        """The columns of the weight for some units."""
        k, tiles = product.product, self.tiles
        where = f"{self.kernel.pointer(f'weight_{k}')}, first_{self.index(width)}, {first}"
        sizes = f"{self.units[width]}, {width}, {self.reach(k)}, {tiles.split}, {tiles.depth}"
        return f"turned_weights({where}, {sizes})"

    def leaf(self, node: Node, stage: Stage) -> str:
        """The variable of a leaf: of the forward pass, or an incoming gradient."""
        source, key = node.what.source, node.what.key
        if source == "state":
            return self.before(key, "row")
        if source != "grad":
            return super().leaf(node, stage)
        kind, k = key
        if kind == "state":
            return f"g_{k}"
        if kind == "value":
            return self.through(k, stage.width, "row")
        if kind == "reduced":
            return self.reduced_shares(k)
        return self.known("dcross", 0, k, stage.width)

    def known(self, kind: str, key: int, offset: int, width: int) -> str:
        """The variable of a gradient that another stage computed."""
        if not self.steps:
            return self.made[kind, key, offset][0]
        self.kernel.line(f"{kind}_{offset} = {self.load(*self.place(kind, key, offset), width)}")
        return f"{kind}_{offset}"

    def place(self, kind: str, key: int, offset: int) -> tuple[str, str, int, int]:
        """The place of a gradient: buffer, row, number of columns, and first column."""
        if kind == "dwx" or (kind == "dz" and key in self.program.shared):
            return "grad_wx", "row", self.step.wx_size, offset
        if kind == "dz":
            return f"grad_z_{key}", "row", self.reach(key), offset
        if kind == "dsum":
            return f"grad_sum_{key}", "b", self.step.reductions[key].width, 0
        if kind == "dcross":
            return "dcross", "b", self.program.crossing, offset
        if kind == "unit":
            column = self.program.unit_columns[self.program.units[key]]
            return "grad_units", "b", self.program.unit_size, column
        return f"carries_{key}", "(((i + 1) % 2) * B + b)", self.step.state_sizes[key], 0

    def reduced_shares(self, k: int) -> str:
        """The gradient of a sum: the total of the contributions of all units that read it."""
        width = self.step.reductions[k].width
        if self.alone:
            return self.reduced(k, "sum", self.made["dsum", k, 0][0], width)
        return self.reduced_by_all(k, "sum", f"grad_sum_{k}", width)

    def through(self, k: int, width: int, row: str) -> str:
        """The gradient of a product's operand."""
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
        """Print one kernel for all steps."""
        self.write_prologue()
        with self.over_time():
            self.write_places()
            if not self.meets:
                self.load_kept(self.stages, "row")
            for n, stage in enumerate(self.stages):
                if n:
                    self.wait()
                self.write_stage(stage)
                self.keep_all(stage, exchanged=True)
                self.arrive()
                self.keep_all(stage, exchanged=False)
            for p, size in enumerate(self.step.state_sizes):
                tile, _ = self.made.get(("carry", p, 0), (self.zeros(size), size))
                self.kernel.line(f"carry_{p} = {tile}")
            self.load_fresh("t")
            if self.meets:
                self.load_ahead()
            self.wait()
            self.write_between("row", range(len(self.step.state)))
        self.write_initial()
        for k, (_, width) in enumerate(self.program.units):
            self.store(f"unit_{k}", *self.place("unit", k, 0), width)

    def write_prologue(self) -> None:
        """Print what precedes the loop: incoming gradients, sums, and the first loads."""
        for p, size in enumerate(self.step.state_sizes):
            self.kernel.line(f"carry_{p} = {self.zeros(size)}")
            with self.kernel.given(f"grad_final_{p}"):
                self.kernel.line(f"carry_{p} = {self.load(f'grad_final_{p}', 'b', size)}")
            self.kernel.line(f"start_{p} = {self.zeros(size)}")
        for k, (_, width) in enumerate(self.program.units):
            self.kernel.line(f"unit_{k} = {self.zeros(width)}")
        self.end_beginning()
        if self.meets:
            self.kernel.line("t = 0 if REVERSE else T - 1", "row = b * row_b + t * row_t")
            self.load_kept(self.stages, "row")

    def load_ahead(self) -> None:
        """Print the next step's loads, on their way while other programs are still at work."""
        self.kernel.line(
            "ahead = t + 1 if REVERSE else t - 1",
            "row_ahead = b * row_b + ahead * row_t",
        )
        self.names.clear()  # the next step's values reuse this step's variables
        self.load_kept(self.stages, "row_ahead", "(ahead >= 0) & (ahead < T)")

    def write_steps(self) -> list[Kernel]:
        """Print a kernel for each stage of a step, and one for the initial state."""
        kernels = []
        for n, stage in enumerate(self.stages):
            self.begin(f"{self.name}_{n}", [stage.width])
            self.kernel.end_of_beginning()
            self.write_places()
            self.come_in(sorted(stage.state))
            self.load_kept([stage], "row")
            self.write_stage(stage)
            self.keep_all(stage, exchanged=True)
            self.keep_all(stage, exchanged=False)
            self.leave(sorted(stage.state))
            kernels.append(self.kernel)
        self.begin(f"{self.name}_end", self.widths)
        self.kernel.end_of_beginning()
        self.write_places()
        self.come_in(range(len(self.step.state)))
        self.write_initial()
        return [*kernels, self.kernel]

    def come_in(self, parts: Sequence[int]) -> None:
        """In mode "step": print loads of what the previous launch of the pass left."""
        if not parts:
            return
        for p in parts:
            size = self.step.state_sizes[p]
            turn = "((i % 2) * B + b)"
            self.kernel.line(f"carry_{p} = {self.load(f'carries_{p}', turn, size)}")
            self.kernel.line(f"start_{p} = {self.zeros(size)}")
            with self.kernel.given("resets"):
                self.kernel.line(f"start_{p} = {self.load(f'grad_start_{p}', 'b', size)}")
        with self.kernel.block("if i > 0:"):
            self.kernel.line("later = t - 1 if REVERSE else t + 1")
            self.load_fresh("later")
            self.write_between("(b * row_b + later * row_t)", parts)

    def leave(self, parts: Sequence[int]) -> None:
        """In mode "step": print stores of the gradients of the state after a reset."""
        for p in parts:
            size = self.step.state_sizes[p]
            with self.kernel.given("resets"):
                self.store(f"start_{p}", f"grad_start_{p}", "b", size)

    def write_places(self) -> None:
        """Print the step's time, and its row in the buffers; it has no gradients yet."""
        self.made: dict[tuple[str, int, int], tuple[str, int]] = {}
        self.kernel.line(
            "t = i if REVERSE else T - 1 - i",
            "valid = (t < length)[:, None]",
            "row = b * row_b + t * row_t",
        )

    def load_fresh(self, time: str) -> None:
        """Print the load of a step's resets."""
        with self.kernel.given("resets"):
            self.kernel.line(f"fresh = {self.resets(time, f'{time} < length')}")

    def write_between(self, row: str, parts: Sequence[int]) -> None:
        """Print the transition to the step before: gradients of products, then resets."""
        for p in parts:
            for k in range(len(self.step.products)):
                if self.program.part_of(k) == p:
                    z = self.through(k, self.step.state_sizes[p], row)
                    self.kernel.line(f"carry_{p} = carry_{p} + {z}")
        with self.kernel.given("resets"):
            for p in parts:
                self.kernel.line(
                    f"start_{p} = start_{p} + tl.where(fresh, carry_{p}, 0.0)",
                    f"carry_{p} = tl.where(fresh, 0.0, carry_{p})",
                )

    def load_kept(self, stages: Sequence[Stage], row: str, when: str = "") -> None:
        """Print loads of what stages need of the forward pass, and of the output's gradient."""
        if any(0 in stage.state for stage in stages):
            with self.kernel.given("grad_y"):
                size = self.step.state_sizes[0]
                self.kernel.line(f"y_0 = {self.load('grad_y', row, size, when=when)}")
        roots = [node for stage in stages for node in stage.stored]
        self.load_saved(roots, self.program.saved, row, when)
        for node in walk(roots, self.names):
            if node.source == "state":
                self.names[node] = self.before(node.what.key, row, when)

    def before(self, p: int, row: str, when: str = "") -> str:
        """Print the load of a state part before a step, and return its variable."""
        size = self.step.state_sizes[p]
        return self.variable(f"b_{p}", self.load(f"before_{p}", row, size, when=when))

    def write_stage(self, stage: Stage) -> None:
        """Print the expressions of a stage's gradients."""
        for p in sorted(stage.state):
            self.kernel.line(f"g_{p} = carry_{p}")
        if 0 in stage.state:
            with self.kernel.given("grad_y"):
                self.kernel.line("g_0 = g_0 + tl.where(valid, y_0, 0.0)")
        self.compute(stage.stored, stage)

    def keep(self, store: Store, stage: Stage) -> None:
        """Print the assignment, and where needed the store, of a gradient."""
        kind, k, width = store.buffer.kind, store.buffer.key, stage.width
        passes = kind == "carry" and k in stage.state
        if store.add and store.node is None and not passes:
            return
        place = kind, k, store.offset
        tile = self.whole(store.node, width)
        valid = f"in_{self.index(width)} & valid" if kind == "unit" else "valid"
        value = f"tl.where({valid}, {tile}, {f'g_{k}' if passes else '0.0'})"
        variable = f"next_{k}" if kind == "carry" else f"{kind}_{k}"
        if kind in ("dwx", "dz", "dcross"):
            variable = f"{variable}_{store.offset}"
        if store.add and self.steps:
            value = f"{self.load(*self.place(*place), width)} + {value}"
        elif store.add:
            value = f"{variable} + {value}"
        self.kernel.line(f"{variable} = {value}")
        self.made[place] = variable, width
        exchanged = kind in ("dz", "dsum") and not self.alone
        learned = kind == "dz" and k in self.program.learned
        shared = kind == "dz" and k in self.program.shared
        if (kind == "dwx" or learned or exchanged or self.steps) and not shared:
            self.store(variable, *self.place(*place), width)

    def write_initial(self) -> None:
        """Print stores of the gradients of the initial state, and of the state after a reset."""
        for p, size in enumerate(self.step.state_sizes):
            self.store(f"carry_{p}", f"grad_initial_{p}", "b", size)
            with self.kernel.given("resets"):
                self.store(f"start_{p}", f"grad_start_{p}", "b", size)
