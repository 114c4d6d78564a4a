"""`seqnets benchmark`: from the command line to figures, table and picture."""

import sys

import pytest
import torch

from seqnets.benchmarking import Measured, Report
from seqnets.cli import benchmark as verb
from seqnets.engine import BACKENDS, reference
from seqnets.engine.triton import access
from tests.cells.final import FINAL_CELLS

ONE = ["cells=[gru]", "B=2", "T=4", "H=3", "pass=forward", "budget=0.01", "plot=false"]
"""A case in a moment."""


@pytest.fixture
def benchmark(seqnets, tmp_path):
    """Run one small case with further arguments; the command's end, and what it wrote."""

    def call(*arguments):
        done = seqnets("benchmark", *ONE, "output=one.json", *arguments)
        path = tmp_path / "one.json"
        return done, Report.load(path) if done.code == 0 else None

    return call


@pytest.fixture(autouse=True)
def _as_users_without_a_gpu(monkeypatch):
    """Triton refuses to run here: to time its interpreter would take most of the time."""
    monkeypatch.setattr(
        access, "refusal", lambda device, dtype: f"it runs on cuda, not on {device}"
    )


@pytest.fixture
def pretended(monkeypatch):
    """Measure nothing; the cases that were asked for, with the factories of their cells."""
    asked = {}

    def pretend(case, make, settings):
        asked[case] = make
        return Measured(case, [])

    monkeypatch.setattr(verb, "measure", pretend)
    return asked


def test_the_quick_suite_writes_figures_table_and_picture_into_the_folder_one_is_in(
    seqnets, tmp_path
):
    pytest.importorskip("matplotlib")

    done = seqnets(
        "benchmark", "suite=quick", "cells=[gru]", "budget=0.01", "B=[1,2]", "T=4", "H=3"
    )

    assert (done.code, done.err) == (0, "")
    folder = tmp_path / "benchmarks" / "results"
    (written,) = folder.glob("quick_*.json")
    report = Report.load(written)
    assert {m.case.pass_ for m in report.measured} == {"forward", "training", "step"}
    assert "× torch.nn" in written.with_suffix(".md").read_text(encoding="utf-8")
    assert written.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    for suffix in ("json", "md", "png"):
        assert f"{written.stem}.{suffix}" in done.out


def test_a_case_is_timed_beside_other_implementations_and_the_limit(benchmark):
    done, report = benchmark()

    (measured,) = report.measured
    assert str(measured.case) == "gru, forward, B=2 T=4 H=3"
    assert {"floor", "torch.nn", "loop", "auto"} <= {row.name for row in measured.rows}
    assert "gru, forward, B=2 T=4 H=3" in done.out
    assert "÷ floor" in done.out
    assert "  auto: backend " in done.out


def test_a_backend_that_disagrees_is_named_on_the_terminal_and_in_the_files(
    benchmark, monkeypatch, tmp_path
):
    class Wrong:
        name = "wrong"
        refusal = staticmethod(lambda request: None)

        @staticmethod
        def run(request):
            y, state = reference.run(request)
            return y + 1e-2, state

    monkeypatch.setitem(BACKENDS, "wrong", Wrong)

    done, report = benchmark()

    line = "wrong: refused, not timed: disagrees with the reference: y differs by 1.0e-02"
    assert done.code == 0
    assert line in done.out
    assert line in (tmp_path / "one.md").read_text(encoding="utf-8")
    assert report.measured[0].row("wrong") is None


