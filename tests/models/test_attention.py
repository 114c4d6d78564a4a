import math

import pytest
import torch

from seqnets.errors import ConfigError
from seqnets.models import BahdanauAttention, LuongAttention

B, U, T, H, M = 2, 3, 4, 3, 5
KINDS = {
    "additive": BahdanauAttention,
    "general": LuongAttention,
    "dot": lambda query_size, memory_size: LuongAttention(query_size, memory_size, "dot"),
}


def drawn(kind, width=M):
    torch.manual_seed(0)
    memory_size = H if kind == "dot" else width
    attention = KINDS[kind](H, memory_size).double()
    queries = torch.randn(B, U, H, dtype=torch.float64)
    return attention, queries, torch.randn(B, T, memory_size, dtype=torch.float64)


def product(row, vector):
    return sum(a * b for a, b in zip(row, vector, strict=True))


def additive(attention, q, m):
    """Bahdanau et al., A.1.2, read off the paper."""
    W, A = attention.query.weight.tolist(), attention.key.weight.tolist()
    b, v = attention.key.bias.tolist(), attention.score.weight.tolist()[0]
    hidden = [
        math.tanh(product(w, q) + product(a, m) + bias) for w, a, bias in zip(W, A, b, strict=True)
    ]
    return product(v, hidden)


def general(attention, q, m):
    """Luong et al., 3.1, read off the paper."""
    return product(q, [product(w, m) for w in attention.key.weight.tolist()])


def dot(attention, q, m):
    return product(q, m)


@pytest.mark.parametrize("score", [additive, general, dot])
def test_attention_follows_its_paper(score):
    attention, queries, memory = drawn(score.__name__)
    lengths = [3, 4]

    contexts, weights = attention(queries, memory, torch.tensor(lengths))

    for b in range(B):
        steps = memory[b].tolist()[: lengths[b]]
        for u, q in enumerate(queries[b].tolist()):
            e = [math.exp(score(attention, q, m)) for m in steps]
            a = [value / sum(e) for value in e]
            c = [sum(w * m[i] for w, m in zip(a, steps, strict=True)) for i in range(len(steps[0]))]

            assert weights[b, u].tolist() == pytest.approx(a + [0] * (T - lengths[b]), abs=1e-12)
            assert contexts[b, u].tolist() == pytest.approx(c, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_all_queries_at_once_are_answered_as_one_after_the_other(kind):
    attention, queries, memory = drawn(kind)
    lengths = torch.tensor([4, 2])

    whole = attention(queries, memory, lengths)
    keys = attention.keys(memory)
    single = [attention(queries[:, u, None], memory, lengths, keys) for u in range(U)]

    for part, alone in zip(whole, zip(*single, strict=True), strict=True):
        torch.testing.assert_close(torch.cat(alone, 1), part)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_past_the_end_is_never_seen(kind):
    attention, queries, memory = drawn(kind)
    lengths = torch.tensor([3, 1])
    changed = memory.clone()
    changed[0, 3:] = torch.inf
    changed[1, 1:] = torch.nan

    contexts, weights = attention(queries, memory, lengths)

    assert torch.equal(attention(queries, changed, lengths)[0], contexts)
    assert (weights[0, :, 3:] == 0).all()
    assert (weights[1, :, 0] == 1).all()


def test_a_row_without_a_step_is_answered_by_zeros():
    attention, queries, memory = drawn("general")

    contexts, weights = attention(queries, memory, torch.tensor([0, 4]))

    assert (contexts[0] == 0).all()
    assert (weights[0] == 0).all()


def test_a_product_of_different_widths_is_refused():
    with pytest.raises(ConfigError, match="queries have 3 features and the memory 5"):
        LuongAttention(3, 5, "dot")


def test_an_unknown_score_is_refused():
    with pytest.raises(ConfigError, match="score is 'concat', expected one of general, dot"):
        LuongAttention(3, 3, "concat")
