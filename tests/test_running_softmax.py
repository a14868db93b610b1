"""A softmax in chunks, with a running maximum and a running sum, has the map of the softmax over the whole row."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import relprop
from helpers import D
from relprop import Composite, Constant, Temperature, Zero

close = partial(torch.testing.assert_close, rtol=1e-8, atol=1e-10)
T = 6
HIDDEN = torch.ones(T, T, dtype=torch.bool).triu(1)
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def chunks(q: Tensor, k: Tensor, v: Tensor, size: int) -> Any:
    """The scores and values of each chunk of keys."""
    for j in range(0, T, size):
        yield (q @ k[:, j : j + size].mT).masked_fill(HIDDEN[:, j : j + size], -1e9), v[:, j : j + size]


def whole(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT).masked_fill(HIDDEN, -1e9).softmax(-1) @ v


def running(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    most, below, above = torch.full((2, T, 1), -1e30, dtype=D), torch.zeros(2, T, 1, dtype=D), torch.zeros_like(q)
    for s, part in chunks(q, k, v, 2):
        new = torch.maximum(most, s.amax(-1, keepdim=True))
        p, anew = torch.exp(s - new), torch.exp(most - new)
        below, above, most = anew * below + p.sum(-1, keepdim=True), anew * above + p @ part, new
    return above / below


def in_place(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    most, below, above = torch.full((2, T), -torch.inf, dtype=D), torch.zeros(2, T, dtype=D), torch.zeros_like(q)
    for s, part in chunks(q, k, v, 3):
        new = torch.maximum(most, s.max(-1).values)
        p, anew = (s - new[..., None]).exp(), (most - new).exp()
        below *= anew
        below += p.sum(-1)
        above *= anew[..., None]
        above += torch.einsum("bij,bjc->bic", p, part)
        most = new
    return above / below.unsqueeze(-1)


def constant_maximum(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    most, below, above = torch.full((2, T), -torch.inf, dtype=D), torch.zeros(2, T, dtype=D), torch.zeros_like(q)
    for s, part in chunks(q, k, v, 3):
        new = torch.maximum(most, s.detach().amax(-1))
        p, anew = (s - new[..., None]).exp(), (most - new).exp()
        below, above, most = below * anew + p.sum(-1), above * anew[..., None] + p @ part, new
    return above * (1 / below)[..., None]


def key_by_key(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    rows = []
    for t in range(T):
        above: Any = 0.0
        below: Any = 0.0
        for j in range(t + 1):
            e = torch.exp((q[:, t] * k[:, j]).sum(-1, keepdim=True))
            above, below = above + e * v[:, j], below + e
        rows.append(above / below)
    return torch.stack(rows, 1)


def into_buffers(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    above, below = torch.zeros_like(q), torch.zeros(2, T, 1, dtype=D)
    for j in range(T):
        e = torch.exp(q[:, j:] @ k[:, j, :, None])
        above[:, j:] += e * v[:, j : j + 1]
        below[:, j:] += e
    return above / below


def row_by_row(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    e = torch.zeros(2, T, T, dtype=D)
    for t in range(T):
        e[:, t, : t + 1] = (q[:, t, None] @ k[:, : t + 1].mT).squeeze(1).exp()
    return e / e.sum(-1, keepdim=True) @ v


FORMS = {f.__name__: f for f in (running, in_place, constant_maximum, key_by_key, into_buffers, row_by_row)}
RULES = {
    "zero": Composite({"linear": Zero()}),
    "attnlrp": "attnlrp",
    "cp_lrp": "cp_lrp",
    "constant": Composite({"softmax": Constant()}),
    "epsilon": relprop.composites.epsilon(0.1),
    "gamma_flat": "gamma_flat",
}


def weights(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(4, 4, dtype=D, generator=generator) / 2 for _ in range(count)]


@pytest.mark.parametrize("composite", RULES.values(), ids=RULES)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_running_softmax_is_the_softmax(form: Attention, composite: Any) -> None:
    wq, wk, wv = weights(3)
    x = torch.randn(2, T, 4, dtype=D, generator=torch.Generator().manual_seed(1))

    def model(x: Tensor, attention: Attention) -> Tensor:
        return attention(x @ wq, x @ wk, torch.sigmoid(x @ wv)).sum(1)

    found, expected = (
        relprop.attribute(partial(model, attention=f), x, 0, composite=composite, ledger=True) for f in (form, whole)
    )
    assert torch.equal(found.output, model(x, form))
    close(found.values, expected.values)
    close(found.values.sum((1, 2)) + found.residual, found.score)
    alone = relprop.attribute(partial(model, attention=_first_alone(form)), x[:1], 0, composite=composite)
    close(alone.values, found.values[:1])


def _first_alone(form: Attention) -> Attention:
    """The same for one sample, given twice, since the forms have buffers for two."""
    return lambda q, k, v: form(*(torch.cat([t, t.detach()]) for t in (q, k, v)))[:1]


def _over_time(k: Tensor, v: Tensor, decay: Tensor, now: Tensor) -> Tensor:
    above: Any = torch.zeros_like(v[:, 0])
    below: Any = torch.zeros_like(v[:, 0])
    rows = []
    for t in range(T):
        e = torch.exp(k[:, t] + now)
        rows.append((above + e * v[:, t]) / (below + e))
        above = torch.exp(-decay) * above + k[:, t].exp() * v[:, t]
        below = torch.exp(-decay) * below + k[:, t].exp()
    return torch.stack(rows, 1)


def _at_each_time(k: Tensor, v: Tensor, decay: Tensor, now: Tensor) -> Tensor:
    rows = []
    for t in range(T):
        s = torch.stack([k[:, i] - (t - 1 - i) * decay for i in range(t)] + [k[:, t] + now], 1)
        rows.append((s.softmax(1) * v[:, : t + 1]).sum(1))
    return torch.stack(rows, 1)


@pytest.mark.parametrize("composite", RULES.values(), ids=RULES)
def test_a_mean_over_time_with_a_decay_is_weighed_by_a_softmax(composite: Any) -> None:
    """The weighted mean of RWKV."""
    wk, wv = weights(2)
    x = torch.randn(2, T, 4, dtype=D, generator=torch.Generator().manual_seed(1))
    decay, now = torch.rand(4, dtype=D), torch.randn(4, dtype=D)
    found, expected = (
        relprop.attribute(lambda x, f=f: f(x @ wk, x @ wv, decay, now).sum(1), x, 0, composite=composite).values  # type: ignore[misc]
        for f in (_over_time, _at_each_time)
    )
    close(found, expected)


@pytest.mark.parametrize("composite", [*RULES.values(), Composite({"softmax": Temperature(2.0)})])
def test_a_softmax_of_two_tensors_is_one_of_their_stack(composite: Any) -> None:
    a, b, c = torch.randn(3, 2, 5, dtype=D, generator=torch.Generator().manual_seed(1))

    def stacked(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return (torch.stack([a, b]).softmax(0)[0] * c).sum(1)

    def quotient(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        x, y = a.exp(), b.exp()
        return (x / (x + y) * c).sum(1)

    def product_first(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return (a.exp() * c / (a.exp() + b.exp())).sum(1)

    expected = relprop.attribute(stacked, (a, b, c), composite=composite).values
    for form in (quotient, product_first):
        for found, one in zip(relprop.attribute(form, (a, b, c), composite=composite).values, expected, strict=True):
            close(found, one)
