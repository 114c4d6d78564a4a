"""How what was said is scored, where no metric of a library does it."""
