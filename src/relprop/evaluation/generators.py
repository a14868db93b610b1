"""Generators of our own: one per sample and purpose, so that a sample gets the same noise alone or among others."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def seed_of(seed: int, purpose: str, fingerprint: bytes = b"") -> int:
    """A seed of 63 bits."""
    digest = hashlib.sha256(f"{seed}\0{purpose}\0".encode() + fingerprint).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, purpose: str, fingerprint: bytes = b"") -> torch.Generator:
    """A generator on the CPU, for a purpose and a sample."""
    return torch.Generator().manual_seed(seed_of(seed, purpose, fingerprint))


def chance() -> tuple[Any, ...]:
    """The states of all generators that a function of the user's may draw from."""
    numpy = sys.modules.get("numpy")
    kept = numpy.random.get_state() if numpy is not None else None
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    return torch.get_rng_state(), cuda, random.getstate(), kept


def same(before: tuple[Any, ...], after: tuple[Any, ...]) -> bool:
    """Whether nothing was drawn between two states."""
    if not torch.equal(before[0], after[0]) or before[2] != after[2]:
        return False
    if any(not torch.equal(a, b) for a, b in zip(before[1], after[1], strict=False)):
        return False
    a, b = before[3], after[3]
    return a is None or b is None or (a[0] == b[0] and bool((a[1] == b[1]).all()) and a[2:] == b[2:])


def restore(state: tuple[Any, ...]) -> None:
    """Sets all generators back."""
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])
    random.setstate(state[2])
    numpy = sys.modules.get("numpy")
    if numpy is not None and state[3] is not None:
        numpy.random.set_state(state[3])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """All generators start from a seed inside, and are as before afterwards."""
    before = chance()
    try:
        torch.manual_seed(seed)
        random.seed(seed)
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            numpy.random.seed(seed % 2**32)
        yield
    finally:
        restore(before)
