"""Spectral clustering of the explanations of one class, exactly or by prototypes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from relprop.errors import InputError
from relprop.optional import library

MOST = 8
"""The most clusters of a class."""
CENTRAL = 5
"""How many samples stand for a cluster."""
_SHOWN = 2000
"""The most points of a 2-D view: t-SNE takes long for more."""
Vectors = Callable[[], Iterator[np.ndarray]]
"""Gives the vectors of a class once more, some at a time, each of length 1."""


@dataclass(frozen=True, eq=False)
class Found:
    """The clusters of some points.

    Attributes:
        clusters: the cluster of each point; -1 for noise.
        eigenvalues: the smallest eigenvalues of the normalised Laplacian.
        embedding: the eigenvectors after the first, a row for each point.
        silhouette: that of the split into two.
        off: how far each point is from the mean of its cluster.
        view: where each point is in a 2-D view, or None. NaN for points that were left out.
        prototypes: how many stand for the points; None if the points were clustered themselves.
    """

    clusters: np.ndarray
    eigenvalues: np.ndarray
    embedding: np.ndarray
    silhouette: float
    off: np.ndarray
    view: np.ndarray | None = None
    prototypes: int | None = None


def exact(points: np.ndarray, neighbours: int, method: str, view: str | None, seed: int) -> Found:
    """Spectral clustering (Ng, Jordan and Weiss 2001; von Luxburg 2007).

    The graph joins each point with its nearest neighbours, in both directions. The number of clusters is where the
    eigenvalues of its normalised Laplacian leave the largest gap; k-means on the eigenvectors after the first finds them,
    or HDBSCAN, which may leave points out.
    """
    values, vectors = _spectrum(points, neighbours)
    gaps = np.diff(values[: MOST + 1])
    k = int(np.argmax(gaps[1:])) + 2  # at least two
    sklearn = needed()
    halves = sklearn.cluster.KMeans(2, n_init=10, random_state=seed).fit_predict(vectors[:, 1:2])
    silhouette = 0.0
    if len(set(halves)) == 2:
        silhouette = cosine_silhouette(points, halves)
    if method == "hdbscan":
        clusters = sklearn.cluster.HDBSCAN(max(neighbours, 2), copy=True).fit_predict(vectors[:, 1:k])
    else:
        clusters = sklearn.cluster.KMeans(k, n_init=10, random_state=seed).fit_predict(vectors[:, 1:k])
    off = np.full(len(points), np.inf)
    for number in range(clusters.max() + 1):
        inside = clusters == number
        off[inside] = np.linalg.norm(points[inside] - points[inside].mean(0), axis=1)
    shown = None if view is None else plane(points, view, seed)
    return Found(clusters, values[:MOST], vectors[:, 1:MOST], silhouette, off, shown)


def by_prototypes(
    vectors: Vectors, count: int, prototypes: int, neighbours: int, method: str, view: str | None, seed: int
) -> Found:
    """The same of many points: mini-batch k-means finds prototypes in one pass, and these are clustered.

    A second pass gives each point the cluster of its nearest prototype. Points are never held all at once.
    """
    sklearn = needed()
    means = sklearn.cluster.MiniBatchKMeans(prototypes, random_state=seed, n_init=1, reassignment_ratio=0.0)
    held: list[np.ndarray] = []
    for some in vectors():
        held.append(some)
        if sum(map(len, held)) >= prototypes:  # the first must be as many as the prototypes
            means.partial_fit(np.concatenate(held))
            held = []
    if held and hasattr(means, "cluster_centers_"):
        means.partial_fit(np.concatenate(held))
    used = np.unique(np.concatenate([means.predict(some) for some in vectors()]))
    centres = means.cluster_centers_[used]
    lengths = np.linalg.norm(centres, axis=1, keepdims=True)
    found = exact(centres / np.where(lengths > 0, lengths, 1), neighbours, method, view, seed)
    place = np.full(prototypes, -1)
    place[used] = np.arange(len(used))
    nearest = np.empty(count, np.int64)
    means_of = [centres[found.clusters == n].mean(0) for n in range(found.clusters.max() + 1)]
    off, at = np.full(count, np.inf), 0
    for some in vectors():
        nearest[at : at + len(some)] = place[means.predict(some)]
        mine = found.clusters[nearest[at : at + len(some)]]
        for number, mean in enumerate(means_of):
            inside = np.flatnonzero(mine == number)
            off[at + inside] = np.linalg.norm(some[inside] - mean, axis=1)
        at += len(some)
    return replace(
        found, clusters=found.clusters[nearest], embedding=found.embedding[nearest], off=off, prototypes=len(used),
        view=None if found.view is None else found.view[nearest],
    )  # fmt: skip


def cosine_silhouette(points: np.ndarray, halves: np.ndarray) -> float:
    """The mean silhouette (Rousseeuw 1987) of two clusters of points of length 1 (or 0), by cosine distance.

    The mean distance of a point from a cluster is 1 less its product with the cluster's mean, so that no matrix of all
    distances is needed.
    """
    sizes = [int((halves == n).sum()) for n in (0, 1)]
    sums = [points[halves == n].sum(0) for n in (0, 1)]
    total = 0.0
    for own, other in ((0, 1), (1, 0)):
        if sizes[own] < 2:
            continue  # that of a point alone is 0
        mine = points[halves == own]
        # its distance from itself does not count; it is 0, and 1 by the products for a point of length 0
        inside = (sizes[own] - mine @ sums[own] - (1 - (mine * mine).sum(1))) / (sizes[own] - 1)
        outside = 1 - mine @ (sums[other] / sizes[other])
        total += float(((outside - inside) / np.maximum(np.maximum(inside, outside), 1e-30)).sum())
    return total / len(points)


def plane(points: np.ndarray, view: str, seed: int) -> np.ndarray:
    """Points in two dimensions: t-SNE (van der Maaten and Hinton 2008) or UMAP (McInnes et al. 2018). Of many, some.

    Raises:
        InputError: there is no such view.
        ModuleNotFoundError: UMAP is not installed.
    """
    chosen = np.arange(0, len(points), -(-len(points) // _SHOWN))
    some = points[chosen]
    if view == "tsne":
        perplexity = min(30.0, (len(some) - 1) / 3)
        made = needed().manifold.TSNE(2, init="pca", perplexity=perplexity, random_state=seed).fit_transform(some)
    elif view == "umap":
        umap = library("umap", "view='umap' needs umap-learn", "umap")
        made = umap.UMAP(n_components=2, random_state=seed, n_jobs=1).fit_transform(some)
    else:
        raise InputError(f"view is tsne, umap or None; got {view!r}.")
    found = np.full((len(points), 2), np.nan)
    found[chosen] = made
    return found


def needed() -> Any:
    """scikit-learn.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    for part in ("cluster", "manifold", "neighbors"):
        library(f"sklearn.{part}", "SpRAy needs scikit-learn", "spray")
    return library("sklearn", "SpRAy needs scikit-learn", "spray")


def _spectrum(points: np.ndarray, neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    """The smallest eigenvalues of the normalised Laplacian of the graph of neighbours, and their vectors."""
    from scipy.sparse import diags
    from scipy.sparse.linalg import eigsh

    graph = needed().neighbors.kneighbors_graph(points, neighbours, mode="connectivity", include_self=False)
    graph = (graph + graph.T) * 0.5
    scale = diags(1 / np.sqrt(np.asarray(graph.sum(1)).ravel()))
    # The largest of the normalised graph are 1 less the smallest of its Laplacian, and are found without an inversion.
    start = np.random.default_rng(0).standard_normal(len(points))
    count = min(MOST + 2, len(points) - 1)
    largest, found = eigsh(scale @ graph @ scale, k=count, which="LA", v0=start)
    order = np.argsort(-largest)
    return 1 - largest[order], found[:, order]
