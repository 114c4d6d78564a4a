"""The site: the pages that a forge shows, and a reference made from the docstrings.

    make docs    # then open build/docs/index.html

It is read without a network: equations become MathML as it is built, and nothing is fetched.
"""

import ast
import importlib
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parent.parent
NAVIGATION = {  # of a page: headings of the sidebar, and the pages below them, from the root
    "README": {
        "Training": [
            "docs/training",
            "docs/data",
            "docs/from-python",
            "docs/export",
            "docs/results",
        ],
        "Networks": [
            "docs/layers",
            "docs/cells",
            "docs/options",
            "docs/writing-a-cell",
            "docs/other-libraries",
        ],
        "Engine": ["docs/engine", "docs/benchmarks", "docs/inside-the-engine", "docs/kernels"],
        "Reference": ["docs/api/README", "docs/conversion"],
        "Project": ["docs/inside-training", "docs/decisions/README", "CONTRIBUTING", "CHANGELOG"],
    },
    "docs/api/README": {"": ["docs/api/seqnets*"]},
    "docs/benchmarks": {"": ["benchmarks/results/*"]},
    "docs/decisions/README": {"": ["docs/decisions/0*"]},
}

sys.path.insert(0, str(ROOT / "src"))
project = "seqnets"
copyright = "The seqnets developers, Apache-2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = ["*.md", "docs/**.md", "benchmarks/results/*.md"]
exclude_patterns = [".*", "build", "dist", "runs", "src", "tests"]

html_theme = "furo"
html_title = "seqnets"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_additional_pages = {"index": "start.html"}  # the start page, where servers look for it
html_math_renderer = "mathml"
html_copy_source = False
templates_path = ["."]

myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["math"]  # as forges have it
myst_heading_anchors = 4

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_use_ivar = True  # attributes are told once
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"


def public(part: ModuleType) -> list[str]:
    """The names that a part of the package offers."""
    if hasattr(part, "__all__"):
        return list(part.__all__)
    return [name for name, thing in vars(part).items() if inspect.isclass(thing)]


def origins(part: ModuleType) -> dict[str, str]:
    """The module that each name of a part is imported from, in the order of its imports."""
    nodes = ast.walk(ast.parse(inspect.getsource(part)))
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def text_of(name: str, module: str) -> str:
    """The text below a constant, in whichever module it comes from in the end."""
    part = importlib.import_module(module)
    came = origins(part)
    if name in came:
        return text_of(name, came[name])
    found = re.search(
        rf'^{name}\b.* = (?s:.*?)\n"""(.*?)"""', inspect.getsource(part), re.MULTILINE
    )
    if found is None:
        raise LookupError(f"{module}: {name} has no text below it")
    return found[1]


def kind_of(thing: Any) -> str:
    """What Sphinx calls a thing."""
    kinds = {"class": inspect.isclass, "function": inspect.isfunction, "module": inspect.ismodule}
    return next((kind for kind, has in kinds.items() if has(thing)), "data")


def described(module: str, name: str, kind: str, text: str) -> list[str]:
    """The entry of a name: Sphinx reads docstrings, and is given the text of a constant."""
    if kind == "data":
        return [f".. py:data:: {name}", f"   :module: {module}", "", f"   {text}", ""]
    return [f".. auto{kind}:: {module}.{name}", ""]


def reference(module: str) -> str:
    """The reference of a module: a table of its public names, then each of its own.

    Names that the package offers beside the part that has them are described there.
    """
    part = importlib.import_module(module)
    came = origins(part)
    table, entries = [], []
    for name in sorted(public(part), key=lambda name: [*came].index(name) if name in came else -1):
        thing = getattr(part, name)
        kind = kind_of(thing)
        text = text_of(name, came[name]) if kind == "data" else inspect.getdoc(thing) or ""
        home = ".".join(came.get(name, module).split(".")[:2])
        if module != "seqnets" or name not in getattr(importlib.import_module(home), "__all__", ()):
            home = module
            entries += described(module, name, kind, text) if kind != "module" else []
        summary = " ".join(text.partition("\n\n")[0].split())
        table += [f"   * - :py:obj:`~{home}.{name}`", f"     - {summary}"]
    lines = [f".. py:module:: {module}", "", *inspect.cleandoc(part.__doc__ or "").splitlines(), ""]
    lines += [".. list-table::", "   :widths: auto", "", *table, ""]
    return "\n".join(["```{eval-rst}", *lines, *entries, "```"])


def complete(page: str, text: str) -> str:
    """The source of a page with what only the site has: references and navigation.

    A page of measurements, whose title says no more than that, has the name of its file.
    """
    if page.startswith("benchmarks/"):
        text = re.sub("^# .*", f"# {Path(page).name}", text)
    text = re.sub(r"```\{reference\} (.*)\n```", lambda found: reference(found[1]), text)
    for heading, pages in NAVIGATION.get(page, {}).items():
        options = [":hidden:", ":glob:", f":caption: {heading}" if heading else ":maxdepth: 1"]
        listed = [f"/{name}" for name in pages]
        text = "\n".join([text, "```{toctree}", *options, "", *listed, "```"])
    return text


def mathml(self: Any, node: Any, block: bool) -> None:
    """Write an equation as MathML, which browsers show by themselves."""
    from docutils import nodes
    from docutils.utils.math import latex2mathml

    math = latex2mathml.tex2mathml(node.astext(), as_block=block)
    self.body.append(f'<div class="math">{math}</div>' if block else math)
    raise nodes.SkipNode


def is_alias(app: Any, what: str, name: str, thing: Any, *options: Any) -> bool | None:
    """Leave out the fields of named tuples, which a class describes as its attributes."""
    return (thing.__doc__ or "").startswith("Alias for field number") or None


def with_short_names(
    app: Any, what: str, name: str, thing: Any, options: Any, signature: str | None, result: Any
) -> tuple[str | None, Any]:
    """A signature whose defaults that are classes have their own names alone."""
    return signature and re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", signature), result


def setup(app: Any) -> None:
    """Tell Sphinx how pages become those of the site."""
    app.connect("source-read", lambda _, page, text: text.append(complete(page, text.pop())))
    app.connect("autodoc-skip-member", is_alias)
    app.connect("autodoc-process-signature", with_short_names)
    app.add_html_math_renderer(
        "mathml", (lambda s, n: mathml(s, n, False), None), (lambda s, n: mathml(s, n, True), None)
    )
