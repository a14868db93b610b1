"""Pooling: the winner of a maximum takes all, or a share where asked; an average shares by contribution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

import reference
import relprop
from helpers import close, explained, total

MAX_POOLS = {
    "1d": ((2, 6), nn.MaxPool1d(2)),
    "2d": ((2, 4, 4), nn.MaxPool2d(2)),
    "2d overlapping": ((2, 5, 5), nn.MaxPool2d(3, stride=2)),
    "2d padded": ((2, 5, 4), nn.MaxPool2d(3, stride=2, padding=1)),
    "2d dilated": ((1, 6, 6), nn.MaxPool2d(2, stride=1, dilation=2)),
    "2d ceil": ((2, 5, 5), nn.MaxPool2d(2, ceil_mode=True)),
    "3d": ((1, 2, 4, 4), nn.MaxPool3d(2)),
    "adaptive 1d": ((2, 7), nn.AdaptiveMaxPool1d(3)),
    "adaptive 2d": ((2, 5, 4), nn.AdaptiveMaxPool2d((2, 3))),
}

AVERAGE_POOLS = {
    "1d": ((2, 6), nn.AvgPool1d(2)),
    "2d": ((2, 4, 4), nn.AvgPool2d(2)),
    "2d overlapping": ((2, 5, 5), nn.AvgPool2d(3, stride=2)),
    "2d padded": ((2, 4, 4), nn.AvgPool2d(3, stride=2, padding=1)),
    "2d padding left out": ((2, 4, 4), nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)),
    "2d ceil": ((2, 5, 5), nn.AvgPool2d(2, ceil_mode=True)),
    "2d sum": ((2, 4, 4), nn.AvgPool2d(2, divisor_override=1)),
    "3d": ((1, 2, 4, 4), nn.AvgPool3d(2)),
    "adaptive 2d": ((2, 5, 4), nn.AdaptiveAvgPool2d((2, 3))),
    "global": ((2, 3, 3), nn.AdaptiveAvgPool2d(1)),
    "mean": ((2, 3, 3), lambda x: x.mean((2, 3))),
}


class Pooled(nn.Module):
    def __init__(self, pool: Callable[[Tensor], Tensor]):
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x)


@pytest.mark.parametrize("name", MAX_POOLS)
@pytest.mark.parametrize("signs", ["both", "non-negative"])
def test_winner_takes_all(name: str, signs: str) -> None:
    shape, pool = MAX_POOLS[name]
    x = torch.randn(3, *shape).double()
    x = x.clamp(min=0) if signs == "non-negative" else x
    values, seed = explained(pool, x, "zero")
    close(values, reference.propagate([(pool, reference.winner_takes_all)], x, seed))


@pytest.mark.parametrize("name", MAX_POOLS)
@pytest.mark.parametrize("signs", ["both", "non-negative"])
@pytest.mark.parametrize("epsilon", [1e-6, 0.5])
def test_proportional(name: str, signs: str, epsilon: float) -> None:
    shape, pool = MAX_POOLS[name]
    x = torch.randn(3, *shape).double()
    x = x.clamp(min=0) if signs == "non-negative" else x
    values, seed = explained(pool, x, relprop.Composite({"max_pool": relprop.Proportional(epsilon)}))
    rule = partial(reference.proportional, epsilon=epsilon)
    close(values, reference.propagate([(pool, rule)], x, seed))


@dataclass(frozen=True)
class BySoftmax(relprop.rules.Rule):
    """A rule of one's own: shares by the softmax of each window."""

    temperature: float = 1.0
    proportional: ClassVar[bool] = False

    def max_pool(self, x: Tensor, y: Tensor, g: Tensor, windows: relprop.rules.Windows) -> Tensor:
        share = (windows.entries(x) / self.temperature).softmax(-1)
        return windows.collect(share * (y * g)[..., None]) / relprop.numerics.nonzero(x)


