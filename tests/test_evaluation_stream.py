"""Rows are told apart by keys of four integers: against a dict, and where hashes collide."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from relprop.evaluation import known_scores
from relprop.evaluation.asks import Changed
from relprop.evaluation.known_scores import KnownScores, distinct


def keys(rows: int, most: int) -> Tensor:
    """Few different ones, so that many are equal; some differ in the last place alone."""
    return torch.randint(-most, most, (rows, 4)) * torch.tensor([1, 1, 2**61, 2**62 - 1])


@pytest.mark.parametrize("collide", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 7, 300])
def test_the_first_of_equal_keys_stands_for_all(rows: int, collide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if collide:
        monkeypatch.setattr(known_scores, "hashed", lambda given: torch.zeros(len(given), dtype=torch.long))
    given = keys(rows, 2)
    first, group = distinct(given)
    assert torch.equal(given[first][group], given)
    assert first.tolist() == sorted(first.tolist())
    if not collide:
        seen = {tuple(key): row for row, key in reversed(list(enumerate(given.tolist())))}
        assert first.tolist() == sorted(seen.values())


@pytest.mark.parametrize("collide", [False, True])
def test_known_scores_are_those_of_a_dict(collide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if collide:
        monkeypatch.setattr(known_scores, "hashed", lambda given: given[:, 0].contiguous())
    known, table = KnownScores(), {}
    for rows in (5, 200, 1, 0, 30, 1000, 3, 2):
        given = keys(rows, 4)
        first, _ = distinct(given)
        found = known.find(given[first])
        wanted = torch.tensor(
            [table.get(tuple(key), float("nan")) for key in given[first].tolist()], dtype=torch.float64
        )
        if not collide:
            torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)
        right = found.isnan() | (found == wanted)  # a collision may forget a score, and never takes that of another
        assert bool(right.all())
        new = found.isnan()
        values = given[first][new].double().sum(1)
        known.add(given[first][new], values)
        table |= {tuple(key): float(value) for key, value in zip(given[first][new].tolist(), values, strict=True)}


def test_rows_of_a_sample_that_are_made_otherwise_are_numbered() -> None:
    ask = Changed(torch.tensor([2, 0, 2, 1, 2, 0]), lambda rows: rows, "something")
    found = ask.keys()
    assert found[:, 0].tolist() == [0, 0, 1, 0, 2, 1]
    assert len(found[:, 1].unique()) == 1
    assert not torch.equal(found, Changed(ask.samples, ask.make, "something else").keys())
