"""ONNX Runtime: inference with its own kernels, from a graph of one node."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seqnets.benchmarking.contestants import Absent, Contestant, Outcome, Stepper, Workload
from seqnets.benchmarking.torch_nn import twin_of
from seqnets.cells import Cell, GatedCell, GRUCell, LSTMCell, RNNCell

_ORDERS: dict[type[GatedCell], str] = {LSTMCell: "iofg", GRUCell: "zrn", RNNCell: "h"}
"""Our letters of the gates, in the order in which ONNX has their rows."""

_OPSET, _IR = 14, 8  # old enough for every ONNX Runtime that runs on a Python of today


def onnx_runtime(work: Workload) -> Contestant:
    """ONNX Runtime over sequences, or one step at a time.

    Raises:
        Absent: It is not installed, or has no operator for the cell or the pass.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise Absent(f"not installed ({error.name}): pip install 'seqnets[bench]'") from error
    if work.case.pass_ == "training":
        raise Absent("it does not train")
    if work.x.device.type != "cpu" or work.x.dtype != torch.float32:
        raise Absent("it is compared in float32 on the CPU")
    cell = work.cell
    if twin_of(cell) is None or cell.output_size != cell.hidden_size:
        raise Absent("ONNX has no operator with these equations")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Its threads would go on spinning into the time of whoever runs next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(
        _model(onnx, cell).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    states = [f"initial_{name}" for name in cell.states]
    zeros = [t.unsqueeze(0).numpy() for t in cell.initial_state(work.case.B)]

    def advance(x: Any, state: Any) -> tuple[Any, Any]:
        feeds = dict(zip(states, zeros if state is None else state, strict=True))
        y, *state = session.run(None, {"x": x, **feeds})
        return y, state

    if work.case.pass_ == "step":
        inputs = [x.unsqueeze(0).numpy() for x in work.x.unbind(1)]
        stepper = Stepper(lambda x, state: _first(*advance(x, state)), inputs)
        return Contestant("ONNX Runtime", stepper.run, stepper.outcome, on_torch=False)
    x = work.x.transpose(0, 1).contiguous().numpy()

    def outcome() -> Outcome:
        y, _ = advance(x, None)  # (T, D, B, H)
        return {"y": torch.from_numpy(y[:, 0]).transpose(0, 1)}

    return Contestant("ONNX Runtime", lambda: advance(x, None), outcome, on_torch=False)


def _first(y: Any, state: Any) -> tuple[Any, Any]:
    return y[0, 0], state


def _model(onnx: Any, cell: Cell) -> Any:
    """A model with the inputs x (T, B, I) and initial state, and the outputs y and last state."""
    (kind,) = (kind for kind in _ORDERS if isinstance(cell, kind))
    name = kind.__name__.removesuffix("Cell")
    attributes: dict[str, Any] = {"hidden_size": cell.hidden_size}
    if isinstance(cell, GRUCell):
        attributes["linear_before_reset"] = 1
    if isinstance(cell, RNNCell):
        attributes["activations"] = ["Relu" if cell.nonlinearity == "relu" else "Tanh"]

    parameters = dict(cell.named_parameters())
    tensors = {
        "W": _reordered(cell, parameters["weight_ih"]),
        "R": _reordered(cell, parameters["weight_hh"]),
    }
    if "bias_ih" in parameters:
        biases = [_reordered(cell, parameters[name]) for name in ("bias_ih", "bias_hh")]
        tensors["B"] = torch.cat(biases)

    def value(name: str, rank: int) -> Any:
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None] * rank)

    before = [f"initial_{state}" for state in cell.states]
    after = [f"last_{state}" for state in cell.states]
    inputs = ["x", "W", "R", "B" if "B" in tensors else "", "", *before]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(name, inputs, ["y", *after], **attributes)],
        name,
        [value("x", 3), *(value(state, 3) for state in before)],
        [value("y", 4), *(value(state, 3) for state in after)],
        [onnx.numpy_helper.from_array(t.unsqueeze(0).numpy(), n) for n, t in tensors.items()],
    )
    opset = onnx.helper.make_opsetid("", _OPSET)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=_IR)


def _reordered(cell: Cell, tensor: Tensor) -> Tensor:
    """Rows of the gates in ONNX's order."""
    order = next(order for kind, order in _ORDERS.items() if isinstance(cell, kind))
    gates: Any = cell.gates
    rows = dict(zip(gates, tensor.detach().chunk(len(order)), strict=True))
    return torch.cat([rows[gate] for gate in order])
