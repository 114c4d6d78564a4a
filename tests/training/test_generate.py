import itertools

import pytest
import torch

from seqnets.cells import LSTMCell
from seqnets.datasets import Vocabulary
from seqnets.errors import ConfigError, DataError, DivergenceError
from seqnets.models import LanguageModel
from seqnets.training.generate import generate, generate_several

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


LEFT = {
    "all": ({}, 5),
    "top_k": ({"top_k": 3}, 3),
    "top_p": ({"top_p": 0.9}, 3),  # at the temperature; of probabilities as they are, 4
    "top_p just met": ({"top_p": 0.826}, 2),
    "top_p not met": ({"top_p": 0.83}, 3),
    "top_p of all": ({"top_p": 1}, 5),
    "top_p below the likeliest": ({"top_p": 0.01}, 1),
    "top_p of top_k": ({"top_k": 2, "top_p": 0.6}, 1),  # 0.64 of the two; 0.53 of all
    "top_k within top_p": ({"top_k": 2, "top_p": 0.99}, 2),
}
"""Options, and how many are left of probabilities 0.53, 0.30, 0.13, 0.03 and 0.01."""


class Draws(torch.nn.Module):
    """The same logits after any token."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(logits)

    def forward(self, ids, state):
        return self.logits.expand(*ids.shape, -1), state


@pytest.mark.parametrize("name", LEFT)
def test_frequencies_are_those_of_the_likeliest_at_the_temperature(name):
    options, left = LEFT[name]
    weights = torch.tensor([0.1, 0.4, 0.05, 0.3, 0.2], dtype=torch.float64)
    squared = weights.square()  # as a temperature of 0.5 does
    expected = squared.masked_fill(weights < weights.sort().values[-left], 0)
    expected /= expected.sum()

    texts = generate_several(
        Draws(weights.log().float() + 7), CHARACTERS, 100, length=200, temperature=0.5, **options
    )

    written = torch.tensor([CHARACTERS.tokens.index(c) for c in "".join(texts)])
    shares = written.bincount(minlength=5) / len(written)
    assert len(written) == 20_000
    assert shares[expected == 0].sum() == 0
    torch.testing.assert_close(shares.double(), expected, atol=0.012, rtol=0)


def test_each_of_several_texts_is_drawn_by_itself_after_its_own_tokens(model):
    with torch.no_grad():
        model.output.weight.mul_(3)
        expected = {}
        for text in map("".join, itertools.product(CHARACTERS.tokens, repeat=2)):
            ids = CHARACTERS.encode(f"ab{text}")
            steps = model.eval()(ids[None])[0][0, 1:3].log_softmax(-1)
            expected[text] = float(steps.gather(1, ids[2:, None]).sum().exp())

    texts = generate_several(model, CHARACTERS, 20_000, "ab", 2)

    assert sum(expected.values()) == pytest.approx(1)
    for text, probability in expected.items():
        assert texts.count(text) / 20_000 == pytest.approx(probability, abs=0.012)


@pytest.mark.parametrize("options", [{}, {"top_p": 0.8, "stop": "a"}, {"temperature": 0}], ids=str)
def test_one_of_several_texts_is_the_one_that_is_written_alone(model, options):
    (text,) = generate_several(model, CHARACTERS, 1, "b", 40, **{"seed": 3, **options})

    assert text == "".join(generate(model, CHARACTERS, "b", 40, **{"seed": 3, **options}))


def test_without_filters_samples_stay_what_they_were(model):
    """As they were before there was anything but a temperature and ``top_k``."""
    plain = "".join(generate(model, CHARACTERS, "ab", 24, 0.8, 3, 7))

    assert plain == "aacaccabbbbcaacaacacabaa"
    assert plain == "".join(generate(model, CHARACTERS, "ab", 24, 0.8, 3, 7, top_p=1.0, stop="x"))


@pytest.mark.parametrize("stop", ["c", "a\n", "bbc"])
def test_a_text_ends_with_the_first_stop_text(stop):
    says_anything, prompt = Draws(torch.zeros(5)), f"a{stop[:-1]}"  # which does not count

    for seed in range(8):
        whole, text = (
            "".join(generate(says_anything, CHARACTERS, prompt, 1200, seed=seed, stop=end))
            for end in ("", stop)
        )
        assert text == whole[: whole.index(stop) + len(stop)]


def test_several_texts_end_each_at_its_own_stop_text_and_are_drawn_as_without():
    model = Draws(torch.zeros(5))

    whole = generate_several(model, CHARACTERS, 30, length=60)
    stopped = generate_several(model, CHARACTERS, 30, length=60, stop="ab")

    assert stopped == [text if "ab" not in text else text[: text.index("ab") + 2] for text in whole]
    assert len({len(text) for text in stopped}) > 10


def test_no_step_is_taken_after_the_last_text_has_ended():
    class Counts(Draws):
        steps = 0

        def forward(self, ids, state):
            self.steps += 1
            return super().forward(ids, state)

    said = Counts(torch.tensor([0.0, 0.0, 50.0, 0.0, 0.0]))

    assert generate_several(said, CHARACTERS, 3, length=9, stop="bb") == ["bb"] * 3
    assert said.steps == 2
    assert "".join(generate(said, CHARACTERS, length=9, stop="bb")) == "bb"
    assert said.steps == 4


def test_a_stop_text_may_end_within_a_token():
    words = Vocabulary(["<unk>", "<eos>", "so", "done"], unit="words")
    says_done = Draws(torch.tensor([0.0, 0.0, 0.0, 60.0]))

    for stop, written in [(" do", " do"), ("e d", " done d"), ("ne", " done")]:
        assert "".join(generate(says_done, words, "so", 5, stop=stop)) == written


def test_several_of_the_likeliest_text_are_refused(model):
    with pytest.raises(ConfigError, match="samples is 2 and temperature 0, expected one sample"):
        generate_several(model, CHARACTERS, 2, temperature=0)


@pytest.mark.parametrize("samples", [0, 1.5, True])
def test_a_number_of_texts_that_is_none_is_refused(model, samples):
    with pytest.raises(ConfigError, match=f"generate: samples is {samples}, expected a whole"):
        generate_several(model, CHARACTERS, samples)


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
    "wrong",
    [
        {"length": -1},
        {"temperature": -0.1},
        {"temperature": True},
        {"top_k": 0},
        {"top_p": 0},
        {"top_p": 1.1},
        {"top_p": float("nan")},
        {"top_p": True},
    ],
    ids=str,
)
def test_invalid_options_are_refused(model, wrong):
    (name,) = wrong
    with pytest.raises(ConfigError, match=f"generate: {name} is {wrong[name]}, expected a"):
        generate(model, CHARACTERS, **wrong)
    with pytest.raises(ConfigError, match=f"generate: {name} is"):
        generate_several(model, CHARACTERS, 2, **wrong)
