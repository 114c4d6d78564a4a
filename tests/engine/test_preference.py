"""Which backend "auto" takes where several could run."""

import io
import json
import platform
from functools import partial
from importlib.resources import files
from types import SimpleNamespace

import pytest
import torch

import seqnets
from seqnets.cells import (
    GRUCell,
    LSTMCell,
    NCPCell,
    ONLSTMCell,
    PeepholeLSTMCell,
    RNNCell,
    block_diagonal,
)
from seqnets.engine import c, measured, preference
from seqnets.engine.request import Request, make_request


def table(monkeypatch, speed, alone=None):
    """Let torch's LSTM be so many times as fast as the loops in C; ``alone``, on one core."""
    speeds = {"cpu": speed, "cpu_alone": speed if alone is None else alone}
    let_tables(monkeypatch, {name: measured_on("AVX2", speed) for name, speed in speeds.items()})


def measured_on(vectors, speed):
    """A table that says so of the LSTM, measured where there were such vectors."""
    rows = {"LSTMCell": [[1, 1, 1, speed]]}
    return {
        "machine": {"vectors": vectors},
        "speed_of_native": {"training": rows, "forward": rows},
    }


def let_tables(monkeypatch, tables):
    """Let these be all tables."""
    monkeypatch.setattr(measured, "table", lambda: tables)
    preference._speed.cache_clear()


@pytest.fixture(autouse=True)
def forget_afterwards():
    yield
    preference._speed.cache_clear()


@pytest.mark.parametrize(("speed", "first"), [(0.9, "c"), (1.1, "native")])
def test_the_measured_table_says_whether_torchs_kernel_comes_first(speed, first, monkeypatch):
    table(monkeypatch, speed)

    assert seqnets.explain(LSTMCell(3, 4), torch.randn(2, 5, 3)).chosen == first


def test_one_core_has_a_table_of_its_own(monkeypatch):
    table(monkeypatch, 1.1, alone=0.9)
    request = make_request(LSTMCell(3, 4), torch.randn(2, 5, 3), None, None, None, False)

    firsts = []
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        firsts.append(preference.preference(request)[0])

    assert firsts == ["c", "native"]


@pytest.mark.parametrize("speed", [0.9, 1.1])
def test_a_family_of_processors_that_was_measured_has_a_table_of_its_own(speed, monkeypatch):
    rows, other = measured_on("AVX2", speed), measured_on("AVX2", 1 / speed)
    kinds = "cpu", "cpu_alone"
    own = {measured.of_processor(kind): rows for kind in kinds}
    let_tables(monkeypatch, {**dict.fromkeys(kinds, other), **own})

    chosen = seqnets.explain(LSTMCell(3, 4), torch.randn(2, 5, 3)).chosen

    assert chosen == ("native" if speed > 1 else "c")


@pytest.mark.parametrize(("vectors", "speed"), [("AVX512", 1), ("AVX2", 2), ("SVE256", 1)])
def test_a_processor_that_was_not_measured_goes_by_one_with_its_vectors(
    vectors, speed, monkeypatch
):
    wide, narrow = (partial(measured_on, width) for width in ("AVX512", "AVX2"))
    others = {"cpu of one": wide(3), "cpu of another": narrow(2), "cpu of a third": narrow(4)}
    let_tables(monkeypatch, {"cpu": wide(1), "products of one": narrow(5), **others})
    monkeypatch.setattr(measured, "_vectors", lambda: vectors)

    found = measured.for_processor("cpu")["speed_of_native"]["training"]["LSTMCell"]

    assert found == [[1, 1, 1, speed]]


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("vendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel\t: 2\n", "AuthenticAMD 26"),
        ("CPU implementer\t: 0x41\nCPU part\t: 0xd0c\nCPU revision\t: 1\n", "0x41 0xd0c"),
        ("", platform.machine()),
    ],
    ids=["x86", "ARM", "not Linux"],
)
def test_a_family_of_processors_goes_by_what_the_system_tells(told, name, monkeypatch):
    monkeypatch.setattr("builtins.open", lambda *_, **__: io.StringIO(told))

    assert measured._processor.__wrapped__() == name


def test_the_nearest_measured_sizes_decide():
    rows = [[1, 100, 64, 0.5], [64, 100, 512, 1.5]]

    assert measured.nearest(rows, (2, 50, 80)) == 0.5
    assert measured.nearest(rows, (40, 10, 300)) == 1.5


def test_what_was_measured_of_single_steps_does_not_decide_on_two(monkeypatch):
    known = measured_on("AVX2", 0)
    known["speed_of_native"]["training"]["LSTMCell"][:] = [[1, 1, 4, 1.5], [1, 100, 4, 0.5]]
    let_tables(monkeypatch, {"cpu": known, "cpu_alone": known})

    assert seqnets.explain(LSTMCell(3, 4), torch.randn(1, 2, 3)).chosen == "c"


def test_an_export_takes_torchs_own_operators_where_it_can():
    layer, x = seqnets.Recurrent(GRUCell(3, 4)), torch.randn(2, 5, 3)

    called = [str(n.target) for n in torch.export.export(layer, (x,)).graph.nodes]

    assert any("gru" in target for target in called)
    assert not any("seqnets" in target for target in called)


def test_an_explanation_names_who_could_run_it_too():
    told = str(seqnets.explain(PeepholeLSTMCell(3, 4), torch.randn(2, 5, 3)))

    assert told.startswith("c: chosen")
    assert "reference: could run it, and is slower" in told
    assert "native: refused, torch has no kernel for PeepholeLSTMCell" in told


