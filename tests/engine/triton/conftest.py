"""Triton's interpreter, which stands in for a GPU (tests/conftest.py switches it on)."""

import numpy as np
import pytest

from seqnets.engine.triton import access


@pytest.fixture(autouse=True)
def interpreter():
    """Kernels run on the CPU, one program after the other."""
    pytest.importorskip("triton", reason="Triton is not installed")
    if not access.interpreted():
        pytest.skip("on a GPU, scripts/gpu_checks.py checks the kernels")


@pytest.fixture(autouse=True)
def _replaced_once_a_launch(monkeypatch):
    """The interpreter replaces Triton's language at a launch, and again at every call inside it."""
    if not access.interpreted():
        return
    import triton.language as tl
    from triton.runtime import interpreter

    replace, replaced = getattr(interpreter, "_patch_lang", None), set()
    if replace is None:  # another version of Triton
        return

    def replace_once(fn):
        seen = [value for value in fn.__globals__.values() if value is tl or value is tl.core]
        parts = {part.__name__ for part in seen}
        if parts <= replaced:
            return None
        scope = replace(fn)
        if not replaced:
            restore = scope.restore
            scope.restore = lambda: (replaced.clear(), restore())
        replaced.update(parts)
        return scope

    monkeypatch.setattr(interpreter, "_patch_lang", replace_once)


@pytest.fixture(autouse=True)
def _watched(monkeypatch):
    """Kernels access their tensors and no other memory, and programs keep apart."""
    if access.interpreted():
        from tests.engine.triton.watched import watch_launches

        watch_launches(monkeypatch)


@pytest.fixture
def using(monkeypatch):
    """Let the backend use loops of one's own."""

    def use(loops):
        monkeypatch.setattr(access, "printed_loops", lambda: loops)

    return use


@pytest.fixture
def quick_scans(monkeypatch):
    """Whole columns are combined in a scan, where the interpreter takes number by number."""
    if access.interpreted():
        from triton.runtime.interpreter import ScanOps

        monkeypatch.setattr(ScanOps, "generic_scan", _scan)


def _scan(self, inputs):
    """Along the first axis, over twice as many steps each time."""
    found = [tensor.handle.data.copy() for tensor in inputs]
    reach = 1
    while reach < len(found[0]):
        both = [*(np.roll(x, reach, 0) for x in found), *found]
        columns = (self.to_tensor(x, y.dtype) for x, y in zip(both, inputs * 2, strict=True))
        for x, new in zip(found, self.combine_fn.fn(*columns), strict=True):
            x[reach:] = new.handle.data[reach:]
        reach *= 2
    return [self.to_tensor(x, y.dtype) for x, y in zip(found, inputs, strict=True)]
