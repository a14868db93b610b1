"""The atlas: each region belongs to the unit whose conditional map has most relevance there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import relprop
from relprop import units
from relprop.errors import InputError


@pytest.fixture(scope="module")
def index() -> Any:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 4, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 3),
    ).eval()
    return relprop.index(net, [(torch.rand(1, 12, 12), n % 3) for n in range(9)], layers=["0"], keep=4)


def test_regions_by_hand(index: Any, tmp_path: Path) -> None:
    x = index.dataset[4][0][None]
    A = relprop.atlas(index, x, 1, most=3, grid=4)
    whole = relprop.attribute(index.model, x, 1, layers=["0"]).layers["0"][0].sum((1, 2))
    assert A.units == whole.abs().argsort(descending=True)[:3].tolist() and A.regions.shape == (4, 4)
    maps = torch.stack([relprop.attribute(index.model, x, 1, through=units("0")[u]).values[0, 0] for u in A.units])
    sums = maps.reshape(3, 4, 3, 4, 3).sum((2, 4))
    torch.testing.assert_close(A.values.float() * 9, sums, rtol=1e-4, atol=1e-5)
    ruled = A.regions >= 0
    assert bool(ruled.any()) and torch.equal(A.regions[ruled], sums.argmax(0)[ruled])
    for name in ("a.svg", "a.png", "a.pdf"):
        A.save(tmp_path / name)
    assert f"unit {A.units[int(A.regions[ruled][0])]}" in (tmp_path / "a.svg").read_text()
    with pytest.raises(InputError, match="an atlas is saved as"):
        A.save(tmp_path / "a.txt")


def test_errors(index: Any, tmp_path: Path) -> None:
    x = index.dataset[0][0][None]
    for call, says in (
        (lambda: relprop.atlas(index.model, x), "takes an index"),
        (lambda: relprop.atlas(index, x[0]), "of one picture"),
        (lambda: relprop.atlas(index, x, most=11), "most must be an int from 1 to 10"),
        (lambda: relprop.atlas(index, x, grid=13), "grid must be an int from 1 to 12"),
        (lambda: relprop.atlas(index, x, layer="1"), "has no layer '1'"),
    ):
        with pytest.raises(InputError, match=says):
            call()
    index.save(tmp_path / "index")
    with pytest.raises(InputError, match="needs the model"):
        relprop.atlas(relprop.load_index(tmp_path / "index"), x)