@dataclass(frozen=True)
class TheTwoLargest(relprop.rules.Rule):
    """A rule of one's own: halves to the two largest entries of each window."""

    proportional: ClassVar[bool] = False

    def max_pool(self, x: Tensor, y: Tensor, g: Tensor, windows: relprop.rules.Windows) -> Tensor:
        entries = windows.entries(x)
        share = torch.zeros_like(entries).scatter(-1, entries.topk(2, -1).indices, 0.5)
        return windows.collect(share * (y * g)[..., None]) / relprop.numerics.nonzero(x)


@pytest.mark.parametrize("name", MAX_POOLS)
def test_a_rule_of_ones_own_sees_the_entries_of_each_window(name: str) -> None:
    torch.manual_seed(0)
    shape, pool = MAX_POOLS[name]
    x = torch.randn(3, *shape).double()
    x[0].flatten()[:2] = 0.0
    for rule, defined in (
        (BySoftmax(0.01), partial(reference.by_softmax, temperature=0.01)),  # steep: entries differ by e^500
        (BySoftmax(), reference.by_softmax),
        (TheTwoLargest(), reference.the_two_largest),
    ):
        if name == "2d ceil" and isinstance(rule, TheTwoLargest):
            continue  # one of its windows has one entry
        values, r_out = explained(Pooled(pool), x, relprop.Composite({"max_pool": rule}))
        close(values, defined(pool, x, r_out(pool(x))))
        close(values.flatten(1).sum(1), r_out(pool(x)).flatten(1).sum(1))


def test_windows_are_their_own_definition() -> None:
    """Of each pooling: the sum is that of the entries, and `collect` is the transpose of `entries`."""
    torch.manual_seed(0)
    for shape, pool in MAX_POOLS.values():
        met = []

        class Asks(relprop.rules.Rule):
            def max_pool(self, x: Tensor, y: Tensor, g: Tensor, windows: relprop.rules.Windows) -> Tensor:
                entries = windows.entries(x)
                close(entries.amax(-1), y)
                close(windows.entries(x, 0.0).sum(-1), windows(x))
                v = torch.randn_like(entries)
                close((windows.entries(x, 0.0) * v).sum(), (x * windows.collect(v)).sum())
                met.append(1)  # noqa: B023
                return torch.zeros_like(x)

        explained(Pooled(pool), torch.randn(2, *shape).double(), relprop.Composite({"max_pool": Asks()}))
        assert met


@pytest.mark.parametrize("rule", [relprop.rules.Proportional(0.1), BySoftmax()])
def test_relevance_of_a_pooling_can_be_differentiated(rule: relprop.rules.Rule) -> None:
    torch.manual_seed(0)
    pool = nn.MaxPool2d(2, 1)
    x = torch.rand(1, 1, 3, 3, dtype=torch.float64) + 0.5
    weights = torch.rand(2, 2, dtype=torch.float64)

    def loss(x: Tensor) -> Tensor:
        with relprop.propagate(relprop.Composite({"max_pool": rule}), model=pool, inputs=x):
            score = (pool(x) * weights).sum()
        (g,) = torch.autograd.grad(score, x, create_graph=True)
        return (x * g)[0, 0, 0, 0].square()

    assert torch.autograd.gradcheck(loss, (x.requires_grad_(),), atol=1e-5)


@pytest.mark.parametrize("name", AVERAGE_POOLS)
@pytest.mark.parametrize("signs", ["both", "non-negative"])
def test_average_shares_by_contribution(name: str, signs: str) -> None:
    shape, pool = AVERAGE_POOLS[name]
    x = torch.randn(3, *shape).double()
    x = x.clamp(min=0) if signs == "non-negative" else x
    values, seed = explained(Pooled(pool), x, "zero")
    close(values, reference.propagate([(pool, reference.average_pool)], x, seed))
    if signs == "non-negative":
        assert (values[x == 0] == 0).all()


