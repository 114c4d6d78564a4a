from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from seqnets.datasets import (
    EvaluationStream,
    PairFiles,
    Parity,
    SequenceLoader,
    Sequences,
    SeriesTable,
    TextFiles,
    TrainingStream,
    Windows,
)
from seqnets.datasets.augmentation import Noise, Stretch
from seqnets.datasets.augmentation.augmenter import Augmenter
from seqnets.errors import CheckpointError, ConfigError, DataError
from seqnets.typing import IGNORE, Batch


def training_stream(seed=0):
    return TrainingStream(np.arange(1000), batch_size=3, chunk_length=7, seed=seed)


def varied_stream(seed=0):
    return TrainingStream(np.arange(1000), batch_size=3, chunk_length=20, seed=seed, spread=4.0)


def evaluation_stream():
    return EvaluationStream(np.arange(1000), batch_size=3, chunk_length=7)


def shuffled_sequences(count=50, batch_size=8):
    lengths = torch.arange(count) % 5 + 1
    x = torch.repeat_interleave(torch.arange(count), lengths)
    return SequenceLoader(Sequences(x, lengths, torch.arange(count)), batch_size, shuffle=True)


def augmented_sequences():
    lengths = torch.arange(50) % 5 + 1
    x = torch.arange(float(lengths.sum()))[:, None]
    augmenter = Augmenter("Data", [Stretch(0.5, 2), Noise()], x)
    sequences = Sequences(x, lengths, torch.arange(50))
    return SequenceLoader(sequences, 8, shuffle=True, augmenter=augmenter)


LOADERS = [
    training_stream,
    varied_stream,
    evaluation_stream,
    shuffled_sequences,
    augmented_sequences,
]


def same(left: Batch, right: Batch) -> bool:
    pairs = zip(left[:3], right[:3], strict=True)
    equal = all(a is b is None or (a is not None and torch.equal(a, b)) for a, b in pairs)
    return equal and left.carry == right.carry


def all_same(left: list[Batch], right: list[Batch]) -> bool:
    return len(left) == len(right) and all(map(same, left, right))


@pytest.mark.parametrize("make", LOADERS)
@pytest.mark.parametrize("epoch", [0, 1])
def test_a_restored_loader_yields_exactly_the_batches_that_were_left(make, epoch):
    loader = make()
    loader.set_epoch(epoch)
    whole = list(loader)

    for done in range(len(whole) + 1):
        stopped, resumed = make(), make()
        stopped.set_epoch(epoch)
        batches = iter(stopped)
        for _ in range(done):
            next(batches)
        resumed.load_state_dict(stopped.state_dict())
        assert all_same(list(resumed), whole[done:])


@pytest.mark.parametrize("make", LOADERS)
def test_a_restored_loader_continues_with_the_next_epoch(make):
    whole, resumed = make(), make()
    list(whole)
    second = list(whole)

    resumed.load_state_dict({"epoch": 0, "batches": 2})
    list(resumed)
    assert all_same(list(resumed), second)


@pytest.mark.parametrize("make", LOADERS)
def test_the_epoch_may_be_set_after_the_iterator_was_made(make):
    loader, expected = make(), make()
    expected.set_epoch(3)

    batches = iter(loader)
    loader.set_epoch(3)
    assert all_same(list(batches), list(expected))


@pytest.mark.parametrize("make", LOADERS)
def test_setting_the_epoch_that_a_loader_was_restored_to_keeps_its_position(make):
    loader, whole = make(), make()
    whole.set_epoch(1)

    loader.load_state_dict({"epoch": 1, "batches": 2})
    loader.set_epoch(1)
    assert all_same(list(loader), list(whole)[2:])


@pytest.mark.parametrize("make", LOADERS)
def test_a_restored_position_does_not_outlive_its_epoch(make):
    loader = make()

    loader.load_state_dict({"epoch": 0, "batches": len(loader)})
    loader.set_epoch(1)
    assert loader.state_dict().items() >= {"epoch": 1, "batches": 0}.items()
    assert len(list(loader)) == len(loader)


@pytest.mark.parametrize("make", LOADERS)
def test_a_pass_that_was_left_early_starts_again_from_the_front(make):
    loader = make()
    first = next(iter(loader))

    assert same(next(iter(loader)), first)


