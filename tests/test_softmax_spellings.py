"""A softmax is a softmax however it is written: one value, one map, under every rule for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import relprop
from helpers import D
from relprop import Composite, Constant, Temperature, Zero

close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-11)
MASK = torch.ones(5, 4, dtype=torch.bool).tril(2)
GROUP = torch.tensor([0, 0, 1, 1, 1])


def largest(s: Tensor) -> Tensor:
    return s.amax(-1, keepdim=True)


def shifted(s: Tensor) -> Tensor:
    e = (s - largest(s).detach()).exp()
    return e / e.sum(-1, keepdim=True)


def live_maximum(s: Tensor) -> Tensor:
    e = torch.exp(s - s.max(-1, keepdim=True).values)
    return e.div(e.sum(dim=-1, keepdim=True))


def reciprocal(s: Tensor) -> Tensor:
    e = s.exp()
    return e * (1 / e.sum(-1, keepdim=True))


def in_place(s: Tensor) -> Tensor:
    e = (s - largest(s)).exp_()
    e /= e.sum(-1, keepdim=True)
    return e


def by_sum_of_logs(s: Tensor) -> Tensor:
    m = largest(s)
    return (s - (m + (s - m).exp().sum(-1, keepdim=True).log())).exp()


def transposed(s: Tensor) -> Tensor:
    e = s.transpose(1, 2).exp()
    return (e / e.sum(1, keepdim=True)).transpose(1, 2)


def einsum(s: Tensor) -> Tensor:
    e = s.exp()
    return e / (e @ torch.ones(4, 1, dtype=D))


def written(t: Tensor) -> Tensor:
    y = torch.zeros_like(t)
    y[..., 1:] = t[..., 1:]
    y[..., 0] = t[..., 0]
    return y


PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda s: s.softmax(-1),
    "functional": lambda s: F.softmax(s, dim=2),
    "softmin": lambda s: F.softmin(-s, dim=-1),
    "shifted": shifted,
    "a live maximum": live_maximum,
    "unshifted": lambda s: s.exp() / s.exp().sum(-1, keepdim=True),
    "one exponential": lambda s: (lambda e: e / e.sum(-1, keepdim=True))(s.exp()),
    "expanded": lambda s: (lambda e: e / e.sum(-1, keepdim=True).expand_as(e))(s.exp()),
    "unsqueezed": lambda s: (lambda e: e / e.sum(-1).unsqueeze(-1))(s.exp()),
    "a mean": lambda s: (lambda e: e / (e.mean(-1, keepdim=True) * 4))(s.exp()),
    "reciprocal": reciprocal,
    "in place": in_place,
    "transposed": transposed,
    "logsumexp": lambda s: (s - s.logsumexp(-1, keepdim=True)).exp(),
    "logsumexp, squeezed": lambda s: torch.exp(s - torch.logsumexp(s, 2)[..., None]),
    "log_softmax": lambda s: s.log_softmax(-1).exp(),
    "F.log_softmax": lambda s: F.log_softmax(s, -1).exp(),
    "the logarithm of a sum": lambda s: (s - s.exp().sum(-1, keepdim=True).log()).exp(),
    "its shift added back": by_sum_of_logs,
    "logarithms, cut and stacked": lambda s: torch.stack(s.log_softmax(-1).unbind(1), 1).exp(),
    "logarithms, cut and joined": lambda s: torch.cat(s.log_softmax(-1).chunk(2, 2), 2).exp(),
    "logarithms, split one by one": lambda s: torch.cat([t.exp() for t in s.log_softmax(-1).split(1, 2)], 2),
    "exponentials, cut and stacked": lambda s: (lambda e: e / e.sum(-1, keepdim=True))(
        torch.stack(s.exp().unbind(2), 2)
    ),
    "exponentials, cut": lambda s: (lambda e, below: torch.cat([t / below for t in e.split(1, 2)], 2))(
        *(lambda e: (e, e.sum(-1, keepdim=True)))(s.exp())
    ),
    "logarithms, written": lambda s: written(s.log_softmax(-1)).exp(),
    "exponentials, written": lambda s: (lambda e: e / e.sum(-1, keepdim=True))(written(s.exp())),
    "a product with ones": lambda s: (lambda e: e / (e @ torch.ones(4, 1, dtype=D)))(s.exp()),
    "an einsum of one": lambda s: (lambda e: e / torch.einsum("bij->bi", e)[..., None])(s.exp()),
    "F.linear with ones": lambda s: (lambda e: e / F.linear(e, torch.ones(1, 4, dtype=D)))(s.exp()),
    "a sum of parts": lambda s: (lambda e: e / sum(e.split(1, 2)))(s.exp()),
    "a small constant below": lambda s: (lambda e: e / (e.sum(-1, keepdim=True) + 1e-16))(s.exp()),
    "bounded below": lambda s: (lambda e: e / e.sum(-1, keepdim=True).clamp(min=1e-12))(s.exp()),
}


def normalised(e: Tensor) -> Tensor:
    return e / e.sum(-1, keepdim=True)


def written_by_index(s: Tensor) -> Tensor:
    e = s.exp()
    e[..., ~MASK] = 0.0
    return normalised(e)


def columns_written(s: Tensor) -> Tensor:
    e = s.exp()
    for n, row in enumerate(MASK):
        e[..., n, ~row] = 0
    return normalised(e)


def view_cleared(s: Tensor) -> Tensor:
    e = s.exp()
    for n in range(5):
        e[:, n, min(n + 3, 4) :].zero_()
    return normalised(e)


def flat_view_written(s: Tensor) -> Tensor:
    e = s.exp()
    flat = e.view(-1, 20)
    flat[:, ~MASK.flatten()] = 0.0
    return normalised(e)


def transposed_view_written(s: Tensor) -> Tensor:
    e = s.transpose(1, 2).exp()
    columns = e.transpose(1, 2)  # whose base is not contiguous
    columns[:, ~MASK] = 0.0
    return normalised(e.mT)


def put_where_seen(s: Tensor) -> Tensor:
    e, seen = torch.zeros_like(s), MASK.expand_as(s)
    e[seen] = s.exp()[seen]
    return normalised(e)


def scaled_where_hidden(s: Tensor) -> Tensor:
    e = s.exp()
    e[..., ~MASK] *= 0
    return normalised(e)


def summed_row_by_row(s: Tensor) -> Tensor:
    e, below = s.exp() * MASK, torch.zeros(s.shape[:2], dtype=D)
    for n in range(5):
        below[:, n] += e[:, n].sum(-1)
    return e / below[..., None]


def summed_entry_by_entry(s: Tensor) -> Tensor:
    e, below = s.exp() * MASK, torch.zeros(s.shape[:2], dtype=D)
    for n, m in MASK.nonzero():
        below[:, n] += e[:, n, m]
    return e / below.unsqueeze(2)


MASKED: dict[str, Callable[[Tensor], Tensor]] = {
    "masked_fill": lambda s: s.masked_fill(~MASK, -torch.inf).softmax(-1),
    "added": lambda s: (s + torch.zeros(5, 4, dtype=D).masked_fill(~MASK, -1e300)).softmax(-1),
    "where": lambda s: torch.where(MASK, s, -torch.inf).softmax(-1),
    "a masked exponential": lambda s: (lambda e: e / e.sum(-1, keepdim=True))(s.exp() * MASK),
    "filled exponentials": lambda s: (lambda e: e / e.sum(-1, keepdim=True))(s.exp().masked_fill(~MASK, 0.0)),
    "exponentials written by an index": written_by_index,
    "exponentials written row by row": columns_written,
    "a view of exponentials cleared": view_cleared,
    "a flat view written": flat_view_written,
    "a transposed view written": transposed_view_written,
    "exponentials put where the mask is": put_where_seen,
    "exponentials scaled where it is not": scaled_where_hidden,
    "a sum written row by row": summed_row_by_row,
    "a sum of each entry": summed_entry_by_entry,
    "a product with the mask below": lambda s: (
        lambda e: e * MASK / torch.einsum("bij,ij->bi", e, MASK.to(D))[..., None]
    )(s.exp()),
    "exponentials filled in place": lambda s: normalised(s.exp().masked_fill_(~MASK, 0.0)),
    "exponentials added and written": lambda s: (lambda e: e / (e * 0.5 + 0.5 * e).sum(-1, keepdim=True))(
        (lambda e: (e.__setitem__((..., ~MASK), 0.0), e)[1])(s.exp())
    ),
    "masked, then exponentials": lambda s: (lambda e: e / e.sum(-1, keepdim=True))(
        s.masked_fill(~MASK, -torch.inf).exp()
    ),
    "masked logarithms": lambda s: (lambda t: (t - t.logsumexp(-1, keepdim=True)).exp())(
        s.masked_fill(~MASK, -torch.inf)
    ),
}


def grouped(s: Tensor) -> Tensor:
    """Over the members of each group, as graph libraries write it."""
    m = torch.zeros(2, dtype=D).scatter_reduce(0, GROUP, s.detach(), "amax", include_self=False)
    e = (s - m.index_select(0, GROUP)).exp()
    below = torch.zeros(2, dtype=D).index_add(0, GROUP, e) + 1e-16
    return e / below.index_select(0, GROUP)


def scattered(s: Tensor) -> Tensor:
    e = (s - s.max()).exp()
    below = torch.zeros(2, dtype=D).scatter_add(0, GROUP, e)
    return e / below[GROUP]


def apart(s: Tensor) -> Tensor:
    return torch.cat([s[:2].softmax(0), s[2:].softmax(0)])


def summed_in_place(add: Callable[[Tensor, Tensor], object]) -> Callable[[Tensor], Tensor]:
    def form(s: Tensor) -> Tensor:
        e, below = s.exp(), torch.zeros(2, dtype=D)
        add(below, e)
        return e / below[GROUP]

    return form


def one_by_one(below: Tensor, e: Tensor) -> None:
    for n, group in enumerate(GROUP):
        below[group] += e[n]


HOT = F.one_hot(GROUP).to(D)
IN_PLACE: dict[str, Callable[[Tensor, Tensor], object]] = {
    "scatter_add_": lambda below, e: below.scatter_add_(0, GROUP, e),
    "index_add_": lambda below, e: below.index_add_(0, GROUP, e),
    "index_put_": lambda below, e: below.index_put_((GROUP,), e, accumulate=True),
    "put_": lambda below, e: below.put_(GROUP, e, True),
    "scatter_reduce_": lambda below, e: below.scatter_reduce_(0, GROUP, e, "sum"),
    "one by one": one_by_one,
}
GROUPED = {
    "cat": apart,
    "index_add": grouped,
    "scatter_add": scattered,
    "index_put": lambda s: (lambda e: e / torch.zeros(2, dtype=D).index_put((GROUP,), e, True)[GROUP])(s.exp()),
    "scatter_reduce": lambda s: (lambda e: e / e.new_zeros(2).scatter_reduce(0, GROUP, e, reduce="sum")[GROUP])(
        s.exp()
    ),
    "segment_reduce": lambda s: (lambda e: e / torch.segment_reduce(e, "sum", lengths=torch.tensor([2, 3]))[GROUP])(
        s.exp()
    ),
    "one-hot": lambda s: (lambda e: e / (HOT @ (HOT.T @ e)))(s.exp()),
    "sparse": lambda s: (lambda e: e / (HOT @ torch.sparse.mm(HOT.T.to_sparse(), e[:, None])).squeeze(1))(s.exp()),
} | {name: summed_in_place(add) for name, add in IN_PLACE.items()}
RULES = {
    "zero": Composite({"linear": Zero()}),
    "cp_lrp": relprop.composites.cp_lrp(),
    "constant": Composite({"softmax": Constant()}),
    "epsilon": relprop.composites.epsilon(0.1),
    "auto": "auto",
}


def maps(forms: dict[str, Callable], shape: tuple[int, ...], composite: object) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    w, v = (torch.randn(shape[-1], shape[-1], dtype=D, generator=generator) for _ in range(2))
    x = torch.randn(2, *shape, dtype=D, generator=generator)

    def attention(form: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: (form(x @ w) * (x @ v)).sum((1, 2))

    return {name: relprop.attribute(attention(f), x, composite=composite).values for name, f in forms.items()}  # type: ignore[arg-type]


@pytest.mark.parametrize("composite", RULES.values(), ids=RULES)
@pytest.mark.parametrize("forms", [PLAIN, MASKED], ids=["plain", "masked"])
def test_all_forms_give_one_map(forms: dict[str, Callable], composite: object) -> None:
    found = maps(forms, (5, 4), composite)
    first, *others = found
    for name in others:
        close(found[name], found[first], msg=lambda m, name=name: f"{name}: {m}")
    assert found[first].abs().sum() > 1


@pytest.mark.parametrize("composite", RULES.values(), ids=RULES)
def test_groups_of_a_graph(composite: object) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 3, dtype=D, generator=generator)
    w, v = torch.randn(3, dtype=D, generator=generator), torch.randn(3, dtype=D, generator=generator)
    found = [
        relprop.attribute(lambda x, f=f: (f(x @ w) * (x @ v)).sum(), x, composite=composite).values  # type: ignore[misc, arg-type]
        for f in GROUPED.values()
    ]
    for name, other in zip(GROUPED, found, strict=True):
        close(other, found[0], msg=lambda m, name=name: f"{name}: {m}")


def test_a_temperature_acts_on_quotients_as_well() -> None:
    composite = Composite({"softmax": Temperature(2.0)})
    forms = {k: f for k, f in PLAIN.items() if "log" not in k and "added back" not in k}
    found = maps({**forms, "log_softmax": PLAIN["log_softmax"]}, (5, 4), composite)
    for name, value in found.items():
        close(value, found["softmax"], msg=lambda m, name=name: f"{name}: {m}")
    assert not torch.allclose(found["softmax"], maps({"softmax": PLAIN["softmax"]}, (5, 4), RULES["zero"])["softmax"])
    with pytest.raises(relprop.errors.RuleError, match=r"torch\.softmax\(s, dim\)"):
        maps({"logsumexp": PLAIN["logsumexp"]}, (5, 4), composite)


LOGS: dict[str, Callable[[Tensor], Tensor]] = {
    "log_softmax": lambda s: s.log_softmax(-1),
    "softmax and log": lambda s: s.softmax(-1).log(),
    "logsumexp": lambda s: s - s.logsumexp(-1, keepdim=True),
    "the logarithm of a sum": lambda s: s - s.exp().sum(-1, keepdim=True).log(),
    "the logarithm of a quotient": lambda s: shifted(s).log(),
}


@pytest.mark.parametrize("composite", ["zero", "epsilon", "attnlrp"])
def test_its_logarithm_as_well(composite: str) -> None:
    found = maps(LOGS, (5, 4), composite)
    for name, value in found.items():
        close(value, found["log_softmax"], msg=lambda m, name=name: f"{name}: {m}")


def columns(t: Tensor) -> Tensor:
    return torch.stack([t[..., i] for i in range(4)], -1)


def halves(t: Tensor) -> Tensor:
    return torch.cat([t[..., :2], t[..., 2:]], -1)


PIECES: dict[str, Callable[[Tensor], Tensor]] = {
    "whole": lambda s: s.softmax(-1),
    "columns of logarithms": lambda s: columns(s.log_softmax(-1)).exp(),
    "halves of logarithms": lambda s: halves(s.log_softmax(-1)).exp(),
    "columns of halves": lambda s: columns(halves(F.log_softmax(s, -1))).exp(),
    "logarithms, turned": lambda s: halves(s.log_softmax(-1)).mT.exp().mT,
    "columns of exponentials": lambda s: (lambda e: columns(e) / e.sum(-1, keepdim=True))(s.exp()),
    "all of joined exponentials": lambda s: (lambda e: e / e.sum(-1, keepdim=True))(halves(s.exp())),
    "columns of scores": lambda s: columns(s).softmax(-1),
    "columns of logarithms of a quotient": lambda s: columns(s - s.logsumexp(-1, keepdim=True)).exp(),
    "columns of a softmax": lambda s: columns(s.softmax(-1)),
}
LOGS_OF_PIECES: dict[str, Callable[[Tensor], Tensor]] = {
    "log_softmax": LOGS["log_softmax"],
    "columns": lambda s: columns(s.softmax(-1)).log(),
    "halves, turned": lambda s: halves(s.softmax(-1)).mT.log().mT,
    "halves of a quotient": lambda s: halves(shifted(s)).log(),
}


@pytest.mark.parametrize("composite", [*RULES.values(), "gamma_flat"], ids=[*RULES, "gamma_flat"])
def test_in_pieces_as_well(composite: object) -> None:
    found = maps(PIECES, (5, 4), composite)
    first, *others = found
    for name in others:
        close(found[name], found[first], msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("composite", ["zero", "epsilon", "attnlrp", "gamma_flat"])
def test_the_logarithm_of_pieces_as_well(composite: str) -> None:
    found = maps(LOGS_OF_PIECES, (5, 4), composite)
    first, *others = found
    for name in others:
        close(found[name], found[first], msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("name", [n for n in PIECES if "quotient" not in n])
def test_a_temperature_acts_on_pieces_as_well(name: str) -> None:
    found = maps({"whole": PIECES["whole"], name: PIECES[name]}, (5, 4), Composite({"softmax": Temperature(2.0)}))
    close(found[name], found["whole"])


def test_pieces_of_several_softmaxes() -> None:
    """Each is one; a temperature cannot act on them together, which is said."""
    forms: dict[str, Callable[[Tensor], Tensor]] = {
        "apart": lambda s: torch.cat([s[..., :2].softmax(-1), s[..., 2:].softmax(-1)], -1),
        "logarithms": lambda s: torch.cat([s[..., :2].log_softmax(-1), s[..., 2:].log_softmax(-1)], -1).exp(),
    }
    for composite in RULES.values():
        found = maps(forms, (5, 4), composite)
        close(found["logarithms"], found["apart"])
    with pytest.raises(relprop.errors.RuleError, match=r"torch\.softmax\(s, dim\)"):
        maps({"logarithms": forms["logarithms"]}, (5, 4), Composite({"softmax": Temperature(2.0)}))


PARTS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda s: s[..., :2].softmax(-1),
    "logsumexp": lambda s: (s[..., :2] - s[..., :2].logsumexp(-1, keepdim=True)).exp(),
    "of one slice": lambda s: (lambda t: (t - t.logsumexp(-1, keepdim=True)).exp())(s[..., :2]),
    "split": lambda s: (s.split(2, -1)[0] - s.split(2, -1)[0].logsumexp(-1, keepdim=True)).exp(),
    "the logarithm of a sum": lambda s: (lambda t: (t - t.exp().sum(-1, keepdim=True).log()).exp())(s[..., :2]),
}
ACROSS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "logsumexp": lambda a, b: (a - b.logsumexp(-1, keepdim=True)).exp(),
    "the logarithm of a sum": lambda a, b: (a - b.exp().sum(-1, keepdim=True).log()).exp(),
    "in place": lambda a, b: (a + 0).sub_(b.logsumexp(-1, keepdim=True)).exp(),
}


@pytest.mark.parametrize("composite", ["zero", "cp_lrp", "attnlrp", "gamma_flat"])
def test_a_part_of_the_scores_may_be_a_softmax_of_its_own(composite: str) -> None:
    x, w = torch.randn(2, 3, 4, dtype=D), torch.randn(4, 4, dtype=D)
    for f in PARTS.values():
        one, other = (
            relprop.attribute(lambda x, g=g: (g(x @ w) * x[..., 2:]).sum((1, 2)), x, composite=composite).values  # type: ignore[misc]
            for g in (PARTS["softmax"], f)
        )
        close(other, one)


@pytest.mark.parametrize("name", ACROSS)
@pytest.mark.parametrize("composite", ["zero", "cp_lrp", "attnlrp"])
def test_scores_less_the_sum_of_others_are_no_softmax(composite: str, name: str) -> None:
    """Two halves of one tensor are as different as two tensors."""
    x, w, f = torch.randn(2, 3, 4, dtype=D), torch.randn(4, 4, dtype=D), ACROSS[name]

    def apart(x: Tensor) -> Tensor:
        return (f(x @ w[:, :2], x @ w[:, 2:]) * x[..., 2:]).sum((1, 2))

    def halves(x: Tensor) -> Tensor:
        s = x @ w
        return (f(s[..., :2], s[..., 2:]) * x[..., 2:]).sum((1, 2))

    def turned(x: Tensor) -> Tensor:
        a, b = (x @ w).mT.chunk(2, 1)
        return (f(a.mT, b.mT) * x[..., 2:]).sum((1, 2))

    want = relprop.attribute(apart, x, composite=composite).values
    for g in (halves, turned):
        close(relprop.attribute(g, x, composite=composite).values, want)


def test_a_quotient_by_a_difference_of_exponentials_is_no_softmax() -> None:
    x = torch.randn(2, 3, dtype=D)
    for minus in (lambda a, b: a - b, lambda a, b: torch.add(a, b, alpha=-1), lambda a, b: a + -1 * b):

        def parts(x: Tensor, minus: Callable[[Tensor, Tensor], Tensor] = minus) -> Tensor:
            e = (x * 2).exp()
            return e / minus(e[:, :1], e[:, 1:2])

        def apart(x: Tensor) -> Tensor:
            a, b, c = ((x[:, n : n + 1] * 2).exp() for n in range(3))
            return torch.cat([a, b, c], 1) / (a - b)

        found, want = (relprop.attribute(f, x, 2, composite="zero").values for f in (parts, apart))
        close(found, want)


def test_an_exponential_that_ends_in_no_softmax_keeps_its_secant() -> None:
    x = torch.randn(2, 3, dtype=D)
    f = lambda x: (x.exp() / x.exp().sum(-1, keepdim=True)).sum(-1) * 0 + x.exp().sum(-1)  # noqa: E731
    close(relprop.attribute(f, x, composite="zero").values, x.exp() - 1)
    g = lambda x: (x.exp() / (1 + x.square().sum(-1, keepdim=True))).sum(-1)  # noqa: E731
    close(relprop.attribute(g, x, composite="zero").values, (x.exp() - 1) / (1 + x.square().sum(-1, keepdim=True)))


def summed_over_edges(e: Tensor, v: Tensor) -> Tensor:
    above, below = torch.zeros(2, 3, 4, dtype=D), torch.zeros(2, 3, 1, dtype=D)
    above.index_add_(1, EDGES, e.unsqueeze(-1) * v)
    below.index_add_(1, EDGES, e.unsqueeze(-1))
    return above / below


def one_neighbour_after_another(e: Tensor, v: Tensor) -> Tensor:
    above, below = torch.zeros(2, 3, 4, dtype=D), torch.zeros(2, 3, dtype=D)
    for n, group in enumerate(EDGES):
        above[:, group] += e[:, n, None] * v[:, n]
        below[:, group] += e[:, n]
    return above / below[..., None]


def group_by_group(e: Tensor, v: Tensor) -> Tensor:
    made = torch.empty(2, 3, 4, dtype=D)
    for n in range(3):
        one = n == EDGES
        made[:, n] = (e[:, one, None] * v[:, one]).sum(1) / e[:, one].sum(1, keepdim=True)
    return made


def over_edges(s: Tensor, v: Tensor) -> Tensor:
    weights = torch.cat([s[:, n == EDGES].softmax(1) for n in range(3)], 1)
    return torch.stack([(weights * (n == EDGES)).unsqueeze(1) @ v for n in range(3)], 2).squeeze(1)


def overwritten_between(e: Tensor, v: Tensor) -> Tensor:
    above = e.unsqueeze(1) @ v
    v.zero_()
    return above / e.sum(1)[:, None, None]


EDGES = torch.tensor([0, 0, 1, 2, 2])
MEANS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a product of matrices": lambda e, v: e.unsqueeze(1) @ v / e.sum(1)[:, None, None],
    "bmm": lambda e, v: torch.bmm(e[:, None], v).div(e.sum(1, keepdim=True).unsqueeze(2)),
    "einsum": lambda e, v: (torch.einsum("bt,btc->bc", e, v) / torch.einsum("bt->b", e)[:, None])[:, None],
    "by entry": lambda e, v: ((e[..., None] * v).sum(1) / e.sum(1, keepdim=True))[:, None],
    "by a reciprocal": lambda e, v: (e[:, None] @ v) * (1 / e.sum(1)[:, None, None]),
    "a mean of each": lambda e, v: ((v * e.unsqueeze(2)).mean(1) / e.mean(1, keepdim=True)).unsqueeze(1),
    "step by step": lambda e, v: (sum(e[:, n, None] * v[:, n] for n in range(5)) / sum(e.unbind(1))[:, None])[:, None],
    "in place": lambda e, v: ((v.mul_(e[..., None])).sum(1) / e.sum(1, keepdim=True))[:, None],
    "its operands overwritten since": overwritten_between,
}
OF_EDGES = {
    "index_add_": summed_over_edges,
    "one after another": one_neighbour_after_another,
    "group by group": group_by_group,
}


@pytest.mark.parametrize("gated", [False, True], ids=["linear", "activation"])
@pytest.mark.parametrize(
    "composite",
    [*RULES.values(), Composite({"softmax": Temperature(2.0)}), "attnlrp", "gamma_flat", relprop.composites.lstm()],
)
@pytest.mark.parametrize("name", [*MEANS, *OF_EDGES])
def test_a_mean_weighed_by_exponentials_is_one_weighed_by_a_softmax(name: str, composite: Any, gated: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    w, v = torch.randn(4, dtype=D, generator=generator), torch.randn(4, 4, dtype=D, generator=generator)
    x, c = torch.randn(2, 5, 4, dtype=D, generator=generator), torch.randn(4, dtype=D, generator=generator)
    value = (lambda x: torch.sigmoid(x @ v)) if gated else (lambda x: x @ v)
    mean, plain = (
        (MEANS[name], lambda s, v: s.softmax(1)[:, None] @ v) if name in MEANS else (OF_EDGES[name], over_edges)
    )

    def written(x: Tensor) -> Tensor:
        return (mean((x @ w).exp(), value(x)) @ c).sum(1)

    def usual(x: Tensor) -> Tensor:
        return (plain(x @ w, value(x)) @ c).sum(1)

    if composite == "auto":  # which chooses by the products of matrices
        composite = "attnlrp"
    R, expected = (relprop.attribute(f, x, composite=composite) for f in (written, usual))
    assert torch.equal(R.output, written(x))
    close(R.values, expected.values)


@pytest.mark.parametrize("composite", RULES.values(), ids=RULES)
def test_scores_may_be_overwritten_behind_their_exponential(composite: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    w, x = torch.randn(4, 4, dtype=D, generator=generator), torch.randn(2, 5, 4, dtype=D, generator=generator)

    def model(x: Tensor, spoil: bool) -> Tensor:
        s = x @ w
        e = s.exp()
        if spoil:
            s.mul_(0.5)
            s[:, 0] = 0.0
        return ((e / e.sum(-1, keepdim=True)) * x).sum((1, 2)) + e.sum((1, 2)).log()

    found, expected = (relprop.attribute(partial(model, spoil=s), x, composite=composite).values for s in (True, False))
    close(found, expected)
