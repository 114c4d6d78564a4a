"""ONNX Runtime as a contestant: inference with its recurrent operators, on the CPU."""

from __future__ import annotations

from typing import Any

import torch

from seqnets.benchmarking.contestants import Absent, Contestant, Outcome, Stepper, Workload
from seqnets.cells import Cell
from seqnets.conversion import to_onnx
from seqnets.errors import ConfigError

_NO_OPERATOR = "ONNX has no operator with these equations"


def onnx_runtime(work: Workload) -> Contestant:
    """ONNX Runtime as a contestant.

    Raises:
        Absent: It is not installed, has no operator for the cell or the pass, or the workload is
            not float32 on the CPU.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError as error:
        raise Absent(f"not installed ({error.name}): pip install 'seqnets[bench]'") from error
    if work.case.pass_ == "training":
        raise Absent("it does not train")
    if work.x.device.type != "cpu" or work.x.dtype != torch.float32:
        raise Absent("it is compared in float32 on the CPU")
    cell, session = work.cell, _session(onnxruntime, work.cell)
    states = [f"initial_{name}_0" for name in cell.states]
    zeros = [t.unsqueeze(0).numpy() for t in cell.initial_state(work.case.B)]

    def advance(x: Any, state: Any) -> tuple[Any, Any]:
        feeds = dict(zip(states, zeros if state is None else state, strict=True))
        y, *state = session.run(None, {"x": x, **feeds})
        return y, state

    if work.case.pass_ == "step":
        inputs = [x.unsqueeze(0).numpy() for x in work.x.unbind(1)]
        stepper = Stepper(lambda x, state: _without_time(*advance(x, state)), inputs)
        return Contestant("ONNX Runtime", stepper.run, stepper.outcome, on_torch=False)
    x = work.x.transpose(0, 1).numpy()

    def outcome() -> Outcome:
        y, _ = advance(x, None)  # (T, B, H)
        return {"y": torch.from_numpy(y).transpose(0, 1)}

    return Contestant("ONNX Runtime", lambda: advance(x, None), outcome, on_torch=False)


def _session(onnxruntime: Any, cell: Cell) -> Any:
    """A session that runs a cell by an operator of ONNX; raises Absent if it has none."""
    try:
        model = to_onnx(cell, lengths=False, state=True)
    except ConfigError as error:
        raise Absent(_NO_OPERATOR) from error
    if any(node.op_type == "Scan" for node in model.graph.node):
        raise Absent(_NO_OPERATOR)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Otherwise its threads keep spinning while the next contestant is timed.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _without_time(y: Any, state: Any) -> tuple[Any, Any]:
    """The output of a single step, (B, H), and the state."""
    return y[0], state
