"""Vectors and matrices as lists of floats, for equations that mix units."""

import math

import torch


def numbers(cell):
    """A cell's parameters as lists, by name, as its equation uses them."""
    return {name: tensor.tolist() for name, tensor in cell.tensors().items()}


def after(cell, x, *state):
    """The state after one step, as lists."""
    rows = [torch.tensor([row], dtype=torch.float64) for row in (x, *state)]
    return [part[0].tolist() for part in cell(rows[0], tuple(rows[1:]))[1]]


def times(matrix, vector):
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


def total(*vectors):
    return [sum(parts) for parts in zip(*vectors, strict=True)]


def each(function, *vectors):
    return [function(*parts) for parts in zip(*vectors, strict=True)]


def sigmoid(a):
    return 1 / (1 + math.exp(-a))
