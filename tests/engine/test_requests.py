"""What unroll takes, and what it refuses."""

import pytest
import torch
from torch.nn.utils import prune

import seqnets
from seqnets import unroll
from seqnets.cells import (
    Cell,
    GatedCell,
    GRUCell,
    LayerNorm,
    LSTMCell,
    MinGRUCell,
    Mogrifier,
    weight_drop,
)
from seqnets.engine.lengths import checked_lengths
from seqnets.engine.streaming import stream_cell
from seqnets.errors import BackendError, ConfigError, DeviceError, DtypeError, ShapeError
from tests.engine.user_cells import BareCell

B, T, I, H = 3, 5, 4, 2
X = torch.randn(B, T, I)
ZERO = torch.zeros(B, H)

REFUSED = {
    "x is no tensor": (
        {"x": [[1.0]]},
        DtypeError,
        "input is list, expected a tensor(.|\n)*as_tensor",
    ),
    "x without time": ({"x": X[:, 0]}, ShapeError, r"shape \(3, 4\), expected \(B, T, I\)"),
    "x too wide": ({"x": torch.randn(B, T, 9)}, ShapeError, r"9\), expected .* with I = 4"),
    "x with features second": (
        {"x": X.mT},
        ShapeError,
        r"with I = 4(.|\n)*x.transpose\(1, 2\) has the features last",
    ),
    "x of integers": (
        {"x": torch.ones(B, T, I).long()},
        DtypeError,
        "int64, expected torch.float32",
    ),
    "x in double": ({"x": X.double()}, DtypeError, "float64, expected torch.float32"),
    "x elsewhere": ({"x": X.to("meta")}, DeviceError, "on meta, expected cpu"),
    "one state of two": ({"state": (ZERO,)}, ShapeError, "has 1 part, expected 2: h, c"),
    "a bare state": ({"state": ZERO}, ShapeError, "state is Tensor, expected a tuple of 2"),
    "a state of numbers": ({"state": (ZERO, 0.0)}, DtypeError, "state 'c' is float"),
    "a state of other rows": (
        {"state": (ZERO, torch.zeros(B + 1, H))},
        ShapeError,
        r"state 'c' has shape \(4, 2\), expected \(B, H\) = \(3, 2\)",
    ),
    "a state of the rows of an x with the time first": (
        {"x": X.transpose(0, 1), "state": (ZERO, ZERO)},
        ShapeError,
        r"expected \(B, H\) = \(5, 2\)(.|\n)*pass x.transpose\(0, 1\)",
    ),
    "lengths of the rows of an x with the time first": (
        {"x": X.transpose(0, 1), "lengths": torch.ones(B).long()},
        ShapeError,
        r"expected \(B,\) = \(5,\)(.|\n)*pass x.transpose\(0, 1\)",
    ),
    "a state with a dimension of layers": (
        {"state": (ZERO[None], ZERO[None])},
        ShapeError,
        r"\(1, 3, 2\), expected \(B, H\) = \(3, 2\)(.|\n)*one layer has no dimension of layers",
    ),
    "a state with a dimension of layers, for one step": (
        {"x": X[:, :1], "state": (ZERO[None], ZERO[None])},
        ShapeError,
        r"\(1, 3, 2\), expected \(B, H\) = \(3, 2\)(.|\n)*no dimension of layers\.$",
    ),
    "a state of other units": (
        {"state": (ZERO, torch.zeros(B, H + 1))},
        ShapeError,
        r"shape \(3, 3\), expected \(B, H\) = \(3, 2\)(.|\n)*at the start of a batch\.$",
    ),
    "a state without rows": (
        {"state": (ZERO, torch.zeros(()))},
        ShapeError,
        r"shape \(\), expected \(B, H\) = \(3, 2\)(.|\n)*at the start of a batch\.$",
    ),
    "a state in double": (
        {"state": (ZERO, ZERO.double())},
        DtypeError,
        "state 'c' is torch.float64",
    ),
    "a length above T": ({"lengths": torch.tensor([5, 6, 1])}, ShapeError, r"lengths\[1\] is 6"),
    "a length below 0": ({"lengths": torch.tensor([5, 1, -1])}, ShapeError, r"lengths\[2\] is -1"),
    "float lengths": ({"lengths": torch.ones(B)}, DtypeError, "float32, expected integers"),
    "complex lengths": ({"lengths": torch.ones(B) * 1j}, DtypeError, "complex64, expected int"),
    "a text as lengths": ({"lengths": "abc"}, DtypeError, "lengths are 'abc', expected integers"),
    "texts as lengths": ({"lengths": ["a", "b", "c"]}, DtypeError, "'c'], expected integers"),
    "nothing as lengths": ({"lengths": [None] * B}, DtypeError, "None], expected integers"),
    "lists as lengths": ({"lengths": [[1], [], [2]]}, DtypeError, r"\[2\]\], expected integers"),
    "boolean lengths": ({"lengths": torch.ones(B).bool()}, DtypeError, "bool, expected integers"),
    "a mask as lengths": (
        {"lengths": torch.ones(B, T).bool()},
        DtypeError,
        r"bool, expected integers(.|\n)*mask.sum\(1\), where these",
    ),
    "a mask of numbers as lengths": (
        {"lengths": torch.ones(B, T)},
        DtypeError,
        r"float32, expected integers(.|\n)*mask.sum\(1\), where these",
    ),
    "a mask of integers as lengths": (
        {"lengths": torch.ones(B, T).long()},
        ShapeError,
        r"\(B,\) = \(3,\)(.|\n)*mask.sum\(1\), where these",
    ),
    "lengths of other rows": ({"lengths": torch.ones(2).long()}, ShapeError, r"\(B,\) = \(3,\)"),
    "lengths in a column": (
        {"lengths": torch.ones(T, 1).long()},
        ShapeError,
        r"\(5, 1\), expected \(B,\) = \(3,\)\.\n.* x, shape \(3, 5, 4\)\.$",
    ),
    "integer resets": (
        {"resets": torch.zeros(B, T).long()},
        DtypeError,
        r"boolean tensor(.|\n)*bool\(\)",
    ),
    "resets transposed": (
        {"resets": torch.zeros(T, B).bool()},
        ShapeError,
        r"\(5, 3\), expected \(B, T\) = \(3, 5\)",
    ),
    "reverse a string": ({"reverse": "no"}, DtypeError, "reverse is 'no'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_run_is_refused_by_name(case):
    options, error, said = REFUSED[case]

    with pytest.raises(error, match=said):
        unroll(LSTMCell(I, H), **{"x": X, **options})


def test_weights_of_a_wrong_shape_never_reach_a_kernel():
    cell = GRUCell(I, H)
    cell.weight_hh = torch.nn.Parameter(torch.zeros(3 * H, H - 1))

    with pytest.raises(ShapeError, match=r"weight_hh has shape \(6, 1\), expected \(6, 2\)"):
        unroll(cell, X)


class SortingCell(GatedCell):
    gates = ("h",)

    def update(self, wx, uh, state):
        return (torch.tanh(wx.h + uh.h).sort(-1)[0],)


class BufferedCell(GRUCell):
    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.register_buffer("scale", torch.ones(hidden_size, dtype=torch.float64))


def mogrifier():
    cell = Mogrifier(LSTMCell(I, H))
    cell.q_1.data = cell.q_1.data.double()
    return cell


@pytest.mark.parametrize(
    ("make", "name"),
    [(mogrifier, "q_1"), (lambda: BufferedCell(I, H), "scale")],
    ids=["a wrapper's own", "a buffer"],
)
@pytest.mark.parametrize("backend", ["auto", "reference", "eager"])
def test_weights_of_another_dtype_never_reach_a_kernel(make, name, backend):
    with pytest.raises(DtypeError, match=f"{name} is torch.float64, expected torch.float32"):
        unroll(make(), X, backend=backend)


@pytest.mark.parametrize("lengths", [[2, 0, 5], torch.tensor([2, 0, 5], dtype=torch.int32)])
def test_lengths_may_be_any_integers(lengths):
    cell = LSTMCell(I, H)

    expected = unroll(cell, X, lengths=torch.tensor([2, 0, 5]))

    torch.testing.assert_close(unroll(cell, X, lengths=lengths), expected)


class OnAGPU(torch.Tensor):
    """Lengths that say they are on a GPU, from which only ``cpu`` brings them at once."""

    is_cuda = True

    def cpu(self):
        return self.as_subclass(torch.Tensor)


def test_lengths_on_a_gpu_are_waited_for_where_steps_run_on_the_cpu():
    lengths = torch.tensor([2, 0, T]).as_subclass(OnAGPU)

    assert type(checked_lengths("GRU", lengths, X)) is torch.Tensor
    with pytest.raises(ShapeError, match=r"lengths\[2\] is 6, expected"):
        checked_lengths("GRU", lengths + 1, X)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8])
