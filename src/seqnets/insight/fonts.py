"""Fonts for letters that a figure's own font lacks."""

from __future__ import annotations

import logging
from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

_say_once = cache(logger.warning)


def give_fonts(figure: Figure) -> None:
    """Have a figure's texts fall back on installed fonts for letters that theirs lack.

    Letters that no font has, such as Chinese ones on many servers, stay boxes, and a warning is
    logged once.
    """
    from matplotlib import get_cachedir
    from matplotlib.font_manager import FontProperties, findfont
    from matplotlib.text import Text

    texts: dict[tuple[str, ...], list[Any]] = defaultdict(list)
    for text in figure.findobj(Text):
        texts[tuple(text.get_fontfamily())].append(text)
    for families, alike in texts.items():
        signs = {sign for text in alike for sign in text.get_text() if sign.isprintable()}
        own = _letters_of(findfont(FontProperties(family=families)))
        others, boxes = _fonts_with({ord(sign) for sign in signs} - own)
        if others:
            for text in alike:
                text.set_fontfamily([*families, *others])
        if boxes:
            _say_once(
                "Pictures have boxes for letters that no installed font has. Install one, such as "
                f"Noto Sans CJK, and remove matplotlib's list of fonts in {get_cachedir()}."
            )


def _fonts_with(letters: set[int]) -> tuple[list[str], set[int]]:
    """The names of as few installed fonts as have these letters, and the letters that none has."""
    chosen: list[str] = []
    while letters:
        installed = _installed()
        best = max(installed, key=lambda name: len(letters & installed[name]))
        if not letters & installed[best]:
            break
        chosen.append(best)
        letters = letters - installed[best]
    return chosen, letters


@cache
def _installed() -> dict[str, frozenset[int]]:
    """The letters of each installed font, by its name."""
    from matplotlib.font_manager import fontManager

    upright = [font for font in fontManager.ttflist if font.style == "normal"]
    regular = {font.name: font for font in sorted(upright, key=lambda font: font.weight == 400)}
    found = {}
    for name, font in regular.items():
        if "lastresort" not in name.replace(" ", "").lower():  # it has boxes for all letters
            try:
                found[name] = _letters_of(font.fname)
            except (OSError, RuntimeError):  # removed since, or damaged
                continue
    return found


@cache
def _letters_of(path: str) -> frozenset[int]:
    """The letters that a font has, by their numbers in Unicode."""
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(path).get_charmap())
