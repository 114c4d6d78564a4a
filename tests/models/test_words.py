import pytest
import torch

from seqnets.cells import LSTMCell
from seqnets.errors import ConfigError, DtypeError
from seqnets.models import ConditionalRandomField, SequenceTagger, WordEmbedding


def word(number, text, characters=6):
    data = [byte + 1 for byte in text.encode()][:characters]
    return [number, *data, *[0] * (characters - len(data))]


def embedding(**options):
    torch.manual_seed(0)
    return WordEmbedding(5, 12, characters=6, filters=8, byte_size=3, **options)


def test_a_part_of_a_vector_is_the_words_and_the_rest_its_spellings():
    x = torch.tensor([[word(2, "Paris"), word(2, "paris"), word(0, "Paris")]])

    same, lower, unknown = embedding()(x)[0]

    assert same.shape == (12,)
    assert torch.equal(same[:4], lower[:4])
    assert not torch.equal(same[4:], lower[4:])
    assert torch.equal(same[4:], unknown[4:])
    assert not torch.equal(same[:4], unknown[:4])


def test_a_spelling_is_the_largest_answer_of_each_filter_to_three_bytes_in_a_row():
    made = embedding()
    numbers = word(2, "abcdef")
    rows = torch.nn.functional.pad(made.bytes.weight[numbers[1:]], (0, 0, 1, 1))
    kernel = made.convolution.weight.unbind(-1)

    answers = [sum(w @ row for w, row in zip(kernel, rows[t:], strict=False)) for t in range(6)]
    expected = torch.stack(answers).amax(0) + made.convolution.bias

    torch.testing.assert_close(made(torch.tensor([[numbers]]))[0, 0, 4:], expected)


def test_words_become_unknown_while_training_alone():
    made = embedding(dropout=0.5)
    x = torch.tensor([[word(2, "a")]]).expand(1, 400, 7)
    known, unknown = made.words.weight[2], made.words.weight[0]

    hidden = (made(x)[0, :, :4] == unknown).all(-1)
    assert 150 < int(hidden.sum()) < 250
    assert (made.eval()(x)[0, :, :4] == known).all()


def test_an_invalid_probability_is_refused():
    with pytest.raises(ConfigError, match="dropout is 7"):
        embedding(dropout=7)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 5)])
def test_words_without_their_spelling_are_refused(shape):
    with pytest.raises(DtypeError, match=r"6 bytes each, \(B, T, 7\).*\n.*dataset\.characters"):
        embedding()(torch.zeros(shape, dtype=torch.int64))


def test_filters_that_leave_nothing_for_the_word_are_refused():
    with pytest.raises(ConfigError, match="filters is 8 with embedding_size 8"):
        WordEmbedding(5, 8, filters=8)


@pytest.mark.parametrize("option", ["characters", "byte_size"])
def test_sizes_of_a_spelling_that_are_none_are_refused(option):
    with pytest.raises(ConfigError, match=f"WordEmbedding: {option} is 0, expected a whole number"):
        WordEmbedding(5, 8, filters=2, **{option: 0})


def test_a_tagger_takes_another_embedding_and_another_output():
    model = SequenceTagger(
        LSTMCell, 4, vocab_size=5, hidden_size=6, embedding_size=12, bidirectional=True,
        embedding=lambda *sizes: WordEmbedding(*sizes, characters=6, filters=8),
        output=ConditionalRandomField,
    )  # fmt: skip
    x = torch.tensor([[word(1, "a"), word(2, "b")]])

    logits, _ = model(x)
    y, _ = model.features(x)

    assert logits.shape == (1, 2, 4)
    assert model.output.predict(y).shape == (1, 2)
