"""Text as shown in TensorBoard."""

import html
import re

import pytest

from seqnets.insight.visible import unmarked


@pytest.mark.filterwarnings("ignore:html5lib's sanitizer:DeprecationWarning")
@pytest.mark.parametrize(
    "text",
    ["<unk>", "<b>x</b>", "a|b", "&amp;", "*a* **b** _c_", "`a` b`", "[a](b)", "\\|", "\\*~#1."],
)
def test_a_table_cell_shows_a_text_verbatim(text):
    from tensorboard.plugin_util import markdown_to_safe_html

    table = f"| source | written |\n|---|---|\n| {unmarked(text)} | b |"
    cells = re.findall(r"<td>(.*?)</td>", markdown_to_safe_html(table))

    assert [html.unescape(cell) for cell in cells] == [text, "b"]
