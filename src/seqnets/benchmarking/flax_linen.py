"""Flax as a contestant: a jitted scan over Flax's own cells, on the CPU."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqnets.benchmarking.contestants import Absent, Contestant, Outcome, Stepper, Workload
from seqnets.conversion.flax import cell_of, linen_cell, params_of
from seqnets.errors import ConfigError


def flax(work: Workload) -> Contestant:
    """Flax as a contestant; XLA chooses its number of threads itself.

    Raises:
        Absent: Flax is not installed or has no such cell, or the workload is not float32 on the
            CPU.
    """
    try:
        import jax
        from flax import linen
    except ImportError as error:
        raise Absent(f"not installed ({error.name}): pip install 'seqnets[flax]'") from error
    logging.getLogger("jax").setLevel(logging.WARNING)  # JAX 0.6 tells of missing TPUs
    if work.x.device.type != "cpu" or work.x.dtype != torch.float32:
        raise Absent("it is compared in float32 on the CPU")
    cell: Any = work.cell
    pass_ = work.case.pass_
    try:
        weights = jax.tree.map(jax.numpy.asarray, params_of(cell))
    except ConfigError as error:
        raise Absent("Flax has no cell with these equations") from error
    flax_cell = linen_cell(cell)

    if pass_ == "step":
        return _stepping(work, jax, flax_cell, weights)

    layer = linen.RNN(flax_cell, time_major=True)
    x, grad = (jax.numpy.asarray(t.transpose(0, 1).numpy()) for t in (work.x, work.grad))

    def forward(weights: Any, x: Any) -> Any:
        return layer.apply({"params": {"cell": weights}}, x)

    def training(weights: Any, x: Any) -> Any:
        y, vjp = jax.vjp(forward, weights, x)
        return y, vjp(grad)

    compiled = jax.jit(training if pass_ == "training" else forward)

    def run() -> Any:
        return jax.block_until_ready(compiled(weights, x))

    def outcome() -> Outcome:
        if pass_ == "forward":
            return {"y": _batch_first(run())}
        y, (grad_weights, grad_x) = run()
        grad_x = _batch_first(grad_x)
        return {"y": _batch_first(y), "gradient of x": grad_x, **_from_flax(cell, grad_weights)}

    return Contestant("Flax", run, outcome, on_torch=False)


def _stepping(work: Workload, jax: Any, flax_cell: Any, weights: Any) -> Contestant:
    """Single steps of a Flax cell as a contestant."""
    apply = jax.jit(lambda carry, x: flax_cell.apply({"params": weights}, carry, x))
    inputs = [jax.numpy.asarray(x.numpy()) for x in work.x.unbind(1)]
    zeros = flax_cell.initialize_carry(jax.random.key(0), inputs[0].shape)

    def advance(x: Any, carry: Any) -> tuple[Any, Any]:
        carry, y = jax.block_until_ready(apply(zeros if carry is None else carry, x))
        return y, carry

    stepper = Stepper(advance, inputs)
    return Contestant("Flax", stepper.run, stepper.outcome, on_torch=False)


def _from_flax(cell: Any, gradients: Any) -> Outcome:
    """Flax's gradients of the weights in the layout of a cell's parameters."""
    kind: Any = type(cell)
    holder = cell_of(gradients, partial(kind, bias=False))
    return {
        f"gradient of {name}": parameter.detach() for name, parameter in holder.named_parameters()
    }


def _batch_first(array: Any) -> Tensor:
    """An array (T, B, ...) as a tensor (B, T, ...)."""
    copied = np.array(array)  # JAX's arrays are read-only
    return torch.from_numpy(copied).transpose(0, 1)
