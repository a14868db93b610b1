"""What SpRAy says about each class, and the table of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from relprop.rendering.scale import number

COLUMNS = ("class", "samples", "second eigenvalue", "clusters", "silhouette", "distance", "sizes", "most central")


@dataclass(frozen=True, eq=False)
class Strategies:
    """How the explanations of one class fall apart.

    Attributes:
        target: the class.
        keys: its samples.
        rows: their rows in the run's arrays.
        clusters: the number of the cluster of each; -1 for what HDBSCAN calls noise.
        sizes: how many samples each cluster has.
        central: the keys of the samples nearest to the middle of each cluster.
        eigenvalue: the second eigenvalue of the graph of neighbours: 0 if it falls apart without a cut.
        silhouette: that of the first split, into two.
        distance: how far `silhouette` is from those of the other classes, in standard deviations of theirs; NaN with
            fewer than three classes.
        eigenvalues: the smallest eigenvalues.
        embedding: the eigenvectors after the first, a row for each sample.
        view: a point in the plane for each sample, if one was asked for.
        prototypes: how many points stood for the samples; None if each stood for itself.
        which: which of several targets was explained, from 0.
    """

    target: Any
    keys: Sequence[str]
    rows: np.ndarray
    clusters: np.ndarray
    sizes: list[int]
    central: list[list[str]]
    eigenvalue: float
    silhouette: float
    distance: float
    eigenvalues: np.ndarray
    embedding: np.ndarray
    view: np.ndarray | None = None
    prototypes: int | None = None
    which: int = 0

    def row(self) -> tuple[Any, ...]:
        """Its line of the table, in the order of `COLUMNS`."""
        central = "; ".join(", ".join(keys) for keys in self.central)
        return (
            self.target, len(self.keys), self.eigenvalue, len(self.sizes), self.silhouette, self.distance,
            ", ".join(map(str, self.sizes)), central,
        )  # fmt: skip


def table(classes: Sequence[Strategies]) -> list[tuple[str, ...]]:
    """The table as text, a row for each class, in the order of `COLUMNS`."""
    return [tuple(number(cell) if isinstance(cell, float) else str(cell) for cell in one.row()) for one in classes]
