"""Relevance that passes single units of an index's layer, for one input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from relprop.attribution.attribute import attribute_each
from relprop.attribution.conditions import Units, units


def explained(index: Any, x: Any, targets: Any, **more: Any) -> Any:
    """Results of the index's model under the rules and options with which the index was made."""
    spliced = list(index.splices.values())
    return attribute_each(index.model, x, targets, splices=spliced, **index.options, **more)


def conditional(
    index: Any, x: Tensor, target: Any, layer: str, numbers: Sequence[int], *, layer_too: bool = False
) -> list[Tensor]:
    """The maps of some units of a layer for one input; `layer_too` adds that of the whole layer at the end."""
    axis = index.layers[layer].axis
    chosen = [*(unit_of(layer, axis, n) for n in numbers), *([units(layer)] if layer_too else [])]
    return [R.values for R in explained(index, x, target, through=chosen)]


def unit_of(layer: str, axis: int, number: int) -> Units:
    """A unit of a layer, by the axis of its units."""
    return units(layer)[tuple([slice(None)] * axis + [number])]
