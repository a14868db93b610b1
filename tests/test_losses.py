"""Losses are written out, and relevance passes each by its definition."""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import relprop
from helpers import D
from relprop.errors import UnsupportedOperationError

torch.manual_seed(0)
X, T = torch.randn(3, 4, dtype=D), torch.randn(3, 4, dtype=D)
P, Q = X.sigmoid(), T.sigmoid()
SIGN, IDS = T.sign(), torch.tensor([2, 0, 3])
W, V = torch.rand(4, dtype=D), torch.rand(3, 4, dtype=D) + 0.5


def relevance(f: Callable[[Tensor], Tensor], x: Tensor = X, composite: Any = "zero") -> Tensor:
    found = relprop.attribute(f, x, lambda y: y.sum(), composite=composite)
    with torch.no_grad():
        assert torch.equal(found.output, f(x))
    return found.values


# A loss without its mean, and what each entry receives of it.
ENTRIES: dict[str, tuple[Callable[..., Tensor], Callable[[Tensor], Tensor]]] = {
    "mse": (lambda x, **k: F.mse_loss(x, T, **k), lambda x: x * (x - T)),
    "l1": (lambda x, **k: F.l1_loss(x, T, **k), lambda x: x * (x - T).sign()),
    "smooth l1": (
        lambda x, **k: F.smooth_l1_loss(x, T, beta=0.7, **k),
        lambda x: x / (x - T) * F.smooth_l1_loss(x, T, beta=0.7, reduction="none"),
    ),
    "huber": (
        lambda x, **k: F.huber_loss(x, T, delta=0.7, **k),
        lambda x: x / (x - T) * F.huber_loss(x, T, delta=0.7, reduction="none"),
    ),
    "of logits": (
        lambda x, **k: F.binary_cross_entropy_with_logits(x, Q, W, pos_weight=V, **k),
        lambda x: W * ((1 - Q) * x + (1 + (V - 1) * Q) * (F.softplus(-x) - log(2))),
    ),
    "kl": (lambda x, **k: F.kl_div(x, Q, **k), lambda x: -Q * x),
    "kl of logarithms": (lambda x, **k: F.kl_div(x, T, log_target=True, **k), lambda x: -T.exp() * x),
    "hinge": (
        lambda x, **k: F.hinge_embedding_loss(x, SIGN, 0.4, **k),
        lambda x: torch.where(SIGN == 1, x, torch.where(x < 0.4, -x, 0 * x)),
    ),
    "ranking": (
        lambda x, **k: F.margin_ranking_loss(x, T, SIGN, 0.3, **k),
        lambda x: torch.where(-SIGN * (x - T) + 0.3 > 0, -SIGN * x, 0 * x),
    ),
    "soft margin": (lambda x, **k: F.soft_margin_loss(x, SIGN, **k), lambda x: F.softplus(-SIGN * x) - log(2)),
    "poisson": (lambda x, **k: F.poisson_nll_loss(x, Q * 3, full=True, **k), lambda x: x.exp() - 1 - 3 * Q * x),
    "gaussian": (lambda x, **k: F.gaussian_nll_loss(x, T, V, **k), lambda x: x * (x - T) / V / 2),
}


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.parametrize("name", ENTRIES)
def test_each_entry_gets_its_part(name: str) -> None:
    loss, expected = ENTRIES[name]
    torch.testing.assert_close(relevance(lambda x: loss(x, reduction="none")), expected(X))
    torch.testing.assert_close(relevance(lambda x: loss(x, reduction="sum")), expected(X))
    if name != "gaussian":
        torch.testing.assert_close(relevance(lambda x: loss(x)), expected(X) / X.numel())


