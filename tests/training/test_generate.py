import pytest
import torch

from seqnets.cells import LSTMCell
from seqnets.datasets import Vocabulary
from seqnets.errors import ConfigError, DataError, DivergenceError
from seqnets.models import LanguageModel
from seqnets.training.generate import generate

CHARACTERS = Vocabulary("\nabcd")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return LanguageModel(LSTMCell, 5, hidden_size=6, num_layers=2, dropout=0.5)


def greedy(model, ids, length):
    """Read the whole text anew for each token."""
    model.eval()
    for _ in range(length):
        logits, _ = model(torch.tensor([ids]))
        ids = [*ids, int(logits[0, -1].argmax())]
    return ids


def test_generation_with_carried_state_equals_rereading_the_text(model):
    with torch.no_grad():
        model.output.weight.mul_(20)  # decided enough to be no matter of rounding

    written = "".join(generate(model, CHARACTERS, "ab", 12, temperature=0))

    assert "ab" + written == CHARACTERS.decode(greedy(model, [1, 2], 12))


def test_a_prompt_with_line_ends_of_windows_is_read_as_a_file_of_them_is(model):
    texts = ["".join(generate(model, CHARACTERS, f"ab{end}", 9)) for end in ("\n", "\r\n")]

    assert texts[0] == texts[1]


def test_the_seed_decides_and_the_global_random_state_is_left_alone(model):
    before = torch.get_rng_state()
    texts = ["".join(generate(model, CHARACTERS, "a", 30, seed=seed)) for seed in (1, 1, 2)]

    assert texts[0] == texts[1] != texts[2]
    assert torch.equal(torch.get_rng_state(), before)


def test_pieces_come_as_they_are_chosen(model):
    pieces = generate(model, CHARACTERS, length=1_000_000_000)

    assert next(pieces) in CHARACTERS.tokens


def test_top_1_is_greedy(model):
    top = "".join(generate(model, CHARACTERS, "a", 20, top_k=1))

    assert top == "".join(generate(model, CHARACTERS, "a", 20, temperature=0))


def test_frequencies_are_those_of_the_softmax(model):
    model.eval()
    logits, _ = model(torch.tensor([[1]]))
    expected = (logits[0, -1] / 0.7).softmax(-1)

    counts = torch.zeros(5)
    for seed in range(2000):
        piece = next(generate(model, CHARACTERS, "a", 1, temperature=0.7, seed=seed))
        counts[CHARACTERS.tokens.index(piece)] += 1

    torch.testing.assert_close(counts / 2000, expected.detach(), atol=0.05, rtol=0)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_in_the_mode_it_was_in(model, training):
    model.train(training)

    next(generate(model, CHARACTERS, length=3))

    assert model.training is training


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_model_that_gives_no_finite_numbers_is_refused(model, value, temperature):
    with torch.no_grad():
        model.output.bias[2] = value

    with pytest.raises(DivergenceError, match="logits that are infinite or NaN"):
        next(generate(model, CHARACTERS, temperature=temperature))


def test_unknown_is_never_written(model):
    words = Vocabulary(["<unk>", "<eos>", "a", "b", "c"], unit="words")
    with torch.no_grad():
        model.output.bias[0] = 100.0

    written = "".join(generate(model, words, "a b", 50))

    assert "<unk>" not in written
    assert set(written.split()) <= {"a", "b", "c"}


def test_a_prompt_with_an_unknown_character_is_refused_before_anything_is_written(model):
    with pytest.raises(DataError, match="'x' at position 1"):
        generate(model, CHARACTERS, "ax")


@pytest.mark.parametrize(
    "wrong", [{"length": -1}, {"temperature": -0.1}, {"temperature": True}, {"top_k": 0}]
)
def test_invalid_options_are_refused(model, wrong):
    with pytest.raises(ConfigError, match="expected"):
        generate(model, CHARACTERS, **wrong)
