"""Numbers read from a device without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor


class Deferred:
    """A few numbers whose copy to the host starts now and is read later.

    Reading a GPU tensor at once would make the host wait until the device has finished its queue,
    and then the device wait for the host. A step later the copy is complete while the device is
    busy with newer work.

    Args:
        values: The numbers, one-dimensional, on any device.
    """

    def __init__(self, values: Tensor) -> None:
        self._arrived: torch.cuda.Event | None = None
        self._values = values.detach().to("cpu", non_blocking=values.is_cuda)  # to pinned memory
        if values.is_cuda:
            self._arrived = torch.cuda.current_stream(values.device).record_event()

    def read(self) -> list[float]:
        """The numbers; waits for the copy if it is not complete."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._values.tolist()
