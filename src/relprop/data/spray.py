"""SpRAy: clusters of explanations of one class, which show by what strategies a network decides (Lapuschkin et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from relprop.data.chunks import decoded
from relprop.data.clustering import CENTRAL, Found, by_prototypes, exact
from relprop.data.keep import of_input
from relprop.data.store import EXPLAINED, Store
from relprop.data.strategies import COLUMNS, Strategies, compared, table, verdict
from relprop.data.text_strategies import TOKENS, WORDS, text_vectors
from relprop.errors import InputError
from relprop.rendering.visible import visible

EXACT = 50_000
"""The most samples of a class whose nearest neighbours are found exactly."""
_PROTOTYPES = 4000
_ROWS = 2048
"""How many maps are read at once."""


class Spray(Sequence[Strategies]):
    """The strategies of each class: those that fall apart most clearly first.

    Attributes:
        store: the run.
        on: the layer that was clustered, or None for the maps.
    """

    def __init__(self, classes: Sequence[Strategies], store: Store, on: str | None) -> None:
        self.classes, self.store, self.on = list(classes), store, on

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, at: Any) -> Any:
        return self.classes[at]

    @property
    def standing_out(self) -> list[Strategies]:
        """The classes whose split is too clear to belong to those of the others; none in most runs."""
        return [one for one in self.classes if one.stands_out]

    @property
    def verdict(self) -> str:
        """Whether a class stands out, in a sentence."""
        return verdict(self.classes)

    def rows(self) -> list[tuple[str, ...]]:
        """The table as text, a row for each class, in the order of `COLUMNS`."""
        return table(self.classes)

    def to_pandas(self) -> Any:
        """The table as a data frame. Needs pandas."""
        import pandas

        return pandas.DataFrame([one.row() for one in self], columns=list(COLUMNS))

    def save(self, path: str | PathLike[str], *, most: int = 10, source: Any = None, transform: Any = None) -> None:
        """Writes a page without scripts: the table, and the clusters of the first classes with their maps.

        Args:
            path: the page.
            most: of how many classes the clusters are shown.
            source: the run's source, to show pictures beside the maps.
            transform: as it was given to the run.

        Raises:
            InputError: the run keeps no maps, or the source is another one.
        """
        from relprop.data.spray_page import page
        from relprop.results.files import atomic

        atomic.write(Path(path), page(self.store, self.classes, most, source, transform).encode())

    def __repr__(self) -> str:
        lines = [" | ".join(COLUMNS[:-1]), *(" | ".join(row[:-1]) for row in self.rows())]
        return "\n".join(visible(line) for line in [*lines, self.verdict])


@dataclass(frozen=True)
class SprayArguments:
    """The arguments of `DatasetRun.spray`."""

    by: Any
    on: str | None
    size: int
    neighbours: int
    method: str
    view: str | None
    prototypes: int | None
    seed: int
    which: int = 0


def spray(store: Store, keys: Sequence[str], rows: np.ndarray, asked: SprayArguments) -> Spray:
    """The strategies of each class.

    Args:
        store: where the maps are.
        keys: the samples that are done.
        rows: the row of each in the store.
        asked: what is asked for.

    Raises:
        InputError: the run keeps no such array, an argument is not valid, or no class has enough samples.
        ModuleNotFoundError: scikit-learn is not installed.
    """
    _check(asked)
    texts = any(spec.name == "tokens.id" for spec in store.specs) and asked.on in (None, WORDS, TOKENS)
    name = _array(store, None if texts else asked.on)
    which = _which(store, asked.which)
    groups = _groups(store, keys, rows, asked.by, which)
    good = store.read("status", slice(None))[rows] == EXPLAINED
    found = []
    for target in dict.fromkeys(sorted(groups[good].tolist())):
        chosen = np.flatnonzero(good & (groups == target))
        if len(chosen) <= 2 * asked.neighbours:
            continue
        vectors = (
            partial(text_vectors, store, rows[chosen], which or 0, asked.on or WORDS) if texts
            else partial(_vectors, store, name, rows[chosen], asked.size, which)
        )  # fmt: skip
        many = asked.prototypes or (_PROTOTYPES if len(chosen) > EXACT else None)
        rest = (asked.neighbours, asked.method, asked.view, asked.seed)
        if many is not None and many < len(chosen):
            clusters = by_prototypes(vectors, len(chosen), many, *rest)
        else:
            clusters = exact(np.concatenate(list(vectors())), *rest)
        found.append(_strategies(target, [keys[int(n)] for n in chosen], rows[chosen], clusters, which or 0))
    if not found:
        raise InputError(
            f"no class has more than {2 * asked.neighbours} samples, twice the neighbours: explain more, or ask for fewer."
        )
    return Spray(compared(found), store, asked.on)


def _check(asked: SprayArguments) -> None:
    for name in ("size", "neighbours", "prototypes"):
        value = getattr(asked, name)
        if name == "prototypes" and value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 2:
            raise InputError(f"{name} is an int from 2 on; got {value!r}.")
    if asked.prototypes is not None and asked.prototypes <= 2 * asked.neighbours:
        raise InputError(
            f"prototypes={asked.prototypes} are too few: more than twice the {asked.neighbours} neighbours."
        )
    if asked.method not in ("kmeans", "hdbscan"):
        raise InputError(f"method is kmeans or hdbscan; got {asked.method!r}.")
    if asked.view not in (None, "tsne", "umap"):
        raise InputError(f"view is tsne, umap or None; got {asked.view!r}.")


def _array(store: Store, on: str | None) -> str:
    name = "maps" if on is None else f"layers.{on}"
    if name not in {spec.name for spec in store.specs}:
        raise InputError(f"the run keeps no {name!r}: see keep= of explain_dataset.")
    return name


def _which(store: Store, which: int) -> int | None:
    """Which of several targets is meant; None if there is one."""
    count = store.about.get("targets")
    if isinstance(which, bool) or not isinstance(which, int) or not 0 <= which < (count or 1):
        raise InputError(f"which is the number of a target, 0 to {(count or 1) - 1}; got {which!r}.")
    return None if count is None else which


def _groups(store: Store, keys: Sequence[str], rows: np.ndarray, by: Any, which: int | None) -> np.ndarray:
    """The class of each sample."""
    if isinstance(by, str) and by == "target":
        found = store.read("target", slice(None))[rows]
        return found if which is None else found[:, which]
    if isinstance(by, str) and by == "predicted":
        if "top.index" not in {spec.name for spec in store.specs}:
            raise InputError("by='predicted' needs a network whose outputs are (N, classes): take by='target'.")
        return store.read("top.index", slice(None))[:, 0][rows]
    if isinstance(by, str) or not hasattr(by, "__len__"):
        raise InputError(f"by is 'predicted', 'target', a dict from keys to classes, or a list of them; got {by!r}.")
    if hasattr(by, "keys"):
        if missing := [key for key in keys if key not in by]:
            raise InputError(f"by= has no class for {missing[0]!r}.")
        return np.array([by[key] for key in keys])
    if len(by) != len(keys):
        raise InputError(f"by= has {len(by)} classes, and {len(keys)} samples are done.")
    return np.asarray(by)


def _vectors(store: Store, name: str, rows: np.ndarray, size: int, which: int | None) -> Iterator[np.ndarray]:
    """Vectors of length 1, one for each sample: the sums of `size` x `size` blocks of its map, or a layer's vector."""
    for start in range(0, len(rows), _ROWS):
        some = rows[start : start + _ROWS]
        part = decoded(store, name, some).astype(np.float32)
        part = part if which is None else part[:, which]
        if name == "maps" and part.ndim >= 3:
            part = part[:, None] if part.ndim == 3 else part
            part = of_input(torch.from_numpy(part), f"sum:{min(size, *part.shape[2:])}").numpy()
        found = part.reshape(len(some), -1).astype(np.float64)
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        yield found / np.where(lengths > 0, lengths, 1)


def _strategies(target: Any, keys: list[str], rows: np.ndarray, found: Found, which: int) -> Strategies:
    sizes, central = [], []
    for cluster in range(found.clusters.max() + 1):
        inside = np.flatnonzero(found.clusters == cluster)
        sizes.append(len(inside))
        central.append([keys[n] for n in inside[np.argsort(found.off[inside], kind="stable")[:CENTRAL]]])
    return Strategies(
        target, keys, rows, found.clusters, sizes, central, float(found.eigenvalues[1]), found.silhouette, float("nan"),
        found.eigenvalues, found.embedding, found.view, found.prototypes, which,
    )  # fmt: skip
