"""Half and mixed precision on a CPU: the loops in C compute in float32.

Where a processor has tiles of bfloat16, they multiply: ``test_tiles.py``.
"""

from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import seqnets
from seqnets import Bidirectional, DeepRNN, unroll
from seqnets.cells import (
    GRUCell,
    LSTMCell,
    LTCCell,
    MinGRUCell,
    PeepholeLSTMCell,
    PhasedLSTMCell,
    RNNCell,
    Zoneout,
)
from seqnets.engine import c, native, runs
from seqnets.engine.c import compiler
from seqnets.errors import DtypeError
from tests.engine.user_cells import MGUCell

try:
    compiler.compiler()
except compiler.NoCompiler as reason:
    pytest.skip(str(reason), allow_module_level=True)

B, T, I, H = 3, 7, 4, 5
HALF = [torch.bfloat16, torch.float16]
CELLS = {
    "gru": GRUCell,
    "lstm with peepholes": PeepholeLSTMCell,
    "projected lstm": partial(LSTMCell, proj_size=2),
    "plain network": RNNCell,
    "linear in its state": MinGRUCell,
    "a user's": MGUCell,
    "with zoneout": lambda *sizes: Zoneout(GRUCell(*sizes), p=0.3).eval(),
}
LENGTHS = torch.tensor([7, 0, 3])


def results(cell, x, mixed=False, **options):
    """Outputs, state and all gradients of a weighted sum, with the backend that ran."""
    before = runs.copy()
    x = x.detach().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        y, state = unroll(cell, x, **options)
    everything = [y, *state]
    torch.manual_seed(1)
    loss = sum((part.double() * torch.randn(part.shape)).sum() for part in everything)
    grads = torch.autograd.grad(loss, [x, *cell.parameters()], allow_unused=True)
    return [*everything, *(g for g in grads if g is not None)], runs - before


def all_options():
    resets = torch.zeros(B, T, dtype=torch.bool)
    resets[0, 3] = True
    return {"lengths": LENGTHS, "resets": resets, "reverse": True, "memory": "lean"}


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", CELLS)
def test_half_precision_is_float32s_result_rounded_once(name, dtype):
    torch.manual_seed(0)
    half = CELLS[name](I, H).to(dtype)
    torch.manual_seed(0)
    single = CELLS[name](I, H)
    single.load_state_dict({key: value.float() for key, value in half.state_dict().items()})
    x = torch.randn(B, T, I).to(dtype)

    for options in ({}, all_options()):
        found, ran = results(half, x, **options)
        expected, _ = results(single, x.float(), backend="c", **options)

        assert ran == {"c": 1}
        assert {tensor.dtype for tensor in found} == {dtype}
        _assert_rounded(found, expected)


def _assert_rounded(found, expected):
    """Within two roundings: of the loss's gradient on its way in, and of the result."""
    for ours, theirs in zip(found, expected, strict=True):
        scale = float(theirs.detach().abs().max())
        allowed = 4 * torch.finfo(ours.dtype).eps
        torch.testing.assert_close(ours.float(), theirs, rtol=allowed, atol=allowed * scale)


@pytest.mark.parametrize("name", CELLS)
def test_mixed_precision_changes_no_bit_of_float32_where_there_are_no_tiles(name, monkeypatch):
    monkeypatch.setattr(c, "has_tiles", lambda: False)
    torch.manual_seed(0)
    cell, x = CELLS[name](I, H), torch.randn(B, T, I)

    for options in ({}, all_options()):
        expected, _ = results(cell, x, backend="c", **options)
        found, ran = results(cell, x, mixed=True, **options)

        assert ran == {"c": 1}
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("memory", ["full", "lean"])
@pytest.mark.parametrize("cell_cls", [GRUCell, LTCCell])  # one product, and several by one weight
def test_a_backward_pass_within_autocast_is_that_after_it(cell_cls, memory):
    cell, x = cell_cls(I, H), torch.randn(B, T, I, requires_grad=True)
    tensors = [x, *cell.parameters()]

    with torch.autocast("cpu", torch.bfloat16):
        y, _ = unroll(cell, x, memory=memory)
        within = torch.autograd.grad(y.sum(), tensors, retain_graph=True)

    after = torch.autograd.grad(y.sum(), tensors)
    torch.testing.assert_close(within, after, rtol=0, atol=0)


def test_a_backward_pass_within_autocast_passes_checkpoints_which_give_a_tensor_once():
    cell, x = GRUCell(I, H), torch.randn(B, T, I, requires_grad=True)
    found = []

    with torch.autocast("cpu", torch.bfloat16):
        for run in (partial(checkpoint, use_reentrant=False), lambda run, x: run(x)):
            y = run(lambda x: unroll(cell, x, backend="c")[0], x)
            found.append(torch.autograd.grad(y.sum(), [x, *cell.parameters()]))

    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_in_mixed_precision_inputs_of_layers_before_keep_their_dtype():
    cell, x = PeepholeLSTMCell(I, H), torch.randn(B, T, 3)
    before = nn.Linear(3, I)
    start = torch.randn(B, H), torch.randn(B, H).bfloat16()

    with torch.autocast("cpu", torch.bfloat16):
        y, state = unroll(cell, before(x), start)

    assert y.dtype == torch.bfloat16
    assert {part.dtype for part in state} == {torch.float32}  # as the loop carries it
    expected, _ = unroll(cell, before(x), tuple(part.float() for part in start))
    torch.testing.assert_close(y.float(), expected, rtol=0.05, atol=0.05)