@pytest.mark.parametrize("make", LOADERS)
def test_length_is_that_of_a_whole_epoch_in_every_epoch_and_after_restoring(make):
    loader = make()
    length = len(loader)
    assert [sum(1 for _ in loader) for _ in range(4)] == [length] * 4

    loader.load_state_dict({"epoch": 0, "batches": 3})
    assert len(loader) == length


@pytest.mark.parametrize("make", LOADERS)
def test_a_position_beyond_the_epoch_is_refused(make):
    loader = make()

    with pytest.raises(CheckpointError, match="expected 0 to"):
        loader.load_state_dict({"epoch": 0, "batches": len(loader) + 1})


@pytest.mark.parametrize("make", LOADERS)
def test_a_sample_does_not_change_a_loaders_position(make):
    loader, whole = make(), make()
    rest = iter(loader)
    next(rest)

    some = loader.sample()

    assert some.x.shape[0] == next(iter(whole)).x.shape[0]
    assert all_same(list(rest), list(whole)[1:])


def test_a_sample_is_evenly_spaced():
    y = torch.arange(10).repeat_interleave(8)
    sequences = Sequences(torch.zeros(160, 1), torch.full((80,), 2), y)

    assert SequenceLoader(sequences, 12).sample().y.unique().tolist() == list(range(10))
    assert len(SequenceLoader(sequences, 100).sample().x) == 80


@pytest.mark.parametrize("make", LOADERS)
def test_the_global_random_states_are_left_alone(make):
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]

    list(make())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()


@pytest.mark.parametrize("make", [training_stream, varied_stream, shuffled_sequences])
def test_epochs_differ_and_their_order_does_not_depend_on_the_global_seed(make):
    torch.manual_seed(1)
    first, second = (lambda loader: (list(loader), list(loader)))(make())
    torch.manual_seed(2)

    assert not all_same(first, second)
    assert all_same(first, list(make()))


def test_another_seed_gives_another_order():
    assert not all_same(list(training_stream(seed=0)), list(training_stream(seed=1)))


def test_targets_are_the_next_tokens():
    for batch in training_stream():
        assert torch.equal(batch.y, batch.x + 1)
        assert batch.x.shape == (3, 7)
        assert batch.x.dtype == batch.y.dtype == torch.int64


@pytest.mark.parametrize("make", [training_stream, varied_stream, evaluation_stream])
def test_rows_continue_from_batch_to_batch(make):
    batches = list(make())

    assert [batch.carry for batch in batches] == [False] + [True] * (len(batches) - 1)
    for before, after in pairwise(batches):
        assert torch.equal(after.x[:, 0], before.y[:, -1])


@pytest.mark.parametrize("make", [training_stream, varied_stream])
def test_every_training_token_is_reached_in_some_epoch(make):
    loader = make()
    seen = torch.cat([batch.y.flatten() for _ in range(100) for batch in loader])

    assert set(seen.tolist()) == set(range(1, 1000))


def test_chunks_of_drawn_lengths_fill_the_rows_as_equal_ones_would():
    ids = np.arange(100_000)
    equal, varied = (TrainingStream(ids, 4, 70, spread=spread) for spread in (0.0, 5.0))
    lengths = np.concatenate([[b.x.shape[1] for b in varied] for _ in range(5)])
    (usual,) = {batch.x.shape[1] for batch in equal}

    assert len(varied) == len(equal)
    assert lengths.sum() == 5 * len(equal) * usual
    half = lengths < 52
    assert 0.03 < half.mean() < 0.07
    assert 70 < lengths[~half].mean() < 74
    assert 4.5 < lengths[~half].std() < 5.5


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_no_drawn_chunk_is_empty(steps):
    stream = TrainingStream(np.arange(3000), 3, steps, spread=float(steps))
    lengths = [batch.x.shape[1] for batch in stream]

    assert min(lengths) >= 1
    assert sum(lengths) == len(stream) * steps


@pytest.mark.parametrize("tokens", [4, 5, 22, 23, 24, 25, 26, 43, 44, 100, 1000])
def test_evaluation_scores_every_token_after_the_first_exactly_once(tokens):
    batches = list(EvaluationStream(np.arange(tokens), batch_size=3, chunk_length=7))
    scored = torch.cat([batch.y[batch.y != IGNORE] for batch in batches])

    assert sorted(scored.tolist()) == list(range(1, tokens))


