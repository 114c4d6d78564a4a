"""Conversion to and from ONNX, compared with the outputs of ONNX Runtime."""

import sys
from functools import partial

import numpy as np
import pytest
import torch

from seqnets import cells
from seqnets.conversion import AbsentError, difference, from_onnx, read, to_onnx, write
from seqnets.conversion.libraries import library
from seqnets.conversion.onnx_model import run
from seqnets.errors import ConfigError
from seqnets.layers import DeepRNN
from tests.conversion.conftest import drawn, inputs, network, outputs

pytestmark = pytest.mark.usefixtures("plain_loop")

REASON = "needs onnx and ONNX Runtime: pip install 'seqnets[convert]'"
onnx = pytest.importorskip("onnx", reason=REASON)
runtime = pytest.importorskip("onnxruntime", reason=REASON)

RELU = partial(cells.RNNCell, nonlinearity="relu")
KINDS = [
    cells.RNNCell,
    RELU,
    cells.GRUCell,
    cells.OriginalGRUCell,
    cells.LSTMCell,
    cells.PeepholeLSTMCell,
    cells.CoupledLSTMCell,
    cells.CIFGLSTMCell,
    cells.NIAFLSTMCell,
    cells.NOAFLSTMCell,
]
SHAPES = [(1, False), (1, True), (3, False), (2, True)]
LENGTHS = torch.tensor([6, 1, 4, 3], dtype=torch.int32)


def call(model, **inputs):
    """All outputs of a model, by name."""
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def time_first(x):
    return x.transpose(0, 1).contiguous().numpy()


def node_model(operator, tensors, **attributes):
    """A model of one node, as somebody else would write it."""
    helper = onnx.helper
    float_, names = onnx.TensorProto.FLOAT, ["W", "R", "B", "lengths", "h", "c", "P"]
    given = [name if name in tensors else "" for name in names[: 7 if operator == "LSTM" else 5]]
    attributes = {"hidden_size": tensors["R"].shape[2], **attributes}
    node = helper.make_node(operator, ["x", *given], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "theirs",
        [helper.make_tensor_value_info("x", float_, ["T", "B", tensors["W"].shape[2]])],
        [helper.make_tensor_value_info("y", float_, ["T", None, "B", tensors["R"].shape[2]])],
        [onnx.numpy_helper.from_array(t, name) for name, t in tensors.items()],
    )
    opset = helper.make_opsetid("", 14)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8)


