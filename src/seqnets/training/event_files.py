"""TensorBoard's files of events: where checkpoints are in them, and what follows one forgotten."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

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
    """Drop the events after the last mark of a step's checkpoint, or without one, of later steps.

    It is no error that the last event was not written to its end.
    """
    files = files_in(folder)
    place = _end_of(files, step)
    if place is None:
        return
    number, size = place
    os.truncate(files[number], size)
    for later in files[number + 1 :]:
        later.unlink()


def _end_of(files: Sequence[Path], step: int) -> tuple[int, int] | None:
    """The number of the file in which a step's events end, and where; None: nothing follows."""
    marked = None
    for number, path in enumerate(files):
        size = 0
        for event, end in _events(path):
            if event.step > step:
                return marked or (number, size)
            size = end
            if event.step == step and event.session_log.status == SessionLog.CHECKPOINT:
                marked = number, size
    return marked


def _events(path: Path) -> Iterator[tuple[Event, int]]:
    """The whole events of a file, and where each ends.

    Each is preceded by its size, eight bytes, and the size's checksum, four, and followed by its
    own checksum.
    """
    with path.open("rb") as file, suppress(DecodeError):
        while len(head := file.read(12)) == 12:
            size = int.from_bytes(head[:8], "little")
            record = file.read(size + 4)
            if len(record) < size + 4:
                return
            yield Event.FromString(record[:size]), file.tell()