@pytest.mark.parametrize("tokens", [4, 5, 23, 24, 25, 43, 44, 100])
def test_evaluation_rows_are_padded_only_where_their_lengths_say_so(tokens):
    *full, last = EvaluationStream(np.arange(tokens), batch_size=3, chunk_length=7)

    assert all(batch.lengths is None and (batch.y == batch.x + 1).all() for batch in full)
    lengths = last.lengths if last.lengths is not None else torch.full((3,), last.x.shape[1])
    assert lengths.min() >= 1
    assert torch.equal((last.y != IGNORE).sum(1), lengths)
    for x, y, length in zip(last.x, last.y, lengths, strict=True):
        assert torch.equal(y[:length], x[:length] + 1)
        assert (x[length:] == 0).all()


@pytest.mark.parametrize(("stream", "tokens"), [(TrainingStream, 4 * 7 - 1), (EvaluationStream, 3)])
def test_a_stream_shorter_than_its_rows_is_refused_with_the_numbers(stream, tokens):
    with pytest.raises(DataError, match=rf"got {tokens} tokens, expected at least {tokens + 1}"):
        stream(np.arange(tokens), batch_size=3, chunk_length=7)
    assert len(stream(np.arange(tokens + 1), batch_size=3, chunk_length=7)) == 1


def test_sequences_are_padded_with_zeros_to_the_longest_of_the_batch():
    x = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0], [6.0]])
    sequences = Sequences(x, torch.tensor([1, 3, 2]), torch.tensor([7, 8, 9]))
    loader = SequenceLoader(sequences, batch_size=2)
    first, second = loader

    assert first.x.squeeze(2).tolist() == [[1, 0, 0], [2, 3, 4]]
    assert first.y.tolist() == [7, 8]
    assert first.lengths is not None
    assert first.lengths.tolist() == [1, 3]
    assert second.x.squeeze(2).tolist() == [[5, 6]]


def test_labels_past_the_end_of_a_sequence_are_ignored():
    x = torch.arange(4)
    sequences = Sequences(x, torch.tensor([1, 3]), x + 10, stepwise=True)
    (batch,) = SequenceLoader(sequences, batch_size=2)

    assert batch.y.tolist() == [[10, IGNORE, IGNORE], [11, 12, 13]]


def test_sequences_of_one_length_have_no_lengths():
    sequences = Sequences(torch.zeros(6, 1), torch.tensor([3, 3]), torch.tensor([0, 1]))
    (batch,) = SequenceLoader(sequences, batch_size=2)

    assert batch.lengths is None


def test_an_epoch_has_every_sequence_once_and_a_smaller_last_batch():
    batches = list(shuffled_sequences(count=50, batch_size=8))

    assert [len(batch.y) for batch in batches] == [8] * 6 + [2]
    assert sorted(torch.cat([batch.y for batch in batches]).tolist()) == list(range(50))


@pytest.mark.parametrize("count", [2, 3, 7, 8, 9, 16, 17, 50])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_two_processes_see_every_sequence_once_in_equally_many_batches(
    as_process, count, batch_size
):
    shares = []
    for rank in range(2):
        with as_process(rank, 2):
            shares.append([batch.y for batch in shuffled_sequences(count, batch_size)])

    assert len(shares[0]) == len(shares[1])
    assert all(len(y) > 0 for share in shares for y in share)
    assert sorted(torch.cat([*shares[0], *shares[1]]).tolist()) == list(range(count))


@pytest.mark.parametrize("tokens", [7, 8, 43, 44, 45, 85, 86, 1000])
def test_two_processes_score_every_token_once_in_equally_many_batches(as_process, tokens):
    shares = []
    for rank in range(2):
        with as_process(rank, 2):
            shares.append([b.y for b in EvaluationStream(np.arange(tokens), 3, 7)])
    scored = torch.cat([y[y != IGNORE] for share in shares for y in share])

    assert len(shares[0]) == len(shares[1])
    assert all((y != IGNORE).any() for share in shares for y in share)
    assert sorted(scored.tolist()) == list(range(1, tokens))


def test_two_processes_train_on_different_tokens_in_equally_many_batches(as_process):
    shares = []
    for rank in range(2):
        with as_process(rank, 2):
            shares.append([batch.y for batch in training_stream()])
    seen = torch.cat([y.flatten() for share in shares for y in share]).tolist()

    assert len(shares[0]) == len(shares[1])
    assert len(seen) == len(set(seen)) >= 1000 - 2 * 3 * 7 - 7


def test_fewer_sequences_than_processes_are_refused(as_process):
    with as_process(0, 2), pytest.raises(DataError, match="got 1 sequence, expected at least 2"):
        shuffled_sequences(count=1)


