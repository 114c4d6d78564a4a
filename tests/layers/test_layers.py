from functools import partial

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import seqnets
from seqnets import (
    Bidirectional,
    ConvFront1d,
    DeepOutput,
    DeepRNN,
    Fronted,
    Hierarchical,
    Recurrent,
    Reversed,
    Stream,
    Truncated,
)
from seqnets.cells import (
    Cell,
    GRUCell,
    InputDropout,
    LearnedState,
    LSTMCell,
    PeepholeLSTMCell,
    RNNCell,
    Zoneout,
    optioned,
)
from seqnets.errors import BackendError, ConfigError, DtypeError, ShapeError
from seqnets.layers import LockedDropout, detach, map_state
from seqnets.testing import check_cell

B, T, I, H = 3, 6, 4, 5
LENGTHS = torch.tensor([6, 0, 4])
HIERARCHY = Hierarchical(Recurrent(GRUCell(I, H)), Recurrent(GRUCell(H, H)), stride=2)


@pytest.fixture
def x():
    return torch.randn(B, T, I, dtype=torch.float64)


def double(cell, *args, **options):
    return cell(*args, dtype=torch.float64, **options)


STEPPED = {
    "recurrent": lambda: Recurrent(LearnedState(LSTMCell(I, H))),
    "deep": lambda: DeepRNN([LSTMCell, GRUCell], I, H, 2),
    "output": lambda: DeepOutput(Truncated(Recurrent(GRUCell(I, H)), 4), [3]),
}


@pytest.mark.parametrize("name", STEPPED)
def test_steps_begin_again_where_the_sequence_does(name, x):
    layer = STEPPED[name]().double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    resets = torch.rand(B, T) < 0.4

    state, outputs = None, []
    for x_t, resets_t in zip(x.unbind(1), resets.unbind(1), strict=True):
        y, state = layer.step(x_t, state, resets_t)
        outputs.append(y)

    expected, final = layer(x, resets=resets)
    torch.testing.assert_close(torch.stack(outputs, 1), expected)
    torch.testing.assert_close(state, final)


@pytest.mark.parametrize(
    ("resets", "error", "message"),
    [
        (torch.zeros(B), DtypeError, "resets are torch.float32, expected a boolean tensor"),
        (torch.zeros(1, dtype=torch.bool), ShapeError, r"shape \(1,\), expected \(B,\) = \(\d,\)"),
    ],
)
def test_resets_of_a_step_that_do_not_fit_are_refused(resets, error, message, x):
    with pytest.raises(error, match=f"GRUCell: .*{message}"):
        Recurrent(GRUCell(I, H, dtype=x.dtype)).step(x[:, 0], None, resets)


@pytest.mark.parametrize("cell", [LSTMCell, PeepholeLSTMCell])
def test_steps_one_by_one_are_the_sequence(cell, x):
    layer = Recurrent(double(cell, I, H))
    whole, final = layer(x)

    state, outputs = None, []
    for t in range(T):
        y, state = layer.step(x[:, t], state)
        outputs.append(y)

    torch.testing.assert_close(torch.stack(outputs, 1), whole)
    torch.testing.assert_close(state, final)


def test_both_directions_are_two_layers_side_by_side(x):
    ahead, back = double(GRUCell, I, H), double(LSTMCell, I, H)

    y, (ahead_state, back_state) = Bidirectional(ahead, back)(x, lengths=LENGTHS)
    y_ahead, state_ahead = Recurrent(ahead)(x, lengths=LENGTHS)
    y_back, state_back = Recurrent(back, reverse=True)(x, lengths=LENGTHS)

    torch.testing.assert_close(y, torch.cat([y_ahead, y_back], -1))
    torch.testing.assert_close((ahead_state, back_state), (state_ahead, state_back))


@pytest.mark.parametrize("merge", ["sum", "mean", "none", "concat"])
def test_both_directions_are_merged_as_asked_for(merge, x):
    torch.manual_seed(1)
    layer = Bidirectional(double(GRUCell, I, H), merge=merge)
    ahead, back = layer.forward_layer(x)[0], layer.backward_layer(x)[0]

    y, _ = layer(x)

    expected = {
        "sum": ahead + back,
        "mean": (ahead + back) / 2,
        "none": (ahead, back),
        "concat": torch.cat([ahead, back], -1),
    }[merge]
    torch.testing.assert_close(y, expected)
    assert layer.output_size == (2 * H if merge == "concat" else H)


