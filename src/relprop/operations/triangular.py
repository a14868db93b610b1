"""Triangular systems `A X = B`: forward substitution, with which delta rules compute the values that they write.

With `A = D + L`, each row is `x_i = (b_i - sum_j l_ij x_j) / d_ii`: a product gives half to each factor, and the
divisor is a constant. What arrives at B is then `u = (D + L/2)^-T G`, and at L `-u X^T / 2`.

Index letters: i row, j column of A; rows are solved in the order in which they depend on each other.
"""

from __future__ import annotations

import torch
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.functions import grafted
from relprop.engine.registry import register
from relprop.operations.gates import gating


def solve_triangular(
    call: Call, A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor:
    """Native if only `B` carries relevance: the solution is linear in it."""
    if not A.requires_grad:
        return call()
    if call.formula is not None and call.formula.product((gating(A), gating(B))) == (0.0, 1.0):
        return call(A.detach(), B, upper=upper, left=left, unitriangular=unitriangular)
    call.trait("matrix product")
    X = call(A.detach(), B.detach(), upper=upper, left=left, unitriangular=unitriangular)
    if not left:  # X A = B is A^T X^T = B^T
        A, B, upper = A.mT, B.mT, not upper
    x = X if left else X.mT
    share = A.new_full((A.shape[-1],), 0.5)
    if not B.requires_grad:
        share[-1 if upper else 0] = 1  # the row that is solved first is a constant
    beside = A.triu(1) if upper else A.tril(-1)
    rest = A.detach() - beside.detach() * share
    history = torch.linalg.solve_triangular(
        rest, B - (beside * share) @ x, upper=upper, left=True, unitriangular=unitriangular
    )
    return grafted(X, history if left else history.mT)


register(torch.linalg.solve_triangular, family="product", handler=solve_triangular)
