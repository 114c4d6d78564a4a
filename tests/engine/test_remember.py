"""Matrix memories under compilers: one operator, whatever the number of steps."""

import pytest
import torch
from torch.export import Dim

from seqnets import Recurrent, unroll
from seqnets.cells import (
    DeltaNetCell,
    GatedDeltaNetCell,
    GatedLinearAttentionCell,
    LearnedState,
    MLSTMCell,
    PeepholeLSTMCell,
)
from seqnets.engine import matrix_memory
from seqnets.engine.matrix_memory import remember
from seqnets.testing.laws import perturb
from tests.cells.final import MATRIX_CELLS
from tests.engine.derivatives import second_derivatives
from tests.slow import mostly_slow

B, T, I = 3, 40, 3


def make(cell_cls):
    cell = LearnedState(cell_cls(I, 6, num_heads=2, key_size=4, dtype=torch.float64))
    perturb(cell)
    return cell


def call(T):
    """Inputs, lengths and resets."""
    x = torch.randn(B, T, I, dtype=torch.float64, requires_grad=True)
    return x, torch.tensor([T, 0, T - 3]), torch.rand(B, T) < 0.2


class Graphs:
    """A compiler that runs graphs as they are, and remembers what they call."""

    def __init__(self):
        self.calls = []

    def __call__(self, module, inputs):
        nodes = module.graph.nodes
        self.calls.append([str(node.target) for node in nodes if node.op.startswith("call")])
        return module.forward


@pytest.mark.parametrize("cell_cls", mostly_slow(MATRIX_CELLS, (MLSTMCell,)))
def test_two_graphs_of_one_operator_serve_any_number_of_steps(cell_cls):
    layer, graphs = Recurrent(cell_cls(I, 6, num_heads=2)), Graphs()
    compiled = torch.compile(layer, fullgraph=True, backend=graphs)

    for steps in (16, 40, 256, 100, 31, 3):
        x = torch.randn(2, steps, I)
        torch.testing.assert_close(compiled(x), layer(x))

    assert [sum("remember" in name for name in calls) for calls in graphs.calls] == [1, 1]


@pytest.mark.parametrize("cell_cls", mostly_slow(MATRIX_CELLS, (GatedDeltaNetCell,)))
def test_a_compiled_training_step_gives_what_the_plain_loop_gives(cell_cls):
    cell, compiled = make(cell_cls), torch.compile(unroll, fullgraph=True, backend="aot_eager")

    for steps, reverse in ((7, True), (T, False)):
        x, lengths, resets = call(steps)
        results = []
        for run, backend in ((compiled, "auto"), (unroll, "reference")):
            y, state = run(cell, x, None, lengths, resets, reverse=reverse, backend=backend)
            total = y.square().sum() + sum(part.sin().sum() for part in state)
            wanted = (x, *cell.parameters())
            gradients = torch.autograd.grad(total, wanted, materialize_grads=True)
            results.append((y, state, gradients))
        torch.testing.assert_close(*results)


@pytest.mark.parametrize("cell_cls", mostly_slow(MATRIX_CELLS, (GatedLinearAttentionCell,)))
def test_an_export_is_one_operator_for_any_number_of_rows_and_steps(cell_cls):
    layer = Recurrent(cell_cls(I, 6, num_heads=2))
    sizes = {0: Dim("B", min=1, max=64), 1: Dim("T", min=2, max=512)}

    exported = torch.export.export(layer, (torch.randn(2, 6, I),), dynamic_shapes=(sizes,))

    calls = [str(node.target) for node in exported.graph.nodes]
    assert sum("seqnets.remember" in name for name in calls) == 1
    for shape in ((5, 70, I), (1, 2, I)):
        x = torch.randn(shape)
        torch.testing.assert_close(exported.module()(x), layer(x))