def random_tensors(gates, directions=1, peepholes=False):
    random = np.random.default_rng(5)
    shapes = {"W": (5 * gates, 3), "R": (5 * gates, 5), "B": (10 * gates,)}
    shapes |= {"P": (15,)} if peepholes else {}
    return {
        name: random.normal(size=(directions, *shape), scale=0.6).astype("f4")
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("layers", "both"), SHAPES)
@pytest.mark.parametrize("cell", KINDS)
def test_a_network_becomes_a_model_with_lengths(cell, layers, both, bias):
    net = network(cell, layers, both, bias=bias)
    x = inputs()

    model = to_onnx(net)

    onnx.checker.check_model(model, full_check=True)
    found = call(model, x=time_first(x), lengths=LENGTHS.numpy())
    expected = outputs(net, x, LENGTHS)
    np.testing.assert_allclose(found["y"].swapaxes(0, 1), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cell", KINDS)
def test_a_model_takes_any_batch_and_number_of_steps(cell):
    net = network(cell, 2, True)
    model = to_onnx(net, lengths=False)

    for B, T in ((1, 1), (2, 9)):
        x = inputs(B, T)
        y = call(model, x=time_first(x))["y"]
        np.testing.assert_allclose(y.swapaxes(0, 1), outputs(net, x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cell", [cells.GRUCell, cells.LSTMCell, cells.PeepholeLSTMCell])
@pytest.mark.parametrize("both", [False, True])
@torch.no_grad()
def test_a_model_can_continue_from_a_state(cell, both):
    net = network(cell, 2, both)
    x = inputs()
    _, states = net(x)
    y, last = net(x, states)
    model = to_onnx(net, lengths=False, state=True)

    def named(prefix, states):
        tensors = {}
        for depth, layer in enumerate(states):
            directions = layer if both else (layer,)
            for name, *pair in zip("hc", *directions, strict=False):
                tensors[f"{prefix}{name}_{depth}"] = torch.stack(pair).numpy()
        return tensors

    found = call(model, x=time_first(x), **named("initial_", states))

    np.testing.assert_allclose(found["y"].swapaxes(0, 1), y, atol=1e-5)
    for name, state in named("", last).items():
        np.testing.assert_allclose(found[name], state, atol=1e-5)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize(
    ("operator", "attributes", "gates", "cell"),
    [
        ("RNN", {}, 1, cells.RNNCell),
        ("RNN", {"activations": ["Relu"]}, 1, cells.RNNCell),
        ("GRU", {}, 3, cells.OriginalGRUCell),
        ("GRU", {"linear_before_reset": 1}, 3, cells.GRUCell),
        ("LSTM", {}, 4, cells.LSTMCell),
        ("LSTM", {"peepholes": True}, 4, cells.PeepholeLSTMCell),
        ("LSTM", {"input_forget": 1}, 4, cells.CoupledLSTMCell),
        ("LSTM", {"input_forget": 1, "peepholes": True}, 4, cells.CIFGLSTMCell),
    ],
)
def test_an_operator_becomes_a_network(operator, attributes, gates, cell, directions):
    options = dict(attributes)
    tensors = random_tensors(gates, directions, options.pop("peepholes", False))
    if directions == 2:
        options["direction"] = "bidirectional"
        options["activations"] = options.get("activations", []) * 2
    options = {name: value for name, value in options.items() if value != []}
    model = node_model(operator, tensors, **options)
    x = inputs()

    net = from_onnx(model)

    first = net.layers[0].forward_layer.cell if directions == 2 else net.layers[0].cell
    assert type(first) is cell
    y = call(model, x=time_first(x))["y"]
    theirs = np.concatenate([y[:, direction] for direction in range(directions)], -1)
    np.testing.assert_allclose(theirs.swapaxes(0, 1), outputs(net, x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("cell", "order"),
    [(cells.LSTMCell, "iofg"), (cells.GRUCell, "zrn"), (cells.OriginalGRUCell, "zrn")],
)
def test_gates_are_in_onnx_order(cell, order):
    one = drawn(cell(3, 5))
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in to_onnx(one).graph.initializer}

    for place, gate in enumerate(order):
        blocks = slice(5 * place, 5 * place + 5)
        rows = slice(5 * one.gates.index(gate), 5 * one.gates.index(gate) + 5)
        np.testing.assert_array_equal(tensors["W_0"][0, blocks], one.weight_ih[rows].detach())
        np.testing.assert_array_equal(tensors["R_0"][0, blocks], one.weight_hh[rows].detach())


def test_peepholes_are_in_onnx_order():
    one = drawn(cells.PeepholeLSTMCell(3, 5))
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in to_onnx(one).graph.initializer}

    expected = torch.cat([one.p_i, one.p_o, one.p_f]).detach()
    np.testing.assert_array_equal(tensors["P_0"][0], expected)


@pytest.mark.parametrize(("attribute", "cell"), [("linear_before_reset", cells.GRUCell)])
def test_a_lost_attribute_is_detected(attribute, cell):
    net = network(cell)
    model = to_onnx(net)
    node = model.graph.node[0]
    (lost,) = (a for a in node.attribute if a.name == attribute)

    node.attribute.remove(lost)

    assert difference(net, partial(run, model)) > 1e-2


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (cells.LSTMCell, {"gate": "hardsigmoid", "candidate": "leaky_relu", "squash": "softsign"}),
        (cells.LSTMCell, {"candidate": "identity", "squash": "elu"}),
        (cells.GRUCell, {"gate": "hardsigmoid", "candidate": "softplus"}),
        (cells.RNNCell, {"candidate": "softsign"}),
    ],
)
@pytest.mark.parametrize("both", [False, True])
def test_activations_go_both_ways(make, names, both):
    net = DeepRNN(
        lambda **sizes: cells.Activations(make(**sizes), **names), 3, 5, bidirectional=both
    )
    drawn(net)

    model = to_onnx(net)
    back = from_onnx(model)

    assert difference(net, partial(run, model)) <= 1e-5
    torch.testing.assert_close(back(inputs())[0], net(inputs())[0], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("make", [cells.LSTMCell, cells.NIAFLSTMCell, cells.NOAFLSTMCell])
def test_a_cell_whose_weights_are_computed_keeps_its_activations(make):
    net = DeepRNN(lambda **sizes: cells.weight_drop(make(**sizes)), 3, 5)
    drawn(net.eval())

    assert difference(net, partial(run, to_onnx(net))) <= 1e-5


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        ({"clip": 1.0}, "clips at 1.0"),
        ({"direction": "reverse"}, "runs backwards only"),
        ({"activations": ["Sigmoid", "ScaledTanh"]}, "has the activation ScaledTanh"),
        ({"activations": ["HardSigmoid", "Tanh"]}, "has the activation HardSigmoid"),
    ],
)
def test_what_seqnets_cannot_represent_is_refused(attributes, told):
    with pytest.raises(ConfigError, match=told):
        from_onnx(node_model("GRU", random_tensors(3), **attributes))


