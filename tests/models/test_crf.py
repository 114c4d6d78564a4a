import math
from itertools import pairwise, product

import pytest
import torch
from torch.autograd import gradcheck

from seqnets.errors import DataError, ShapeError
from seqnets.models import AdaptiveSoftmax, ConditionalRandomField, FusedSoftmax, PointHead
from seqnets.typing import IGNORE

FEATURES, CLASSES = 3, 3


@pytest.fixture
def crf():
    torch.manual_seed(0)
    field = ConditionalRandomField(FEATURES, CLASSES).double()
    for parameter in field.parameters():
        torch.nn.init.normal_(parameter)
    return field


def draw(batch, steps):
    y = torch.randn(batch, steps, FEATURES, dtype=torch.float64)
    return y, torch.randint(CLASSES, (batch, steps))


def score(crf, y, path):
    """The score of one sequence of classes, in plain floats."""
    start, end, follows = crf.start.tolist(), crf.end.tolist(), crf.transitions.tolist()
    weight, bias = crf.linear.weight.tolist(), crf.linear.bias.tolist()
    total = start[path[0]] + end[path[-1]]
    for step, k in zip(y.tolist(), path, strict=True):
        total += bias[k] + sum(w * value for w, value in zip(weight[k], step, strict=True))
    return total + sum(follows[a][b] for a, b in pairwise(path))


def paths(crf, y):
    """Every sequence of classes with its score."""
    return {path: score(crf, y, path) for path in product(range(CLASSES), repeat=len(y))}


def log_sum(scores):
    return math.log(math.fsum(math.exp(score) for score in scores))


def test_a_field_that_gets_memory_late_takes_classes_for_alike():
    with torch.device("meta"):
        field = ConditionalRandomField(FEATURES, CLASSES)
    field.to_empty(device="cpu")
    for parameter in field.parameters():
        torch.nn.init.constant_(parameter, math.nan)

    for module in field.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()

    alike = (field.start, field.transitions, field.end)
    assert all((scores == 0).all() for scores in alike)
    assert field.linear.weight.isfinite().all()


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_loss_is_that_of_all_paths_counted_one_by_one(crf, steps):
    y, targets = draw(4, steps)

    expected = 0.0
    for row, right in zip(y, targets.tolist(), strict=True):
        scores = paths(crf, row)
        expected += log_sum(scores.values()) - scores[tuple(right)]

    assert crf.loss(y, targets).item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_what_is_predicted_is_the_best_of_all_paths(crf, steps):
    y, _ = draw(20, steps)

    best = [max(scores, key=scores.get) for scores in (paths(crf, row) for row in y)]

    assert [tuple(path) for path in crf.predict(y).tolist()] == best


def test_a_step_without_a_class_is_one_of_any_class(crf):
    y, targets = draw(1, 4)
    targets[0, 0] = targets[0, 2] = IGNORE
    given = targets[0].tolist()

    scores = paths(crf, y[0])
    fitting = [
        score
        for path, score in scores.items()
        if all(asked in (IGNORE, said) for asked, said in zip(given, path, strict=True))
    ]

    assert len(fitting) == CLASSES**2
    expected = log_sum(scores.values()) - log_sum(fitting)
    assert crf.loss(y, targets).item() == pytest.approx(expected, abs=1e-10)


def test_a_row_in_a_batch_is_what_it_is_alone_whatever_its_padding(crf):
    y, targets = draw(24, 5)
    lengths = torch.arange(24) % 6
    outside = torch.arange(5) >= lengths[:, None]
    y[outside] = 1e6
    targets[outside] = IGNORE

    together, said = crf.loss(y, targets, lengths), crf.predict(y, lengths)

    alone = [(y[i : i + 1, :n], targets[i : i + 1, :n]) for i, n in enumerate(lengths)]
    torch.testing.assert_close(together, sum(crf.loss(*row) for row in alone))
    for i, (row, _) in enumerate(alone):
        assert said[i].tolist() == crf.predict(row)[0].tolist() + [0] * (5 - int(lengths[i]))


def test_gradients_are_right_with_steps_without_a_class_and_rows_of_different_lengths(crf):
    y, targets = draw(3, 4)
    lengths = torch.tensor([4, 2, 3])
    targets[0, 1] = targets[2, 0] = IGNORE
    parameters = [y.requires_grad_(), *crf.parameters()]

    assert gradcheck(lambda *_: crf.loss(y, targets, lengths), parameters)


def test_without_transitions_it_is_a_softmax_per_step(crf):
    for parameter in (crf.start, crf.transitions, crf.end):
        torch.nn.init.zeros_(parameter)
    y, targets = draw(4, 6)

    by_step = torch.nn.functional.cross_entropy(
        crf(y).flatten(0, 1), targets.flatten(), reduction="sum"
    )

    torch.testing.assert_close(crf.loss(y, targets), by_step)
    assert torch.equal(crf.predict(y), crf(y).argmax(-1))


def test_in_half_precision_the_sums_are_those_of_float32():
    crf = ConditionalRandomField(8, 4)
    y, targets = torch.randn(2, 300, 8), torch.randint(4, (2, 300))

    with torch.autocast("cpu", torch.bfloat16):
        loss = crf.loss(y, targets)
    half = crf.bfloat16().loss(y.bfloat16(), targets)

    assert loss.dtype == half.dtype == torch.float32
    exact = crf.double().loss(y.double(), targets)
    torch.testing.assert_close(loss.double(), exact, rtol=3e-3, atol=0)


def test_a_sequence_without_steps_costs_nothing(crf):
    y, targets = draw(2, 0)

    assert crf.loss(y, targets).item() == 0
    assert crf.predict(y).shape == (2, 0)


@pytest.mark.parametrize("wrong", [3, -3])
def test_a_target_outside_the_classes_is_refused(crf, wrong):
    y, targets = draw(2, 4)
    targets[1, 2] = wrong
    with pytest.raises(DataError, match=f"a target is {wrong}, expected 0..2"):
        crf.loss(y, targets)


HEADS = {
    "field": lambda: ConditionalRandomField(FEATURES, CLASSES),
    "fused": lambda: FusedSoftmax(FEATURES, CLASSES),
    "fused in chunks": lambda: FusedSoftmax(FEATURES, 30, chunk=2),
    "adaptive": lambda: AdaptiveSoftmax(FEATURES, 30, cutoffs=[10], div_value=2.0),
}


@pytest.mark.parametrize("head", HEADS)
def test_what_is_past_the_end_of_a_row_costs_nothing(head):
    head, lengths = HEADS[head]().double(), torch.tensor([4, 1])
    y, targets = draw(2, 4)

    found = head.loss(y, targets, lengths)

    alone = [head.loss(y[b : b + 1, :n], targets[b : b + 1, :n]) for b, n in enumerate((4, 1))]
    torch.testing.assert_close(found, sum(alone))


@pytest.mark.parametrize("head", HEADS)
def test_targets_of_another_shape_are_refused(head):
    y, targets = draw(2, 4)
    with pytest.raises(ShapeError, match=r"targets have shape \(2, 1\), expected \(2, 4\)"):
        HEADS[head]().double().loss(y, targets[:, :1])


def test_numbers_past_the_end_of_a_row_cost_nothing():
    y, targets = torch.ones(2, 3, 2, 1), torch.zeros(2, 3, 2)

    assert float(PointHead().loss(y, targets, torch.tensor([3, 1]))) == 8
