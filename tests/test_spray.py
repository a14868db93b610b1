"""SpRAy finds an artefact that was planted, and says that nothing stands out where none was."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import relprop
import relprop.data
from relprop.data.outlying import outlying
from relprop.errors import InputError

pytest.importorskip("zarr")
pytest.importorskip("sklearn")

CLASSES, EACH, MARKED = 10, 200, 4
Runs = Callable[[float], tuple[relprop.data.DatasetRun, Tensor]]


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


def samples(
    share: float, each: int = EACH, classes: Sequence[int] = range(CLASSES), seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Noisy patterns of each class, and which of them have the mark."""
    chance = torch.Generator().manual_seed(seed)
    count = len(classes) * each
    x = patterns()[list(classes)].repeat_interleave(each, 0) * (0.6 + 0.8 * torch.rand(count, 1, 1, generator=chance))
    x = x + 0.7 * torch.randn(x.shape, generator=chance)
    marked = torch.zeros(count, dtype=torch.bool)
    first = list(classes).index(MARKED) * each
    marked[first : first + round(share * each)] = True
    x[marked] += 2 * watermark()
    return x[:, None], marked


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A run with a share of marked samples, made once, and which samples are marked."""

    @functools.cache
    def made(share: float) -> tuple[relprop.data.DatasetRun, Tensor]:
        x, marked = samples(share)
        target = [n // EACH for n in range(len(x))]
        settings = {"target": target, "composite": "epsilon", "batch_size": 500, "progress": False}
        folder = tmp_path_factory.mktemp("runs") / "maps"
        return relprop.explain_dataset(x, Patterns(share > 0).eval(), folder, **settings), marked

    return made


def test_a_mark_on_five_percent_of_a_class_is_found(runs: Runs) -> None:
    found, marked = runs(0.05)
    first, *others = found.spray()
    assert first.target == MARKED and len(others) == CLASSES - 1
    assert first.stands_out and not any(other.stands_out for other in others)
    assert found.spray().verdict.startswith(
        f"Class {MARKED} stands out: its split is clearer than those of the other 9"
    )
    keys = np.array([bool(marked[int(key)]) for key in first.keys])
    best = max(
        2 * (keys & (first.clusters == c)).sum() / (keys.sum() + (first.clusters == c).sum())
        for c in range(len(first.sizes))
    )
    assert best >= 0.95
    assert sum(first.sizes) == EACH == len(first.clusters)
    smallest = int(np.argmin(first.sizes))
    assert all(marked[int(key)] for key in first.central[smallest])


def test_a_mark_on_half_of_a_class_splits_it(runs: Runs) -> None:
    from sklearn.metrics import adjusted_rand_score

    found, marked = runs(0.5)
    first = found.spray()[0]
    assert first.target == MARKED
    assert adjusted_rand_score([bool(marked[int(key)]) for key in first.keys], first.clusters) >= 0.9


def test_without_a_mark_nothing_stands_out(runs: Runs) -> None:
    found, _ = runs(0.0)
    ranked = found.spray()
    assert len(ranked) == CLASSES
    assert max(one.silhouette for one in ranked) < 0.1
    assert not ranked.standing_out and ranked.verdict.startswith(
        "Nothing stands out: no split of 10 classes is clearer"
    )
    assert str(ranked).splitlines()[-1] == ranked.verdict
    assert [row[6] for row in ranked.rows()] == ["no"] * CLASSES


ROSNER = """-0.25 0.68 0.94 1.15 1.20 1.26 1.26 1.34 1.38 1.43 1.49 1.49 1.55 1.56 1.58 1.65 1.69 1.70 1.76 1.77 1.81
1.91 1.94 1.96 1.99 2.06 2.09 2.10 2.14 2.15 2.23 2.24 2.26 2.35 2.37 2.40 2.47 2.54 2.62 2.64 2.90 2.92 2.92 2.93 3.21 3.26
3.30 3.59 3.68 4.30 4.64 5.34 5.42 6.01"""
"""The example of Rosner (1983). The largest number by itself is not too large: it hides behind the two after it."""


def test_several_that_lie_outside_do_not_hide_each_other() -> None:
    values = [float(value) for value in ROSNER.split()]
    assert np.flatnonzero(outlying(values, 0.025)).tolist() == [51, 52, 53]
    assert not outlying([-value for value in values], 0.025).any()  # small ones do not count
    assert not outlying(values[:-3], 0.025).any()


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 9.0], [2.0] * 12, [0.0, 0.0, 0.1, 9.0]])
def test_nothing_lies_outside_where_nothing_can_be_told(values: list[float]) -> None:
    assert not outlying(values).any() and len(outlying(values)) == len(values)


@pytest.mark.parametrize("count", [6, 10, 100])
def test_numbers_of_one_kind_seldom_lie_outside(count: int) -> None:
    chance = np.random.default_rng(0)
    found = sum(outlying(chance.normal(size=count), 0.05).any() for _ in range(2000)) / 2000
    assert 0.03 < found < 0.07  # 0.05, with a standard error of 0.005


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


def test_prototypes_find_it_too(tmp_path: Path) -> None:
    x, marked = samples(0.05, 2000, [MARKED])
    settings = {"target": MARKED, "composite": "epsilon", "batch_size": 500, "progress": False}
    found = relprop.explain_dataset(x, Patterns(True).eval(), tmp_path / "maps", keep={"input": "sum:14"}, **settings)
    (first,) = found.spray(by="target", prototypes=200, neighbours=5)
    assert 150 < first.prototypes <= 200 and len(first.clusters) == 2000
    keys = np.array([bool(marked[int(key)]) for key in first.keys])
    smallest = int(np.argmin(first.sizes))
    mine = first.clusters == smallest
    assert 2 * (keys & mine).sum() / (keys.sum() + mine.sum()) >= 0.95
    assert all(marked[int(key)] for key in first.central[smallest])


def test_prototypes_are_used_above_the_limit_alone(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = runs(0.0)
    by = [0 if n < 100 else 1 for n in range(CLASSES * EACH)]
    by[300:] = [2 + n for n in range(CLASSES * EACH - 300)]
    monkeypatch.setattr("relprop.data.spray.EXACT", 150)
    monkeypatch.setattr("relprop.data.spray._PROTOTYPES", 50)
    assert {one.target: one.prototypes is None for one in found.spray(by=by)} == {0: True, 1: False}


def test_classes_layers_views_and_noise(tmp_path: Path) -> None:
    x, marked = samples(0.05)
    model = nn.Sequential(nn.Identity(), Patterns(True)).eval()
    some = slice(MARKED * EACH - 100, MARKED * EACH + 200)
    target = [n // EACH for n in range(len(x))][some]
    found = relprop.explain_dataset(
        x[some], model, tmp_path / "maps", target=target, composite="epsilon", batch_size=100, progress=False,
        keep={"input": "sum:14", "0": positions},
    )  # fmt: skip
    keys = found.keys()
    by = {key: "marked" if marked[some][int(key)] else "other" for key in keys}
    assert [one.target for one in found.spray(by=by)] == ["other"]  # ten are too few for a class of their own
    assert len(found.spray(by=[0] * len(keys))[0].keys) == len(keys)
    a, b = found.spray(by="target")[0], found.spray(by="target", on="0", method="hdbscan", view="tsne")[0]
    assert a.target == b.target == MARKED and a.view is None
    assert b.view.shape == (EACH, 2) and np.isfinite(b.view).all()
    assert (b.clusters >= -1).all() and sum(b.sizes) == (b.clusters >= 0).sum()
    inside = [
        bool(marked[some][int(key)])
        for key, cluster in zip(b.keys, b.clusters, strict=True)
        if cluster == b.clusters.max()
    ]
    assert len(set(b.clusters[[bool(marked[some][int(key)]) for key in b.keys]])) == 1 or all(inside)


def positions(relevance: Tensor) -> Tensor:
    return relevance.flatten(1)[:, ::2]


def test_the_table_and_the_page(tmp_path: Path, runs: Runs) -> None:
    found, _ = runs(0.05)
    spray = found.spray()
    assert repr(spray).splitlines()[1].startswith(f"{MARKED} | {EACH} | ")
    frame = pytest.importorskip("pandas") and spray.to_pandas()
    assert frame["class"].tolist() == [one.target for one in spray] and frame["samples"].tolist() == [EACH] * CLASSES
    x, _ = samples(0.05)
    spray.save(tmp_path / "spray.html", source=x, most=2)
    page = (tmp_path / "spray.html").read_text()
    assert "<script" not in page and "http" not in page.replace("http://www.w3.org", "").replace("http-equiv", "")
    assert f"Class {MARKED} stands out" in page and "8 further classes" in page
    assert page.count("<figcaption>") == sum(2 * [1]) + sum(len(c) + 1 for one in spray[:2] for c in one.central)
    with pytest.raises(InputError, match="not the one of this run"):
        spray.save(tmp_path / "spray.html", source=x[:1])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"by": "colour"}, "by is 'predicted', 'target'"),
        ({"by": {}}, "by= has no class for '0'"),
        ({"by": [1]}, "1 classes, and 10 samples"),
        ({"method": "dbscan"}, "method is kmeans or hdbscan"),
        ({"view": "pca"}, "view is tsne, umap or None"),
        ({"prototypes": 5, "neighbours": 3}, "prototypes=5 are too few"),
        ({"prototypes": True}, "prototypes is an int"),
    ],
)
def test_arguments_that_do_not_fit(tmp_path: Path, settings: dict[str, object], said: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 2)).eval()
    found = relprop.explain_dataset(torch.randn(10, 1, 3, 3), model, tmp_path / "few", batch_size=8, progress=False)
    with pytest.raises(InputError, match=said):
        found.spray(**settings)


@pytest.mark.parametrize("small", [1, 2, 30])
def test_the_silhouette_is_that_of_the_definition(small: int) -> None:
    from sklearn.metrics import silhouette_score

    from relprop.data.clustering import cosine_silhouette

    points = np.random.default_rng(0).standard_normal((90, 7)) + 1
    points[:small, 2] += 5
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    halves = (np.arange(90) >= small).astype(int)
    assert cosine_silhouette(points, halves) == pytest.approx(
        silhouette_score(points, halves, metric="cosine"), abs=1e-12
    )
