"""Benchmarks that time only what is correct, in one run with rivals and with the limit."""

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
