"""Connectionist temporal classification against all alignments, counted one by one."""

import functools
import itertools
import math
from collections import defaultdict

import pytest
import torch
from torch.autograd import gradcheck

from seqnets.alignment import frames_needed
from seqnets.errors import ConfigError, DataError, DtypeError, ShapeError
from seqnets.models import best_path, ctc_loss, prefix_beam_search
from seqnets.typing import IGNORE

C = 3


def draw(rows, frames, classes=C, seed=0, scale=2.0):
    random = torch.Generator().manual_seed(seed)
    return scale * torch.randn(rows, frames, classes, dtype=torch.float64, generator=random)


def spelled(path):
    """The labels of an alignment, as in the paper: repetitions are dropped, then blanks."""
    return tuple(label for label, _ in itertools.groupby(path) if label != 0)


def every_labelling(logits):
    """All labellings of one row's frames, (T, C), with their probabilities."""
    p = logits.softmax(-1).tolist()
    found = defaultdict(float)
    for path in itertools.product(range(logits.shape[1]), repeat=len(p)):
        found[spelled(path)] += math.prod(frame[c] for frame, c in zip(p, path, strict=True))
    return found


def padded(targets):
    longest = max(map(len, targets))
    return torch.tensor([[*t, *[IGNORE] * (longest - len(t))] for t in targets])


def written(labels):
    return [tuple(label for label in row if label != IGNORE) for row in labels.tolist()]


@pytest.mark.parametrize("target", [(), (1,), (2, 1), (1, 1), (1, 2, 1), (2, 2, 1)], ids=str)
@pytest.mark.parametrize("frames", [4, 5])
def test_the_loss_is_that_of_all_alignments_counted_one_by_one(target, frames):
    logits = draw(2, frames)

    found = ctc_loss(logits, padded([target, (1,)]))

    expected = [every_labelling(logits[0])[target], every_labelling(logits[1])[(1,)]]
    assert found.item() == pytest.approx(-sum(map(math.log, expected)), abs=1e-10)


def test_the_labellings_of_one_frame_are_its_classes():
    logits = draw(1, 1)

    losses = [ctc_loss(logits, torch.tensor([target])).item() for target in ([IGNORE], [1], [2])]

    assert losses == pytest.approx((-logits[0, 0].log_softmax(-1)).tolist())


@pytest.mark.parametrize("labels", [0, 2])
def test_without_frames_only_the_empty_target_is_possible(labels):
    empty = torch.full((2, labels), IGNORE)

    assert ctc_loss(draw(2, 0), empty).item() == 0
    assert ctc_loss(draw(2, 3), empty, torch.tensor([0, 0])).item() == 0


@pytest.mark.parametrize("labels", [0, 2])
def test_no_rows_cost_nothing(labels):
    logits = draw(0, 4).requires_grad_()

    loss = ctc_loss(logits, torch.full((0, labels), IGNORE))
    loss.backward()

    assert loss.item() == 0
    assert logits.grad.shape == (0, 4, C)


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        ([3, 5], ShapeError, r"lengths\[1\] is 5, expected 0\.\.T = 0\.\.4"),
        ([-1, 4], ShapeError, r"lengths\[0\] is -1, expected"),
        ([4], ShapeError, r"lengths have shape \(1,\), expected \(B,\) = \(2,\)"),
        ([4.0, 3.0], DtypeError, "lengths are torch.float32, expected integers"),
    ],
)
def test_lengths_beyond_the_frames_are_refused(lengths, error, message):
    loss = functools.partial(ctc_loss, targets=torch.tensor([[1], [IGNORE]]))
    functions = {"ctc_loss": loss, "best_path": best_path, "prefix_beam_search": prefix_beam_search}

    for name, function in functions.items():
        with pytest.raises(error, match=f"{name}: {message}"):
            function(draw(2, 4), lengths=torch.tensor(lengths))


RAGGED = draw(4, 6), torch.tensor([6, 2, 4, 1]), [(1, 1, 2), (2,), (), (1,)]


def test_a_row_costs_in_a_batch_what_it_costs_alone():
    logits, lengths, targets = RAGGED
    logits = logits.clone()
    logits[1, 2:], logits[2, 4:] = torch.nan, 1e30

    together = ctc_loss(logits, padded(targets), lengths)

    alone = [
        ctc_loss(logits[row : row + 1, :length], padded([target]))
        for row, (length, target) in enumerate(zip(lengths, targets, strict=True))
    ]
    torch.testing.assert_close(together, sum(alone))


