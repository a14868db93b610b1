"""Prototypes: mixtures against closed forms, and outliers that were planted in the data of a trained network."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

import relprop
from relprop.concepts.mixtures import Mixture, fit
from relprop.errors import InputError


def test_the_density_is_that_of_a_mixture() -> None:
    torch.manual_seed(0)
    x, means = torch.randn(50, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    factors = torch.eye(3, dtype=torch.float64) + 0.3 * torch.randn(2, 3, 3, dtype=torch.float64).tril(-1)
    mixture = Mixture(torch.tensor([0.3, 0.7], dtype=torch.float64), means, factors)
    parts = [MultivariateNormal(means[k], scale_tril=factors[k]).log_prob(x) for k in range(2)]
    expected = torch.stack(
        [parts[0] + torch.tensor(0.3).double().log(), parts[1] + torch.tensor(0.7).double().log()], 1
    )
    torch.testing.assert_close(mixture.components(x), expected, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(mixture.log_likelihood(x), expected.logsumexp(1), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(mixture.covariances(), factors @ factors.mT)


def test_two_clouds_are_found() -> None:
    torch.manual_seed(1)
    x = torch.cat([torch.randn(300, 4) * 0.5 + 3, torch.randn(100, 4) - 3]).double()
    mixture, history = fit(x, 2, shrinkage=0.0)
    order = mixture.weights.argsort(descending=True)
    torch.testing.assert_close(mixture.weights[order], torch.tensor([0.75, 0.25]).double(), rtol=0, atol=1e-6)
    for k, cloud in zip(order.tolist(), (x[:300], x[300:]), strict=True):
        torch.testing.assert_close(mixture.means[k], cloud.mean(0), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(mixture.covariances()[k], torch.cov(cloud.T, correction=0), rtol=1e-3, atol=1e-4)
    assert all(b >= a - 1e-9 for a, b in itertools.pairwise(history))
    again, _ = fit(x, 2, shrinkage=0.0)
    assert torch.equal(again.means, mixture.means)


def test_overlapping_clouds_rise_step_by_step() -> None:
    torch.manual_seed(2)
    x = torch.cat([torch.randn(80, 3), torch.randn(80, 3) * 0.5 + 1.5, torch.randn(60, 3) @ torch.randn(3, 3)]).double()
    _, history = fit(x, 3, seed=4, shrinkage=0.0)
    assert len(history) > 3 and all(b >= a - 1e-6 for a, b in itertools.pairwise(history))


def test_fewer_samples_than_units() -> None:
    x = torch.randn(6, 20, dtype=torch.float64)
    mixture, _ = fit(torch.cat([x, x[:1]]), 2)
    assert bool(torch.isfinite(mixture.log_likelihood(x)).all())
    same, _ = fit(torch.ones(5, 3, dtype=torch.float64), 2)
    assert bool(torch.isfinite(same.log_likelihood(torch.ones(1, 3, dtype=torch.float64))).all())


SIZE = 14


def shapes(count: int, seed: int, marked: int = 0) -> list[tuple[Tensor, int]]:
    """Crosses, squares and bars in two sizes on noise; the first crosses have a checkered mark in a corner."""
    made = torch.Generator().manual_seed(seed)
    found = []
    for n in range(count):
        x, label = 0.3 * torch.rand(1, SIZE, SIZE, generator=made), n % 3
        a, b, size = (int(v) for v in torch.randint(3, 6, (3,), generator=made))
        if label == 0:
            x[0, a : a + size + 1, b + size // 2] = x[0, a + size // 2, b : b + size + 1] = 1
        elif label == 1:
            x[0, a : a + size, b : b + size] = 1
        else:
            x[0, a, 2 : 2 + 2 * size] = 1
        if label == 0 and n < 3 * marked:
            x[0, -4:, -4:] = (torch.arange(16).reshape(4, 4) + torch.arange(4)[:, None]) % 2
        found.append((x, label))
    return found


@pytest.fixture(scope="module")
def trained() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 12, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 16, 3), nn.ReLU(), nn.AdaptiveMaxPool2d(1),
        nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip
    x, y = (torch.stack([torch.as_tensor(item[n]) for item in shapes(600, 1)]) for n in (0, 1))
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    for step in range(120):
        rows = torch.arange(step * 60, step * 60 + 60) % 600
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
        optimiser.step()
    net.eval()
    assert float((net(x).argmax(1) == y).float().mean()) > 0.9
    return net


MARKED = 8


@pytest.fixture(scope="module")
def index(trained: nn.Sequential) -> Any:
    return relprop.index(trained, shapes(360, 2, MARKED), layers=["3"], keep=4, vectors=True, batch_size=90)


def auroc(scores: Tensor, positive: Tensor) -> float:
    """How often a positive has a larger score than a negative."""
    larger = scores[positive][:, None] - scores[~positive]
    return float((larger > 0).double().mean() + 0.5 * (larger == 0).double().mean())


@pytest.mark.parametrize("of", ["relevance", "activation"])
def test_planted_outliers_are_found(index: Any, of: str) -> None:
    P = relprop.prototypes(index, "3", count=3, of=of)
    layer = index.layers["3"]
    of_class = layer.classes == 0
    marked = torch.arange(360)[of_class] < 3 * MARKED
    assert int(marked.sum()) == MARKED
    assert auroc(-P.log_likelihoods()[of_class], marked) > 0.7
    strange = P.outliers(4, label=0)
    lowest = P.log_likelihoods().masked_fill(~of_class, torch.inf).argsort()[:4].tolist()
    assert [one.sample for one in strange] == lowest
    vector = layer.vectors if of == "relevance" else layer.activations
    share = vector[strange[0].sample].double()
    share = share / share.abs().sum()
    for one in strange[0].units:
        mean = P.mixtures[0].means[strange[0].prototype, one.unit]
        spread = P.mixtures[0].covariances()[strange[0].prototype, one.unit, one.unit].sqrt()
        assert one.share == pytest.approx(float(share[one.unit])) and one.usual == pytest.approx(float(mean))
        assert one.deviations == pytest.approx(float((share[one.unit] - mean) / spread))


def test_prototypes_of_a_class(index: Any, trained: nn.Sequential) -> None:
    P = relprop.prototypes(index, "3", count=3)
    some = P.of_class(1)
    assert sum(one.weight for one in some) == pytest.approx(1) and some[0].weight == max(one.weight for one in some)
    data = index.dataset
    assert all(data[n][1] == 1 for one in some for n in one.samples)
    x = torch.stack([data[n][0] for n in (0, 3, 100)])
    judged = P.judge(x, [0, 0, 1])
    torch.testing.assert_close(
        torch.tensor([one.log_likelihood for one in judged]).double(),
        P.log_likelihoods()[[0, 3, 100]],
        rtol=1e-2,
        atol=0.1,
    )
    assert [one.label for one in P.judge(x)] == trained(x).argmax(1).tolist()


def test_drawn_kept_and_joined(index: Any, trained: nn.Sequential, tmp_path: Path) -> None:
    data = shapes(360, 2, MARKED)
    index.save(tmp_path / "index")
    again = relprop.load_index(tmp_path / "index", trained, data)
    P = relprop.prototypes(again, "3")
    P.save(tmp_path / "p.svg", 0)
    assert "outlier" in (tmp_path / "p.svg").read_text()
    P.save(tmp_path / "p.png", 0)
    halves = [
        relprop.index(trained, data, layers=["3"], keep=4, vectors=True, batch_size=90, rows=rows)
        for rows in ((180, 360), (0, 180))
    ]
    joined = relprop.prototypes(halves[0] | halves[1], "3")
    torch.testing.assert_close(
        joined.mixtures[0].means, relprop.prototypes(index, "3").mixtures[0].means, rtol=1e-3, atol=1e-4
    )


def test_errors(index: Any, trained: nn.Sequential, tmp_path: Path) -> None:
    for given, says in (
        ({"layer": "5"}, "has no layer '5'"),
        ({"layer": "3", "of": "gradient"}, "of must be 'relevance' or 'activation'"),
        ({"layer": "3", "count": 0}, "count must be a positive int"),
    ):
        with pytest.raises(InputError, match=says):
            relprop.prototypes(index, **given)
    with pytest.raises(InputError, match="are made of an index"):
        relprop.prototypes(trained, "3")
    plain = relprop.index(trained, shapes(6, 3), layers=["3"], keep=2)
    with pytest.raises(InputError, match="keeps no vectors"):
        relprop.prototypes(plain, "3")
    P = relprop.prototypes(index, "3")
    with pytest.raises(InputError, match="there are no prototypes of class 7; there are of: 0, 1, 2"):
        P.of_class(7)
    with pytest.raises(InputError, match="prototypes are saved as"):
        P.save(tmp_path / "p.gif", 0)
    index.save(tmp_path / "index")
    alone = relprop.prototypes(relprop.load_index(tmp_path / "index"), "3")
    with pytest.raises(InputError, match="needs the model"):
        alone.judge(torch.rand(1, 1, SIZE, SIZE))
    with pytest.raises(InputError, match="pictures need the model and the data"):
        alone.drawing(0)