def test_lengths_of_a_small_type_may_be_below_a_t_that_it_cannot_hold(dtype):
    cell, x = GRUCell(I, H), torch.randn(B, 300, I)
    lengths = torch.tensor([100, 5, 127], dtype=dtype)

    expected = unroll(cell, x, lengths=lengths.long())

    torch.testing.assert_close(unroll(cell, x, lengths=lengths), expected)


def test_parameters_without_memory_are_told_to_be_given_some():
    with pytest.raises(DeviceError, match="Tensors on meta hold no values: load some"):
        unroll(LSTMCell(3, 4, device="meta"), torch.zeros(2, 5, 3))


def test_messages_name_a_cell_as_it_was_written():
    cell = weight_drop(LSTMCell(I, H))

    with pytest.raises(ShapeError, match=r"^LSTMCell: lengths have shape"):
        unroll(cell, X, lengths=torch.ones(2).long())
    with pytest.raises(BackendError, match=r"^LSTMCell: backend 'scan' refuses"):
        unroll(cell, X, backend="scan")


@pytest.mark.parametrize("face", [torch.nn.LSTMCell, seqnets.LSTMCell])
def test_an_option_around_torchs_cell_names_the_one_to_take(face):
    with pytest.raises(ConfigError, match=r"LSTMCell.*; use seqnets\.cells\.LSTMCell"):
        LayerNorm(face(I, H))


