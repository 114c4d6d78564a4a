"""Sequences that belong together are in one part."""

from __future__ import annotations

import json

import numpy as np
import pytest

from seqnets.datasets import (
    ClassificationFiles,
    PairFiles,
    RegressionFiles,
    TaggingFiles,
    TranscriptionFiles,
)
from seqnets.datasets.parts import PARTS
from seqnets.datasets.sequences.dealing import deal_groups
from seqnets.errors import ConfigError, DataError

SHARES = {"test": 0.2, "val": 0.2}


def dealt(groups, labels, seed=0, shares=SHARES):
    """The rows of each part, and the groups of each part."""
    rows = deal_groups("a", groups, np.array(labels), shares, seed)
    return rows, {part: {groups[row] for row in found} for part, found in rows.items()}


@pytest.mark.parametrize("seed", range(50))
def test_groups_are_dealt_as_a_whole_and_training_has_every_class(seed):
    random = np.random.default_rng(seed)
    groups = [f"g{number}" for number in random.integers(0, 9 + seed, 400)]
    labels = random.geometric(0.3, 400)  # some have one sequence
    rows, found = dealt(groups, labels, seed)

    assert sorted(np.concatenate([*rows.values()])) == [*range(400)]
    assert all(found.values())
    assert sum(map(len, found.values())) == len(set(groups))
    assert {*labels[rows["train"]]} == {*labels}


@pytest.mark.parametrize("seed", range(20))
def test_parts_are_off_by_half_a_group_at_most(seed):
    sizes = np.random.default_rng(seed).integers(1, 30, 40)
    groups = [f"g{number}" for number, size in enumerate(sizes) for _ in range(size)]

    rows, _ = dealt(groups, [0] * len(groups), seed)

    for part in SHARES:
        assert abs(len(rows[part]) - 0.2 * len(groups)) <= sizes.max() / 2


def test_groups_are_stratified_by_class():
    groups = [f"g{number}" for number in range(40) for _ in range(5)]
    labels = [int(number < 10) for number in range(40) for _ in range(5)]
    mixed = [number % 3 for number in range(200)]

    for seed in range(20):
        rows, _ = dealt(groups, labels, seed)
        for part, share in {**SHARES, "train": 0.6}.items():
            assert np.bincount(np.array(labels)[rows[part]]).tolist() == [150 * share, 50 * share]
        rows, _ = dealt(groups, mixed, seed)
        counts = np.bincount(np.array(mixed)[rows["test"]])
        assert abs(counts - 40 / 3).max() < 5


def test_a_rare_class_counts_beside_a_common_one():
    groups = [f"g{number % 40}" for number in range(1_300)]
    labels = [0] * 1_200 + [1] * 100
    groups[1_200:] = [f"g{number % 10}" for number in range(100)]
    parts = [dealt(groups, labels, seed)[1]["test"] for seed in range(100)]
    of_rare = [len(part & {*groups[1_200:]}) for part in parts]

    assert np.mean(of_rare) == pytest.approx(2, abs=0.3)
    assert np.std(of_rare) < 0.8  # 1.1 by chance


def test_the_seed_decides_which_groups_are_held_out_and_the_order_of_the_rows_does_not():
    groups = [f"g{number % 20}" for number in range(100)]
    _, first = dealt(groups, [0] * 100, 3)
    _, turned = dealt(groups[::-1], [0] * 100, 3)

    assert first == turned
    assert len({tuple(sorted(dealt(groups, [0] * 100, seed)[1]["test"])) for seed in range(9)}) > 5


def test_a_part_gets_a_group_although_it_is_more_than_its_share():
    rows, found = dealt(["a", "a", "b", "c", "c", "c"], [0] * 6)

    assert {part: len(of_part) for part, of_part in found.items()} == dict.fromkeys(PARTS, 1)
    assert len(rows["train"]) == 3


def test_a_group_that_is_most_of_the_data_is_for_training():
    groups = ["a"] * 90 + ["b", "c", "d", "e"]

    assert all("a" in dealt(groups, [0] * 94, seed)[1]["train"] for seed in range(9))


@pytest.mark.parametrize("seed", range(8))
def test_a_class_of_one_group_stays_in_training_also_if_two_groups_must_go(seed):
    _, found = dealt(["xy", "xy", "x", "y"], [0, 1, 0, 1], seed)

    assert found["train"] == {"xy"}


def test_too_few_groups_are_refused():
    with pytest.raises(DataError, match=r"a: got 2 groups for training, expected at least 3: one"):
        dealt(["a", "b", "b"], [0, 0, 0])
    with pytest.raises(DataError, match=r"a: got 3 groups, expected some for test, val that leave"):
        dealt(["a", "b", "c"], [0, 1, 0])


