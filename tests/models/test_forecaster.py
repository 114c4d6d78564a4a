import math
from functools import partial

import pytest
import torch

from seqnets.cells import GRUCell, LSTMCell
from seqnets.errors import ConfigError, ShapeError
from seqnets.models import (
    Direct,
    EncoderDecoder,
    Forecaster,
    GaussianHead,
    NegativeBinomialHead,
    Parallel,
    PointHead,
    QuantileHead,
    Recursive,
)

STRATEGIES = [Direct, Recursive, EncoderDecoder, Parallel]
HEADS = [PointHead, GaussianHead, QuantileHead]


def forecaster(strategy=Direct, inputs=3, outputs=3, horizon=5, cell=GRUCell, **options):
    options = {"hidden_size": 4, **options}
    return Forecaster(cell, inputs, outputs, horizon, strategy=strategy, **options).double()


def windows(count=2, steps=6, features=3):
    return torch.randn(count, steps, features, dtype=torch.float64)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("segment", [1, 2])
def test_every_strategy_forecasts_the_whole_horizon_with_every_head(
    strategy, head, independent, segment
):
    model = forecaster(
        strategy, head=head, independent=independent, segment=segment, cell=LSTMCell,
        num_layers=2, embedding_size=3,
    )  # fmt: skip

    said, _ = model(windows())
    said.sum().backward()

    assert said.shape == (2, 5, 3, len(model.output.quantiles))
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("strategy", [Direct, EncoderDecoder, Parallel])
@pytest.mark.parametrize("independent", [False, True])
def test_a_subset_of_columns_is_forecast(strategy, independent):
    model = forecaster(strategy, outputs=2, independent=independent)

    assert model(windows())[0].shape == (2, 5, 2, 1)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("segment", [1, 2])
def test_every_strategy_takes_what_is_known_ahead(strategy, head, independent, segment):
    model = forecaster(
        strategy, 4, 2, head=head, independent=independent, segment=segment, cell=LSTMCell,
        num_layers=2, embedding_size=3, ahead_size=2,
    )  # fmt: skip
    ahead = windows(steps=5, features=2).requires_grad_()

    said, _ = model(windows(features=4), ahead=ahead)
    said.sum().backward()

    assert said.shape == (2, 5, 2, len(model.output.quantiles))
    assert all(p.grad is not None for p in model.parameters())
    assert (ahead.grad != 0).all()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("independent", [False, True])
def test_each_row_of_a_batch_is_forecast_from_what_is_known_ahead_of_it(strategy, independent):
    model = forecaster(strategy, 4, 2, independent=independent, segment=2, ahead_size=2)
    x, ahead = windows(3, features=4), windows(3, steps=5, features=2)

    together, _ = model(x, ahead=ahead)

    for row in range(3):
        alone, _ = model(x[row, None], ahead=ahead[row, None])
        torch.testing.assert_close(together[row, None], alone)


@pytest.mark.parametrize("segment", [1, 2])
@pytest.mark.parametrize("independent", [False, True])
def test_what_is_known_of_a_step_changes_no_forecast_of_an_earlier_one(independent, segment):
    options = {"independent": independent, "segment": segment, "ahead_size": 1}
    x, ahead = windows(features=3), windows(steps=6, features=1)
    later = ahead.clone()
    later[:, 4] += 1
    for strategy in (Recursive, EncoderDecoder, Parallel):
        model = forecaster(strategy, 3, 2, 6, **options)
        same = (model(x, ahead=later)[0] == model(x, ahead=ahead)[0]).all(dim=(0, 2, 3)).tolist()

        others = [strategy is Parallel and segment == 1]
        assert same == [True] * 4 + ([False, *others] if segment == 1 else [False] * 2)


def test_steps_of_which_the_same_is_known_are_forecast_each_by_its_place():
    model = forecaster(Parallel, 3, 1, ahead_size=2, normalization="none")

    said, _ = model(windows(1), ahead=torch.ones(1, 5, 2, dtype=torch.float64))

    assert len(said.flatten().unique()) == 5


def test_one_step_ahead_recursive_equals_direct():
    direct, recursive = forecaster(Direct, horizon=1), forecaster(Recursive, horizon=1)
    recursive.strategy.load_state_dict(direct.strategy.whole.state_dict())
    x = windows()

    assert torch.equal(direct(x)[0], recursive(x)[0])


