"""torch's kernels, made to do what the plain loop does."""

import itertools
import weakref
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

import seqnets
from seqnets import Recurrent, explain, unroll
from seqnets.cells import GRUCell, LSTMCell, OriginalGRUCell, PeepholeLSTMCell, RNNCell
from seqnets.engine import c, native
from seqnets.engine.native import second_derivative
from seqnets.errors import BackendError

B, T, I, H = 5, 7, 3, 4
LENGTHS = torch.tensor([4, 0, 7, 1, 7])
CELLS = {
    "LSTM": LSTMCell,
    "GRU": GRUCell,
    "RNN": RNNCell,
    "ReLU": lambda *sizes, **options: RNNCell(*sizes, nonlinearity="relu", **options),
    "projected": lambda *sizes, **options: LSTMCell(*sizes, proj_size=2, **options),
    "without bias": lambda *sizes, **options: LSTMCell(*sizes, bias=False, **options),
}


def make(kind, dtype=torch.float64):
    torch.manual_seed(0)
    cell = CELLS[kind](I, H, dtype=dtype)
    x = torch.randn(B, T, I, dtype=dtype)
    state = tuple(torch.randn(B, size, dtype=dtype) for size in cell.state_sizes)
    return cell, x, state


def everything(cell, x, state, lengths, reverse, backend):
    x = x.clone().requires_grad_()
    state = tuple(part.clone().requires_grad_() for part in state)
    y, final = unroll(cell, x, state, lengths, reverse=reverse, backend=backend)
    results = (y, *final)
    weights = [torch.arange(part.numel()).sin().view_as(part).to(part.dtype) for part in results]
    loss = sum((part * weight).sum() for part, weight in zip(results, weights, strict=True))
    return [y, *final, *torch.autograd.grad(loss, (x, *state, *cell.parameters()))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", CELLS)
def test_kernel_and_loop_agree_over_lengths_and_directions(kind, dtype):
    cell, x, state = make(kind, dtype)
    padded = x.clone()
    for row, length in enumerate(LENGTHS):
        padded[row, length:] = torch.nan

    rows = [(x, None), (padded, LENGTHS)]
    for (given, lengths), reverse in itertools.product(rows, [False, True]):
        before = seqnets.engine.runs.copy()
        found = everything(cell, given, state, lengths, reverse, "native")
        assert seqnets.engine.runs - before == {"native": 1}
        expected = everything(cell, given, state, lengths, reverse, "reference")
        torch.testing.assert_close(found, expected)


def test_the_memory_passes_through_padding_bit_for_bit():
    cell, x, (h, c) = make("LSTM", torch.float32)

    _, (h_end, c_end) = unroll(
        cell, x * 100, (h, c * 1e4), torch.zeros(B, dtype=torch.long), backend="native"
    )

    assert torch.equal(c_end, c * 1e4)
    assert torch.equal(h_end, h)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("kind", CELLS)
def test_its_gradient_can_be_differentiated_again(kind, lengths, dtype):
    cell, x, state = make(kind, dtype)
    inputs = [tensor.requires_grad_() for tensor in (x, *state)]

    for reverse in (False, True):
        seconds = []
        for backend in ("native", "reference"):
            y, after = unroll(cell, x, state, lengths, reverse=reverse, backend=backend)
            loss = y.square().sum() + after[-1].sin().sum()
            firsts = torch.autograd.grad(loss, inputs, create_graph=True)
            penalty = sum(first.square().sum() for first in firsts)
            seconds.append(torch.autograd.grad(penalty, (*inputs, *cell.parameters())))
        torch.testing.assert_close(*seconds)


def test_only_what_needs_a_gradient_gets_one_that_can_be_differentiated():
    cell, x, _ = make("LSTM", torch.float32)
    for name in ("weight_ih", "bias_hh"):
        getattr(cell, name).requires_grad_(False)
    learned = (cell.weight_hh, cell.bias_ih)

    y, _ = unroll(cell, x, backend="native")
    first, _ = torch.autograd.grad(y.square().sum(), learned, create_graph=True)

    assert all(g.isfinite().all() for g in torch.autograd.grad(first.sum(), learned))


def test_it_keeps_nothing_alive_that_torch_does_not():
    cell, x, _ = make("LSTM", torch.float32)
    x = x * 2
    alive = weakref.ref(x)

    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor.shape, torch.ones):
        result = unroll(cell, x, backend="native")
    del x

    assert result[0].grad_fn is not None
    assert alive() is None