def test_float64_is_left_alone_by_mixed_precision():
    cell, x = GRUCell(I, H).double(), torch.randn(B, T, I).double()

    expected, _ = results(cell, x)
    found, ran = results(cell, x, mixed=True)

    assert ran == {"c": 1}
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(DtypeError, match=r"float64"):
        unroll(cell, x, (torch.zeros(B, H),))


@pytest.mark.parametrize("supported", [True, False])
def test_only_an_lstm_that_onednn_computes_in_half_precision_is_left_to_it(supported, monkeypatch):
    monkeypatch.setattr(native, "_has_onednn", lambda dtype: supported)
    x = torch.randn(B, T, I)

    with torch.autocast("cpu", torch.bfloat16):
        chosen = [
            seqnets.explain(cell(I, H), x, lengths=lengths).chosen
            for cell in (LSTMCell, partial(LSTMCell, proj_size=2), GRUCell, RNNCell)
            for lengths in (None, LENGTHS)
        ]

    of_a_row = seqnets.explain(LSTMCell(I, H).bfloat16(), x[:1].bfloat16()).chosen

    assert chosen == ["native" if supported else "c"] * 2 + ["c"] * 6
    assert of_a_row == "c"  # whose products are too small to gain


def test_in_mixed_precision_a_clock_counts_on_from_window_to_window():
    cell, x = PhasedLSTMCell(I, H), torch.randn(1, 300, I).bfloat16()

    with torch.autocast("cpu", torch.bfloat16):
        whole, _ = unroll(cell, x)
        state, steps = None, []
        for step in x.split(1, 1):
            y, state = unroll(cell, step, state)
            steps.append(y)

    assert state[cell.states.index("t")].unique().tolist() == [300]
    torch.testing.assert_close(torch.cat(steps, 1), whole)


def test_an_lstm_is_trained_in_float16_by_who_can(monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", lambda: True)
    cell, x = LSTMCell(I, H), torch.randn(B, T, I)

    with torch.autocast("cpu", torch.float16):
        assert seqnets.explain(cell, x).chosen == "c"
        assert "oneDNN" in seqnets.explain(cell, x).refusals["native"]
        with torch.no_grad():
            assert seqnets.explain(cell, x).chosen == "native"
        unroll(cell, x)[0].sum().backward()

    assert seqnets.explain(cell.half(), x.half()).chosen == "c"


@pytest.mark.parametrize(("steps", "chosen"), [(1, "native"), (8, "native"), (64, "c")])
def test_few_steps_of_many_units_are_not_worth_converting_the_weights(steps, chosen):
    cell, x = GRUCell(I, 512).bfloat16(), torch.randn(B, steps, I).bfloat16()

    assert seqnets.explain(cell, x).chosen == chosen
    with torch.autocast("cpu", torch.bfloat16):
        assert seqnets.explain(cell.float(), x).chosen == "c"  # which need none


def test_networks_train_in_mixed_precision():
    torch.manual_seed(0)
    net = DeepRNN(PeepholeLSTMCell, I, H, num_layers=2, bidirectional=True, dropout=0.2)
    head = nn.Linear(2 * H, 1)
    optimizer = torch.optim.Adam([*net.parameters(), *head.parameters()], 1e-2)
    x, before, losses = torch.randn(16, T, I), runs.copy(), []
    target = x.cumsum(1)[..., :1]

    for _ in range(30):
        with torch.autocast("cpu", torch.bfloat16):
            loss = (head(net(x)[0]).float() - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert losses[-1] < losses[0] / 2
    assert runs - before == {"c": 30 * 4}


@pytest.mark.parametrize("dtype", HALF)
def test_second_derivatives_and_ensembles_run_in_half_precision_too(dtype):
    cell, x = GRUCell(I, H).to(dtype), torch.randn(B, T, I).to(dtype).requires_grad_()
    single = GRUCell(I, H)
    single.load_state_dict({key: value.float() for key, value in cell.state_dict().items()})

    found = []
    for each in (cell, single):
        inputs = x.detach().to(next(each.parameters()).dtype).requires_grad_()
        (grad,) = torch.autograd.grad(unroll(each, inputs)[0].sum(), inputs, create_graph=True)
        found.append(torch.autograd.grad(grad.square().sum(), inputs)[0].float())
    together = torch.func.vmap(lambda row: unroll(cell, row[None])[0][0])(x)

    torch.testing.assert_close(*found, rtol=0.1, atol=0.1)
    torch.testing.assert_close(together, unroll(cell, x)[0], rtol=0.05, atol=0.05)


@pytest.mark.parametrize("mixed", [True, False])
def test_a_compiler_sees_one_operator_for_any_number_of_steps(mixed):
    dtype = torch.float32 if mixed else torch.bfloat16
    layer = Bidirectional(PeepholeLSTMCell(I, H), PeepholeLSTMCell(I, H)).to(dtype)
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph

    compiled = torch.compile(layer, fullgraph=True, backend=backend, dynamic=True)
    for steps in (6, 50):
        x = torch.randn(B, steps, I).to(dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            y, state = compiled(x)
            expected = layer(x)

        torch.testing.assert_close((y, state), expected, rtol=0, atol=1e-4 if mixed else 1e-2)

    operators = [node.target for node in graphs[0].graph.nodes if "unroll" in str(node.target)]
    assert (len(graphs), len(operators)) == (1, 2)