def test_recursive_feeds_back_its_own_prediction():
    model = forecaster(Recursive, horizon=3, normalization="none")
    x = windows()

    three, _ = model(x)
    later, _ = model(torch.cat([x, three[:, :1, :, 0]], 1))

    torch.testing.assert_close(three[:, 1:], later[:, :2])


def test_recursive_feeds_back_what_is_known_of_the_step_that_it_predicted():
    model = forecaster(Recursive, 4, 3, 3, normalization="none", ahead_size=1)
    x, known = windows(features=4), windows(steps=4, features=1)

    three, _ = model(x, ahead=known[:, :3])
    first = torch.cat([three[:, :1, :, 0], known[:, :1]], -1)
    later, _ = model(torch.cat([x, first], 1), ahead=known[:, 1:])

    torch.testing.assert_close(three[:, 1:], later[:, :2])


def test_a_shorter_horizon_is_the_beginning_of_a_longer_one():
    for strategy in (Recursive, EncoderDecoder, Parallel):
        long, short = forecaster(strategy, horizon=6), forecaster(strategy, horizon=3)
        weights = long.state_dict()
        for name, tensor in short.state_dict().items():
            weights[name] = weights[name][: len(tensor)]  # learned vectors of fewer steps
        short.load_state_dict(weights)
        x = windows()

        torch.testing.assert_close(long(x)[0][:, :3], short(x)[0])


def test_the_first_step_of_parallel_is_that_of_encoder_decoder_and_later_ones_are_not():
    sequential, parallel = forecaster(EncoderDecoder), forecaster(Parallel)
    parallel.load_state_dict(sequential.state_dict())
    x = windows()

    torch.testing.assert_close(sequential(x)[0][:, 0], parallel(x)[0][:, 0])
    assert not torch.allclose(sequential(x)[0][:, 1], parallel(x)[0][:, 1])


@pytest.mark.parametrize("head", HEADS)
def test_shifting_the_input_shifts_the_forecast(head):
    x = windows()
    for normalization in ("last", "reversible"):
        model = forecaster(head=head, normalization=normalization)

        torch.testing.assert_close(model(x + 7)[0], model(x)[0] + 7)


@pytest.mark.parametrize("head", HEADS)
def test_with_reversible_normalization_scaling_the_input_scales_the_forecast(head):
    model, x = forecaster(head=head, normalization="reversible"), 1e4 * windows()

    torch.testing.assert_close(model(x * 3)[0], model(x)[0] * 3, rtol=1e-6, atol=0)


@pytest.mark.parametrize("head", HEADS)
def test_moved_features_are_of_the_forecast_moved(head):
    output, shift, scale = head(), torch.tensor([[5.0], [-1.0]]), torch.tensor([[2.0], [0.5]])
    y = torch.randn(2, output.size)

    moved = output(output.moved(y, shift, scale))

    torch.testing.assert_close(moved, shift + scale * output(y))


def test_an_independent_column_is_forecast_from_its_own_past_with_shared_weights():
    model = forecaster(independent=True, outputs=2)
    x = windows()
    changed = x.clone()
    changed[..., 1] += torch.randn(2, 6, dtype=torch.float64)
    swapped = x[..., [1, 0, 2]]

    torch.testing.assert_close(model(changed)[0][:, :, 0], model(x)[0][:, :, 0])
    assert not torch.allclose(model(changed)[0][:, :, 1], model(x)[0][:, :, 1])
    torch.testing.assert_close(model(swapped)[0], model(x)[0][:, :, [1, 0]])


@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("normalization", ["last", "reversible"])
def test_input_only_columns_are_used_even_if_constant(independent, normalization):
    model = forecaster(independent=independent, normalization=normalization, outputs=2)
    x = windows()
    x[..., 2] = 0
    elsewhere = x.clone()
    elsewhere[..., 2] = 1

    differs = (model(elsewhere)[0] - model(x)[0]).abs() > 1e-6
    assert differs.all(dim=1).all()


def test_columns_together_depend_on_each_other():
    model, x = forecaster(), windows()
    changed = x.clone()
    changed[:, 0, 2] += 1

    assert not torch.allclose(model(changed)[0][:, :, 0], model(x)[0][:, :, 0])


