"""Relevance of tensors, and what is needed to judge it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from relprop.composites import Composite, Place, acting
from relprop.errors import InputError
from relprop.results.contrast import target_at
from relprop.results.files.checks import check_feature_names, check_scores, check_seen, require
from relprop.results.identity import Identity
from relprop.results.ledger import Ledger
from relprop.results.outputs import Outputs
from relprop.results.protocol import Exported, loadable
from relprop.results.target_words import in_words
from relprop.rules import Rule
from relprop.signatures import public
from relprop.trees import leaves, map_tree

if TYPE_CHECKING:
    import pandas

    from relprop.rendering.view import Options, Row, View
    from relprop.results.summary import Summary

# What a folder stores in addition to how the result was made.
_KEPT = (
    "values",
    "output",
    "score",
    "target",
    "residual",
    "layers",
    "labels",
    "positions",
    "inputs",
)
# What it stores only if there is one, so that folders of earlier versions are read as they are.
_OPTIONAL = ("names", "pictures", "affine", "through", "effect", "weights")
# What a `.json` file holds.
_TOLD = ("values", "score", "residual", "target", "output", "layers", "positions")


@loadable
@dataclass
class Relevance(Outputs):
    """Relevance of inputs (and layers) for one score per sample. Everything is detached.

    Attributes:
        values: relevance, in the structure, shape, dtype and device of the inputs.
        output: what the model returned (the selected tensor).
        score: the explained scores, shape (N,).
        target: the target that was explained: the arg-max where none was given.
        composite: the composite that acted; its name says what "auto" picked.
        residual: the relevance that left the score minus what reached the inputs, shape (N,): what biases, stabilisers
            and other constants absorbed.
        layers: relevance by path of each requested module: a tensor, or a list for a module that ran several times.
        rules: each place for which a rule was looked up, and the rule that acted (None: the operation's default).
        positions: with `positions=True`, the relevance that ended in position encodings, summed over features, by path
            of the module that looks them up or adds them. It is part of the residual, not of `values`.
        ledger: with `ledger=True`, what absorbed the residual: a mapping from a cause to relevance of shape (N,), with
            each operation's part in `ledger.entries`. The causes sum to the residual. Empty otherwise.
        unknown: operations whose native gradient was used because of `strict=False`, with their number of calls.
        notices: what its reader should know: inputs, or parts of them, that are cut off from the score; rows that are
            not independent samples; random numbers that the model drew.
        inputs: a copy of the inputs, for drawing relevance on them.
        labels: names of the classes, if the model or the caller knows them.
        model: the name of the model that was explained.
        through: the condition under which it was explained, in words, or a list with one per sample; None without one.
        effect: with `against=`, the score of the other inputs minus that of these, (N,). Then `values` and `layers` are
            estimates of changes, and the residual is the effect minus the sum of `values`. None otherwise.
        weights: with `weights=True`, the relevance that went through each entry of each weight, by the parameter's name,
            summed over all samples and positions; tied parameters have their sum under each name. `R[3]` has none.
        names: the names of the features, if the inputs were a table that has them.
        pictures: the pictures that the inputs were read from, (N, 3, H, W) in bytes, if `read_image` read them.
        affine: the map from voxels to space, (4, 4), if `read_volume` read the inputs.
    """

    kind: ClassVar[str] = "relevance"

    values: Any
    output: Any
    score: Tensor
    target: Any
    composite: Composite
    residual: Tensor
    layers: dict[str, Any] = field(default_factory=dict)
    rules: list[tuple[Place, Rule | None]] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=dict)
    positions: dict[str, Tensor] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=lambda: Ledger([]))
    notices: list[str] = field(default_factory=list)
    inputs: Any = None
    labels: Sequence[str] | None = None
    model: Identity | None = None
    through: str | list[str] | None = None
    effect: Tensor | None = None
    weights: dict[str, Tensor] = field(default_factory=dict)
    names: Sequence[str] | None = None
    pictures: Tensor | None = None
    affine: Tensor | None = None

    def __len__(self) -> int:
        return self.score.shape[0]

    def __getitem__(self, index: int | slice) -> Relevance:
        """One sample, `R[3]`, or several, `R[:2]`. The axis of samples is kept.

        Raises:
            IndexError: there is no such sample.
            InputError: the index is neither an int nor a slice.
        """
        if not isinstance(index, (int, slice)):
            raise InputError(
                f"samples are R[3] or R[:2]; got R[{index!r}]. Layers are in R.layers, numbers in R.values."
            )
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"sample {index} of {len(self)}")
            index = slice(index % len(self), index % len(self) + 1)
        count = len(self)

        def pick(t: Any) -> Any:
            return t[index] if isinstance(t, Tensor) and t.ndim and t.shape[0] == count else t

        return Relevance(
            map_tree(pick, self.values), map_tree(pick, self.output), self.score[index],
            target_at(self.target, index, count), self.composite,
            self.residual[index], map_tree(pick, self.layers), self.rules, self.unknown,
            map_tree(pick, self.positions),
            self.ledger.sample(index), self.notices,
            inputs=map_tree(pick, self.inputs), labels=self.labels, model=self.model, names=self.names,
            pictures=None if self.pictures is None else self.pictures[index], affine=self.affine,
            through=target_at(self.through, index, count), effect=pick(self.effect),
        )  # fmt: skip

    @property
    def samples(self) -> int:
        """The number of samples, as `len`."""
        return len(self)

    def alone(self, sample: int) -> Relevance:
        """The result of one sample, as `R[sample]`."""
        return self[sample]

    def to_numpy(self) -> Any:
        """`values` as NumPy arrays (bfloat16 as float32)."""
        return map_tree(lambda t: (t.float() if t.dtype == torch.bfloat16 else t).cpu().numpy(), self.values)

    def sum_channels(self) -> Any:
        """Relevance summed over axis 1, the channels of pictures and signals."""
        return map_tree(lambda t: t.sum(1) if t.ndim > 1 else t, self.values)

    @public(".grouped")
    def grouped(self, groups: Any, *, names: Sequence[str] | None = None, input: str | None = None) -> Relevance:
        """The result with one column per group: superpixels, spans, groups of features. Sums stay what they were.

        Args:
            groups: a dict from names to features (by name or index) or to boolean masks of positions; a list with the name of
                a group for each feature; or integers with the group of each feature or position, for all samples or for each,
                such as superpixels (H, W) or (N, H, W). What is in no group of a dict is a column of its own.
            names: the names of the groups, where they are numbers.
            input: the path of the input, as `inputs[0]`, if there are several.

        Raises:
            InputError: the groups do not fit, or share a feature.
        """
        from relprop.results.grouping import grouped

        return grouped(self, groups, names, input)

    @public(".summary")
    def summary(self, *, groups: Any = None, names: Sequence[str] | None = None, input: str | None = None) -> Summary:
        """Relevance over the batch: the mean and the mean size per feature, and per class.

        Features of pictures are their channels, and maps are averaged per class; those of series are their channels.

        Args:
            groups: sum over groups first, as in `grouped`.
            names: the names of the features, or of the groups.
            input: the path of the input, if there are several.
        """
        from relprop.results.grouping import summary

        return summary(self, groups, names, input)

    @public(".to_pandas")
    def to_pandas(
        self, *, groups: Any = None, names: Sequence[str] | None = None, input: str | None = None
    ) -> pandas.DataFrame:
        """A row for each sample: what was explained, score, residual, and the relevance of each feature. Needs pandas.

        Args:
            groups: sum over groups first, as in `grouped`.
            names: the names of the columns.
            input: the path of the input, if there are several.

        Raises:
            InputError: relevance is that of pictures or series, and there are no groups.
        """
        from relprop.results.grouping import frame

        return frame(self, groups, names, input)

    def records(self, options: dict[str, Any]) -> tuple[list[str], Iterable[list[Any]]] | None:
        """The columns and rows of a CSV file of a table; None for others, which are written as they are drawn."""
        if options or not isinstance(self.values, Tensor) or self.values.ndim != 2 or len(self.values) != len(self):
            return None
        names = self.names or [f"feature {f}" for f in range(self.values.shape[1])]
        rows = (
            [n, self.subject(n), name, value]
            for n, row in enumerate(self.values.tolist())
            for name, value in zip(names, row, strict=True)
        )
        return ["sample", "target", "name", "relevance"], rows

    def table(self) -> str:
        """Which rule acted where: a line for each place for which a rule was looked up, in that order.

        "merged" marks an operation that forms one linear map with the weighted layer before it, such as a BatchNorm
        after its convolution: that layer's rule acts on both. "default" is the operation's own propagation.
        """
        rows = [(str(place), acting(place, rule)) for place, rule in self.rules]
        width = max((len(place) for place, _ in rows), default=0)
        return "\n".join(f"{place:<{width}}  {rule}" for place, rule in rows)

    def concepts(self, index: Any, layer: str | None = None, most: int = 4, references: int = 4) -> Any:
        """The strongest hidden units of one picture, text or series, with their maps and reference samples.

        Beside each unit's map is what is specific to the unit: its map minus the multiple of the layer's map that is nearest to
        it. Otherwise, with z+ rules, maps of late channels look alike.

        Args:
            index: what `relprop.index` made, with model and data at hand.
            layer: the path of a layer of the index; None for its first.
            most: how many units.
            references: how many reference samples of each.

        Returns:
            The page, with `show` and `save`.

        Raises:
            InputError: this is not a single picture (1, C, H, W), text (1, T) or series, or the index lacks the layer, the model or the data.
        """
        return index.concepts_of(self, layer, most, references)

    def views(self, options: Options) -> list[View]:
        """Its drawings, for `show`, `save` and the other outputs."""
        from relprop.results import views

        return views.views(self, options)

    def rows(self) -> list[Row]:
        """The numbers of each sample's score."""
        from relprop.results import numbers

        return numbers.rows(self)

    def subject(self, n: int) -> str:
        """What was explained of a sample, in words: the class's name if it is known."""
        from relprop.results import numbers

        return numbers.target_of(self, n)

    def facts(self, n: int) -> dict[str, Any]:
        """The largest outputs of a sample."""
        from relprop.results import numbers

        return {"largest_outputs": dict(numbers.predictions(self, n))}

    def given(self) -> Any:
        """The inputs."""
        return self.inputs

    def kept(self) -> dict[str, Any]:
        """What a folder stores."""
        optional = {name: getattr(self, name) for name in _OPTIONAL}
        optional = {
            name: part for name, part in optional.items() if not (part is None or (name == "weights" and not part))
        }
        return {name: getattr(self, name) for name in _KEPT} | optional

    def exported(self) -> Exported:
        """The content of the files for other programs."""
        found = [
            *leaves(self.values, "values"),
            ("score", self.score),
            ("residual", self.residual),
            ("output", self.output),
        ]
        arrays = {path: part for path, part in found if isinstance(part, Tensor)}
        arrays |= {} if self.affine is None else {"affine": self.affine}
        data, about = {name: getattr(self, name) for name in _TOLD}, {"target": self.target}
        if self.effect is not None:
            data["effect"] = arrays["effect"] = self.effect
        if self.through is not None:
            data["through"] = about["through"] = self.through
        return Exported(data, arrays, about)

    @classmethod
    def restored(cls, content: dict[str, Any], made: dict[str, Any], ledger: Callable[[int], Ledger]) -> Relevance:
        """Rebuilds the result from the content of a folder."""
        require(content, _KEPT)
        samples = check_scores(content)
        names = check_feature_names(content)
        pictures, affine = check_seen(content, samples)
        own = {name: content[name] for name in _KEPT}
        own |= {name: content.get(name) for name in ("through", "effect")} | {"weights": content.get("weights", {})}
        return cls(**own, **made, ledger=ledger(samples), names=names, pictures=pictures, affine=affine)

    def __repr__(self) -> str:
        shapes = ", ".join(str(tuple(t.shape)) for _, t in leaves(self.values) if isinstance(t, Tensor))
        lines = [f"Relevance of {shapes} by composite {self.composite.name!r}"]
        for n in range(min(len(self), 3)):
            target = in_words(target_at(self.target, n, len(self)), self.labels)
            shown = "".join(letter if letter.isprintable() else "?" for letter in target)  # a label may be anything
            score, rest = float(self.score[n]), float(self.residual[n])
            lines.append(f"  sample {n}: {shown}, score {score:.4g}, residual {rest:.4g}")
        if len(self) > 3:
            lines.append(f"  ... {len(self) - 3} more samples")
        if self.through is not None:
            lines.append(f"  {self.through if isinstance(self.through, str) else '; '.join(self.through[:3])}")
        if self.effect is not None:
            changes = ", ".join(f"{float(change):.4g}" for change in self.effect[:3])
            lines.append(f"  against other inputs, for which the score changes by {changes}")
        if self.unknown:
            lines.append(f"  native gradient used for unknown operations: {', '.join(self.unknown)}")
        lines += [f"  {notice}" for notice in self.notices]
        return "\n".join(lines)
