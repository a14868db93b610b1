"""Linear imputation of missing pixels, by conjugate gradients on all rows at once (Rong et al. 2022)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_ITERATIONS = 2000


def impute(x: Tensor, gone: Tensor) -> Tensor:
    """Pixels such that each missing one is the weighted mean of its neighbours inside the picture.

    With `L v = d v - K v`, where `K` is the 3 x 3 convolution by the weights and `d = K 1`, solves `(L v) = 0` at the
    missing pixels, with the others fixed. The system is symmetric and positive definite as long as a pixel is left.

    Args:
        x: pictures, (m, C, H, W).
        gone: what is missing, (m, 1 or C, H, W).
    """
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    shape = torch.broadcast_shapes(x.shape, gone.shape)
    known = x.to(dtype).expand(shape).reshape(-1, 1, *shape[2:])
    missing = gone.expand(shape).reshape(-1, 1, *shape[2:])
    line = torch.tensor([1 / 12, 1 / 6, 1 / 12], dtype=dtype, device=x.device)
    kernel = torch.stack([line, torch.tensor([1 / 6, 0, 1 / 6], dtype=dtype, device=x.device), line])[None, None]
    degree = F.conv2d(torch.ones(1, 1, *shape[2:], dtype=dtype, device=x.device), kernel, padding=1)
    mask = missing.to(dtype)

    def laplacian(v: Tensor) -> Tensor:
        return mask * (degree * v - F.conv2d(v, kernel, padding=1))

    left = (1 - mask).sum((2, 3), keepdim=True)
    mean = torch.where(
        left > 0,
        ((1 - mask) * known).sum((2, 3), keepdim=True) / left.clamp(min=1),
        known.mean((2, 3), keepdim=True),
    )
    # From the mean of what is left: with nothing left it is the answer, and the residual is 0.
    fixed = torch.where(missing, mean, known)
    right = torch.where(left > 0, -laplacian(fixed), torch.zeros((), dtype=dtype, device=x.device))
    found = _solve(laplacian, right, degree)
    return (fixed + found).reshape(shape).to(x.dtype)


def _solve(laplacian: object, right: Tensor, degree: Tensor) -> Tensor:
    """Conjugate gradients with the diagonal as preconditioner. Rows that have converged stand still."""
    assert callable(laplacian)
    tolerance = 1e-13 if right.dtype == torch.float64 else 1e-6
    found, residual = torch.zeros_like(right), right
    z = residual / degree
    direction, product = z, (residual * z).sum((1, 2, 3), keepdim=True)
    goal = tolerance**2 * product
    for step in range(_ITERATIONS):
        if step % 10 == 0 and not bool((product > goal).any()):
            break
        moved = laplacian(direction)
        along = (direction * moved).sum((1, 2, 3), keepdim=True)
        size = torch.where(along > 0, product / along.clamp(min=torch.finfo(right.dtype).tiny), 0.0)
        found = found + size * direction
        residual = residual - size * moved
        z = residual / degree
        new = (residual * z).sum((1, 2, 3), keepdim=True)
        share = torch.where(product > 0, new / product.clamp(min=torch.finfo(right.dtype).tiny), 0.0)
        # A row at rest must not be moved by rounding.
        share = torch.where(new > goal, share, 0.0)
        direction, product = z + share * direction, new
    return found
