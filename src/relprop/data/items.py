"""One sample of a source, from whatever a data set gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from relprop.errors import InputError
from relprop.loading.network import Loaded

INPUTS = ("image", "img", "picture", "pixel_values", "input", "inputs", "x", "jpg", "jpeg", "png", "webp", "npy")
"""The columns that hold the input if none is named, the first of them first."""


@dataclass(frozen=True, eq=False)
class Item:
    """One sample: the model's input, its label if the source has one, and its columns.

    The input is a tensor without the axis of samples, or the `Tokens` of a text.
    """

    inputs: Any
    label: Any = None
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Reading:
    """How a sample becomes the network's input.

    Attributes:
        loaded: the network, which says how its pictures are read.
        transform: a function from a Pillow image to the network's input, instead of its own preprocessing.
        column: the column that holds the input, or several that hold its numbers; None takes the first of `INPUTS`.
    """

    loaded: Loaded
    transform: Callable[[Image.Image], Any] | None = None
    column: str | Sequence[str] | None = None

    def picture(self, image: Image.Image) -> Tensor:
        """The network's input for a picture, without the axis of samples."""
        if self.transform is not None:
            return self.item(self.transform(image)).inputs
        return self.loaded.tensor(image if image.mode == "RGB" else image.convert("RGB"))[0]

    def item(self, found: Any) -> Item:
        """A sample from what a data set gives: an input, (input, label), or a dict of columns.

        Raises:
            InputError: it is none of these.
        """
        label = None
        if isinstance(found, Mapping):
            return self._of_columns(found)
        if isinstance(found, (list, tuple)) and len(found) == 2:
            found, label = found
        if isinstance(found, Image.Image):
            found = self.picture(found)
        if isinstance(found, np.ndarray):
            found = torch.from_numpy(found)
        if not isinstance(found, Tensor):
            raise InputError(
                f"a sample is a tensor, a picture, (input, label), or a dict of columns; got {type(found).__name__}."
            )
        return Item(found, plain(label), {} if label is None else {"label": plain(label)})

    def _of_columns(self, found: Mapping[str, Any]) -> Item:
        rest = {str(name): plain(value) for name, value in found.items()}
        names = self.column if self.column is not None else next((name for name in INPUTS if name in found), None)
        if names is not None and not isinstance(names, str):
            return Item(numbers([found[name] for name in names], names), rest.get("label"), rest)
        if names is None or names not in found:
            raise InputError(
                f"no column of {', '.join(map(str, found))} is known to hold the input: name it with column=."
            )
        made = self.item(found[names])
        return replace(made, label=rest.get("label"), columns={n: v for n, v in rest.items() if n != names})


def numbers(cells: Sequence[Any], names: Sequence[str]) -> Tensor:
    """A row of numbers as a network's input.

    Raises:
        InputError: a cell is not a number.
    """
    found = []
    for cell, name in zip(cells, names, strict=True):
        try:
            found.append(float(cell))
        except (TypeError, ValueError):
            raise InputError(f"{cell!r} in column {name!r} is not a number.") from None
    return torch.tensor(found)


def plain(label: Any) -> Any:
    """A label as a number of Python, if it is one of an array."""
    count = label.numel() if isinstance(label, Tensor) else getattr(label, "size", 0)
    return label.item() if hasattr(label, "item") and count == 1 else label
