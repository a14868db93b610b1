"""Where samples come from. Each has a number, and a key that stays the same from run to run."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, SequentialSampler

from relprop.errors import InputError
from relprop.loading.network import Loaded
from relprop.loading.samples import PICTURES, read
from relprop.rendering.visible import quoted

_SHOWN = 3


@dataclass(frozen=True, eq=False)
class Item:
    """One sample: the model's input without the axis of samples, and its label if the source has one."""

    inputs: Tensor
    label: Any = None


@dataclass(frozen=True, eq=False)
class Source:
    """Samples in a fixed order.

    Attributes:
        kind: what it is, in a word.
        keys: the key of each sample.
        read: gives a sample by its number. It may be called from several threads.
    """

    kind: str
    keys: Sequence[str]
    read: Callable[[int], Item]

    def __len__(self) -> int:
        return len(self.keys)

    def digest(self, count: int) -> str:
        """SHA-256 of the first keys in their order."""
        found = hashlib.sha256()
        for key in self.keys[:count]:
            found.update(f"{len(key)}:{key}".encode("utf-8", "surrogateescape"))
        return found.hexdigest()


def source_of(given: Any, loaded: Loaded, key: Any = None, transform: Any = None) -> Source:
    """The source that an argument describes.

    Args:
        given: a folder, a list of paths, a `.npy` file, a tensor, a data set with a length, or a `DataLoader`.
        loaded: the network, which says how its pictures are read.
        key: the keys as a list, or a function from a sample's number to its key; None takes paths and numbers.
        transform: a function from a Pillow image to the network's input, instead of its own preprocessing.

    Raises:
        InputError: it is none of these, it is empty, it shuffles, or two keys are equal.
    """
    found = _found(given, loaded, transform)
    if not len(found):
        raise InputError(f"the source {_named(given)} is empty.")
    if key is not None:
        keys = [str(key(n)) for n in range(len(found))] if callable(key) else [str(one) for one in key]
        if len(keys) != len(found):
            raise InputError(f"key= has {len(keys)} keys, and the source {len(found)} samples.")
        found = Source(found.kind, keys, found.read)
    twice = [name for name, count in Counter(found.keys).items() if count > 1]
    if twice:
        names = ", ".join(map(quoted, twice[:_SHOWN]))
        raise InputError(f"keys must differ, and these stand for several samples: {names}. Give others with key=.")
    return found


def _found(given: Any, loaded: Loaded, transform: Any) -> Source:
    if isinstance(given, (str, os.PathLike)):
        return _of_path(Path(given), loaded, transform)
    if isinstance(given, (list, tuple)) and given and all(isinstance(one, (str, os.PathLike)) for one in given):
        return _of_files([Path(one) for one in given], [str(one) for one in given], loaded, transform)
    if isinstance(given, (Tensor, np.ndarray)):
        return _of_array(given)
    if isinstance(given, DataLoader):
        return _of_loader(given)
    if hasattr(given, "__getitem__") and hasattr(given, "__len__") and not isinstance(given, dict):
        return Source("data set", _numbers(len(given)), lambda n: _item(given[n]))
    raise InputError(
        "a source is a folder, a list of paths, a .npy file, a tensor, a data set with __len__ and __getitem__, or a "
        f"DataLoader; got {type(given).__name__}."
    )


def _of_path(path: Path, loaded: Loaded, transform: Any) -> Source:
    if path.is_dir():
        names = sorted(
            (Path(base) / name).relative_to(path).as_posix()
            for base, _, inside in os.walk(path)
            for name in inside
            if name.lower().endswith(PICTURES)
        )
        if not names:
            raise InputError(f"the source {quoted(path)} is empty: it holds no pictures ({', '.join(PICTURES)}).")
        return _of_files([path / name for name in names], names, loaded, transform)
    if not path.is_file():
        raise InputError(f"there is no file or folder {quoted(path)}.")
    if path.suffix.lower() == ".npy":
        try:
            return _of_array(np.load(path, mmap_mode="r", allow_pickle=False))
        except (ValueError, OSError, EOFError) as error:
            raise InputError(f"{quoted(path)} is not an array that can be read: {error}.") from error
    return _of_files([path], [path.name], loaded, transform)


def _of_files(paths: Sequence[Path], keys: Sequence[str], loaded: Loaded, transform: Any) -> Source:
    def one(n: int) -> Item:
        if transform is None:
            return Item(read(paths[n], loaded)[0].inputs[0])
        from relprop.zoo.images import load_image

        return _item(transform(load_image(paths[n])))

    return Source("files", list(keys), one)


def _of_array(array: Any) -> Source:
    if array.ndim < 2:
        raise InputError(f"an array of samples has the samples first, (N, ...); got the shape {tuple(array.shape)}.")

    def one(n: int) -> Item:
        return Item(array[n] if isinstance(array, Tensor) else torch.from_numpy(np.array(array[n])))

    return Source("array", _numbers(len(array)), one)


def _of_loader(loader: Any) -> Source:
    """The data set of a loader, sample by sample, through its `collate_fn`."""
    dataset, sampler = loader.dataset, loader.sampler
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise InputError(
            "the DataLoader reads an iterable data set, whose samples have no number: pass a data set with one."
        )
    if not isinstance(sampler, SequentialSampler):
        raise InputError(
            f"the DataLoader takes its samples by a {type(sampler).__name__}: their order must be the same in every run, "
            "so that a run can continue where it stopped. Pass shuffle=False, or the data set itself."
        )
    collate = loader.collate_fn

    def one(n: int) -> Item:
        batch = collate([dataset[n]])
        if isinstance(batch, (list, tuple)) and len(batch) == 2:
            return Item(batch[0][0], _plain(batch[1][0]))
        return Item(batch[0])

    return Source("data set", _numbers(len(dataset)), one)


def _item(found: Any) -> Item:
    """A sample from what a data set gives: an input, or (input, label)."""
    label = None
    if isinstance(found, (list, tuple)) and len(found) == 2:
        found, label = found
    if isinstance(found, np.ndarray):
        found = torch.from_numpy(found)
    if not isinstance(found, Tensor):
        raise InputError(f"a sample is a tensor, or (tensor, label); got {type(found).__name__}.")
    return Item(found, _plain(label))


def _plain(label: Any) -> Any:
    return label.item() if hasattr(label, "item") else label


def _numbers(count: int) -> list[str]:
    return [str(n) for n in range(count)]


def _named(given: Any) -> str:
    return quoted(given) if isinstance(given, (str, os.PathLike)) else type(given).__name__
