from functools import partial

import pytest
import torch
from torch import nn

import seqnets
from seqnets.cells import AllStates, Clockwork, GRUCell, LSTMCell, QRNNCell, Zoneout
from seqnets.errors import ConfigError
from seqnets.layers import Bidirectional, DeepRNN, Recurrent, Truncated, gradient_flow

B, T = 3, 7


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.randn(B, T, 4)


def test_the_norms_are_those_of_a_loop_written_out(x):
    cell = LSTMCell(4, 5)
    layer = Recurrent(cell)
    states = [cell.initial_state(B)]
    for wx in cell.project(x).unbind(1):
        states.append(cell.step(wx, states[-1]))
    gradients = torch.autograd.grad(
        states[-1][0].square().sum(), [part for state in states[1:] for part in state]
    )
    pairs = zip(gradients[::2], gradients[1::2], strict=True)
    expected = torch.stack([torch.cat(pair, 1).norm(dim=1) for pair in pairs], 1)

    found = gradient_flow(layer, lambda: layer(x)[0][:, -1].square().sum())

    torch.testing.assert_close(found[""], expected.flip(1))


def test_a_cell_that_outputs_all_its_states_is_looked_at_as_the_cell_itself(x):
    cell = LSTMCell(4, 5)
    layer, every = Recurrent(cell), Recurrent(AllStates(cell))

    expected = gradient_flow(layer, lambda: layer(x)[0][:, -1].sum())
    found = gradient_flow(every, lambda: every(x)[0][:, -1, :5].sum())

    torch.testing.assert_close(found, expected)


def test_an_output_that_no_step_reads_does_not_count(x):
    layer = Recurrent(QRNNCell(4, 5))  # h = o * c
    _, (h, c, *_) = layer(x)

    (found,) = gradient_flow(layer, lambda: layer(x)[0][:, -1].sum()).values()

    torch.testing.assert_close(found[:, 0], (h / c).norm(dim=1))


@pytest.mark.parametrize(
    ("option", "kept"), [(partial(Clockwork, periods=(8,)), 1), (partial(Zoneout, p=0.5), 0.5)]
)
def test_an_output_that_an_option_keeps_counts(x, option, kept):
    layer = Recurrent(option(QRNNCell(4, 5))).eval()

    (found,) = gradient_flow(layer, lambda: layer(x)[0][:, -1].sum()).values()

    assert (found[:, 1] >= kept * 5**0.5 - 1e-6).all()  # what the last step does not change


def test_each_row_counts_from_its_own_last_step(x):
    layer, lengths = Recurrent(GRUCell(4, 5)), torch.tensor([7, 3, 0])
    last = (lengths - 1).clamp(min=0)

    (found,) = gradient_flow(
        layer, lambda: layer(x, None, lengths)[0][torch.arange(B), last].sum()
    ).values()
    (alone,) = gradient_flow(layer, lambda: layer(x[1:2, :3])[0][:, -1].sum()).values()

    assert found.isfinite().sum(1).tolist() == [7, 3, 0]
    torch.testing.assert_close(found[1, :3], alone[0])


def test_a_backward_layer_ends_with_the_first_step(x):
    both = Bidirectional(GRUCell(4, 5))

    found = gradient_flow(both, lambda: both(x)[0][:, 0, 5:].sum())

    assert (found["backward_layer"] > 0).all()
    assert not found["forward_layer"].any()


def test_nothing_flows_past_the_window_of_truncated_backpropagation(x):
    net = Truncated(DeepRNN(GRUCell, 4, 5, num_layers=2), 3)

    found = gradient_flow(net, lambda: net(x)[0][:, -1].sum())

    assert list(found) == ["layer.layers.0", "layer.layers.1"]
    for norms in found.values():
        assert (norms[:, :1] > 0).all()  # steps 0..2, 3..5 and 6 are windows
        assert not norms[:, 1:].any()


def test_a_module_like_torchs_has_the_norms_of_a_layer_with_its_cell(x):
    module = seqnets.GRU(x.shape[-1], 4, batch_first=True, dtype=x.dtype)
    layer = Recurrent(module.bound_cells()[0])

    (found,) = gradient_flow(module, lambda: module(x)[0][:, -1].sum()).items()

    assert found[0] == "l0"
    (expected,) = gradient_flow(layer, lambda: layer(x)[0][:, -1].sum()).values()
    torch.testing.assert_close(found[1], expected)


def test_calls_of_a_layer_follow_each_other(x):
    layer = Recurrent(GRUCell(4, 5))

    def in_two_calls():
        _, state = layer(x[:, :3])
        return layer(x[:, 3:], state)[0][:, -1].sum()

    torch.testing.assert_close(
        gradient_flow(layer, in_two_calls),
        gradient_flow(layer, lambda: layer(x)[0][:, -1].sum()),
    )


def test_calls_over_batches_of_different_sizes_are_refused(x):
    layer = Recurrent(GRUCell(4, 5))

    with pytest.raises(ConfigError, match=r"layer '' ran over batches of \[3, 2\] rows"):
        gradient_flow(layer, lambda: layer(x)[0].sum() + layer(x[1:])[0].sum())


def test_a_frozen_layer_has_the_norms_that_it_has_in_training(x):
    net = DeepRNN(LSTMCell, 4, 5, num_layers=2)
    expected = gradient_flow(net, lambda: net(x)[0][:, -1].sum())

    net.requires_grad_(False)

    torch.testing.assert_close(gradient_flow(net, lambda: net(x)[0][:, -1].sum()), expected)


def test_nothing_of_the_model_changes(x):
    net = DeepRNN(GRUCell, 4, 5, num_layers=2)
    before = net(x)[0]

    gradient_flow(net, lambda: net(x)[0].sum())

    assert all(parameter.grad is None for parameter in net.parameters())
    assert torch.equal(net(x)[0], before)
    assert all("forward" not in vars(module) for module in net.modules())


@pytest.mark.parametrize(
    ("loss", "got"),
    [
        (lambda y: y[:, -1], r"of shape \(3, 5\)"),
        (lambda y: y.sum().detach(), "a tensor without a gradient"),
        (lambda y: y.sum().item(), "a float"),
    ],
)
def test_a_loss_that_is_no_scalar_with_a_gradient_is_refused(x, loss, got):
    layer = Recurrent(GRUCell(4, 5))

    with pytest.raises(ConfigError, match=f"the loss is {got}, expected a scalar tensor"):
        gradient_flow(layer, lambda: loss(layer(x)[0]))


def test_a_loss_that_was_computed_before_is_refused(x):
    layer = Recurrent(GRUCell(4, 5))

    with pytest.raises(ConfigError, match="gradient_flow: loss is Tensor, expected a function"):
        gradient_flow(layer, layer(x)[0].sum())


def test_a_model_without_recurrent_layers_is_refused(x):
    model = nn.Linear(4, 5)

    with pytest.raises(ConfigError, match="ran no recurrent layer of Linear"):
        gradient_flow(model, lambda: model(x).sum())


def test_a_loop_of_single_steps_is_told_that_they_do_not_count(x):
    layer = Recurrent(GRUCell(4, 5))

    with pytest.raises(ConfigError, match=r"over a sequence.*\n.*Single steps"):
        gradient_flow(layer, lambda: layer.step(x[:, 0])[0].sum())
