"""Files of a sequence each: sound, images, arrays, tables or text, and folders of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from seqnets.datasets.readers import audio, images
from seqnets.datasets.readers.arrays import read_npy
from seqnets.datasets.readers.files import read_text
from seqnets.datasets.readers.recordings import LEFT_OUT, read_recording
from seqnets.datasets.readers.records import LABEL, Record, Source, Wanted
from seqnets.datasets.readers.tables import SUFFIXES as TABLES
from seqnets.errors import DataError

TRANSCRIPT = ".txt"
"""Suffix of a file with the transcript of the file beside it."""

_RATE = "sample rate"

Read = Callable[[Path, Wanted], "tuple[np.ndarray | str, dict[str, Any]]"]


def read_folder(path: Path, wanted: Wanted) -> Source:
    """Read a folder with one subfolder per class or, for new data, a flat folder of files.

    All files are of one kind, given by their suffixes; hidden files are ignored. Each file is a
    sequence. If targets are transcripts, the folder is flat, and that of ``a.wav`` is in ``a.txt``.

    Raises:
        DataError: The folder has another layout, or a file is damaged or unlike the others.
    """
    if wanted.transcribed:
        return _read_transcribed(path, wanted)
    if wanted.new:
        return read_files(_visible(path), wanted)
    if wanted.columns != (LABEL,):
        raise DataError(
            f"{path}: got a folder, expected a table with {', '.join(wanted.columns)}: folders "
            f"hold classes only."
        )
    folders = _visible(path)
    loose = next((entry for entry in folders if not entry.is_dir()), None)
    if loose is not None:
        raise DataError(f"{loose}: got a file, expected one folder for each class in {path}.")
    files = [file for folder in folders for file in _visible(folder)]
    source = read_files(files, wanted)
    for record, file in zip(source.records, files, strict=True):
        record.target = wanted.target_of(record.where, {LABEL: file.parent.name})
    return source


def _read_transcribed(path: Path, wanted: Wanted) -> Source:
    """Read a flat folder of files, with their transcripts beside them."""
    files: list[Path] = []
    texts: dict[str, Path] = {}
    for entry in _visible(path):
        if entry.suffix.lower() != TRANSCRIPT:
            files.append(entry)
        else:
            _check_alone(entry, texts.setdefault(entry.stem, entry))
    read: dict[str, Path] = {}
    for file in files:
        known = file.suffix.lower() in KINDS and file.is_file()
        if known and file.stem in texts:
            _check_alone(file, read.setdefault(file.stem, file))
        elif known and not wanted.new:
            raise DataError(
                f"{file}: got no transcript of it, expected {file.stem}{TRANSCRIPT} beside it."
            )
    alone = texts.keys() - {file.stem for file in files}
    if alone:
        raise DataError(
            f"{texts[min(alone)]}: is a transcript of nothing, expected {min(alone)}.wav or the "
            "like beside it."
        )
    source = read_files(files, wanted)
    for record, file in zip(source.records, files, strict=True):
        if file.stem in texts:
            transcript = texts[file.stem]
            row = dict.fromkeys(wanted.columns, "".join(read_text(transcript)))
            record.target = wanted.target_of(str(transcript), row)
    return source


def _check_alone(file: Path, first: Path) -> None:
    """Raise DataError if another file, of a sequence or a transcript, comes first by its name."""
    if file is not first:
        raise DataError(
            f"{file}: has the same name as {first.name}, expected one file of a sequence and one "
            "transcript of it.\n  Give each sequence a name of its own."
        )


def read_files(files: list[Path], wanted: Wanted) -> Source:
    """Read files of one kind, each one sequence without a target.

    Raises:
        DataError: A file is damaged, of an unknown kind, or unlike the first.
    """
    return joined(_each(files, wanted))


def _each(files: list[Path], wanted: Wanted) -> Iterator[tuple[str, Record, dict[str, Any]]]:
    for file in files:
        if file.is_dir():
            advice = "New data are one file, or a folder of files: name such folders one by one."
            if not wanted.new:
                advice = (
                    "If each part has a folder, name them: path=FOLDER/train test_path=FOLDER/test."
                )
            raise DataError(f"{file}: got a folder, expected files there.\n  {advice}")
        steps, facts = read_file(file, wanted)
        yield str(file), Record(str(file), steps, id=str(file)), facts


def joined(files: Iterable[tuple[str, Record, dict[str, Any]]]) -> Source:
    """Join the sequences of files that are one each, with features in the order of the first.

    Args:
        files: Of each file what errors call it, its sequence, and the facts about it.

    Raises:
        DataError: A file is unlike the first. They may differ in the columns to leave out.
    """
    records: list[Record] = []
    expected: dict[str, Any] = {}
    left_out: set[str] = set()
    for who, record, facts in files:
        left_out |= facts.pop(LEFT_OUT, set())
        expected = expected or facts
        source = Source([record], facts).in_order(expected.get("features"))
        records += source.records
        check_facts(who, source.facts, records[0].where, expected)
    # new files need not be of the same kind
    shared = {name: fact for name, fact in expected.items() if name != "kind"}
    return Source(records, shared, frozenset(left_out))


def read_file(file: Path, wanted: Wanted) -> tuple[np.ndarray | str, dict[str, Any]]:
    """The steps of a file, (T, I), or its text, and the facts about it.

    Raises:
        DataError: The file is missing, damaged or of an unknown kind.
    """
    read = KINDS.get(file.suffix.lower())
    if read is None:
        raise DataError(
            f"{file}: cannot be read, expected a name that ends with {', '.join(KINDS)}."
        )
    if not file.is_file():
        raise DataError(f"{file}: no such file.")
    return read(file, wanted)


def check_facts(who: str, facts: dict[str, Any], other: str, expected: dict[str, Any]) -> None:
    """Raise DataError unless two files agree on the facts about their sequences."""
    for name in {**expected, **facts}:
        found, wanted = facts.get(name, "none"), expected.get(name, "none")
        if found != wanted:
            advice = ""
            if name == _RATE and "none" not in (found, wanted):
                advice = f"\n  Resample it first, for example: ffmpeg -i OLD -ar {wanted} NEW"
            raise DataError(f"{who}: got {name} {found}, expected {wanted} as in {other}.{advice}")


def _visible(folder: Path) -> list[Path]:
    """A folder's entries that are not hidden, sorted by name."""
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    if not entries:
        raise DataError(f"{folder}: the folder is empty, expected files in it.")
    return entries