@pytest.mark.parametrize("device", ["cpu", "cpu_alone", "cuda"])
def test_the_table_in_the_package_was_measured_and_says_where(device):
    text = (files("seqnets.engine") / "preference.json").read_text(encoding="utf-8")

    found = json.loads(text)[device]

    assert found["machine"]["processor"]
    assert found["versions"]["torch"]
    speeds = found["speed_of_native"]
    for passes in speeds.values() if device == "cuda" else [speeds]:
        for rows in passes.values():
            assert all(len(row) == 4 and row[3] > 0 for family in rows.values() for row in family)


@pytest.mark.parametrize(
    ("cell_cls", "dtype", "sizes", "first"),
    [
        (RNNCell, torch.float16, (16, 128, 512), "native"),  # cuDNN takes one launch, and is faster
        (LSTMCell, torch.float16, (16, 128, 512), "triton"),  # it takes one, and is slower
        (RNNCell, torch.float16, (16, 128, 500), "triton"),  # it launches every step
        (RNNCell, torch.float16, (12, 128, 512), "triton"),
        (RNNCell, torch.float16, (16, 128, 2048), "triton"),
        (GRUCell, torch.float16, (64, 512, 512), "triton"),
        (RNNCell, torch.float32, (16, 128, 512), "triton"),
        (RNNCell, torch.bfloat16, (64, 128, 64), "triton"),
    ],
)
def test_on_a_gpu_cudnn_comes_first_where_it_takes_one_launch_and_is_faster(
    cell_cls, dtype, sizes, first
):
    B, T, H = sizes
    with torch.device("meta"):
        cell = cell_cls(256, H)
    on_a_gpu = SimpleNamespace(shape=(B, T, 256), dtype=dtype, is_cuda=True)
    request = Request(cell, on_a_gpu, ())

    assert preference.preference(request)[0] == first


@pytest.mark.parametrize(
    ("half", "sizes", "first"),
    [
        (torch.bfloat16, (64, 128, 64), "triton"),  # of which cuDNN launches every step
        (torch.float16, (64, 128, 512), "native"),  # of which it launches one, and of float32 each
    ],
)
def test_on_a_gpu_autocasts_dtype_decides(half, sizes, first, monkeypatch):
    B, T, H = sizes
    with torch.device("meta"):
        cell = RNNCell(256, H)
        x = torch.empty(B, T, 256)
    on_a_gpu = SimpleNamespace(
        shape=x.shape, dtype=x.dtype, is_cuda=True, device=x.device, is_floating_point=lambda: True
    )
    monkeypatch.setattr("seqnets.engine.request.autocasts", lambda _: True)
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda _: half)

    assert preference.preference(Request(cell, on_a_gpu, ()))[0] == first


def test_on_the_cpu_the_loops_come_first_where_there_is_padding(monkeypatch):
    table(monkeypatch, 1.1)
    x, lengths = torch.zeros(6, 5, 3), torch.full((6,), 5)

    firsts = [
        preference.preference(make_request(LSTMCell(3, 4), x, None, given, None, False))[0]
        for given in (None, lengths)
    ]

    assert firsts == ["native", "c"]


@pytest.mark.parametrize(
    ("training", "speed", "first"),
    [(True, 1.05, "c"), (True, 1.2, "native"), (False, 1.2, "c"), (False, 1.3, "native")],
)
def test_heads_take_the_loops_which_skip_their_zeros_unless_torch_leads_by_more(
    training, speed, first, monkeypatch
):
    table(monkeypatch, speed)
    x = torch.randn(2, 5, 3)

    with torch.set_grad_enabled(training):
        whole, heads = LSTMCell(3, 4), block_diagonal(LSTMCell(3, 4), 2)
        chosen = seqnets.explain(whole, x).chosen, seqnets.explain(heads, x).chosen

    assert chosen == ("native", first)


def test_an_explanation_says_that_zeros_between_heads_are_left_out(monkeypatch):
    table(monkeypatch, 1.05)

    told = str(seqnets.explain(block_diagonal(LSTMCell(3, 4), 2), torch.randn(2, 5, 3)))

    assert told.startswith(
        "c: chosen (without the zeros between its 2 heads)\nnative: could run it"
    )


@pytest.mark.parametrize(
    ("rows", "training", "slow", "first"),
    [
        (128, False, True, "c"),
        (128, False, False, "native"),
        (32, False, True, "native"),
        (128, True, True, "native"),
        (2048, True, True, "c"),
    ],
)
def test_a_single_step_of_many_rows_takes_the_loops_where_torchs_products_are_slow(
    rows, training, slow, first, monkeypatch
):
    monkeypatch.setattr(preference, "torch_is_slow", lambda: slow)
    cell, x = LSTMCell(64, 64), torch.zeros(rows, 1, 64)

    with torch.set_grad_enabled(training):
        chosen = seqnets.explain(cell, x).chosen

    assert chosen == first


@pytest.mark.parametrize(
    ("cell", "order"), [(ONLSTMCell, ["eager", "reference"]), (NCPCell, ["reference", "eager"])]
)
def test_without_a_compiler_the_plain_loop_runs_steps_that_mostly_move_units(
    cell, order, monkeypatch
):
    cell, x = cell(3, 8), torch.randn(2, 5, 3)

    assert list(seqnets.explain(cell, x).slower) == order

    monkeypatch.setattr(c, "refusal", lambda request: "no compiler")
    assert seqnets.explain(cell, x).chosen == order[0]
