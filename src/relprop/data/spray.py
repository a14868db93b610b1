"""SpRAy: clusters of explanations of one class, which show by what strategies a network decides (Lapuschkin et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from relprop.data.keep import decode, of_input
from relprop.data.store import EXPLAINED, Store
from relprop.errors import InputError

CENTRAL = 5
"""How many samples stand for a cluster."""
_MOST = 8
"""The most clusters of a class."""
_EXACT = 50_000
"""The most samples of a class: the nearest neighbours are found exactly."""


@dataclass(frozen=True, eq=False)
class Strategies:
    """How the explanations of one class fall apart.

    Attributes:
        target: the class.
        keys: its samples.
        clusters: the number of the cluster of each.
        sizes: how many samples each cluster has.
        central: the keys of the samples nearest to the middle of each cluster.
        eigenvalue: the second eigenvalue of the graph of neighbours: 0 if it falls apart without a cut.
        silhouette: that of the first split, into two.
        distance: how far `silhouette` is from those of the other classes, in standard deviations of theirs; NaN with
            fewer than three classes.
    """

    target: int
    keys: Sequence[str]
    clusters: np.ndarray
    sizes: list[int]
    central: list[list[str]]
    eigenvalue: float
    silhouette: float
    distance: float = float("nan")


def spray(
    store: Store, table: np.ndarray, rows: np.ndarray, on: str | None, size: int, neighbours: int, seed: int
) -> list[Strategies]:
    """The strategies of each class, those that fall apart most clearly first.

    Args:
        store: where the maps are.
        table: the table of the run.
        rows: the row of each of its samples in the store.
        on: a layer, or None for the maps.
        size: blocks along each axis.
        neighbours: how many each sample is joined with.
        seed: where k-means starts.

    Raises:
        InputError: the run keeps no such array, an argument is not valid, or no class has enough samples.
        ModuleNotFoundError: scikit-learn is not installed.
    """
    for name, value in (("size", size), ("neighbours", neighbours)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 2:
            raise InputError(f"{name} is an int from 2 on; got {value!r}.")
    found = []
    for target in np.unique(table["target"][table["status"] == EXPLAINED]):
        chosen = np.flatnonzero((table["status"] == EXPLAINED) & (table["target"] == target))
        if len(chosen) <= 2 * neighbours:
            continue
        if len(chosen) > _EXACT:
            raise InputError(
                f"class {target} has {len(chosen)} samples, more than the {_EXACT} whose neighbours are found exactly."
            )
        keys = [str(key) for key in table["key"][chosen]]
        found.append(of_class(int(target), keys, vectors(store, rows[chosen], on, size), neighbours, seed))
    if not found:
        raise InputError(
            f"no class has more than {2 * neighbours} samples, twice the neighbours: explain more, or ask for fewer."
        )
    ranked = sorted(found, key=lambda one: (-one.silhouette, one.eigenvalue))
    return [_compared(one, ranked) for one in ranked]


def vectors(store: Store, rows: np.ndarray, on: str | None, size: int) -> np.ndarray:
    """One vector of length 1 for each sample: the sums of `size` x `size` blocks of its map, or a layer's vector."""
    name = "maps" if on is None else f"layers.{on}"
    specs = {spec.name: spec for spec in store.specs}
    if name not in specs:
        raise InputError(f"the run keeps no {name!r}: see keep= of explain_dataset.")
    array = store.array(name)
    scales = store.array(f"{name}.scale")[:] if f"{name}.scale" in specs else None
    parts = []
    for start in range(0, len(rows), 512):
        some = rows[start : start + 512]
        stored = array.oindex[some]
        part = decode(stored, None if scales is None else scales[some], store.about["number_format"])
        if on is None and part.ndim >= 3:
            part = part[:, None] if part.ndim == 3 else part
            part = of_input(torch.from_numpy(part), f"sum:{min(size, *part.shape[2:])}").numpy()
        parts.append(part.reshape(len(some), -1))
    found = np.concatenate(parts).astype(np.float64)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    return found / np.where(lengths > 0, lengths, 1)


def of_class(target: int, keys: Sequence[str], points: np.ndarray, neighbours: int, seed: int) -> Strategies:
    """Spectral clustering of one class (Ng, Jordan and Weiss 2001; von Luxburg 2007).

    The graph joins each sample with its nearest neighbours, in both directions. The number of clusters is where the
    eigenvalues of its normalised Laplacian leave the largest gap; k-means on the eigenvectors after the first finds them.
    """
    values, eigenvectors = _spectrum(points, neighbours)
    gaps = np.diff(values[: _MOST + 1])
    k = int(np.argmax(gaps[1:])) + 2  # at least two
    library = _library()
    halves = library.cluster.KMeans(2, n_init=10, random_state=seed).fit_predict(eigenvectors[:, 1:2])
    silhouette = (
        float(library.metrics.silhouette_score(points, halves, metric="cosine")) if len(set(halves)) == 2 else 0.0
    )
    clusters = library.cluster.KMeans(k, n_init=10, random_state=seed).fit_predict(eigenvectors[:, 1:k])
    central = []
    for number in range(k):
        inside = np.flatnonzero(clusters == number)
        off = np.linalg.norm(points[inside] - points[inside].mean(0), axis=1)
        central.append([keys[n] for n in inside[np.argsort(off, kind="stable")[:CENTRAL]]])
    sizes = np.bincount(clusters, minlength=k).tolist()
    return Strategies(target, keys, clusters, sizes, central, float(values[1]), silhouette)


def _spectrum(points: np.ndarray, neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    """The smallest eigenvalues of the normalised Laplacian of the graph of neighbours, and their vectors."""
    from scipy.sparse import diags
    from scipy.sparse.linalg import eigsh

    graph = _library().neighbors.kneighbors_graph(points, neighbours, mode="connectivity", include_self=False)
    graph = (graph + graph.T) * 0.5
    scale = diags(1 / np.sqrt(np.asarray(graph.sum(1)).ravel()))
    # The largest of the normalised graph are 1 less the smallest of its Laplacian, and are found without an inversion.
    start = np.random.default_rng(0).standard_normal(len(points))
    count = min(_MOST + 2, len(points) - 1)
    largest, found = eigsh(scale @ graph @ scale, k=count, which="LA", v0=start)
    order = np.argsort(-largest)
    return 1 - largest[order], found[:, order]


def _compared(one: Strategies, every: Sequence[Strategies]) -> Strategies:
    others = np.array([other.silhouette for other in every if other is not one])
    if len(others) < 2 or not others.std():
        return one
    distance = float((one.silhouette - others.mean()) / others.std())
    return Strategies(
        one.target, one.keys, one.clusters, one.sizes, one.central, one.eigenvalue, one.silhouette, distance
    )


def _library() -> Any:
    try:
        import sklearn
        import sklearn.cluster
        import sklearn.metrics
        import sklearn.neighbors
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("SpRAy needs scikit-learn: pip install 'relprop[spray]'", name=error.name) from error
    return sklearn
