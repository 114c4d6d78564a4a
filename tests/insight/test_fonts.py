"""Letters that matplotlib's own font lacks."""

import logging

import pytest

pytest.importorskip("matplotlib")

from seqnets.insight import fonts, new_figure

INSTALLED = {
    "Boxes Everywhere": frozenset({0x6211}),
    "All": frozenset({0x6211, 0x559C, 0x6B22}),
    "Kana": frozenset({0x3066}),
}


def labelled(text):
    figure, axes = new_figure()
    axes.set_title(text)
    axes.set_ylabel("nats", family="monospace")
    return figure, axes


@pytest.fixture(autouse=True)
def _unsaid(monkeypatch):
    monkeypatch.setattr(fonts, "_say_once", fonts.cache(fonts.logger.warning))


def test_letters_come_from_the_fewest_fonts_that_have_them(monkeypatch, caplog):
    monkeypatch.setattr(fonts, "_installed", lambda: INSTALLED)
    figure, axes = labelled("我喜欢 て")
    usual = axes.title.get_fontfamily()

    fonts.give_fonts(figure)

    assert axes.title.get_fontfamily() == [*usual, "All", "Kana"]
    assert axes.yaxis.label.get_fontfamily() == ["monospace"]
    assert not caplog.records


def test_letters_that_no_font_has_are_told_once(monkeypatch, caplog):
    monkeypatch.setattr(fonts, "_installed", lambda: INSTALLED)

    with caplog.at_level(logging.WARNING):
        for text in ("한", "국"):
            fonts.give_fonts(labelled(text)[0])

    (record,) = caplog.records
    assert "Pictures have boxes for letters that no installed font has" in record.message


def test_usual_letters_look_for_no_font(monkeypatch):
    monkeypatch.setattr(fonts, "_installed", lambda: pytest.fail("fonts were looked for"))
    figure, axes = labelled("Größe ↵ \n")
    before = axes.title.get_fontfamily()

    fonts.give_fonts(figure)

    assert axes.title.get_fontfamily() == before


def test_a_font_of_boxes_for_all_letters_is_none():
    assert not any("last resort" in name.lower() for name in fonts._installed())
    assert ord("ß") in fonts._installed()["DejaVu Sans"]
