"""Separate sequences of any length: with a target each or one per step, or in pairs."""
