"""Names are normalised and distinct, and no two parts share one."""

from __future__ import annotations

from collections import Counter

import pytest

from seqnets.datasets import Surnames
from seqnets.datasets.parts import PARTS
from seqnets.errors import ConfigError, DataError

TEXTS = {
    "Irish": "Daly\nKearn\nNolan\nO'Neil\n",
    "Spanish": "Abana\nAlvarez\nBlanco\nCruz\n",
    "Welsh": "Gwyn\nHowell\nPugh\nRhys\n",
}


@pytest.fixture
def tiny(tmp_path):
    """Make the dataset of three languages, some of whose files are replaced or left out."""

    def make(files=None, **options):
        for language, text in {**TEXTS, **(files or {})}.items():
            if text is not None:
                content = text if isinstance(text, bytes) else text.encode()
                (tmp_path / f"{language}.txt").write_bytes(content)
        return Surnames(str(tmp_path), **options)

    return make


def names(data, part):
    """All names of a part with their languages."""
    tokens, y = data.texts.parts[part]
    return [(name, data.texts.labels[label]) for name, label in zip(tokens, y, strict=True)]


def everything(data):
    return [pair for part in PARTS for pair in names(data, part)]


def test_a_file_is_a_language_and_a_line_a_name(tiny):
    data = tiny(min_count=1)
    data.setup()

    assert data.labels == ["Irish", "Spanish", "Welsh"]
    assert Counter(language for _, language in everything(data)) == dict.fromkeys(data.labels, 4)
    assert data.sizes == {"vocab_size": len(data.vocabulary), "num_classes": 3}
    batch = next(iter(data.train_dataloader()))
    spelled = {data.vocabulary.decode(x[:n]) for x, n in zip(batch.x, batch.lengths, strict=True)}
    assert spelled == {name for name, _ in names(data, "train")}


def test_every_part_has_some_names_of_every_language(tiny):
    data = tiny()

    for part in PARTS:
        assert {language for _, language in names(data, part)} == set(TEXTS)


def test_a_name_counts_once_in_a_language_whatever_stands_around_it(tiny):
    data = tiny({"Welsh": "Gwyn\r\n\r\n Gwyn \nHowell\nPugh\nGwyn\n"})

    welsh = [name for name, language in everything(data) if language == "Welsh"]
    assert sorted(welsh) == ["Gwyn", "Howell", "Pugh"]


def test_a_name_is_the_same_however_its_accents_are_coded(tiny):
    data = tiny({"Irish": "Se\u0301\nS\u00e9\nDaly\nKearn\n"})

    irish = [name for name, language in everything(data) if language == "Irish"]
    assert sorted(irish) == ["Daly", "Kearn", "S\u00e9"]


@pytest.mark.parametrize("seed", range(5))
def test_a_name_of_several_languages_stays_one_of_each_and_in_one_part(tiny, seed):
    shared = "Park\nLee\nMoon\n"
    data = tiny({"Irish": TEXTS["Irish"] + shared, "Welsh": TEXTS["Welsh"] + shared}, seed=seed)

    assert Counter(name for name, _ in everything(data))["Lee"] == 2
    spellings = [{name for name, _ in names(data, part)} for part in PARTS]
    assert sum(map(len, spellings)) == len(set.union(*spellings))


def test_the_seed_determines_the_parts(tiny):
    first, again, other = ([names(tiny(seed=seed), part) for part in PARTS] for seed in (0, 0, 1))

    assert first == again
    assert first != other


def test_a_name_is_judged_by_its_longest_known_ending(tiny):
    data = tiny()
    data.__dict__["texts"] = data.texts._replace(
        parts={
            "train": data.texts.parts["train"]._replace(
                tokens=["Rossi", "Bassi", "Smith", "Wirth", "Booth"], y=[0, 0, 1, 2, 1]
            ),
            "val": data.texts.parts["val"],
            # "ssi" is 0's; "rth" is 2's, though more names in "th" are 1's; nothing ends with "z"
            "test": data.texts.parts["test"]._replace(
                tokens=["Messi", "Barth", "Ruiz"], y=[0, 2, 0]
            ),
        }
    )

    assert data.baselines()["commonest of the ending"] == 1


