"""A contestant that disagrees with the reference is reported and never timed."""

import sys
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from seqnets import cells
from seqnets.benchmarking import Case, Settings, measure
from seqnets.benchmarking import contestants as parts
from seqnets.benchmarking import measuring as module
from seqnets.benchmarking.contestants import make_workload
from seqnets.benchmarking.flax_linen import flax
from seqnets.benchmarking.onnx_runtime import onnx_runtime
from seqnets.benchmarking.precision import precision
from seqnets.benchmarking.timer import Times
from seqnets.benchmarking.torch_nn import torch_layer_of, torch_nn
from seqnets.engine import BACKENDS, reference

QUICK = Settings(budget=0.01)
TWINS = {
    "gru": cells.GRUCell,
    "lstm": cells.LSTMCell,
    "rnn": cells.RNNCell,
    "relu rnn": partial(cells.RNNCell, nonlinearity="relu"),
    "gru without bias": partial(cells.GRUCell, bias=False),
}


def small(pass_, cell="gru", rows=None):
    return Case(cell, 2, 1 if pass_ == "step" else 5, 3, 6, pass_, rows=rows)


def workload(make, pass_):
    return make_workload(small(pass_), make, torch.device("cpu"))


def agrees(contestant, work):
    expected = work.expected()
    got = contestant.outcome()
    for name, numbers in got.items():
        torch.testing.assert_close(numbers, expected[name].float(), rtol=1e-4, atol=1e-5)
    return set(got)


def wrong(run):
    """A backend, as the engine has them."""
    return SimpleNamespace(name="wrong", refusal=lambda request: None, run=run)


@pytest.fixture
def timed(monkeypatch):
    """The names of all who are timed."""
    names = []
    race = module.race

    def watched(runs, *arguments):
        names.extend(runs)
        return race(runs, *arguments)

    monkeypatch.setattr(module, "race", watched)
    return names


@pytest.fixture
def measure_with(monkeypatch):
    """Measure a GRU with one more backend."""

    def call(backend, pass_="forward"):
        monkeypatch.setitem(BACKENDS, "wrong", backend)
        return measure(small(pass_, rows=("loop", "auto", "wrong")), cells.GRUCell, QUICK)

    return call


@pytest.mark.parametrize("pass_", ["forward", "training"])
def test_a_backend_with_wrong_outputs_is_named_and_never_timed(pass_, measure_with, timed):
    def run(request):
        y, state = reference.run(request)
        return y + 1e-2, state

    found = measure_with(wrong(run), pass_)

    assert "y differs by 1.0e-02" in found.refused["wrong"]
    assert found.row("wrong") is None
    assert "wrong" not in timed
    assert "loop" in timed


def test_a_backend_with_a_wrong_gradient_is_refused_in_training(measure_with, timed):
    class Halved(torch.autograd.Function):
        @staticmethod
        def forward(ctx, y):
            return y.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad / 2

    def run(request):
        y, state = reference.run(request)
        return Halved.apply(y), state

    found = measure_with(wrong(run), "training")

    assert "gradient of x differs" in found.refused["wrong"]
    assert "wrong" not in timed


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_backend_that_returns_nan_or_infinity_is_refused(value, measure_with):
    def run(request):
        y, state = reference.run(request)
        return y * value, state

    assert "differs by" in measure_with(wrong(run)).refused["wrong"]


def test_outputs_of_another_shape_are_refused(measure_with):
    def run(request):
        y, state = reference.run(request)
        return y[:, :-1], state

    assert "y has shape (2, 4, 6)" in measure_with(wrong(run)).refused["wrong"]


def test_a_failing_backend_is_reported_and_the_others_are_timed(measure_with):
    def run(request):
        raise RuntimeError("out of luck")

    found = measure_with(wrong(run))

    assert found.refused["wrong"] == "RuntimeError: out of luck"
    assert found.row("auto") is not None