def test_gradients_are_right_with_empty_targets_repeats_and_rows_of_different_lengths():
    logits, lengths, targets = RAGGED
    weights = torch.randn(C, C, dtype=torch.float64, requires_grad=True)

    assert gradcheck(lambda w: ctc_loss(logits @ w, padded(targets), lengths), weights)


def test_in_half_precision_the_sums_are_those_of_float32():
    logits, targets = draw(2, 40).bfloat16(), torch.tensor([[1, 2, 2], [2, 1, IGNORE]])

    found = ctc_loss(logits, targets)

    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(ctc_loss(logits.double(), targets).item(), rel=1e-6)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([[1, 2], [0, 1]], r"label 0 of row 1 is 0, expected 1\.\.2, and -100 past the last"),
        ([[1, 3], [1, 1]], r"label 1 of row 0 is 3, expected 1\.\.2"),
        ([[1, 1], [-1, 1]], r"label 0 of row 1 is -1, expected 1\.\.2"),
        ([[1, 1], [IGNORE, 2]], r"label 1 of row 1 is 2, expected 1\.\.2, and -100 past the last"),
    ],
)
def test_what_is_no_label_is_refused(targets, message):
    with pytest.raises(DataError, match=message):
        ctc_loss(draw(2, 5), torch.tensor(targets))


@pytest.mark.parametrize(
    ("lengths", "targets", "message"),
    [
        (None, [[1, 2], [2, 2]], "row 1 has 2 frames, expected at least 3, which its 2 labels"),
        ([2, 0], [[1, 2], [1, IGNORE]], "row 1 has 0 frames, expected at least 1, .* 1 label need"),
    ],
)
def test_a_target_that_the_frames_cannot_spell_is_refused(lengths, targets, message):
    with pytest.raises(DataError, match=message):
        ctc_loss(draw(2, 2), torch.tensor(targets), lengths)


@pytest.mark.parametrize("shape", [(3, 1), (2,)])
def test_targets_of_other_rows_are_refused(shape):
    with pytest.raises(ShapeError, match=r"expected \(2, U\), a row of labels for each of logits"):
        ctc_loss(draw(2, 5), torch.ones(shape, dtype=torch.int64))


def test_as_many_frames_are_needed_as_the_shortest_alignment_has():
    targets = [(), (1,), (1, 2), (1, 1), (2, 2, 2), (1, 2, 2, 1)]

    fewest = [
        next(n for n in range(9) if target in map(spelled, itertools.product(range(C), repeat=n)))
        for target in targets
    ]

    assert frames_needed(padded(targets)).tolist() == fewest


@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("seed", range(4))
def test_a_beam_wide_enough_finds_the_likeliest_of_all_labellings(frames, seed):
    logits = draw(5, frames, seed=seed)

    labels, scores = prefix_beam_search(logits, beam_size=C**frames)

    for row, found in enumerate(written(labels)):
        labellings = every_labelling(logits[row])
        assert found == max(labellings, key=labellings.get)
        assert scores[row].item() == pytest.approx(math.log(labellings[found]), abs=1e-10)


@pytest.mark.parametrize("n_best", [1, 4, 27])
def test_the_n_best_of_a_beam_wide_enough_are_those_of_all_labellings(n_best):
    logits, lengths = draw(4, 3, seed=9), torch.tensor([3, 1, 0, 2])

    labels, scores = prefix_beam_search(logits, lengths, C**3, n_best)

    assert labels.shape[:2] == scores.shape == (4, n_best)
    for row, length in enumerate(lengths):
        every = every_labelling(logits[row, :length])
        ranked = sorted((p, labelling) for labelling, p in every.items() if p)[::-1][:n_best]
        found = written(labels[row])
        assert found[: len(ranked)] == [labelling for _, labelling in ranked]
        assert scores[row, : len(ranked)].exp().tolist() == pytest.approx([p for p, _ in ranked])
        assert (scores[row, len(ranked) :] == -math.inf).all()
        assert (labels[row, len(ranked) :] == IGNORE).all()


@pytest.mark.parametrize("beam_size", [2, 5])
def test_the_n_best_of_a_narrow_beam_are_different_and_the_first_is_the_likeliest(beam_size):
    logits = draw(6, 14, classes=4, seed=beam_size)

    labels, scores = prefix_beam_search(logits, beam_size=beam_size, n_best=beam_size)
    best, score = prefix_beam_search(logits, beam_size=beam_size)

    assert written(labels[:, 0]) == written(best)
    assert torch.equal(scores[:, 0], score)
    assert (scores.diff(dim=1) <= 0).all()
    assert all(len(set(written(row))) == beam_size for row in labels)