def test_a_suite_with_limits_ends_with_the_acceptance_table(benchmark, tmp_path):
    (tmp_path / "conf" / "suite").mkdir(parents=True)
    (tmp_path / "conf" / "suite" / "mine.yaml").write_text(
        "# @package _global_\n"
        "grid: [{cells: gru, pass: forward, B: 1, T: 2, H: 2}]\n"
        "limits:\n"
        "  - {what: to be met, cells: gru, pass: forward, against: loop, ratio: 0.0001}\n"
        "  - {what: not to be met, cells: gru, pass: forward, against: loop, ratio: 10000}\n"
        "  - {what: not there, cells: gru, pass: training, against: loop, ratio: 1}\n"
    )

    done, report = benchmark("suite=mine", "--config-dir", "conf")

    assert done.code == 0, done.err
    assert [verdict.met for verdict in report.verdicts] == [True, False, None]
    assert "What to reach" in done.out
    assert "not measured" in done.out


@pytest.mark.parametrize(
    ("chosen", "where"),
    [
        ("cells=[mine]", ["--config-dir", "conf"]),
        ("model/cell=mine", ["--config-dir", "conf"]),
        ("cells=[mine]", ["hydra.searchpath=[conf]"]),
    ],
)
def test_a_cell_of_ones_own_is_timed_by_its_config(chosen, where, seqnets, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    module = f"mycells_{chosen[:5]}_{len(where)}"
    (tmp_path / f"{module}.py").write_text(
        "import seqnets\n"
        "class Mine(seqnets.cells.CoupledLSTMCell):\n"
        "    def reset_parameters(self):\n"
        "        super().reset_parameters()\n"
        "        self.bias_ih.data.fill_(self.weight_ih.mean().item())\n"
    )
    (tmp_path / "conf" / "model" / "cell").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "cell" / "mine.yaml").write_text(f"_target_: {module}.Mine\n")

    done = seqnets("benchmark", *where, chosen, f"allow=[{module}]", *ONE[1:], "output=o.json")

    assert (done.code, done.err) == (0, "")
    assert "mine, forward" in done.out
    assert "nn.LSTM, scaled by operations" in done.out


def test_notes_are_whole_lines_in_a_file(benchmark, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")

    done, _ = benchmark()

    assert "  scan: the step is not linear in the state: a product by weight_hh depends on it." in (
        done.out.splitlines()
    )


def test_a_cell_of_ones_own_needs_to_be_allowed(seqnets, tmp_path):
    (tmp_path / "conf" / "model" / "cell").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "cell" / "mine.yaml").write_text("_target_: os.Mine\n")

    done = seqnets("benchmark", "--config-dir", "conf", "model/cell=mine", *ONE[1:])

    assert done.code == 1
    assert "may not be used in a configuration" in done.err


def test_options_of_a_cell_can_be_set(seqnets, pretended):
    done = seqnets(
        "benchmark", "model/cell=lstm", "+model.cell.proj_size=2", *ONE[1:], "output=o.json"
    )

    assert done.code == 0
    assert [(str(c), make(3, 4).proj_size) for c, make in pretended.items()] == [
        ("lstm, forward, B=2 T=4 H=3", 2)
    ]


