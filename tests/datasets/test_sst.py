"""Reading of trees, and the choice of training sentences."""

from __future__ import annotations

import logging

import pytest

from seqnets.datasets import StanfordSentiment
from seqnets.datasets.readers.trees import parse_tree, read_trees
from seqnets.errors import ConfigError, DataError

TRAIN = "(3 (2 The) (3 (3 fun) (2 film)))\n(1 (1 Dull) (2 film))\n(2 (2 A) (2 film))\n"
DEV = "(4 (3 Great) (3 fun))\n"
TEST = "(0 (0 (1 So) (0 dull)) (2 .))\n(2 (2 Long) (2 film))\n"


@pytest.fixture
def tiny(tmp_path):
    """Make the dataset of a few sentences, some of whose files are replaced."""

    def make(train=TRAIN, dev=DEV, test=TEST, **options):
        for name, text in (("train", train), ("dev", dev), ("test", test)):
            if text is not None:
                (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
        return StanfordSentiment(str(tmp_path), **{"min_count": 1, **options})

    return make


def sentences(data, part):
    tokens, y = data.texts.parts[part]
    return [(" ".join(words), label) for words, label in zip(tokens, y, strict=True)]


def test_a_tree_is_read_to_its_phrases_from_left_to_right():
    tree = parse_tree("(3 (2 The) (3 (4 fun) (2 film)))", "01234")

    assert tree.words() == ["The", "fun", "film"]
    assert [phrase.label for phrase in tree.phrases()] == ["3", "2", "3", "4", "2"]
    assert [" ".join(p.words()) for p in tree.phrases()][:3] == ["The fun film", "The", "fun film"]


def test_words_are_what_was_written():
    tree = parse_tree(r"(2 (2 -LRB-) (2 (2 and\/or) (2 (2 \*) (2 8" + "\u00a0" + r"1\/2))))", "2")

    assert tree.words() == ["(", "and/or", "*", "8\u00a01/2"]


def test_a_very_deep_tree_is_read():
    depth = 20_000
    tree = parse_tree("(2 " * depth + "deep" + ")" * depth, "2")

    assert tree.words() == ["deep"]
    assert len(list(tree.phrases())) == depth


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("film", "column 1: got 'film', expected ("),
        ("3 (2 a))", "column 1: got '3', expected ("),
        ("(film)", "column 2: got 'film', expected a label, one of 0, 1, 2, 3, 4"),
        ("(5 film)", "column 2: got '5', expected a label"),
        ("((2 a) (2 b))", "column 2: got '(', expected a label"),
        ("(2)", "column 3: got ')', expected ( or a word"),
        ("(2 the film)", "column 8: got 'film', expected )"),
        ("(2 the (2 film))", "column 8: got '(', expected )"),
        ("(2 (2 the) film)", "column 12: got 'film', expected ( or )"),
        ("(2 the))", "column 8: got ')', expected the end of the line"),
        ("(2 the) (2 film)", "column 9: got '(', expected the end of the line"),
        ("(2 (2 the) (2 film)", "column 20: the line ends, expected ( or )"),
        ("(", "column 2: the line ends, expected a label"),
        ("(2", "column 3: the line ends, expected ( or a word"),
        ("(2 the", "column 7: the line ends, expected )"),
    ],
)
def test_a_malformed_tree_is_refused_with_line_and_column(tmp_path, line, message):
    path = tmp_path / "trees.txt"
    path.write_text(f"(2 fine)\n\n{line}\n")

    with pytest.raises(DataError) as error:
        read_trees(path, "01234")

    assert str(error.value).startswith(f"{path}, line 3, {message}")


def test_sentences_are_words_in_lower_case(tiny):
    data = tiny()
    data.setup()

    assert sentences(data, "train") == [("the fun film", 3), ("dull film", 1), ("a film", 2)]
    assert data.labels == ["very negative", "negative", "neutral", "positive", "very positive"]
    assert data.counts() == {"train": 3, "val": 1, "test": 2}
    assert data.sizes == {"vocab_size": 6, "num_classes": 5}


def test_the_vocabulary_is_that_of_training_and_words_beyond_it_are_unknown(tiny):
    data = tiny(min_count=2)
    data.setup()

    assert data.vocabulary.tokens == ["<unk>", "film"]
    assert data.test_dataloader().__iter__().__next__().x.tolist() == [[0, 0, 0], [0, 1, 0]]


def test_all_phrases_are_learned_from_each_once(tiny):
    data = tiny(phrases=True)

    assert sentences(data, "train") == [
        ("the fun film", 3), ("the", 2), ("fun film", 3), ("fun", 3), ("film", 2),
        ("dull film", 1), ("dull", 1), ("a film", 2), ("a", 2),
    ]  # fmt: skip
    assert sentences(data, "val") == [("great fun", 4)]


def test_a_phrase_that_is_a_sentence_of_another_part_is_not_learned_from(tiny):
    data = tiny(dev="(3 (3 Fun) (2 film))\n", test="(1 Dull)\n", phrases=True)

    learned = {words for words, _ in sentences(data, "train")}
    assert {"the fun film", "fun", "film", "dull film"} <= learned
    assert not {"fun film", "dull"} & learned


def test_two_classes_leave_out_what_is_neutral(tiny):
    data = tiny(classes=2, phrases=True)

    assert data.labels == ["negative", "positive"]
    assert sentences(data, "train") == [
        ("the fun film", 1), ("fun film", 1), ("fun", 1), ("dull film", 0), ("dull", 0),
    ]  # fmt: skip
    assert sentences(data, "test") == [("so dull .", 0)]


def test_a_training_sentence_that_another_part_has_is_left_out_and_the_log_says_so(tiny, caplog):
    data = tiny(train=TRAIN + DEV.lower())

    with caplog.at_level(logging.INFO):
        assert len(sentences(data, "train")) == 3

    assert "1 sentences are left out" in caplog.text


@pytest.mark.parametrize("part", ["train", "dev", "test"])
def test_a_part_without_a_sentence_of_two_classes_is_refused(tiny, part):
    data = tiny(**{part: "(2 neutral)\n"}, classes=2)

    with pytest.raises(DataError, match=rf"{part}.txt: has no sentence"):
        data.setup()


def test_missing_files_are_an_error_that_says_where_they_were_looked_for(tiny, tmp_path):
    with pytest.raises(
        DataError,
        match=rf"{tmp_path}/sst lacks train.txt, .*; {tmp_path} lacks dev.txt\.\n.*Stanford",
    ):
        tiny(dev=None).setup()


def test_another_number_of_classes_is_refused():
    with pytest.raises(ConfigError, match="classes is 3, expected 5 or 2"):
        StanfordSentiment("", classes=3)


def test_new_sentences_are_read_a_line_each(tiny, tmp_path):
    data, file = tiny(), tmp_path / "new.lst"
    data.setup()
    file.write_text("A FUN film\nGood\n")

    (batch,) = data.new(file, data.describe())

    assert data.vocabulary.decode(batch.x[0]) == "a fun film"
    assert batch.x[1].tolist() == [0, 0, 0]
    assert batch.lengths.tolist() == [3, 1]


def test_the_treebank_has_the_published_parts_but_for_sentences_of_several(shared_data):
    data = StanfordSentiment(str(shared_data))
    data.setup()

    assert data.counts() == {"train": 8_540, "val": 1_101, "test": 2_210}
    assert not {*data.texts.parts["train"].tokens} & {*data.texts.parts["val"].tokens}
    assert data.baselines()["naive Bayes of words"] > data.baselines()["majority class"] + 0.1
