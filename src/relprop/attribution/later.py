"""Tests of numbers that wait until the end of a call, so that a device is read once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from relprop.torch_private.recorded import recording


class Later:
    """Numbers that are still on their device, and what to do when they are known."""

    def __init__(self) -> None:
        self._asked: list[tuple[list[Tensor], Callable[[list[float]], None]]] = []

    def ask(self, numbers: Sequence[Tensor], then: Callable[[list[float]], None]) -> None:
        """Calls `then` with these numbers once they are read; never while a graph is recorded.

        Args:
            numbers: tensors of one number each.
            then: raises an error if a number is wrong, or notes something.
        """
        if not recording():
            self._asked.append(([n.detach() for n in numbers], then))

    def settle(self) -> None:
        """Reads all numbers, in one transfer for each device, and calls what waits for them, in order."""
        asked, self._asked = self._asked, []
        found = read([number for numbers, _ in asked for number in numbers])
        for numbers, then in asked:
            then(found[: len(numbers)])
            found = found[len(numbers) :]


def waits_for(device: torch.device) -> bool:
    """Whether Python waits for a device to read a number."""
    return device.type != "cpu"


def read(numbers: Sequence[Tensor]) -> list[float]:
    """Tensors of one number each as plain numbers."""
    of_device: defaultdict[torch.device, list[int]] = defaultdict(list)
    found = [0.0] * len(numbers)
    for n, number in enumerate(numbers):
        if not waits_for(number.device):  # joining them takes longer than reading each
            found[n] = float(number)
        else:
            of_device[number.device].append(n)
    for places in of_device.values():
        some = [numbers[n] for n in places]
        alike = all(number.dtype == some[0].dtype for number in some)
        dtype = torch.float64 if some[0].device.type != "mps" else torch.float32
        row = torch.stack(some if alike else [number.to(dtype) for number in some])
        for n, number in zip(places, row.tolist(), strict=True):
            found[n] = number
    return found