@pytest.mark.parametrize("pool", [nn.AvgPool2d(2), nn.MaxPool2d(2)], ids=["average", "maximum"])
def test_below_a_flat_layer_nothing_is_lost(pool: nn.Module) -> None:
    """A flat layer gives relevance to windows of dead units only: it goes on through them, as through a
    relu.
    """
    conv = nn.Conv2d(1, 3, 3, padding=1).double()
    conv.bias.data.fill_(-0.7)  # so that most units are dead
    above = nn.Linear(12, 2, bias=False).double()
    model = nn.Sequential(conv, nn.ReLU(), pool, nn.Flatten(), above)
    x = torch.randn(4, 1, 4, 4).double()
    assert (model[:3](x) == 0).any() and (model[:3](x) > 0).any()
    composite = relprop.Composite({"linear": relprop.Flat(), "conv": relprop.Flat()})
    relevance = relprop.attribute(model, x, 0, composite=composite)
    flat = reference.weighted(reference.flat)
    down = reference.average_pool if isinstance(pool, nn.AvgPool2d) else reference.winner_takes_all
    steps = [
        (conv, flat),
        (model[1], reference.activation),
        (pool, down),
        (model[3], reference.moved),
        (above, flat),
    ]
    chosen = torch.tensor([1.0, 0.0]).double()
    close(relevance.values, reference.propagate(steps, x, lambda y: y * chosen))
    close(relevance.values.flatten(1).sum(1), relevance.score)


def test_indices_may_be_asked_for() -> None:
    x = torch.randn(2, 1, 4, 4).double()
    with_indices = Pooled(lambda x: nn.functional.max_pool2d(x, 2, return_indices=True)[0])
    target = total
    for composite in ("zero", relprop.Composite({"max_pool": relprop.Proportional()})):
        values = relprop.attribute(with_indices, x, target, composite=composite).values
        close(values, relprop.attribute(nn.MaxPool2d(2), x, target, composite=composite).values)


def test_max_unpool_puts_relevance_where_the_value_went() -> None:
    class Unpooled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            pooled, indices = nn.functional.max_pool2d(x, 2, return_indices=True)
            return nn.functional.max_unpool2d(pooled, indices, 2)

    x = torch.rand(2, 1, 4, 4).double()
    relevance = relprop.attribute(Unpooled(), x, total, composite="zero")
    close(relevance.values, Unpooled()(x))


def test_sums_means_and_maxima_over_dimensions() -> None:
    """The share of a unit in a sum or a mean is its part of it, sign included; a maximum is its winner's."""
    x = torch.randn(3, 4, 5).double()
    for reduce, expected in (
        (lambda x: x.sum(2), x),
        (lambda x: x.mean(2), x / 5),
        (lambda x: x.amax(2), torch.where(x == x.amax(2, keepdim=True), x, 0)),
        (lambda x: x.max(2).values, torch.where(x == x.amax(2, keepdim=True), x, 0)),
        (lambda x: x.median(2).values, torch.where(x == x.median(2, keepdim=True).values, x, 0)),
        (lambda x: x.cumsum(2)[:, :, 2], torch.cat([x[:, :, :3], 0 * x[:, :, 3:]], 2)),
    ):
        close(relprop.attribute(Pooled(reduce), x, lambda y: y.sum(1), composite="zero").values, expected)


@pytest.mark.parametrize("dims", [1, 2])
def test_proportional_pooling_of_a_sample_without_its_batch_axis(dims: int) -> None:
    """What a model pools without the axis of samples is pooled as with it."""
    pool = (torch.nn.functional.max_pool1d, torch.nn.functional.max_pool2d)[dims - 1]
    x = torch.rand(1, 3, *[4] * dims, dtype=torch.float64)
    composite = relprop.Composite({"max_pool": relprop.Proportional()})
    lone, batch = (
        relprop.attribute(f, x, composite=composite).values
        for f in (lambda x: pool(x[0], 2).sum().reshape(1), lambda x: pool(x, 2).flatten(1).sum(1))
    )
    torch.testing.assert_close(lone, batch)
    assert (lone != 0).all()
