"""Sequence transduction: translation and similar tasks."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric

from seqnets.checks import (
    check_choice,
    check_count,
    check_n_best,
    check_number,
    check_probability,
)
from seqnets.datasets.scores.bleu import bleu_of, corpus_bleu, signature
from seqnets.datasets.scores.exact import exact_match
from seqnets.datasets.sequences.text_pairs import METRICS
from seqnets.datasets.text.codecs import FOREIGN, Codec, read_codec
from seqnets.insight.alignment import draw_alignment
from seqnets.insight.canvas import Picture
from seqnets.insight.visible import table
from seqnets.layers.state import leaves
from seqnets.models.decode import Decoded, beam_search, greedy
from seqnets.models.heads import upcast
from seqnets.training.metrics import Mean
from seqnets.training.objectives.base import BEFORE, Objective, Outcome, Row
from seqnets.training.objectives.rows import candidates, lengths_of, written_texts
from seqnets.training.objectives.scoring import check_targets, perplexity
from seqnets.typing import END, IGNORE, Batch, Known

logger = logging.getLogger(__name__)

PICTURES, EXAMPLES = 3, 12
"""Sentences of a batch whose attention is drawn, and that are listed as text."""


class Transduction(Objective):
    """Cross-entropy of each target token; compared by the sequences that the model decodes.

    The loss uses teacher forcing, in evaluation without label smoothing. In evaluation the model
    also decodes on its own, and its sequences are scored.

    Args:
        metric: What models are compared by: "bleu", 0..100, as sacrebleu computes it, or
            "exact_match", the share of sequences that are entirely correct.
        label_smoothing: Share of the target's probability that is spread over all tokens, in
            training (Szegedy et al., 2016, arXiv:1512.00567).
        beam_size: Beam width of decoding; 1 is greedy decoding.
        length_penalty: Exponent of the beam search's length penalty; above 0 it favours longer
            sequences (Wu et al., 2016).
        max_length: The most tokens to decode; twice the source's length plus 10 if omitted.
        n_best: If above 1, rows have so many ``candidates`` of the beam, best first, with scores.

    Raises:
        ConfigError: An option has an invalid value.
    """

    mode = "max"

    def __init__(
        self,
        metric: str = "exact_match",
        label_smoothing: float = 0.0,
        beam_size: int = 1,
        length_penalty: float = 0.6,
        max_length: int | None = None,
        n_best: int = 1,
    ) -> None:
        check_choice("Transduction", METRICS, metric=metric)
        check_probability("Transduction", label_smoothing=label_smoothing)
        check_count("Transduction", beam_size=beam_size)
        check_n_best("Transduction", n_best, beam_size)
        check_number("Transduction", least=0, length_penalty=length_penalty)
        if max_length is not None:
            check_count("Transduction", max_length=max_length)
        self.metric = metric
        self.label_smoothing = label_smoothing
        self.beam_size, self.length_penalty = beam_size, length_penalty
        self.max_length = max_length
        self.n_best = n_best

    def __call__(self, model: Any, batch: Batch, state: Any = None) -> Outcome:
        """Score each target token; in evaluation also decode.

        Predictions are ids (B, U): in training the likeliest after each target token, in evaluation
        the best decoded sequences; the ``details`` are the ``Decoded``, of ``n_best`` if above 1.
        """
        check_targets(batch.y, model.target_vocab_size)
        logits = model(batch.x, batch.y, batch.lengths)
        count = (batch.y != IGNORE).sum()
        total = F.cross_entropy(
            upcast(logits).flatten(0, 1),
            batch.y.flatten(),
            ignore_index=IGNORE,
            reduction="sum",
            label_smoothing=self.label_smoothing if model.training else 0.0,
        )
        loss = total / count.clamp(min=1)
        if model.training:
            return Outcome(loss, count, logits.detach().argmax(-1), batch.y, None)
        written = self.write(model, batch)
        return Outcome(loss, count, written.best().tokens, batch.y, None, written)

    @property
    def longest(self) -> tuple[int, int]:
        """The most tokens to decode: so many for each of the source's, and so many more."""
        return (2, 10) if self.max_length is None else (0, self.max_length)

    def write(self, model: Any, batch: Batch) -> Decoded:
        """Decode the sources of a batch."""
        lengths = batch.lengths
        if lengths is None:
            lengths = torch.full((len(batch.x),), batch.x.shape[1], device=batch.x.device)
        per_step, more = self.longest
        limits = per_step * lengths + more
        options: dict[str, Any] = {"max_length": limits, "length_penalty": self.length_penalty}
        if self.beam_size == 1:
            return greedy(model, batch.x, batch.lengths, **options)
        n_best = self.n_best if self.n_best > 1 else None
        return beam_search(
            model, batch.x, batch.lengths, beam_size=self.beam_size, n_best=n_best, **options
        )

    def metrics(self, known: Known) -> dict[str, Metric]:
        """BLEU if models are compared by it, and the share of correct sequences."""
        codec = read_codec(known["target"])
        found: dict[str, Metric] = {"exact_match": ExactMatch(codec)}
        if self.metric == "bleu":
            tokenize = known.get("tokenize", "13a")
            logger.info("BLEU is %s", signature(tokenize))
            found = {"bleu": CorpusBLEU(codec, tokenize), **found}
        return found

    def derived(self, loss: float) -> dict[str, float]:
        """The loss as perplexity per token."""
        return {"perplexity": perplexity(loss)}

    def in_metric(self, baselines: Mapping[str, float], known: Known) -> dict[str, float]:
        """Baselines of datasets without a choice of metrics are shares of exact matches."""
        return super().in_metric(baselines, {"metric": "exact_match", **known})

    def served(
        self, model: Any, x: Tensor, state: Any, lengths: Tensor | None
    ) -> tuple[dict[str, Tensor], Any]:
        """Read the source alone, and return what the decoder's steps need.

        These are the memory and its keys, if the decoder has attention, and its state before the
        first step.
        """
        memory, before = model.read(x, lengths)
        names = [f"{BEFORE}{name}" for name in model.decoder.state_names]
        state = dict(zip(names, leaves(before), strict=True))
        if memory.keys is None:
            return state, None
        keys = {} if memory.keys is memory.values else {"keys": memory.keys}
        return {"memory": memory.values, **keys, **state}, None

    def rows(self, outcome: Outcome, batch: Batch, known: Known) -> list[Row]:
        """A row per pair: the texts, the decoded sequence's score if known, and the n best.

        A word that the vocabulary lacks is written as U+FFFD; a dataset that has the text replaces
        it.
        """
        source, target = read_codec(known["source"]), read_codec(known["target"])
        sources = _sources(batch)
        written, right = outcome.predictions.tolist(), outcome.targets.tolist()
        found: Decoded | None = outcome.details
        scores = None if found is None else found.best().scores.tolist()
        several = None
        if found is not None and self.n_best > 1:
            several = candidates(found.tokens, found.scores, target.decode)
        return [
            {
                "source": source.decode(sources[number], FOREIGN),
                "prediction": target.decode(written[number]),
                "target": target.decode(ids, FOREIGN) if ids[0] != IGNORE else None,
                **({} if scores is None else {"score": scores[number]}),
                **({} if several is None else {"candidates": several[number]}),
            }
            for number, ids in enumerate(right)
        ]

    def read(self, rows: Sequence[Row], known: Known) -> tuple[Tensor, Tensor]:
        """Predicted and target texts as ids, (N, U): ``END`` last, then ``IGNORE``."""
        codec = read_codec(known["target"])
        predictions, targets = (
            _ids(codec, written_texts(rows, c)) for c in ("prediction", "target")
        )
        return predictions, targets

    def scores(self, rows: Sequence[Row], known: Known) -> dict[str, float]:
        """The metrics of the texts themselves, independent of the model's vocabulary."""
        predictions, targets = written_texts(rows, "prediction"), written_texts(rows, "target")
        found = {"exact_match": exact_match(predictions, targets)}
        if self.metric == "bleu":
            bleu, how = corpus_bleu(predictions, targets, known.get("tokenize", "13a"))
            logger.info("BLEU %.2f is %s", bleu, how)
            found = {"bleu": bleu, **found}
        return found

    def pictures(self, outcome: Outcome, batch: Batch, known: Known) -> dict[str, Picture]:
        """Attention of the first sentences of the batch, and a table of decoded texts."""
        found: dict[str, Picture] = {"written": self._table(outcome, batch, known)}
        attention = None if outcome.details is None else outcome.details.best().attention
        if attention is None:
            return found
        source, target = read_codec(known["source"]), read_codec(known["target"])
        weights = attention.float().cpu().numpy()
        sources, written = _sources(batch), outcome.predictions.tolist()
        for number in range(min(PICTURES, len(written))):
            read, wrote = source.pieces(sources[number]), target.pieces(written[number])
            shown = weights[number, : len(wrote), : len(read)]
            found[f"attention/{number}"] = draw_alignment(shown, read, wrote)
        return found

    def _table(self, outcome: Outcome, batch: Batch, known: Known) -> str:
        rows = self.rows(outcome, batch, known)[:EXAMPLES]
        texts = [(row["source"], row["prediction"], row["target"]) for row in rows]
        written = table(("source", "written", "right"), texts)
        if self.metric == "bleu":
            written += f"\n\nBLEU is {signature(known.get('tokenize', '13a'))}"
        return written


