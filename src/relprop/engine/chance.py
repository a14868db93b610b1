"""Random numbers that a model draws. They show in generators that moved, and in a different output on the next call."""

from __future__ import annotations

import ctypes
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from relprop.engine.undo import Undo

State = list[tuple[Callable[[Any], object], Any]]


class Chance:
    """The generators of a run.

    Attributes:
        generators: the generators that the model was seen to use, by identity.
        random: the states of all generators when the last checkpointed block began.
    """

    def __init__(self) -> None:
        self.generators: dict[int, torch.Generator] = {}
        self.random: State = []

    def uses(self, generator: torch.Generator) -> None:
        """Notes a generator that the model was seen to use."""
        self.generators[id(generator)] = generator

    def block(self, state: State) -> None:
        """Notes the states of all generators where a checkpointed block begins."""
        self.random = state


def state(devices: Iterable[torch.device], generators: Iterable[torch.Generator] = ()) -> State:
    """The generators that a model may draw from, each as a function that sets its state, and that state."""
    found: State = [(torch.set_rng_state, torch.get_rng_state()), (random.setstate, random.getstate())]
    found += _of_devices(devices)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        found.append((numpy.random.set_state, numpy.random.get_state()))
    found += [(g.set_state, g.get_state()) for g in generators]
    return found


def standing(devices: Iterable[torch.device]) -> list[Any]:
    """Values that change when one of the generators is drawn from. They are quicker to get than `state`.

    One draw does not show: that of the spare normal number which NumPy's older functions keep after every other one.
    """
    stood = torch.get_rng_state()
    found: list[Any] = [ctypes.string_at(stood.data_ptr(), stood.numel())]
    found.append(random.getstate())
    found += [now for _, now in _of_devices(devices)]
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        generator: Any = getattr(numpy.random, "get_bit_generator", lambda: None)()
        words = type(generator).__name__ == "MT19937"  # get_state makes a Python number of each of its 624 words
        found.append(ctypes.string_at(generator.ctypes.state_address, _WORDS) if words else numpy.random.get_state())
    return found


_WORDS = 4 * 625
"""The bytes of NumPy's usual generator: 624 words, and the position."""


def drawn_from(before: list[Any], after: list[Any]) -> bool:
    """Whether the values of `standing` changed."""
    return len(before) != len(after) or not all(map(_same, before, after))


def _of_devices(devices: Iterable[torch.device]) -> State:
    found: State = []
    for device in {d for d in devices if d.type not in ("cpu", "meta")}:
        module = torch.get_device_module(device)
        if hasattr(module, "get_rng_state"):
            args = (device,) if device.index is not None else ()
            found.append((partial(_set_device, module, args), module.get_rng_state(*args)))
    return found


def _set_device(module: Any, args: tuple, where: Any) -> None:
    module.set_rng_state(where, *args)


def moved(before: State, after: State) -> bool:
    """Whether the state of a generator changed."""
    return any(not _same(a, b) for (_, a), (_, b) in zip(before, after, strict=True))


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    try:
        return bool(a == b)  # Python's own state: hundreds of numbers
    except ValueError:  # NumPy's state, which contains an array
        pairs = zip(a, b, strict=True)
        return all(bool((x == y).all()) if hasattr(x, "all") else bool(x == y) for x, y in pairs)


def put(where: State) -> None:
    """Sets the generators back to these states."""
    for setter, stood in where:
        setter(stood)


@contextmanager
def undisturbed(devices: Iterable[torch.device], generators: Iterable[torch.Generator] = ()) -> Iterator[None]:
    """A context after which the generators are in the same state as before."""
    before = state(devices, generators)
    with Undo() as undo:
        undo.later(lambda: put(before))
        yield
