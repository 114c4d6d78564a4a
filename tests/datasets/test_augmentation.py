"""Random changes of training batches, and what they leave as it is."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from seqnets.alignment import frames_needed
from seqnets.cells import GRUDCell, PhasedLSTMCell
from seqnets.datasets import (
    ClassificationFiles,
    NextSteps,
    PairData,
    Pairs,
    SequenceData,
    Sequences,
    Splits,
    TaggingFiles,
    TokenCodec,
    TranscriptionFiles,
)
from seqnets.datasets.augmentation import (
    Crop,
    Noise,
    Scale,
    SpecAugment,
    Stretch,
    TimeAugmentation,
    ValueAugmentation,
)
from seqnets.datasets.augmentation.augmenter import Augmenter
from seqnets.datasets.parts import PARTS
from seqnets.errors import ConfigError, DtypeError, ShapeError
from seqnets.models import SequenceClassifier
from seqnets.typing import IGNORE, Batch

LENGTHS = torch.tensor([40, 7, 1, 25])
EACH = [Noise(), Scale(), SpecAugment(), Stretch(0.5, 2), Crop(0.5)]
NAMES = [type(one).__name__ for one in EACH]


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def through(augmentations, batch, names=(), seed=0, **kinds):
    augmenter = Augmenter("Data", augmentations, batch.x[0], names, **kinds)
    return augmenter(batch._replace(x=batch.x.clone(), y=batch.y.clone()), random(seed))


def batch_of(features=3, lengths=LENGTHS, value=None):
    """Rows that count their steps, from 1, in every feature; 0 behind their ends."""
    steps = torch.arange(1.0, int(lengths.max()) + 1) if value is None else value
    x = steps.expand(len(lengths), -1)[..., None].repeat(1, 1, features)
    outside = torch.arange(x.shape[1]) >= lengths[:, None]
    return Batch(x.masked_fill(outside[..., None], 0), torch.arange(len(lengths)), lengths)


@pytest.mark.parametrize("augmentation", EACH, ids=NAMES)
def test_padding_stays_0_and_what_is_missing_stays_missing(augmentation):
    batch = batch_of(features=5)
    batch.x[0, 10:20, 1] = math.nan

    for seed in range(20):
        found = through([augmentation], batch, seed=seed)
        outside = torch.arange(found.x.shape[1]) >= found.lengths[:, None]
        assert (found.x[outside] == 0).all()
        assert found.lengths.min() >= 1
        gaps = found.x.isnan().any(1)
        assert gaps[0].tolist() == [False, True, False, False, False]
        assert not gaps[1:].any()


@pytest.mark.parametrize("augmentation", EACH[:3], ids=NAMES[:3])
def test_values_change_only_in_features_that_are_named_or_numbered(augmentation):
    augmentation = type(augmentation)(only=["speed", 3])
    if isinstance(augmentation, SpecAugment):
        augmentation.share_of_features = 1.0
    batch = batch_of(features=5)

    found = [through([augmentation], batch, ["a", "speed"], seed=s) for s in range(9)]

    changed = torch.stack([f.x != batch.x for f in found]).flatten(0, 2).any(0)
    assert changed.tolist() == [False, True, False, True, False]
    assert all(torch.equal(f.lengths, LENGTHS) for f in found)


def test_masks_are_of_all_widths_up_to_their_share_and_within_each_sequence():
    augmentation = SpecAugment(1, steps=5, share_of_steps=0.25, feature_masks=0)
    widths: list[set[int]] = [set() for _ in LENGTHS]
    places = torch.zeros(len(LENGTHS), 40, dtype=torch.bool)

    for seed in range(300):
        masked = through([augmentation], batch_of(), seed=seed).x == 0
        assert (masked == masked[..., :1]).all(), "a mask of steps is of all features"
        for row, length in enumerate(LENGTHS.tolist()):
            where = masked[row, :length, 0].nonzero()[:, 0]
            widths[row].add(len(where))
            places[row, where] = True
            assert len(where) == 0 or int(where[-1] - where[0]) + 1 == len(where)

    assert widths == [{0, 1, 2, 3, 4, 5}, {0, 1}, {0}, {0, 1, 2, 3, 4, 5}]
    assert places.sum(1).tolist() == [40, 7, 0, 25]


def test_a_mask_of_features_is_of_neighbours_and_of_all_steps():
    augmentation = SpecAugment(step_masks=0, feature_masks=1, share_of_features=0.5)
    widths = set()

    for seed in range(100):
        masked = (through([augmentation], batch_of(features=6), seed=seed).x == 0)[0]
        assert (masked == masked[:1]).all()
        where = masked[0].nonzero()[:, 0]
        widths.add(len(where))
        assert len(where) == 0 or int(where[-1] - where[0]) + 1 == len(where)

    assert widths == {0, 1, 2, 3}


def test_noise_and_factors_have_the_deviation_that_is_asked_for():
    batch = batch_of(features=50, lengths=torch.full((40,), 50))

    noise = through([Noise(0.2)], batch).x - batch.x
    factors = through([Scale(0.2)], batch).x / batch.x

    assert float(noise.std()) == pytest.approx(0.2, rel=0.02)
    assert float(factors.std()) == pytest.approx(0.2, rel=0.1)
    torch.testing.assert_close(factors, factors[:, :1].expand_as(factors))  # one a sequence


def test_a_stretched_sequence_goes_evenly_from_its_first_step_to_its_last():
    batch = batch_of()

    for seed in range(20):
        found = through([Stretch(0.5, 2)], batch, seed=seed)
        for row, before, after in zip(found.x, LENGTHS, found.lengths, strict=True):
            assert round(0.5 * int(before)) <= after <= 2 * before
            even = torch.linspace(1, int(before if after > 1 else 1), int(after))
            torch.testing.assert_close(row[: int(after), 0], even)


def test_what_is_missing_takes_as_much_of_a_stretched_sequence_as_before():
    batch = batch_of(features=1, lengths=torch.tensor([9, 5]))
    batch.x[0, 4] = batch.x[1, 4] = math.nan

    same, longer = through([Stretch(1, 1)], batch), through([Stretch(2, 2)], batch)

    torch.testing.assert_close(same.x, batch.x, rtol=0, atol=0, equal_nan=True)
    assert longer.x[0].isnan().flatten().nonzero().flatten().tolist() == [8, 9]
    assert longer.x[1, :10].isnan().flatten().nonzero().flatten().tolist() == [8, 9]


@pytest.mark.parametrize("augmentation", [Stretch(0.5, 2), Crop(0.4)], ids=["Stretch", "Crop"])
def test_tags_go_with_their_steps(augmentation):
    batch = batch_of()
    tags = batch.x[..., 0].long().masked_fill(batch.x[..., 0] == 0, IGNORE)

    for seed in range(20):
        found = through([augmentation], batch._replace(y=tags), seed=seed, stepwise=True)
        inside = torch.arange(found.x.shape[1]) < found.lengths[:, None]
        assert ((found.y - found.x[..., 0]).abs()[inside] <= 0.5 + 1e-4).all()
        assert (found.y[~inside] == IGNORE).all()
        assert found.y.shape == found.x.shape[:2]


def test_the_fewest_steps_are_those_that_are_drawn():
    lengths, needed = torch.arange(1, 1001), torch.ones(1000, dtype=torch.int64)

    for percent in range(5, 100, 5):
        stretch = Stretch(percent / 100, percent / 100)
        _, drawn = stretch(lengths, needed, random())
        assert torch.equal(stretch.fewest(lengths, needed), drawn)


def test_the_widest_mask_is_the_share_of_steps_that_is_asked_for():
    lengths = torch.tensor([100])
    augmentation = SpecAugment(1, share_of_steps=0.53, feature_masks=0)

    masked = [through([augmentation], batch_of(1, lengths), seed=s).x == 0 for s in range(200)]

    assert max(int(mask.sum()) for mask in masked) == 53


def test_a_crop_is_of_consecutive_steps_from_anywhere():
    starts = set()

    for seed in range(200):
        found = through([Crop(0.5)], batch_of(), seed=seed)
        for row, before, after in zip(found.x, LENGTHS, found.lengths, strict=True):
            assert (row[: int(after), 0].diff() == 1).all()
            assert after >= round(0.5 * int(before))
        starts.add(int(found.x[1, 0, 0]))

    assert starts == {1, 2, 3, 4}  # of seven steps three or four stay at least


def test_a_stretched_sequence_stays_long_enough_for_its_transcript():
    labels = [[1, 1, 1, 1], [1, 2, 3, IGNORE], [IGNORE] * 4, [1, 1, IGNORE, IGNORE]]
    y, lengths = torch.tensor(labels), torch.tensor([9, 3, 2, 4])
    batch = batch_of(lengths=lengths)._replace(y=y)

    for seed in range(50):
        found = through([Stretch(0.1, 0.5)], batch, seed=seed, transcribed=True)
        assert found.lengths.tolist() == [7, 3, 1, 3]
    assert (found.lengths >= frames_needed(y)).all()


def test_lengths_are_left_out_where_all_are_alike_and_stay_so():
    batch = batch_of(lengths=torch.full((3,), 9))._replace(lengths=None)

    assert through([Noise(), SpecAugment()], batch).lengths is None
    assert through([Crop(0.5)], batch).lengths is not None


class Numbered(SequenceData):
    """Sequences of one feature that is never 0."""

    def __init__(self, timed=False, **options):
        super().__init__(**{"batch_size": 8, "bucket_batches": 1, **options})
        self.timed = timed

    @property
    def sizes(self):
        return {"input_size": 2, "num_classes": 2}

    def read_splits(self):
        x = torch.arange(1.0, 161).view(80, 2)
        part = Sequences(x, torch.full((20,), 4), torch.arange(20) % 2)
        return Splits({"train": part, "val": part, "test": part})


def epoch(loader):
    return torch.cat([batch.x.flatten(0, 1) for batch in loader])


def test_only_training_batches_are_changed():
    data = Numbered(augment=[Noise()])
    data.setup()
    whole = data.part("train").x

    assert not torch.isin(epoch(data.loader("train")), whole).any()
    for loader in (data.loader("val"), data.loader("test"), data.loader("train").in_order()):
        assert torch.equal(epoch(loader), whole)
    assert torch.isin(data.loader("train").sample().x, whole).all()
    assert torch.equal(data.part("train").x, torch.arange(1.0, 161).view(80, 2))


def test_other_numbers_are_drawn_for_each_batch_epoch_seed_and_process(as_process):
    def noise(seed=0):
        data = Numbered(augment=[Noise()], seed=seed)
        batches = list(data.loader("train"))
        return [batch.x - batch.x.round() for batch in batches]

    first, data = noise(), Numbered(augment=[Noise()])
    loader = data.loader("train")
    batches, later = list(loader), list(loader)
    with as_process(1, 2):
        other = noise()

    assert all(torch.equal(a, b.x - b.x.round()) for a, b in zip(first, batches, strict=True))
    drawn = [*first, *noise(seed=1), *(b.x - b.x.round() for b in later), *other]
    assert len({tuple(x[0, 0].tolist()) for x in drawn}) == len(drawn)


def test_augmentations_are_run_in_their_order():
    class Plus(ValueAugmentation):
        def __call__(self, x, lengths, random):
            return x + 1

    class Double(ValueAugmentation):
        def __call__(self, x, lengths, random):
            return x * 2

    batch = batch_of(features=1, lengths=torch.tensor([2]))

    assert through([Plus(), Double()], batch).x.flatten().tolist() == [4, 6]
    assert through([Double(), Plus()], batch).x.flatten().tolist() == [3, 5]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SpecAugment(step_masks=-1), "SpecAugment: step_masks is -1, expected"),
        (lambda: SpecAugment(steps=0), "SpecAugment: steps is 0"),
        (lambda: SpecAugment(share_of_steps=1.5), "share_of_steps is 1.5"),
        (lambda: SpecAugment(share_of_features=0), "share_of_features is 0"),
        (lambda: SpecAugment(0, feature_masks=0), "expected one of them above it"),
        (lambda: Noise(-0.1), "Noise: deviation is -0.1"),
        (lambda: Scale(0), "Scale: deviation is 0"),
        (lambda: Stretch(0), "Stretch: shortest is 0"),
        (
            lambda: Stretch(1.2, 1.1),
            "Stretch: shortest is 1.2, expected at most longest, which is 1.1",
        ),
        (lambda: Stretch(1, math.inf), "Stretch: longest is inf"),
        (lambda: Noise(math.inf), "Noise: deviation is inf"),
        (lambda: Scale(math.inf), "Scale: deviation is inf"),
        (lambda: Crop(1.0), "Crop: share is 1.0"),
        (lambda: Numbered(augment=Noise()), "augment is Noise, expected augmentations"),
        (lambda: Numbered(augment=["noise"]), "augment has 'noise', expected augmentations"),
        (
            lambda: Numbered(augment={"a": Crop}),
            "augment has the class Crop, expected augmentations",
        ),
    ],
)
def test_an_option_without_sense_is_refused(make, message):
    with pytest.raises(ConfigError) as refused:
        make()

    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("only", "message"),
    [
        (["hight"], "Noise: only has 'hight', expected one of 'height', 'speed' or a number"),
        ([2], "only has 2, expected one of 'height', 'speed' or a number from 0 to 1."),
        ([-1], "only has -1"),
        (["speed", 1], "expected each feature once"),
    ],
)
def test_a_feature_that_is_not_there_is_refused_before_training(only, message, tmp_path):
    path = tmp_path / "walks.csv"
    rows = [f"{n},{'ab'[n % 2]},{t},{n}" for n in range(12) for t in range(3)]
    path.write_text("\n".join(["sequence,label,height,speed", *rows]))

    with pytest.raises(ConfigError) as refused:
        ClassificationFiles(str(path), augment=[Noise(only=only)]).setup()

    assert message in str(refused.value)


class Copied(PairData):
    """Pairs whose targets are their sources."""

    codecs = (TokenCodec(["<eos>", "<unk>", "a"]),) * 2

    def read_splits(self):
        return Splits(dict.fromkeys(PARTS, Pairs.of_ids([np.array([2])], [np.array([2])])))


def test_tokens_are_refused_since_they_have_no_size(tmp_path):
    path, words = tmp_path / "texts.csv", tmp_path / "words.conll"
    path.write_text("\n".join(["text,label", *(f"so {n},{'ab'[n % 2]}" for n in range(12))]))
    words.write_text("so\tA\nit\tB\n\n" * 12)

    for data in (
        ClassificationFiles(str(path), augment=[SpecAugment()]),
        TaggingFiles(str(words), augment=[SpecAugment()]),
        Copied(augment=[SpecAugment()]),
    ):
        with pytest.raises(ConfigError, match="has SpecAugment, expected none"):
            data.setup()


def test_a_crop_of_what_has_a_transcript_is_refused(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text('{"text": "ab", "x": [1, 2, 3, 4]}\n' * 12)
    data = TranscriptionFiles(str(path), augment=[Crop()])

    with pytest.raises(ConfigError, match="has Crop, expected none with transcripts"):
        data.setup()


class Following(Numbered):
    """Sequences of which each next step is predicted."""

    def read_splits(self):
        x = torch.arange(1.0, 161).view(20, 4, 2)
        return Splits(
            dict.fromkeys(("train", "val", "test"), NextSteps.stacked(x, x, stepwise=True))
        )


def test_another_pace_is_refused_where_the_next_step_is_predicted():
    kept = Following(augment=[Noise(), Crop(0.5)])
    kept.setup()

    with pytest.raises(ConfigError, match="has Stretch, expected none where the next step is"):
        Following(augment=[Stretch(0.5, 2)]).setup()
    batch = next(iter(kept.loader("train")))
    assert batch.x.shape == batch.y.shape


@pytest.mark.parametrize(
    ("augmentation", "features", "longest"),
    [
        (SpecAugment(), 5, 1),
        (SpecAugment(), 1, 20),
        (SpecAugment(feature_masks=0), 1, 20),
        (SpecAugment(step_masks=0), 5, 1),
        (Stretch(0.9, 1), 1, 6),
        (Stretch(1, 1.1), 1, 6),
        (Crop(), 1, 6),
    ],
)
def test_what_would_change_nothing_is_refused_before_training(augmentation, features, longest):
    def check(features, longest):
        x = torch.zeros(9, features)
        Augmenter("Data", [augmentation], x, longest=longest).check(model_of(GRUDCell))

    check(features, longest)
    with pytest.raises(ConfigError, match="which changes nothing in sequences of"):
        check(4 if features == 5 else 1, longest - 1)


def test_features_that_are_named_may_be_too_few_for_a_mask():
    augmentation = SpecAugment(step_masks=0, only=[0, 1, 2])
    augmenter = Augmenter("Data", [augmentation], torch.zeros(9, 80), longest=9)

    with pytest.raises(ConfigError, match="changes nothing in sequences of 3 features"):
        augmenter.check(model_of(GRUDCell))


def model_of(cell):
    return SequenceClassifier(cell, input_size=3, num_classes=2, hidden_size=4)


def timed(cell):
    return lambda *sizes, **options: cell(*sizes, timed=True, **options)


@pytest.mark.parametrize("cell", [PhasedLSTMCell, GRUDCell])
@pytest.mark.parametrize(
    ("augmentation", "refused"),
    [
        (Noise(), True),
        (SpecAugment(only=[1, 2]), True),
        (Noise(only=[0, 1]), False),
        (Stretch(), True),
        (Crop(), False),
    ],
)
def test_what_a_cell_takes_for_the_time_is_left_as_it_is(cell, augmentation, refused):
    augmenter = Augmenter("Data", [augmentation], torch.zeros(4, 3))

    augmenter.check(model_of(cell))
    if refused:
        with pytest.raises(ConfigError, match=f"{cell.__name__} has timed=True"):
            augmenter.check(model_of(timed(cell)))
    else:
        augmenter.check(model_of(timed(cell)))


def test_an_augmentation_of_ones_own_may_take_other_steps():
    class Backwards(TimeAugmentation):
        def __call__(self, lengths, needed, random):
            steps = lengths[:, None] - 1 - torch.arange(int(lengths.max()))
            return steps.clamp(min=0), lengths

    found = through([Backwards()], batch_of(features=1, lengths=torch.tensor([3, 2])))

    assert found.x[..., 0].tolist() == [[3, 2, 1], [2, 1, 0]]


class Returns(ValueAugmentation):
    """What a function makes of values."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    def __call__(self, x, lengths, random):
        return self.make(x)