class _CuDNN:
    """What torch keeps of a call of cuDNN, as its names are."""

    def __init__(self, cells, x, state, directions=1, batch_first=True):
        own = list(cells[0].parameters())
        self._saved_input, self._saved_batch_first = x, batch_first
        self._saved_weight = [p for cell in cells for p in cell.parameters()]
        self._saved_weight_stride0, self._saved_bidirectional = len(own), directions == 2
        self._saved_hx, self._saved_cx = [*state, None][:2]
        self._saved_hidden_size = cells[0].hidden_size
        self._saved_mode = {LSTMCell: 2, GRUCell: 3}.get(type(cells[0]), 0)  # 0 is ReLU's
        self.next_functions = ()

    def name(self):
        return "CudnnRnnBackward0"

    def _register_hook_dict(self, tensor):
        self.before = tensor._backward_hooks.values()

    def register_hook(self, hook):
        self.after = [hook]
        return SimpleNamespace(remove=self.after.clear)

    def gradients(self, found, grads):
        """What a pass gives that finds these gradients, and got those."""
        self.after = []
        for hook in self.before:
            hook(grads[0])
        for hook in [*self.after]:
            found = hook(found, grads)
        assert not self.after
        return found


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "ReLU", "without bias"])
def test_the_gradient_of_cudnn_is_replaced_in_the_order_of_its_arguments(kind, monkeypatch):
    cell, x, state = make(kind)
    inputs = [tensor.requires_grad_() for tensor in (x, *state)]
    y, after = unroll(cell, x, state, backend="reference")
    grads = [torch.randn_like(part) for part in (y, *after)]
    expected = torch.autograd.grad((y, *after), (x, *cell.parameters(), *inputs[1:]), grads)
    node = _CuDNN([cell], x, [part[None] for part in state])
    monkeypatch.setattr(torch._C, "_current_autograd_node", lambda: node)
    second_derivative.let_derive_twice(SimpleNamespace(grad_fn=node))

    missing = [None] * (2 - len(state))  # a memory, and what only its backward pass reads
    had = [*expected[: len(expected) - len(state)], *(g[None] for g in expected[-len(state) :])]
    came = [grads[0], *(grad[None] for grad in grads[1:]), *missing, None, None]
    found = node.gradients([*had, *missing], came)

    assert len(found) == len(had) + len(missing)
    torch.testing.assert_close(list(found[: len(had)]), had)


@pytest.mark.parametrize("name", ["CudnnRnnBackward0", "MiopenRnnBackward0"])
def test_torch_keeps_what_is_read_of_a_kernel_that_cannot_run_here(name):
    read = {*vars(_CuDNN([GRUCell(I, H)], None, [None])), "_register_hook_dict"}

    assert read <= set(dir(getattr(torch._C._functions, name)))


