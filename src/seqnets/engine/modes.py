"""What a call runs under: torch's function transforms, tracers, watchers, autocast."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from seqnets.cells.given import autocasts


def under_transform() -> bool:
    """Whether a function transform (vmap, grad, jvp, …) or forward-mode differentiation runs."""
    return torch._C._are_functorch_transforms_active() or (
        torch.autograd.forward_ad._current_level >= 0
    )


def is_exporting() -> bool:
    """Whether ``torch.export`` runs; torch 2.10's compiler takes torch's own function for True."""
    return torch.compiler._is_exporting_flag


def hides_values() -> bool:
    """Whether fake tensors or ``make_fx`` run: there are no values, or to read one is an error."""
    keys = torch._C._TorchDispatchModeKey
    modes = (torch._C._get_dispatch_mode(key) for key in (keys.FAKE, keys.PROXY))
    return any(mode is not None for mode in modes)


def is_plain(x: Tensor) -> bool:
    """Whether a call runs at once and as it is: memories of earlier calls may be read.

    Not under a compiler, which would compile what they hold, nor under autocast, function
    transforms and tracers.
    """
    return not (
        type(x) is not Tensor
        or x.is_nested
        or torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()  # these two as in under_transform
        or torch.autograd.forward_ad._current_level >= 0
        or torch._C._is_any_autocast_enabled()
        or torch._C._get_tracing_state() is not None
        or torch._C._len_torch_dispatch_stack()
    )


def is_batched(grad: Tensor | None) -> bool:
    """Whether a gradient is batched, as with ``is_grads_batched=True``."""
    return grad is not None and (
        torch._C._functorch.is_legacy_batchedtensor(grad)
        or torch._C._functorch.is_batchedtensor(grad)
    )


def is_watched(x: Tensor) -> bool:
    """Whether torch's operations on a tensor are traced or intercepted.

    By ``torch.jit.trace`` and exporters built on it, ``make_fx``, fake tensors, or modes that count
    operations. Not by ``torch.compile``, which sees an operator.
    """
    return not torch.compiler.is_compiling() and (
        torch._C._get_tracing_state() is not None
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._dispatch_keys(x).has(torch._C.DispatchKey.Python)
    )


PLAIN_TYPES = {Tensor, nn.Parameter}
"""The types of nearly all tensors; of others, the class may run torch's operations itself."""


def dispatches(tensor: Tensor) -> bool:
    """Whether a tensor's class runs torch's operations itself: of quantised or fake ones, say."""
    return bool(torch._C._dispatch_keys(tensor).has(torch._C.DispatchKey.Python))


def refusal_of_memory(tensors: Mapping[str, Tensor]) -> str | None:
    """Why a loop cannot read the memory of named tensors; None if it can."""
    if PLAIN_TYPES.issuperset(map(type, tensors.values())):
        return None
    others = (name for name, tensor in tensors.items() if dispatches(tensor))
    if (name := next(others, None)) is None:
        return None
    kind = type(tensors[name]).__name__
    return f"{name} is of class {kind}, which runs torch's operations itself, not on plain memory"


def refusal_of_one_operation(x: Tensor) -> str | None:
    """Why a loop cannot run as a single opaque operation; None if it can."""
    if under_transform():
        return "it does not run under vmap, forward-mode or functional derivatives"
    if is_watched(x):
        return "something watches torch's operations, and cannot look inside its loop"
    return None


def refusal_of_operations(x: Tensor) -> str | None:
    """Why a loop made of torch's operations, with a backward pass of its own, cannot run over x."""
    if torch.compiler.is_compiling():
        return "torch.compile and torch.export cannot look inside its loop"
    if reason := refusal_of_one_operation(x):
        return reason
    if autocasts(x):
        return "it computes in the dtype of the parameters, not in autocast's"
    if not x.dtype.is_floating_point:
        return f"it computes in real numbers, not in {x.dtype}"
    if 0 in x.shape[:2]:
        return "there is nothing to run: no rows or no steps"
    return None


class _AnomalyMode:
    """torch's anomaly mode, one for the whole process; blind to NaN while any thread wants that.

    It stays on meanwhile: only the user, who may leave it at any time, decides whether it is on.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # of the two below
        self._threads = 0  # that want it blind
        self._was_looking = False  # when the first of them came

    @contextmanager
    def blind(self) -> Iterator[None]:
        """Let it look for no NaN within the context; the last of several threads ends this."""
        with self._lock:
            self._threads += 1
            if torch.is_anomaly_enabled() and torch.is_anomaly_check_nan_enabled():
                self._was_looking = True
                torch.set_anomaly_enabled(True, check_nan=False)
        try:
            yield
        finally:
            with self._lock:
                self._threads -= 1
                if not self._threads:
                    self._look_again()

    def begin_anew(self) -> None:
        """Let it look again in a forked process, where none of the threads exists."""
        self._look_again()
        self._lock, self._threads = threading.Lock(), 0

    def _look_again(self) -> None:
        if self._was_looking:
            if torch.is_anomaly_enabled():
                torch.set_anomaly_enabled(True)  # first: a process may be forked in between
            self._was_looking = False


anomaly_mode = _AnomalyMode()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=anomaly_mode.begin_anew)
