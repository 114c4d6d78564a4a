"""Connectionist temporal classification: labels of a sequence without their places in it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from seqnets.alignment import frames_needed
from seqnets.checks import check_count, check_n_best
from seqnets.errors import DataError, ShapeError, counted
from seqnets.layers.lengths import checked_lengths, valid_steps
from seqnets.models.heads import upcast
from seqnets.typing import BLANK, IGNORE


def ctc_loss(logits: Tensor, targets: Tensor, lengths: Tensor | None = None) -> Tensor:
    r"""The negative log-probability of the targets, summed over the rows, in nats.

    A frame has a label or none (``BLANK``). An alignment is one such choice for each frame; it
    spells the labels that are left once repetitions and then blanks are dropped, so that between
    two labels that are the same there is a blank. Frames are independent, and the probability of a
    target is the sum over all its alignments:

    .. math::
        p(y \mid x) = \sum_{\pi \to y} \prod_{t=1}^T p_t(\pi_t)

    Everything after the logits is computed in float32 at least. On a GPU the gradient is summed in
    no fixed order, unless ``torch.use_deterministic_algorithms(True)``: then on the CPU.

    Args:
        logits: Logits of the classes of each frame, (B, T, C); class ``BLANK`` is not a label.
        targets: Labels, 1..C-1, (B, U) int64; ``IGNORE`` past the end. A target may be empty.
        lengths: Valid frames of each row, (B,); all T if omitted.

    Raises:
        ShapeError: Logits and targets differ in their number of rows, or a length is outside 0..T.
        DataError: A target is not a label, or has more labels than its row's frames can spell
            (:func:`frames_needed`), so that its probability is 0; checked on CPUs only.

    References:
        Graves et al., 2006, "Connectionist Temporal Classification: Labelling Unsegmented Sequence
        Data with Recurrent Neural Networks".
    """
    B, T, C = logits.shape
    if targets.dim() != 2 or len(targets) != B:
        raise ShapeError(
            f"ctc_loss: targets have shape {tuple(targets.shape)}, expected ({B}, U), a row of "
            f"labels for each of logits {tuple(logits.shape)}."
        )
    frames = checked_lengths("ctc_loss", lengths, logits)
    if frames is None:
        frames = torch.full((B,), T, device=logits.device)
    if targets.device.type == "cpu":  # elsewhere this would synchronise
        _check_labels(targets, C)
        _check_room(targets, frames)
    if not (B and T):  # and no labels
        return upcast(logits).sum()
    log_probs, known = upcast(logits).log_softmax(-1).transpose(0, 1), targets != IGNORE
    inputs = log_probs, targets.masked_fill(~known, BLANK), frames, known.sum(1)
    place = "cpu" if torch.are_deterministic_algorithms_enabled() else logits.device
    log_probs, labels, frames, sizes = (tensor.to(place) for tensor in inputs)
    loss = F.ctc_loss(log_probs, labels, frames, sizes, blank=BLANK, reduction="sum")
    return loss.to(logits.device)


@torch.no_grad()
def best_path(logits: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Decode by the likeliest class of each frame.

    Args:
        logits: Logits of the classes of each frame, (B, T, C).
        lengths: Valid frames of each row, (B,); all T if omitted.

    Returns:
        Labels, (B, U) int64, ``IGNORE`` past the end, and the log-probability of this one
        alignment, (B,).

    Raises:
        ShapeError: A length is outside 0..T.
    """
    scores, path = _certain_past_the_end("best_path", logits, lengths).max(-1)
    before = F.pad(path, (1, 0), value=BLANK)[:, :-1]
    return _closed_up(path.masked_fill((path == BLANK) | (path == before), IGNORE)), scores.sum(1)


