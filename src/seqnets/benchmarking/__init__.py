"""Benchmarks: correct implementations only, compared within one run."""

from seqnets.benchmarking.acceptance import Limit, Verdict, judge
from seqnets.benchmarking.cases import PASSES, Case, cases_of
from seqnets.benchmarking.measuring import Settings, measure
from seqnets.benchmarking.picture import plot
from seqnets.benchmarking.results import Measured, Report, Row, markdown

__all__ = [
    "PASSES",
    "Case",
    "Limit",
    "Measured",
    "Report",
    "Row",
    "Settings",
    "Verdict",
    "cases_of",
    "judge",
    "markdown",
    "measure",
    "plot",
]