@pytest.mark.parametrize("backend", ["reference", "c", "eager", "scan"])
def test_a_returned_state_has_memory_of_its_own(backend):
    with torch.no_grad():
        y, (h,) = unroll(MinGRUCell(I, H), X, backend=backend)
    before = h.clone()

    y.mul_(2)

    assert torch.equal(h, before)
    assert backend == "reference" or h.untyped_storage().nbytes() == h.nbytes


def test_a_stream_by_the_plain_loop_keeps_the_weights_it_was_made_with():
    cell, x = SortingCell(I, H), torch.randn(2, I)
    stream, reason = stream_cell(cell, x)
    stream()
    expected = stream.y.clone()

    with torch.no_grad():
        cell.weight_ih.zero_()
    stream.set_state((torch.zeros(2, H),))
    stream()

    assert "aten.sort" in reason
    torch.testing.assert_close(stream.y, expected)


@pytest.mark.parametrize("shape", [(0, T, I), (B, 0, I), (0, 0, I)])
def test_no_rows_and_no_steps_are_fine(shape):
    y, state = unroll(LSTMCell(I, H), torch.zeros(shape))

    assert y.shape == (*shape[:2], H)
    assert all(part.shape == (shape[0], H) for part in state)


def test_the_state_after_no_steps_is_not_the_tensor_that_was_given():
    given = torch.zeros(B, H)
    with torch.no_grad():
        _, (after,) = unroll(GRUCell(I, H), torch.zeros(B, 0, I), (given,))
        after.fill_(9)

    assert (given == 0).all()


def test_a_reset_puts_the_cells_own_initial_state_and_not_the_given_one():
    cell = LSTMCell(I, H)
    given = (torch.randn(B, H), torch.randn(B, H))
    resets = torch.zeros(B, T, dtype=torch.bool)
    resets[:, 0] = True

    torch.testing.assert_close(unroll(cell, X, given, resets=resets), unroll(cell, X))


@pytest.mark.parametrize(
    ("begins", "error", "told"),
    [
        (
            lambda b: torch.ones(b, 4),
            ShapeError,
            r"Wrong: initial_state returns Tensor, expected a",
        ),
        (lambda b: (), ShapeError, r"returns a tuple of 0, expected a tuple of 1: \(h,\)"),
        (lambda b: (torch.ones(4),), ShapeError, r"'h' with shape \(4,\), expected .* \(2, 4\)"),
        (lambda b: (torch.ones(1, 4),), ShapeError, r"'h' with shape \(1, 4\), expected"),
        (lambda b: (torch.ones(b, 4).double(),), DtypeError, "initial state 'h' is torch.float64"),
        (lambda b: (torch.ones(b, 4, device="meta"),), DeviceError, "'h' is on meta"),
    ],
)
@pytest.mark.parametrize("use", ["whole", "step", "resets", "stream"])
def test_a_cells_own_initial_state_is_checked_wherever_it_is_used(begins, error, told, use):
    class Wrong(GatedCell):
        gates = ("n",)

        def initial_state(self, batch_size):
            return begins(batch_size)

        def update(self, wx, uh, state):
            return (torch.tanh(wx.n + uh.n),)

    cell, x, resets = Wrong(3, 4), torch.zeros(2, 5, 3), torch.ones(2, 5, dtype=torch.bool)
    uses = {
        "whole": lambda: unroll(cell, x),
        "step": lambda: cell(x[:, 0]),
        "resets": lambda: unroll(cell, x, (torch.zeros(2, 4),), resets=resets),
        "stream": lambda: seqnets.Stream(seqnets.Recurrent(cell), 2),
    }

    with pytest.raises(error, match=told):
        uses[use]()


