import json
import math
from pathlib import Path

import pytest
import torch

from seqnets.datasets import Multi30k, PairFiles, read_codec
from seqnets.datasets.baselines.dictionary import learn_dictionary, word_by_word
from seqnets.errors import ConfigError, DataError
from seqnets.typing import END, IGNORE

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_multi30k = pytest.mark.skipif(
    not (SHARED / "multi30k").is_dir(), reason="needs ../shared/data/multi30k"
)

READ = ["a small house !", "a big house !", "the small book !", "a green book !"] * 5
WRITTEN = ["ein kleines haus !", "ein großes haus !", "das kleine buch !", "ein grünes buch !"] * 5
UNITS = {
    "words": {"unit": "words"},
    "characters": {"unit": "characters"},
    "bpe": {"unit": "bpe", "max_vocabulary": 300},
    "joint bpe": {"unit": "bpe", "max_vocabulary": 300, "joint": True},
}


@pytest.fixture
def aligned(tmp_path):
    """Two text files whose lines belong together."""
    files = tmp_path / "read.txt", tmp_path / "written.txt"
    for path, lines in zip(files, (READ, WRITTEN), strict=True):
        path.write_text("\n".join(lines) + "\n", "utf-8")
    return files


def of_files(files, **options):
    options = {"unit": "words", **options}
    return PairFiles(source_path=str(files[0]), target_path=str(files[1]), **options)


@pytest.mark.parametrize("options", UNITS.values(), ids=UNITS)
def test_texts_are_decoded_from_a_checkpoints_metadata(aligned, options):
    data = of_files(aligned, **options)
    data.setup()
    known = json.loads(json.dumps(data.describe()))
    source, target = read_codec(known["source"]), read_codec(known["target"])

    for part in ("train", "val", "test"):
        texts = data.texts[part]
        for row, (read, written) in enumerate(zip(*texts, strict=True)):
            x, y, *_ = data.pairs(part).batch(torch.tensor([row]))
            assert source.decode(x[0]) == read
            assert target.decode(y[0]) == written
            assert int(y[0, -1]) == END
    assert known["sizes"] == {"vocab_size": len(source), "target_vocab_size": len(target)}
    assert (source.describe() == target.describe()) == options.get("joint", False)


def test_parts_are_held_out_with_their_targets(aligned):
    data = of_files(aligned, validation_fraction=0.2, test_fraction=0.1)

    assert data.counts() == {"train": 14, "val": 4, "test": 2}
    right = set(zip(READ, WRITTEN, strict=True))
    assert all(set(zip(*texts, strict=True)) <= right for texts in data.texts.values())


def test_parts_of_their_own_stay_whole(aligned, tmp_path):
    for name, text in {"v.en": "a book\n", "v.de": "ein buch\n"}.items():
        (tmp_path / name).write_text(text, "utf-8")

    data = of_files(
        aligned,
        validation_source_path=str(tmp_path / "v.en"),
        validation_target_path=str(tmp_path / "v.de"),
        test_fraction=0.25,
    )

    assert data.counts() == {"train": 15, "val": 1, "test": 5}
    assert data.examples("val", 3) == [{"source": "a book", "target": "ein buch"}]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_a_table_names_its_parts(tmp_path, suffix):
    path = tmp_path / f"pairs{suffix}"
    splits = ["train"] * 16 + ["val"] * 3 + ["test"]
    rows = list(zip(READ, WRITTEN, splits, strict=True))
    columns = ("source", "target", "split")
    if suffix == ".jsonl":
        lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
    else:
        mark = "\t" if suffix == ".tsv" else ","
        lines = [mark.join(row) for row in [columns, *rows]]
    path.write_text("\n".join(lines), "utf-8")

    data = PairFiles(str(path), unit="words")
    data.setup()

    assert data.counts() == {"train": 16, "val": 3, "test": 1}
    assert data.texts["test"] == ([READ[-1]], [WRITTEN[-1]])