@pytest.mark.parametrize("cell_cls", mostly_slow(MATRIX_CELLS, (DeltaNetCell,)))
def test_gradients_of_the_operator_can_be_differentiated_again(cell_cls):
    cell, given = make(cell_cls), call(T)
    compiled = torch.compile(unroll, fullgraph=True, backend="eager")  # which leaves autograd alone

    torch.testing.assert_close(
        second_derivatives(cell, *given, "auto", run=compiled),
        second_derivatives(cell, *given, "reference"),
    )


@pytest.fixture
def of_operator(monkeypatch):
    """What the operator is given for a cell, but for what it saves."""

    def given(cell):
        (x, lengths, resets), tasks = call(T), []

        def remembered(task):
            tasks.append(task)
            return remember.remembered(task)

        monkeypatch.setattr(matrix_memory, "remembered", remembered)
        unroll(cell, x.to(next(cell.parameters()).dtype), None, lengths, resets)

        (task,) = tasks
        parts = {
            name: part.detach().requires_grad_() for name, part in remember._parts(task).items()
        }
        return [*parts.values()], ",".join(parts), task.valid, task.resets

    return given


@pytest.mark.parametrize("cell_cls", mostly_slow(MATRIX_CELLS, (MLSTMCell,)))
def test_the_operator_keeps_what_torch_asks_of_operators(cell_cls, of_operator):
    given = of_operator(make(cell_cls))

    torch.library.opcheck(torch.ops.seqnets.remember.default, (*given, True))


@pytest.mark.parametrize("save", [True, False])
def test_autocast_leaves_the_operator_and_its_gradients_alone(save, of_operator):
    given = of_operator(GatedDeltaNetCell(I, 8, num_heads=2))

    def results():
        found = torch.ops.seqnets.remember(*given, save)[:2]
        total = sum(part.square().sum() for part in found)
        return *found, *torch.autograd.grad(total, given[0], materialize_grads=True)

    with torch.autocast("cpu", torch.bfloat16):
        under = results()

    torch.testing.assert_close(under, results())


@pytest.mark.parametrize("cell_cls", [MLSTMCell, PeepholeLSTMCell])  # both operators
def test_what_was_exported_under_no_grad_can_be_trained(cell_cls):
    layer, x = Recurrent(cell_cls(I, 4)), torch.randn(2, 40, I)
    with torch.no_grad():
        exported = torch.export.export(layer, (x,)).module()

    for module in (layer, exported):
        y, state = module(x)
        (y.square().sum() + state[0].sum()).backward()

    found, expected = (dict(module.named_parameters()) for module in (exported, layer))
    assert found.keys() == expected.keys()
    for name, parameter in expected.items():
        torch.testing.assert_close(found[name].grad, parameter.grad)


WAYS = {
    "eager": lambda layer, x: layer,
    "compiled": lambda layer, x: torch.compile(layer, fullgraph=True, backend="eager"),
    "exported": lambda layer, x: torch.export.export(layer, (x,)).module(),
}


@pytest.mark.parametrize("way", WAYS)
def test_steps_and_their_backward_pass_run_under_autocast(way):
    layer, x = Recurrent(GatedDeltaNetCell(I, 8, num_heads=2)), torch.randn(2, 100, I)
    module = WAYS[way](layer, x)

    def gradients(module):
        y, state = module(x)
        (y.float().square().sum() + state[1].square().sum()).backward()
        grads = {name.removeprefix("_orig_mod."): p.grad for name, p in module.named_parameters()}
        module.zero_grad()
        return grads

    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(module)

    for name, expected in gradients(layer).items():  # the projections are rounded
        assert (found[name] - expected).abs().mean() < 0.05 * expected.abs().mean()


def test_a_compiled_layer_goes_through_vmap():
    layer, x = Recurrent(MLSTMCell(I, 4)), torch.randn(4, 2, 5, I)

    compiled = torch.compile(
        lambda x: torch.vmap(lambda rows: layer(rows)[0])(x), fullgraph=True, backend="eager"
    )

    torch.testing.assert_close(compiled(x), torch.stack([layer(rows)[0] for rows in x]))
