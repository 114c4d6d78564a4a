"""Conversion to and from Keras, compared with Keras' own outputs."""

import json
import zipfile
from functools import partial

import numpy as np
import pytest
import torch

from seqnets import cells
from seqnets.conversion import difference, from_keras, read, to_keras, write
from seqnets.conversion.keras import weights_of
from seqnets.conversion.keras_model import run
from seqnets.errors import ConfigError, ShapeError
from seqnets.layers import DeepRNN, Video
from tests.conversion.conftest import drawn, inputs, network, outputs
from tests.test_other_libraries import MASKS

pytestmark = pytest.mark.filterwarnings(  # Keras' own, of its tensors on torch
    "ignore:__array__ implementation:DeprecationWarning"
)

KINDS = [cells.RNNCell, cells.GRUCell, cells.OriginalGRUCell, cells.LSTMCell]
LENGTHS = np.array([6, 1, 4, 3])


@pytest.fixture(scope="module")
def keras(keras_home):
    return pytest.importorskip("keras", reason="needs Keras: pip install 'seqnets[convert]'")


def model_of(keras, *layers):
    """A Keras model with 3 input features and random weights."""
    model = keras.Sequential([keras.Input((None, 3)), *layers])
    random = np.random.default_rng(3)
    for layer in model.layers:
        layer.set_weights([random.normal(size=w.shape, scale=0.6) for w in layer.get_weights()])
    return model


def computed(keras, model, x):
    return keras.ops.convert_to_numpy(model(x.numpy()))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("layers", "both"), [(1, False), (1, True), (2, True)])
@pytest.mark.parametrize("cell", KINDS)
def test_a_network_becomes_a_model_of_keras(cell, layers, both, bias, keras):
    net = network(cell, layers, both, bias=bias)
    x = inputs()

    model = to_keras(net)

    np.testing.assert_allclose(computed(keras, model, x), outputs(net, x), atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize(
    ("name", "options", "cell"),
    [
        ("SimpleRNN", {}, cells.RNNCell),
        ("SimpleRNN", {"activation": "relu"}, cells.RNNCell),
        ("GRU", {"reset_after": True}, cells.GRUCell),
        ("GRU", {"reset_after": False}, cells.OriginalGRUCell),
        ("LSTM", {}, cells.LSTMCell),
    ],
)
def test_a_model_of_keras_becomes_a_network(name, options, cell, both, bias, keras):
    layer = getattr(keras.layers, name)(5, return_sequences=True, use_bias=bias, **options)
    model = model_of(keras, keras.layers.Bidirectional(layer) if both else layer)
    x = inputs()

    net = from_keras(model)

    first = net.layers[0].forward_layer.cell if both else net.layers[0].cell
    assert type(first) is cell
    np.testing.assert_allclose(computed(keras, model, x), outputs(net, x), atol=1e-5)


@pytest.mark.parametrize("cell", KINDS)
def test_both_sides_see_the_same_padding(cell, keras):
    net = network(cell, 2, True)
    x = inputs()
    valid = np.arange(6) < LENGTHS[:, None]

    theirs = run(to_keras(net), x.numpy(), LENGTHS)

    ours = outputs(net, x, torch.from_numpy(LENGTHS))
    np.testing.assert_allclose(theirs[valid], ours[valid], atol=1e-5)


def test_both_orders_of_the_reset_gate_are_distinguished(keras):
    after, before = drawn(cells.GRUCell(3, 5)), cells.OriginalGRUCell(3, 5)
    before.load_state_dict(after.state_dict())

    models = [to_keras(cell) for cell in (after, before)]

    assert [model.layers[0].reset_after for model in models] == [True, False]
    assert [model.layers[0].cell.bias.shape for model in models] == [(2, 15), (15,)]
    assert difference(after, partial(run, models[1])) > 1e-2


@pytest.mark.parametrize(
    ("cell", "order"),
    [(cells.LSTMCell, "ifgo"), (cells.GRUCell, "zrn"), (cells.OriginalGRUCell, "zrn")],
)
def test_gates_are_in_keras_order(cell, order):
    one = drawn(cell(3, 5))
    kernel, recurrent, _ = weights_of(one)

    for place, gate in enumerate(order):
        columns = slice(5 * place, 5 * place + 5)
        rows = slice(5 * one.gates.index(gate), 5 * one.gates.index(gate) + 5)
        np.testing.assert_array_equal(kernel[:, columns].T, one.weight_ih[rows].detach())
        np.testing.assert_array_equal(recurrent[:, columns].T, one.weight_hh[rows].detach())


def test_a_swapped_gate_is_detected(keras):
    model = to_keras(network(cells.LSTMCell))
    kernel, recurrent, bias = model.layers[0].get_weights()
    swapped = np.concatenate([kernel[:, 5:10], kernel[:, :5], kernel[:, 10:]], 1)
    net = from_keras(model)

    model.layers[0].set_weights([swapped, recurrent, bias])

    assert difference(net, partial(run, model)) > 1e-2


def test_activations_go_both_ways(keras):
    cell = cells.Activations(
        cells.LSTMCell(3, 5), gate="hardsigmoid", candidate="softsign", squash="softsign"
    )
    net = DeepRNN(lambda **sizes: drawn(cell), 3, 5).eval()

    model = to_keras(net)
    back = from_keras(model)

    assert (model.layers[0].activation, model.layers[0].recurrent_activation) == (
        keras.activations.softsign,
        keras.activations.hard_sigmoid,
    )
    assert back.layers[0].cell.names == cell.names
    np.testing.assert_allclose(computed(keras, model, inputs()), outputs(net, inputs()), atol=1e-5)


def test_a_cell_whose_weights_are_computed_becomes_a_layer(keras):
    net = DeepRNN(lambda **sizes: cells.weight_drop(cells.LSTMCell(**sizes)), 3, 5)
    drawn(net.eval())

    assert difference(net, partial(run, to_keras(net))) <= 1e-5


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        (cells.PeepholeLSTMCell(3, 5), "PeepholeLSTMCell has no counterpart"),
        (cells.CoupledLSTMCell(3, 5), "CoupledLSTMCell has no counterpart"),
        (cells.LSTMCell(3, 5, proj_size=2), "proj_size is 2"),
        (cells.LayerNorm(cells.LSTMCell(3, 5)), "LayerNorm has no counterpart"),
        (cells.Activations(cells.LSTMCell(3, 5), squash="relu"), "one for candidate and squash"),
        (cells.Activations(cells.GRUCell(3, 5), gate="leaky_relu"), "has the activations"),
    ],
)
def test_what_keras_cannot_represent_is_refused(cell, told, keras):
    with pytest.raises(ConfigError, match=told):
        to_keras(cell)


