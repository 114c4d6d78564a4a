"""JAX and Flax: a jitted scan over Flax's own cells, on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqnets.benchmarking.contestants import Absent, Contestant, Outcome, Stepper, Workload
from seqnets.cells import GatedCell, GRUCell, LSTMCell, RNNCell

_TWINS: dict[type[GatedCell], str] = {
    LSTMCell: "OptimizedLSTMCell",
    GRUCell: "GRUCell",
    RNNCell: "SimpleCell",
}


def flax(work: Workload) -> Contestant:
    """Flax over sequences, or one step at a time; XLA says itself how many threads it takes.

    Raises:
        Absent: It is not installed, or has no cell with these equations.
    """
    try:
        import jax
        from flax import linen
    except ImportError as error:
        raise Absent(f"not installed ({error.name}): pip install 'seqnets[flax]'") from error
    if work.x.device.type != "cpu" or work.x.dtype != torch.float32:
        raise Absent("it is compared in float32 on the CPU")
    cell: Any = work.cell
    pass_ = work.case.pass_
    if type(cell) not in _TWINS or cell.output_size != cell.hidden_size:
        raise Absent("Flax has no cell with these equations")
    options: Any = {}
    if isinstance(cell, RNNCell) and cell.nonlinearity == "relu":
        options["activation_fn"] = jax.nn.relu
    twin = getattr(linen, _TWINS[type(cell)])(cell.hidden_size, **options)
    weights = jax.tree.map(jax.numpy.asarray, _to_flax(cell))

    if pass_ == "step":
        return _stepping(work, jax, twin, weights)

    layer = linen.RNN(twin)
    x, grad = (jax.numpy.asarray(t.numpy()) for t in (work.x, work.grad))

    def forward(weights: Any, x: Any) -> Any:
        return layer.apply({"params": {"cell": weights}}, x)

    def training(weights: Any, x: Any) -> Any:
        y, pull = jax.vjp(forward, weights, x)
        return y, pull(grad)

    compiled = jax.jit(training if pass_ == "training" else forward)

    def run() -> Any:
        return jax.block_until_ready(compiled(weights, x))

    def outcome() -> Outcome:
        if pass_ == "forward":
            return {"y": _tensor(run())}
        y, (found, to_x) = run()
        return {"y": _tensor(y), "gradient of x": _tensor(to_x), **_from_flax(cell, found)}

    return Contestant("Flax", run, outcome, on_torch=False)


def _stepping(work: Workload, jax: Any, twin: Any, weights: Any) -> Contestant:
    apply = jax.jit(lambda carry, x: twin.apply({"params": weights}, carry, x))
    inputs = [jax.numpy.asarray(x.numpy()) for x in work.x.unbind(1)]
    zeros = twin.initialize_carry(jax.random.key(0), inputs[0].shape)

    def advance(x: Any, carry: Any) -> tuple[Any, Any]:
        carry, y = jax.block_until_ready(apply(zeros if carry is None else carry, x))
        return y, carry

    stepper = Stepper(advance, inputs)
    return Contestant("Flax", stepper.run, stepper.outcome, on_torch=False)


def _names(cell: GatedCell) -> list[str]:
    """What Flax calls the gates, in our order."""
    return [""] if isinstance(cell, RNNCell) else list(cell.gates)


def _to_flax(cell: Any) -> dict[str, dict[str, Any]]:
    """The cell's parameters as Flax has them: two biases that only add up are one there."""
    names = _names(cell)
    parts = {
        name: dict(zip(names, p.detach().chunk(len(names)), strict=True))
        for name, p in cell.named_parameters()
    }
    zeros = dict.fromkeys(names, torch.zeros(cell.hidden_size))
    b, d = parts.get("bias_ih", zeros), parts.get("bias_hh", zeros)
    weights = {}
    for name in names:
        u: dict[str, Tensor] = {"kernel": parts["weight_hh"][name].T}
        w: dict[str, Tensor] = {"kernel": parts["weight_ih"][name].T}
        if isinstance(cell, LSTMCell):
            u["bias"] = b[name] + d[name]
        elif isinstance(cell, GRUCell) and name == "n":
            w["bias"], u["bias"] = b[name], d[name]
        else:
            w["bias"] = b[name] + d[name]
        weights[f"i{name}"], weights[f"h{name}"] = w, u
    return {
        place: {kind: tensor.numpy() for kind, tensor in tensors.items()}
        for place, tensors in weights.items()
    }


def _from_flax(cell: Any, found: Any) -> Outcome:
    """Flax's gradients of the weights, as ours."""
    return {
        f"gradient of {weight}": torch.cat(
            [_tensor(found[f"{side}{name}"]["kernel"]).T for name in _names(cell)]
        )
        for weight, side in (("weight_ih", "i"), ("weight_hh", "h"))
    }


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.array(array))  # a copy: JAX's memory is read-only