def test_threads_are_those_asked_for_and_afterwards_as_before(benchmark):
    before = torch.get_num_threads()

    _, report = benchmark("threads=2")

    assert report.machine["threads"] == 2
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["suite=cpuu"], "Did you mean cpu"),
        (["~suite"], "grid: is not given"),
        (["cels=[gru]"], "Did you mean cells"),
        (["threads=0"], "threads: is 0"),
        (["budget=-1"], "budget: is -1"),
        (["time_limit=0"], "time_limit: is 0"),
        (["dtype=tf32"], "tf32, which only GPUs have"),
        (["compiled=maybe"], "compiled: is 'maybe'"),
        (["dtype=float31"], "Did you mean float32"),
        (["device=tpu"], "expected cpu or cuda"),
        (["output=here.txt"], "ends with .json"),
        (["model/cell=gru"], "cells: came with model/cell, expected one"),
    ],
)
def test_what_is_mistyped_is_told_before_anything_is_timed(arguments, told, seqnets, tmp_path):
    done = seqnets("benchmark", *ONE, *arguments)

    assert done.code == 2
    assert told in done.err
    assert "Traceback" not in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["B=0"], "B: is 0, expected a positive integer"),
        (["H=[4,x]"], "H: is 'x'"),
        (["cells=[grru]"], "cells: is 'grru', expected one of rru, gru, tgru.\n"),
        (["cells=LSTMCell"], "cells: is 'LSTMCell', expected one of lstm, "),
        (["pass=backward"], "pass: is 'backward'"),
        (["output=/dev/null/x.json"], "expected a file that can be written"),
        (["cells=null", "model/cell=lstm", "+model.cell.bais=true"], "Did you mean bias?"),
    ],
)
def test_what_cannot_work_ends_before_anything_is_timed(arguments, told, seqnets, tmp_path):
    done = seqnets("benchmark", *ONE, *arguments)

    assert done.code == 1
    assert told in done.err
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_it_ends_at_once_and_says_what_to_do(seqnets, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    done = seqnets("benchmark", *ONE, "plot=true")

    assert done.code == 1
    assert "plot=false" in done.err
    assert not list(tmp_path.iterdir())


def test_the_acceptance_suite_reads_its_limits(seqnets, pretended):
    done = seqnets("benchmark", "suite=cpu", "plot=false", "output=o.json")

    assert done.code == 0
    assert done.out.count("not measured") == 10


def test_the_suite_of_the_gpu_reads_its_limits_and_times_each_case_once(seqnets, pretended):
    cpu = ("device=cpu", "dtype=bfloat16", "plot=false", "output=o.json")
    done = seqnets("benchmark", "suite=cuda", *cpu)

    assert (done.code, done.err) == (0, "")
    assert done.out.count("not measured") == 7
    assert all(case.rows for case in pretended)


def test_the_suite_of_the_gpu_needs_one(seqnets):
    if torch.cuda.is_available():
        pytest.skip("there is one")

    assert "torch finds no GPU" in seqnets("benchmark", "suite=cuda").err


def test_no_case_is_begun_after_the_time_limit(seqnets, pretended, monkeypatch, tmp_path):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(verb, "monotonic", lambda: next(clock))

    done = seqnets("benchmark", "suite=quick", "time_limit=25", "plot=false", "output=o.json")

    assert len(pretended) == 2
    assert "time_limit: " in done.out
    assert len(Report.load(tmp_path / "o.json").measured) == 2


def test_the_suite_of_cells_has_a_row_for_each(seqnets, pretended):
    done = seqnets("benchmark", "suite=cells", "plot=false", "output=o.json")

    assert done.code == 0
    made = [make(input_size=4, hidden_size=4) for make in pretended.values()]
    innermost = {type(getattr(cell, "innermost", cell)) for cell in made}
    assert {kind if kind in FINAL_CELLS else kind.__bases__[0] for kind in innermost} >= set(
        FINAL_CELLS
    )


@pytest.mark.parametrize("name", ["one.json", "one.md"])
def test_only_figures_of_a_benchmark_are_overwritten(name, benchmark, pretended, tmp_path):
    other = tmp_path / name
    other.write_text('{"of": "another kind"}')

    refused, _ = benchmark()
    kept = other.read_text()
    other.unlink()
    first, _ = benchmark()
    second, _ = benchmark()

    assert refused.code == 1
    assert f"output: {name} exists already and belongs to no benchmark" in refused.err
    assert kept == '{"of": "another kind"}'
    assert first.code == second.code == 0, first.err + second.err


def test_help_and_lists_know_it(seqnets):
    assert "seqnets benchmark: time cells" in seqnets("benchmark", "--help").out
    assert "cpu    The acceptance table" in seqnets("list", "suites").out
    assert "\n  benchmark " in seqnets("--help").out


def test_completion_knows_it(seqnets, monkeypatch):
    monkeypatch.setenv("COMP_LINE", "seqnets benchmark suite=")

    assert {"suite=cpu", "suite=quick"} <= set(seqnets("completion", "query").out.split())