def test_what_seqnets_cannot_represent_is_refused(keras):
    L = keras.layers
    for layers, told in (
        ([L.LSTM(5, go_backwards=True)], "go_backwards=True"),
        ([L.GRU(5, activation="leaky_relu")], "'leaky_relu', expected one of"),
        ([L.Bidirectional(L.GRU(5), merge_mode="mul")], "merge_mode is 'mul', expected one of"),
        (
            [
                L.Bidirectional(L.GRU(5, return_sequences=True)),
                L.Bidirectional(L.GRU(5), merge_mode="ave"),
            ],
            "the merge_mode 'ave' and 'concat', expected the same",
        ),
        ([L.Dense(5)], "the layers are Dense"),
        ([L.GRU(5, return_sequences=True), L.Dense(4), L.GRU(5)], "follow each other"),
        ([L.RNN(L.LSTMCell(5))], "the layers are RNN"),
    ):
        with pytest.raises(ConfigError, match=told):
            from_keras(keras.Sequential([keras.Input((None, 3)), *layers]))


@pytest.mark.parametrize("merge", ["sum", "mean"])
def test_directions_that_are_added_go_both_ways(merge, keras):
    net = drawn(DeepRNN(cells.GRUCell, 3, 5, 2, bidirectional=True, merge=merge)).eval()

    model = to_keras(net)
    back = from_keras(model)

    assert difference(net, partial(run, model)) <= 1e-5
    torch.testing.assert_close(back(inputs())[0], net(inputs())[0])


def test_layers_of_a_model_that_do_not_follow_each_other_are_refused(keras):
    L = keras.layers
    x = keras.Input((None, 3))
    encoded, h, c = L.LSTM(3, return_sequences=True, return_state=True)(x)
    beside = L.Concatenate()([encoded, L.LSTM(3, return_sequences=True)(x)])
    decoded = L.LSTM(3)(x, initial_state=[h, c])

    class Swapped(keras.Model):
        def __init__(self):
            super().__init__()
            self.second, self.first = L.LSTM(3), L.LSTM(3, return_sequences=True)

        def call(self, x):
            return self.second(self.first(x))

    by_code = Swapped()
    by_code(np.zeros((1, 2, 3), "f4"))
    again = L.LSTM(3, return_sequences=True)
    for model, told in (
        (keras.Model(x, beside), "LSTM takes something else"),
        (keras.Model(x, decoded), "LSTM takes something else"),
        (keras.Model(x, L.LSTM(3)(again(again(x)))), "LSTM is called 2 times"),
        (by_code, "the model calls them by code"),
    ):
        with pytest.raises(ConfigError, match=rf"LSTM, LSTM.*follow each other.*{told}"):
            from_keras(model)


