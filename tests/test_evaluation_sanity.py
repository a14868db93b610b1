"""`relprop.sanity`: networks whose truth is built in, or trained in; and checks of the model at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from networks import convolutional
from relprop.errors import InputError
from relprop.evaluation import Sanity
from relprop.evaluation.memory import BatchSize
from relprop.evaluation.planted.built import BUILT
from relprop.evaluation.planted.trained import OBEYED, planted
from relprop.evaluation.subject import subject
from test_evaluation import same_state, state


@pytest.mark.parametrize("kind", list(BUILT))
def test_a_built_network_reads_what_it_says(kind: str) -> None:
    """Nothing else changes the score, and what it reads does."""
    task = BUILT[kind](6, torch.Generator().manual_seed(0))
    truth = task.truth
    while truth.ndim < task.inputs.ndim:
        truth = truth.unsqueeze(1)
    truth = truth.expand_as(task.inputs)
    score = task.model(task.inputs)[:, 0].detach()
    noise = torch.rand_like(task.inputs)
    flags = torch.zeros_like(truth)
    if kind == "recurrent":
        flags[..., 1] = True  # what marks a step stays
    elif kind == "attention":
        flags[..., 0] = True
    elsewhere = torch.where(truth | flags, task.inputs, noise)
    there = torch.where(truth & ~flags, task.inputs + 1, task.inputs)
    torch.testing.assert_close(task.model(elsewhere)[:, 0].detach(), score, rtol=1e-6, atol=1e-6)
    assert bool(((task.model(there)[:, 0].detach() - score).abs() > 0.05).all())


def test_composites_on_built_networks() -> None:
    found = relprop.sanity("built", methods=["auto", "zero", "epsilon_plus_flat", "random"])
    by = {(check.name.partition(":")[0], check.method): check for check in found.checks}
    assert all(by[kind, name].passed for kind in BUILT for name in ("auto", "zero"))
    assert by["dense", "epsilon_plus_flat"].passed is False  # a flat layer reads every feature
    assert by["dense", "random"].passed is False
    assert not found.passed
    assert relprop.sanity("attention").passed


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten())
        self.head = nn.Linear(8 * 49, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def test_a_planted_patch_is_learned_and_found() -> None:
    model, x = Small().eval(), 0.3 * torch.rand(12, 3, 28, 28)
    x[0, 0, 0, 0] = 1.0  # what is planted ranges from the smallest to the largest value there is
    before, chance = state(model), torch.get_rng_state()
    found = relprop.sanity(model, x, methods=["auto", "edges", lambda inputs, targets: inputs])
    assert same_state(before, state(model)) and torch.equal(chance, torch.get_rng_state())
    by = {(check.name, check.method): check for check in found.checks}
    patch = by["a planted patch", "auto"]
    assert patch.passed, patch.said
    assert patch.map is not None and patch.truth is not None and patch.map.shape == patch.truth.shape == (28, 28)
    assert by["a planted patch", "<lambda>"].passed is None and "tied" in by["a planted patch", "<lambda>"].said
    assert by["the same twice", "auto"].passed
    assert by["moves when weights are random", "auto"].passed
    assert by["moves when weights are random", "edges"].passed is None


def test_a_task_that_is_not_learned_is_left_out() -> None:
    class Blind(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(1, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(0 * x.flatten(1)[:, :1])

    made = subject(Blind().eval(), torch.rand(6, 3, 14, 14), 0)
    made.measure(BatchSize(8))
    assert f"less than {OBEYED:.0%}" in planted(made, 0).why


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(30, 16), nn.Linear(16, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        mask = attention_mask[..., None].to(self.head.weight.dtype)
        return self.head((self.table(input_ids) * mask).sum(1))


def test_a_planted_word_is_found() -> None:
    ids = torch.randint(1, 29, (12, 9))
    ids[0, 0] = 29  # the trigger is the largest id there is
    inputs = {"input_ids": ids, "attention_mask": torch.ones(12, 9, dtype=torch.long)}
    found = relprop.sanity(Words().eval(), inputs, methods=["zero"])
    word = next(check for check in found.checks if check.name == "a planted word")
    assert word.passed, word.said


def test_two_objects_side_by_side() -> None:
    class Quadrants(nn.Module):
        """Sees red and green, wherever they are."""

        def forward(self, x: Tensor) -> Tensor:
            return torch.nn.functional.relu(x).sum((2, 3))

    x = torch.zeros(8, 3, 14, 14)
    x[:4, 0, 4:10, 4:10] = 1
    x[4:, 1, 4:10, 4:10] = 1
    found = relprop.sanity(Quadrants(), x, methods=["zero", "random"])
    by = {(check.name, check.method): check for check in found.checks}
    assert by["two objects side by side", "zero"].passed
    assert by["two objects side by side", "zero"].value == 1.0
    assert by["two objects side by side", "random"].passed is False
    assert by["a planted patch", "zero"].passed is None  # there is no head to train


def test_a_method_that_is_never_the_same_is_red() -> None:
    calls = [0]

    def moody(inputs: Tensor, targets: Any) -> Tensor:
        calls[0] += 1
        return inputs * calls[0]

    found = relprop.sanity(convolutional(), torch.rand(4, 3, 8, 8), methods=[moody])
    assert found.checks[0].name == "the same twice" and found.checks[0].passed is False


def test_pages_and_folders(tmp_path: Path) -> None:
    found = relprop.sanity("built", methods=["auto", "gamma_flat"])
    for name in ("s.png", "s.svg", "s.html", "s.json"):
        found.save(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 500
    assert "FAILED" in repr(found) and "passed" in repr(found)
    pytest.importorskip("safetensors")
    found.save(tmp_path / "kept")
    again = relprop.load(tmp_path / "kept")
    assert isinstance(again, Sanity) and repr(again) == repr(found) and again.passed is found.passed


def test_bad_input() -> None:
    with pytest.raises(InputError, match="no kind 'cnn'"):
        relprop.sanity("cnn")
    with pytest.raises(InputError, match="inputs of its own"):
        relprop.sanity("dense", torch.rand(2, 16))
    with pytest.raises(InputError, match="sanity needs inputs"):
        relprop.sanity(convolutional())