def _read_sound(path: Path, wanted: Wanted) -> tuple[np.ndarray, dict[str, Any]]:
    samples, rate = audio.read_audio(path)
    return wanted.audio(samples, rate), {"kind": "sound", _RATE: rate}


def _read_image(path: Path, wanted: Wanted) -> tuple[np.ndarray, dict[str, Any]]:
    rows, mode = images.read_image(path)
    facts = {"kind": "image", "mode": mode}
    if wanted.transcribed:
        return images.columns_of(rows, len(mode)), {**facts, "height": len(rows)}
    return rows, {**facts, "width": rows.shape[1] // len(mode)}


def _read_frames(path: Path, wanted: Wanted) -> tuple[np.ndarray, dict[str, Any]]:
    return read_npy(path, wanted), {"kind": "array"}


def _read_text(path: Path, wanted: Wanted) -> tuple[str, dict[str, Any]]:
    text = "".join(read_text(path))
    if not text:
        raise DataError(f"{path}: the file is empty.")
    return text, {"kind": "text"}


KINDS: dict[str, Read] = {
    **dict.fromkeys(audio.SUFFIXES, _read_sound),
    **dict.fromkeys(images.SUFFIXES, _read_image),
    ".npy": _read_frames,
    **dict.fromkeys(TABLES, read_recording),
    ".txt": _read_text,
}
"""The reader of each file suffix."""
