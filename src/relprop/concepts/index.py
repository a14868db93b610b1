"""An index of what hidden units stand for: the samples in which each had most relevance, and most activation."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from relprop.concepts.tops import Tops
from relprop.errors import FormatError, InputError
from relprop.results.files import atomic, tensors
from relprop.results.files.bounded import strict_json
from relprop.results.files.fingerprint import weights_sha256
from relprop.signatures import public
from relprop.version import versions

MANIFEST, TENSORS = "index.json", "index.safetensors"
LIMIT = 8 * 2**30
"""The largest file of tensors that is read, in bytes."""


@dataclass(frozen=True)
class Layer:
    """What is known of the units of one layer.

    Attributes:
        relevance: the samples with most relevance of each unit, for the class of the sample (RelMax).
        activation: the samples with most activation (ActMax).
        class_sum: (C, U): for each class the sum over its samples of the unit's share in the sizes of relevance.
        class_count: (C,): the number of samples.
        shape: what the layer gives for one sample; for samples of different sizes, of the first.
        axis: the axis of the units in it.
        vectors: (N, U), float16: the relevance of each unit in each sample, if asked for.
    """

    relevance: Tops
    activation: Tops
    class_sum: Tensor
    class_count: Tensor
    shape: tuple[int, ...]
    axis: int
    vectors: Tensor | None = None

    @property
    def per_class(self) -> Tensor:
        """The mean share of each unit in each class, (C, U); 0 for classes without samples."""
        return self.class_sum / self.class_count.clamp(min=1)[:, None]


@dataclass(frozen=True)
class Reference:
    """A sample that shows what a unit stands for.

    Attributes:
        sample: its number in the data set.
        value: the relevance or activation of the unit in it.
        position: where in the layer's output, one number per axis beside that of units.
    """

    sample: int
    value: float
    position: tuple[int, ...]


@dataclass(frozen=True)
class UnitIndex:
    """What an index knows of one unit.

    Attributes:
        index: the index.
        layer: the path of the layer.
        unit: its number.
    """

    index: Index
    layer: str
    unit: int

    def references(self, by: str = "relevance", most: int | None = None) -> list[Reference]:
        """The samples with most relevance, or by="activation", the largest first."""
        if by not in ("relevance", "activation"):
            raise InputError(f"by must be 'relevance' or 'activation'; got {by!r}.")
        of = self.index.layers[self.layer]
        tops: Tops = getattr(of, by)
        places = tuple(n for axis, n in enumerate(of.shape) if axis != of.axis)
        found = []
        for value, sample, position in zip(
            tops.values[self.unit].tolist(),
            tops.samples[self.unit].tolist(),
            tops.positions[self.unit].tolist(),
            strict=True,
        ):
            if sample >= 0:
                found.append(Reference(sample, value, _unraveled(position, places)))
        return found[:most]

    def classes(self, most: int = 5) -> list[tuple[int, float]]:
        """The classes in which the unit has the largest mean share of relevance."""
        column = self.index.layers[self.layer].per_class[:, self.unit]
        best = column.argsort(descending=True, stable=True)[:most]
        return [(int(c), float(column[c])) for c in best if float(column[c]) != 0]

    def pictures(self, by: str = "relevance", most: int = 6) -> Any:
        """A drawing of its references, each cut to where the unit looked. The index must know model and data."""
        from relprop.concepts.page import references

        return references(self, by, most)

    def show(self, by: str = "relevance", most: int = 6) -> None:
        """Opens a picture of its references."""
        self.pictures(by, most).to_image(2.0).show()


def _unraveled(position: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    found: list[int] = []
    for size in reversed(shape):
        position, i = divmod(position, size)
        found.append(i)
    return tuple(reversed(found))


@dataclass(frozen=True)
class Index:
    """What hidden units stand for. Made by `relprop.index`.

    Attributes:
        layers: what is known of each layer, by its path.
        about: how it was made: the model and its weights, the data, the composite, the rows done.
        model: the model, if it is at hand.
        dataset: the data, if it is at hand.
    """

    layers: dict[str, Layer]
    about: dict[str, Any]
    model: Any = field(default=None, repr=False, compare=False)
    dataset: Any = field(default=None, repr=False, compare=False)

    def __getitem__(self, key: tuple[str, int]) -> UnitIndex:
        """One unit, `index["blocks.14", 42]`.

        Raises:
            InputError: the index has no such layer or unit.
        """
        if not isinstance(key, tuple) or len(key) != 2:
            raise InputError(f"units of an index are index['layer', number]; got {key!r}.")
        layer, unit = key
        if layer not in self.layers:
            raise InputError(f"the index has no layer {layer!r}. It has: {', '.join(self.layers)}.")
        count = len(self.layers[layer].relevance.values)
        if not isinstance(unit, int) or isinstance(unit, bool) or not -count <= unit < count:
            raise InputError(f"there is no unit {unit!r} in {layer!r}, which has {count}, 0 to {count - 1}.")
        return UnitIndex(self, layer, unit % count)

    @property
    def samples(self) -> int:
        """How many samples it has seen."""
        return sum(stop - start for start, stop in self.about["rows"])

    def of_class(self, label: int, layer: str, most: int = 10) -> list[tuple[int, float]]:
        """The units of a layer with the largest mean share of relevance in a class.

        Raises:
            InputError: there is no such layer, or no sample of the class.
        """
        if layer not in self.layers:
            raise InputError(f"the index has no layer {layer!r}. It has: {', '.join(self.layers)}.")
        of = self.layers[layer]
        if not isinstance(label, int) or not 0 <= label < len(of.class_count) or not int(of.class_count[label]):
            raise InputError(f"the index has seen no sample of class {label!r}.")
        row = of.per_class[label]
        best = row.argsort(descending=True, stable=True)[:most]
        return [(int(u), float(row[u])) for u in best]

    def __or__(self, other: Any) -> Index:
        """The index of two disjoint parts of the data: exactly that of their union.

        Raises:
            InputError: they were made differently, or have samples in common.
        """
        if not isinstance(other, Index):
            raise InputError(f"| joins two indexes; got {type(other).__name__}.")
        for name in ("weights_sha256", "data", "settings"):
            if self.about[name] != other.about[name]:
                raise InputError(f"the indexes differ in {_NAMED[name]}, so they cannot be joined.")
        rows = sorted([*self.about["rows"], *other.about["rows"]])
        if any(a[1] > b[0] for a, b in itertools.pairwise(rows)):
            raise InputError("the indexes have samples in common; parts that are joined must be disjoint.")
        numbers = [
            n for about in (self.about, other.about) for start, stop in about["rows"] for n in range(start, stop)
        ]
        order = torch.tensor(numbers).argsort()
        layers = {path: _joined(one, other.layers[path], order) for path, one in self.layers.items()}
        return replace(self, layers=layers, about={**self.about, "rows": _runs(rows)})

    @public(".save")
    def save(self, folder: str | PathLike[str]) -> None:
        """Writes a folder with safetensors and JSON."""
        from safetensors.torch import save

        parts: dict[str, Tensor] = {}
        shapes = {}
        for n, (path, layer) in enumerate(self.layers.items()):
            shapes[path] = {"shape": list(layer.shape), "axis": layer.axis}
            for name, tensor in _parts(layer).items():
                parts[f"{n}.{name}"] = tensor.contiguous()
        stored = save(parts)
        manifest = {
            "format": "relprop-index",
            "format_version": 1,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "versions": versions(),
            "about": self.about,
            "layers": shapes,
            "tensors_sha256": hashlib.sha256(stored).hexdigest(),
        }
        with atomic.folder(Path(folder), MANIFEST) as place:
            atomic.write(place / TENSORS, stored)
            atomic.write(place / MANIFEST, json.dumps(manifest, indent=1).encode())

    @public(".attach")
    def attach(self, model: Any, dataset: Any = None) -> Index:
        """The index with its model and data at hand, for pictures.

        Raises:
            InputError: the model has other weights, or the data are others.
        """
        if weights_sha256(model) != self.about["weights_sha256"]:
            raise InputError("the index was made of a model with other weights.")
        if dataset is not None and fingerprint(dataset) != self.about["data"]:
            raise InputError("the index was made of other data.")
        return replace(self, model=model, dataset=dataset)

    def concepts_of(self, result: Any, layer: str | None = None, most: int = 4, references: int = 4) -> Any:
        """The page of concepts of one explanation; see `Relevance.concepts`."""
        from relprop.concepts.page import concepts

        return concepts(self, result, layer, most, references)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{path} ({len(layer.relevance.values)} units)" for path, layer in self.layers.items())
        return f"Index of {sizes} over {self.samples} samples; {self.about['settings']['composite']}"


_NAMED = {"weights_sha256": "the weights of their model", "data": "their data", "settings": "how they were made"}


def _runs(rows: list[list[int]]) -> list[list[int]]:
    """Ranges in order, with those that touch joined."""
    found: list[list[int]] = []
    for start, stop in rows:
        if found and found[-1][1] == start:
            found[-1] = [found[-1][0], stop]
        else:
            found.append([start, stop])
    return found


def _joined(one: Layer, other: Layer, order: Tensor) -> Layer:
    vectors = None if one.vectors is None or other.vectors is None else torch.cat([one.vectors, other.vectors])[order]
    count = max(len(one.class_count), len(other.class_count))

    def padded(t: Tensor) -> Tensor:
        return torch.cat([t, t.new_zeros(count - len(t), *t.shape[1:])])

    return replace(
        one,
        relevance=one.relevance.merge(other.relevance),
        activation=one.activation.merge(other.activation),
        class_sum=padded(one.class_sum) + padded(other.class_sum),
        class_count=padded(one.class_count) + padded(other.class_count),
        vectors=vectors,
    )


def _parts(layer: Layer) -> dict[str, Tensor]:
    """The tensors of a layer by name."""
    found = {
        f"{by}.{name}": getattr(getattr(layer, by), name)
        for by in ("relevance", "activation")
        for name in ("values", "samples", "positions")
    }
    found |= {"class_sum": layer.class_sum, "class_count": layer.class_count}
    return found if layer.vectors is None else {**found, "vectors": layer.vectors}


def fingerprint(dataset: Any) -> str:
    """A hash of the length of the data and of some samples."""
    digest = hashlib.sha256(str(len(dataset)).encode())
    count = len(dataset)
    for n in sorted({0, count // 3, 2 * count // 3, count - 1}):
        sample = dataset[n]
        for part in sample if isinstance(sample, (tuple, list)) else [sample]:
            if isinstance(part, Tensor):
                digest.update(f"{part.dtype}{tuple(part.shape)}".encode())
                digest.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
            else:
                digest.update(repr(part).encode())
    return digest.hexdigest()


@public("relprop.load_index")
def load_index(folder: str | PathLike[str], model: Any = None, dataset: Any = None) -> Index:
    """Reads an index from a folder.

    Args:
        folder: the folder that `Index.save` or `relprop.index(folder=)` wrote.
        model: its model, for pictures. Other weights are refused.
        dataset: its data, likewise.

    Raises:
        FormatError: the folder is missing, damaged or of another format.
        InputError: model or data are others.
    """
    place = atomic.whole(Path(folder), MANIFEST)
    try:
        manifest = strict_json((place / MANIFEST).read_bytes())
        found, digest = tensors.read(place / TENSORS, LIMIT)
        made = _restored(manifest, found, digest)
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise FormatError(f"{str(folder)!r} is no index that can be read: {error}.") from error
    return made if model is None else made.attach(model, dataset)


def _restored(manifest: Any, found: dict[str, Tensor], digest: str) -> Index:
    """Rebuilds an index from the content of a folder, which may come from anyone."""
    if (
        not isinstance(manifest, dict)
        or manifest.get("format") != "relprop-index"
        or manifest.get("format_version") != 1
    ):
        raise ValueError("it is no index of this version")
    if manifest["tensors_sha256"] != digest:
        raise ValueError(f"{TENSORS} is not the one that was written with this manifest")
    about = manifest["about"]
    if not _sound(about):
        raise ValueError("it does not say how it was made")
    layers: dict[str, Layer] = {}
    for n, (path, made) in enumerate(manifest["layers"].items()):
        shape, axis = tuple(made["shape"]), made["axis"]
        if not all(type(i) is int and i > 0 for i in shape) or type(axis) is not int or not 0 <= axis < len(shape):
            raise ValueError(f"layer {str(path)[:40]!r} has no shape")
        take: Callable[[str], Tensor] = lambda name, n=n: found.pop(f"{n}.{name}")  # type: ignore[misc]  # noqa: E731
        tops = [
            Tops(take(f"{by}.values"), take(f"{by}.samples"), take(f"{by}.positions"))
            for by in ("relevance", "activation")
        ]
        layer = Layer(
            tops[0], tops[1], take("class_sum"), take("class_count"), shape, axis, found.pop(f"{n}.vectors", None)
        )
        _check(layer, shape[axis], str(path)[:40])
        layers[path] = layer
    if found:
        raise ValueError(f"{len(found)} of its tensors are not used")
    return Index(layers, about)


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


def _check(layer: Layer, units: int, path: str) -> None:
    for tops in (layer.relevance, layer.activation):
        shape = tops.values.shape
        good = (
            len(shape) == 2 and shape[0] == units and tops.samples.shape == shape and tops.positions.shape == shape
            and tops.values.dtype == torch.float32 and tops.samples.dtype == tops.positions.dtype == torch.int32
        )  # fmt: skip
        if not good:
            raise ValueError(f"the references of layer {path!r} do not fit its units")
    if layer.class_sum.shape != (len(layer.class_count), units) or layer.class_count.ndim != 1:
        raise ValueError(f"the classes of layer {path!r} do not fit its units")
    if layer.vectors is not None and (layer.vectors.ndim != 2 or layer.vectors.shape[1] != units):
        raise ValueError(f"the vectors of layer {path!r} do not fit its units")
