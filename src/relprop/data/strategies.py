"""What SpRAy says about each class, and the table of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from relprop.data.outlying import FEWEST, LEVEL, outlying
from relprop.rendering.scale import number

COLUMNS = (
    "class", "samples", "second eigenvalue", "clusters", "silhouette", "distance", "stands out", "sizes", "most central",
)  # fmt: skip


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
        stands_out: whether `silhouette` is too large to belong to those of the other classes, by `outlying`.
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
    stands_out: bool = False

    def row(self) -> tuple[Any, ...]:
        """Its line of the table, in the order of `COLUMNS`."""
        central = "; ".join(", ".join(keys) for keys in self.central)
        return (
            self.target, len(self.keys), self.eigenvalue, len(self.sizes), self.silhouette, self.distance,
            "yes" if self.stands_out else "no", ", ".join(map(str, self.sizes)), central,
        )  # fmt: skip


def table(classes: Sequence[Strategies]) -> list[tuple[str, ...]]:
    """The table as text, a row for each class, in the order of `COLUMNS`."""
    return [tuple(number(cell) if isinstance(cell, float) else str(cell) for cell in one.row()) for one in classes]


def compared(classes: Sequence[Strategies]) -> list[Strategies]:
    """The same classes, the clearest split first, each with how it compares with the others."""
    ranked = sorted(classes, key=lambda one: (-one.silhouette, one.eigenvalue))
    found = []
    for one, outside in zip(ranked, outlying([one.silhouette for one in ranked]), strict=True):
        others = np.array([other.silhouette for other in ranked if other is not one])
        far = (one.silhouette - others.mean()) / others.std() if len(others) > 1 and others.std() else float("nan")
        found.append(replace(one, distance=float(far), stands_out=bool(outside)))
    return found


def verdict(classes: Sequence[Strategies]) -> str:
    """Whether a class stands out, in a sentence."""
    if len(classes) < FEWEST:
        return f"With fewer than {FEWEST} classes there is too little to compare the splits with."
    names = [str(one.target) for one in classes if one.stands_out]
    of = f"of {len(classes)} classes"
    if not names:
        return f"Nothing stands out: no split {of} is clearer than the others by more than chance ({LEVEL:.0%}) allows."
    what = (
        f"Class {names[0]} stands out: its split is"
        if len(names) == 1
        else f"Classes {', '.join(names)} stand out: their splits are"
    )
    return f"{what} clearer than those of the other {len(classes) - len(names)} classes by more than chance ({LEVEL:.0%}) allows."
