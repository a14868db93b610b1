"""How many calls of Python one explanation takes on networks so small that they are what it costs.

Calls are counted, not seconds: the figures do not depend on the machine. Torch's own calls are left out, as they differ
between versions. A figure that shrinks by a tenth is written down anew, so that it cannot grow back unnoticed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import nn

import relprop
from relprop.engine import eager, mode

ROOT = str(Path(relprop.__file__).parent)


def mlp(layers: int, width: int) -> nn.Module:
    hidden = [part for _ in range(layers - 1) for part in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(width, 5)).eval().requires_grad_(False)


def conv() -> nn.Module:
    parts = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5)
    return nn.Sequential(*parts).eval().requires_grad_(False)


NETWORKS = {
    "five": (lambda: mlp(5, 16), (1, 16)),
    "ten": (lambda: mlp(10, 32), (1, 32)),
    "conv": (conv, (1, 1, 8, 8)),
}
MOST = {
    ("five", "zero"): 582, ("five", "epsilon"): 806, ("five", "auto"): 957,
    ("ten", "zero"): 777, ("ten", "epsilon"): 1226, ("ten", "auto"): 1537,
    ("conv", "zero"): 537, ("conv", "epsilon"): 646, ("conv", "auto"): 714,
}  # fmt: skip


def calls(network: str, composite: str) -> int:
    """The calls of relprop's functions, comprehensions and generators in one explanation; the first ones may cost more."""
    torch.manual_seed(0)
    build, shape = NETWORKS[network]
    model, x, count = build(), torch.randn(shape), 0

    def met(frame: FrameType, event: str, _: Any) -> None:
        nonlocal count
        count += event == "call" and frame.f_code.co_filename.startswith(ROOT)

    for _ in range(3):
        relprop.attribute(model, x, 0, composite=composite)
    before = sys.getprofile()
    sys.setprofile(met)
    try:
        relprop.attribute(model, x, 0, composite=composite)
    finally:
        sys.setprofile(before)
    return count


@pytest.fixture(autouse=True)
def without_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once another test has loaded torch's compiler, each explanation switches it off, in five more calls."""
    monkeypatch.setattr(eager, "compiler_loaded", lambda: False)


@pytest.mark.parametrize(("network", "composite"), MOST)
def test_an_explanation_takes_no_more_calls_than_it_did(network: str, composite: str) -> None:
    most, count = MOST[network, composite], calls(network, composite)
    assert 0.9 * most < count <= most


def test_the_count_of_calls_notices_one_more_per_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    handle, before = mode.handle, calls("ten", "zero")
    monkeypatch.setattr(mode, "handle", lambda call: handle(call) if call.way is not None else None)
    assert calls("ten", "zero") == before + 20  # one property of the package's own, at each of the operations
