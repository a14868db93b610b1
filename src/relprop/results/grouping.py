"""Groups of features, pixels or channels: the relevance of each group, and the summary of a batch.

Index letters: n sample, f feature, g group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from relprop.errors import InputError
from relprop.results.data_frames import pandas_library
from relprop.results.summary import Summary, labelled, sums
from relprop.trees import leaves

_MOST_CLASSES = 50


class BatchRelevance(Protocol):
    """What is needed of the relevance of a batch. It is a dataclass."""

    values: Any
    inputs: Any
    score: Tensor
    residual: Tensor
    composite: Any
    rules: Any
    unknown: Any
    model: Any
    notices: list[str]
    names: Sequence[str] | None

    def __len__(self) -> int: ...

    def subject(self, n: int) -> str:
        """What was explained of a sample."""


def one_input(result: BatchRelevance, path: str | None = None) -> tuple[Tensor, Tensor | None]:
    """The relevance of one input, and the input itself where the result holds it.

    Raises:
        InputError: there are several inputs and none is named, or there is none of that name.
    """
    found = dict(leaves(result.values))
    if path is None and len(found) > 1:
        raise InputError(f"the model has {len(found)} inputs: say which, input={next(iter(found))!r}.")
    key = path if path is not None else next(iter(found))
    if key not in found:
        raise InputError(f"there is no input {key!r}; there are: {', '.join(found)}.")
    values = found[key]
    if not values.ndim or values.shape[0] != len(result):
        raise InputError("the input has no axis of samples, so that there is nothing to summarise.")
    given = dict(leaves(result.inputs)).get(key) if result.inputs is not None else None
    return values, given


def grouped(result: BatchRelevance, groups: Any, names: Sequence[str] | None = None, input: str | None = None) -> Any:
    """The result with one column per group; see `Relevance.grouped`."""
    values, _ = one_input(result, input)
    found, called = _columns(values, groups, result.names)
    if names is not None:
        if len(names) != found.shape[1]:
            raise InputError(f"{len(names)} names for {found.shape[1]} groups.")
        called = [str(name) for name in names]
    made: Any = result
    return replace(made, values=found.to(values.dtype), inputs=None, names=called)


def check_groups(inputs: Any, groups: Any, features: Sequence[str] | None = None) -> None:
    """Refuses groups that do not fit the inputs, before anything is explained.

    Args:
        inputs: the inputs of the model.
        groups: as in `Relevance.grouped`.
        features: the names of the features, where the input is a table.

    Raises:
        InputError: there are several inputs, or the groups do not fit.
    """
    found = [leaf for _, leaf in leaves(inputs) if isinstance(leaf, Tensor)]
    if len(found) != 1:
        raise InputError(
            f"groups= is for models with one input, and this one has {len(found)}: explain without it, then take "
            "R.grouped(groups, input=...)."
        )
    if found[0].ndim:
        _columns(torch.zeros((), device=found[0].device).expand(found[0].shape), groups, features)


def _columns(values: Tensor, groups: Any, features: Sequence[str] | None) -> tuple[Tensor, list[str]]:
    """The sum of each group, (N, G), and the names of the groups."""
    wide = values.double() if values.is_floating_point() else values
    if isinstance(groups, Mapping):
        return _of_mapping(features, wide, groups)
    return _of_labels(wide, groups)


def _of_mapping(features: Sequence[str] | None, values: Tensor, groups: Mapping[str, Any]) -> tuple[Tensor, list[str]]:
    """Groups by name: of features by name or index, or masks of positions."""
    if not groups:
        raise InputError("groups is empty.")
    names = None if features is None else list(features)
    flat = values.flatten(1)
    taken = torch.zeros(flat.shape[1], dtype=torch.bool)
    columns = []
    for name, members in groups.items():
        mask = torch.as_tensor(members) if hasattr(members, "__array__") else None
        if mask is not None and mask.dtype == torch.bool:
            inside = _spread(mask, values)
        else:
            some = (
                members.tolist()
                if mask is not None
                else list(members)
                if isinstance(members, (list, tuple, range))
                else [members]
            )
            inside = torch.zeros(flat.shape[1], dtype=torch.bool)
            for one in some:
                inside[_index(one, names, flat.shape[1])] = True
        if bool((inside & taken).any()):
            raise InputError(f"group {name!r} shares a feature with another: the relevance would count twice.")
        taken |= inside
        columns.append(flat[:, inside.to(flat.device)].sum(1))
    if not bool(taken.all()):
        columns.append(flat[:, ~taken.to(flat.device)].sum(1))
    called = [str(name) for name in groups] + ["in no group"] * (not bool(taken.all()))
    return torch.stack(columns, 1), called


def _index(one: Any, names: list[str] | None, count: int) -> int:
    if isinstance(one, str):
        if names is None or one not in names:
            raise InputError(
                f"there is no feature {one!r}"
                + (f"; there are: {', '.join(names[:20])}." if names else ": the features have no names.")
            )
        return names.index(one)
    if isinstance(one, bool) or not hasattr(one, "__index__") or not -count <= int(one) < count:
        raise InputError(f"a group holds features by name, or by index below {count}; got {one!r}.")
    return int(one)


def _spread(mask: Tensor, values: Tensor) -> Tensor:
    """A mask of positions over all channels, flattened."""
    shape = values.shape[1:]
    if mask.shape == shape:
        return mask.flatten()
    if len(shape) > 1 and mask.shape == shape[1:]:
        return mask.expand(shape).flatten()
    raise InputError(f"a mask has the shape {tuple(mask.shape)}; relevance of a sample has {tuple(shape)}.")


def _of_labels(values: Tensor, groups: Any) -> tuple[Tensor, list[str]]:
    """Groups by a label for each feature or position, such as superpixels: (F,), (H, W), or (N, ...)."""
    named: list[str] | None = None
    if isinstance(groups, (list, tuple)) and groups and all(isinstance(one, str) for one in groups):
        named = list(dict.fromkeys(groups))
        groups = [named.index(one) for one in groups]
    try:
        labels = torch.as_tensor(groups)
    except (TypeError, ValueError, RuntimeError):
        labels = torch.zeros(0)
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool or not labels.numel():
        raise InputError(
            "groups is a dict from names to features, a list with a group's name for each feature, or integers with the group of "
            f"each feature or position; got {type(groups).__name__}."
        )
    labels = labels.long().to(values.device)
    if labels.numel() and int(labels.min()) < 0:
        raise InputError("groups holds negative numbers: number them from 0.")
    shape = tuple(values.shape[1:])
    positions = values
    if tuple(labels.shape) not in (shape, (len(values), *shape)):
        positions = values.sum(1) if values.ndim > 2 else values  # channels share the groups of positions
        shape = tuple(positions.shape[1:])
    if tuple(labels.shape) == shape:
        labels = labels.expand(len(values), *shape)
    if tuple(labels.shape) != tuple(positions.shape):
        raise InputError(
            f"groups has the shape {tuple(labels.shape)}, and relevance {tuple(values.shape)}: give a group to each feature or "
            "position, for all samples or for each."
        )
    count = int(labels.max()) + 1
    found = torch.zeros(len(values), count, dtype=positions.dtype, device=values.device)
    found.scatter_add_(1, labels.flatten(1), positions.flatten(1))
    return found, named or [f"group {g}" for g in range(count)]


def summary(result: BatchRelevance, groups: Any, names: Sequence[str] | None, input: str | None) -> Summary:
    """The summary of a batch; see `Relevance.summary`."""
    if groups is not None:
        result, names, input = grouped(result, groups, names, input), None, None
    values, given = one_input(result, input)
    values = values.detach().double().cpu()
    classes, label = labelled([result.subject(n) for n in range(len(result))])
    if len(classes) > _MOST_CLASSES:
        classes, label = ["all samples"], torch.zeros(len(result), dtype=torch.int64)
    made: dict[str, Any] = {
        "composite": result.composite, "rules": result.rules, "unknown": result.unknown, "model": result.model,
        "notices": result.notices, "classes": classes, "label": label,
    }  # fmt: skip
    if values.ndim == 4:
        maps = torch.stack([values[label == k].sum(1).mean(0) for k in range(len(classes))])
        rows = values.sum((2, 3))
        called = list(names or [f"channel {c}" for c in range(rows.shape[1])])
        _counted(called, rows)
        return Summary(
            names=called,
            values=rows,
            maps=maps,
            style="maps",
            unit="channel",
            **made | sums(rows, label, len(classes)),
        )
    features = None if given is None or not given.is_floating_point() else given.detach().double().cpu()
    unit = "feature"
    if values.ndim == 3:
        values, features, unit = values.sum(2), None, "channel"
    rows = values.reshape(len(values), -1)
    called = list(names or result.names or [f"{unit} {f}" for f in range(rows.shape[1])])
    _counted(called, rows)
    features = None if features is None else features.reshape(rows.shape)
    return Summary(
        names=[str(name) for name in called],
        values=rows,
        features=features,
        unit=unit,
        **made | sums(rows, label, len(classes)),
    )


def frame(result: BatchRelevance, groups: Any, names: Sequence[str] | None, input: str | None) -> Any:
    """The data frame of a batch; see `Relevance.to_pandas`."""
    pandas = pandas_library()
    if groups is not None:
        result, names, input = grouped(result, groups, names, input), None, None
    values, _ = one_input(result, input)
    if values.ndim > 2:
        raise InputError(
            f"relevance has the shape {tuple(values.shape)}, which is not a table: pass groups=, such as superpixels, or take "
            "R.to_numpy()."
        )
    rows = values.detach().double().cpu().reshape(len(values), -1)
    called = [str(name) for name in names or result.names or [f"feature {f}" for f in range(rows.shape[1])]]
    _counted(called, rows)
    own = {
        "explained": [result.subject(n) for n in range(len(result))],
        "score": result.score.detach().double().cpu().tolist(),
        "residual": result.residual.detach().double().cpu().tolist(),
    }
    first = pandas.DataFrame(
        {(name if name not in called else f"relprop {name}"): column for name, column in own.items()}
    )
    return pandas.concat([first, pandas.DataFrame(rows.numpy(), columns=called)], axis=1)


def _counted(names: Sequence[str], rows: Tensor) -> None:
    if len(names) != rows.shape[1]:
        raise InputError(f"{len(names)} names for {rows.shape[1]} features.")
