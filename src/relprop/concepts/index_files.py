"""The folder of an index: safetensors and JSON, read without trust."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from relprop.concepts.tops import Tops
from relprop.errors import FormatError
from relprop.results.files import atomic, read_tensors
from relprop.results.files.bounded import strict_json
from relprop.version import versions

MANIFEST, TENSORS = "index.json", "index.safetensors"
EACH = ("vectors", "activations", "classes", "predicted")
"""What is kept of each sample, if asked for."""
LIMIT = 8 * 2**30
"""The largest file of tensors that is read, in bytes."""


@dataclass(frozen=True)
class IndexedLayer:
    """What is known of the units of one layer.

    Attributes:
        relevance: the samples with the most relevance of each unit, for the class of the sample (RelMax).
        activation: the samples with most activation (ActMax).
        seen: (K,), int64: the classes of which there are samples, ascending.
        class_sum: (K, U): for each of them the sum over its samples of the unit's share in the sizes of relevance.
        class_count: (K,): the number of samples.
        shape: what the layer gives for one sample; for samples of different sizes, of the first.
        axis: the axis of the units in it.
        vectors: (N, U), float16: the relevance of each unit in each sample, if asked for; likewise what follows.
        activations: (N, U), float16: the mean activation over positions.
        classes: (N,), int32: the class that was explained.
        predicted: (N,), int32: the class that the model predicts.
    """

    relevance: Tops
    activation: Tops
    seen: Tensor
    class_sum: Tensor
    class_count: Tensor
    shape: tuple[int, ...]
    axis: int
    vectors: Tensor | None = None
    activations: Tensor | None = None
    classes: Tensor | None = None
    predicted: Tensor | None = None

    @property
    def per_class(self) -> Tensor:
        """The mean share of each unit in each class, (C, U); 0 for classes without samples."""
        every = self.class_sum.new_zeros(int(self.seen.max()) + 1 if len(self.seen) else 0, self.class_sum.shape[1])
        return every.index_copy(0, self.seen, self.shares)

    @property
    def shares(self) -> Tensor:
        """The mean share of each unit in each class of which there are samples, (K, U)."""
        return self.class_sum / self.class_count[:, None]

    def adding(self, classes: Tensor, sums: Tensor, counts: Tensor) -> dict[str, Any]:
        """The fields of classes with more sums (N, U) and counts (N,) of classes (N,), which may occur several times."""
        seen = torch.cat([self.seen, classes]).unique()
        before, now = torch.searchsorted(seen, self.seen), torch.searchsorted(seen, classes)
        total = sums.new_zeros(len(seen), sums.shape[1]).index_add(0, before, self.class_sum).index_add(0, now, sums)
        count = counts.new_zeros(len(seen)).index_add(0, before, self.class_count).index_add(0, now, counts)
        return {"seen": seen, "class_sum": total, "class_count": count}


def write(layers: dict[str, IndexedLayer], about: dict[str, Any], folder: str | PathLike[str]) -> None:
    """Writes the folder, whole or not at all."""
    from safetensors.torch import save

    parts: dict[str, Tensor] = {}
    shapes = {}
    for n, (path, layer) in enumerate(layers.items()):
        shapes[path] = {"shape": list(layer.shape), "axis": layer.axis}
        for name, tensor in _parts(layer).items():
            parts[f"{n}.{name}"] = tensor.contiguous()
    stored = save(parts)
    manifest = {
        "format": "relprop-index",
        "format_version": 1,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": versions(),
        "about": about,
        "layers": shapes,
        "tensors_sha256": hashlib.sha256(stored).hexdigest(),
    }
    with atomic.folder(Path(folder), MANIFEST) as place:
        atomic.write(place / TENSORS, stored)
        atomic.write(place / MANIFEST, json.dumps(manifest, indent=1).encode())


def read(folder: str | PathLike[str]) -> tuple[dict[str, IndexedLayer], dict[str, Any]]:
    """The layers of an index, and how it was made.

    Raises:
        FormatError: the folder is missing, damaged or of another format.
    """
    place = atomic.whole(Path(folder), MANIFEST)
    try:
        manifest = strict_json((place / MANIFEST).read_bytes())
        return _restored(manifest, *read_tensors.read(place / TENSORS, LIMIT))
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{str(folder)!r} is not an index that can be read: {error}.") from error


def _parts(layer: IndexedLayer) -> dict[str, Tensor]:
    """The tensors of a layer by name."""
    found = {
        f"{by}.{name}": getattr(getattr(layer, by), name)
        for by in ("relevance", "activation")
        for name in ("values", "samples", "positions")
    }
    found |= {"seen": layer.seen, "class_sum": layer.class_sum, "class_count": layer.class_count}
    return found | {name: kept for name in EACH if (kept := getattr(layer, name)) is not None}


def _restored(manifest: Any, found: dict[str, Tensor], digest: str) -> tuple[dict[str, IndexedLayer], dict[str, Any]]:
    """Rebuilds an index from the content of a folder, which may come from anyone."""
    if (
        not isinstance(manifest, dict)
        or manifest.get("format") != "relprop-index"
        or manifest.get("format_version") != 1
    ):
        raise ValueError("it is not an index of this version")
    if manifest["tensors_sha256"] != digest:
        raise ValueError(f"{TENSORS} is not the one that was written with this manifest")
    about = manifest["about"]
    if not _sound(about):
        raise ValueError("it does not say how it was made")
    layers: dict[str, IndexedLayer] = {}
    for n, (path, made) in enumerate(manifest["layers"].items()):
        shape, axis = tuple(made["shape"]), made["axis"]
        if not all(type(i) is int and i > 0 for i in shape) or type(axis) is not int or not 0 <= axis < len(shape):
            raise ValueError(f"layer {str(path)[:40]!r} has no shape")
        take: Callable[[str], Tensor] = lambda name, n=n: found.pop(f"{n}.{name}")  # type: ignore[misc]  # noqa: E731
        tops = [
            Tops(take(f"{by}.values"), take(f"{by}.samples"), take(f"{by}.positions"))
            for by in ("relevance", "activation")
        ]
        layer = IndexedLayer(
            tops[0], tops[1], take("seen"), take("class_sum"), take("class_count"), shape, axis,
            **{name: found.pop(f"{n}.{name}", None) for name in EACH},
        )  # fmt: skip
        _check(layer, shape[axis], str(path)[:40])
        layers[path] = layer
    if found:
        raise ValueError(f"{len(found)} of its tensors are not used")
    return layers, about


def _sound(about: Any) -> bool:
    if not isinstance(about, dict) or not {"weights_sha256", "data", "settings", "rows", "model", "labels"} <= set(
        about
    ):
        return False
    rows = about["rows"]
    return (
        isinstance(about["settings"], dict)
        and isinstance(rows, list)
        and all(
            isinstance(r, list) and len(r) == 2 and all(type(i) is int for i in r) and 0 <= r[0] < r[1] for r in rows
        )
    )


def _check(layer: IndexedLayer, units: int, path: str) -> None:
    for tops in (layer.relevance, layer.activation):
        shape = tops.values.shape
        good = (
            len(shape) == 2 and shape[0] == units and tops.samples.shape == shape and tops.positions.shape == shape
            and tops.values.dtype == torch.float32 and tops.samples.dtype == tops.positions.dtype == torch.int32
        )  # fmt: skip
        if not good:
            raise ValueError(f"the references of layer {path!r} do not fit its units")
    count = len(layer.class_count) if layer.class_count.ndim == 1 else -1
    ascending = layer.seen.shape == (count,) and layer.seen.dtype == torch.int64 and bool((layer.seen.diff() > 0).all())
    if layer.class_sum.shape != (count, units) or not ascending or bool((layer.seen[:1] < 0).any()):
        raise ValueError(f"the classes of layer {path!r} do not fit its units")
    each = [(name, kept) for name in EACH if (kept := getattr(layer, name)) is not None]
    for name, kept in each:
        size = (len(each[0][1]), units) if name in ("vectors", "activations") else (len(each[0][1]),)
        if tuple(kept.shape) != size:
            raise ValueError(f"the {name} of layer {path!r} do not fit its units")
