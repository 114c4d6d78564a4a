"""TensorBoard's files of events: where checkpoints are in them, and what follows one forgotten."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tensorboard.compat.proto.event_pb2 import Event, SessionLog

from seqnets.errors import ConfigError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def files_in(folder: Path) -> list[Path]:
    """The files of events in a folder, in the order in which TensorBoard reads them."""
    return sorted(folder.glob("events.out.tfevents.*"))


def mark_checkpoint(writer: SummaryWriter, step: int) -> None:
    """Write all events, and that there is a checkpoint of this step; TensorBoard does not show it.

    An entry after the mark may be of the same step, and is still written again by a run that goes
    on from the checkpoint.
    """
    mark = Event(session_log=SessionLog(status=SessionLog.CHECKPOINT))
    writer._get_file_writer().add_event(mark, step)
    writer.flush()


def forget_after(folder: Path, step: int) -> None:
    """Drop the events after the mark of a step's checkpoint, or without one, of later steps.

    The order of the files does not count: the clock of one machine may be behind another's. It is
    no error that the last event was not written to its end. Files without such events stay as they
    are.

    Raises:
        ConfigError: A file cannot be written to.
    """
    found = {path: _places(path, step) for path in files_in(folder)}
    is_marked = any(places.mark for places in found.values())
    for path, (head, before, through, mark) in found.items():
        size = mark or (before if is_marked else through)
        try:
            if size < path.stat().st_size:
                os.truncate(path, size)
        except OSError as error:
            raise ConfigError(
                f"resume: what follows the checkpoint in {path} cannot be dropped, expected a file "
                f"that can be written to: {error.strerror}.\n"
                "  Those steps run again, and TensorBoard would show them twice."
            ) from None  # a cause of this kind stands for a full disk
        if size <= head:
            with suppress(PermissionError):  # of Windows, where TensorBoard is reading it
                path.unlink()


class _Places(NamedTuple):
    """Ends in a file: of its first event, of those before a step, of those up to it, of its mark.

    It is that of the step's checkpoint, or 0.
    """

    head: int
    before: int
    through: int
    mark: int


def _places(path: Path, step: int) -> _Places:
    head = before = through = mark = 0
    is_before = True
    for event, end in _events(path):
        if event.step > step:
            break
        head, through = head or end, end
        is_before = is_before and event.step < step
        if is_before:
            before = end
        elif event.session_log.status == SessionLog.CHECKPOINT:
            mark = end
    return _Places(head, before, through, mark)


def _events(path: Path) -> Iterator[tuple[Event, int]]:
    """The events of a file up to one that is damaged or cut off, and where each ends.

    Each is preceded by its size, eight bytes, and the size's checksum, four, and followed by its
    own checksum.
    """
    whole = path.stat().st_size
    with path.open("rb") as file:
        while len(head := file.read(12)) == 12:
            size = int.from_bytes(head[:8], "little")
            if file.tell() + size + 4 > whole:
                return
            try:
                event = Event.FromString(file.read(size + 4)[:size])
            except Exception:  # of the library below TensorBoard, whichever that is
                return
            yield event, file.tell()
