"""Reports of a run: JSON, Markdown, verdicts, plots."""

import errno
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from seqnets.benchmarking import Case, Limit, Measured, Report, Row, judge, markdown, plot
from seqnets.benchmarking.picture import check_plotting, sweeps
from seqnets.benchmarking.surroundings import machine, write_results
from seqnets.errors import ConfigError, DataError

CASE = Case("gru", 2, 8, 4, 4, "training")


def row(name, ms, **others):
    return Row(name, ms, 0.1, 5, 10 / ms, ms / 2, 1e6 / ms, **others)


def measured(cell="gru", B=2, T=8, H=4, pass_="training", ours=5.0):
    rows = [row("floor", 2.0), row("torch.nn", 10.0), row("auto", ours, mib=1.5, note="takes c")]
    return Measured(Case(cell, B, T, H, H, pass_), rows, {"c": "disagrees"}, {"Flax": "not there"})


def limit(**changes):
    entry = {"what": "w", "cells": "gru", "pass": "training", "against": "torch.nn", "ratio": 2}
    return Limit.read(entry | changes, ["gru", "lstm", "rnn"])


def test_a_report_survives_the_round_trip_through_json(tmp_path):
    report = Report({"suite": "quick"}, measured=[measured()])
    report.verdicts = [judge(limit(), report.measured)]

    report.save(tmp_path / "new" / "report.json")

    assert Report.load(tmp_path / "new" / "report.json") == report


def test_results_of_a_script_that_cannot_be_written_leave_the_old_ones(tmp_path, monkeypatch):
    def fail(path, text, **_):
        path.write_bytes(text[:9].encode())
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "new" / "found.json"
    write_results(path, {"ms": 1})
    before = path.read_bytes()
    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match="No space"):
        write_results(path, {"ms": 2})

    assert path.read_bytes() == before


def test_json_holds_machine_versions_commit_date_and_options(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "3.0+cpu")  # of a package that is called 3.0
    Report({"suite": "quick"}).save(tmp_path / "report.json")

    held = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))

    assert {"processor", "cores", "threads", "compiler", "load", "gpu"} <= held["machine"].keys()
    assert held["machine"]["threads"] == torch.get_num_threads()
    assert held["versions"]["torch"] == "3.0+cpu"
    assert held["options"] == {"suite": "quick"}
    assert held["date"].endswith("+00:00")
    assert held["commit"] is None or (len(held["commit"]["id"]), type(held["commit"]["dirty"])) == (
        40,
        bool,
    )


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 0}', '{"format": 1, "odd": 2}'])
def test_a_file_that_is_not_a_report_is_refused(text, tmp_path):
    (tmp_path / "report.json").write_text(text)

    with pytest.raises(DataError, match=r"report\.json"):
        Report.load(tmp_path / "report.json")


def test_a_report_of_another_format_is_refused(tmp_path):
    path = tmp_path / "report.json"
    Report({}).save(path)
    path.write_text(path.read_text(encoding="utf-8").replace('"format": 1', '"format": 2'))

    with pytest.raises(DataError, match="another format"):
        Report.load(path)


def test_markdown_has_every_row_and_every_reason_once():
    report = Report({}, measured=[measured(), measured(T=16), measured("lstm")])
    report.verdicts = [judge(limit(), report.measured)]

    page = markdown(report)

    assert page.count("| auto (takes c) | 5 |") == 3
    assert page.count("- c: refused, not timed: disagrees") == 2  # once a table
    assert "## gru, training" in page
    assert "| w | torch.nn | ≥ 2 | 2.00 | 2.00 |" in page
    assert all(line.count("|") in (0, 8, 9) for line in page.splitlines())


@pytest.mark.parametrize(
    ("ms", "shown"), [(0.012344, "0.01234"), (1.0, "1"), (99999.6, "100000"), (123.45, "123.5")]
)
def test_times_are_shown_with_four_digits_and_no_exponent(ms, shown):
    assert row("auto", ms).cells()[0] == shown


def test_a_limit_is_met_if_mean_and_worst_case_meet_it():
    entries = [measured(ours=5.0), measured(T=16, ours=2.5)]

    verdict = judge(limit(), entries)

    assert (verdict.mean, verdict.worst) == pytest.approx((8**0.5, 2.0))
    assert verdict.worst_case == "gru, training, B=2 T=8 H=4"
    assert verdict.met is True
    assert verdict.summary() == "met by 0%"


def test_a_limit_is_missed_by_its_worst_case():
    verdict = judge(limit(), [measured(ours=8.0), measured(T=16, ours=1.0)])

    assert verdict.met is False
    assert verdict.summary() == "missed by 38%"


def test_a_limit_that_is_far_exceeded_shows_the_factor():
    assert judge(limit(), [measured(ours=1.0)]).summary() == "met 5 times over"