def test_what_the_training_part_lacks_is_unknown(aligned):
    data = of_files(aligned, min_count=2)
    source, _ = data.codecs

    ids = source.encode(["a purple <eos> house"])[0]

    assert END not in ids
    assert source.decode(ids) == "a <unk> <unk> house"
    assert source.decode(ids, "?") == "a ? ? house"


def test_new_texts_are_read_without_the_training_data(aligned, tmp_path):
    known = of_files(aligned).describe()
    (tmp_path / "new.txt").write_text("the green house\na\n", "utf-8")
    (tmp_path / "new.jsonl").write_text('{"source": "the green house"}\n{"source": "a"}', "utf-8")
    gone = PairFiles(source_path="gone.en", target_path="gone.de", unit="words")

    for name in ("new.txt", "new.jsonl"):
        (batch,) = gone.new(tmp_path / name, known)
        codec = read_codec(known["source"])
        assert [codec.decode(x[:n]) for x, n in zip(batch.x, batch.lengths, strict=True)] == [
            "the green house",
            "a",
        ]
        assert batch.y.tolist() == [[IGNORE], [IGNORE]]


def test_other_line_breaks_than_a_line_feed_break_no_line(tmp_path):
    files = tmp_path / "a", tmp_path / "b"
    files[0].write_bytes("one\u2028line\r\nb\u0085b\nc".encode())
    files[1].write_text("1\n2\n3", "utf-8")

    data = of_files(files)

    found = {line for sources, _ in data.texts.values() for line in sources}
    assert found == {"one\u2028line", "b\x85b", "c"}