def people(count=12, each=3):
    """Sequences of a number of people, not in their order: name, person, label, steps."""
    for number in range(count * each):
        steps = [[number + step, step % 2] for step in range(2 + number % 3)]
        yield f"s{number}", f"p{number % count}", "ab"[number // count % 2], steps


def write(folder, kind, name="a"):
    """The sequences of people in a file."""
    path = folder / f"{name}{'.npz' if kind == 'npz' else '.jsonl' if kind == 'rows' else '.csv'}"
    if kind == "steps":
        lines = [
            f"{who},{person},{label},{x},{y}"
            for who, person, label, steps in people()
            for x, y in steps
        ]
        path.write_text("\n".join(["sequence,person,label,x,y", *lines]))
    elif kind == "rows":
        objects = [
            {"id": who, "person": int(person[1:]), "label": label, "x": steps}
            for who, person, label, steps in people()
        ]
        path.write_text("\n".join(map(json.dumps, objects)))
    elif kind == "files":
        lines = []
        for who, person, label, steps in people():
            np.save(folder / f"{who}.npy", np.array(steps, float))
            lines.append(f"{who}.npy,{person},{label}")
        path.write_text("\n".join(["file,person,label", *lines]))
    else:
        names, persons, labels, steps = zip(*people(), strict=True)
        lengths, x = [*map(len, steps)], np.concatenate(steps)
        np.savez(path, x=x, lengths=lengths, y=labels, ids=names, person=persons)
    return path


def persons_of(data, part):
    """The persons of a part's sequences, by the names of these."""
    numbers = {name.removesuffix(".npy")[1:] for name in data.part(part).ids}
    return {int(number) % 12 for number in numbers}


def assert_groups_may_go(data, path, kind):
    """New data are the same without the column of persons."""
    data.setup()
    (whole,) = data.new(path, data.describe())
    if kind == "npz":
        with np.load(path) as arrays:
            np.savez(path, **{name: arrays[name] for name in ("x", "lengths", "y")})
    elif kind == "steps":
        rows = [line.split(",") for line in path.read_text().splitlines()]
        path.write_text("\n".join(",".join([row[0], *row[2:]]) for row in rows))
    else:
        path.write_text(path.read_text().replace("person", "another"))
    (batch,) = data.new(path, data.describe())

    assert batch.x.equal(whole.x)
    assert batch.y.equal(whole.y)


@pytest.mark.parametrize("kind", ["steps", "rows", "files", "npz"])
def test_no_person_of_a_file_is_in_two_parts(kind, tmp_path):
    path = write(tmp_path, kind)
    for seed in range(10):
        data = ClassificationFiles(str(path), groups="person", seed=seed)
        data.setup()
        found = [persons_of(data, part) for part in PARTS]

        assert sum(map(len, found)) == len(set.union(*found)) == 12
        assert data.group_counts() == dict(zip(PARTS, map(len, found), strict=True))
        assert data.sizes == {"input_size": 2, "num_classes": 2}
    apart = [persons_of(ClassificationFiles(str(write(tmp_path, "rows"))), part) for part in PARTS]
    assert sum(map(len, apart)) > 12


@pytest.mark.parametrize("kind", ["steps", "rows", "files", "npz"])
def test_new_files_may_lack_the_groups(kind, tmp_path):
    path = write(tmp_path, kind)

    assert_groups_may_go(ClassificationFiles(str(path), groups="person", batch_size=36), path, kind)


def test_new_files_of_a_sequence_each_need_no_groups(tmp_path):
    data = ClassificationFiles(str(write(tmp_path, "files")), groups="person", batch_size=36)
    data.setup()
    (tmp_path / "new").mkdir()
    (tmp_path / "s1.npy").rename(tmp_path / "new" / "s1.npy")
    (batch,) = data.new(tmp_path / "new", data.describe())

    assert batch.x.shape == (1, 3, 2)


def test_a_recording_with_the_column_of_groups_is_refused(tmp_path):
    (tmp_path / "r.csv").write_text("person,x\n1,2\n")
    (tmp_path / "a.csv").write_text("file,person,label\nr.csv,p1,a\n")

    with pytest.raises(DataError, match=r"r.csv, header: got column person, expected only feat"):
        ClassificationFiles(str(tmp_path / "a.csv"), groups="person").setup()


def test_groups_of_new_files_may_be_missing(tmp_path):
    path = write(tmp_path, "steps")
    data = ClassificationFiles(str(path), groups="person", batch_size=36)
    data.setup()
    (whole,) = data.new(path, data.describe())
    path.write_text(path.read_text().replace(",p1,", ",,"))
    (batch,) = data.new(path, data.describe())

    assert batch.x.equal(whole.x)


def test_groups_of_numbers_and_of_transcripts_are_kept_together(tmp_path):
    rows = [
        {"person": number % 6, "target": number, "said": "ab"[number % 2] * 2, "x": [1, number, 3]}
        for number in range(24)
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    for data in (
        RegressionFiles(str(path), groups="person", standardise=False),
        TranscriptionFiles(str(path), "said", groups="person", standardise=False),
    ):
        found = []
        for part in PARTS:
            sequences = data.part(part)
            found.append({int(x) % 6 for x in sequences.x[sequences.starts + 1]})
            assert len(sequences) == 4 * len(found[-1])

        assert set.union(*found) == {*range(6)}
        assert [*map(len, found)] == [4, 1, 1]


def test_a_writer_who_alone_has_a_letter_is_for_training(tmp_path):
    rows = [{"writer": n % 6, "text": "ab", "x": [1, 2, 3]} for n in range(12)]
    rows[2]["text"] = "ac"
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))

    for seed in range(10):
        data = TranscriptionFiles(str(path), groups="writer", seed=seed)
        assert data.labels == ["", "a", "b", "c"]


