"""Reading text files in blocks, and the folder where prepared data are kept."""

from __future__ import annotations

import codecs
import glob
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from seqnets.errors import DataError

BLOCK = 1 << 20
"""Bytes of a file that are in memory at once."""

LARGEST = float(np.finfo(np.float32).max)


def find_files(path: str | Path) -> list[Path]:
    """Return the text files that a file's name, a folder or a pattern stands for, sorted.

    A folder stands for all ``*.txt`` in it and below.

    Raises:
        DataError: There is none.
    """
    named = Path(path).expanduser()
    if named.is_file():
        return [named]
    pattern = f"{glob.escape(str(named))}/**/*.txt" if named.is_dir() else str(named)
    found = sorted(file for file in map(Path, glob.glob(pattern, recursive=True)) if file.is_file())
    if not found:
        raise DataError(
            f"{named}: got no text, expected a file, a folder with *.txt or a pattern of files.\n"
            f"  Looked for it from {Path.cwd()}."
        )
    return found


def find_folder(
    who: str,
    root: str | Path,
    folders: Sequence[str],
    files: Sequence[str],
    advice: str,
) -> Path:
    """Return the first of some folders that has all of some files.

    Args:
        who: What error messages call the dataset.
        root: Where the folders are.
        folders: Their names below it; "" is the root itself.
        files: What they must have.
        advice: What to do where none has them, and whose files they are.

    Raises:
        DataError: None has; says what each lacks.
    """
    lacks: list[str] = []
    for folder in (Path(root).expanduser() / name for name in folders):
        absent = [file for file in files if not (folder / file).is_file()]
        if not absent:
            return folder
        lacks.append(f"{folder} lacks {', '.join(absent)}")
    raise DataError(f"{who}: {'; '.join(lacks)}.\n  {advice}")


def read_text(path: Path) -> Iterator[str]:
    """Yield a UTF-8 file block by block, without a leading byte order mark.

    Raises:
        DataError: The file cannot be read, or is not UTF-8; says at which byte and line.
    """
    position, line, kept = 0, 1, b""
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                data = kept + block
                text, used = codecs.utf_8_decode(data, "strict", len(block) < BLOCK)
                yield text.removeprefix("\ufeff") if position == 0 else text
                position, kept = position + used, data[used:]
                line += data.count(b"\n", 0, used)
            codecs.utf_8_decode(kept, "strict", True)
    except UnicodeDecodeError as error:
        line += error.object.count(b"\n", 0, error.start)
        marked = position == 0 and error.object.startswith(
            (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        )
        coding = "utf-16" if marked else "latin1"
        raise DataError(
            f"{path}: byte {position + error.start:,} (line {line:,}) is "
            f"0x{error.object[error.start]:02x}, expected UTF-8 text.\n"
            f"  Convert the file first, for example: iconv -f {coding} -t utf-8"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from None


def read_lines(path: Path) -> list[str]:
    """Read a text file's lines; only a line feed ends one, and a carriage return before it.

    Raises:
        DataError: The file is missing, empty or not UTF-8.
    """
    check_text(path)
    lines = "".join(read_text(path)).split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def read_texts(paths: Sequence[Path]) -> Iterator[str]:
    """Yield files one after the other, block by block; each begins on a line of its own."""
    last = "\n"
    for path in paths:
        if last != "\n":
            yield "\n"
            last = "\n"
        for block in read_text(path):
            yield block
            last = block[-1:] or last


def check_text(path: Path) -> None:
    """Raise DataError if a file is missing, empty or not UTF-8."""
    filled = [bool(block.strip()) for block in read_text(path)]
    if not any(filled):
        raise DataError(f"{path}: the file is empty.")


def parse_number(text: str) -> float:
    """Return the number that a text is, or NaN for what is none that float32 can hold.

    Python's own ways of writing one are none: 1_000, or digits of other scripts.
    """
    if "_" in text or not text.isascii():
        return math.nan
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if abs(number) <= LARGEST else math.nan


def cache_folder(folder: str | Path | None = None) -> Path:
    """Return where prepared data are kept: ``$XDG_CACHE_HOME/seqnets`` unless another is given."""
    if folder is not None:
        return Path(folder).expanduser()
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "seqnets"
