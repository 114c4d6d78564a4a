"""Numbers of a device that nobody waits for."""

from __future__ import annotations

import torch
from torch import Tensor


class Later:
    """A few numbers, sent on their way now and read when they have arrived.

    Reading a tensor of a GPU at once would make the host wait until the device has done all that
    it was given, and then the device for the host. Read a step later they are there already, while
    the device is busy with what came after.

    Args:
        values: The numbers, one-dimensional, on any device.
    """

    def __init__(self, values: Tensor) -> None:
        self._arrived: torch.cuda.Event | None = None
        self._values = values.detach().to("cpu", non_blocking=values.is_cuda)  # to pinned memory
        if values.is_cuda:
            self._arrived = torch.cuda.current_stream(values.device).record_event()

    def read(self) -> list[float]:
        """The numbers; waits for the device if it has not come so far yet."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._values.tolist()
