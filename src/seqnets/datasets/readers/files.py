"""Finding and reading text files, and the cache folder for prepared data."""

from __future__ import annotations

import codecs
import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from seqnets.errors import DataError

BLOCK = 1 << 20
"""Bytes of a file that are read at a time."""


def find_files(path: str | Path) -> list[Path]:
    """The text files that a path stands for, sorted by name.

    Args:
        path: A file, a folder (every ``*.txt`` in it and below) or a glob pattern.

    Raises:
        DataError: There is no such file.
    """
    named = Path(path).expanduser()
    if named.is_file():
        return [named]
    pattern = f"{glob.escape(str(named))}/**/*.txt" if named.is_dir() else str(named)
    found = sorted(file for file in map(Path, glob.glob(pattern, recursive=True)) if file.is_file())
    if not found:
        raise DataError(
            f"{named}: got no text, expected a file, a folder with *.txt or a pattern of files.\n"
            f"  The current folder is {Path.cwd()}."
        )
    return found


def find_folder(
    who: str,
    root: str | Path,
    folders: Sequence[str],
    files: Sequence[str],
    advice: str,
) -> Path:
    """The first of several folders that contains all files of a dataset.

    Args:
        who: The dataset's name, for the error message.
        root: Parent of the folders.
        folders: Their names below the root; "" is the root itself.
        files: Names of the files.
        advice: How to get the files, for the error message.

    Raises:
        DataError: No folder contains all of them; the message says what each lacks.
    """
    reasons: list[str] = []
    for folder in (Path(root).expanduser() / name for name in folders):
        missing = [file for file in files if not (folder / file).is_file()]
        if not missing:
            return folder
        reasons.append(f"{folder} lacks {', '.join(missing)}")
    raise DataError(f"{who}: {'; '.join(reasons)}.\n  {advice}")


def read_text(path: Path) -> Iterator[str]:
    r"""Yield a UTF-8 file block by block, without a leading byte order mark; ``\r\n`` is ``\n``.

    Raises:
        DataError: The file cannot be read or is not UTF-8; the message gives byte and line.
    """
    position, line, rest, held, ascii_only = 0, 1, b"", "", True
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                data = rest + block
                text, used = codecs.utf_8_decode(data, "strict", len(block) < BLOCK)
                ascii_only = ascii_only and text.isascii()
                text = held + (text.removeprefix("\ufeff") if position == 0 else text)
                held = "\r" if text.endswith("\r") else ""  # its \n may begin the next block
                yield text[: len(text) - len(held)].replace("\r\n", "\n")
                position, rest = position + used, data[used:]
                line += data.count(b"\n", 0, used)
            codecs.utf_8_decode(rest, "strict", True)
            if held:
                yield held
    except UnicodeDecodeError as error:
        line += error.object.count(b"\n", 0, error.start)
        utf_16 = position == 0 and error.object.startswith(
            (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        )
        encoding = "utf-16" if utf_16 else "cp1252"
        advice = f"Convert the file first, for example: iconv -f {encoding} -t utf-8 OLD > NEW"
        if not ascii_only or not error.object[: error.start].isascii():
            advice = (
                "What comes before is UTF-8, with letters beyond ASCII: the file is damaged or of "
                "several encodings.\n  Convert each part from its own."
            )
        raise DataError(
            f"{path}: byte {position + error.start:,} (line {line:,}) is "
            f"0x{error.object[error.start]:02x}, expected UTF-8 text.\n  {advice}"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from None


def read_lines(path: Path) -> list[str]:
    r"""The lines of a text file; they end with ``\n`` or ``\r\n`` only.

    Raises:
        DataError: The file is missing, empty or not UTF-8.
    """
    check_text(path)
    lines = "".join(read_text(path)).split("\n")
    if not lines[-1]:
        lines.pop()
    return lines


def read_texts(paths: Sequence[Path]) -> Iterator[str]:
    """Yield files one after the other, block by block, each starting on a new line."""
    last = "\n"
    for path in paths:
        if last != "\n":
            yield "\n"
            last = "\n"
        for block in read_text(path):
            yield block
            last = block[-1:] or last


def check_text(path: Path, nul: bool = False) -> None:
    """Raise DataError if a file is missing, empty, not UTF-8, or, unless allowed, has NULs."""
    line, has_text = 1, False
    for block in read_text(path):  # all are read, and so checked
        has_text = has_text or bool(block.strip())
        if not nul and "\0" in block:
            line += block.count("\n", 0, block.index("\0"))
            raise DataError(
                f"{path}, line {line:,}: has a NUL character, expected text.\n"
                "  If the file is UTF-16, convert it first: iconv -f utf-16le -t utf-8 OLD > NEW"
            )
        line += block.count("\n")
    if not has_text:
        raise DataError(f"{path}: the file is empty.")


def cache_folder(folder: str | Path | None) -> Path:
    """The folder for prepared data; ``$XDG_CACHE_HOME/seqnets`` if none is given."""
    if folder is not None:
        return Path(folder).expanduser()
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "seqnets"
