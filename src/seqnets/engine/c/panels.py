"""Panels in printed C: weights packed by columns of a few vectors, in a pass's workspace."""

from __future__ import annotations

from collections.abc import Callable

from seqnets.engine.c.text import Text
from seqnets.engine.program import Stage, StageProduct


class Panels:
    """The panels of a pass: their number, sizes and addresses, as expressions of C.

    Args:
        text: The source, which has members for sizes.
        reach: The number of terms that a product sums.
        tiled: Whether tiles of bfloat16 multiply, whose other operand is packed too.
    """

    def __init__(self, text: Text, reach: Callable[[int], int], tiled: bool) -> None:
        self._text, self._reach, self._tiled = text, reach, tiled

    def count(self, stage: Stage) -> str:
        """The number of panels into which the weights of a stage are cut."""
        return f"panels({self._text.size(stage.width)}, {vectors_of(stage)})"

    def members(self, stage: Stage) -> dict[str, str]:
        """Members of the workspace for a stage's products, and the number of elements of each."""
        members = {}
        for p in stage.products:
            members[f"weight_{p.product}"] = f"{self.count(stage)} * {self._size(p, stage)}"
            members[f"kept_{p.product}"] = f"{self.count(stage)} * {self._size_of_kept(p)}"
            if self._tiled:
                members[f"tiles_{p.product}"] = f"c->threads * {self._size_of_operand(p)}"
        return members

    def at(self, product: StageProduct, stage: Stage) -> tuple[str, str]:
        """The addresses of panel p of a weight, and of the list of its rows that are kept."""
        k = product.product
        panel = f"m->weight_{k} + p * {self._size(product, stage)}"
        return panel, f"(int32_t *)(m->kept_{k} + p * {self._size_of_kept(product)})"

    def operand_at(self, product: StageProduct) -> str:
        """The address of the packed operand of a product, for rows from b0 on."""
        terms = self.terms(product)
        mine = f"m->tiles_{product.product} + s->thread * {self._size_of_operand(product)}"
        return f"{mine} + (b0 - from) * IN_TERMS({terms})"

    def terms(self, product: StageProduct) -> str:
        """The number of terms that a product sums."""
        return self._text.size(self._reach(product.product))

    def _size(self, product: StageProduct, stage: Stage) -> str:
        numbers = self.terms(product)
        numbers = f"IN_TERMS({numbers})" if self._tiled else numbers
        return f"{numbers} * {wide_of(product, stage)} * LANES"

    def _size_of_kept(self, product: StageProduct) -> str:
        return f"KEPT({self.terms(product)})"

    def _size_of_operand(self, product: StageProduct) -> str:
        """Elements of the packed operand of a product, for a block of rows."""
        return f"TILES_OF(least(c->B, ROWS_AT_ONCE), {self.terms(product)})"


def vectors_of(stage: Stage) -> int:
    """Vectors of units in a panel: two where each product has one number per unit."""
    return 2 if all(product.blocks == 1 for product in stage.products) else 1


def wide_of(product: StageProduct, stage: Stage) -> int:
    """Vectors in a row of a product's panel, over all its blocks."""
    return product.blocks * vectors_of(stage)