def tagged(folder, kind, count=30):
    """Sequences of ten people with a label per step."""
    path = folder / ("steps.csv" if kind == "steps" else "rows.jsonl")
    if kind == "steps":
        lines = [f"s{n},p{n % 10},{n},{'ab'[step]}" for n in range(count) for step in range(2)]
        path.write_text("\n".join(["sequence,person,x,label", *lines]))
    else:
        rows = [
            {"id": f"s{n}", "person": n % 10, "tokens": ["u", "v"], "labels": ["a", "b"]}
            for n in range(count)
        ]
        path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.mark.parametrize("kind", ["steps", "rows"])
def test_groups_of_tagged_sequences_and_all_their_windows_are_kept_together(kind, tmp_path):
    path = tagged(tmp_path, kind)
    for seed in range(10):
        data = TaggingFiles(
            str(path), groups="person", test_fraction=0.2, window=1, min_count=1, seed=seed
        )
        data.setup()
        names = [{int(name[1:]) for name in data.part(part).ids} for part in PARTS]

        assert sum(map(len, names)) == 30
        assert [len({number % 10 for number in of_part}) for of_part in names] == [7, 1, 2]
        assert data.group_counts() == {"train": 7, "val": 1, "test": 2}


@pytest.mark.parametrize("kind", ["steps", "rows"])
def test_new_sequences_to_be_tagged_may_lack_the_groups(kind, tmp_path):
    path = tagged(tmp_path, kind)

    assert_groups_may_go(TaggingFiles(str(path), groups="person", batch_size=30), path, kind)


STEPS = """sequence,split,person,label,x
s1,train,ann,a,1
s1,train,ann,a,2
s2,train,bob,b,3
s3,val,cem,b,4
s4,test,dee,a,5
"""


def set_up(folder, text=STEPS, kind=ClassificationFiles, **options):
    (folder / "a.csv").write_text(text)
    data = kind(str(folder / "a.csv"), **{"groups": "person", **options})
    data.setup()
    return data


@pytest.mark.parametrize("kind", [ClassificationFiles, TaggingFiles])
def test_parts_that_are_given_keep_their_groups(kind, tmp_path):
    assert set_up(tmp_path, kind=kind).group_counts() == {"train": 2, "val": 1, "test": 1}


@pytest.mark.parametrize("kind", [ClassificationFiles, TaggingFiles])
@pytest.mark.parametrize(
    ("old", "new", "options", "message"),
    [
        ("cem", "bob", {}, r"csv, line 5: person is 'bob' in the val part, expected it in the train"
         r" part alone, where it is at .*line 4.\n  1 group in more than one part: 'bob'\n"),
        ("cem", " bob", {}, "line 5: person is 'bob' in the val part"),
        ("ann,a,2", "bob,a,2", {}, "line 3: person is 'bob', expected 'ann'"),
        ("cem", "", {}, r"line 5: column person is missing, expected the group of the sequence"),
        ("cem", "NA", {}, "line 5: column person is 'NA', expected the group of the sequence"),
        ("", "", {"groups": "man"}, r"header: got the columns .*, expected man too.\n  dataset"),
        ("", "", {"leave_out": ["person"]}, "leave_out has person, expected columns that would be"),
    ],
)  # fmt: skip
def test_groups_that_are_divided_or_not_known_are_refused(
    kind, old, new, options, message, tmp_path
):
    with pytest.raises(DataError, match=message):
        set_up(tmp_path, STEPS.replace(old, new, 1), kind, **options)


