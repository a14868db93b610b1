"""Triangular systems: relevance of the solver is relevance of the loop that it stands for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import relprop
from helpers import close


def substituted(a: Tensor, b: Tensor, upper: bool, unitriangular: bool) -> Tensor:
    """Row by row, each product and quotient by itself."""
    size = a.shape[-1]
    rows: dict[int, Tensor] = {}
    for i in reversed(range(size)) if upper else range(size):
        rest = b[..., i, :]
        for j, x in rows.items():
            rest = rest - a[..., i, j, None] * x
        rows[i] = rest if unitriangular else rest / a[..., i, i, None]
    return torch.stack([rows[i] for i in range(size)], -2)


@pytest.mark.parametrize("upper", [True, False])
@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("unitriangular", [True, False])
@pytest.mark.parametrize("live", ["both", "matrix", "right-hand side"])
@pytest.mark.parametrize("composite", ["attnlrp", "cp_lrp"])
def test_against_the_loop(upper: bool, left: bool, unitriangular: bool, live: str, composite: str) -> None:
    a = torch.randn(2, 4, 4).double() + 3 * torch.eye(4)
    b = torch.randn(2, 4, 3).double()
    v = torch.randn(4, 3).double()

    def solved(a: Tensor, b: Tensor) -> Tensor:
        if left:
            return torch.linalg.solve_triangular(a, b, upper=upper, unitriangular=unitriangular)
        return torch.linalg.solve_triangular(
            a.mT, b.mT, upper=not upper, left=False, unitriangular=unitriangular
        ).mT  # fmt: skip

    def loop(a: Tensor, b: Tensor) -> Tensor:
        return substituted(a, b, upper, unitriangular)

    def explained(solve: object) -> list[Tensor]:
        f = {
            "both": lambda a, b: solve(a, b),  # type: ignore[operator]
            "matrix": lambda a: solve(a, b),  # type: ignore[operator]
            "right-hand side": lambda b: solve(a, b),  # type: ignore[operator]
        }[live]
        inputs = {"both": (a, b), "matrix": (a,), "right-hand side": (b,)}[live]
        values = relprop.attribute(f, inputs, lambda x: (x * v).sum((1, 2)), composite=composite).values
        return list(values)

    for found, expected in zip(explained(solved), explained(loop), strict=True):
        close(found, expected)


def test_a_matrix_that_gates_is_a_constant() -> None:
    """Where the composite takes gates for constants, all goes to the right-hand side."""
    a, b = torch.randn(2, 4, 4).double(), torch.randn(2, 4, 3).double()

    def model(a: Tensor, b: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(torch.sigmoid(a), b, upper=False, unitriangular=True)

    found = relprop.attribute(model, (a, b), lambda x: x.sum((1, 2)), composite="cp_lrp")
    assert not found.values[0].any()
    close(found.residual, torch.zeros(2).double())