def test_single_cases_may_be_worse_down_to_at_worst():
    verdict = judge(limit(at_worst=1.2), [measured(ours=8.0), measured(T=16, ours=1.0)])

    assert verdict.met is True


@pytest.mark.parametrize(
    "changes",
    [{"cells": "lstm"}, {"pass": "forward"}, {"shapes": [[1, 8, 4]]}, {"against": "Flax"}],
)
def test_a_limit_without_measurements_is_neither_met_nor_missed(changes):
    verdict = judge(limit(**changes), [measured()])

    assert verdict.met is None
    assert verdict.summary() == "not measured"


@pytest.mark.parametrize(
    "changes",
    [{"rato": 2}, {"cells": "grru"}, {"ratio": 0}, {"ratio": "much"}, {"at_worst": 0}],
)
def test_a_limit_that_cannot_be_read_is_refused(changes):
    with pytest.raises(ConfigError):
        limit(**changes)


def test_a_limit_that_is_no_mapping_is_refused():
    with pytest.raises(ConfigError, match="limits: has 'gru', expected a mapping"):
        Limit.read("gru", ["gru"])


def test_a_sweep_is_the_longest_series_of_cases_that_differ_in_one_size():
    entries = [
        *(measured(T=T) for T in (16, 8, 32)),
        *(measured(B=5, T=T) for T in (8, 16)),
        measured(H=6),
        measured("lstm"),
    ]

    found = sweeps(entries)

    assert list(found) == ["gru, training"]
    assert [e.case.T for e in found["gru, training"]["T"]] == [8, 16, 32]
    assert [e.case.H for e in found["gru, training"]["H"]] == [4, 6]


def test_a_limit_may_apply_to_one_dtype():
    half = replace(measured(ours=1.0), case=Case("gru", 2, 8, 4, 4, "training", "float16"))
    whole = measured(ours=5.0)

    assert judge(limit(dtype="float16"), [half, whole]).cases == 1
    assert judge(limit(dtype=["float16", "float32"]), [half, whole]).cases == 2


def test_empty_columns_are_left_out():
    page = markdown(
        Report({}, measured=[Measured(CASE, [Row("auto", 1.0, 0.1, 5, 2.0, None, 3.0)])])
    )

    assert "| ms | IQR | × torch.nn | steps/s |" in page


def test_a_report_of_a_gpu_begins_with_its_name_and_driver():
    report = Report({})
    report.machine |= {"gpu": "H200", "driver": "570.1", "cuda": "12.8", "cudnn": 91002}

    assert "- H200, driver 570.1, CUDA 12.8, cuDNN 91002\n" in markdown(report)


def test_a_report_knows_its_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H200")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)

    found = machine()

    assert (found["gpu"], found["cudnn"]) == ("H200", 91002)
    assert {"driver", "cuda"} <= found.keys()


@pytest.mark.parametrize(
    ("command", "printed", "name"),
    [
        ("lscpu", "Vendor ID:  ARM\nModel name:  Neoverse-N1\nStepping:  r3p1", "Neoverse-N1"),
        ("sysctl", "Apple M2", "Apple M2"),
        (None, "", "aarch64"),
    ],
)
def test_a_processor_without_a_name_in_cpuinfo_is_named_by_lscpu(
    command, printed, name, monkeypatch
):
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "CPU implementer\t: 0x41\n")
    monkeypatch.setattr(
        "seqnets.benchmarking.surroundings._output_of",
        lambda *given: printed if given[0] == command else None,
    )
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")

    assert machine()["processor"] == name


@pytest.mark.parametrize(("sizes", "panels"), [({"T": 16}, 1), ({"T": 16, "B": 64}, 2)])
def test_a_plot_has_no_panel_for_sizes_that_do_not_vary(sizes, panels, tmp_path, monkeypatch):
    figure_of = pytest.importorskip("matplotlib.figure").Figure
    made = []
    monkeypatch.setattr(figure_of, "savefig", lambda figure, *_, **__: made.append(figure))

    plot([measured(), *(measured(**{axis: size}) for axis, size in sizes.items())], tmp_path / "p")

    assert len(made[0].axes) == panels
    made[0].draw_without_rendering()
    assert made[0].legends[0].get_window_extent().width < made[0].bbox.width


def test_only_sweeps_are_plotted(tmp_path):
    pytest.importorskip("matplotlib")

    assert plot([measured(), measured(T=16)], tmp_path / "new" / "picture.png")
    assert not plot([measured(), measured("lstm")], tmp_path / "none.png")
    assert (tmp_path / "new" / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "none.png").exists()


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(ConfigError, match=r"pip install 'seqnets\[plot\]'"):
        check_plotting()