@pytest.mark.parametrize("sizes", [(4, 2.0), (4,), 4, (4, (2, 2)), (4, True), (4, -1)], ids=str)
def test_sizes_of_states_are_whole_numbers_one_for_each(sizes):
    class Gated(GatedCell):
        gates = ("n",)
        states = ("h", "m")
        state_sizes = sizes

        def update(self, wx, uh, state):
            return torch.tanh(wx.n + uh.n), state[1]

    class Bare(BareCell):
        states = ("h", "m")
        state_sizes = sizes

        def make(self, I, H):
            self.u = self.weight(H, H)

        def step(self, x, state):
            return torch.tanh(x + state[0] @ self.u), state[1]

    told = "state_sizes is .*2 whole numbers: the units of h, m"
    with pytest.raises(ConfigError, match=f"Gated: {told}"):
        Gated(3, 4)
    for use in (seqnets.explain, unroll):
        with pytest.raises(ConfigError, match=f"Bare: {told}"):
            use(Bare(3, 4), torch.zeros(2, 5, 3))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (lambda h: h, r"Wrong: its step returns Tensor, expected a tuple of 1: \(h,\)"),
        (lambda h: (h, h), "its step returns a tuple of 2, expected a tuple of 1"),
        (lambda h: (h[:, :1],), r"state 'h' with shape \(2, 1\), expected \(B, H\) = \(2, 4\)"),
    ],
)
def test_what_a_step_gives_is_checked_whatever_the_backend(given, told):
    class Wrong(GatedCell):
        gates = ("n",)

        def update(self, wx, uh, state):
            return given(torch.tanh(wx.n + uh.n))

    for backend in ("auto", "reference"):
        with pytest.raises(ShapeError, match=told):
            unroll(Wrong(3, 4), torch.zeros(2, 5, 3), backend=backend)


class Fading(Cell):
    """What is left of the inputs, by a number that is not learned."""

    def __init__(self, size, *, keep=None):
        super().__init__()
        self.input_size = self.hidden_size = size
        if keep is not None:
            self.register_buffer("keep", torch.tensor(keep))

    def project(self, x):
        return x

    def step(self, wx, state):
        return (self.keep * state[0] + wx,)


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_a_cell_without_parameters_has_its_buffers_type(backend):
    cell = Fading(I, keep=0.5).double()
    x = X.double().requires_grad_()

    y, _ = unroll(cell, x, backend=backend)
    stream = seqnets.Stream(seqnets.Recurrent(cell), B)
    steps = [stream(x_t).clone() for x_t in x.unbind(1)]

    torch.testing.assert_close(y[:, 1], 0.5 * x[:, 0] + x[:, 1])
    torch.testing.assert_close(torch.stack(steps, 1), y.detach())


def test_a_cell_without_any_tensor_is_told_to_have_one():
    with pytest.raises(ConfigError, match="Fading: has no real-valued parameter or buffer"):
        unroll(Fading(I), X)


class InPlace(GatedCell):
    gates = ("n",)

    def update(self, wx, uh, state):
        (h,) = state
        h += torch.tanh(wx.n + uh.n)
        return (h,)


def test_a_step_that_changes_its_state_in_place_is_told_not_to():
    given = torch.zeros(2, 4)

    with torch.no_grad(), pytest.raises(ConfigError, match="InPlace: its step changes its input"):
        unroll(InPlace(3, 4), torch.randn(2, 5, 3), (given,))


def test_a_state_of_another_dtype_after_a_step_is_told():
    class Flag(GatedCell):
        gates = ("n",)
        states = ("h", "on")

        def update(self, wx, uh, state):
            h = torch.tanh(wx.n + uh.n)
            return h, h > 0

    with pytest.raises(
        DtypeError, match=r"returns state 'on' as torch.bool, expected torch.float32"
    ):
        unroll(Flag(3, 4), torch.randn(2, 5, 3))


