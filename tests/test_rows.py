"""Rows that are not samples: the books are of each score, the result says so, and nothing is asked where all is plain."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import relprop
from helpers import D
from relprop.engine import mode

close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-11)
N = 6


def alone(model: Callable[[Tensor], Tensor], x: Tensor, composite: str) -> list[relprop.Relevance]:
    """Each score by itself: what its books must be."""
    return [relprop.attribute(model, x, lambda y, n=n: y[n, 1], composite=composite) for n in range(len(x))]


def graph(seed: int, bias: bool) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Two layers of a graph network, nodes by nodes."""
    torch.manual_seed(seed)
    a = torch.rand(N, N, dtype=D)
    a = a / a.sum(1, keepdim=True)
    first, second = nn.Linear(4, 5, bias=bias).to(D), nn.Linear(5, 3, bias=bias).to(D)
    return lambda x: second(a @ torch.relu(a @ first(x))), torch.randn(N, 4, dtype=D)


def edges(x: Tensor) -> Tensor:
    """Messages along edges."""
    source, sink = torch.tensor([0, 1, 2, 3, 4, 5, 0]), torch.tensor([1, 2, 3, 4, 5, 0, 3])
    return x[:, :3] + torch.zeros(N, 3, dtype=x.dtype).index_add(0, sink, x[source][:, 1:] + 0.5)


def tokens(x: Tensor) -> Tensor:
    """An attention over the rows."""
    return F.scaled_dot_product_attention(x[None], x[None] + 0.3, x[None])[0]


MIXING: dict[str, Callable[[Tensor], Tensor]] = {
    "graph": graph(0, True)[0],
    "edges": edges,
    "tokens": tokens,
    "less the mean of all": lambda x: (x - x.mean(0)) * 2 + 1,
    "shifted": lambda x: x + x.roll(1, 0) + 1,
    "one pair": lambda x: x + torch.cat([x[1:2], x[:1], torch.zeros_like(x[2:])]) + 1,
    "transposed": lambda x: (x.T @ torch.ones(N, N, dtype=D) + 1).T,
    "softmax over rows": lambda x: torch.softmax(x, 0) * x,
}


@pytest.mark.parametrize("ledger", [False, True])
@pytest.mark.parametrize("composite", ["zero", "epsilon"])
@pytest.mark.parametrize("name", MIXING)
def test_the_books_are_of_each_score(name: str, composite: str, ledger: bool) -> None:
    model, x = MIXING[name], torch.randn(N, 4, dtype=D)
    R = relprop.attribute(model, x, 1, composite=composite, ledger=ledger)
    each = alone(model, x, composite)
    close(R.values, sum(one.values for one in each))
    close(R.residual, torch.cat([one.residual for one in each]))
    if ledger:
        close(sum(R.ledger.values(), torch.zeros(N, dtype=D)), R.residual)
    assert any("independent samples" in notice for notice in R.notices)
    assert "independent samples" in repr(R)


def test_a_linear_graph_without_a_bias_keeps_nothing() -> None:
    model, x = graph(1, bias=False)
    R = relprop.attribute(model, x, 1, composite="zero", ledger=True)
    close(R.residual, torch.zeros(N, dtype=D))
    close(sum(R.ledger.values(), torch.zeros(N, dtype=D)), torch.zeros(N, dtype=D))


def test_the_advice_gives_one_node() -> None:
    model, x = graph(2, True)
    one = relprop.attribute(model, x, target=lambda output: output[3, 1])
    assert len(one) == 1 and not one.notices
    close(one.score, model(x)[3, 1].detach()[None])


def recurrent(x: Tensor) -> Tensor:
    """Time first."""
    torch.manual_seed(3)
    return nn.LSTM(4, 3).to(D)(x.transpose(0, 1))[0][-1]


APART: dict[str, Callable[[Tensor], Tensor]] = {
    "time first": recurrent,
    "there and back": lambda x: (x.flip(0) * 2 + 1).flip(0)[:, 0],
    "one by one": lambda x: torch.stack([row.sum(0) + 1 for row in x]),
    "features first": lambda x: (torch.ones(4, 4, dtype=D) @ x[:, 0].T + 1).T,
}


@pytest.mark.parametrize("ledger", [False, True])
@pytest.mark.parametrize("name", APART)
def test_samples_that_lie_elsewhere_meanwhile_are_samples(name: str, ledger: bool) -> None:
    torch.manual_seed(4)
    model, x = APART[name], torch.randn(N, 5, 4, dtype=D)
    R = relprop.attribute(model, x, 1, composite="epsilon", ledger=ledger)
    each = [relprop.attribute(model, one[None], 1, composite="epsilon") for one in x]
    close(R.values, torch.cat([one.values for one in each]))
    close(R.residual, torch.cat([one.residual for one in each]))
    assert not R.notices
    if ledger:
        close(sum(R.ledger.values(), torch.zeros(N, dtype=D)), R.residual)


