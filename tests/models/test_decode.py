import itertools
import math

import pytest
import torch

from seqnets.cells import GRUCell, LSTMCell
from seqnets.errors import ConfigError
from seqnets.models import LuongAttention, SequenceToSequence, beam_search, greedy
from seqnets.typing import END, IGNORE

X = torch.tensor([[3, 1, 4, 1, 5], [2, 6, 5, 0, 0], [3, 0, 0, 0, 0], [1, 2, 3, 4, 0]])
LENGTHS = torch.tensor([5, 3, 1, 4])
V = 4


def drawn(seed=0, cell=LSTMCell, scale=6.0, **options):
    """A model whose opinions are strong enough to differ."""
    torch.manual_seed(seed)
    model = SequenceToSequence(
        cell, V, vocab_size=7, attention=LuongAttention, hidden_size=6, bidirectional=True,
        **options,
    ).double()  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale if parameter is model.output.weight else 1.5)
    return model.eval()


def log_probability(model, row, tokens):
    """Of a target for a source, told the right token each time."""
    y = torch.tensor([tokens])
    with torch.no_grad():
        logits = model(X[row, None, : LENGTHS[row]], y)
    return float(logits.log_softmax(-1).gather(-1, y[..., None]).sum())


def written(decoded, row):
    return [token for token in decoded.tokens[row].tolist() if token != IGNORE]


