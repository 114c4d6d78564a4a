"""What is told at the end of a run."""

from seqnets.cli.console import terminal
from seqnets.cli.report import figures_table, show
from seqnets.training import Classification


def test_text_is_printed_as_it_stands(capsys):
    show(terminal(), "The [red]title:", ":b: and [bold]")

    assert capsys.readouterr().out == "\nThe [red]title:\n:b: and [bold]\n"


def test_figures_without_rivals_have_two_columns():
    figures = {"accuracy": 0.5, "loss": 1.0}

    assert len(figures_table("a file", figures, Classification(), {}).columns) == 2
    assert len(figures_table("a file", figures, Classification(), {"chance": 0.1}).columns) == 3
