"""What a tensor is known to be survives every spelling: each role, in each way in which programs copy, move and scale."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import relprop
from helpers import D, close
from relprop.engine.registry import TABLE
from relprop.engine.roles import ROLES
from relprop.engine.traits import EVERY_TRAIT

Way = Callable[[Tensor], Tensor]

# Ways on which a tensor (3, 4) comes to itself.
SAME: dict[str, Way] = {
    "clone": lambda t: t.clone(),
    "contiguous": lambda t: t.t().contiguous().t(),
    "view": lambda t: t.view(3, 4),
    "view_as": lambda t: t.view_as(t),
    "all of it": lambda t: t[:],
    "all, by an ellipsis": lambda t: t[...],
    "an axis more and less": lambda t: t[None][0],
    "unsqueeze and squeeze": lambda t: t.unsqueeze(1).squeeze(1),
    "turned twice": lambda t: t.t().t(),
    "mT twice": lambda t: t.mT.mT,
    "permuted twice": lambda t: t.permute(1, 0).permute(1, 0),
    "flattened and back": lambda t: t.flatten().reshape(3, 4),
    "flipped twice": lambda t: t.flip(1).flip(1),
    "rolled and back": lambda t: t.roll(1, 0).roll(-1, 0),
    "picked in order": lambda t: t[torch.arange(3)],
    "index_select in order": lambda t: t.index_select(1, torch.arange(4)),
    "expanded to itself": lambda t: t.expand(3, 4),
    "split and joined": lambda t: torch.stack(t.unbind(0)),
    "cast and back": lambda t: t.to(torch.float64).double(),
    "type_as": lambda t: t.type_as(t),
    "times one, in place": lambda t: (t * 1).mul_(1),
    "plus nothing, in place": lambda t: (t + 0).add_(0),
    "divided by one": lambda t: t / 1.0,
    "dropout in eval": lambda t: F.dropout(t, 0.5, training=False),
    "identity": lambda t: nn.Identity()(t),
    "copied into a buffer": lambda t: torch.zeros_like(t).copy_(t),
    "written into all of a buffer": lambda t: (lambda u: u.__setitem__(slice(None), t) or u)(torch.empty_like(t)),
    "written by an ellipsis": lambda t: (lambda u: u.__setitem__(..., t) or u)(torch.zeros_like(t)),
}
JOINED = ("split and joined",)  # several tensors that meet again begin anew, but keep a role
A, X = torch.randn(2, 3, 4, dtype=D, generator=torch.Generator().manual_seed(0))
TABLE_OF_POSITIONS = torch.randn(3, 4, dtype=D, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("way", [w for name, w in SAME.items() if name not in JOINED],
                         ids=[name for name in SAME if name not in JOINED])  # fmt: skip
def test_an_origin(way: Way) -> None:
    """`x * sigmoid(x)` is one activation."""
    for f in (
        lambda x: x * torch.sigmoid(way(x)),
        lambda x: way(x) * torch.sigmoid(x),
        lambda x: way(torch.sigmoid(x)) * x,
    ):
        found = relprop.attribute(lambda x, f=f: f(x).sum(1), X, composite="zero").values
        close(found, relprop.attribute(lambda x: F.silu(x).sum(1), X, composite="zero").values)


@pytest.mark.parametrize("way", SAME.values(), ids=SAME)
def test_a_gate(way: Way) -> None:
    """Of the product of a gate with what it lets through the gate takes nothing."""
    plain = relprop.attribute(lambda a, x: (torch.sigmoid(a) * x.tanh()).sum(1), (A, X), composite="cp_lrp").values
    found = relprop.attribute(lambda a, x: (way(torch.sigmoid(a)) * x.tanh()).sum(1), (A, X), composite="cp_lrp").values
    for one, other in zip(found, plain, strict=True):
        close(one, other)
    assert plain[0].abs().max() == 0


GATES: dict[str, tuple[Way, Way]] = {
    "plus a number": (lambda g: g + 1, lambda g: g.add_(1)),
    "plus a tensor": (lambda g: g + TABLE_OF_POSITIONS.abs(), lambda g: g.add_(TABLE_OF_POSITIONS.abs())),
    "times a number": (lambda g: 2 * g, lambda g: g.mul_(2)),
    "times a tensor": (lambda g: g * TABLE_OF_POSITIONS, lambda g: g.mul_(TABLE_OF_POSITIONS)),
    "divided": (lambda g: g / 2, lambda g: g.div_(2)),
    "one less": (lambda g: 1 - g, lambda g: g.neg_().add_(1)),
    "operator": (lambda g: g + 0.5, lambda g: g.__iadd__(0.5)),
    "masked": (lambda g: g.masked_fill(A > 1, 0.0), lambda g: g.masked_fill_(A > 1, 0.0)),
    "by an index": (
        lambda g: torch.cat([torch.zeros(3, 1, dtype=D), g[:, 1:]], 1),
        lambda g: g.__setitem__((slice(None), slice(0, 1)), 0.0) or g,
    ),
    "bounded": (lambda g: g.clamp(0.2, 0.8), lambda g: g.clamp_(0.2, 0.8)),
    "relu": (lambda g: (g - 0.5).relu(), lambda g: g.sub_(0.5).relu_()),
    "relu6": (lambda g: F.relu6(g), lambda g: F.relu6(g, inplace=True)),
}


@pytest.mark.parametrize("plain, written", GATES.values(), ids=GATES)
def test_a_gate_that_is_written_into(plain: Way, written: Way) -> None:
    for made in (torch.sigmoid, F.relu, torch.tanh):
        one, other = (
            relprop.attribute(lambda a, x, f=f, made=made: (f(made(a)) * x).sum(1), (A, X), composite="cp_lrp").values  # type: ignore[misc]
            for f in (plain, written)
        )
        for a, b in zip(one, other, strict=True):
            close(a, b)


MOVED: dict[str, Way] = {
    "picked": lambda g: g.sort(1)[0],
    "gathered": lambda g: g.gather(1, torch.tensor([[1, 0, 3, 2]]).expand(len(g), -1)),
    "turned": lambda g: g.flip(1) + 0,
    "copied": lambda g: g.clone(),
    "joined": lambda g: torch.cat([g[:, :2], g[:, 2:]], 1),
    "the larger of two": lambda g: torch.maximum(g, g.flip(1)),
    "padded": lambda g: F.pad(g[:, 1:], (1, 0)),
}
"""A gate that was moved, in a tensor of its own, which may be overwritten."""


@pytest.mark.parametrize("moved", MOVED.values(), ids=MOVED)
@pytest.mark.parametrize("plain, written", GATES.values(), ids=GATES)
def test_a_moved_gate_that_is_written_into_is_as_much_of_a_gate(plain: Way, written: Way, moved: Way) -> None:
    """A sigmoid of the one operand is more of a gate than an activation of the other, and so is what is made of it."""
    for made in (torch.sigmoid, torch.tanh):
        for factor in (torch.sigmoid, torch.tanh):
            one, other = (
                relprop.attribute(
                    lambda a, x, f=f, m=made, g=factor: (f(moved(m(a))) * g(x)).sum(1),
                    (A, X),
                    composite="cp_lrp",  # type: ignore[misc]
                ).values
                for f in (plain, written)
            )
            for a, b in zip(one, other, strict=True):
                close(a, b)


COPIES: dict[str, Way] = {
    "clone": lambda t: t.clone(),
    "a copied buffer": lambda t: torch.zeros_like(t).copy_(t),
    "a written buffer": lambda t: (lambda u: u.__setitem__(slice(None), t) or u)(torch.empty_like(t)),
    "contiguous": lambda t: t.t().contiguous().t(),
    "turned, copied and turned": lambda t: t.flip(1).clone().flip(1),
    "by an index": lambda t: t[:, torch.arange(4)],
    "times one": lambda t: t * 1,
}


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("change", [lambda t: t.add_(0.3), lambda t: t.mul_(2.0), lambda t: t.neg_(), lambda t: t.sub_(0.5),
                                    lambda t: t.div_(3), lambda t: t.__iadd__(1), lambda t: t.sigmoid_(), lambda t: t.exp_()])  # fmt: skip
def test_a_copy_that_is_changed_in_place_meets_its_origin(copy: Way, change: Way) -> None:
    """`(x + 0.3) * x` is one function of x, if the sum is written into a copy of x, too."""
    for before in (lambda x: x, torch.tanh, lambda x: x @ TABLE_OF_POSITIONS.t() @ TABLE_OF_POSITIONS):
        one, other = [
            relprop.attribute(lambda x, c=c, f=before: (lambda h: (c(h) * h).sum(1))(f(x)), X, composite="zero").values  # type: ignore[misc]
            for c in (lambda t: change(t + 0), lambda t: change(copy(t)))
        ]
        close(other, one)


CHANGES: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "add": (torch.Tensor.add_, torch.add),
    "multiply": (torch.Tensor.mul_, torch.mul),
    "subtract": (torch.Tensor.sub_, torch.sub),
    "divide": (torch.Tensor.div_, torch.div),
}


@pytest.mark.parametrize("second", CHANGES)
@pytest.mark.parametrize("first", CHANGES)
@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
def test_two_copies_that_are_both_changed_in_place_are_two_tensors(copy: Way, first: str, second: str) -> None:
    """Overwritten equally often, but with other numbers: `g * sigmoid(h)` is no SiLU."""

    def model(x: Tensor, ways: tuple[Any, Any]) -> Tensor:
        h = torch.relu(x @ TABLE_OF_POSITIONS.t() @ TABLE_OF_POSITIONS)
        g = copy(h)
        h, g = ways[0](h, torch.cos(x) + 2), ways[1](g, torch.sin(x) + 3)
        return (g * torch.sigmoid(h) + (g - h) ** 2).sum(1)

    for composite in ("zero", "cp_lrp"):
        one, other = (
            relprop.attribute(
                lambda x, n=n: model(x, (CHANGES[first][n], CHANGES[second][n])), X, composite=composite
            ).values
            for n in (0, 1)
        )
        close(one, other)


@pytest.mark.parametrize("plain, written", GATES.values(), ids=GATES)
def test_an_origin_that_is_written_into(plain: Way, written: Way) -> None:
    if plain is GATES["plus a tensor"][0] or plain is GATES["times a tensor"][0] or plain is GATES["by an index"][0]:
        pytest.skip("a tensor of numbers begins anew")
    for composite in ("zero", "cp_lrp", "epsilon"):
        one, other = (
            relprop.attribute(lambda x, f=f: (x * f(torch.sigmoid(x))).sum(1), X, composite=composite).values  # type: ignore[misc]
            for f in (plain, written)
        )
        close(one, other)


def test_a_view_follows_what_is_written_through_its_base() -> None:
    def written(x: Tensor) -> Tensor:
        y = x * 1
        view, s = y[:, :2], y[:, :2].sigmoid()
        y.mul_(2)
        return (view * s).sum(1)

    def plain(x: Tensor) -> Tensor:
        return ((2 * x)[:, :2] * x[:, :2].sigmoid()).sum(1)

    one, other = (relprop.attribute(f, X, composite="zero").values for f in (plain, written))
    close(one, other)


SCORES: dict[str, Way] = {
    "clone": lambda s: s.clone(),
    "turned twice": lambda s: s.mT.mT,
    "all of it": lambda s: s[:],
    "contiguous": lambda s: s.mT.contiguous().mT,
    "view": lambda s: s.view_as(s),
    "scaled and back": lambda s: s * 2 / 2,
    "scaled in place": lambda s: s.mul_(2).div_(2),
    "masked": lambda s: s.masked_fill(torch.eye(3, 4, dtype=torch.bool), -1e30),
    "heads folded and back": lambda s: s.reshape(2, 12).reshape(2, 3, 4),
    "cast": lambda s: s.double(),
}


@pytest.mark.parametrize("added", [lambda s, b: s + b, lambda s, b: b + s, lambda s, b: s.add_(b), torch.add],
                         ids=["plus", "reflected", "in place", "torch.add"])  # fmt: skip
@pytest.mark.parametrize("way", SCORES.values(), ids=SCORES)
def test_scores(way: Way, added: Callable[[Tensor, Tensor], Tensor]) -> None:
    """What is added to the scores of an attention along its keys stands for positions, and reports its relevance."""
    generator = torch.Generator().manual_seed(0)
    bias = torch.randn(1, 3, 4, dtype=D, generator=generator)
    q, k = (torch.randn(2, n, 5, dtype=D, generator=generator) for n in (3, 4))

    def model(q: Tensor, k: Tensor) -> Tensor:
        return (added(way(q @ k.mT), bias).softmax(-1) ** 2).sum((1, 2))

    def plain(q: Tensor, k: Tensor) -> Tensor:
        s = q @ k.mT
        s = s.masked_fill(torch.eye(3, 4, dtype=torch.bool), -1e30) if way is SCORES["masked"] else s
        return ((s + bias).softmax(-1) ** 2).sum((1, 2))

    one, other = (relprop.attribute(f, (q, k), composite="zero", positions=True).positions for f in (model, plain))
    assert other and one.keys() == other.keys()
    for key, value in other.items():
        close(one[key], value)


@pytest.mark.parametrize("way", [lambda z: z.clone(), lambda z: z[:], lambda z: z.view_as(z), lambda z: z.contiguous(),
                                 lambda z: F.dropout(z, 0.3, training=False)],
                         ids=["clone", "all of it", "view", "contiguous", "dropout"])  # fmt: skip
@pytest.mark.parametrize("composite", ["epsilon_plus", "epsilon_alpha2_beta1", "gamma_flat"])
def test_the_layer_that_made_it(way: Way, composite: str) -> None:
    """A BatchNorm merges with the layer before, also where a copy lies between."""
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(2, 4, 3).to(D).eval(), nn.BatchNorm2d(4).to(D).eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 2, 6, 6, dtype=D)
    found, plain = (
        relprop.attribute(lambda x, f=f: norm(f(conv(x))).relu().sum((2, 3)), x, 1, composite=composite).values  # type: ignore[misc]
        for f in (way, lambda z: z)
    )
    close(found, plain)


def test_every_role_says_what_it_survives() -> None:
    for name, role in ROLES.items():
        assert role.name == name and role.given_by and role.asked_by
        assert role.survives <= {*EVERY_TRAIT, "any operation"}


def test_every_trait_is_one_that_is_known() -> None:
    for entry in TABLE.values():
        assert entry.traits <= set(EVERY_TRAIT)
        assert {name for name, _ in entry.gives} <= set(ROLES)


def test_random_chains_of_ways_keep_an_origin() -> None:
    ways = [w for name, w in SAME.items() if name not in JOINED]
    expected = relprop.attribute(lambda x: F.silu(x).sum(1), X, composite="zero").values
    for seed in range(30):
        draw = random.Random(seed)
        one, other = ([draw.choice(ways) for _ in range(draw.randint(0, 4))] for _ in range(2))

        def model(x: Tensor, one: list[Way] = one, other: list[Way] = other) -> Tensor:
            a, b = x, x
            for way in one:
                a = way(a)
            for way in other:
                b = way(b)
            return (a * b.sigmoid()).sum(1)

        close(relprop.attribute(model, X, composite="zero").values, expected)


def by_index(h: Tensor) -> Tensor:
    """The largest of each row, by an index that is known."""
    return h.gather(1, h.detach().argmax(1, keepdim=True)).squeeze(1)


# Ways to pick the largest of each row: from the whole tensor, from each row alone, and from two halves that meet.
LARGEST: dict[str, Way] = {
    "max": lambda h: h.max(1, keepdim=True).values,
    "amax": lambda h: h.amax((1,), keepdim=True),
    "sort": lambda h: h.sort(1)[0][:, -1:],
    "topk": lambda h: h.topk(1, 1).values,
    "kthvalue": lambda h: h.kthvalue(4, 1, keepdim=True)[0],
    "cummax": lambda h: h.cummax(1)[0][:, -1:],
    "by an index": lambda h: h.gather(1, h.argmax(1, keepdim=True)),
    "rows by an index": lambda h: torch.stack([row[row.argmax()] for row in h.unbind(0)])[:, None],
    "max of all": lambda h: torch.stack([row.max() for row in h.unbind(0)])[:, None],
    "amax of all": lambda h: torch.stack([row.amax() for row in h.unbind(0)])[:, None],
    "max_pool1d": lambda h: F.max_pool1d(h, 4),
    "max_pool1d, of two": lambda h: F.max_pool1d(F.max_pool1d(h, 3, 1), 2),
    "max_pool2d": lambda h: F.max_pool2d(h[None], (1, 4))[0],
    "with indices": lambda h: F.max_pool1d(h, 4, return_indices=True)[0],
    "adaptive": lambda h: F.adaptive_max_pool1d(h, 1),
    "adaptive, with indices": lambda h: F.adaptive_max_pool1d(h, 1, return_indices=True)[0],
    "unfold": lambda h: h.unfold(1, 4, 1).amax(-1),
    "maximum": lambda h: torch.maximum(h[:, :2], h[:, 2:]).max(1, keepdim=True)[0],
    "where": lambda h: (lambda a, b: torch.where(a > b, a, b))(h[:, :2], h[:, 2:]).max(1, keepdim=True)[0],
    "fmax": lambda h: torch.fmax(h[:, :2], h[:, 2:]).amax(1, keepdim=True),
    "minimum, turned": lambda h: (-torch.minimum(-h[:, :2], -h[:, 2:])).amax(1, keepdim=True),
}  # fmt: skip


def softmax_of_largest(e: Tensor, largest: Way) -> Tensor:
    return largest(e) / e.sum(1, keepdim=True)


def reference(name: str) -> Way:
    """The same pick as a move: by an index, or by a mask."""
    if "of all" in name or "rows" in name:
        return LARGEST["rows by an index"]
    return LARGEST["where" if name in ("maximum", "where", "fmax", "minimum, turned") else "by an index"]


ROLE_TESTS: dict[str, Callable[[Tensor, Tensor, Way], Tensor]] = {
    "a gate": lambda a, x, largest: largest(torch.sigmoid(a)) * x.tanh(),
    "another activation": lambda a, x, largest: largest(F.silu(a)) * x,
    "the logarithm of a softmax": lambda a, x, largest: largest(a.log_softmax(1)).exp() * x + a,
    "a softmax": lambda a, x, largest: largest(a.softmax(1)).log() + x,
    "an exponential": lambda a, x, largest: x * softmax_of_largest(a.exp(), largest) + a,
    "a statistic": lambda a, x, largest: x + 1 / (largest(a.cumsum(1) ** 2).tanh() + 1),
}


@pytest.mark.parametrize("name", LARGEST)
@pytest.mark.parametrize("known", ROLE_TESTS)
def test_what_is_selected_keeps_its_roles(known: str, name: str) -> None:
    """The largest of the entries, however it is found, is what they are."""
    for composite in ("zero", "cp_lrp", "attnlrp"):
        one, other = (
            relprop.attribute(
                lambda a, x, f=f: ROLE_TESTS[known](a, x, f).sum(1), (A, X), composite=composite, target=lambda y: y  # type: ignore[misc]
            ).values
            for f in (reference(name), LARGEST[name])
        )  # fmt: skip
        for a, b in zip(one, other, strict=True):
            close(a, b, msg=lambda m, c=composite: f"{c}: {m}")  # type: ignore[misc]


PICKS: dict[str, Way] = {
    "max": lambda h: h.max(1).values,
    "torch.max": lambda h: torch.max(h, dim=1)[0],
    "keepdim": lambda h: h.max(1, keepdim=True)[0][:, 0],
    "amax": lambda h: h.amax(1),
    "amax over a tuple": lambda h: torch.amax(h, (1,), keepdim=True).squeeze(1),
    "least of what is turned": lambda h: -(-h).min(1)[0],
    "amin": lambda h: (-h).amin(-1).neg(),
    "sort": lambda h: h.sort(1, descending=True)[0][:, 0],
    "sort, ascending": lambda h: torch.sort(h)[0][:, -1],
    "topk": lambda h: h.topk(2, 1)[0][:, 0],
    "topk, last axis": lambda h: h.topk(1)[0].squeeze(1),
    "kthvalue": lambda h: h.kthvalue(h.shape[1], 1)[0],
    "cummax": lambda h: h.cummax(1)[0][:, -1],
    "median of one": lambda h: h.gather(1, h.detach().argmax(1, keepdim=True)).median(1)[0],
}


@pytest.mark.parametrize("pick", PICKS.values(), ids=PICKS)
@pytest.mark.parametrize("function", [F.softplus, F.silu, lambda h: h * torch.sigmoid(h)])
def test_what_is_picked_is_moved(pick: Way, function: Way) -> None:
    """An activation of picked entries is one of what these are a function of, and a gate stays a gate."""
    for composite in ("zero", "cp_lrp"):
        for before in (lambda x: x, torch.sigmoid, lambda x: 2 * x.tanh()):
            one, other = (
                relprop.attribute(
                    lambda x, f=f, g=before: function(f(g(x))), X, composite=composite, target=lambda y: y
                )
                for f in (by_index, pick)
            )
            close(other.values, one.values)
        one, other = (
            relprop.attribute(
                lambda a, x, f=f: f(torch.sigmoid(a)) * x.tanh().sum(1), (A, X), composite="cp_lrp", target=lambda y: y
            )
            for f in (by_index, pick)
        )
        assert one.values[0].abs().max() == other.values[0].abs().max() == 0


def test_a_gate_behind_a_batch_norm() -> None:
    """A factor and a summand per channel, by whatever name."""
    n = A.shape[1]
    mean, variance, weight, bias = torch.randn(n, dtype=D), torch.rand(n, dtype=D) + 0.5, *torch.randn(2, n, dtype=D)
    forms: list[Way] = [
        lambda g: (g - mean) * (variance + 1e-5).rsqrt() * weight + bias,
        lambda g: F.batch_norm(g, mean, variance, weight, bias),
        lambda g: torch.addcmul(bias - mean * weight / (variance + 1e-5).sqrt(), g, weight / (variance + 1e-5).sqrt()),
    ]
    found = [
        relprop.attribute(lambda a, x, f=f: (f(torch.sigmoid(a)) * x).sum(1), (A, X), composite="cp_lrp").values  # type: ignore[misc]
        for f in forms
    ]
    for of_a, of_x in found:
        close(of_a, torch.zeros_like(of_a))
        close(of_x, found[0][1])


REJOINED: dict[str, tuple[Way, Way]] = {
    "padding": (lambda h: F.pad(h, (1, 0)), lambda h: torch.cat([torch.zeros_like(h[:, :1]), h], 1)),
    "rolling": (lambda h: h.roll(1, 1), lambda h: torch.cat([h[:, -1:], h[:, :-1]], 1)),
    "twice": (lambda h: h.repeat(1, 2), lambda h: torch.concat((h, h), -1)),
    "turned": (lambda h: h.flip(1), lambda h: torch.cat([h[:, i : i + 1] for i in reversed(range(h.shape[1]))], 1)),
    "in halves": (lambda h: h, lambda h: torch.cat(h.chunk(2, 1), 1)),
    "side by side": (lambda h: h.repeat(1, 2), lambda h: torch.hstack([h, h])),
    "in columns": (lambda h: h.repeat(1, 2), lambda h: torch.column_stack([h, h])),
    "one over another": (lambda h: h, lambda h: torch.vstack([h.t()[:1], h.t()[1:]]).t()),
    "in depth": (lambda h: h[:, :, None].repeat(1, 1, 2), lambda h: torch.dstack([h, h])),
}


def padded_by_writing(h: Tensor) -> Tensor:
    y = h.new_zeros(len(h), h.shape[1] + 1)
    y[:, 1:] = h
    return y


PADDED: list[Way] = [
    lambda h: F.pad(h, (1, 0)), lambda h: torch.cat([torch.zeros_like(h[:, :1]), h], 1), padded_by_writing,
]  # fmt: skip
ADDED: list[Callable[[Tensor, Tensor], Tensor]] = [
    lambda a, b: torch.add(a, b, alpha=-0.5), lambda a, b: a + -0.5 * b, lambda a, b: a.sub_(b / 2), lambda a, b: a - b + b / 2,
]  # fmt: skip


def test_two_functions_of_one_tensor_meet_behind_moves_and_scales() -> None:
    found = [
        relprop.attribute(lambda x, f=f, g=g, h=h: h(f(x).exp(), g(x.sin())).sin().sum(1), X, composite="zero").values  # type: ignore[misc]
        for f in PADDED for g in PADDED for h in ADDED
    ]  # fmt: skip
    for each in found:
        close(each, found[0])


@pytest.mark.parametrize("moved, joined", REJOINED.values(), ids=REJOINED)
def test_parts_of_one_tensor_that_are_joined(moved: Way, joined: Way) -> None:
    for before in (torch.sigmoid, F.softplus, lambda x: x * torch.sigmoid(x)):
        for after in (F.softplus, torch.tanh, lambda h: h * torch.sigmoid(h)):
            for composite in ("zero", "cp_lrp"):
                one, other = (
                    relprop.attribute(
                        lambda x, f=f, a=after, b=before: a(f(b(x))).sum(1), X, composite=composite
                    ).values
                    for f in (moved, joined)
                )
                close(one, other)


def test_parts_of_several_tensors_begin_anew() -> None:
    def model(x: Tensor) -> Tensor:
        return F.softplus(torch.cat([torch.sigmoid(x), torch.tanh(x)], 1)).sum(1)

    apart = lambda x: (F.softplus(torch.sigmoid(x)) + F.softplus(torch.tanh(x))).sum(1)  # noqa: E731
    for f in (model, apart):
        found = relprop.attribute(f, X, composite="zero")
        close(found.values.sum(1) + found.residual, found.score)


def test_a_mask_that_fits_by_chance_is_no_copy() -> None:
    """Whether a mask hides anything in this batch must not change a map: a sample alone is a sample in a batch."""

    def model(x: Tensor) -> Tensor:
        h = F.softplus(x)
        masked = h.masked_fill(h < 0.5, 0.0)
        other = torch.where((h.detach() < 0.5).logical_not(), h, torch.zeros_like(h))
        by_size = h.gather(1, h.argsort(1).flip(1))
        return (masked * torch.sigmoid(h) + F.gelu(masked) + F.gelu(other) + F.gelu(by_size)).sum(1)

    x = torch.tensor([[2.0, 1.0, 0.5], [-3.0, 1.0, 2.0]], dtype=D)
    whole = relprop.attribute(model, x, composite="zero").values
    for n in range(len(x)):
        close(relprop.attribute(model, x[n : n + 1], composite="zero").values, whole[n : n + 1])


def test_a_gate_whose_chain_overflows_far_out() -> None:
    """`exp(h * h)` has no value at 50, and the chain saturates long before."""

    def model(x: Tensor, softplus: Way) -> Tensor:
        gate = F.gelu(-0.25 * softplus(F.softplus(x) ** 2))
        return (gate * F.softplus(x.roll(1, 1))).sum(1)

    one, other = (
        relprop.attribute(lambda x, f=f: model(x, f), X, composite="cp_lrp").values  # type: ignore[misc]
        for f in (F.softplus, lambda h: (1 + h.exp()).log())
    )
    close(other, one)