def test_lengths_may_be_a_list_in_both_directions(x):
    layer = Bidirectional(double(GRUCell, I, H))
    resets = torch.zeros(B, T, dtype=torch.bool)
    lengths = [T, T - 2, *[T - 1] * (B - 2)]

    torch.testing.assert_close(
        layer(x, None, lengths, resets), layer(x, None, torch.tensor(lengths), resets)
    )


def test_locked_dropout_of_everything_leaves_zeros():
    dropped = LockedDropout(1.0)(torch.randn(2, 3, 4))

    assert not dropped.any()


def test_the_backward_cell_made_for_you_has_weights_of_its_own():
    layer = Bidirectional(GRUCell(I, H))

    ahead, back = layer.forward_layer.cell, layer.backward_layer.cell

    assert not torch.equal(ahead.weight_ih, back.weight_ih)
    assert not torch.equal(ahead.weight_hh, back.weight_hh)


@pytest.mark.parametrize("lengths", [None, torch.tensor([6, 5, 6])])
def test_documents_in_one_row_are_independent_in_both_directions(lengths, x):
    layer = Bidirectional(double(PeepholeLSTMCell, I, H))
    resets = torch.zeros(B, T, dtype=torch.bool)
    resets[:, 2] = resets[:, 3] = True

    y, _ = layer(x, lengths=lengths, resets=resets)
    parts = []
    for part in (slice(0, 2), slice(2, 3), slice(3, 6)):
        inside = (
            None if lengths is None else (lengths - part.start).clamp(0, part.stop - part.start)
        )
        parts.append(layer(x[:, part], lengths=inside)[0])

    torch.testing.assert_close(y, torch.cat(parts, 1))


def test_both_directions_take_resets_of_no_steps():
    y, _ = Bidirectional(GRUCell(I, H))(torch.zeros(B, 0, I), resets=torch.zeros(B, 0).bool())

    assert y.shape == (B, 0, 2 * H)


def test_a_reset_on_padding_changes_nothing(x):
    layer = Bidirectional(double(GRUCell, I, H))
    given = tuple((torch.randn(B, H, dtype=torch.float64),) for _ in range(2))
    resets = torch.arange(T) >= LENGTHS[:, None]

    with_resets = layer(x, given, LENGTHS, resets)

    torch.testing.assert_close(with_resets, layer(x, given, LENGTHS))


@pytest.mark.parametrize("connection", ["none", "residual", "highway"])
def test_connections_lead_around_every_layer_after_the_first(connection, x):
    net = DeepRNN(GRUCell, I, H, 3, connection=connection).double()

    expected, _ = net.layers[0](x)
    for layer, around in zip(net.layers[1:], net.connections[1:], strict=True):
        y, _ = layer(expected)
        if connection == "residual":
            y = expected + y
        elif connection == "highway":
            gate = torch.sigmoid(expected @ around.gate.weight.T + around.gate.bias)
            y = gate * y + (1 - gate) * expected
        expected = y

    torch.testing.assert_close(net(x)[0], expected)


def test_a_highway_that_gets_memory_late_starts_closed():
    with torch.device("meta"):
        net = DeepRNN(GRUCell, I, H, 2, connection="highway")
    net.to_empty(device="cpu")

    for module in net.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()

    assert (net.connections[1].gate.bias == -2).all()


def test_a_printed_stack_shows_its_connections_by_name():
    shown = repr(DeepRNN(GRUCell, I, H, 2, connection="residual"))

    assert "(0): NoConnection()" in shown
    assert "(1): Residual()" in shown


def test_layers_may_differ_in_cell_size_and_direction(x):
    cells = [LSTMCell, GRUCell, partial(RNNCell, nonlinearity="relu")]
    net = DeepRNN(cells, I, [7, 6, 5], bidirectional=[False, True, False]).double()

    y, state = net(x, lengths=LENGTHS)

    assert y.shape == (B, T, 5)
    assert [layer.input_size for layer in net.layers] == [I, 7, 12]
    assert [len(part) for part in state] == [2, 2, 1]


