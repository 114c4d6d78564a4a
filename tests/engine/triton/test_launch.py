"""A launch like the one before goes to its compiled kernel, with addresses; another is compiled."""

from types import SimpleNamespace

import pytest
import torch

launch = pytest.importorskip("seqnets.engine.triton.launch")
from seqnets.engine.triton.kernel import Numbers  # noqa: E402

POINTERS = ["lengths", "wx", "saved"]
CONSTANTS = (True, False, "tf32")


class Kernel:
    """A function that is compiled at a call, and what it is compiled to."""

    def __init__(self, compiled=None):
        self.calls, self.compiled = [], compiled

    def __getitem__(self, grid):
        def call(*arguments, **options):
            self.calls.append(arguments[: len(POINTERS)])
            return self.compiled

        return call


@pytest.fixture
def made(monkeypatch):
    """A pass of one kernel, the function, and what it is compiled to."""
    monkeypatch.setattr(launch, "INTERPRETED", False)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    compiled = Kernel()
    function = Kernel(compiled)
    run = launch.Pass.__new__(launch.Pass)
    run.tiles = SimpleNamespace(mode="grid", programs=1, groups=1, warps=4)
    run.functions, run._pointers, run._compiled = {"k": function}, {"k": POINTERS}, {}
    return run, function, compiled


def start(run, **buffers):
    run.run(buffers, Numbers(*range(7)), CONSTANTS)


def test_a_launch_like_the_one_before_passes_addresses_to_what_was_compiled(made):
    run, function, compiled = made
    wx, saved = torch.zeros(64), torch.zeros(64)
    start(run, saved=saved, wx=wx, unread=torch.zeros(1))
    start(run, saved=saved, wx=wx, unread=torch.zeros(1))

    ((lengths, *tensors),) = function.calls
    assert lengths is None
    assert [*map(id, tensors)] == [id(wx), id(saved)]
    assert compiled.calls == [(None, wx.data_ptr(), saved.data_ptr())]


@pytest.mark.parametrize(
    "change",
    [
        lambda wx: {"wx": wx[1:]},
        lambda wx: {"lengths": torch.zeros(64, dtype=torch.int64)},
        lambda wx: {"saved": torch.zeros(64).half()},
    ],
    ids=["alignment", "another buffer", "dtype"],
)
def test_a_launch_of_another_kind_is_compiled_anew(change, made):
    run, function, compiled = made
    buffers = {"wx": torch.zeros(64), "saved": torch.zeros(64)}
    start(run, **buffers)
    start(run, **buffers | change(buffers["wx"]))

    assert len(function.calls) == 2
    assert compiled.calls == []
