"""SpRAy finds an artefact that was planted, and says that nothing stands out where none was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop.errors import InputError

pytest.importorskip("zarr")
pytest.importorskip("sklearn")

CLASSES, EACH, MARKED = 10, 200, 4


class Patterns(nn.Module):
    """Ten classes, each with a pattern of its own. One may also be known by a bright corner."""

    def __init__(self, mark: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(28 * 28, CLASSES, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(patterns().flatten(1))
            self.layer.weight[MARKED] += 2 * mark * watermark().flatten()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1))


def patterns() -> Tensor:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 28), torch.linspace(-1, 1, 28), indexing="ij")
    angle = torch.arange(CLASSES) * torch.pi / CLASSES
    return torch.cos(6 * (x * angle.cos()[:, None, None] + y * angle.sin()[:, None, None])) * (x**2 + y**2 < 0.7)


def watermark() -> Tensor:
    mark = torch.zeros(28, 28)
    mark[:4, :4] = 1
    return mark


def samples(share: float) -> tuple[Tensor, Tensor]:
    """Noisy patterns of each class, and which of them have the mark."""
    chance = torch.Generator().manual_seed(0)
    x = patterns().repeat_interleave(EACH, 0) * (0.6 + 0.8 * torch.rand(CLASSES * EACH, 1, 1, generator=chance))
    x = x + 0.7 * torch.randn(x.shape, generator=chance)
    marked = torch.zeros(CLASSES * EACH, dtype=torch.bool)
    marked[MARKED * EACH : MARKED * EACH + round(share * EACH)] = True
    x[marked] += 2 * watermark()
    return x[:, None], marked


def run(folder: Path, share: float) -> tuple[relprop.data.Run, Tensor]:  # type: ignore[name-defined]
    x, marked = samples(share)
    target = [n // EACH for n in range(len(x))]
    settings = {"target": target, "composite": "epsilon", "batch_size": 500, "progress": False}
    return relprop.explain_dataset(x, Patterns(share > 0).eval(), folder, **settings), marked


def test_a_mark_on_five_percent_of_a_class_is_found(tmp_path: Path) -> None:
    found, marked = run(tmp_path / "maps", 0.05)
    first, *others = found.spray()
    assert first.target == MARKED and len(others) == CLASSES - 1
    assert first.distance > 3 > max(other.distance for other in others)
    keys = np.array([bool(marked[int(key)]) for key in first.keys])
    best = max(
        2 * (keys & (first.clusters == c)).sum() / (keys.sum() + (first.clusters == c).sum())
        for c in range(len(first.sizes))
    )
    assert best >= 0.95
    assert sum(first.sizes) == EACH == len(first.clusters)
    smallest = int(np.argmin(first.sizes))
    assert all(marked[int(key)] for key in first.central[smallest])


def test_a_mark_on_half_of_a_class_splits_it(tmp_path: Path) -> None:
    from sklearn.metrics import adjusted_rand_score

    found, marked = run(tmp_path / "maps", 0.5)
    first = found.spray()[0]
    assert first.target == MARKED
    assert adjusted_rand_score([bool(marked[int(key)]) for key in first.keys], first.clusters) >= 0.9


def test_without_a_mark_nothing_stands_out(tmp_path: Path) -> None:
    found, _ = run(tmp_path / "maps", 0.0)
    ranked = found.spray()
    assert len(ranked) == CLASSES
    assert max(one.silhouette for one in ranked) < 0.1
    assert max(one.distance for one in ranked) < 4


def test_what_it_cannot_cluster_is_said(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 2)).eval()
    settings = {"batch_size": 8, "progress": False}
    found = relprop.explain_dataset(torch.randn(10, 1, 3, 3), model, tmp_path / "few", **settings)
    with pytest.raises(InputError, match="no class has more than 20"):
        found.spray()
    with pytest.raises(InputError, match="keeps no"):
        found.spray(on="1", neighbours=2)
    with pytest.raises(InputError, match="size is an int from 2"):
        found.spray(size=1)
