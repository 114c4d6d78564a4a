"""Conversion to and from Flax, compared with Flax's own outputs."""

from functools import partial

import numpy as np
import pytest
import torch

from seqnets import cells
from seqnets.conversion import difference, from_flax, read, to_flax, write
from seqnets.conversion.flax import Network, params_of, run
from seqnets.errors import ConfigError
from tests.conversion.conftest import drawn, inputs, network, outputs
from tests.slow import mostly_slow

REASON = "needs Flax: pip install 'seqnets[convert]'"
RELU = partial(cells.RNNCell, nonlinearity="relu")
LENGTHS = np.array([6, 1, 4, 3])


@pytest.fixture(scope="module")
def linen():
    return pytest.importorskip("flax.linen", reason=REASON)


def stacked(linen, make, layers, both):
    """A stack of Flax's own layers."""

    def layer():
        one = [linen.RNN(make(features=5)) for _ in range(1 + both)]
        return linen.Bidirectional(*one) if both else one[0]

    return linen.Sequential([layer() for _ in range(layers)])


def twin(linen, name):
    jax = pytest.importorskip("jax", reason=REASON)
    if name == "relu":
        return partial(linen.SimpleCell, activation_fn=jax.nn.relu)
    return getattr(linen, name)


KINDS = [
    (cells.RNNCell, "SimpleCell"),
    (RELU, "relu"),
    (cells.GRUCell, "GRUCell"),
    (cells.LSTMCell, "LSTMCell"),
    (cells.LSTMCell, "OptimizedLSTMCell"),
]


@pytest.mark.parametrize(("layers", "both"), [(1, False), (2, True)])
@pytest.mark.parametrize(("cell", "name"), KINDS)
def test_a_network_becomes_a_tree_for_flax_own_modules(cell, name, layers, both, linen):
    net = network(cell, layers, both)
    x = inputs()
    module = stacked(linen, twin(linen, name), layers, both)

    y = module.apply({"params": to_flax(net)}, x.numpy())

    np.testing.assert_allclose(y, outputs(net, x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("layers", "both"), mostly_slow([(2, False), (1, True), (2, True)], quick=[(2, True)])
)
@pytest.mark.parametrize(("cell", "name"), KINDS)
def test_a_tree_of_flax_becomes_a_network(cell, name, layers, both, linen):
    jax = pytest.importorskip("jax", reason=REASON)
    x = inputs()
    module = stacked(linen, twin(linen, name), layers, both)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x.numpy())
    random = np.random.default_rng(4)
    tree = jax.tree.map(lambda a: random.normal(size=a.shape, scale=0.6).astype("f4"), shapes)

    net = from_flax(tree, cell)

    y = module.apply(tree, x.numpy())
    np.testing.assert_allclose(y, outputs(net, x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        (cells.RNNCell, "SimpleCell"),
        (cells.GRUCell, "GRUCell"),
        (cells.LSTMCell, "LSTMCell"),
        (cells.LSTMCell, "OptimizedLSTMCell"),
    ],
)
def test_a_state_of_nnx_becomes_a_network(cell, name):
    jax = pytest.importorskip("jax", reason=REASON)
    nnx = pytest.importorskip("flax.nnx", reason=REASON)
    kind, rngs, x = getattr(nnx, name), nnx.Rngs(0), inputs()
    both = nnx.Bidirectional(*[nnx.RNN(kind(3, 5, rngs=rngs)) for _ in range(2)])
    module = nnx.Sequential(both, nnx.RNN(kind(10, 5, rngs=rngs)))
    random = np.random.default_rng(4)
    state = jax.tree.map(
        lambda a: random.normal(size=a.shape, scale=0.6).astype("f4"),
        nnx.state(module, nnx.Param),
    )
    nnx.update(module, state)

    net = from_flax(nnx.to_pure_dict(state), cell)

    np.testing.assert_allclose(module(x.numpy()), outputs(net, x), atol=1e-5, rtol=1e-5)


def test_a_file_of_nnx_is_read_and_compared(tmp_path):
    nnx = pytest.importorskip("flax.nnx", reason=REASON)
    serialization = pytest.importorskip("flax.serialization", reason=REASON)
    path, rnn = tmp_path / "rnn.msgpack", nnx.RNN(nnx.GRUCell(3, 5, rngs=nnx.Rngs(0)))
    tree = nnx.to_pure_dict(nnx.state(rnn, nnx.Param))
    path.write_bytes(serialization.msgpack_serialize(tree))

    net, found = read(path, "flax", cells.GRUCell)

    x = inputs()
    np.testing.assert_allclose(rnn(x.numpy()), outputs(net, x), atol=1e-5, rtol=1e-5)
    assert found < 1e-5


def test_a_cells_own_tree_is_read_too():
    cell = drawn(cells.LSTMCell(3, 5))

    (layer,) = from_flax(params_of(cell), cells.LSTMCell).layers

    assert torch.equal(layer.cell.weight_ih, cell.weight_ih)
    assert torch.equal(layer.cell.weight_hh, cell.weight_hh)
    torch.testing.assert_close(layer.cell.bias_ih + layer.cell.bias_hh, cell.bias_ih + cell.bias_hh)


