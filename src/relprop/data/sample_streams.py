"""Sources that tell neither how many samples they have nor give one by its number: they are read from the start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch.utils.data import IterableDataset

from relprop.data.items import Item
from relprop.errors import InputError
from relprop.rendering.visible import quoted

KEY = "__key__"
"""The column that holds the key of a sample, if none is named."""


def is_stream(given: Any) -> bool:
    """Whether a source is an iterable without a length."""
    if isinstance(given, IterableDataset):
        return True
    return hasattr(given, "__iter__") and not hasattr(given, "__len__")


class SampleStream:
    """Samples that come one after the other. Those of one unit are held at a time, as they came.

    Args:
        given: what is iterated.
        item: makes a sample from what comes.
        key: a function from a sample's number to its key, or the name of a column; None takes the column `__key__` where
            there is one, else numbers.
        limit: the most samples that are taken.

    Attributes:
        kind: what it is, in a word.
        columns: the names of the columns of the first sample.
        keys: the keys of the samples that are held, by their numbers.
        end: the number of the first sample that was not yet taken.

    Raises:
        InputError: there is no sample, or `key` is neither.
    """

    def __init__(self, given: Any, item: Callable[[Any], Item], key: Any, limit: int | None) -> None:
        if key is not None and not isinstance(key, str) and not callable(key):
            raise InputError(
                "the source has no length: key= is then a function from a number, or the name of a column."
            )
        self.kind, self.end, self.limit = "iterable", 0, limit
        self.keys: dict[int, str] = {}
        self._rest: Iterator[Any] = iter(given)
        self._item, self._key = item, key
        self._held: dict[int, Any] = {}
        self._known: set[str] = set()
        if not self.take(1):
            raise InputError("the source is empty.")
        first = self._held[0]
        self.columns = [str(name) for name in first] if isinstance(first, Mapping) else []

    def take(self, count: int) -> int:
        """Takes samples until that many are held; says how many of them are, which is fewer at the end.

        Raises:
            InputError: the source raises an error, a key is missing, or two are equal.
        """
        while len(self._held) < count and (self.limit is None or self.end < self.limit):
            try:
                found = next(self._rest)
            except StopIteration:
                break
            except Exception as error:  # whatever a source raises: nothing tells whether it goes on
                raise InputError(
                    f"the source fails after sample {self.end - 1}: {type(error).__name__}: {error}. What is done stays."
                ) from error
            self.keys[self.end] = self._key_of(found)
            self._held[self.end] = found
            self.end += 1
        return min(len(self._held), count)

    def read(self, number: int) -> Item:
        """A sample that is held."""
        return self._item(self._held[number])

    def forget(self, before: int) -> None:
        """Lets go of the samples before a number."""
        for number in [n for n in self._held if n < before]:
            del self._held[number], self.keys[number]

    def _key_of(self, found: Any) -> str:
        name = self._key if isinstance(self._key, str) else KEY
        if isinstance(found, Mapping) and name in found:
            key = str(found[name])
        elif isinstance(self._key, str):
            raise InputError(f"sample {self.end} has no column {self._key!r}, and key= names it.")
        elif self._key is None:
            return str(self.end)
        else:
            key = str(self._key(self.end))
        if key in self._known:
            raise InputError(
                f"keys must differ, and these stand for several samples: {quoted(key)}. Give others with key=."
            )
        self._known.add(key)
        return key
