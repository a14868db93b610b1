"""Ids that are written over: relevance goes to where an id came from, none to where a constant took its place."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import relprop

torch.manual_seed(0)
TABLE = torch.randn(10, 4, dtype=torch.float64)
OUT = torch.randn(4, 3, dtype=torch.float64)
IDS = torch.tensor([[1, 2, 3], [4, 5, 6]])
PLACES = torch.arange(1.0, 6.0, dtype=torch.float64)
"""What each step of the sequence counts, so that no two can be taken for each other."""

ZERO = torch.zeros(2, 1, dtype=torch.int64)
SEVEN = torch.full((2, 1), 7)


def write(into: Callable[[Tensor], object]) -> Callable[[Tensor], Tensor]:
    """A model's step that writes into a copy of its ids."""

    def step(ids: Tensor) -> Tensor:
        copy = ids.clone()
        into(copy)
        return copy

    return step


def buffer(ids: Tensor) -> Tensor:
    made = torch.zeros(2, 5, dtype=torch.int64)
    made[:, 1:4].copy_(ids)
    return made


def nested(ids: Tensor) -> Tensor:
    made = ids.clone()
    made[0][1:] = ids[0][:-1]
    return made


# step, and for each entry of its result the flat position in IDS that it came from, None for a constant
STEPS: dict[str, tuple[Callable[[Tensor], Tensor], list[int | None]]] = {
    "fill_ of a view": (write(lambda i: i[:, 0].fill_(3)), [None, 1, 2, None, 4, 5]),
    "setitem": (write(lambda i: i.__setitem__((slice(None), 0), 3)), [None, 1, 2, None, 4, 5]),
    "setitem in a view": (nested, [0, 0, 1, 3, 4, 5]),
    "index_fill": (lambda i: i.index_fill(1, torch.tensor([0]), 3), [None, 1, 2, None, 4, 5]),
    "index_copy": (lambda i: i.index_copy(1, torch.tensor([0]), SEVEN), [None, 1, 2, None, 4, 5]),
    "scatter of a constant": (lambda i: i.scatter(1, ZERO, 3), [None, 1, 2, None, 4, 5]),
    "scatter of ids": (lambda i: i.scatter(1, ZERO, i[:, 1:2]), [1, 1, 2, 4, 4, 5]),
    "scatter by name": (lambda i: i.scatter(1, ZERO, src=i[:, 1:2]), [1, 1, 2, 4, 4, 5]),
    "put": (lambda i: i.put(torch.tensor([0]), torch.tensor([7])), [None, 1, 2, 3, 4, 5]),
    "masked_scatter": (lambda i: i.masked_scatter(i > 4, torch.tensor([7, 8])), [0, 1, 2, 3, None, None]),
    "select_scatter": (lambda i: i.select_scatter(SEVEN[:, 0], 1, 0), [None, 1, 2, None, 4, 5]),
    "slice_scatter": (lambda i: i.slice_scatter(i[:, :2], 1, 1), [0, 0, 1, 3, 3, 4]),
    "copy_ of ids": (write(lambda i: i.copy_(i.flip(1))), [2, 1, 0, 5, 4, 3]),
    "copy_ into a view": (write(lambda i: i[:, 1:].copy_(i[:, :-1].clone())), [0, 0, 1, 3, 3, 4]),
    "copy_ into a new buffer": (buffer, [None, 0, 1, 2, None, None, 3, 4, 5, None]),
    "pad": (lambda i: F.pad(i, (1, 0), value=3), [None, 0, 1, 2, None, 3, 4, 5]),
    "tril": (lambda i: i.tril(), [0, None, None, 3, 4, None]),
    "where of two": (lambda i: torch.where(i > 4, i.flip(1), i), [0, 1, 2, 3, 4, 3]),
}


@pytest.mark.parametrize("step, origins", STEPS.values(), ids=STEPS)
def test_relevance_goes_to_where_an_id_came_from(step: Callable[[Tensor], Tensor], origins: list[int | None]) -> None:
    def model(ids: Tensor) -> Tensor:
        rows = F.embedding(step(ids), TABLE)
        return (rows * PLACES[: rows.shape[1], None]).sum(1) @ OUT

    rows = TABLE[step(IDS)]
    per_entry = (rows * PLACES[: rows.shape[1], None] @ OUT)[..., 1].flatten()  # linear: LRP-0 is each row's own part
    expected = torch.zeros(IDS.numel(), dtype=torch.float64)
    for origin, part in zip(origins, per_entry, strict=True):
        if origin is not None:
            expected[origin] += part
    found = relprop.attribute(model, IDS, 1, composite="zero").values
    torch.testing.assert_close(found, expected.reshape(IDS.shape))


def test_writing_into_a_copy_leaves_the_ids_their_positions() -> None:
    def model(ids: Tensor) -> Tensor:
        ids.clone().fill_(3)
        return F.embedding(ids, TABLE).sum(1) @ OUT

    expected = (TABLE[IDS] @ OUT)[..., 1]
    torch.testing.assert_close(relprop.attribute(model, IDS, 1, composite="zero").values, expected)


def test_ids_that_became_other_numbers_carry_nothing() -> None:
    def model(ids: Tensor) -> Tensor:
        counted = ids.clone().remainder_(2)
        counted[0].cumsum_(0)
        return (F.embedding(counted, TABLE) + F.embedding(ids, TABLE)).sum(1) @ OUT

    counted = IDS.remainder(2)
    counted[0].cumsum_(0)
    hashed = (TABLE[counted] @ OUT)[..., 1]
    hashed[0] = 0
    expected = (TABLE[IDS] @ OUT)[..., 1] + hashed
    torch.testing.assert_close(relprop.attribute(model, IDS, 1, composite="zero").values, expected)