def test_a_cell_without_biases_gets_zeros():
    params = params_of(drawn(cells.GRUCell(3, 5, bias=False)))

    assert not any(part["bias"].any() for part in params.values() if "bias" in part)


def test_the_bias_inside_the_reset_stays_separate():
    cell = drawn(cells.GRUCell(3, 5))

    params = params_of(cell)

    np.testing.assert_array_equal(params["hn"]["bias"], cell.bias_hh[10:].detach())
    np.testing.assert_array_equal(params["in"]["bias"], cell.bias_ih[10:].detach())


@pytest.mark.parametrize("cell", [cells.RNNCell, cells.GRUCell, cells.LSTMCell])
def test_both_sides_see_the_same_padding(cell, linen):
    net = network(cell, 2, True)
    x = inputs()
    valid = np.arange(6) < LENGTHS[:, None]

    theirs = run(Network(to_flax(net), net), x.numpy(), LENGTHS)

    ours = outputs(net, x, torch.from_numpy(LENGTHS))
    np.testing.assert_allclose(theirs[valid], ours[valid], atol=1e-5)


def test_a_swapped_gate_is_detected(linen):
    net = network(cells.LSTMCell)
    tree = to_flax(net)
    cell = tree["layers_0"]["cell"]

    cell["ii"], cell["if"] = cell["if"], cell["ii"]

    assert difference(net, partial(run, Network(tree, net))) > 1e-2


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        (cells.OriginalGRUCell(3, 5), "OriginalGRUCell has no counterpart"),
        (cells.PeepholeLSTMCell(3, 5), "PeepholeLSTMCell has no counterpart"),
        (cells.LSTMCell(3, 5, proj_size=2), "proj_size is 2"),
        (cells.Activations(cells.GRUCell(3, 5), gate="hardsigmoid"), "other activations"),
    ],
)
def test_what_flax_cannot_represent_is_refused(cell, told):
    with pytest.raises(ConfigError, match=told):
        to_flax(cell)


def test_a_tree_of_another_cell_is_refused():
    with pytest.raises(ConfigError, match="for LSTMCell"):
        from_flax(to_flax(cells.GRUCell(3, 5)), cells.LSTMCell)


def leaves(*columns):
    return [{"kernel": np.zeros((5, each), "f4")} for each in columns]


@pytest.mark.parametrize(
    "tree",
    [
        {"layers": {0: {"cell": dict(zip(("dense_i", "dense_h"), leaves(20, 20), strict=True))}}}
        | {"head": leaves(2)[0]},
        {"layers": {"first": leaves(20)[0]}},
        dict(zip(("dense_i", "dense_h"), leaves(21, 20), strict=True)),
        {"dense_i": {"bias": np.zeros(20)}, "dense_h": {"bias": np.zeros(20)}},
    ],
    ids=["a head, too", "named layers", "other columns", "no matrices"],
)
def test_what_only_resembles_a_state_of_nnx_is_refused(tree):
    with pytest.raises(ConfigError, match=r"Flax: the parameters are .* for LSTMCell"):
        from_flax(tree, cells.LSTMCell)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (np.ones(3), "params is ndarray"),
        (None, "params is NoneType"),
        ({"params": np.ones(3)}, "params is ndarray"),
        ({"layers_0": np.ones(3)}, "layers_0 is ndarray"),
        ({"layers_0": {}, "head": {}}, "layers_1 is NoneType"),
        ({"forward_rnn": np.ones(3), "backward_rnn": {}}, "forward_rnn is ndarray"),
        ({"cell": np.ones(3)}, "a cell is ndarray"),
    ],
)
def test_what_is_no_tree_is_refused(given, told):
    with pytest.raises(ConfigError, match=f"Flax: {told}, expected a tree of parameters"):
        from_flax(given, cells.GRUCell)


@pytest.mark.parametrize(
    "cell",
    mostly_slow([cells.RNNCell, RELU, cells.GRUCell, cells.LSTMCell], quick=[RELU, cells.GRUCell]),
)
def test_a_file_survives_the_round_trip(cell, linen, tmp_path):
    net = network(cell, 2, True)
    path = tmp_path / "net.msgpack"

    assert write(net, path, "flax") <= 1e-5
    back, found = read(path, "flax", cell)

    assert found <= 1e-5
    np.testing.assert_allclose(
        outputs(back, inputs()), outputs(net, inputs()), atol=1e-5, rtol=1e-5
    )


def test_an_unreadable_file_is_refused(linen, tmp_path):
    path = tmp_path / "net.msgpack"
    with pytest.raises(ConfigError, match="cannot be read as Flax' msgpack"):
        read(path, "flax", cells.GRUCell)
    path.write_bytes(b"\x93")
    with pytest.raises(ConfigError, match="cannot be read as Flax' msgpack"):
        read(path, "flax", cells.GRUCell)
    path.write_bytes(b"\x01")
    with pytest.raises(ConfigError, match="expected a tree"):
        read(path, "flax", cells.GRUCell)
    write(network(cells.GRUCell), path, "flax")
    with pytest.raises(ConfigError, match="does not say of which cell"):
        read(path, "flax")