def test_state_carries_a_deep_net_over_a_cut(x):
    net = DeepRNN(LSTMCell, I, H, 2, connection="residual").double()
    whole, final = net(x)

    first, state = net(x[:, :2])
    second, end = net(x[:, 2:], state)
    stepped, _ = net.step(x[:, 2], state)

    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    torch.testing.assert_close(end, final)
    torch.testing.assert_close(stepped, whole[:, 2])


@pytest.mark.parametrize("locked", [True, False])
def test_all_steps_share_one_dropout_mask_where_it_is_locked(locked, x):
    net, read = DeepRNN(GRUCell, I, H, 2, dropout=0.5, locked=locked).double(), []
    net.layers[1].register_forward_pre_hook(lambda _, given: read.append(given[0]))
    net(x)

    dropped = read[0] == 0
    assert dropped.any()
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped)) == locked


def test_dropout_is_between_layers_and_in_training_only(x):
    net = DeepRNN(GRUCell, I, H, 2, dropout=0.5).double()
    alone = DeepRNN(GRUCell, I, H, 1, dropout=0.5).double()

    assert not torch.equal(net(x)[0], net(x)[0])
    assert torch.equal(alone(x)[0], alone(x)[0])
    net.eval()
    below, _ = net.layers[0](x)
    torch.testing.assert_close(net(x)[0], net.layers[1](below)[0])


@pytest.mark.parametrize("stride", [None, 1, 2])
def test_truncation_changes_no_output_and_no_state(stride, x):
    net = DeepRNN(LSTMCell, I, H, 2).double()
    resets = torch.rand(B, T) < 0.3

    expected = net(x, None, LENGTHS, resets)

    torch.testing.assert_close(Truncated(net, 2, stride)(x, None, LENGTHS, resets), expected)


def test_truncation_goes_around_what_treats_every_step_on_its_own(x):
    cell = InputDropout(double(GRUCell, I, H), 0.0, per_step=False)
    net = Fronted(ConvFront1d(I, I, kernel_size=1).double(), Recurrent(cell))

    torch.testing.assert_close(Truncated(net, 2)(x, None, LENGTHS), net(x, None, LENGTHS))


