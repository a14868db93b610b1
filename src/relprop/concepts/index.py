"""An index of what hidden units stand for: the samples in which each had the most relevance, and most activation."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from relprop.attribution.splices import Splices, splices_of
from relprop.concepts.index_files import EACH, IndexedLayer, read, write
from relprop.concepts.snippets import Snippet, check_tokenizer, snippets
from relprop.concepts.tops import Tops, place
from relprop.errors import InputError
from relprop.results.files.fingerprint import weights_sha256
from relprop.signatures import public


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
        """The samples with the most relevance, or by="activation", the largest first."""
        if by not in ("relevance", "activation"):
            raise InputError(f"by must be 'relevance' or 'activation'; got {by!r}.")
        of = self.index.layers[self.layer]
        tops: Tops = getattr(of, by)
        found = []
        for value, sample, position in zip(
            tops.values[self.unit].tolist(),
            tops.samples[self.unit].tolist(),
            tops.positions[self.unit].tolist(),
            strict=True,
        ):
            if sample >= 0:
                found.append(Reference(sample, value, place(position, len(of.shape) - 1)))
        return found[:most]

    def classes(self, most: int = 5) -> list[tuple[int, float]]:
        """The classes in which the unit has the largest mean share of relevance."""
        of = self.index.layers[self.layer]
        column = of.class_sum[:, self.unit] / of.class_count
        best = column.argsort(descending=True, stable=True)[:most]
        return [(int(of.seen[c]), float(column[c])) for c in best if float(column[c]) != 0]

    @public(".snippets")
    def snippets(self, by: str = "relevance", most: int = 6, *, around: int | None = None) -> list[Snippet]:
        """References in texts, sounds and series, each cut to where the unit looked, without near-duplicates.

        Args:
            by: "relevance" or "activation".
            most: how many.
            around: positions on each side of the one that counts. By default 6 for texts; for series the stretch that
                holds 80 % of the positive relevance through the unit.

        Raises:
            InputError: the index has no model and data at hand, or the samples are neither ids (T,), nor sounds (T,), nor
                series (C, T) or (T, C).
        """
        return snippets(self, by, most, around)

    def pictures(self, by: str = "relevance", most: int = 6) -> Any:
        """A drawing of its references, each cut to where the unit looked. The index must know model and data."""
        from relprop.concepts.reference_pages import references

        return references(self, by, most)

    def show(self, by: str = "relevance", most: int = 6) -> None:
        """Opens a picture of its references."""
        self.pictures(by, most).to_image(2.0).show()


@dataclass(frozen=True)
class Index:
    """What hidden units stand for. Made by `relprop.index`.

    Attributes:
        layers: what is known of each layer, by its path.
        about: how it was made: the model and its weights, the data, the composite, the rows done.
        model: the model, if it is at hand.
        dataset: the data, if it is at hand.
        splices: the splices of the model, by the paths of their layers.
        tokenizer: what gives the tokens of ids, if it is at hand.
        options: the composite, `select` and `forward_kwargs` with which the model is explained.
    """

    layers: dict[str, IndexedLayer]
    about: dict[str, Any]
    model: Any = field(default=None, repr=False, compare=False)
    dataset: Any = field(default=None, repr=False, compare=False)
    splices: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    tokenizer: Any = field(default=None, repr=False, compare=False)
    options: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

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
        if not isinstance(label, int) or not bool((of.seen == label).any()):
            raise InputError(f"the index has seen no sample of class {label!r}.")
        row = of.shares[of.seen == label][0]
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
        write(self.layers, self.about, folder)

    @public(".attach")
    def attach(
        self,
        model: Any,
        dataset: Any = None,
        *,
        tokenizer: Any = None,
        select: Any = None,
        forward_kwargs: dict[str, Any] | None = None,
        splices: Any = None,
    ) -> Index:
        """The index with its model and data at hand, for pictures and snippets. The arguments are those of `load_index`.

        Raises:
            InputError: the model has other weights, the data or the splices are others.
        """
        if weights_sha256(model) != self.about["weights_sha256"]:
            raise InputError("the index was made of a model with other weights.")
        if dataset is not None and fingerprint(dataset) != self.about["data"]:
            raise InputError("the index was made of other data.")
        check_tokenizer(tokenizer)
        spliced = splices_of(model, splices)
        if said_of(spliced) != self.about["settings"].get("splices", {}):
            raise InputError(
                "the index was made with other splices"
                + (f": it has them at {', '.join(self.about['settings']['splices'])}." if "splices" in self.about["settings"] else ".")
                + " Pass those, splices=."
            )  # fmt: skip
        rules = self.about["settings"]["composite"]
        options = {"composite": rules, "select": select, "forward_kwargs": forward_kwargs}
        return replace(self, model=model, dataset=dataset, splices=spliced, tokenizer=tokenizer, options=options)

    def concepts_of(self, result: Any, layer: str | None = None, most: int = 4, references: int = 4) -> Any:
        """The page of concepts of one explanation; see `Relevance.concepts`."""
        from relprop.concepts.reference_pages import concepts

        return concepts(self, result, layer, most, references)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{path} ({len(layer.relevance.values)} units)" for path, layer in self.layers.items())
        return f"Index of {sizes} over {self.samples} samples; {self.about['settings']['composite']}"


_NAMED = {"weights_sha256": "the weights of their model", "data": "their data", "settings": "how they were made"}


def said_of(splices: Splices) -> dict[str, Any]:
    """What the settings of an index say of its splices: their kinds and the hashes of their weights, by layer."""
    return {path: [s.reads, s.error, s.part, *(weights_sha256(m) for m in s.modules())] for path, s in splices.items()}


def _runs(rows: list[list[int]]) -> list[list[int]]:
    """Ranges in order, with those that touch joined."""
    found: list[list[int]] = []
    for start, stop in rows:
        if found and found[-1][1] == start:
            found[-1] = [found[-1][0], stop]
        else:
            found.append([start, stop])
    return found


def _joined(one: IndexedLayer, other: IndexedLayer, order: Tensor) -> IndexedLayer:
    pairs = {name: (getattr(one, name), getattr(other, name)) for name in EACH}
    each: Any = {name: None if a is None or b is None else torch.cat([a, b])[order] for name, (a, b) in pairs.items()}
    return replace(
        one,
        relevance=one.relevance.merge(other.relevance),
        activation=one.activation.merge(other.activation),
        **one.adding(other.seen, other.class_sum, other.class_count),
        **each,
    )


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
def load_index(
    folder: str | PathLike[str],
    model: Any = None,
    dataset: Any = None,
    *,
    tokenizer: Any = None,
    select: Any = None,
    forward_kwargs: dict[str, Any] | None = None,
    splices: Any = None,
) -> Index:
    """Reads an index from a folder.

    Args:
        folder: the folder that `Index.save` or `relprop.index(folder=)` wrote.
        model: its model, for pictures and snippets. Other weights are refused.
        dataset: its data, likewise.
        tokenizer: for texts: what has `convert_ids_to_tokens`, or a function from a list of ids to their tokens.
        select: what was explained of an output that is not a tensor, as in `relprop.index`.
        forward_kwargs: further keyword arguments of the model.
        splices: the splices that the index was made with.

    Raises:
        FormatError: the folder is missing, damaged or of another format.
        InputError: model, data or splices are others.
    """
    made = Index(*read(folder))
    if model is None:
        return made
    return made.attach(
        model, dataset, tokenizer=tokenizer, select=select, forward_kwargs=forward_kwargs, splices=splices
    )