@pytest.mark.parametrize(
    ("read", "written", "message"),
    [
        (b"a\nb\nc\n", b"a\nb\n", r"b.txt: got 2 lines, expected 3, as many as .*a.txt has"),
        (b"a\n \nc\n", b"a\nb\nc", r"a.txt, line 2: is empty, expected a text"),
        (b"a\nb", b"a\n\xff", r"b.txt: byte 2 \(line 2\) is 0xff, expected UTF-8"),
        (b"", b"a", r"a.txt: the file is empty"),
        (b"a\nb", b"a\nb", r"a.txt: got 2 training pairs, expected at least 3"),
    ],
)
def test_errors_in_two_files_are_reported_with_the_line(tmp_path, read, written, message):
    files = tmp_path / "a.txt", tmp_path / "b.txt"
    files[0].write_bytes(read)
    files[1].write_bytes(written)

    with pytest.raises(DataError, match=message):
        of_files(files).setup()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("source,goal\na,b\n", "header: got the columns source, goal, expected target too"),
        ("source,target\na,b\nc, \n", r"line 3: column target is ' ', expected a text"),
        ("source,target\na,b\n,d\n", r"line 3: column source is missing, expected text"),
        ("source,target,split\na,b,dev\n", "line 2: split is 'dev', expected train, val, test"),
        ("source,target,split\na,b,test\nc,d,\n", "line 3: split is missing, expected train"),
    ],
)
def test_errors_in_a_table_are_reported_with_the_line(tmp_path, lines, message):
    path = tmp_path / "pairs.csv"
    path.write_text(lines, "utf-8")

    with pytest.raises(DataError, match=message):
        PairFiles(str(path)).setup()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "expected either path, a table, or source_path and target_path"),
        ({"path": "a.csv", "source_path": "a", "target_path": "b"}, "and not both"),
        ({"source_path": "a"}, "source_path is 'a', without a target_path"),
        ({"source_path": ""}, "source_path is '', without a target_path"),
        ({"target_path": "a"}, "source_path=FILE names the file with the source of each line"),
        ({"path": "a.csv", "validation_source_path": "a"}, "without a validation_target_path"),
        ({"path": "a.csv", "test_target_path": "a"}, "dataset.test_source_path=FILE"),
        ({"path": "a.csv", "unit": "syllables"}, "unit is 'syllables', expected one of words"),
        ({"path": "a.csv", "max_vocabulary": None}, "max_vocabulary is None, expected a number"),
        ({"path": "a.csv", "metric": "rouge"}, "metric is 'rouge', expected one of bleu, exact"),
        ({"path": "a.csv", "tokenize": "space"}, "tokenize is 'space', expected one of none, 13a"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        PairFiles(**options)


def test_a_dictionary_follows_its_equation():
    """Three rounds of expectation and maximisation in plain floats."""
    pairs = [("the house", "das haus"), ("the book", "das buch"), ("a book", "ein buch")]
    t = {(e, f): 1.0 for s, w in pairs for e in s.split() for f in w.split()}
    for _ in range(3):
        counts = dict.fromkeys(t, 0.0)
        for s, w in pairs:
            for f in w.split():
                total = math.fsum(t[e, f] for e in s.split())
                for e in s.split():
                    counts[e, f] += t[e, f] / total
        words = {e: math.fsum(n for (other, _), n in counts.items() if other == e) for e, _ in t}
        t = {(e, f): n / words[e] for (e, f), n in counts.items()}
    best = {e: max((p, f) for (other, f), p in t.items() if other == e)[1] for e, _ in t}

    found = learn_dictionary(*zip(*pairs, strict=True), iterations=3)

    assert found == best == {"the": "das", "house": "haus", "book": "buch", "a": "ein"}
    assert word_by_word("the red house", found) == "das red haus"


def test_a_dictionary_is_learned_from_whole_pairs_within_the_links_that_are_allowed():
    pairs = [("the house", "das haus"), ("the book", "das buch"), ("a book", "ein buch")]
    sources, targets = zip(*pairs, strict=True)

    learned = [" ".join(learn_dictionary(sources, targets, links=n)) for n in (0, 7, 8, 12)]

    assert learned == ["the house", "the house", "the house book", "the house book a"]


def test_baselines_are_scored_by_the_chosen_metric(aligned):
    by_bleu, by_match = (of_files(aligned, metric=m).baselines() for m in ("bleu", "exact_match"))

    copied, translated = by_bleu
    assert list(by_match) == [copied, translated]
    assert by_match[copied] == 0
    assert 0 <= by_match[translated] <= 1
    assert by_bleu[copied] < 10 < by_bleu[translated] < 101


@pytest.fixture
def captions(tmp_path):
    folder = tmp_path / "multi30k"
    folder.mkdir()
    for name in ("train", "val", "test_2016_flickr"):
        (folder / f"{name}.en").write_text("\n".join(READ), "utf-8")
        (folder / f"{name}.de").write_text("\n".join(WRITTEN), "utf-8")
    return folder


@pytest.mark.parametrize("where", [".", ".."])
@pytest.mark.parametrize("reverse", [False, True])
def test_captions_are_read_from_their_folder_or_the_one_above(captions, where, reverse):
    data = Multi30k(str(captions / where), reverse=reverse, unit="words")
    data.setup()

    expected = (WRITTEN, READ) if reverse else (READ, WRITTEN)
    assert data.texts["test"] == expected


def test_a_missing_file_is_named(captions):
    (captions / "val.de").unlink()

    with pytest.raises(
        DataError, match=r"/multi30k lacks train.en, .*; .* lacks val.de\.\n.*Multi30k's"
    ):
        Multi30k(str(captions), unit="words").setup()


@needs_multi30k
def test_the_real_captions_are_read():
    data = Multi30k(str(SHARED), unit="words", min_count=2, max_vocabulary=None)
    data.setup()
    batch = next(iter(data.loader("test")))
    source, target = data.codecs

    assert data.counts() == {"train": 29_000, "val": 1_014, "test": 1_000}
    assert data.sizes == {"vocab_size": 5_919, "target_vocab_size": 7_857}
    first = source.decode(batch.x[0, : batch.lengths[0]], "?")
    assert first == "a man in an orange hat starring at something ."
    assert target.decode(batch.y[0]).startswith("ein mann mit einem orangefarbenen hut")