@pytest.mark.parametrize("kind", [ClassificationFiles, TaggingFiles])
def test_a_group_in_the_files_of_two_parts_is_refused(kind, tmp_path):
    path = tmp_path / "b.csv"
    path.write_text("sequence,person,label,x\ns1,eve,a,1\n")
    text = STEPS.replace("split,", "").replace(",train", "").replace(",val", "")
    text = text.replace(",test", "")

    assert set_up(tmp_path, text, kind, test_path=str(path)).group_counts()["test"] == 1
    path.write_text(path.read_text().replace("eve", "ann"))
    with pytest.raises(DataError, match=r"b.csv, line 2: person is 'ann' in the test part, exp"):
        set_up(tmp_path, text, kind, test_path=str(path))


@pytest.mark.parametrize("kind", [ClassificationFiles, TaggingFiles])
def test_fewer_groups_than_parts_are_refused(kind, tmp_path):
    text = "sequence,person,label,x\n" + "".join(f"s{n},p{n % 2},a,1\n" for n in range(20))

    with pytest.raises(DataError, match=r"csv, groups by person: got 2 groups for training, expe"):
        set_up(tmp_path, text, kind)


def test_what_does_not_say_of_groups_is_refused(tmp_path):
    (tmp_path / "a.ts").write_text("@data")
    (tmp_path / "a.conll").write_text("word O\n")
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 2)), y=np.arange(4))

    for name, kind, message in (
        ("", ClassificationFiles, "does not say which group a sequence belongs to, expected"),
        (
            "a.ts",
            ClassificationFiles,
            "does not say which group a sequence belongs to, expected",
        ),
        ("a.npz", ClassificationFiles, "got no array person, expected the group of each sequence"),
        ("a.conll", TaggingFiles, "does not say which group a sentence belongs to, expected"),
    ):
        with pytest.raises(DataError, match=message):
            kind(str(tmp_path / name), groups="person").setup()


def pairs(folder, rows, **options):
    """Pairs of a table, each with its talk."""
    lines = [f"{source}\t{target}\t{talk}" for source, target, talk in rows]
    (folder / "a.tsv").write_text("\n".join(["source\ttarget\ttalk", *lines]))
    return PairFiles(str(folder / "a.tsv"), unit="words", **options)


@pytest.mark.parametrize("seed", range(5))
def test_pairs_of_a_talk_and_targets_of_a_source_are_kept_together(seed, tmp_path):
    rows = [(f"s{n % 15}", f"t{n}", n % 10) for n in range(60)]
    for column, kept in (("talk", 10), ("source", 15)):
        data = pairs(tmp_path, rows, groups=column, seed=seed)
        data.setup()
        numbers = [[int(text[1:]) for text in data.texts[part][1]] for part in PARTS]
        found = [{number % kept for number in of_part} for of_part in numbers]

        assert sorted(number for of_part in numbers for number in of_part) == [*range(60)]
        assert sum(map(len, found)) == len(set.union(*found)) == kept
        assert data.group_counts() == dict(zip(PARTS, map(len, found), strict=True))
        assert all(
            target in {row[1] for row in rows if row[0] == source}
            for source, target in zip(*data.texts["train"], strict=True)
        )


def test_talks_in_two_parts_without_a_name_or_of_text_files_are_refused(tmp_path):
    rows = [(f"s{n}", f"t{n}", n) for n in range(9)]
    table = pairs(tmp_path, rows, groups="talk").table
    lines = table.read_text().splitlines()
    split = ["split", *(["train"] * 7), "val", "test"]
    table.write_text("\n".join("\t".join(row) for row in zip(lines, split, strict=True)))
    given = PairFiles(str(table), unit="words", groups="talk")
    assert given.group_counts() == {"train": 7, "val": 1, "test": 1}

    table.write_text(table.read_text().replace("t8\t8", "t8\t0"))
    with pytest.raises(DataError, match=r"tsv, line 10: talk is '0' in the test part, expected it"):
        PairFiles(str(table), groups="talk").setup()
    table.write_text(table.read_text().replace("t8\t0", "t8\t"))
    with pytest.raises(DataError, match=r"tsv, line 10: column talk is missing, expected the grou"):
        PairFiles(str(table), groups="talk").setup()
    with pytest.raises(DataError, match=r"a.tsv, groups by talk: got 2 groups for training"):
        pairs(tmp_path, [(*row[:2], row[2] % 2) for row in rows], groups="talk").setup()
    with pytest.raises(ConfigError, match=r"got groups 'talk' of text files, expected those of a"):
        PairFiles(source_path="a", target_path="b", groups="talk")