def test_the_gaussian_likelihood_is_that_of_plain_floats():
    mean, spread, y = 0.3, -0.7, 1.1
    scale = math.exp(spread)
    nats = 0.5 * math.log(2 * math.pi * scale**2) + (y - mean) ** 2 / (2 * scale**2)
    head = GaussianHead([0.1, 0.5, 0.9])
    features = torch.tensor([[mean, spread]], dtype=torch.float64)

    assert head.loss(features, torch.tensor([y]).double()).item() == pytest.approx(nats, abs=1e-7)
    assert head(features)[0].tolist() == pytest.approx(
        [mean - 1.2815515655 * scale, mean, mean + 1.2815515655 * scale], abs=1e-7
    )


@pytest.mark.parametrize(("log_mean", "log_dispersion", "count"), [(0.3, -0.7, 2), (4, 1.2, 0)])
def test_the_likelihood_of_counts_is_that_of_plain_floats(log_mean, log_dispersion, count):
    mean, dispersion = math.exp(log_mean), math.exp(log_dispersion)
    ways = math.gamma(count + 1 / dispersion) / math.gamma(count + 1) / math.gamma(1 / dispersion)
    share = dispersion * mean / (1 + dispersion * mean)
    nats = -math.log(ways * (1 / (1 + dispersion * mean)) ** (1 / dispersion) * share**count)
    features = torch.tensor([[log_mean, log_dispersion]], dtype=torch.float64)

    loss = NegativeBinomialHead().loss(features, torch.tensor([count]).double())

    assert loss.item() == pytest.approx(nats, abs=1e-12)


def test_counts_without_dispersion_have_the_likelihood_of_poissons_distribution():
    mean, count = 1000.0, 990
    nats = mean - count * math.log(mean) + math.lgamma(count + 1)
    features = torch.tensor([[math.log(mean), -40.0]], requires_grad=True)  # float32

    loss = NegativeBinomialHead().loss(features, torch.tensor([float(count)]))
    loss.backward()

    assert loss.item() == pytest.approx(nats, rel=1e-4)
    assert features.grad.isfinite().all()


def test_huge_counts_are_likeliest_at_a_mean_that_is_theirs():
    count, head = 5e8, NegativeBinomialHead()
    features = torch.tensor([[math.log(count), 0.0]], requires_grad=True)  # float32
    nats = math.log1p(count) + count * math.log1p(1 / count)

    loss = head.loss(features, torch.tensor([count]))
    loss.backward()

    assert loss.item() == pytest.approx(nats, abs=1e-5)
    assert features.grad[0, 0].item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("independent", [False, True])
def test_forecasts_of_counts_grow_with_the_size_of_the_window(strategy, independent):
    model = forecaster(
        strategy, head=NegativeBinomialHead, normalization="mean", independent=independent,
        segment=2, horizon=4,
    )  # fmt: skip
    x = windows().abs()
    scale = 1 + x.mean(1)

    (mean, dispersion), _ = model.features(x)[0].unbind(-1), model.eval()
    said = model(x)[0]

    assert (said == said.round()).all()
    assert (said.diff(dim=-1) >= 0).all()
    inner = partial(model.output.moved, shift=torch.zeros(1))
    moved = inner(torch.stack([mean, dispersion], -1), scale=scale[:, None, :, None])
    assert torch.allclose(moved[..., 0].exp(), mean.exp() * scale[:, None])
    assert torch.allclose(moved[..., 1].exp(), dispersion.exp() / scale[:, None].sqrt())


def test_windows_are_divided_by_their_mean_magnitude_for_counts():
    model = forecaster(normalization="mean", head=NegativeBinomialHead, outputs=2)
    x, read = windows(), []
    model.strategy.register_forward_pre_hook(lambda _, given: read.append(given[0]))

    model(x)

    scale = 1 + x[..., :2].abs().mean(1, keepdim=True)
    torch.testing.assert_close(read[0], torch.cat([x[..., :2] / scale, x[..., 2:]], -1))


def test_in_training_counts_are_predicted_by_their_mean():
    head, y = NegativeBinomialHead(), torch.randn(5, 2)

    assert torch.equal(head.predict(y), y[:, :1].exp().expand(-1, 3))
    assert torch.equal(head.eval().predict(y), head(y))