def test_the_naive_bayes_of_letters_checked_by_hand(tiny):
    data = tiny(min_count=1)
    parts = data.texts.parts
    data.__dict__["texts"] = data.texts._replace(
        parts={
            "train": parts["train"]._replace(tokens=["aa", "ab", "bb"], y=[0, 0, 1]),
            "val": parts["val"]._replace(tokens=["a"], y=[0]),
            "test": parts["test"]._replace(tokens=["b", "a", "abbbb"], y=[0, 0, 1]),
        }
    )
    # Priors 3 : 2 : 1. Of (<unk>, a, b) language 0 has (1, 4, 2) / 7, 1 has (1, 1, 3) / 5.
    # "b": 3 * 2/7 < 2 * 3/5. "a": 3 * 4/7 > 2 * 1/5. "abbbb": 3 * 4/7 (2/7)^4 < 2 * 1/5 (3/5)^4,
    # though language 1 has no "a".

    assert data.baselines()["naive Bayes of characters"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"Welsh": ""}, r"Welsh.txt: the file is empty"),
        ({"Welsh": "\n \n"}, r"Welsh.txt: the file is empty"),
        ({"Welsh": b"Gwyn\nPugh\nS\xe9\n"}, r"Welsh.txt: byte 11 \(line 3\) is 0xe9"),
        ({"Welsh": "Gwyn\nPugh\nGwyn\n"}, r"Welsh.txt: got 2 names .* expected at least 3"),
        (
            {"Irish": TEXTS["Spanish"] + TEXTS["Welsh"]},
            r"Irish.txt: got 0 names .* no rarer language",
        ),
    ],
)
def test_unusable_files_are_refused(tiny, files, message):
    with pytest.raises(DataError, match=message):
        tiny(files).setup()


def test_a_folder_without_languages_is_refused(tmp_path):
    (tmp_path / "names").mkdir()
    (tmp_path / "names" / "Irish.txt").write_text("Daly")

    with pytest.raises(
        DataError, match=r"neither .*names nor .* two or more files \*\.txt.*\n.*spro/practical"
    ):
        Surnames(str(tmp_path)).setup()


def test_an_invalid_fraction_is_refused():
    with pytest.raises(ConfigError, match="test_fraction is 1"):
        Surnames("", test_fraction=1)


def test_new_names_are_read_a_line_each(tiny, tmp_path):
    data = tiny(min_count=1)
    data.setup()
    file = tmp_path / "new.lst"
    file.write_text("Daly\nA\u030a\n", encoding="utf-8")

    (batch,) = data.new(file, data.describe())

    assert batch.lengths.tolist() == [4, 1]
    assert batch.x[1, 0] == data.vocabulary.unknown
    assert batch.y.tolist() == [-100, -100]


@pytest.mark.parametrize("sign", ["\u2028", "\x85", "\f", "\v", "\x1c"])
def test_only_a_line_feed_ends_a_line(tiny, tmp_path, sign):
    odd = f"Ab{sign}cd"
    data, file = tiny({"Irish": f"{odd}\r\nDaly\nKearn\n"}), tmp_path / "new.lst"
    file.write_text(f"{odd}\nDaly\n", encoding="utf-8")

    (batch,) = data.new(file, data.describe())

    assert odd in {name for name, _ in everything(data)}
    assert batch.lengths.tolist() == [5, 4]


@pytest.mark.parametrize(
    ("text", "message"), [("", "is empty"), ("Daly\n\nPugh", "line 2: is empty")]
)
def test_a_new_file_with_nothing_in_a_line_is_refused(tiny, tmp_path, text, message):
    data, file = tiny(), tmp_path / "new.lst"
    file.write_text(text)

    with pytest.raises(DataError, match=message):
        data.new(file, data.describe())


def test_examples_are_names_with_their_languages(tiny):
    data = tiny()

    assert data.examples("train", 2)[0] == {
        "text": names(data, "train")[0][0],
        "label": names(data, "train")[0][1],
    }


def test_names_of_18_languages(shared_data):
    data = Surnames(str(shared_data))
    data.setup()

    assert data.counts() == {"train": 14_411, "val": 1_799, "test": 1_802}
    assert data.sizes["num_classes"] == 18
    assert len({*everything(data)}) == sum(data.counts().values())
    assert data.baselines()["commonest of the ending"] > data.baselines()["majority class"] + 0.2