@pytest.mark.parametrize(
    ("lengths", "steps", "accepted"),
    [([4, 4], 4, True), ([4, 4], 6, False), ([4, 4], "T", False), ([4, 2], 4, False)],
)
def test_constant_lengths_are_refused_unless_they_are_all_steps(lengths, steps, accepted):
    model = to_onnx(network(cells.GRUCell, 2))
    kind = "dim_param" if steps == "T" else "dim_value"
    setattr(model.graph.input[0].type.tensor_type.shape.dim[0], kind, steps)
    constant = onnx.numpy_helper.from_array(np.array(lengths, np.int32), "lengths")
    model.graph.initializer.append(constant)

    if accepted:
        assert from_onnx(model).layers[1].cell.hidden_size == 5
        return
    with pytest.raises(ConfigError, match=r"constant sequence_lens \[4, .\] for .* steps"):
        from_onnx(model)


@pytest.mark.parametrize("form", ["value_ints", "Cast", "Identity"])
def test_constant_lengths_are_found_however_they_are_written(form):
    helper, model = onnx.helper, to_onnx(network(cells.GRUCell))
    if form == "value_ints":
        nodes = [helper.make_node("Constant", [], ["lengths"], value_ints=[4, 2])]
    else:
        constant = onnx.numpy_helper.from_array(np.array([4, 2]))
        to = {"to": onnx.TensorProto.INT32} if form == "Cast" else {}
        nodes = [
            helper.make_node("Constant", [], ["made"], value=constant),
            helper.make_node(form, ["made"], ["lengths"], **to),
        ]
    given = [*nodes, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(given)

    with pytest.raises(ConfigError, match=r"constant sequence_lens \[4, 2\] for .* steps"):
        from_onnx(model)


def test_a_tensor_between_layers_may_be_an_output_of_the_model():
    model = to_onnx(network(cells.GRUCell, 2))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    constant = onnx.numpy_helper.from_array(np.array([4, 4], np.int32), "lengths")
    model.graph.initializer.append(constant)
    between = onnx.helper.make_tensor_value_info("y_0", onnx.TensorProto.FLOAT, [4, "B", 5])
    model.graph.output.append(between)

    assert len(from_onnx(model).layers) == 2


def test_layers_that_do_not_follow_each_other_are_refused():
    model = to_onnx(network(cells.GRUCell, 2))
    second = [node for node in model.graph.node if node.op_type == "GRU"][1]
    second.input[0] = "x"

    with pytest.raises(ConfigError, match="layers that follow each other"):
        from_onnx(model)


def test_a_model_without_recurrent_operators_or_constant_weights_is_refused():
    model = to_onnx(network(cells.GRUCell))
    (weight,) = (t for t in model.graph.initializer if t.name == "W_0")
    model.graph.initializer.remove(weight)
    with pytest.raises(ConfigError, match="computes its W"):
        from_onnx(model)
    del model.graph.node[0]
    with pytest.raises(ConfigError, match="no operator is one of GRU, LSTM, RNN"):
        from_onnx(model)


@pytest.mark.parametrize("cell", KINDS)
def test_a_file_survives_the_round_trip(cell, tmp_path):
    net = network(cell, 2, True)
    path = tmp_path / "net.onnx"

    assert write(net, path, "onnx") <= 1e-5
    back, found = read(path, "onnx")

    assert found <= 1e-5
    np.testing.assert_allclose(
        outputs(back, inputs()), outputs(net, inputs()), atol=1e-5, rtol=1e-5
    )
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.onnx"]


def test_an_unreadable_file_is_refused(tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"nothing")

    with pytest.raises(ConfigError, match="cannot be read as an ONNX model"):
        read(tmp_path / "net.onnx", "onnx")


def test_without_onnx_runtime_nothing_is_checked_and_the_result_says_so(tmp_path, monkeypatch):
    def absent(name):
        if name == "onnxruntime":
            raise AbsentError("not there")
        return library(name)

    monkeypatch.setattr("seqnets.conversion.onnx_model.library", absent)

    assert write(network(cells.GRUCell), tmp_path / "net.onnx", "onnx") is None
    assert (tmp_path / "net.onnx").exists()


def test_a_network_whose_outputs_differ_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr("seqnets.conversion.formats.difference", lambda *_: float("nan"))

    with pytest.raises(ConfigError, match=r"differ by up to nan[\s\S]* Nothing was written\."):
        write(network(cells.GRUCell), tmp_path / "net.onnx", "onnx")
    assert not list(tmp_path.iterdir())


def test_a_difference_on_reading_does_not_mention_writing(tmp_path, monkeypatch):
    write(network(cells.GRUCell), tmp_path / "net.onnx", "onnx")
    monkeypatch.setattr("seqnets.conversion.formats.difference", lambda *_: float("nan"))

    with pytest.raises(ConfigError, match="differ by up to nan") as caught:
        read(tmp_path / "net.onnx", "onnx")
    assert "written" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "extra"), [("onnxruntime", "onnx"), ("flax.linen", "flax"), ("keras", "convert")]
)
def test_a_missing_library_says_how_to_install_no_more_than_it_needs(name, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)

    with pytest.raises(AbsentError, match=rf"pip install 'seqnets\[{extra}\]'"):
        library(name)