def test_the_pinball_loss_is_that_of_plain_floats():
    levels, said, y = [0.1, 0.5, 0.9], [0.4, 0.2, 1.0], 0.5
    loss = sum(max(q * (y - s), (q - 1) * (y - s)) for q, s in zip(levels, said, strict=True))
    head = QuantileHead(levels)
    features = torch.tensor([said], dtype=torch.float64)

    assert head.loss(features, torch.tensor([y]).double()).item() == pytest.approx(loss, abs=1e-7)
    assert head(features)[0].tolist() == sorted(said)


def test_the_point_forecast_of_crossing_quantiles_is_the_predicted_median():
    head, crossed = QuantileHead([0.05, 0.5, 0.95]), torch.tensor([[3.0, 2.0, 1.0], [5, 9, 7]])

    assert head.point(crossed).tolist() == head(crossed)[:, 1].tolist() == [2, 7]


def test_the_pinball_loss_is_least_at_the_quantile():
    draws = torch.arange(1, 100, dtype=torch.float64)
    head = QuantileHead([0.2, 0.5])
    grid = torch.arange(1, 100, dtype=torch.float64)

    losses = [
        head.errors(torch.full((99, 2), g.item(), dtype=torch.float64), draws).sum() for g in grid
    ]
    single = [QuantileHead([0.5]).errors(torch.full((99, 1), g.item()), draws).sum() for g in grid]

    assert 20 <= grid[torch.stack(losses).argmin()] <= 50
    assert grid[torch.stack(single).argmin()] == 50


@pytest.mark.parametrize(("error", "loss"), [("squared", 4 + 1), ("absolute", 2 + 1)])
def test_a_point_is_scored_where_a_target_is(error, loss):
    said = torch.tensor([[3.0], [5.0], [0.0]], requires_grad=True)

    total = PointHead(error).loss(said, torch.tensor([1.0, math.nan, 1.0]))
    total.backward()

    assert total == loss
    assert said.grad.isfinite().all()
    assert said.grad[1] == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(forecaster, normalization="max"), "normalization is 'max', expected one of"),
        (
            partial(forecaster, head=NegativeBinomialHead),
            r"is .last., expected .mean. or .none. with NegativeBinomialHead.*\n.*dataset\.counts",
        ),
        (partial(forecaster, segment=0), "segment is 0"),
        (partial(forecaster, Recursive, outputs=2), "Recursive: only some columns are predicted"),
        (partial(forecaster, Recursive, outputs=2, independent=True), "some columns"),
        (partial(forecaster, Recursive, outputs=1, ahead_size=1), "all that are not known ahead"),
        (partial(forecaster, outputs=2, ahead_size=2), "ahead_size is 2, expected at most .*, 1"),
        (partial(forecaster, ahead_size=-1), "ahead_size is -1"),
        (partial(forecaster, Recursive, bidirectional=True), "Recursive: bidirectional is True"),
        (partial(forecaster, Parallel, alternating=True), "Parallel: alternating is True"),
        (partial(PointHead, "cubic"), "error is 'cubic'"),
        (partial(QuantileHead, [0.5, 0.1]), "expected rising numbers"),
        (partial(QuantileHead, [0.5, 1.0]), "between 0 and 1"),
        (partial(GaussianHead, [0.1, 0.9]), "expected 0.5 among them"),
    ],
)
def test_invalid_options_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_steps_that_do_not_fill_segments_are_refused():
    with pytest.raises(ShapeError, match="got 6 steps, expected a multiple of the segment's 4"):
        forecaster(segment=4)(windows())


@pytest.mark.parametrize(
    ("ahead_size", "shape", "message"),
    [
        (1, None, r"of shape None, expected \(2, 5, 1\): .* ahead_size=1"),
        (1, (2, 4, 1), r"of shape \(2, 4, 1\), expected \(2, 5, 1\)"),
        (0, (2, 5, 1), r"of shape \(2, 5, 1\), expected None: .* ahead_size=0"),
    ],
)
def test_what_is_known_ahead_is_given_as_it_was_announced(ahead_size, shape, message):
    model = forecaster(outputs=2, ahead_size=ahead_size)

    with pytest.raises(ShapeError, match=message):
        model(windows(), ahead=None if shape is None else torch.zeros(shape))


def test_lengths_are_refused():
    with pytest.raises(ShapeError, match="windows have no padding"):
        forecaster()(windows(), lengths=torch.tensor([6, 3]))


def test_direct_may_read_both_ways():
    assert forecaster(Direct, bidirectional=True)(windows())[0].shape == (2, 5, 3, 1)
