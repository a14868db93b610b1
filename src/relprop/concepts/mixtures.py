"""Mixtures of Gaussians, fitted by expectation maximisation. Index letters: n sample, k component, u unit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SHRINKAGE = 0.1
"""How far each covariance is moved towards a multiple of the identity with the same trace (Ledoit and Wolf 2004)."""
_STEPS, _TOLERANCE = 200, 1e-6


@dataclass(frozen=True)
class Mixture:
    """A mixture of Gaussians.

    Attributes:
        weights: (K,), which sum to 1.
        means: (K, U).
        factors: (K, U, U): lower triangles L with the covariances L L^T.
    """

    weights: Tensor
    means: Tensor
    factors: Tensor

    def components(self, x: Tensor) -> Tensor:
        """The log of each component's weight times its density, (N, K), for x (N, U)."""
        moved = (x[:, None] - self.means).movedim(0, 2)  # (K, U, N)
        solved = torch.linalg.solve_triangular(self.factors, moved, upper=False)
        logs = self.factors.diagonal(dim1=1, dim2=2).log().sum(1)
        size = x.shape[1]
        density = -0.5 * (solved.square().sum(1) + size * math.log(2 * math.pi)) - logs[:, None]
        return density.T + self.weights.log()

    def log_likelihood(self, x: Tensor) -> Tensor:
        """The log of the density at each sample, (N,)."""
        return self.components(x).logsumexp(1)

    def covariances(self) -> Tensor:
        """The covariances, (K, U, U)."""
        return self.factors @ self.factors.mT


def fit(x: Tensor, count: int, seed: int = 0, shrinkage: float = SHRINKAGE) -> tuple[Mixture, list[float]]:
    """Fits a mixture of `count` Gaussians to x, (N, U), in float64.

    Returns:
        The mixture, and the mean log-likelihood after each step.
    """
    generator = torch.Generator().manual_seed(seed)
    near = _nearest(x, _centres(x, count, generator))
    parts = torch.nn.functional.one_hot(near, count).to(x)
    history: list[float] = []
    for _ in range(_STEPS):
        mixture = _maximised(x, parts, shrinkage)
        logs = mixture.components(x)
        whole = logs.logsumexp(1)
        history.append(float(whole.mean()))
        if len(history) > 1 and abs(history[-1] - history[-2]) <= _TOLERANCE * max(1.0, abs(history[-1])):
            break
        parts = (logs - whole[:, None]).exp()
    return mixture, history


def _maximised(x: Tensor, parts: Tensor, shrinkage: float) -> Mixture:
    """The mixture that is likeliest, given how much of each sample, (N, K), belongs to each component."""
    amounts = parts.sum(0).clamp(min=1e-10)
    means = (parts.T @ x) / amounts[:, None]
    floor = 1e-6 * float(x.var(0, correction=0).mean()) + 1e-12
    factors = []
    eye = torch.eye(x.shape[1], dtype=x.dtype)
    for k in range(len(amounts)):
        moved = x - means[k]
        covariance = (moved * parts[:, k : k + 1]).T @ moved / amounts[k]
        size = float(covariance.diagonal().mean())
        covariance = (1 - shrinkage) * covariance + (shrinkage * size + floor) * eye
        factors.append(torch.linalg.cholesky(covariance))
    return Mixture(amounts / amounts.sum(), means, torch.stack(factors))


def _centres(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Centres that lie apart (k-means++, Arthur and Vassilvitskii 2007), after some steps of k-means."""
    chosen = [int(torch.randint(len(x), (1,), generator=generator))]
    for _ in range(count - 1):
        distance = torch.cdist(x, x[chosen]).square().min(1).values
        chosen.append(
            int(torch.multinomial(distance, 1, generator=generator)) if float(distance.sum()) > 0 else chosen[0]
        )
    centres = x[chosen].clone()
    for _ in range(20):
        near = _nearest(x, centres)
        moved = torch.stack([x[near == k].mean(0) if bool((near == k).any()) else centres[k] for k in range(count)])
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres


def _nearest(x: Tensor, centres: Tensor) -> Tensor:
    return torch.cdist(x, centres).argmin(1)
