"""Devices by their names, for the command lines of scripts."""

from __future__ import annotations

import argparse

import torch


def found_device(name: str) -> str:
    """The name of a device that is there: the ``type`` of an option of ``argparse``.

    Raises:
        ArgumentTypeError: The name is "cuda", and torch finds no GPU.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError("is cuda, expected cpu, since torch finds no GPU.")
    return name
