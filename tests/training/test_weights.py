"""Losses of sequences that count more than others."""

import pytest
import torch
import torch.nn.functional as F

from seqnets.datasets.sequences.sequences import Sequences
from seqnets.training import Classification, Regression
from seqnets.training.scores import scores_of_parts
from seqnets.typing import IGNORE, Batch

KNOWN = {"sizes": {"num_classes": 3, "output_size": 2}, "labels": ["a", "b", "c"]}
RANDOM = torch.Generator().manual_seed(0)
SAID = torch.randn(6, 3, generator=RANDOM)
LABELS = torch.tensor([0, 1, 2, 2, 0, 1])
NUMBERS = torch.randn(6, 3, generator=RANDOM)
WEIGHTS = torch.tensor([1.0, 0.0, 2.5, 0.5, 3.0, 1.0])
TASKS = pytest.mark.parametrize(
    ("objective", "targets"), [(Classification(), LABELS), (Regression(), NUMBERS)]
)


def echo(x, state, lengths):
    """Say what is given, as a model of one step would."""
    return x[:, 0], state


def outcome_of(objective, batch):
    objective.prepare(KNOWN)
    return objective(echo, batch)


def part_of(targets, weights=WEIGHTS):
    part = Sequences.stacked(SAID[:, None], targets)
    return Sequences(part.x, part.lengths, part.y, weights=weights)


def errors(targets):
    """The loss of each sequence by itself."""
    if targets.is_floating_point():
        return (SAID - targets).square().mean(1)
    return F.cross_entropy(SAID, targets, reduction="none")


@TASKS
@pytest.mark.parametrize("size", [6, 4, 1])
def test_the_loss_of_a_part_is_its_weighted_mean_however_it_is_batched(objective, targets, size):
    part, scores = part_of(targets), scores_of_parts(objective, KNOWN)["val"]

    for rows in torch.arange(6).split(size):
        scores.update(outcome_of(objective, part.batch(rows)))
    found = scores.take()

    expected = (errors(targets) * WEIGHTS).sum() / WEIGHTS.sum()
    assert found["loss"] == pytest.approx(float(expected))


@TASKS
def test_the_mean_gradient_of_equal_batches_is_that_of_the_weighted_mean(objective, targets):
    part, shift = part_of(targets), torch.zeros(3, requires_grad=True)

    def gradient(batch):
        loss = objective(lambda x, *_: (x[:, 0] + shift, None), batch).total
        return torch.autograd.grad(loss, shift)[0]

    halves = [gradient(part.batch(torch.arange(k, 6, 2))) for k in (0, 1)]

    torch.testing.assert_close(sum(halves) / 2, gradient(part.batch(torch.arange(6))))


@TASKS
def test_a_whole_weight_is_worth_so_many_copies(objective, targets):
    counts = torch.tensor([1, 0, 2, 1, 3, 1])
    copies = torch.arange(6).repeat_interleave(counts)
    batch = Batch(SAID[copies][:, None], targets[copies])
    weighted = part_of(targets, counts).batch(torch.arange(6))

    torch.testing.assert_close(
        outcome_of(objective, weighted).loss, outcome_of(objective, batch).loss
    )


@TASKS
def test_a_batch_of_nothing_that_counts_has_no_loss_and_no_gradient(objective, targets):
    x = SAID[1:2, None].clone().requires_grad_()
    outcome = outcome_of(objective, Batch(x, targets[1:2], weights=WEIGHTS[1:2]))
    outcome.total.backward()

    assert outcome.loss == 0
    assert not x.grad.any()


@TASKS
def test_all_figures_but_the_loss_ignore_the_weights(objective, targets):
    found = []
    for weights in (None, WEIGHTS):
        scores = scores_of_parts(objective, KNOWN)["test"]
        scores.update(outcome_of(objective, part_of(targets, weights).batch(torch.arange(6))))
        found.append(scores.take())
    plain, weighted = found

    assert plain.pop("loss") != weighted.pop("loss")
    assert plain == weighted


def test_weights_multiply_those_of_classes_and_leave_out_what_is_not_scored():
    objective = Classification(class_weights={"b": 5})
    targets = LABELS.clone()
    targets[0] = IGNORE
    outcome = outcome_of(objective, Batch(SAID[:, None], targets, weights=WEIGHTS))
    each = errors(LABELS) * WEIGHTS * torch.tensor([0.0, 5.0, 1.0, 1.0, 1.0, 5.0])

    torch.testing.assert_close(outcome.loss, each.sum() / 5)
    assert outcome.scored == 5


@TASKS
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_weights_fit_outputs_of_any_precision(objective, targets, dtype):
    batch = part_of(targets).batch(torch.arange(6))
    wide = outcome_of(objective, batch).loss
    found = outcome_of(objective, batch._replace(x=batch.x.to(dtype))).loss

    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert float(found) == pytest.approx(float(wide), rel=0.02)
