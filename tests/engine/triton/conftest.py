"""Triton's interpreter, which stands in for a GPU (tests/conftest.py switches it on)."""

import pytest

from seqnets.engine.triton import access


@pytest.fixture(autouse=True)
def interpreter():
    """Kernels run on the CPU, one program after the other."""
    pytest.importorskip("triton", reason="Triton is not installed")
    if not access.interpreted():
        pytest.skip("on a GPU, scripts/gpu_checks.py checks the kernels")


@pytest.fixture
def using(monkeypatch):
    """Let the backend use loops of one's own."""

    def use(loops):
        monkeypatch.setattr(access, "printed_loops", lambda: loops)

    return use
