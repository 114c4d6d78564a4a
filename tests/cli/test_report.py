"""What is told at the end of a run."""

import io
import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from rich.console import Console

from seqnets.cli import report
from seqnets.cli.console import quiet, terminal
from seqnets.cli.report import figures_table, show
from seqnets.insight.canvas import new_figure
from seqnets.quoting import shell
from seqnets.training import Classification, LanguageModelling, Tagging, Transduction


def test_text_is_printed_as_it_stands(capsys):
    show(terminal(), "The [red]title:", ":b: and [bold]")

    assert capsys.readouterr().out == "\nThe [red]title:\n:b: and [bold]\n"


@pytest.mark.parametrize(
    ("path", "argument"),
    [
        ("runs/a.ckpt", "path=runs/a.ckpt"),
        ("my runs/ä.ckpt", "\"path='my runs/ä.ckpt'\""),
        ("my $HOME/a.ckpt", "'path='\"'\"'my $HOME/a.ckpt'\"'\"''"),
        ("it's/a.ckpt", None),
    ],
)
def test_a_path_is_typed_as_the_shell_and_hydra_read_it(path, argument):
    typed = shell(report.path_override("path", Path(path)))

    (read,) = OverridesParser.create().parse_overrides(shlex.split(typed))
    assert read.value() == path
    assert argument in (typed, None)


def test_figures_without_baselines_have_two_columns():
    figures = {"accuracy": 0.5, "loss": 1.0}

    assert len(figures_table("a file", figures, Classification(), {}).columns) == 2
    assert len(figures_table("a file", figures, Classification(), {"chance": 0.1}).columns) == 3


@pytest.mark.parametrize("columns", ["0", "1", "5", "20"])
def test_figures_are_printed_in_a_terminal_without_room(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    figures = {"loss": 0.3, "accuracy": 0.75}

    terminal().print(figures_table("the test part", figures, Classification(), {"chance": 0.1}))

    assert "0.75" in capsys.readouterr().out


def test_baselines_in_another_metric_are_left_out():
    baselines = {"majority class": 0.9}

    assert Classification().in_metric(baselines, {}) == baselines
    assert Classification("f1").in_metric(baselines, {}) == {}
    assert Tagging("f1").in_metric(baselines, {}) == {}
    assert Tagging("f1").in_metric(baselines, {"metric": "accuracy"}) == {}
    assert Tagging("f1").in_metric(baselines, {"metric": "f1"}) == baselines
    assert Transduction().in_metric(baselines, {}) == baselines
    assert Transduction("bleu").in_metric(baselines, {}) == {}


def test_title_and_figures_of_a_table_without_baselines_are_one_line_each(capsys):
    figures = {"f1": 0.5, "loss": 1.0, "accuracy": 0.5}
    Console(width=80).print(figures_table("the test part", figures, Classification("f1"), {}))

    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "Results on the test part"
    assert lines[-1] == "loss=1.000, accuracy=0.5000"


def test_bits_of_baselines_are_compared_with_perplexity_as_its_power():
    words, characters = LanguageModelling("words"), LanguageModelling("characters")

    assert words.in_metric({"uniform": 3.0}, {}) == {"uniform": 8.0}
    assert characters.in_metric({"uniform": 3.0}, {}) == {"uniform": 3.0}


def test_a_figure_is_not_parted_from_its_name_in_a_narrow_table(capsys):
    figures = {"accuracy": 0.5, "loss": 1.0, "entity_precision": 0.25, "mae_net price": 0.75}

    Console(width=40).print(figures_table("a file", figures, Classification(), {}))

    assert {"loss=1.000,", "entity_precision=0.2500,", "mae_net\N{NO-BREAK SPACE}price=0.7500"} <= {
        *capsys.readouterr().out.replace("\n", " ").split(" ")
    }


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0.5, "0.5000"),
        (0.0, "0.000"),
        (0.00015522, "0.0001552"),
        (999.96, "1,000"),
        (10_000.0, "10,000"),
        (-146_114.7, "-146,115"),
        (1e300, "1.000e+300"),
        (float("nan"), "nan"),
    ],
)
def test_a_figure_has_four_digits_and_all_before_the_point(value, told):
    table = figures_table("a file", {"accuracy": value}, Classification(), {})

    assert [*table.columns[1].cells] == [told]


def test_a_letter_that_no_font_has_is_drawn_without_a_warning():
    figure, axes = new_figure()
    axes.set_title("\ue123")

    with quiet():
        figure.savefig(io.BytesIO())