@pytest.mark.parametrize("rows", [B, T], ids=["fewer rows than steps", "as many"])
@pytest.mark.parametrize("batch_first", [True, False], ids=["rows first", "time first"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_the_gradient_of_a_stack_by_cudnn_is_replaced_too(
    kind, directions, batch_first, rows, monkeypatch
):
    options = {"bidirectional": directions == 2, "batch_first": batch_first}
    face = getattr(seqnets, kind)(I, H, 2, **options).double()
    cells = face.bound_cells()
    shape = (rows, T) if batch_first else (T, rows)
    x = torch.randn(*shape, I, dtype=torch.float64, requires_grad=True)
    state = [
        torch.randn(len(cells), rows, H, dtype=torch.float64, requires_grad=True)
        for _ in cells[0].states
    ]
    y, after = face(x, tuple(state) if kind == "LSTM" else state[0])
    outputs = [y, *(after if kind == "LSTM" else [after])]
    grads = [torch.randn_like(part) for part in outputs]
    expected = torch.autograd.grad(outputs, (x, *face.parameters(), *state), grads)
    node = _CuDNN(cells, x, state, directions, batch_first)
    monkeypatch.setattr(torch._C, "_current_autograd_node", lambda: node)
    second_derivative.let_derive_twice(SimpleNamespace(grad_fn=node))

    missing = [None] * (2 - len(state))
    found = node.gradients([*expected, *missing], [*grads, *missing, None, None])

    torch.testing.assert_close(list(found[: len(expected)]), list(expected))


@pytest.mark.parametrize("keep", [False, True], ids=["the state alone", "the outputs too"])
def test_a_gradient_is_replaced_in_passes_that_are_derived_again_and_in_no_other(keep, monkeypatch):
    cell, x, _ = make("LSTM", torch.float32)
    made, replace = [], second_derivative._again_by_the_plain_loop
    monkeypatch.setattr(
        second_derivative,
        "_again_by_the_plain_loop",
        lambda *gradients: made.append(1) or replace(*gradients),
    )
    y, (_, c) = unroll(cell, x, backend="native")
    total = c.sum() + y.sum() if keep else c.sum()
    weights = tuple(cell.parameters())

    for again, replaced in ((False, 0), (True, 1), (False, 1), (True, 2)):
        torch.autograd.grad(total, weights, retain_graph=True, create_graph=again)
        assert len(made) == replaced


def test_backward_twice_through_one_graph_gives_the_same_gradient_twice():
    cell, x, _ = make("LSTM")
    y, _ = unroll(cell, x, backend="native")

    first = torch.autograd.grad(y.sum(), tuple(cell.parameters()), retain_graph=True)
    second = torch.autograd.grad(y.sum(), tuple(cell.parameters()))

    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_only_what_needs_a_gradient_gets_one():
    cell, x, _ = make("GRU")
    cell.weight_ih.requires_grad_(False)

    unroll(cell, x, backend="native")[0].sum().backward()

    assert cell.weight_ih.grad is None
    assert cell.weight_hh.grad is not None


class Louder(LSTMCell):
    def update(self, wx, uh, state):
        h, c = super().update(wx, uh, state)
        return 2 * h, c


class ZFirst(GRUCell):
    recurrent = ("z", "r", "n")


class ForgetFirst(LSTMCell):
    inputs = ("f", "i", "g", "o")


class Tempered(GRUCell):
    def add_parameters(self, parameter):
        self.temperature = parameter(1)


class Scaled(RNNCell):
    per_unit = ("scale",)


REFUSALS = {
    "another cell": (lambda: PeepholeLSTMCell(I, H), {}, "no kernel for PeepholeLSTMCell"),
    "reset before": (lambda: OriginalGRUCell(I, H), {}, "no kernel for OriginalGRUCell"),
    "a changed equation": (lambda: Louder(I, H), {}, "no kernel for Louder"),
    "recurrent gates in another order": (lambda: ZFirst(I, H), {}, "no kernel for ZFirst"),
    "gates of the input likewise": (lambda: ForgetFirst(I, H), {}, "no kernel for ForgetFirst"),
    "one more parameter": (lambda: Tempered(I, H), {}, "no kernel for Tempered"),
    "one more number per unit": (lambda: Scaled(I, H), {}, "no kernel for Scaled"),
    "resets": (
        lambda: LSTMCell(I, H),
        {"resets": torch.zeros(B, T, dtype=torch.bool)},
        "cannot reset the state",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_named_backend_runs_or_raises_and_auto_says_why(case):
    make_cell, options, reason = REFUSALS[case]
    cell, x = make_cell(), torch.randn(B, T, I)

    with pytest.raises(BackendError, match=rf"'native' refuses: .*{reason}(.|\n)*would take '"):
        unroll(cell, x, **options, backend="native")
    explanation = seqnets.explain(cell, x, **options)
    assert explanation.chosen not in ("native", "reference")
    assert reason in explanation.refusals["native"]


@pytest.mark.parametrize("cell_cls", [ZFirst, ForgetFirst, Tempered, Scaled])
def test_a_step_of_a_cell_that_declares_more_than_its_base_is_its_own(cell_cls):
    cell, x = cell_cls(I, H), torch.randn(B, 1, I)
    state = tuple(torch.randn(B, H) for _ in cell.states)

    y, _ = unroll(cell, x, state)

    torch.testing.assert_close(y, unroll(cell, x, state, backend="reference")[0])


def test_an_unknown_backend_is_named_with_those_there_are():
    with pytest.raises(
        BackendError, match=r"'fast', expected 'auto' or one of triton, .*reference"
    ):
        unroll(GRUCell(I, H), torch.randn(B, T, I), backend="fast")


def test_a_subclass_with_the_same_equation_keeps_the_kernel():
    class Same(LSTMCell):
        pass

    assert "native" not in seqnets.explain(Same(I, H), torch.randn(B, T, I)).refusals


def test_functional_transforms_leave_for_the_plain_loop():
    cell, x, _ = make("LSTM")
    layer = Recurrent(cell)

    batched = torch.func.vmap(lambda row: layer(row[None])[0][0])(x)
    _, tangent = torch.func.jvp(lambda v: layer(v)[0], (x,), (torch.ones_like(x),))
    step = 1e-6
    numeric = (layer(x + step)[0] - layer(x - step)[0]) / (2 * step)

    torch.testing.assert_close(batched, layer(x)[0])
    torch.testing.assert_close(tangent, numeric, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("cell_cls", [LSTMCell, PeepholeLSTMCell])
def test_dual_numbers_have_the_tangents_of_jvp(cell_cls):
    layer, x, along = Recurrent(cell_cls(I, H)), torch.randn(B, T, I), torch.randn(B, T, I)

    with forward_ad.dual_level():
        y, _ = layer(forward_ad.make_dual(x, along))
        tangent = forward_ad.unpack_dual(y).tangent

    _, expected = torch.func.jvp(lambda x: layer(x)[0], (x,), (along,))
    torch.testing.assert_close(tangent, expected)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_functional_transforms_leave_a_step_for_the_cells_own(kind, recwarn):
    cell, x, _ = make(kind)
    layer = Recurrent(cell)

    batched = torch.func.vmap(lambda row: layer.step(row[None])[0][0])(x[:, 0])

    torch.testing.assert_close(batched, layer.step(x[:, 0])[0])
    assert not recwarn.list


def test_per_sample_gradients_sum_to_the_gradient():
    cell, x, _ = make("GRU")
    layer = Recurrent(cell)
    parameters = dict(layer.named_parameters())

    def loss(parameters, row):
        return torch.func.functional_call(layer, parameters, (row[None],))[0].square().sum()

    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    layer(x)[0].square().sum().backward()

    for name, parameter in parameters.items():
        torch.testing.assert_close(each[name].sum(0), parameter.grad)


@pytest.mark.parametrize("cell", [LSTMCell, PeepholeLSTMCell])
def test_compiled_in_one_graph_it_computes_the_same(cell):
    layer = Recurrent(cell(I, H))
    x = torch.randn(B, T, I)

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")

    torch.testing.assert_close(compiled(x)[0], layer(x)[0])


@pytest.mark.parametrize("cell", [LSTMCell, PeepholeLSTMCell])
def test_exported_with_any_number_of_rows_it_computes_the_same(cell):
    layer = Recurrent(cell(I, H))
    rows = torch.export.Dim("B", min=1, max=64)

    program = torch.export.export(
        layer, (torch.randn(B, T, I),), dynamic_shapes={"x": {0: rows}}, strict=False
    )
    x = torch.randn(9, T, I)

    torch.testing.assert_close(program.module()(x)[0], layer(x)[0])


@pytest.mark.parametrize("cell", [LSTMCell, GRUCell, PeepholeLSTMCell])
def test_mixed_precision_trains(cell):
    layer = Recurrent(cell(I, H))
    x = torch.randn(B, T, I)

    with torch.autocast("cpu", torch.bfloat16):
        y, _ = layer(x, lengths=LENGTHS)
    y.float().sum().backward()

    torch.testing.assert_close(y.float(), layer(x, lengths=LENGTHS)[0], atol=0.05, rtol=0.05)
    assert all(p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_in_mixed_precision_dtypes_are_torchs(kind, lengths):
    cell = {"LSTM": LSTMCell, "GRU": GRUCell, "RNN": RNNCell}[kind](I, H)
    x = torch.randn(B, T, I)

    with torch.autocast("cpu", torch.bfloat16):
        if reason := native._refusal_of_autocast(cell):  # on many laptops
            pytest.skip(reason)
        y, state = unroll(cell, x, lengths=lengths, backend="native")
        expected, _ = getattr(torch.nn, kind)(I, H, batch_first=True)(x)

    assert {y.dtype, *(part.dtype for part in state)} == {expected.dtype}


@pytest.mark.parametrize("cell", [LSTMCell, GRUCell, RNNCell])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_without_a_compiler_others_run_what_onednn_cannot_compute_in(cell, dtype, monkeypatch):
    monkeypatch.setattr(c, "refusal", lambda request: "there is no compiler")
    for ask in ("_is_mkldnn_bf16_supported", "_is_mkldnn_fp16_supported"):
        monkeypatch.setattr(torch.ops.mkldnn, ask, lambda: False)
    layer, x = Recurrent(cell(I, H)), torch.randn(B, T, I)

    with torch.autocast("cpu", dtype):
        y, _ = layer(x, lengths=LENGTHS)
        chosen = seqnets.explain(layer.cell, x).chosen

    assert chosen == ("reference" if cell is LSTMCell else "native")
    torch.testing.assert_close(y.float(), layer(x, lengths=LENGTHS)[0], atol=0.05, rtol=0.05)


def test_lengths_that_are_changed_later_change_no_derivative():
    cell, x, state = make("LSTM", torch.float32)
    found = []
    for later in (LENGTHS, LENGTHS * 0 + 1):
        lengths = LENGTHS.clone()
        y, _ = unroll(cell, x.requires_grad_(), state, lengths, backend="native")
        lengths.copy_(later)
        found.append(torch.autograd.grad(y.square().sum(), x, create_graph=True))

    torch.testing.assert_close(*found)


@pytest.mark.parametrize("size", [8, 128])
def test_an_equation_of_one_cell_alone_is_none_of_torchs(size):
    cell, x = GRUCell(I, size), torch.randn(64, 2, I)
    cell.candidate = torch.relu

    told = explain(cell, x)

    assert "native" in told.refusals
    torch.testing.assert_close(unroll(cell, x)[0], unroll(cell, x, backend="reference")[0])


def test_second_derivatives_pass_checkpoints_which_give_a_tensor_once():
    module, x = seqnets.LSTM(I, H, 2), torch.randn(T, B, I, requires_grad=True)

    def second(run):
        (slope,) = torch.autograd.grad(run(x)[0].square().sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), (x, *module.parameters()))

    found = second(lambda x: checkpoint(module, x, use_reentrant=False))
    torch.testing.assert_close(found, second(module))


def test_a_pass_that_ended_before_the_kernel_leaves_its_gradient_to_it(monkeypatch):
    module = seqnets.LSTM(I, H, 2)
    x = torch.randn(T, B, I, requires_grad=True)
    y, _ = module(x)
    loss = y.square().sum()
    torch.autograd.grad(loss, y, create_graph=True)

    def refused(*gradients):
        raise AssertionError("the plain loop ran")

    monkeypatch.setattr(second_derivative, "_again_by_the_plain_loop", refused)
    (grad,) = torch.autograd.grad(loss, x)

    assert grad.isfinite().all()