class ExactMatch(Mean):
    """The share of correct sequences, 0..1, among those with a target.

    Args:
        codec: Decodes ids to text.
    """

    higher_is_better = True

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self.codec = codec

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Add ids, (B, U) and (B, U'), ``IGNORE`` past each end."""
        pairs = _decoded(self.codec, predictions, targets)
        self.total += sum(prediction == target for prediction, target in pairs)
        self.scored += len(pairs)


class CorpusBLEU(Metric):
    """Corpus BLEU, 0..100, from sacrebleu's counts of each batch.

    Words of a target that the vocabulary lacks match nothing that can be decoded, so that with
    ``tokenize="none"`` the figure is that of the original text.

    Args:
        codec: Decodes ids to text.
        tokenize: sacrebleu's tokenizer.

    References:
        Papineni et al., 2002, "BLEU: a Method for Automatic Evaluation of Machine Translation";
        Post, 2018, "A Call for Clarity in Reporting BLEU Scores", arXiv:1804.08771.
    """

    full_state_update = False
    higher_is_better = True
    counts: Tensor
    totals: Tensor
    sizes: Tensor

    def __init__(self, codec: Codec, tokenize: str) -> None:
        super().__init__()
        self.codec, self.bleu = codec, bleu_of(tokenize)
        orders = self.bleu.max_ngram_order
        self.add_state("counts", torch.zeros(orders, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("totals", torch.zeros(orders, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("sizes", torch.zeros(2, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Add ids, (B, U) and (B, U'), ``IGNORE`` past each end."""
        pairs = _decoded(self.codec, predictions, targets)
        if not pairs:
            return
        texts, right = zip(*pairs, strict=True)
        score = self.bleu.corpus_score(list(texts), [list(right)])
        self.counts += torch.tensor(score.counts, device=self.counts.device)
        self.totals += torch.tensor(score.totals, device=self.totals.device)
        self.sizes += torch.tensor([score.sys_len, score.ref_len], device=self.sizes.device)

    def compute(self) -> Tensor:
        """BLEU of all texts added."""
        score = self.bleu.compute_bleu(
            self.counts.tolist(),
            self.totals.tolist(),
            *self.sizes.tolist(),
            smooth_method=self.bleu.smooth_method,
        ).score
        return torch.tensor(score, device=self.counts.device)


def _decoded(codec: Codec, predictions: Tensor, targets: Tensor) -> list[tuple[str, str]]:
    return [
        (codec.decode(written), codec.decode(right, FOREIGN))
        for written, right in zip(predictions.tolist(), targets.tolist(), strict=True)
        if right[0] != IGNORE
    ]


def _sources(batch: Batch) -> list[list[int]]:
    return [x[:length] for x, length in zip(batch.x.tolist(), lengths_of(batch), strict=True)]


def _ids(codec: Codec, texts: Sequence[str]) -> Tensor:
    ended = [torch.tensor([*ids, END]) for ids in codec.encode(texts)]
    return nn.utils.rnn.pad_sequence(ended, batch_first=True, padding_value=IGNORE)