def every_sequence(longest):
    """All that can be written: what ends early, and what is cut off."""
    letters = range(1, V)
    for size in range(longest):
        for inner in itertools.product(letters, repeat=size):
            yield [*inner, END]
    yield from map(list, itertools.product(letters, repeat=longest))


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_beam_wide_enough_finds_the_best_of_all_sequences(seed, alpha):
    model, longest = drawn(seed), 3

    found = beam_search(
        model, X, LENGTHS, max_length=longest, beam_size=V**longest, length_penalty=alpha
    )

    for row in range(len(X)):
        scores = {
            tuple(tokens): log_probability(model, row, tokens) / ((5 + len(tokens)) / 6) ** alpha
            for tokens in every_sequence(longest)
        }
        best = max(scores, key=scores.get)
        assert written(found, row) == list(best)
        assert float(found.scores[row]) == pytest.approx(scores[best], abs=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("n_best", [1, 7, 64])
def test_the_n_best_of_a_beam_wide_enough_are_those_of_all_sequences(n_best, alpha):
    model, longest = drawn(4), 3

    found = beam_search(
        model, X, LENGTHS, max_length=longest, beam_size=V**longest, length_penalty=alpha,
        n_best=n_best,
    )  # fmt: skip

    every = list(every_sequence(longest))  # 40, fewer than 64
    kept = min(n_best, len(every))
    for row in range(len(X)):
        scores = [
            log_probability(model, row, tokens) / ((5 + len(tokens)) / 6) ** alpha
            for tokens in every
        ]
        ranked = sorted(zip(scores, every, strict=True), reverse=True)[:kept]
        one = beam_search(
            model, X[row, None, : LENGTHS[row]], max_length=longest, beam_size=V**longest,
            length_penalty=alpha, n_best=n_best,
        )  # fmt: skip
        for place, (score, tokens) in enumerate(ranked):
            shown = found.tokens[row, place].tolist()
            assert shown[: len(tokens)] == tokens
            assert set(shown[len(tokens) :]) <= {IGNORE}
            assert float(found.scores[row, place]) == pytest.approx(score, abs=1e-5)
            assert shown[: len(tokens)] == one.tokens[0, place, : len(tokens)].tolist()
        assert (found.tokens[row, kept:] == IGNORE).all()
        assert (found.scores[row, kept:] == -math.inf).all()


def test_each_of_the_n_best_has_its_own_score_and_attention():
    model = drawn(1)

    found = beam_search(model, X, LENGTHS, max_length=6, beam_size=6, length_penalty=1.0, n_best=4)

    assert found.attention.shape == (*found.tokens.shape, X.shape[1])
    for row, place in itertools.product(range(len(X)), range(4)):
        tokens = [token for token in found.tokens[row, place].tolist() if token != IGNORE]
        score = log_probability(model, row, tokens) / ((5 + len(tokens)) / 6)
        _, weights = model.features(X[row, None, : LENGTHS[row]], torch.tensor([tokens]))
        shown = found.attention[row, place, : len(tokens), : LENGTHS[row]]
        assert float(found.scores[row, place]) == pytest.approx(score, abs=1e-5)
        torch.testing.assert_close(shown, weights[0].detach())
        assert not found.attention[row, place, len(tokens) :].any()


@pytest.mark.parametrize("beam_size", [2, 5])
def test_the_search_for_several_ends_with_as_many_as_were_asked_for(beam_size):
    for seed in range(6):
        model, options = drawn(seed), {"max_length": 12, "beam_size": beam_size}

        alone = beam_search(model, X, LENGTHS, **options)
        several = beam_search(model, X, LENGTHS, n_best=beam_size, **options)

        assert several.scores.isfinite().all()  # although fewer may have ended when the best did
        assert (several.scores.diff(dim=1) <= 0).all()
        assert torch.equal(several.scores[:, 0], alone.scores)
        for row in several.tokens.tolist():
            assert len(set(map(tuple, row))) == beam_size


def test_the_best_of_several_is_a_result_of_its_own():
    model, options = drawn(2), {"max_length": 4, "beam_size": 4}

    (first, alone) = (beam_search(model, X, LENGTHS, n_best=n, **options).best() for n in (1, None))

    for ours, theirs in zip(first, alone, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("feed", ["nothing", "output", "context"])
def test_a_beam_of_one_is_greedy(seed, feed):
    model = drawn(seed, feed=feed)
    options = {"max_length": 7, "length_penalty": 0.6}

    one, likeliest = (
        beam_search(model, X, LENGTHS, beam_size=1, **options),
        greedy(model, X, LENGTHS, **options),
    )

    assert torch.equal(one.tokens, likeliest.tokens)
    torch.testing.assert_close(one.scores, likeliest.scores)
    torch.testing.assert_close(one.attention, likeliest.attention)


@pytest.mark.parametrize("search", [greedy, beam_search])
def test_scores_and_attention_belong_to_the_returned_sequence(search):
    model = drawn(1)

    found = search(model, X, LENGTHS, max_length=6, length_penalty=1.0)

    for row in range(len(X)):
        tokens = written(found, row)
        score = log_probability(model, row, tokens) / ((5 + len(tokens)) / 6)
        _, weights = model.features(X[row, None, : LENGTHS[row]], torch.tensor([tokens]))
        shown = found.attention[row, : len(tokens), : LENGTHS[row]]
        assert float(found.scores[row]) == pytest.approx(score, abs=1e-5)
        torch.testing.assert_close(shown, weights[0].detach())


@pytest.mark.parametrize("search", [greedy, beam_search])
def test_a_row_is_written_in_a_batch_as_alone(search):
    model = drawn(2, GRUCell)

    together = search(model, X, LENGTHS, max_length=8, length_penalty=0.5)

    for row, length in enumerate(LENGTHS):
        alone = search(model, X[row, None, :length], max_length=8, length_penalty=0.5)
        assert written(together, row) == written(alone, 0)
        torch.testing.assert_close(together.scores[row], alone.scores[0])


@pytest.mark.parametrize("search", [greedy, beam_search])
def test_nothing_is_written_past_the_end_or_the_limit(search):
    for seed in range(5):
        limits = torch.tensor([1, 2, 3, 9])

        tokens = search(drawn(seed), X, LENGTHS, max_length=limits).tokens

        for row, limit in zip(tokens.tolist(), limits.tolist(), strict=True):
            kept = [token for token in row if token != IGNORE]
            assert 1 <= len(kept) <= limit
            assert END not in kept[:-1]
            assert kept == row[: len(kept)]


def test_a_model_that_never_ends_is_stopped():
    model = drawn()
    with torch.no_grad():
        model.output.bias[END] = -1e9

    for search in (greedy, beam_search):
        assert search(model, X, LENGTHS, max_length=12).tokens.shape == (4, 12)


@pytest.mark.parametrize("search", [greedy, beam_search])
def test_lengths_of_the_sources_may_be_a_list(search):
    model = drawn()

    listed, given = (search(model, X, n, max_length=4) for n in (LENGTHS.tolist(), LENGTHS))

    assert torch.equal(listed.tokens, given.tokens)


@pytest.mark.parametrize("search", [greedy, beam_search])
def test_decoding_is_deterministic(search):
    model = drawn(3)
    first, second = (search(model, X, LENGTHS, max_length=9) for _ in range(2))

    assert torch.equal(first.tokens, second.tokens)
    assert torch.equal(first.scores, second.scores)


def test_a_wider_beam_finds_what_greedy_decoding_misses():
    better = 0
    for seed in range(8):
        model = drawn(seed)
        narrow, wide = (
            beam_search(model, X, LENGTHS, max_length=5, beam_size=size).scores for size in (1, 64)
        )
        assert (wide >= narrow - 1e-9).all()
        better += int((wide > narrow + 1e-9).sum())

    assert better > 0


def test_without_attention_there_is_none_to_show():
    model = SequenceToSequence(GRUCell, V, vocab_size=7, hidden_size=6).eval()

    for search in (greedy, beam_search):
        assert search(model, X, LENGTHS, max_length=4).attention is None


def test_the_penalty_of_length_is_that_of_the_paper():
    model = drawn(1)
    plain, divided = (
        greedy(model, X[:1], max_length=5, length_penalty=alpha) for alpha in (0.0, 0.6)
    )
    size = len(written(plain, 0))

    penalty = (5 + size) ** 0.6 / (5 + 1) ** 0.6  # Wu et al., equation 14
    assert float(plain.scores[0]) / penalty == pytest.approx(float(divided.scores[0]))
    assert math.isfinite(penalty)


class Chain:
    """Tokens whose chances depend on the token before alone; a row of them for each."""

    def __init__(self, chances):
        self.logits = torch.tensor(chances).log()

    def read(self, x, lengths):
        return self, torch.zeros(len(x), 1)

    def select(self, rows):
        return self

    def write(self, last, memory, state):
        return self.logits[last], None, state


def test_a_long_sequence_stays_in_the_beam_by_its_score_for_its_length():
    a, c = 1, 3
    chain = Chain([[0.3, 0.7, 0, 0], [0, 0, 0.6, 0.4], [0.25] * 4, [1.0, 0, 0, 0]])

    plain, divided = (
        beam_search(chain, X[:1], LENGTHS[:1], max_length=6, beam_size=2, length_penalty=alpha)
        for alpha in (0.0, 1.0)
    )

    assert written(plain, 0) == [END], "0.3 is more than the 0.28 of a, c"
    assert written(divided, 0) == [a, c, END]
    assert float(divided.scores[0]) == pytest.approx(math.log(0.28) / (8 / 6))


@pytest.mark.parametrize(
    "options", [{"beam_size": 0}, {"length_penalty": -1.0}, {"max_length": 0}], ids=str
)
def test_invalid_options_are_refused(options):
    with pytest.raises(ConfigError, match="expected at least 1, 0 and 1"):
        beam_search(drawn(), X, LENGTHS, **{"max_length": 4, **options})


@pytest.mark.parametrize(
    ("n_best", "told"),
    [(6, "expected at most 5, which beam_size is"), (0, "expected a whole"), (1.0, "expected a")],
)
def test_more_than_the_beam_holds_are_refused(n_best, told):
    with pytest.raises(ConfigError, match=f"beam_search: n_best is {n_best}, {told}"):
        beam_search(drawn(), X, LENGTHS, max_length=4, beam_size=5, n_best=n_best)
