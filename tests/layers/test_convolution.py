"""Convolutions before a recurrent layer."""

import pytest
import torch
from torch import nn

from seqnets import (
    Bidirectional,
    ConvFront1d,
    ConvFront2d,
    DeepRNN,
    Fronted,
    Recurrent,
    Reversed,
)
from seqnets.cells import GRUCell, LSTMCell
from seqnets.errors import ConfigError, DtypeError, ShapeError
from seqnets.testing import check_layer

B, T, I = 4, 9, 3
LENGTHS = torch.tensor([9, 0, 4, 7])
WHOLE = ("resets", "chunks", "steps")  # a front sees several steps at once
SHORTER = (*WHOLE, "causality", "lengths")  # laws that count steps of the output; see below


@pytest.fixture
def x():
    return torch.randn(B, T, I, dtype=torch.float64)


class Given(nn.Module):
    """Leaves out the resets that the laws hand to every layer: they are skipped, or refused."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.input_size = layer, layer.input_size

    def forward(self, x, state=None, lengths=None, resets=None):
        return self.layer(x, state, lengths)


def fronted(*args, **options):
    front = ConvFront1d(I, *args, activation=nn.Tanh, **options)
    return Fronted(front, DeepRNN(GRUCell, front.output_size, 2, 2))


LAYERS = {
    "causal": (lambda: Given(fronted([4, 2], 3)), WHOLE),
    "centred": (lambda: Given(fronted([4, 2], [3, 4], causal=False)), (*WHOLE, "causality")),
    "causal with strides": (lambda: Given(fronted([4, 2], 3, [2, 1])), SHORTER),
    "centred with strides": (lambda: Given(fronted([4, 2], 5, [1, 3], causal=False)), SHORTER),
    "of single steps": (lambda: fronted([4, 2], 1), ()),
}


@pytest.mark.parametrize("name", LAYERS)
def test_it_obeys_the_laws_of_recurrence(name):
    make, skip = LAYERS[name]

    check_layer(make(), skip=skip)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_an_output_is_the_sum_over_the_steps_that_it_sees(causal, kernel, stride, x):
    front = ConvFront1d(I, 2, kernel, stride, causal=causal, activation=nn.Identity).double()
    (convolution,) = front.convolutions
    before = kernel - 1 if causal else (kernel - 1) // 2

    y, lengths = front(x, LENGTHS)

    assert y.shape == (B, -(-T // stride), 2)
    assert lengths.tolist() == [-(-n // stride) for n in LENGTHS.tolist()]
    for b, n in enumerate(LENGTHS.tolist()):
        for t in range(y.shape[1]):
            expected = torch.zeros(2, dtype=torch.float64)
            if t * stride < n:
                expected = convolution.bias.clone()
                for k in range(kernel):
                    seen = t * stride - before + k
                    if 0 <= seen < n:
                        expected = expected + convolution.weight[:, :, k] @ x[b, seen]
            torch.testing.assert_close(y[b, t], expected)


@pytest.mark.parametrize("causal", [True, False])
def test_a_row_with_padding_is_the_row_alone(causal, x):
    net = fronted([4, 5, 2], [4, 3, 2], [2, 2, 1], causal=causal).double()
    padded = x.masked_fill((torch.arange(T) >= LENGTHS[:, None])[..., None], torch.nan)

    y, state = net(padded, None, LENGTHS)

    after = net.lengths_after(LENGTHS).tolist()
    assert after == [3, 0, 1, 2]
    for b, n in enumerate(LENGTHS.tolist()):
        alone, final = net(x[b : b + 1, :n])
        torch.testing.assert_close(y[b : b + 1, : after[b]], alone)
        torch.testing.assert_close([part[b : b + 1] for (part,) in state], [p for (p,) in final])
        assert not y[b, after[b] :].any()


def test_a_causal_front_sees_no_step_after_that_of_its_output(x):
    front = ConvFront1d(I, [4, 2], [3, 5], [2, 2]).double()
    future = x.clone()
    future[:, 5:] += 1

    now, then = front(x)[0], front(future)[0]

    torch.testing.assert_close(now[:, :2], then[:, :2], rtol=0, atol=0)  # steps 0 and 4
    assert not torch.equal(now[:, 2:], then[:, 2:])


def test_raw_samples_become_fewer_steps():
    front = ConvFront1d(1, [8, 6], kernel_size=[10, 5], stride=[5, 2])

    y, state = Fronted(front, Recurrent(LSTMCell(6, 4)))(torch.randn(2, 101, 1))

    assert y.shape == (2, 11, 4)
    assert [part.shape for part in state] == [(2, 4), (2, 4)]


def test_frames_become_features_each_on_its_own():
    front, x = ConvFront2d(3, [4, 6]).double(), torch.randn(B, T, 3, 8, 7, dtype=torch.float64)
    padded = x.clone()
    padded[2, 4:] = torch.nan

    y, lengths = front(padded, LENGTHS)

    assert lengths is LENGTHS
    assert y.shape == (B, T, 6)
    for b, n in enumerate(LENGTHS.tolist()):
        for t in range(n):
            torch.testing.assert_close(y[b, t], front(x[b : b + 1, t : t + 1])[0][0, 0])
        assert not y[b, n:].any()


def test_layers_over_frames_go_together_in_both_directions():
    sides = [Fronted(ConvFront2d(3, 4), Recurrent(GRUCell(4, 5))) for _ in range(2)]
    x = torch.randn(B, T, 3, 8, 7)

    y, _ = Bidirectional(*sides)(x, lengths=LENGTHS)

    forward, backward = y.split(5, -1)
    torch.testing.assert_close(forward, sides[0](x, lengths=LENGTHS)[0])
    torch.testing.assert_close(backward, Reversed(sides[1])(x, lengths=LENGTHS)[0])


def test_places_of_a_frame_keep_features_of_their_own_and_their_mean_is_what_else_is_given():
    torch.manual_seed(0)
    options = {"kernel_size": [3, 5], "stride": [2, 1]}
    mean, places = (
        ConvFront2d(3, [4, 6], **options),
        ConvFront2d(3, [4, 6], frame=(8, 7), **options),
    )
    places.load_state_dict(mean.state_dict())
    x = torch.randn(B, T, 3, 8, 7)

    features, _ = places(x)

    assert places.output_size == features.shape[2] == 6 * 4 * 4
    torch.testing.assert_close(features.unflatten(2, (6, 4, 4)).mean((3, 4)), mean(x)[0])


def test_padding_of_a_video_reaches_no_gradient():
    net = Fronted(ConvFront2d(1, 2), Recurrent(GRUCell(2, 3)))
    x = torch.randn(2, 5, 1, 4, 4)
    x[1, 2:] = torch.nan
    x.requires_grad_()

    net(x, None, torch.tensor([5, 2]))[0].sum().backward()

    assert not x.grad[1, 2:].any()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


def test_a_video_is_read_in_chunks_documents_and_steps():
    net = Fronted(ConvFront2d(1, [2, 3]), DeepRNN(GRUCell, 3, 4, 2)).double()
    x = torch.randn(2, 6, 1, 5, 5, dtype=torch.float64)
    resets = torch.zeros(2, 6, dtype=torch.bool)
    resets[:, 4] = True

    whole, final = net(x)
    first, state = net(x[:, :2])
    second, end = net(x[:, 2:], state)
    stepped, _ = net.step(x[:, 2], state)

    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    torch.testing.assert_close(end, final)
    torch.testing.assert_close(stepped, whole[:, 2])
    torch.testing.assert_close(net(x, None, None, resets)[0][:, 4:], net(x[:, 4:])[0])


def test_a_front_takes_lengths_as_a_list(x):
    front = ConvFront1d(I, 2, 3, 2).double()

    y, lengths = front(x, LENGTHS.tolist())

    torch.testing.assert_close((y, lengths), front(x, LENGTHS))


def test_a_front_of_the_users_own_passes_lengths_on(x):
    class Twice(nn.Module):
        output_size = I

        def forward(self, x, lengths=None):
            return x.repeat_interleave(2, 1), None if lengths is None else 2 * lengths

    layer = Recurrent(GRUCell(I, 2)).double()

    got = Fronted(Twice(), layer)(x, None, LENGTHS)

    torch.testing.assert_close(got, layer(x.repeat_interleave(2, 1), None, 2 * LENGTHS))


@pytest.mark.parametrize(
    "make",
    [lambda: fronted([4, 2], 3, 2), lambda: Fronted(ConvFront2d(1, 2), Recurrent(GRUCell(2, 3)))],
)
def test_a_new_layer_with_the_old_state_dict_gives_the_same(make):
    old, new = make(), make()
    x = torch.randn(2, 5, I) if isinstance(old.front, ConvFront1d) else torch.randn(2, 5, 1, 4, 4)

    new.load_state_dict(old.state_dict())

    torch.testing.assert_close(new(x), old(x))


WRONG = {
    "channels": (lambda: ConvFront1d(I, []), r"channels is \[\], expected one positive integer"),
    "no features": (lambda: ConvFront1d(0, 4), "ConvFront1d: input_size is 0, expected a whole"),
    "no channels": (lambda: ConvFront2d("3", 4), "ConvFront2d: input_channels is '3', expected"),
    "kernel": (lambda: ConvFront1d(I, [2, 2], 0), r"kernel_size is \[0, 0\]"),
    "causal": (lambda: ConvFront1d(I, 4, causal="no"), "causal is 'no', expected True or False"),
    "stride": (lambda: ConvFront1d(I, [2, 2], 3, [1, 1, 1]), r"each of 2 convolutions"),
    "part of a stride": (lambda: ConvFront2d(I, 2, 3, [1.5]), r"ConvFront2d: stride is \[1\.5\]"),
    "widths": (
        lambda: Fronted(ConvFront1d(I, 4), Recurrent(GRUCell(5, 2))),
        "gives 4 features and the layer takes 5",
    ),
    "torch's convolution": (
        lambda: Fronted(torch.nn.Conv1d(I, 4, 3), Recurrent(GRUCell(4, 2))),
        "front is Conv1d, expected a module with an output_size",
    ),
    "features": (lambda: ConvFront1d(I, 4)(torch.zeros(B, T, 5)), r"expected \(B, T, I\) with"),
    "samples": (lambda: ConvFront1d(1, 4)(torch.zeros(B, T)), r"shape \(4, 9\), expected"),
    "frames": (lambda: ConvFront2d(3, 4)(torch.zeros(B, T, 8, 8)), "height, width"),
    "another frame": (
        lambda: ConvFront2d(1, 4, frame=(8, 8))(torch.zeros(B, T, 1, 8, 7)),
        r"frames are \(8, 7\), expected \(8, 8\)",
    ),
    "no frame": (lambda: ConvFront2d(1, 4, frame=(8,)), "frame is .* expected height and width"),
    "resets": (
        lambda: fronted(2, 3)(torch.zeros(B, T, I), resets=torch.zeros(B, T, dtype=torch.bool)),
        "resets were given, but ConvFront1d mixes several steps",
    ),
    "step": (lambda: fronted(2, 1, 2).step(torch.zeros(B, I)), "step was called, but ConvFront1d"),
}


@pytest.mark.parametrize("case", WRONG)
def test_invalid_options_are_refused(case):
    make, said = WRONG[case]

    with pytest.raises((ConfigError, DtypeError, ShapeError), match=said):
        make()
