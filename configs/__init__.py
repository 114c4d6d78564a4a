"""Hydra configurations: inside the package, this folder is ``seqnets.configs``."""