def gradient(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(f(x).sum(), x)
    return x.detach() * g


SOFT = T.softmax(1)
KEEPING = {
    "classes": lambda x, **k: F.cross_entropy(x, IDS, **k),
    "weighed": lambda x, **k: F.cross_entropy(x, IDS, W, **k),
    "smoothed": lambda x, **k: F.cross_entropy(x, IDS, W, label_smoothing=0.2, **k),
    "ignored": lambda x, **k: F.cross_entropy(x, IDS, W, ignore_index=3, label_smoothing=0.1, **k),
    "probabilities": lambda x, **k: F.cross_entropy(x, SOFT, W, label_smoothing=0.1, **k),
    "logarithms": lambda x, **k: F.nll_loss(x, IDS, W, **k),
    "several margins": lambda x, **k: F.multi_margin_loss(x, IDS, margin=0.6, weight=W, **k),
    "triplets": lambda x, **k: F.triplet_margin_loss(x, T, P, margin=3.0, **k),
    "swapped": lambda x, **k: F.triplet_margin_loss(T, x, P, margin=3.0, swap=True, **k),
    "distance": lambda x, **k: F.triplet_margin_with_distance_loss(
        x, T, P, distance_function=lambda a, b: (a - b).norm(dim=1), margin=3.0, **k
    ),
}


PLACES = torch.tensor([[1, 0], [0, 0], [1, 1]])
CLASSES = torch.tensor([0.3, 1.7], dtype=D)
KEEPING |= {  # of one sample, and of classes at each place of a picture
    "one sample": lambda x, **k: F.cross_entropy(x[1], IDS[2], W, label_smoothing=0.2, **k),
    "one sample, ignored": lambda x, **k: F.cross_entropy(torch.cat([x[1], x[2]]), IDS[1], ignore_index=3, **k),
    "one sample, probabilities": lambda x, **k: F.cross_entropy(x[1], SOFT[0], W, **k),
    "one sample, logarithms": lambda x, **k: F.nll_loss(x[1], IDS[2], W, **k),
    "one sample, several margins": lambda x, **k: F.multi_margin_loss(x[1], IDS[2], margin=0.6, weight=W, **k),
    "places": lambda x, **k: F.cross_entropy(x.reshape(3, 2, 2), PLACES, CLASSES, label_smoothing=0.2, **k),
    "places, ignored": lambda x, **k: F.cross_entropy(x.reshape(3, 2, 2), PLACES, CLASSES, ignore_index=0, **k),
    "places, probabilities": lambda x, **k: F.cross_entropy(x.reshape(3, 2, 2), SOFT.reshape(3, 2, 2), CLASSES, **k),
    "places, logarithms": lambda x, **k: F.nll_loss(x.reshape(3, 2, 2), PLACES, CLASSES, ignore_index=1, **k),
    "pictures": lambda x, **k: F.cross_entropy(x.reshape(3, 2, 2, 1), PLACES[..., None], CLASSES, **k),
}


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("name", KEEPING)
def test_steps_whose_gradient_is_exact(name: str, reduction: str) -> None:
    """Logarithms of a softmax, lengths, relus and sums pass by their gradient."""
    f = lambda x: KEEPING[name](x, reduction=reduction)  # noqa: E731
    torch.testing.assert_close(relevance(f), gradient(f, X))


def test_probabilities() -> None:
    """A logarithm is not finite at 0 and passes by its gradient; `log(1 - p)` is 0 there, and takes the secant."""
    found = relevance(lambda p: F.binary_cross_entropy(p, Q, reduction="none"), P)
    torch.testing.assert_close(found, -Q - (1 - Q) * torch.log1p(-P))


def test_labels_by_the_dozen() -> None:
    found = relevance(lambda x: F.multilabel_soft_margin_loss(x, Q, W, reduction="none"))
    torch.testing.assert_close(found, -W * (Q * (F.logsigmoid(X) + log(2)) + (1 - Q) * (F.logsigmoid(-X) + log(2))) / 4)


def test_cosines_share_by_halves() -> None:
    found = relprop.attribute(
        lambda a, b: F.cosine_embedding_loss(a, b, torch.ones(3), reduction="none"), (X, T), composite="zero"
    )
    for values in found.values:
        torch.testing.assert_close(values.sum(1), -F.cosine_similarity(X, T) / 2)


@pytest.mark.parametrize("old", [{"size_average": False}, {"reduce": False}, {"size_average": True, "reduce": True}])
@pytest.mark.filterwarnings("ignore:size_average and reduce")
def test_arguments_of_old(old: dict[str, bool]) -> None:
    torch.testing.assert_close(
        relevance(lambda x: F.mse_loss(x, T, **old)),
        X * (X - T) / (X.numel() if old.get("size_average") else 1),
    )


def test_both_sides_of_a_difference() -> None:
    found = relprop.attribute(lambda a, b: F.mse_loss(a, b, reduction="none").sum(1), (X, T), composite="zero")
    torch.testing.assert_close(sum(v.sum(1) for v in found.values), found.score)


def test_losses_beneath_the_public_ones() -> None:
    """What torch calls inside, by their own arguments."""
    pairs: list[tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = [
        (lambda x: torch.margin_ranking_loss(x, T, SIGN, 0.3, 2), lambda x: F.margin_ranking_loss(x, T, SIGN, 0.3, reduction="sum")),
        (lambda x: torch.hinge_embedding_loss(x, SIGN, 0.4, 0), lambda x: F.hinge_embedding_loss(x, SIGN, 0.4, reduction="none")),
        (lambda x: torch.kl_div(x, Q, 1), lambda x: F.kl_div(x, Q, reduction="batchmean") * 3 / 12),
        (lambda x: torch.poisson_nll_loss(x, Q, True, False, 1e-8, 2), lambda x: F.poisson_nll_loss(x, Q, reduction="sum")),
        (lambda x: torch.triplet_margin_loss(x, T, P, 3.0, 2, 1e-6, True, 0), lambda x: F.triplet_margin_loss(x, T, P, 3.0, swap=True, reduction="none")),
        (lambda x: torch.binary_cross_entropy_with_logits(x, Q, W, V, 1), lambda x: F.binary_cross_entropy_with_logits(x, Q, W, pos_weight=V)),
        (lambda x: torch.cosine_embedding_loss(x, T, SIGN[:, 0], 0.1, 0), lambda x: F.cosine_embedding_loss(x, T, SIGN[:, 0], 0.1, reduction="none")),
    ]  # fmt: skip
    for beneath, public in pairs:
        torch.testing.assert_close(relevance(beneath), relevance(public))


def test_a_loss_that_is_no_sum_of_known_steps() -> None:
    with pytest.raises(UnsupportedOperationError, match="attribute the score it is computed from"):
        relprop.attribute(lambda x: F.multilabel_margin_loss(x, IDS[None].expand(3, 3), reduction="none"), X)
    with pytest.raises(UnsupportedOperationError, match="attribute the score it is computed from"):
        lengths = torch.full((1,), 3), torch.full((1,), 2)
        relprop.attribute(lambda x: F.ctc_loss(x[:, None].log_softmax(-1), IDS[None, :2], *lengths), X, lambda y: y)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_a_cumulative_logsumexp_has_its_own_jacobian(dim: int) -> None:
    """Its second argument is an axis, not a number that a score meets."""
    x = torch.randn(3, 4, dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(leaf.logcumsumexp(dim).sum(), leaf)
    for composite in ("zero", "cp_lrp", "epsilon_plus"):
        found = relprop.attribute(lambda x: x.logcumsumexp(dim), x, lambda y: y.sum(), composite=composite)
        torch.testing.assert_close(found.values, x * g)
