"""What is kept of each explanation: maps of the input, vectors of layers, and in which numbers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from relprop.errors import InputError

FORMATS = ("float16", "float32", "int8")
_CACHED = 2**16
"""How many numbers are encoded at once: they stay in the processor's cache, which takes half the time."""
_INPUT = re.compile(r"full|none|sum(:[1-9][0-9]*)?")
_LAYER = re.compile(r"full|channels|top:[1-9][0-9]*")


@dataclass(frozen=True)
class Keep:
    """What is kept.

    Attributes:
        input: "full", "sum" over channels, "sum:28" for sums of 28 x 28 blocks, or "none".
        layers: for each glob of layers "full", "channels", "top:K", or a function of the layer's relevance.
    """

    input: str
    layers: dict[str, Any]

    @classmethod
    def of(cls, given: Any) -> Keep:
        """Reads the argument `keep`.

        Raises:
            InputError: it names no form of keeping.
        """
        if not isinstance(given, Mapping):
            raise InputError(f"keep= is a dict such as {{'input': 'sum', 'layer4': 'channels'}}; got {given!r}.")
        form = given.get("input", "sum")
        if not isinstance(form, str) or not _INPUT.fullmatch(form):
            raise InputError(f"keep['input'] is full, sum, sum:28 or none; got {form!r}.")
        layers = {str(name): how for name, how in given.items() if name != "input"}
        for name, how in layers.items():
            if not callable(how) and not (isinstance(how, str) and _LAYER.fullmatch(how)):
                raise InputError(f"keep[{name!r}] is full, channels, top:K or a function of a tensor; got {how!r}.")
        return cls(form, layers)

    def described(self) -> dict[str, str]:
        """The forms by name, for the fingerprint."""
        return {"input": self.input} | {name: spelled(how) for name, how in self.layers.items()}

    def parts(self, values: Tensor, layers: Mapping[str, Any], tokens: bool = False) -> dict[str, Tensor]:
        """The arrays that are stored of a batch, samples first, by name.

        Args:
            values: the relevance of the input.
            layers: that of layers by path.
            tokens: whether axis 1 is that of a text's tokens, over which "channels" sums, in place of the axes after it.

        Raises:
            InputError: a layer ran several times, or a form does not fit the shape.
        """
        found = {} if self.input == "none" else {"maps": of_input(values, self.input)}
        for path, relevance in layers.items():
            if not isinstance(relevance, Tensor):
                raise InputError(
                    f"the layer {path!r} runs several times in one pass, so it has no single relevance to keep."
                )
            how = self._form_of(path)
            if isinstance(how, str) and how.startswith("top:"):
                flat = relevance.flatten(1)
                order = flat.abs().argsort(dim=1, descending=True, stable=True)[:, : int(how[4:])]
                found[f"{_name(path)}.index"] = order
                found[f"{_name(path)}.value"] = flat.gather(1, order)
            elif how == "channels" and tokens:
                found[_name(path)] = relevance.sum(1) if relevance.ndim > 2 else relevance
            elif how == "channels":
                found[_name(path)] = relevance.flatten(2).sum(2) if relevance.ndim > 2 else relevance
            elif how == "full":
                found[_name(path)] = relevance
            else:
                found[_name(path)] = how(relevance)
        return found

    def _form_of(self, path: str) -> Any:
        from fnmatch import fnmatchcase

        return next(how for name, how in self.layers.items() if path == name or fnmatchcase(path, name))


def of_input(values: Tensor, form: str) -> Tensor:
    """A batch of the input's relevance in the form that is kept. Tables (N, F) have no channels, and stay.

    Raises:
        InputError: blocks are asked of an input without positions, or more than it has.
    """
    if form == "full" or values.ndim < 3:
        if form.startswith("sum:"):
            raise InputError(
                f"keep['input'] = {form!r} needs an input with positions; it has the shape {tuple(values.shape)}."
            )
        return values
    summed = values.sum(1)
    if form == "sum":
        return summed
    blocks = int(form[4:])
    for axis in range(1, summed.ndim):
        length = summed.shape[axis]
        if blocks > length:
            raise InputError(f"keep['input'] = {form!r} asks for more blocks than the {length} positions of an axis.")
        edges = [n * length // blocks for n in range(blocks + 1)]
        parts = [summed.narrow(axis, a, b - a).sum(axis) for a, b in itertools.pairwise(edges)]
        summed = torch.stack(parts, axis)
    return summed


def encode(values: np.ndarray, form: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Numbers (N, ...) as they are stored, and the scale of each row: its largest size. float32 has no scale.

    Plain float16 would flush most of a map to 0, whose numbers are often below 6e-8.
    """
    values = values.astype(np.float32, copy=False)
    if form == "float32":
        return values, None
    stored = np.empty(values.shape, form)
    scale = np.zeros(len(values), np.float32)
    size = max(int(np.prod(values.shape[1:])), 1)
    step = max(_CACHED // size, 1)
    for start in range(0, len(values) if values.size else 0, step):
        some = values[start : start + step].reshape(-1, size)
        largest = np.abs(np.maximum(some.max(1), -some.min(1)))  # never -0.0
        scale[start : start + step] = largest
        part = some / np.where(largest > 0, largest, 1)[:, None]
        if form == "int8":
            part = np.rint(np.sign(part) * np.sqrt(np.abs(part)) * 127)
        # torch rounds to float16 by the processor's own instruction: NumPy takes fifteen times as long for the same bits
        into = torch.from_numpy(stored[start : start + step].reshape(-1, size))
        into.copy_(torch.from_numpy(part))
    return stored, scale


def decode(stored: np.ndarray, scale: Any, form: str) -> np.ndarray:
    """The numbers, float32, from what is stored."""
    if form == "float32" or scale is None:
        return stored
    part = stored.astype(np.float32)
    if form == "int8":
        part = (np.sign(part) * (part / 127) ** 2).astype(np.float32)
    each = np.asarray(scale, np.float32)
    return part * each.reshape(*each.shape, *[1] * (stored.ndim - each.ndim))


def spelled(value: Any) -> str:
    """A value as text that is the same in every process: functions by name, without addresses."""
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _name(path: str) -> str:
    """The name of a layer's array. A module's name may be anything, and an array's becomes a folder."""
    return "layers." + re.sub(r"[^A-Za-z0-9_.-]", "_", path)
