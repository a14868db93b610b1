"""`relprop.search`: a race on one half of the samples, a test on the other, and code to paste."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from networks import ResNet, convolutional, mlp, normalised
from relprop.errors import InputError
from relprop.evaluation.paired_statistics import mean, standard_error
from relprop.evaluation.racing import BEHIND, Race, finalists, halved
from relprop.evaluation.search import _verdict
from relprop.evaluation.space import Choice, Space, space_of
from test_evaluation import same_state, state


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 6, batch_first=True), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def series() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(4, 8, 5),
        nn.ReLU(),
        nn.Conv1d(8, 8, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    ).eval()


NETWORKS: dict[str, Any] = {
    "convolutional": (convolutional, (3, 8, 8), {"units": ("patches", 2)}),
    "normalised": (normalised, (3, 8, 8), {"units": ("patches", 2)}),
    "resnet": (ResNet, (3, 16, 16), {"units": ("patches", 4)}),
    "series": (series, (4, 20), {}),
    "mlp": (lambda: mlp(3, 10), (10,), {}),
    "recurrent": (
        lambda: Recurrent().eval(),
        (8, 3),
        {"units": torch.arange(8)[None, :, None], "replace": ["mean", 0.0]},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(NETWORKS))
def test_the_best_is_never_clearly_below_auto_on_fresh_samples(name: str) -> None:
    make, shape, options = NETWORKS[name]
    torch.manual_seed(1)
    model = make()
    x, fresh = torch.rand(40, *shape), torch.rand(40, *shape)
    S = relprop.search(model, x, **options)
    E = relprop.evaluate(model, fresh, None, {"auto": "auto", "best": S.best}, free=(), **options)
    gain = E["abpc"][1] - E["abpc"][0]
    assert float(gain.mean()) >= -float(gain.std() / 40**0.5) - 1e-12
    if not S.chosen:
        torch.testing.assert_close(gain, torch.zeros_like(gain), rtol=0, atol=1e-5)


def test_the_race_finds_what_the_grid_finds_with_fewer_evaluations() -> None:
    model, x = convolutional(), torch.rand(40, 3, 8, 8)
    options: dict[str, Any] = {"units": ("patches", 2), "replace": ["mean", "blur"]}
    S = relprop.search(model, x, **options)
    space = space_of("auto", {"conv", "linear"}, 4, x, None, False)
    E = relprop.evaluate(model, x, None, {"auto": "auto", **space.grid()}, free=(), **options)
    gains = (E["abpc"][1:] - E["abpc"][0]).mean(1)
    assert S.of == len(space) * 40
    assert S.evaluations <= 0.35 * S.of
    found = relprop.evaluate(model, x, None, {"auto": "auto", "best": S.best}, free=(), **options)["abpc"]
    assert float((found[1] - found[0]).mean()) >= 0.8 * float(gains.max())


@pytest.mark.slow
@pytest.mark.parametrize("name", list(NETWORKS))
def test_the_leader_of_the_race_has_the_gain_of_the_best_of_the_grid(name: str) -> None:
    make, shape, options = NETWORKS[name]
    torch.manual_seed(1)
    model, x = make(), torch.rand(40, *shape)
    S = relprop.search(model, x, **options)
    grid = {each.name: each.composite for each in S.candidates if each.name != "auto"}
    E = relprop.evaluate(model, x, None, {"auto": "auto", **grid}, free=(), **options)
    gains = dict(zip(grid, E["abpc"][1:] - E["abpc"][0], strict=True))
    assert S.evaluations <= 0.35 * S.of
    best = max(gains.values(), key=mean)
    if mean(best) > 2 * standard_error(best):  # else there is nothing to find
        leader = next(each.name for each in S.candidates if each.name != "auto")
        assert mean(gains[leader]) >= 0.8 * mean(best)


def test_what_is_printed_makes_the_composite() -> None:
    for families, main in (({"conv", "linear"}, torch.rand(2, 3, 8, 8)), ({"linear", "product"}, torch.rand(2, 5, 3)),
                           ({"linear", "softmax", "product"}, torch.ones(2, 5).long()),
                           ({"linear", "softmax", "conv"}, torch.rand(2, 3, 8, 8)), ({"linear"}, torch.rand(2, 8))):  # fmt: skip
        space = space_of("auto", families, 4, main, None, False)
        assert 4 <= len(space) <= 40
        for composite in space.grid().values():
            again = eval(str(composite), {"relprop": relprop, "torch": torch})
            assert again == composite


def test_composites_by_depth_act_by_depth() -> None:
    space = space_of("auto", {"conv", "linear"}, 9, torch.rand(2, 3, 8, 8), None, True)
    assert len(space) > 1000
    made = space.composite([1, 0, 2, 5, 0, 1, 1])
    again = eval(str(made), {"relprop": relprop, "torch": torch})
    model, x = mlp(9, 6), torch.rand(2, 6)
    theirs = relprop.attribute(model, x, 0, composite=again)
    mine = relprop.attribute(model, x, 0, composite=made)
    assert torch.equal(theirs.values, mine.values)
    acted = [repr(rule) for place, rule in mine.rules if place.index is not None]
    assert acted[0] == "Flat()" and "Epsilon" in acted[1] and "Gamma" in acted[4] and "Gamma" in acted[8]


def test_auto_stays_where_nothing_is_better() -> None:
    """Of a linear model, LRP-0 is the truth; noise in place of a map is worse."""
    model, x = nn.Linear(8, 3).eval(), torch.randn(20, 8)
    S = relprop.search(model, x, space={"linear": [relprop.Flat(), relprop.WSquare(), relprop.Zero()]}, replace=[0.0])
    assert not S.chosen
    assert S.best.name == "auto" and str(S.best) == "'auto'"
    assert "auto stays" in S.table()


def test_a_better_composite_is_chosen() -> None:
    """The space holds the truth of a linear model, and what `auto` takes for pictures is flat."""
    model, x = nn.Sequential(nn.Conv2d(1, 1, (2, 4), bias=False), nn.Flatten()).eval(), torch.randn(30, 1, 2, 4)
    rules = [relprop.Zero(), relprop.WSquare()]
    S = relprop.search(model, x, space={"conv": rules}, replace=[0.0], units="pixels")
    assert S.chosen and "Zero" in str(S.best)
    first = S.candidates[0]
    assert first.held_out > 2 * first.held_out_error > 0
    assert S.held_out == 15 and first.samples == 15


def test_what_is_clearly_behind_leaves_the_race() -> None:
    gains = {
        "ahead": torch.ones(5),
        "behind": torch.zeros(5) + 0.01 * torch.randn(5),
        "near": 1 - torch.rand(5) * 2,
    }
    left = Race.left(gains)
    assert "ahead" in left and "behind" not in left
    gap = torch.ones(5) - gains["near"]
    assert ("near" in left) == (float(gap.mean()) < BEHIND * float(gap.std() / 5**0.5))
    assert Race.left({"worse": -torch.ones(5) - 0.01 * torch.rand(5)}) == []  # the leader is auto itself


def test_the_worse_half_leaves_the_race_and_so_does_what_is_equal() -> None:
    gains = {str(n): torch.full((5,), float(n)) for n in range(10)} | {"again": torch.full((5,), 9.0)}
    assert halved(list(gains), gains, 3) == ["9", "8", "7", "6", "5", "4"]
    few = {name: gains[name] for name in "1234"}
    assert halved(list(few), few, 3) == ["4", "3", "2"]
    assert halved(["3", "1"], few, 3) == ["3", "1"]
    assert [finalists(count) for count in (2, 24, 32, 36, 60)] == [3, 3, 4, 5, 5]


@dataclass
class Finished:
    """A race whose held-out gains are known."""

    held_out: dict[str, Tensor]
    failed: dict[str, str] = field(default_factory=dict)
    spent: int = 0
    score: str = "abpc"

    def gains(self, candidates: dict[str, Any], samples: Any) -> dict[str, Tensor]:
        return {name: self.held_out[name] for name in candidates}


def test_the_choice_is_the_best_of_those_that_were_tested_by_both_halves() -> None:
    seen = {"first": torch.full((9,), 1.0), "second": torch.full((9,), 0.9), "lost": torch.full((5,), 3.0)}
    spread = torch.linspace(-0.1, 0.1, 9)
    race: Any = Finished({"first": torch.zeros(9) + spread, "second": torch.full((9,), 0.5) + spread})
    candidates: Any = {name: relprop.composites.zero() for name in seen}
    S = _verdict(race, candidates, seen, range(9), relprop.composites.epsilon(), 27)
    assert S.chosen and S.best is candidates["second"]
    assert [each.name for each in S.candidates] == ["second", "first", "auto", "lost"]
    race.held_out["second"] -= 0.6  # better by both halves, and not on the other alone
    race.held_out["first"] -= 0.9
    S = _verdict(race, candidates, seen, range(9), relprop.composites.epsilon(), 27)
    assert not S.chosen and S.best.name == "auto" and S.candidates[0].name == "second"


def test_a_budget_is_kept_to() -> None:
    model, x = mlp(2, 6), torch.randn(40, 6)
    S = relprop.search(model, x, budget=170)
    assert S.of == 32 * 40
    assert S.evaluations <= 170 + 5 * 20  # the test on held-out samples comes after the race


def test_a_candidate_that_fails_is_named() -> None:
    model, x = mlp(2, 6), torch.randn(12, 6)
    wrong = relprop.Composite({relprop.path("nowhere"): relprop.Zero()}, name="wrong")
    S = relprop.search(model, x, space=[relprop.composites.zero(), wrong])
    failed = next(each for each in S.candidates if each.why)
    assert failed.name == "2: wrong" and "matches no module" in failed.why


def test_the_model_is_as_before() -> None:
    model, x = convolutional(), torch.rand(12, 3, 8, 8)
    before, chance = state(model), torch.get_rng_state()
    relprop.search(model, x, space={"conv": [relprop.Zero(), relprop.ZPlus()]})
    assert same_state(before, state(model)) and torch.equal(chance, torch.get_rng_state())


def test_a_large_space_is_searched_by_tpe() -> None:
    pytest.importorskip("optuna")
    model, x = mlp(4, 6), torch.randn(12, 6)
    rules = (relprop.Zero(), relprop.Gamma(0.1), relprop.Epsilon(0.1, relative=True), relprop.ZPlus())
    space = Space(tuple(Choice(f"relprop.path('{n}')", relprop.path(str(n)), rules) for n in (0, 2, 4)))
    S = relprop.search(model, x, space=space, budget=150)
    again = relprop.search(model, x, space=space, budget=150)
    assert [each.name for each in S.candidates] == [each.name for each in again.candidates]
    assert len(S.candidates) > 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"space": "large"}, "space must be"),
        ({"space": {}}, "space must be|no combination"),
        ({"budget": 0}, "budget must be"),
        ({"metric": "complexity"}, "ranks nothing"),
    ],
)
def test_bad_input(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        relprop.search(mlp(2, 6), torch.randn(12, 6), **options)


def test_an_iterable_of_batches() -> None:
    model, x, y = mlp(2, 6), torch.randn(22, 6), torch.randint(3, (22,))
    space = {"linear": [relprop.Zero(), relprop.ZPlus()]}
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=5)
    whole, parts = relprop.search(model, x, y, space=space), relprop.search(model, loader, space=space)
    assert parts.table() == whole.table()
    with pytest.raises(InputError, match="fit together"):
        relprop.search(model, iter([(x[:5], y[:5]), (x[:5, :3], y[:5])]))
    with pytest.raises(InputError, match="no batch"):
        relprop.search(model, iter(()))


def test_too_few_samples() -> None:
    with pytest.raises(InputError, match="at least 10 samples"):
        relprop.search(mlp(2, 6), torch.randn(9, 6))