def test_a_layer_that_starts_from_the_state_of_another_is_refused(keras):
    L = keras.layers
    x, z = keras.Input((None, 3)), keras.Input((4,))
    encoded, h, c = L.LSTM(4, return_sequences=True, return_state=True)(x)
    h0 = L.Dense(4)(z)
    for y, told in (
        (L.LSTM(4)(encoded, initial_state=[h, c]), "state of LSTM comes from LSTM"),
        (L.GRU(4)(x, h0), "state of GRU comes from Dense"),
        (L.Bidirectional(L.GRU(4))(x, initial_state=[h0, z]), "Bidirectional comes from Dense"),
    ):
        with pytest.raises(ConfigError, match=told):
            from_keras(keras.Model([x, z], y))


def test_masks_and_states_that_are_inputs_of_a_model_are_no_obstacle(keras):
    L = keras.layers
    x, h = keras.Input((None,)), keras.Input((4,))
    y = L.GRU(4, return_sequences=True)(L.Embedding(5, 3, mask_zero=True)(x), initial_state=h)
    model = keras.Model([x, h], L.Bidirectional(L.GRU(2))(y))

    net = from_keras(model)

    assert [layer.output_size for layer in net.layers] == [4, 4]


def test_recurrence_inside_other_layers_is_not_left_out(keras):
    L = keras.layers
    inside = keras.Sequential([keras.Input((None, 3)), L.LSTM(4)])
    for layer, shape in (
        (L.TimeDistributed(L.LSTM(4)), (None, None, 3)),
        (L.TimeDistributed(inside), (None, None, 3)),
        (L.RNN(L.GRUCell(4), return_sequences=True), (None, 3)),
    ):
        model = keras.Sequential([keras.Input(shape), layer, L.GRU(4)])
        with pytest.raises(ConfigError, match=rf"{type(layer).__name__} has recurrence inside"):
            from_keras(model)


def test_a_layer_without_weights_is_refused(keras):
    with pytest.raises(ConfigError, match=r"LSTM has no weights yet[\s\S]*Call it"):
        from_keras(keras.layers.LSTM(5))
    with pytest.raises(ConfigError, match=r"LSTM has no weights yet[\s\S]*Call it"):
        from_keras(
            keras.Sequential([keras.layers.LSTM(5, return_sequences=True), keras.layers.LSTM(5)])
        )


def test_a_model_inside_a_model_is_converted(keras):
    L = keras.layers
    x = keras.Input((None, 3))
    inside = keras.Sequential([keras.Input((None, 3)), L.GRU(4, return_sequences=True), L.GRU(5)])
    model = keras.Model(x, L.Dense(2)(inside(L.LayerNormalization()(x))))

    assert difference(from_keras(model), partial(run, inside)) <= 1e-5


def test_the_file_of_a_trained_functional_model_is_read(keras, tmp_path):
    L = keras.layers
    x = keras.Input((None, 3))
    y = L.SpatialDropout1D(0.2)(L.LSTM(4, return_sequences=True)(L.BatchNormalization()(x)))
    y = L.GlobalMaxPooling1D()(L.GRU(5, kernel_regularizer="l2", return_sequences=True)(y))
    model = keras.Model(x, L.Dense(1)(y))
    model.compile(optimizer="adam", loss="mse")
    model.save(tmp_path / "net.keras")

    net, found = read(tmp_path / "net.keras", "keras")

    assert found <= 1e-5
    assert [layer.output_size for layer in net.layers] == [4, 5]


def test_the_file_of_a_model_compiled_inside_another_is_refused(keras, tmp_path):
    inside = keras.Sequential([keras.Input((None, 3)), keras.layers.GRU(4)])
    inside.compile(optimizer="adam", loss="mse")
    keras.Sequential([keras.Input((None, 3)), inside]).save(tmp_path / "net.keras")

    with pytest.raises(ConfigError, match=r"a compiled Sequential inside[\s\S]*uncompiled"):
        read(tmp_path / "net.keras", "keras")


@pytest.mark.parametrize("cell", KINDS)
def test_a_file_survives_the_round_trip(cell, keras, tmp_path):
    net = network(cell, 2, True)
    path = tmp_path / "net.keras"

    assert write(net, path, "keras") <= 1e-5
    back, found = read(path, "keras")

    assert found <= 1e-5
    np.testing.assert_allclose(outputs(back, inputs()), outputs(net, inputs()), atol=1e-5)


