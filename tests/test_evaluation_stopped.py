"""Whatever stops an evaluation, the model, its hooks and the random state are as before, to the byte."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import DeepLift
from torch import Tensor, nn

import relprop
from networks import normalised
from relprop.evaluation.metrics import METRICS


class Failing(nn.Module):
    """Raises an error at a call of the model or of any copy of it."""

    calls = 0
    at = -1
    error: type[BaseException] = ValueError

    def __init__(self) -> None:
        super().__init__()
        self.inner = normalised()
        self.inner[0].register_forward_hook(lambda *args: None)
        self.inner[3].weight.requires_grad_(False)
        self.inner[9].weight.grad = torch.ones_like(self.inner[9].weight)

    def forward(self, x: Tensor) -> Tensor:
        found = self.inner(x)
        Failing.calls += 1
        if Failing.calls == Failing.at:
            torch.rand(1), np.random.rand(), random.random()
            raise Failing.error("stopped")
        return found


def everything(model: nn.Module) -> Any:
    """All that a model holds, and the states of all generators, in bytes."""
    tensors = [(name, t.detach().numpy().tobytes(), t._version) for name, t in model.state_dict(keep_vars=True).items()]
    parameters = [
        (id(p), p.requires_grad, None if p.grad is None else p.grad.numpy().tobytes()) for p in model.parameters()
    ]
    tables = [
        {name: dict(value) if isinstance(value, dict) else id(value) for name, value in vars(module).items()}
        for module in model.modules()
    ]
    numbers = np.random.get_state()
    chance = torch.get_rng_state().numpy().tobytes(), random.getstate(), numbers[1].tobytes(), numbers[2:]
    return tensors, parameters, tables, chance


def evaluation_of(metric: str) -> Callable[[nn.Module], Any]:
    truth = torch.zeros(3, 8, 8, dtype=torch.bool)
    truth[:, 2:5] = True
    options: dict[str, Any] = {"units": ("patches", 4), "truth": truth, "replace": ["mean", "road"], "batch_size": 2}
    if metric == "reliability":
        options["of"] = "probability"

    def run(model: nn.Module) -> Any:
        x = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(2))
        return relprop.evaluate(model, x, 0, ["auto", DeepLift(model)], metrics=metric, **options)

    return run


def pictures() -> Tensor:
    return torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(2))


CALLS: dict[str, Callable[[nn.Module], Any]] = {
    **{metric: evaluation_of(metric) for metric in METRICS},
    "search": lambda model: relprop.search(model, pictures(), space={"conv": [relprop.Zero(), relprop.ZPlus()]}),
    "sanity": lambda model: relprop.sanity(model, pictures(), 0, methods=["auto"]),
}


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")  # DeepLift's own
@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("call", list(CALLS))
def test_all_is_as_before_when_it_stops_in_the_middle(
    call: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Failing().eval()
    monkeypatch.setattr(Failing, "error", error)
    monkeypatch.setattr(Failing, "calls", 0)
    before = everything(model)
    CALLS[call](model)
    assert everything(model) == before
    whole = Failing.calls
    assert whole > 3
    for at in sorted({1, 3, whole // 3, whole // 2, whole - 1, whole} - {0}):
        monkeypatch.setattr(Failing, "calls", 0)
        monkeypatch.setattr(Failing, "at", at)
        with pytest.raises(error):
            CALLS[call](model)
        assert everything(model) == before, at


@pytest.mark.slow
def test_killed_evaluations_lose_one_batch_at_most(tmp_path: Path) -> None:
    script = Path(__file__).with_name("killed_evaluations.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "5"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