class Takes(TimeAugmentation):
    """Steps that a function makes of lengths, and how many."""

    def __init__(self, make):
        self.make = make

    def __call__(self, lengths, needed, random):
        return self.make(lengths)


@pytest.mark.parametrize(
    ("augmentation", "error", "message"),
    [
        (Returns(lambda x: x.double()), DtypeError, "Returns: returned torch.float64, expected"),
        (Returns(lambda x: None), DtypeError, "Returns: returned NoneType, expected torch.float32"),
        (Returns(lambda x: x[..., :1]), ShapeError, r"\(2, 4, 1\), expected .* = \(2, 4, 3\)"),
        (
            Takes(lambda n: (torch.zeros(2, 3), n)),
            ShapeError,
            r"steps \(2, 3\) with 2 lengths of 2 to 4, expected",
        ),
        (Takes(lambda n: (torch.zeros(2, 4), n * 0)), ShapeError, "with 2 lengths of 0 to 0"),
        (
            Takes(lambda n: (torch.arange(4).expand(2, -1), n)),
            ShapeError,
            "Takes: returned step 2 of a row of 2 steps, expected steps from 0 to 1",
        ),
        (Takes(lambda n: (torch.full((2, 4), -0.5), n)), ShapeError, "returned step -0.5"),
    ],
)
def test_what_ones_own_class_returns_is_checked(augmentation, error, message):
    with pytest.raises(error, match=message):
        through([augmentation], batch_of(lengths=torch.tensor([4, 2])))


def test_augmented_examples_are_shown_beside_the_others():
    data = Numbered(augment=[Crop(0.5)])

    shown = data.augmented_examples(3)

    assert len(shown) == 3
    assert {int(example["steps"]) for example in shown} <= {2, 3, 4}
    assert Numbered().augmented_examples(3) == data.augmented_examples(0) == []