def ragged_loader(bucket_batches):
    count = 103
    lengths = torch.from_numpy(np.random.default_rng(0).integers(1, 200, count))
    numbers = torch.repeat_interleave(torch.arange(count), lengths).float()[:, None]
    data = Sequences(numbers, lengths, torch.arange(count))
    return SequenceLoader(data, 4, shuffle=True, bucket_batches=bucket_batches)


def test_buckets_reduce_padding_and_keep_every_sequence():
    plain, bucketed = ragged_loader(1), ragged_loader(20)

    seen = torch.cat([batch.y for batch in bucketed])
    assert sorted(seen.tolist()) == list(range(103))
    assert bucketed.padding < 0.15 < 0.3 < plain.padding


def test_padding_is_the_share_of_steps_that_lie_outside_the_sequences():
    loader = ragged_loader(5)
    told = loader.padding

    batches = list(loader)
    steps = sum(batch.x.shape[0] * batch.x.shape[1] for batch in batches)
    assert told == pytest.approx(1 - sum(int(b.lengths.sum()) for b in batches) / steps)


def test_lengths_are_asked_for_once_for_the_padding_of_all_batches(monkeypatch):
    asked = []
    lengths = property(lambda self: asked.append(self) or torch.full_like(self.starts, 3))
    monkeypatch.setattr(Windows, "lengths", lengths)  # which it makes anew for each that asks
    windows = Windows(torch.zeros(60, 1), torch.zeros(60, 1), torch.arange(50), 3, 2)

    assert SequenceLoader(windows, 4).padding == 0
    assert len(asked) == 1


def test_padding_is_that_of_the_batches_of_all_processes(as_process):
    filled = whole = 0
    for rank in range(3):
        with as_process(rank, 3):
            loader = ragged_loader(5)
            told = loader.padding
            for batch in loader:
                filled += int(batch.lengths.sum())
                whole += batch.x.shape[0] * batch.x.shape[1]

    assert told == pytest.approx(1 - filled / whole)


def test_batches_of_similar_lengths_come_in_a_random_order_that_an_epoch_decides():
    loader = ragged_loader(26)
    first, second = ([batch.x.shape[1] for batch in loader] for _ in range(2))

    assert first != second
    assert first != sorted(first)


def test_a_bucketed_loader_resumes_its_position():
    whole, resumed = ragged_loader(6), ragged_loader(6)
    expected = [batch.y.tolist() for batch in whole]
    resumed.load_state_dict({"epoch": 0, "batches": 11})

    assert [batch.y.tolist() for batch in resumed] == expected[11:]


def test_no_rows_make_an_empty_batch_and_no_sequences():
    sequences = Sequences(torch.rand(5, 2), torch.tensor([2, 3]), torch.tensor([0, 1]))
    none = torch.tensor([], dtype=torch.int64)

    batch = sequences.batch(none)

    assert (batch.x.shape, batch.y.shape) == ((0, 0, 2), (0,))
    assert len(sequences.select(none)) == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda path: Parity(),
        lambda path: SeriesTable(path, lookback=8, horizon=2),
        lambda path: TextFiles(path),
        lambda path: PairFiles(source_path=path, target_path=path, unit="words"),
    ],
)
def test_a_part_that_there_is_not_is_refused_with_those_that_there_are(make, tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("a,b\n" + "1,2\n2,1\n" * 200)
    data = make(str(path))

    for asked in (data.loader, data.numbers, lambda part: data.examples(part, 2)):
        with pytest.raises(ConfigError, match="part is 'tset', expected one of train, val, test"):
            asked("tset")


@pytest.mark.parametrize(
    ("make", "wrong", "right"), [(Parity, "trainsize", "train_size"), (TextFiles, "cach", "cache")]
)
def test_a_dataset_that_was_called_answers_a_wrong_option_with_the_one_that_was_meant(
    make, wrong, right
):
    told = f"^{make.__name__}: unexpected keyword argument '{wrong}', expected {right}"

    with pytest.raises(TypeError, match=told):
        make("a.txt", **{wrong: 1})


def test_hyperparameters_that_a_users_base_saves_are_those_of_the_class_that_was_made():
    class Base(Parity):
        def __init__(self, length):
            super().__init__(length)
            self.save_hyperparameters()

    class Mine(Base):
        def __init__(self, length, note):
            super().__init__(length)

    assert Mine(3, "short").hparams == {"length": 3, "note": "short"}