def test_a_backend_that_refuses_is_absent_with_its_reason():
    case = small("forward", rows=("auto", "native"))

    found = measure(case, cells.PeepholeLSTMCell, QUICK)

    assert found.absent["native"].startswith("torch has no kernel for PeepholeLSTMCell")
    assert not found.refused


@pytest.mark.parametrize("pass_", ["forward", "training"])
@pytest.mark.parametrize("make", TWINS.values(), ids=TWINS)
def test_the_torch_layer_of_torch_nn_agrees_with_the_reference(make, pass_):
    work = workload(make, pass_)

    compared = agrees(torch_nn(work), work)

    assert ("gradient of weight_hh" in compared) == (pass_ == "training")


def test_the_torch_layer_of_a_projected_lstm_agrees_with_the_reference():
    work = workload(partial(cells.LSTMCell, proj_size=2), "training")

    assert "gradient of weight_hr" in agrees(torch_nn(work), work)


@pytest.mark.parametrize("make", [cells.GRUCell, cells.LSTMCell])
@pytest.mark.parametrize("contestant", [torch_nn, parts.step, parts.stream])
def test_single_steps_carry_the_state_and_can_restart(make, contestant):
    work = workload(make, "step")
    stepping = contestant(work)

    stepping.run()

    assert agrees(stepping, work) == {"y"}


def test_a_subclass_with_another_equation_has_no_torch_layer():
    class Odd(cells.GRUCell):
        pass

    assert torch_layer_of(Odd(3, 6)) is None
    assert torch_layer_of(cells.PeepholeLSTMCell(3, 6)) is None


def test_a_cell_without_a_torch_layer_is_compared_with_a_scaled_lstm():
    contestant = torch_nn(workload(cells.CoupledLSTMCell, "forward"))  # three gates of four

    assert contestant.scale == pytest.approx(3 / 4)
    assert contestant.outcome is None
    assert contestant.note == "nn.LSTM, scaled by operations"


def test_the_time_of_a_scaled_row_is_multiplied(monkeypatch):
    monkeypatch.setattr(
        module, "race", lambda runs, *_: {name: Times(8.0, 4.0, 5) for name in runs}
    )

    found = measure(small("forward"), cells.CoupledLSTMCell, QUICK)

    row = found.row("torch.nn")
    assert (row.ms, row.iqr) == pytest.approx((6.0, 3.0))
    assert found.row("auto").vs_torch == pytest.approx(6 / 8)


def test_the_ratios_are_those_of_the_medians(monkeypatch):
    ms = {"floor": 2.0, "torch.nn": 12.0, "auto": 4.0}
    monkeypatch.setattr(
        module, "race", lambda runs, *_: {name: Times(ms.get(name, 1.0), 0.0, 5) for name in runs}
    )

    row = measure(small("forward"), cells.GRUCell, QUICK).row("auto")

    assert (row.vs_torch, row.vs_floor) == (3.0, 2.0)
    assert row.steps_per_s == pytest.approx(2 * 5 / 4e-3)


def test_without_torch_nn_there_is_no_ratio_to_it(monkeypatch):
    def broken(work):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(module, "torch_nn", broken)

    found = measure(small("forward"), cells.GRUCell, QUICK)

    assert found.refused["torch.nn"] == "RuntimeError: no such kernel"
    assert found.row("auto").vs_torch is None
    assert found.row("auto").vs_floor is not None


def test_memory_is_measured_in_training_but_not_in_forward_passes():
    training, forward = (
        measure(small(pass_, rows=("floor", "loop")), cells.GRUCell, QUICK)
        for pass_ in ("training", "forward")
    )

    assert training.row("loop").mib > 0
    assert training.row("floor").mib is None
    assert forward.row("loop").mib is None


@pytest.mark.parametrize(
    ("name", "package"),
    [("ONNX Runtime", "onnxruntime"), ("Flax", "jax")],
)
def test_a_library_that_is_not_installed_is_absent_with_its_reason(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)

    found = measure(small("forward", rows=(name, "auto")), cells.GRUCell, QUICK)

    assert "pip install 'seqnets[" in found.absent[name]
    assert found.row("auto") is not None


