"""Tiny files that replace the data a dataset's configuration needs from the user."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

StandIn = Callable[[Path], list[str]]

STAND_INS: dict[str, StandIn] = {}
"""By dataset: a function that writes files to a folder and returns the overrides."""

SENTENCE = "to be or not to be , that is the question"
RANDOM = np.random.default_rng(0)


def stand_in(*datasets: str) -> Callable[[StandIn], StandIn]:
    def keep(write: StandIn) -> StandIn:
        STAND_INS.update(dict.fromkeys(datasets, write))
        return write

    return keep


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def steps() -> Iterator[tuple[int, int]]:
    """Yield sequence and step number, for thirty sequences of three to six steps."""
    for sequence in range(30):
        yield from ((sequence, step) for step in range(3 + sequence % 4))


@stand_in("text")
def text(folder: Path) -> list[str]:
    write(folder / "book.txt", *[SENTENCE] * 60)
    return [f"dataset.path={folder / 'book.txt'}", f"dataset.cache={folder / 'cache'}"]


@stand_in("shakespeare")
def shakespeare(folder: Path) -> list[str]:
    write(folder / "input.txt", *[SENTENCE] * 60)
    return [f"dataset.root={folder}"]


@stand_in("ptb")
def ptb(folder: Path) -> list[str]:
    for part in ("train", "valid", "test"):
        write(folder / f"ptb.{part}.txt", *[f" {SENTENCE} "] * 40)
    return [f"dataset.root={folder}"]


@stand_in("ucr")
def ucr(folder: Path) -> list[str]:
    head = ["@dimensions 2", "@classLabel true a b", "@data"]
    cases = ["1,2,3:4,5,6:a", "1,2:4,5:b", "3,2,1,0:6,5,4,0:b", "0,1:1,0:a"] * 4
    for name in ("JapaneseVowels", "BasicMotions"):
        for part in ("TRAIN", "TEST"):
            write(folder / f"{name}_{part}.ts", *head, *cases)
    return [f"dataset.root={folder}"]


@stand_in("classification")
def classification(folder: Path) -> list[str]:
    return table(folder, "label", lambda n, step: "ab"[n % 2])


@stand_in("regression")
def regression(folder: Path) -> list[str]:
    return table(folder, "target", lambda n, step: n / 10)


@stand_in("transcription")
def transcription(folder: Path) -> list[str]:
    return table(folder, "text", lambda n, step: ["ab", "b", "ba"][n % 3])


@stand_in("tagging")
def tagging(folder: Path) -> list[str]:
    return table(folder, "label", lambda n, step: "xyz"[step % 3])


def table(folder: Path, column: str, target: Callable[[int, int], object]) -> list[str]:
    """Write sequences with two features and a target column, with a row per step."""
    rows = [f"{n},{target(n, step)},{step},{math.sin(n + step)}" for n, step in steps()]
    write(folder / "mine.csv", f"sequence,{column},first,second", *rows)
    return [f"dataset.path={folder / 'mine.csv'}"]


@stand_in("wnut17")
def wnut17(folder: Path) -> list[str]:
    words = ["Rosa\tB-person", "Parks\tI-person", "sat\tO", ".\tO", ""]
    for part in ("train", "dev", "test"):
        write(folder / f"{part}.conll", *words * 12)
    return [f"dataset.root={folder}"]


@stand_in("forecasting")
def forecasting(folder: Path) -> list[str]:
    rows = [f"{n},{math.sin(n)},{n % 7}" for n in range(300)]
    write(folder / "mine.csv", "time,sales,price", *rows)
    return [f"dataset.path={folder / 'mine.csv'}", "dataset.lookback=24", "dataset.horizon=4"]


@stand_in("etth1")
def etth1(folder: Path) -> list[str]:
    values = RANDOM.standard_normal((20 * 30 * 24 + 10, 7)).round(3).tolist()
    first = datetime(2016, 7, 1)
    rows = [
        f"{first + timedelta(hours=n)},{','.join(map(str, row))}" for n, row in enumerate(values)
    ]
    write(folder / "ETTh1.csv", "date,HUFL,HULL,MUFL,MULL,LUFL,LULL,OT", *rows)
    return [f"dataset.root={folder}", "dataset.lookback=96"]


@stand_in("pairs")
def pairs(folder: Path) -> list[str]:
    rows = [f"{n} and {n % 5},{n + n % 5}" for n in range(60)]
    write(folder / "mine.csv", "source,target", *rows)
    return [
        f"dataset.path={folder / 'mine.csv'}",
        "dataset.unit=words",
        "dataset.metric=exact_match",
    ]


@stand_in("multi30k")
def multi30k(folder: Path) -> list[str]:
    for part in ("train", "val", "test_2016_flickr"):
        write(folder / f"{part}.en", *[f"a man with {n} dogs ." for n in range(40)])
        write(folder / f"{part}.de", *[f"ein mann mit {n} hunden ." for n in range(40)])
    return [f"dataset.root={folder}", "dataset.unit=words"]


@stand_in("names")
def surnames(folder: Path) -> list[str]:
    write(folder / "Italian.txt", *[f"Ross{vowel}{more}" for vowel in "aeiou" for more in "abcdef"])
    write(
        folder / "German.txt", *[f"Schm{vowel}dt{more}" for vowel in "aeiou" for more in "abcdef"]
    )
    return [f"dataset.root={folder}"]


@stand_in("sst")
def sst(folder: Path) -> list[str]:
    trees = [f"({n} (2 It) ({n} (2 is) ({n} number{n})))" for n in range(5)]
    for number, part in enumerate(("train", "dev", "test")):
        write(folder / f"{part}.txt", *(t.replace("It", f"It{number}") for t in trees * 4))
    return [f"dataset.root={folder}"]


@stand_in("mnist")
def mnist(folder: Path) -> list[str]:
    for part in ("train", "t10k"):
        pixels = RANDOM.integers(256, size=(40, 5, 5), dtype=np.uint8)
        labels = np.arange(40, dtype=np.uint8) % 10
        for name, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            (folder / f"{part}-{name}-ubyte").write_bytes(head + array.tobytes())
    return [f"dataset.root={folder}"]


@stand_in("music")
def music(folder: Path) -> list[str]:
    io = pytest.importorskip("scipy.io")
    pieces = np.empty((1, 8), object)
    for number in range(8):
        pieces[0, number] = RANDOM.integers(2, size=(4 + number, 88)).astype(np.uint8)
    for name in ("JSB_Chorales", "Nottingham", "MuseData", "Piano_midi"):
        variables = dict.fromkeys(("traindata", "validdata", "testdata"), pieces)
        io.savemat(folder / f"{name}.mat", variables)
    return [f"dataset.root={folder}"]
