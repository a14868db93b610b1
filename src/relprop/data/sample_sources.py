"""Where samples come from. Each has a number, and a key that stays the same from run to run."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, SequentialSampler

from relprop.data.items import Item, Reading, plain
from relprop.data.sample_streams import SampleStream, is_stream
from relprop.data.tabular import TABLES, key_column, read_table
from relprop.data.tar_shards import read_shards
from relprop.data.text_samples import TextReading, texts_of
from relprop.errors import InputError
from relprop.loading.network import Loaded
from relprop.loading.samples import PICTURES, check_file, read
from relprop.rendering.visible import quoted
from relprop.zoo.images import load_image

_SHOWN = 3


@dataclass(frozen=True, eq=False)
class Source:
    """Samples in a fixed order.

    Attributes:
        kind: what it is, in a word.
        keys: the key of each sample.
        read: gives a sample by its number. It may be called from several threads.
        columns: the names of its columns, any of which may hold the targets.
        row: gives the columns of a sample without its input; None where that takes no less than reading it.
    """

    kind: str
    keys: Sequence[str]
    read: Callable[[int], Item]
    columns: Sequence[str] = ()
    row: Callable[[int], Mapping[str, Any]] | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def digest(self, count: int) -> str:
        """SHA-256 of the first keys in their order."""
        found = hashlib.sha256()
        for key in self.keys[:count]:
            found.update(f"{len(key)}:{key}".encode("utf-8", "surrogateescape"))
        return found.hexdigest()


def source_of(
    given: Any, loaded: Loaded, key: Any = None, transform: Any = None, column: Any = None, target: Any = None,
    max_length: int | None = None, limit: int | None = None,
) -> Source | SampleStream:  # fmt: skip
    """The source that an argument describes.

    Args:
        given: a folder, a list of paths, a table, tar files, a `.npy` file, a tensor, a data set, a `DataLoader`,
            or any iterable; for networks of text, what `texts_of` takes.
        loaded: the network, which says how its pictures or texts are read.
        key: the keys as a list, a function from a sample's number to its key, or the name of a column; None takes paths
            and numbers.
        transform: a function from a Pillow image to the network's input, instead of its own preprocessing.
        column: the column of a table or of dicts that holds the input, or a list of those that hold its numbers.
        target: the target of the run: a column of that name is not an input.
        max_length: texts are cut to this many tokens.
        limit: only so many of the first samples.

    Raises:
        InputError: it is none of these, it is empty, it shuffles, or two keys are equal.
    """
    if (
        column is not None
        and not isinstance(column, str)
        and not (isinstance(column, (list, tuple)) and column and all(isinstance(one, str) for one in column))
    ):
        raise InputError(f"column is the name of a column, or a list of names; got {column!r}.")
    if isinstance(given, str) and "://" in given:
        raise InputError(
            f"sources are on this machine's file systems; got {given!r}. Mount it, or pass an iterable that reads from there."
        )
    texts = None if loaded.tokenizer is None else TextReading(loaded.tokenizer, max_length, column)
    if texts is not None and transform is not None:
        raise InputError("transform= is for pictures, and the network reads text.")
    reading = Reading(loaded, transform, column)
    if isinstance(given, DataLoader) and is_stream(given.dataset):
        return SampleStream(given.dataset, partial(_collated, given.collate_fn), key, limit)
    if not isinstance(given, DataLoader) and is_stream(given):
        return SampleStream(given, (texts or reading).item, key, limit)
    found = Source(*texts_of(given, texts)) if texts is not None else _found(given, reading, target)
    if not len(found):
        raise InputError(f"the source {_named(given)} is empty.")
    if key is not None:
        if isinstance(key, str):
            row = found.row or (lambda n: found.read(n).columns)
            keys = key_column(key, found.columns, row, len(found))
        else:
            keys = [str(key(n)) for n in range(len(found))] if callable(key) else [str(one) for one in key]
        if len(keys) != len(found):
            raise InputError(f"key= has {len(keys)} keys, and the source {len(found)} samples.")
        found = Source(found.kind, keys, found.read, found.columns)
    twice = [name for name, count in Counter(found.keys).items() if count > 1]
    if twice:
        names = ", ".join(map(quoted, twice[:_SHOWN]))
        raise InputError(f"keys must differ, and these stand for several samples: {names}. Give others with key=.")
    return found if limit is None else Source(found.kind, found.keys[:limit], found.read, found.columns, found.row)


def _found(given: Any, reading: Reading, target: Any) -> Source:
    if isinstance(given, (str, os.PathLike)):
        return _of_path(Path(given), reading, target)
    if isinstance(given, (list, tuple)) and given and all(isinstance(one, (str, os.PathLike)) for one in given):
        if all(str(one).lower().endswith(".tar") for one in given):
            return _of_shards([Path(one) for one in given], reading)
        return _of_files([Path(one) for one in given], [str(one) for one in given], reading)
    if isinstance(given, (Tensor, np.ndarray)):
        return _of_array(given)
    if isinstance(given, DataLoader):
        return _of_loader(given)
    if hasattr(given, "__getitem__") and hasattr(given, "__len__") and not isinstance(given, dict):
        columns = getattr(given, "column_names", None)  # of a data set of Hugging Face
        names = columns if isinstance(columns, list) else []
        return Source("data set", _numbers(len(given)), lambda n: reading.item(given[n]), names)
    raise InputError(
        "a source is a folder, a list of paths, a table (.csv, .jsonl, .parquet), tar files, a .npy file, a tensor, a data "
        f"set with __len__ and __getitem__, a DataLoader, or an iterable; got {type(given).__name__}."
    )


def _of_path(path: Path, reading: Reading, target: Any) -> Source:
    if path.is_dir():
        names = sorted(
            (Path(base) / name).relative_to(path).as_posix()
            for base, _, inside in os.walk(path)
            for name in inside
            if name.lower().endswith(PICTURES)
        )
        if not names:
            raise InputError(f"the source {quoted(path)} is empty: it holds no pictures ({', '.join(PICTURES)}).")
        return _of_files([path / name for name in names], names, reading)
    if not path.is_file():
        raise InputError(f"there is no file or folder {quoted(path)}.")
    if path.suffix.lower() == ".npy":
        try:
            return _of_array(np.load(path, mmap_mode="r", allow_pickle=False))
        except (ValueError, OSError, EOFError) as error:
            raise InputError(f"{quoted(path)} is not an array that can be read: {str(error).rstrip('.')}.") from error
    if path.suffix.lower() in TABLES:
        return Source(*read_table(path, reading, target))
    if path.suffix.lower() == ".tar":
        return _of_shards([path], reading)
    return _of_files([path], [path.name], reading)


def _of_shards(paths: Sequence[Path], reading: Reading) -> Source:
    keys, one = read_shards(paths, reading)
    return Source("tar files", keys, one, ["label"])


def _of_files(paths: Sequence[Path], keys: Sequence[str], reading: Reading) -> Source:
    def one(n: int) -> Item:
        if reading.transform is None and paths[n].suffix.lower() not in PICTURES:
            return Item(read(paths[n], reading.loaded)[0].inputs[0])
        check_file(paths[n])
        return Item(reading.picture(load_image(paths[n])))

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
    if not isinstance(sampler, SequentialSampler):
        raise InputError(
            f"the DataLoader takes its samples by a {type(sampler).__name__}: their order must be the same in every run, "
            "so that a run can continue where it stopped. Pass shuffle=False, or the data set itself."
        )

    def one(n: int) -> Item:
        return _collated(loader.collate_fn, dataset[n])

    return Source("data set", _numbers(len(dataset)), one)


def _collated(collate: Callable[[Any], Any], found: Any) -> Item:
    """A sample as the only one of a batch that a loader makes."""
    batch = collate([found])
    if isinstance(batch, (list, tuple)) and len(batch) == 2:
        return Item(batch[0][0], plain(batch[1][0]))
    return Item(batch[0])


def _numbers(count: int) -> list[str]:
    return [str(n) for n in range(count)]


def _named(given: Any) -> str:
    return quoted(given) if isinstance(given, (str, os.PathLike)) else type(given).__name__
