"""Whether this processor multiplies tiles of bfloat16, and Linux lets this process use them."""

from __future__ import annotations

from functools import cache

from seqnets.engine.c import compiler
from seqnets.engine.c.text import with_headers


@cache
def has_tiles() -> bool:
    """Whether programs that use ``tiles.h`` can be compiled and run here."""
    try:
        library = compiler.load(with_headers("", "vector.h", "tiles.h", double=False))
    except compiler.NoCompiler:
        return False
    return bool(library.has_tiles())