def test_the_recurrent_part_of_a_trained_model_is_read(keras, tmp_path):
    L = keras.layers
    layers = [L.Masking(), L.GRU(4, return_sequences=True), L.Dropout(0.5)]
    layers += [L.Bidirectional(L.LSTM(5, dropout=0.2)), L.Dense(2)]
    model = keras.Sequential([keras.Input((None, 3)), *layers])
    model.save(tmp_path / "net.keras")

    net, found = read(tmp_path / "net.keras", "keras")

    assert found <= 1e-5
    assert [layer.output_size for layer in net.layers] == [4, 10]


def test_a_file_that_names_other_classes_is_not_loaded(keras, tmp_path):
    path = tmp_path / "net.keras"
    write(network(cells.GRUCell), path, "keras")
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    config["config"]["layers"][1] |= {"class_name": "Lambda"}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**parts, "config.json": json.dumps(config)}.items():
            archive.writestr(name, content)

    with pytest.raises(ConfigError, match=r"holds keras\.layers\.Lambda"):
        read(path, "keras")


def test_a_file_with_a_registered_class_is_not_loaded(keras, tmp_path):
    @keras.saving.register_keras_serializable("mine")
    class Dense(keras.layers.Dense):
        pass

    model = keras.Sequential([keras.Input((None, 3)), keras.layers.GRU(4), Dense(2)])
    model.save(tmp_path / "net.keras")

    with pytest.raises(ConfigError, match=r"holds .*Dense, expected only"):
        read(tmp_path / "net.keras", "keras")


def test_an_unreadable_file_is_refused(keras, tmp_path):
    (tmp_path / "net.keras").write_bytes(b"nothing")

    with pytest.raises(ConfigError, match=r"cannot be read as a \.keras file"):
        read(tmp_path / "net.keras", "keras")
    with pytest.raises(ConfigError, match=r"cannot be read as a \.keras file"):
        read(tmp_path / "nowhere.keras", "keras")


def test_weights_of_the_wrong_shape_are_refused():
    from seqnets.conversion.keras import cell_of

    with pytest.raises(ShapeError, match="weight_ih of LSTMCell"):
        cell_of(cells.LSTMCell, [np.zeros((3, 15)), np.zeros((5, 20))])


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
def test_masks_that_are_true_anywhere_are_as_the_page_on_other_libraries_has_them(kind, keras):
    options = {"return_sequences": True, "return_state": True}
    layer = getattr(keras.layers, kind)
    model = model_of(keras, keras.layers.Bidirectional(layer(6, return_sequences=True)))
    same = keras.layers.Bidirectional(layer(6, **options))
    same.build((4, 6, 3))
    same.set_weights(model.layers[0].get_weights())
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1], [1, 0, 1, 0, 0, 1], [0, 1] * 3])
    page = {"torch": torch, "layer": from_keras(model), "x": inputs(), "mask": mask.bool()}

    exec("order" + MASKS.partition("\n\norder")[2], page)

    (y, *state) = map(keras.ops.convert_to_numpy, same(page["x"].numpy(), mask=mask.numpy() == 1))
    both = [part for direction in page["state"][0] for part in direction]
    np.testing.assert_allclose(page["y"].detach(), y, atol=1e-5)
    for part, expected in zip(both, state, strict=True):
        np.testing.assert_allclose(part.detach(), expected, atol=1e-5)


@pytest.mark.parametrize(("kind", "frame"), [("1D", (5,)), ("2D", (4, 5)), ("3D", (4, 5, 3))])
def test_convolutional_lstms_are_those_of_keras(kind, frame, keras):
    layer = getattr(keras.layers, f"ConvLSTM{kind}")(3, 3, padding="same", return_sequences=True)
    x = torch.randn(2, 4, *frame, 2)
    layer.build(tuple(x.shape))
    layer.set_weights(
        [np.random.default_rng(3).normal(size=w.shape, scale=0.3) for w in layer.get_weights()]
    )
    cell = cells.ConvLSTMCell.over(2, 3, frame)
    kernel, recurrent, bias = map(torch.as_tensor, layer.get_weights())
    with torch.no_grad():
        cell.weight_ih.copy_(kernel.movedim((-1, -2), (0, 1)))
        cell.weight_hh.copy_(recurrent.movedim((-1, -2), (0, 1)))
        cell.bias_ih.copy_(bias)
        y, _ = Video(cell)(x.movedim(-1, 2))

    expected = keras.ops.convert_to_numpy(layer(x.numpy()))
    np.testing.assert_allclose(y.movedim(2, -1), expected, atol=1e-5)