def test_a_module_in_place_of_a_method_is_refused_since_it_would_never_be_called():
    cell = seqnets.cells.GRUCell(3, 4)

    with pytest.raises(
        ConfigError, match="cannot set candidate to the module ReLU, since candidate is a method"
    ):
        cell.candidate = torch.nn.ReLU()


def test_a_pruned_weight_is_computed_anew_at_every_call():
    layer, x = seqnets.Recurrent(seqnets.cells.GRUCell(3, 4)), torch.randn(2, 5, 3)
    prune.l1_unstructured(layer.cell, "weight_hh", 0.5)

    for _ in range(2):
        layer(x)[0].sum().backward()
        with torch.no_grad():
            layer.cell.weight_hh_orig.mul_(10)
    y, _ = layer(x)

    cell = layer.cell
    assert torch.equal(cell.weight_hh, cell.weight_hh_orig * cell.weight_hh_mask)
    prune.remove(cell, "weight_hh")
    torch.testing.assert_close(layer(x)[0], y)


@pytest.mark.parametrize("backend", ["c", "eager", "reference"])
def test_several_gradients_may_come_in_at_once(backend):
    cell = seqnets.cells.PeepholeLSTMCell(3, 4).double()
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    y, _ = unroll(cell, x, backend=backend)
    grads = torch.randn(6, *y.shape, dtype=torch.float64)

    found = torch.autograd.grad(y, x, grads, is_grads_batched=True, retain_graph=True)[0]

    each = [torch.autograd.grad(y, x, grad, retain_graph=True)[0] for grad in grads]
    torch.testing.assert_close(found, torch.stack(each))
    assert not found.requires_grad


@pytest.mark.parametrize(("cell_cls", "backend"), [(LSTMCell, "native"), (MinGRUCell, "scan")])
def test_without_gradients_lean_memory_keeps_no_backend_away(cell_cls, backend):
    cell, x = cell_cls(I, H), torch.randn(B, T, I)

    with torch.no_grad():
        lean, full = (seqnets.explain(cell, x, memory=memory) for memory in ("lean", "full"))
        y, _ = unroll(cell, x, backend=backend, memory="lean")

    assert lean == full
    torch.testing.assert_close(y, unroll(cell, x, backend="reference")[0])


@pytest.mark.parametrize("memory", ["full", "lean"])
@pytest.mark.parametrize("backend", ["c", "eager", "native", "reference"])
def test_no_state_before_is_zeros(backend, memory):
    if (backend, memory) == ("native", "lean"):
        pytest.skip("torch's kernels keep more than states")
    cell, x = LSTMCell(I, H), torch.randn(B, 70, I)
    found = []
    for state in (None, (ZERO, ZERO)):
        y, after = unroll(cell, x, state, backend=backend, memory=memory)
        loss = y.square().sum() + after[-1].sum()
        found.append([y, *after, *torch.autograd.grad(loss, tuple(cell.parameters()))])

    torch.testing.assert_close(*found)


class RootCell(GatedCell):
    """The root of its input, whose derivative is infinite at zero, as padding is."""

    gates = ("h",)

    def update(self, wx, uh, state):
        return (torch.tanh(wx.h.sign() * wx.h.abs().sqrt() + uh.h),)


@pytest.mark.parametrize("backend", ["reference", "c", "eager"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [[5, 2, 0], [3, 3, 1]])
def test_padding_has_no_part_in_gradients_however_steep_a_step_is(lengths, reverse, backend):
    cell = RootCell(I, H, bias=False).double()
    x = torch.randn(B, T, I, dtype=torch.float64, requires_grad=True)
    leaves, counts = (x, *cell.parameters()), torch.tensor(lengths)
    rows = [unroll(cell, x[b : b + 1, :n], reverse=reverse)[0] for b, n in enumerate(lengths)]
    expected = torch.autograd.grad(sum(y.square().sum() for y in rows), leaves)

    y, _ = unroll(cell, x, lengths=counts, reverse=reverse, backend=backend)
    found = torch.autograd.grad(y.square().sum(), leaves)

    torch.testing.assert_close(found, expected)


def test_a_row_that_is_no_number_spoils_no_others():
    cell, lengths = GRUCell(I, H), torch.tensor([T, 2, 3])
    x = torch.randn(B, T, I)
    x[0] = float("nan")
    x.requires_grad_()

    y, _ = unroll(cell, x, lengths=lengths, backend="reference")
    (found,) = torch.autograd.grad(y[1:].sum(), x)

    assert found[1:].isfinite().all()
    assert y[1:].isfinite().all()