@pytest.mark.parametrize("pass_", ["forward", "step"])
@pytest.mark.parametrize(
    "make", [*TWINS.values(), cells.PeepholeLSTMCell], ids=[*TWINS, "peephole lstm"]
)
def test_onnx_runtime_agrees_with_the_reference(make, pass_):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    work = workload(make, pass_)

    assert agrees(onnx_runtime(work), work) == {"y"}


@pytest.mark.parametrize("make", [cells.NoForgetLSTMCell, partial(cells.LSTMCell, proj_size=2)])
def test_onnx_runtime_has_no_operator_for_other_equations(make):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")

    with pytest.raises(parts.Absent, match="no operator"):
        onnx_runtime(workload(make, "forward"))


@pytest.mark.parametrize("pass_", ["forward", "training", "step"])
@pytest.mark.parametrize("make", TWINS.values(), ids=TWINS)
def test_flax_agrees_with_the_reference(make, pass_):
    pytest.importorskip("flax")
    work = workload(make, pass_)

    compared = agrees(flax(work), work)

    assert ("gradient of weight_hh" in compared) == (pass_ == "training")


def test_training_compares_the_gradients_of_inputs_and_all_parameters():
    work = workload(cells.PeepholeLSTMCell, "training")

    names = {f"gradient of {name}" for name in ("x", *work.cell.parameter_shapes)}
    assert set(parts.loop(work).outcome()) == names | {"y"}


@pytest.mark.parametrize("make", [torch_nn, parts.auto, parts.loop])
def test_inputs_and_output_gradients_are_stored_time_first_and_not_copied(make, monkeypatch):
    work = workload(cells.GRUCell, "training")
    seen = []
    run_pass = parts.run_pass

    def watched(pass_, call, x, grad, parameters):
        seen.extend((x, grad))
        return run_pass(pass_, call, x, grad, parameters)

    for module_of in (parts, sys.modules[torch_nn.__module__]):
        monkeypatch.setattr(module_of, "run_pass", watched)

    make(work).run()

    assert work.x.transpose(0, 1).is_contiguous()
    assert work.grad.transpose(0, 1).is_contiguous()
    assert [t.data_ptr() for t in seen] == [work.x.data_ptr(), work.grad.data_ptr()]
    assert [sorted(t.stride()) for t in seen] == [sorted(t.stride()) for t in (work.x, work.grad)]


def test_outputs_have_the_memory_layout_of_the_inputs():
    work = workload(cells.GRUCell, "training")

    y = parts.auto(work).outcome()["y"]

    assert y.stride() == work.grad.stride()


def test_only_named_rows_are_timed_and_unknown_names_are_reported():
    case = replace(small("forward"), rows=("auto", "torch.nn", "tritn"))

    found = measure(case, cells.GRUCell, QUICK)

    assert [row.name for row in found.rows] == ["auto", "torch.nn"]
    assert found.absent == {"tritn": "is not a contestant of this pass"}


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_a_case_is_computed_in_its_own_dtype(dtype):
    case = replace(small("training"), dtype=dtype, rows=("auto", "torch.nn", "loop"))

    found = measure(case, cells.GRUCell, QUICK)

    assert not found.refused
    assert {row.name for row in found.rows} == {"auto", "torch.nn", "loop"}
    work = make_workload(case, cells.GRUCell, torch.device("cpu"))
    assert {work.x.dtype, *(p.dtype for p in work.cell.parameters())} == {getattr(torch, dtype)}


@pytest.mark.parametrize("name", ["float32", "tf32"])
def test_products_round_to_tf32_where_a_case_says_so_and_afterwards_as_before(name):
    homes = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [home.allow_tf32 for home in homes]

    with precision(name):
        within = [home.allow_tf32 for home in homes]

    assert within == [name == "tf32"] * 2
    assert [home.allow_tf32 for home in homes] == before
