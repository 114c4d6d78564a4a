"""The documentation: what its pages link to, and the site that is built from them."""

import re
import runpy
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
from docutils.utils.math import latex2mathml

from seqnets.cells.options import ACTIVATIONS
from seqnets.cells.starting import RULES
from tests.test_public_api import PUBLIC

ROOT = Path(__file__).parent.parent
SITE = runpy.run_path(str(ROOT / "docs" / "conf.py"))
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/results/*.md")]
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]
ADDRESS = re.compile(r"(?:src=|href=|url\(|@import )[\"']?(?:https?:)?//")


def prose(path):
    """A page without its code."""
    text = re.sub(r"^( *)```.*?^\1```", "", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", lambda code: code[0] if code[0][1:-1].isidentifier() else "", text)


def anchors(path):
    """The addresses of a page's headings, as forges make them."""
    headings = re.findall(r"^#+ (.*)", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_of_a_page_lead_to_files_and_headings(page):
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose(page)):
        file, _, anchor = link.partition("#")
        there = (page.parent / file).resolve() if file else page

        assert there.is_file(), f"{page.name}: {link} is no file"
        assert not anchor or anchor in anchors(there), f"{page.name}: {link} is no heading"


def test_the_navigation_lists_every_page_once():
    trees = SITE["NAVIGATION"].values()
    listed = [
        str(path.relative_to(ROOT))
        for pattern in chain.from_iterable(chain.from_iterable(tree.values()) for tree in trees)
        for path in ROOT.glob(f"{pattern}.md")
    ]

    assert sorted([*listed, "README.md"]) == sorted(NAMES)


@pytest.mark.parametrize("module", [*PUBLIC, "seqnets.datasets", "seqnets.errors"])
def test_the_reference_describes_every_public_name(module):
    text = SITE["complete"](
        f"docs/api/{module}", (ROOT / "docs" / "api" / f"{module}.md").read_text("utf-8")
    )
    told = set(re.findall(r":py:obj:`~[\w.]*\.(\w+)`", text))
    names = PUBLIC[module].split() if module in PUBLIC else SITE["public"](sys.modules[module])

    assert not set(names) - told
    assert f"`{module}`]({module}.md)" in (ROOT / "docs" / "api" / "README.md").read_text("utf-8")


@pytest.mark.parametrize(("name", "module"), [("LSTMCell", "cells"), ("Recurrent", "layers")])
def test_a_name_of_the_package_is_described_by_its_own_module_alone(name, module):
    page = SITE["reference"]("seqnets")

    assert f":: seqnets.{module}.{name}\n" in SITE["reference"](f"seqnets.{module}")
    assert (f":: seqnets.{name}\n" in page) == (name == "LSTMCell")  # as torch.nn's, another class


def test_the_page_on_options_names_every_activation_and_every_rule_of_initialisation():
    text = (ROOT / "docs" / "options.md").read_text("utf-8").partition("**Names.**")[2]
    functions, rules = text.partition("\n\n")[0].split("`initialize`")

    assert set(re.findall(r"`(\w+)`", functions)) - {"activations"} == ACTIVATIONS.keys()
    assert set(re.findall(r"`(\w+)`", rules)) == RULES.keys()


def test_pages_of_measurements_have_titles_of_their_own():
    assert SITE["complete"]("benchmarks/results/cpu", "# Benchmark\n\nfirst") == "# cpu\n\nfirst"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, as `make docs` builds it."""
    pytest.importorskip("furo")
    pytest.importorskip("myst_parser")
    made = subprocess.run(
        ["make", "-n", "docs"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    (options,) = re.findall(r"-m sphinx (.*) build/docs", made.stdout)
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", *options.split(), "-d", folder / "cache", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.mark.skipif(not hasattr(latex2mathml, "tex2mathml"), reason="docutils is older")
def test_the_site_understands_the_equations_of_the_pages():
    texts = (path.read_text("utf-8") for path in ROOT.glob("docs/**/*.md"))
    equations = [tex for text in texts for tex in re.findall(r"```math\n(.*?)```", text, re.DOTALL)]

    assert len(equations) > 80
    for tex in equations:
        latex2mathml.tex2mathml(tex, as_block=True)


@pytest.mark.slow
def test_the_site_leads_to_every_public_name(site):
    for module, names in PUBLIC.items():
        page = (site / "docs" / "api" / f"{module}.html").read_text("utf-8")
        links = re.findall(r'href="[\w.]*#[^"]*" title="([\w.]+)\.(\w+)"', page)

        assert not set(names.split()) - {name for home, name in links if home in PUBLIC}, module


@pytest.mark.slow
def test_the_site_shows_equations_and_needs_no_network(site):
    cells = (site / "docs" / "api" / "seqnets.cells.html").read_text("utf-8")

    assert cells.count("<math") > 200
    assert ":math:" not in cells
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        loaded = re.sub(r"<a [^>]*>", "", path.read_text("utf-8"))
        assert not ADDRESS.search(loaded), path
    assert "zoneout" in (site / "searchindex.js").read_text("utf-8")
    assert "README.html" in (site / "index.html").read_text("utf-8")


@pytest.mark.slow
def test_signatures_name_classes_as_users_write_them(site):
    for page in (site / "docs" / "api").glob("*.html"):
        assert "&lt;class" not in page.read_text("utf-8"), page
    layers = (site / "docs" / "api" / "seqnets.layers.html").read_text("utf-8")
    assert "activation=ReLU" in re.sub(r"<[^>]*>", "", layers)