@pytest.mark.parametrize("stride", [4, 2])
def test_gradients_of_a_windows_input_are_no_longer_than_the_window(stride):
    layer = Truncated(Recurrent(GRUCell(I, H)), 4, stride)
    x = torch.randn(B, 40, I, requires_grad=True)
    y, _ = layer(x)

    class Long(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            self.count += getattr(result, "shape", None) == x.shape
            return result

    with Long() as long:
        y.sum().backward()

    assert long.count <= 2  # the gradient, and its copy for whoever keeps it


AROUND = {
    "Truncated": lambda: Truncated(Recurrent(GRUCell(I, H)), 2),
    "Hierarchical": lambda: Hierarchical(Recurrent(GRUCell(I, H)), Recurrent(GRUCell(H, H)), 2),
    "Fronted": lambda: Fronted(ConvFront1d(I, I, stride=4), Recurrent(GRUCell(I, H))),
    "Reversed": lambda: Reversed(Recurrent(GRUCell(I, H))),
    "DeepOutput": lambda: DeepOutput(Recurrent(GRUCell(I, H)), [3]),
    "DeepRNN": lambda: DeepRNN(GRUCell, I, H, 2, bidirectional=True),
}


@pytest.mark.parametrize("cell_cls", [GRUCell, LSTMCell, PeepholeLSTMCell])
def test_equal_calls_give_equal_bits(cell_cls, x):
    layer, x = Recurrent(cell_cls(I, H)), x.detach().float().requires_grad_()

    def call():
        y, _ = layer(x, lengths=LENGTHS)
        return y, *torch.autograd.grad(y.square().sum(), (x, *layer.parameters()))

    torch.use_deterministic_algorithms(True)
    try:
        first, second = call(), call()
    finally:
        torch.use_deterministic_algorithms(False)

    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("name", AROUND)
def test_lengths_may_be_a_list_in_every_layer(name, x):
    layer = AROUND[name]().double()

    y, state = layer(x, lengths=LENGTHS.tolist())

    torch.testing.assert_close((y, state), layer(x, lengths=LENGTHS))


@pytest.mark.parametrize("name", ["Truncated", "Hierarchical", "Fronted"])
@pytest.mark.parametrize("lengths", [[T + 1, T, T], [T, -3, T]])
def test_lengths_out_of_range_are_reported_for_the_whole_sequence(name, lengths, x):
    layer = AROUND[name]().double()

    with pytest.raises(ShapeError, match=rf"{name}: lengths\[\d\] is .*, expected 0\.\.T = 0\.\.6"):
        layer(x, lengths=lengths)


WRONG = {
    "merge": (lambda: Bidirectional(GRUCell(I, H), merge="max"), "merge is 'max'"),
    "widths": (
        lambda: Bidirectional(GRUCell(I, H), GRUCell(I, H + 1), merge="sum"),
        "5 and 6 wide",
    ),
    "inputs": (lambda: Bidirectional(GRUCell(I, H), GRUCell(I + 1, H)), "take 4 and 5"),
    "connection": (lambda: DeepRNN(GRUCell, I, H, connection="cubic"), "connection is 'cubic'"),
    "pair": (lambda: DeepRNN(GRUCell, I, H, merge="none"), "merge is 'none'"),
    "pair backwards": (
        lambda: Reversed(Bidirectional(GRUCell(I, H), merge="none")),
        "Reversed: Bidirectional has merge='none', expected 'concat', 'sum' or 'mean'",
    ),
    "pair in a perceptron": (
        lambda: DeepOutput(
            Fronted(ConvFront1d(I, 3), Bidirectional(GRUCell(3, H), merge="none")), [3]
        ),
        "DeepOutput: Bidirectional has merge='none', expected",
    ),
    "pair of segments": (
        lambda: Hierarchical(
            Bidirectional(GRUCell(I, H), merge="none"), Recurrent(GRUCell(H, H)), 2
        ),
        "Hierarchical: Bidirectional has merge='none', expected",
    ),
    "dropout": (lambda: DeepRNN(GRUCell, I, H, dropout=1.0), r"dropout is 1\.0"),
    "depth": (lambda: DeepRNN(GRUCell, I, H, 0), "num_layers is 0"),
    "no depths": (lambda: DeepRNN(GRUCell, I, []), "hidden_size lists no values"),
    "no cells": (lambda: DeepRNN([], I, H), "cell lists no values"),
    "list": (lambda: DeepRNN(GRUCell, I, [H, H], 3), "hidden_size lists 2 values"),
    "residual": (
        lambda: DeepRNN(GRUCell, I, [4, 5], connection="residual"),
        "layer 1 takes 4 features and gives 5",
    ),
    "window": (
        lambda: Truncated(Recurrent(GRUCell(I, H)), 5, 2),
        "stride is 2, expected a divisor of steps = 5",
    ),
    "no window": (
        lambda: Truncated(Recurrent(GRUCell(I, H)), 0),
        "Truncated: steps is 0, expected a whole number of at least 1",
    ),
    "parts of steps": (lambda: Truncated(Recurrent(GRUCell(I, H)), 4.0), r"steps is 4\.0"),
    "parts of strides": (lambda: Truncated(Recurrent(GRUCell(I, H)), 4, 2.0), r"stride is 2\.0"),
    "future": (lambda: Truncated(Bidirectional(GRUCell(I, H)), 5), "both directions"),
    "states": (lambda: DeepRNN(GRUCell, I, H, 2)(torch.zeros(B, T, I), [None]), "1 part"),
    "tensor": (lambda: Recurrent(GRUCell(I, H))(torch.zeros(B, T, I), torch.zeros(B, H)), "tuple"),
    "step": (
        lambda: DeepRNN(GRUCell, I, H, bidirectional=True).step(torch.zeros(B, I)),
        "runs in both directions",
    ),
    "a step against time": (
        lambda: Recurrent(GRUCell(I, H), reverse=True).step(torch.zeros(B, I)),
        "Recurrent: step was called, but it runs backwards",
    ),
    "a step of a reversed layer": (
        lambda: Reversed(Recurrent(GRUCell(I, H))).step(torch.zeros(B, I)),
        "Reversed: step was called, but it runs backwards",
    ),
    "a step in both directions, further out": (
        lambda: DeepOutput(Bidirectional(GRUCell(I, H)), [3]).step(torch.zeros(B, I)),
        "Bidirectional: step was called, but it runs in both directions",
    ),
    "backend": (
        lambda: Recurrent(GRUCell(I, H), backend="tritn"),
        "Recurrent: backend is 'tritn', expected one of auto, triton, c",
    ),
    "backend in both directions": (
        lambda: Bidirectional(GRUCell(I, H), backend="tritn"),
        "Bidirectional: backend is 'tritn'",
    ),
    "backend in depth": (
        lambda: DeepRNN(GRUCell, I, H, backend="tritn"),
        "DeepRNN: backend is 'tritn'",
    ),
    "memory": (lambda: Recurrent(GRUCell(I, H), memory="lena"), "Recurrent: memory is 'lena'"),
    "memory in both directions": (
        lambda: Bidirectional(GRUCell(I, H), memory="lena"),
        "Bidirectional: memory is 'lena'",
    ),
    "memory in depth": (
        lambda: DeepRNN(GRUCell, I, H, memory="lena"),
        "DeepRNN: memory is 'lena', expected one of full, lean",
    ),
    "not a pair": (
        lambda: Bidirectional(GRUCell(I, H))(torch.zeros(B, T, I), [None]),
        "state has 1 part, expected a pair",
    ),
    "no state at all": (
        lambda: Bidirectional(GRUCell(I, H))(torch.zeros(B, T, I), 0),
        "state is int, expected a pair",
    ),
    "a tensor for the states of layers": (
        lambda: DeepRNN(GRUCell, I, H, 3)(torch.zeros(B, T, I), torch.zeros(3, B, H)),
        "state is Tensor, expected a tuple of one per layer: 3",
    ),
    "one state for two layers": (
        lambda: DeepRNN(GRUCell, I, H, 2)(torch.zeros(B, T, I), (None,)),
        "state has 1 part, expected a tuple of one per layer: 2",
    ),
    "one state for two levels": (
        lambda: HIERARCHY(torch.zeros(B, T, I), (None,)),
        r"state has 1 part, expected a pair: \(lower state, upper state\)",
    ),
    "a direction that is text": (
        lambda: Recurrent(GRUCell(I, H), reverse="no"),
        "Recurrent: reverse is 'no', expected True or False",
    ),
    "directions that are text": (
        lambda: DeepRNN(GRUCell, I, H, 2, bidirectional=[True, "no"]),
        "DeepRNN: bidirectional is 'no', expected True or False",
    ),
    "alternation that is text": (
        lambda: DeepRNN(GRUCell, I, H, 2, alternating="no"),
        "DeepRNN: alternating is 'no', expected True or False",
    ),
    "a carry that is text": (
        lambda: Hierarchical(*HIERARCHY.children(), stride=2, carry="no"),
        "Hierarchical: carry is 'no', expected True or False",
    ),
    "too few lengths": (
        lambda: Reversed(Recurrent(GRUCell(I, H)))(torch.zeros(B, T, I), None, [T]),
        r"Reversed: lengths have shape \(1,\), expected \(B,\) = \(3,\)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_invalid_options_are_refused(case):
    make, said = WRONG[case]

    with pytest.raises((ConfigError, DtypeError, ShapeError), match=said):
        make()


@pytest.mark.parametrize(
    "layer",
    [
        Recurrent(GRUCell(I, H)),
        Bidirectional(GRUCell(I, H)),
        Reversed(Recurrent(GRUCell(I, H))),
        Truncated(Recurrent(GRUCell(I, H)), 2),
        HIERARCHY,
    ],
)
def test_an_array_instead_of_a_tensor_is_reported(layer):
    with pytest.raises(DtypeError, match="input is ndarray, expected a tensor"):
        layer(torch.zeros(B, T, I).numpy())


def test_packed_rows_in_place_of_a_tensor_are_told_how_to_unpack_them():
    packed = nn.utils.rnn.pack_sequence([torch.zeros(T, I)])
    with pytest.raises(DtypeError, match=r"PackedSequence, expected.*\n.*pad_packed_sequence\(x"):
        Recurrent(GRUCell(I, H))(packed)


@pytest.mark.parametrize("layer", [Recurrent(GRUCell(I, H)), Bidirectional(GRUCell(I, H))])
def test_a_nested_tensor_is_told_how_to_become_a_padded_one(layer):
    rows = [torch.randn(4, I), torch.randn(2, I)]
    nested = torch.nested.nested_tensor(rows, layout=torch.jagged)
    with pytest.raises(DtypeError, match=r"a nested tensor, expected.*\n.*x\.to_padded_tensor\(0"):
        layer(nested)

    padded, lengths = nested.to_padded_tensor(0.0), nested.offsets().diff()  # as it says
    torch.testing.assert_close(layer(padded, None, lengths)[0][1:, :2], layer(rows[1][None])[0])


class LastStep(nn.Module):
    """A model around a layer, as fx traces it."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, lengths=None, resets=None):
        y, state = self.layer(x, None, lengths, resets)
        return y[:, -1], state


@pytest.mark.parametrize(
    "layer",
    [
        Recurrent(GRUCell(I, H), backend="reference"),
        Bidirectional(GRUCell(I, H), backend="reference"),
        DeepRNN(LSTMCell, I, H, 2, backend="reference"),
    ],
)
def test_fx_records_a_layer_as_one_call(layer):
    model, x = LastStep(layer), torch.randn(B, T, I)

    traced = torch.fx.symbolic_trace(model)

    assert [n.target for n in traced.graph.nodes if n.op == "call_module"] == ["layer"]
    for lengths in (None, LENGTHS):
        torch.testing.assert_close(traced(x, lengths), model(x, lengths))


@pytest.mark.parametrize("module", [Recurrent(GRUCell(I, H)), seqnets.GRU(I, H)])
def test_a_model_that_is_scripted_is_told_what_to_do_in_its_place(module):
    with pytest.raises(BackendError, match=r"torch.jit.script cannot[\s\S]*torch.export"):
        torch.jit.script(nn.Sequential(module))


@pytest.mark.parametrize("layer", [Recurrent, Bidirectional])
@pytest.mark.parametrize("given", [seqnets.GRUCell, nn.GRUCell, seqnets.GRU, nn.GRU])
def test_a_module_that_is_mistaken_for_its_cell_is_refused(layer, given):
    with pytest.raises(ConfigError, match=r"expected a cell[\s\S]*use seqnets\.cells\.GRUCell"):
        layer(given(I, H))


@pytest.mark.parametrize(
    ("given", "came"),
    [
        (seqnets.GRUCell(I, H), r"seqnets\.GRUCell \(torch\.nn's interface\)"),
        (seqnets.GRUCell, r"seqnets\.GRUCell \(torch\.nn's interface\)"),
        (seqnets.GRU(I, H), r"seqnets\.GRU \(torch\.nn's interface\)"),
        (nn.GRU(I, H), r"torch\.nn\.GRU"),
    ],
)
def test_a_wrong_cell_is_reported_by_its_argument_name(given, came):
    with pytest.raises(ConfigError, match=rf"You passed {came}; use seqnets\.cells\.GRUCell\."):
        Recurrent(given)


@pytest.mark.parametrize("make", [partial(DeepRNN, input_size=I, hidden_size=H), check_cell])
def test_a_torch_like_module_instead_of_a_cell_class_is_reported(make):
    with pytest.raises(ConfigError, match=r"You passed seqnets\.GRU \(torch\.nn's interface\)"):
        make(seqnets.GRU(I, H))


@pytest.mark.parametrize(
    ("use", "given", "advice"),
    [
        (Stream, nn.GRU(3, 4), "seqnets.conversion.from_torch converts it to seqnets.GRU"),
        (
            partial(seqnets.engine.explain, x=None),
            seqnets.GRU(3, 4),
            "method bound_cells returns its cells",
        ),
        (
            partial(seqnets.engine.explain, x=None),
            Recurrent(Zoneout(GRUCell(3, 4), 0.1)),
            r"explain: cell is Recurrent, .*\n.*has a cell inside: its attribute cell\.",
        ),
        (
            partial(seqnets.engine.explain, x=None),
            DeepRNN(GRUCell, 3, 4, 2),
            r"explain: cell is DeepRNN, .*\n.*2 cells inside, the first one is layers\[0\]\.cell",
        ),
        (
            partial(seqnets.unroll, x=None),
            Bidirectional(GRUCell(3, 4)),
            r"unroll: cell is Bidirectional, .*\n.*first one is forward_layer\.cell",
        ),
    ],
)
def test_errors_say_where_to_get_the_expected_object(use, given, advice):
    with pytest.raises(ConfigError, match=advice):
        use(given)


@pytest.mark.parametrize("layer", [Recurrent, Bidirectional])
@pytest.mark.parametrize("given", [GRUCell, partial(GRUCell, I, H)])
def test_a_cell_class_instead_of_a_cell_is_refused(layer, given):
    with pytest.raises(ConfigError, match=r"expected a cell[\s\S]*with the sizes"):
        layer(given)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: Recurrent(GRUCell, I, H), r"Make the cell first: Recurrent\(GRUCell\(4, 5\)\)"),
        (
            lambda: Recurrent(GRUCell, input_size=I, hidden_size=H),
            r"cell first: Recurrent\(GRUCell\(input_size=4, hidden_size=5\)\)",
        ),
        (lambda: Bidirectional(GRUCell, I, H), r"cell first: Bidirectional\(GRUCell\(4, 5\)\)"),
        (lambda: Zoneout(GRUCell, I, H), r"Make the cell first: Zoneout\(GRUCell\(4, 5\)\)"),
        (lambda: Recurrent(GRUCell(I, H), bidirectional=True), "DeepRNN takes num_layers, bidir"),
        (
            lambda: DeepRNN(GRUCell, I, H, layers=2),
            "keyword argument 'layers', expected num_layers",
        ),
        (lambda: GRUCell(I, H, batch_first=True), r"GRUCell: unexpected .*\n.*\(B, T, I\)"),
        (
            lambda: GRUCell(I),
            r"GRUCell: missing .* expected GRUCell\(input_size, hidden_size, bias",
        ),
        (lambda: LSTMCell(I, H, 3), r"LSTMCell: too many .* expected LSTMCell\(input_size, hidden"),
    ],
)
def test_a_call_that_does_not_fit_is_told_what_fits(call, told):
    with pytest.raises(TypeError, match=told):
        call()


def test_a_mistake_inside_a_constructor_is_not_taken_for_a_call_that_does_not_fit():
    class Flawed(GRUCell):
        def __init__(self, input_size, hidden_size):
            super().__init__(input_size, hidden_size)
            self.scale = hidden_size["scale"]

    with pytest.raises(TypeError, match="not subscriptable"):
        Flawed(I, H)


class Scaled(GRUCell):
    def __init__(self, input_size, hidden_size, **options):
        self.scale = options.pop("scale")
        super().__init__(input_size, hidden_size, **options)


class Incomplete(Cell):
    def __init__(self, input_size, hidden_size, **options):
        self.scale = options.pop("scale")
        super().__init__()


class Wrapping(Incomplete):
    cell_class = GRUCell  # of its own: only modules like torch.nn's pass all options to it


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: Scaled(I, 4.5, scale=2), r"Scaled: hidden_size is 4\.5"),
        (lambda: Incomplete(I, H, scale=2), "instantiate abstract class Incomplete"),
        (lambda: Wrapping(I, H, scale=2), "instantiate abstract class Wrapping"),
        (lambda: Scaled(I, H, scale=2, bais=False), "unexpected keyword argument 'bais'"),
    ],
)
def test_a_keyword_that_a_constructor_takes_out_of_its_options_is_not_called_unexpected(call, told):
    with pytest.raises(TypeError, match=told):
        call()


@pytest.mark.parametrize("options", [["zoneout"], [Zoneout(GRUCell(I, H))]])
def test_options_that_take_no_cell_are_refused(options):
    with pytest.raises(ConfigError, match=r"optioned: options has .*[\s\S]*\[LayerNorm, partial"):
        optioned(I, H, cell=GRUCell, options=options)


@pytest.mark.parametrize("options", [Zoneout, "Zoneout", None, iter([Zoneout])])
def test_options_that_are_no_list_are_refused(options):
    with pytest.raises(ConfigError, match=r"optioned: options is .+, expected a list"):
        optioned(I, H, cell=GRUCell, options=options)


def test_lengths_in_the_place_of_a_state_are_told_their_name():
    with pytest.raises(ShapeError, match=r"state is Tensor.*\n.*by name: lengths=lengths"):
        Recurrent(GRUCell(I, H))(torch.zeros(B, T, I), LENGTHS)


def test_resets_in_the_place_of_a_state_are_told_their_name():
    with pytest.raises(ShapeError, match=r"state is Tensor.*\n.*by name: resets=resets"):
        Recurrent(GRUCell(I, H))(torch.zeros(B, T, I), torch.zeros(B, T, dtype=torch.bool))


def test_a_sequence_without_a_batch_is_told_how_to_become_one():
    with pytest.raises(ShapeError, match=r"shape \(6, 4\), expected[\s\S]*0\) is one sequence, x"):
        Recurrent(GRUCell(I, H))(torch.zeros(T, I))


def test_a_batch_without_features_is_not_told_to_become_a_sequence():
    with pytest.raises(ShapeError, match=r"shape \(3, 6\), expected \(B, T, I\)") as error:
        Recurrent(GRUCell(I, H))(torch.zeros(B, T))

    assert "unsqueeze" not in str(error.value)


@pytest.mark.parametrize(("x", "legend"), [((B, T), "B, T, I"), ((B,), "B, I")])
def test_numbers_without_a_dimension_of_features_are_told_how_to_be_one(x, legend):
    cell = GRUCell(1, H)
    call = Recurrent(cell) if "T" in legend else cell

    with pytest.raises(ShapeError, match=rf"expected \({legend}\) with.*\n.*\n  x.unsqueeze\(-1\)"):
        call(torch.zeros(x))


WRAPPING = {
    "Reversed": Reversed,
    "Truncated": partial(Truncated, steps=4),
    "DeepOutput": partial(DeepOutput, sizes=[3]),
    "Hierarchical": lambda layer: Hierarchical(layer, layer, 2),
    "Fronted": partial(Fronted, ConvFront1d(I, I)),
    "Stream": Stream,
}


@pytest.mark.parametrize("name", WRAPPING)
def test_a_cell_instead_of_a_layer_is_refused(name):
    with pytest.raises(ConfigError, match=rf"{name}: \w+ is GRUCell[\s\S]*Recurrent\(cell\)"):
        WRAPPING[name](GRUCell(I, I))
    with pytest.raises(ConfigError, match=rf"{name}: \w+ is the class GRUCell"):
        WRAPPING[name](GRUCell)


@pytest.mark.parametrize("name", sorted(WRAPPING.keys() - {"Stream"}))
def test_a_torch_module_cannot_be_wrapped_as_a_layer(name):
    with pytest.raises(ConfigError, match=rf"{name}: \w+ is GRU, expected a recurrent layer"):
        WRAPPING[name](seqnets.GRU(I, I))


@pytest.mark.parametrize("made", [seqnets.GRUCell, nn.GRUCell])
def test_a_stack_of_something_else_than_cells_is_refused(made):
    with pytest.raises(ConfigError, match="DeepRNN: cell is GRUCell, expected a cell"):
        DeepRNN(made, I, H)


@pytest.mark.parametrize("given", [GRUCell(I, H), "GRUCell"])
@pytest.mark.parametrize(
    "make",
    [
        partial(DeepRNN, input_size=I, hidden_size=H),
        partial(optioned, input_size=I, hidden_size=H, options=[]),
        check_cell,
    ],
)
def test_what_fills_in_the_sizes_refuses_a_cell_that_has_some(make, given):
    arguments = {"factory" if make is check_cell else "cell": given}

    with pytest.raises(ConfigError, match="expected a class of cells"):
        make(**arguments)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            lambda: DeepRNN(lambda i, h: GRUCell(i, h), I, H),
            r"\(i, h\), .* input_size= and hidden_",
        ),
        (lambda: check_cell(partial(lambda i, h: GRUCell(i, h), h=H)), "with input_size=: "),
        (
            lambda: optioned(I, H, cell=GRUCell, options=[], bais=False),
            "and bais=: .*argument 'bais'",
        ),
    ],
)
def test_cells_that_take_their_sizes_by_other_names_are_refused_in_a_sentence(make, told):
    with pytest.raises(ConfigError, match=told):
        make()


def test_states_of_any_nesting_are_mapped():
    state = ((torch.ones(2, requires_grad=True),), (None, (torch.zeros(1),)))

    doubled = map_state(lambda t: t * 2, state)

    assert doubled[0][0].tolist() == [2, 2]
    assert doubled[1][0] is None
    assert not detach(doubled)[0][0].requires_grad


@pytest.mark.parametrize("state", [{"h": torch.ones(2)}, (torch.ones(2), "c"), (3,)])
def test_only_states_are_mapped(state):
    with pytest.raises(ShapeError, match=r"contains (dict|str|int), expected tensors"):
        detach(state)