@torch.no_grad()
def prefix_beam_search(
    logits: Tensor,
    lengths: Tensor | None = None,
    beam_size: int = 10,
    n_best: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Decode by the likeliest labels, whose alignments are counted together.

    Frame by frame, the likeliest beginnings of a labelling are kept, each with the probability of
    all its alignments so far. Those of a beginning that was dropped are lost: the more are kept,
    the nearer is the result to the likeliest labelling and its probability.

    Args:
        logits: Logits of the classes of each frame, (B, T, C).
        lengths: Valid frames of each row, (B,); all T if omitted.
        beam_size: Beginnings kept at each frame, K.
        n_best: Return this many labellings of each row, N, at most ``beam_size``; if omitted, the
            likeliest one without a dimension for them.

    Returns:
        Labels, (B, U) int64, ``IGNORE`` past the end, and their log-probability, (B,), summed over
        the alignments found. Of ``n_best`` they are (B, N, U) and (B, N), likeliest first; where
        fewer were found, minus infinity and all ``IGNORE``.

    Raises:
        ConfigError: ``beam_size`` or ``n_best`` is not positive, or there are fewer in the beam.
        ShapeError: A length is outside 0..T.

    References:
        Graves et al., 2006, 3.2, for prefix search; Hannun et al., 2014, "First-Pass Large
        Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent DNNs",
        arXiv:1408.2873, for its beam, here without a language model.
    """
    check_count("prefix_beam_search", beam_size=beam_size)
    if n_best is not None:
        check_n_best("prefix_beam_search", n_best, beam_size)
    log_probs = _certain_past_the_end("prefix_beam_search", logits, lengths)
    beams = _Prefixes(log_probs, beam_size)
    for frame in log_probs.unbind(1):
        beams.read(frame)
    labels, scores = beams.best(n_best or 1)
    return (labels[:, 0], scores[:, 0]) if n_best is None else (labels, scores)


class _Prefixes:
    """The K likeliest beginnings of each row's labelling after the frames so far.

    Args:
        log_probs: Log-probabilities of all frames, (B, T, C).
        beam_size: Beginnings of a row, K.

    Attributes:
        last: The last label of each, (B, K); ``BLANK`` of the empty one.
        blank: Log-probability of its alignments that end with a blank, (B, K).
        label: Log-probability of those that end with its last label, (B, K).
        code: A 64-bit hash of its labels, (B, K).
        stem: The same without the last one.
        steps: For each frame, the beginnings that were continued and the new labels, (B, K).
    """

    def __init__(self, log_probs: Tensor, beam_size: int) -> None:
        B, _, C = log_probs.shape
        self.classes = torch.arange(C, device=log_probs.device)
        self.last = torch.full((B, beam_size), BLANK, device=log_probs.device)
        self.blank = log_probs.new_full(self.last.shape, -torch.inf)
        self.blank[:, 0] = 0  # one empty beginning; the others are none yet
        self.label = torch.full_like(self.blank, -torch.inf)
        self.code, self.stem = torch.zeros_like(self.last), torch.full_like(self.last, -1)
        self.steps: list[tuple[Tensor, Tensor]] = []

    def read(self, frame: Tensor) -> None:
        """Keep the best K of all beginnings with one more frame.

        Args:
            frame: Log-probabilities of the classes, (B, C).
        """
        C, total = frame.shape[1], torch.logaddexp(self.blank, self.label)
        # The same label again is a new one only after a blank
        repeats = self.last[..., None] == self.classes
        longer = torch.where(repeats, self.blank[..., None], total[..., None]) + frame[:, None]
        again = self.label + frame.gather(1, self.last)

        # A beginning that is another and one more label, (B, K, K), has that one's alignments, too
        extends = (self.stem[:, None] == self.code[..., None]) & (total > -torch.inf)[:, None]
        gained = longer.gather(2, self.last[:, None].expand_as(extends))
        again = torch.logaddexp(again, gained.masked_fill(~extends, -torch.inf).amax(1))
        counted_there = extends.to(frame.dtype) @ repeats.to(frame.dtype) > 0
        longer = longer.masked_fill(counted_there, -torch.inf)

        rests = total + frame[:, BLANK, None]
        longer[..., BLANK] = torch.logaddexp(rests, again)  # no further label
        best, places = longer.flatten(1).topk(self.last.shape[1], 1)  # (B, K), best first
        parents, added = places // C, places % C
        stays = added == BLANK
        self.blank = rests.gather(1, parents).masked_fill(~stays, -torch.inf)
        self.label = torch.where(stays, again.gather(1, parents), best)

        code, stem, last = (each.gather(1, parents) for each in (self.code, self.stem, self.last))
        self.code = torch.where(stays, code, _hashed(code, added))
        self.stem, self.last = torch.where(stays, stem, code), torch.where(stays, last, added)
        self.steps.append((parents, added.masked_fill(stays, IGNORE)))

    def best(self, n_best: int) -> tuple[Tensor, Tensor]:
        """The N likeliest labels of each row, (B, N, U), and their log-probabilities, (B, N)."""
        total = torch.logaddexp(self.blank, self.label)
        ranked = total.sort(dim=1, descending=True, stable=True)
        scores, places = (part[:, :n_best] for part in ranked)
        written = [places.new_empty(*places.shape, 0)]
        missing = scores == -torch.inf
        for parents, added in reversed(self.steps):
            written.append(added.gather(1, places).masked_fill(missing, IGNORE)[..., None])
            places = parents.gather(1, places)
        labels = _closed_up(torch.cat(written[::-1], 2).flatten(0, 1))
        return labels.unflatten(0, scores.shape), scores


def _hashed(code: Tensor, label: Tensor) -> Tensor:
    """The code of labels and one more; two sequences share one by a chance of about 1 in 2^64."""
    mixed = (code + label) * 0x5851F42D4C957F2D  # overflows on purpose
    return mixed ^ (mixed >> 32 & 0xFFFFFFFF)


def _closed_up(written: Tensor) -> Tensor:
    """The labels of each row, (B, U), of (B, T) in which some entries are ``IGNORE``."""
    places = (written != IGNORE).cumsum(1) - 1
    longest = int(places.max()) + 1 if places.numel() else 0
    labels = written.new_full((len(written), longest), IGNORE)
    rows, frames = (written != IGNORE).nonzero(as_tuple=True)
    labels[rows, places[rows, frames]] = written[rows, frames]
    return labels


def _certain_past_the_end(who: str, logits: Tensor, lengths: Tensor | None) -> Tensor:
    """Log-probabilities of the classes, (B, T, C); past a row's end a blank is certain."""
    lengths = checked_lengths(who, lengths, logits)
    log_probs = upcast(logits).log_softmax(-1)
    if lengths is None:
        return log_probs
    certain = log_probs.new_full(logits.shape[-1:], -torch.inf)
    certain[BLANK] = 0
    return torch.where(valid_steps(logits, lengths)[..., None], log_probs, certain)


def _check_labels(targets: Tensor, classes: int) -> None:
    known = targets != IGNORE
    wrong = known & ((targets <= BLANK) | (targets >= classes))
    wrong[:, 1:] |= known[:, 1:] & ~known[:, :-1]
    if wrong.any():
        row, place = wrong.nonzero()[0].tolist()
        raise DataError(
            f"ctc_loss: label {place} of row {row} is {int(targets[row, place])}, expected "
            f"1..{classes - 1}, and {IGNORE} past the last one."
        )


def _check_room(targets: Tensor, frames: Tensor) -> None:
    needed = frames_needed(targets)
    short = needed > frames
    if short.any():
        row = int(short.nonzero()[0, 0])
        raise DataError(
            f"ctc_loss: row {row} has {counted(int(frames[row]), 'frame')}, expected at least "
            f"{int(needed[row])}, which its "
            f"{counted(int((targets[row] != IGNORE).sum()), 'label')} need: one for each, and one "
            f"more between two that are the same.\n"
            "  Convolutions with a smaller stride leave more frames."
        )