def test_an_input_that_all_samples_share() -> None:
    """Positions for all texts: ids of shape (1, T)."""
    torch.manual_seed(5)
    words, places, head = nn.Embedding(9, 4).to(D), nn.Embedding(5, 4).to(D), nn.Linear(4, 2).to(D)

    def model(ids: Tensor, positions: Tensor) -> Tensor:
        return head((words(ids) + places(positions)).tanh().mean(1))

    ids, positions = torch.randint(9, (3, 5)), torch.arange(5)[None]
    R = relprop.attribute(model, (ids, positions), 1, composite="epsilon")
    each = [relprop.attribute(model, (one[None], positions), 1, composite="epsilon") for one in ids]
    close(R.residual, torch.cat([one.residual for one in each]))
    assert not R.notices


def passes(model: Callable[..., Tensor], x: Tensor, monkeypatch: pytest.MonkeyPatch, **options: bool) -> int:
    """How many backward passes an explanation takes."""
    count = 0
    grad = torch.autograd.grad

    def counted(*args: object, **kwargs: object) -> object:
        nonlocal count
        count += bool(kwargs.get("allow_unused"))
        return grad(*args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(torch.autograd, "grad", counted)
        relprop.attribute(model, x, 1, **options)  # type: ignore[arg-type]
    return count


class Usual(nn.Module):
    """What most networks are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.pool = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AvgPool2d(2)
        self.attend = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.head, self.ln = nn.Linear(8, 4), nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        h = self.pool(F.silu(self.norm(self.conv(x)))).flatten(2).transpose(1, 2)
        q, k, v = (layer(self.ln(h)).reshape(len(x), -1, 2, 4).permute(0, 2, 1, 3) for layer in self.attend)
        h = h + (torch.softmax(q @ k.mT / 2, -1) @ v).transpose(1, 2).reshape(h.shape)
        return self.head(torch.cat([h[:, :1], h[:, 1:]], 1).mean(1))


@pytest.mark.parametrize("ledger", [False, True])
def test_one_backward_pass_is_enough_for_the_usual(ledger: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = Usual().eval(), torch.randn(3, 3, 8, 8)
    assert passes(model, x, monkeypatch, ledger=ledger) == 1
    assert passes(graph(6, True)[0], torch.randn(N, 4, dtype=D), monkeypatch) > 1


class Recurrent(nn.Module):
    """A recurrent layer with the samples first; what it returns, or its last state, whose samples lie along the second axis."""

    def __init__(self, kind: type[nn.RNNBase], last: bool) -> None:
        super().__init__()
        self.layer, self.last = kind(4, 3, 2, batch_first=True), last

    def forward(self, x: Tensor) -> Tensor:
        output, state = self.layer(x)
        state = state[0] if isinstance(state, tuple) else state
        return state[-1] if self.last else output[:, -1]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_one_backward_pass_is_enough_for_a_recurrent_layer(
    kind: type[nn.RNNBase], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(7)
    x = torch.randn(2, 5, 4, dtype=D)
    for last in (False, True):
        model = Recurrent(kind, last).to(D).eval()
        assert passes(model, x, monkeypatch) == passes(model, x[:1], monkeypatch) + last
        R = relprop.attribute(model, x, 1)
        each = [relprop.attribute(model, one[None], 1) for one in x]
        close(R.values, torch.cat([one.values for one in each]))
        close(R.residual, torch.cat([one.residual for one in each]))


def test_a_recurrent_layer_over_the_samples_mixes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = nn.LSTM(4, 3).to(D).eval(), torch.randn(N, 2, 4, dtype=D)  # the first axis is time
    assert passes(lambda x: layer(x)[0][:, 0], x, monkeypatch) > 1
    alone, x = (
        nn.LSTM(4, 3, batch_first=True).to(D).eval(),
        torch.randn(N, 4, dtype=D),
    )  # one sequence, without an axis of samples
    assert passes(lambda x: alone(x)[0], x, monkeypatch) > 1


def test_what_operations_show_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every operation that is passed without a question, asked all the same: no sample moves another's result."""
    asked = []

    def checked(samples: int, entry: object, args: tuple, kwargs: dict, live: list[Tensor], result: object) -> bool:
        sure = real(samples, entry, args, kwargs, live, result)  # type: ignore[arg-type]
        for r in [result] if isinstance(result, Tensor) else []:
            if not sure or r.dtype is not D or not r.requires_grad or r.grad_fn is None or r.ndim == 0:
                continue
            for n in range(samples):
                seed = torch.zeros_like(r)
                seed.reshape(samples, -1)[n] = 1
                for t, g in zip(
                    live, torch.autograd.grad(r, live, seed, retain_graph=True, allow_unused=True), strict=True
                ):
                    if g is not None and t is not r:
                        others = torch.arange(samples) != n
                        asked.append(getattr(entry, "function", None))
                        assert not g.reshape(samples, -1)[others].any(), entry
        return sure

    real = mode.apart
    monkeypatch.setattr(mode, "apart", checked)
    torch.manual_seed(7)
    relprop.attribute(Usual().to(D).eval(), torch.randn(3, 3, 8, 8, dtype=D), [0, 1, 2], composite="zero")
    for make in (indexing, joining, reducing, multiplying):
        relprop.attribute(make, torch.randn(4, 4, 4, dtype=D), composite="zero")
    assert len(set(asked)) > 30


def indexing(x: Tensor) -> Tensor:
    a = x[:, 1] + x[:, :, 2] + x[..., 0] + x[:, [0, 1, 2, 3], [3, 2, 1, 0]] + x[:, torch.tensor([3, 2, 1, 0])][:, :, 0]
    b = (
        x.select(1, 0)
        + x.narrow(2, 1, 1)[..., 0]
        + x.index_select(1, torch.tensor([2]))[:, 0]
        + x.gather(1, torch.zeros(4, 1, 4).long())[:, 0]
    )
    c = torch.zeros_like(x)
    c[:, 1:3] = x[:, 2:4]
    c[:, 0] = x[:, 0]
    d = x.movedim(1, 2).roll(1, 1).flip(2).unbind(1)[0] + x.permute(0, 2, 1)[:, 1] + x.mT[:, 2]
    return (a + b + c.sum(1) + d).sum(1)


def joining(x: Tensor) -> Tensor:
    y = torch.cat([x, x[:, :2]], 1)[:, 2:] + torch.stack([x[:, 0], x[:, 1], x[:, 2], x[:, 3]], 1)
    y = y + x.reshape(16, 4).view(4, 4, 4) + x.flatten(1).unflatten(1, (4, 4)) + x.repeat(1, 2, 1)[:, 2:6]
    y = (
        y
        + torch.where(x > 0, x, 2 * x)
        + x.masked_fill(x > 1, 0.0)
        + x.expand(4, 4, 4).clone()
        + F.pad(x, (1, 0))[..., 1:]
    )
    first, second = y.chunk(2, 1)
    return (torch.cat(y.split(2, 2), 2) + torch.cat([second, first], 1)).sum((1, 2))


def reducing(x: Tensor) -> Tensor:
    y = x.sum(1) + x.mean((1,)) + x.amax(2) + x.max(1).values + x.std(1) + x.var(2) + x.logsumexp(1) + x.cumsum(1)[:, 3]
    y = y + x.softmax(1)[:, 0] + x.log_softmax(-1)[:, 0] + x.topk(1, 1).values[:, 0] + x.sort(1).values[:, 0]
    return (y + F.normalize(x, dim=1)[:, 0] + F.glu(torch.cat([x, x], 2), 2)[:, 0] + x.norm(2, 1)).sum(1)


def multiplying(x: Tensor) -> Tensor:
    w, square = torch.arange(16.0, dtype=D).reshape(4, 4) / 7 - 1, x @ x.mT
    y = (
        x @ w
        + w @ x
        + torch.bmm(x, x)
        + square
        + torch.einsum("nij,njk->nik", x, x)
        + torch.einsum("nij,jk->nik", x, w)
    )
    y = y + x * x[:, :1] + x / 2 + F.conv1d(x, w[:, :, None]) + F.max_pool1d(x, 1) + F.group_norm(x, 2)
    y = y + F.scaled_dot_product_attention(x, x, x) + F.linear(x, w)
    return torch.addmm(w[0], y[:, 0], w).sum(1) + y.sum((1, 2))


def test_an_operation_of_ones_own_says_that_it_keeps_samples_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    library = torch.library.Library("rows", "DEF")
    x = torch.randn(3, 4, dtype=D)
    for name, apart in (("silent", None), ("speaking", lambda args, kwargs, live, result: True)):
        library.define(f"{name}(Tensor x) -> Tensor")
        library.impl(name, lambda x: x.cumsum(1), "CompositeImplicitAutograd")
        operation = getattr(torch.ops.rows, name)
        relprop.register(operation, family="structure", only=True, apart=apart)
        assert (passes(lambda x, f=operation: f(x) + 1, x, monkeypatch) == 1) is (apart is not None)