def plain_beam_search(logits, beam_size):
    """The beam search of one row as the paper has it: a dictionary of beginnings."""
    p = logits.softmax(-1).tolist()
    beams = {(): (1.0, 0.0)}
    for frame in p:
        ahead = defaultdict(lambda: [0.0, 0.0])
        for labels, (blank, label) in beams.items():
            ahead[labels][0] += (blank + label) * frame[0]
            if labels:
                ahead[labels][1] += label * frame[labels[-1]]
            for c in range(1, len(frame)):
                before = blank if labels[-1:] == (c,) else blank + label
                ahead[(*labels, c)][1] += before * frame[c]
        best = sorted(ahead, key=lambda labels: -sum(ahead[labels]))[:beam_size]
        beams = {labels: ahead[labels] for labels in best}
    best = max(beams, key=lambda labels: sum(beams[labels]))
    return best, math.log(sum(beams[best]))


@pytest.mark.parametrize("beam_size", [1, 2, 3, 7])
@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_a_narrow_beam_keeps_what_a_dictionary_of_beginnings_keeps(beam_size, scale):
    logits = draw(6, 14, classes=4, seed=beam_size, scale=scale)

    labels, scores = prefix_beam_search(logits, beam_size=beam_size)

    for row, found in enumerate(written(labels)):
        expected, score = plain_beam_search(logits[row], beam_size)
        assert found == expected
        assert scores[row].item() == pytest.approx(score, abs=1e-10)


def test_labellings_of_many_alignments_are_found_that_no_single_one_spells():
    p = torch.tensor([[[0.6, 0.4], [0.6, 0.4]]])  # the likeliest path is blank, blank: 0.36

    (greedy, best) = best_path(p.log())[0], prefix_beam_search(p.log())[0]

    assert written(greedy) == [()]
    assert written(best) == [(1,)]  # three paths: 0.64


def test_the_best_path_is_the_likeliest_of_all_alignments():
    logits = draw(6, 5)

    labels, scores = best_path(logits)

    for row, found in enumerate(written(labels)):
        p = logits[row].log_softmax(-1)
        paths = {
            path: float(sum(p[t, c] for t, c in enumerate(path)))
            for path in itertools.product(range(C), repeat=5)
        }
        best = max(paths, key=paths.get)
        assert found == spelled(best)
        assert scores[row].item() == pytest.approx(paths[best])


DECODERS = [best_path, prefix_beam_search]


@pytest.mark.parametrize("decode", DECODERS)
def test_a_row_is_decoded_in_a_batch_as_alone_whatever_its_padding(decode):
    logits, lengths = draw(5, 12, classes=5, seed=3), torch.tensor([12, 7, 1, 0, 9])
    for row, length in enumerate(lengths):
        logits[row, length:] = torch.nan

    labels, scores = decode(logits, lengths)

    for row, length in enumerate(lengths):
        alone = decode(logits[row : row + 1, :length])
        assert written(labels)[row] == written(alone[0])[0]
        torch.testing.assert_close(scores[row], alone[1][0])
    assert not (labels == IGNORE).all(0).any()  # no wider than the longest


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("shape", [(0, 4, C), (2, 0, C), (0, 0, C)])
def test_without_rows_or_frames_nothing_is_written(decode, shape):
    labels, scores = decode(torch.zeros(shape))

    assert labels.shape == (shape[0], 0)
    assert scores.tolist() == [0] * shape[0]


def test_a_repeated_label_is_written_twice_only_with_a_blank_between():
    path = torch.tensor([[1, 1, 0, 1, 2, 2], [1, 0, 0, 0, 0, 1]])
    logits = 30.0 * torch.nn.functional.one_hot(path, C)

    for decode in DECODERS:
        assert written(decode(logits)[0]) == [(1, 1, 2), (1, 1)]


def test_lengths_may_be_a_list_and_logits_of_half_precision():
    logits, lengths = draw(2, 6), [6, 3]

    for decode in DECODERS:
        listed, _ = decode(logits.bfloat16(), lengths)
        given, scores = decode(logits.bfloat16(), torch.tensor(lengths))
        assert torch.equal(listed, given)
        assert scores.dtype == torch.float32


@pytest.mark.parametrize("wrong", [0, 2.5])
def test_a_beam_of_no_width_is_refused(wrong):
    with pytest.raises(ConfigError, match=f"prefix_beam_search: beam_size is {wrong}, expected"):
        prefix_beam_search(draw(1, 2), beam_size=wrong)


def test_more_labellings_than_the_beam_holds_are_refused():
    with pytest.raises(ConfigError, match="prefix_beam_search: n_best is 3, expected at most 2"):
        prefix_beam_search(draw(1, 2), beam_size=2, n_best=3)
