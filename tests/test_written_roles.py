"""What a tensor is known to be survives what is written into it, as it survives the operation that makes a new tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import relprop
from helpers import D, close

Way = Callable[[Tensor], Tensor]
Use = Callable[[Tensor, Tensor], Tensor]


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=D, generator=torch.Generator().manual_seed(sum(shape)))


W, V, ROW, X = drawn(4, 4), drawn(4, 3), drawn(4).abs() + 0.5, drawn(2, 4)
TABLE, OTHER = drawn(3, 4), drawn(2, 8)[:, :4]
MASK = torch.tensor([True, False, True, False])
EYE = torch.eye(2, 4, dtype=torch.bool)


def total(t: Tensor) -> Tensor:
    return t.sum(1, keepdim=True)


# What is known of a tensor made of scores s, and what it is used for.
KNOWN: dict[str, tuple[Way, Use]] = {
    "exponentials of a softmax": (torch.exp, lambda e, s: (e / total(e)) @ V),
    "exponentials below a logarithm": (torch.exp, lambda e, s: (s - total(e).log()) @ V),
    "exponentials": (torch.exp, lambda e, s: e @ V),
    "logarithms of a softmax": (lambda s: s.log_softmax(1), lambda e, s: e.exp() @ V),
    "a softmax below a logarithm": (lambda s: s.softmax(1), lambda e, s: (e + 1e-9).log() @ V),
    "a softmax": (lambda s: s.softmax(1), lambda e, s: e @ V),
    "a sigmoid that gates": (torch.sigmoid, lambda e, s: (e * s) @ V),
    "an activation that gates": (torch.tanh, lambda e, s: (e * (s + 1)) @ V),
    "a relu": (torch.relu, lambda e, s: (e * (s - 0.2).sigmoid()) @ V),
    "squares": (lambda s: s * s, lambda e, s: (s * torch.rsqrt(e.mean(1, keepdim=True) + 1e-6)) @ V),
    "squares of a length": (lambda s: s.pow(2), lambda e, s: (s / total(e).sqrt()) @ V),
    "scores less the largest": (lambda s: s - s.amax(1, keepdim=True), lambda e, s: (e.exp() / total(e.exp())) @ V),
    "centred": (
        lambda s: s - s.mean(1, keepdim=True),
        lambda e, s: (e / (e.pow(2).mean(1, keepdim=True) + 1e-5).sqrt()) @ V,
    ),
    "a layer": (lambda s: F.linear(s, W), lambda e, s: F.silu(e * ROW + ROW) @ V),
}


def write(index: Any, value: Any) -> Way:
    """A write by index, as an expression."""

    def written(h: Tensor) -> Tensor:
        h[index] = value(h) if callable(value) else value
        return h

    return written


def into(part: Callable[[Tensor], object]) -> Way:
    """A write into a view, as an expression."""

    def written(h: Tensor) -> Tensor:
        part(h)
        return h

    return written


def rebuilt(*indices: Any) -> Way:
    """A new tensor into which parts are written."""

    def written(h: Tensor) -> Tensor:
        y = torch.zeros_like(h)
        for index in indices:
            y[index] = h[index]
        return y

    return written


def in_parts(change: Way, first: bool = True) -> Way:
    """A change of the first or the last two columns alone."""
    return lambda h: torch.cat([change(h[:, :2]), h[:, 2:]] if first else [h[:, :2], change(h[:, 2:])], 1)


ALL = slice(None)
NUMBERS = torch.tensor([0, 1]), torch.tensor([1, 2])
# A write, and the operation that makes a new tensor.
WRITES: dict[str, tuple[Way, Way]] = {
    "zeros by a mask of columns": (write((ALL, MASK), 0.0), lambda h: h.masked_fill(MASK, 0.0)),
    "zeros by a mask of columns, chosen": (
        write((ALL, MASK), 0.0),
        lambda h: torch.where(MASK, torch.zeros((), dtype=D), h),
    ),
    "zeros by a mask": (write(EYE, 0.0), lambda h: h.masked_fill(EYE, 0.0)),
    "masked_fill_": (lambda h: h.masked_fill_(MASK, 0.0), lambda h: h.masked_fill(MASK, 0.0)),
    "a view of zeros": (into(lambda h: h[:, :2].zero_()), in_parts(torch.zeros_like)),
    "a view, scaled": (into(lambda h: h[:, :2].mul_(2.0)), in_parts(lambda t: t * 2.0)),
    "a slice, scaled": (write((ALL, slice(0, 2)), lambda h: h[:, :2] * 2.0), in_parts(lambda t: t * 2.0)),
    "a view, shifted": (into(lambda h: h[:, 2:].add_(0.5)), in_parts(lambda t: t + 0.5, first=False)),
    "a view, turned": (into(lambda h: h[:, 2:].neg_()), in_parts(lambda t: -t, first=False)),
    "a view, several times": (
        into(lambda h: h[:, :2].masked_fill_(MASK[:2], 0.0).relu_().mul_(2.0)),
        in_parts(lambda t: t.masked_fill(MASK[:2], 0.0).relu() * 2.0),
    ),
    "mul_": (lambda h: h.mul_(1.5), lambda h: h * 1.5),
    "mul_ by a row": (lambda h: h.mul_(ROW), lambda h: h * ROW),
    "neg_": (lambda h: h.neg_(), lambda h: -h),
    "add_": (lambda h: h.add_(0.3), lambda h: h + 0.3),
    "add_ of a row": (lambda h: h.__iadd__(ROW), lambda h: h + ROW),
    "clamp_": (lambda h: h.clamp_(min=0.1), lambda h: h.clamp(min=0.1)),
    "relu_": (lambda h: h.relu_(), lambda h: h.relu()),
    "div_": (lambda h: h.div_(3.0), lambda h: h / 3.0),
    "index_fill_": (lambda h: h.index_fill_(1, NUMBERS[1], 0.2), lambda h: h.index_fill(1, NUMBERS[1], 0.2)),
    "scatter_": (lambda h: h.scatter_(1, NUMBERS[1][:, None], 0.0), lambda h: h.scatter(1, NUMBERS[1][:, None], 0.0)),
    "index_put_": (lambda h: h.index_put_(NUMBERS, drawn(1)[0]), lambda h: h.index_put(NUMBERS, drawn(1)[0])),
    "copy_": (lambda h: torch.empty_like(h).copy_(h), lambda h: h.clone()),
    "rebuilt of slices": (rebuilt((ALL, slice(0, 2)), (ALL, slice(2, None))), lambda h: h.clone()),
    "rebuilt of numbers": (rebuilt((ALL, NUMBERS[1]), (ALL, torch.tensor([0, 3]))), lambda h: h.clone()),
    "a column by another": (write((ALL, 1), lambda h: h[:, 0]), lambda h: h[:, [0, 0, 2, 3]]),
    "tril_": (lambda h: h.tril_(), lambda h: h.tril()),
    "unsqueeze_": (lambda h: h.unsqueeze_(0).squeeze_(0), lambda h: h.unsqueeze(0).squeeze(0)),
    "t_": (lambda h: h.t_().t_(), lambda h: h.t().t()),
}


def maps(way: Way, known: tuple[Way, Use], composite: str) -> Tensor | None:
    """The map of a model; None where nothing of it carries relevance."""
    make, use = known
    try:
        R = relprop.attribute(lambda x: use(way(make(x @ W)), x @ W), X, 0, composite=composite)
    except relprop.errors.SeveredGraphError:
        return None
    with torch.no_grad():
        assert torch.equal(R.output, use(way(make(X @ W)), X @ W))
    return R.values


@pytest.mark.filterwarnings("ignore::relprop.errors.RelpropWarning")  # some columns are overwritten
@pytest.mark.parametrize("known", KNOWN)
@pytest.mark.parametrize("name", WRITES)
def test_a_write_is_the_operation_that_makes_a_new_tensor(name: str, known: str) -> None:
    written, plain = WRITES[name]
    make, use = KNOWN[known]
    if not bool(torch.isfinite(use(plain(make(X @ W)), X @ W)).all()):
        pytest.skip("the function has no value there")
    for composite in ("zero", "epsilon", "attnlrp", "cp_lrp", "gamma_flat"):
        wanted, got = (maps(way, KNOWN[known], composite) for way in (plain, written))
        assert (got is None) == (wanted is None)
        if wanted is not None and got is not None:
            close(got, wanted)


def filled(one: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor], **options: Any) -> tuple[Way, Way]:
    """A concatenation, and the same written part by part into a tensor that was made before."""

    def plain(a: Tensor) -> Tensor:
        return torch.cat([one(a), other(a)], 1)

    def written(a: Tensor) -> Tensor:
        y = (torch.zeros if options.get("zeros") else torch.empty)(len(a), 2 * a.shape[1], dtype=D)
        y[:, : a.shape[1]].copy_(one(a))
        y[:, a.shape[1] :] = other(a)
        return y

    return plain, written


FILLED: dict[str, tuple[Way, Way]] = {
    "gates": filled(torch.sigmoid, torch.tanh),
    "gates, into zeros": filled(torch.sigmoid, torch.sigmoid, zeros=True),
    "a gate comes second": filled(lambda a: a * 2, torch.sigmoid),
    "a gate comes first": filled(torch.sigmoid, lambda a: a * 2),
    "none is a gate": filled(lambda a: a * 2, lambda a: a - 1),
}


@pytest.mark.parametrize("plain, written", FILLED.values(), ids=FILLED)
def test_parts_that_are_written_are_a_concatenation(plain: Way, written: Way) -> None:
    for composite in ("zero", "cp_lrp", "attnlrp"):
        one, other = (
            relprop.attribute(
                lambda a, x, f=f: (f(a) * torch.cat([x, x], 1)).sum(1), (OTHER, X), composite=composite
            ).values  # type: ignore[misc]
            for f in (plain, written)
        )
        for a, b in zip(one, other, strict=True):
            close(a, b)


def test_a_tensor_that_is_written_in_many_steps() -> None:
    """Longer than what is followed, and than Python's stack: right all the same."""

    def model(x: Tensor) -> Tensor:
        h, y = (x @ TABLE.t()).repeat(1, 400), torch.zeros(len(x), 400 * len(TABLE), dtype=D)
        for n in range(y.shape[1]):
            y[:, n] = h[:, n]
        return (y + 0.5).tanh().sum(1)

    plain = relprop.attribute(lambda x: ((x @ TABLE.t()).repeat(1, 400) + 0.5).tanh().sum(1), X, composite="zero")
    close(relprop.attribute(model, X, composite="zero").values, plain.values)


def each_column(change: Callable[[Tensor, int], object]) -> Way:
    def written(e: Tensor) -> Tensor:
        for n in range(e.shape[1]):
            change(e, n)
        return e

    return written


def moved_to_another(e: Tensor) -> Tensor:
    y = torch.zeros_like(e)
    for n in range(e.shape[1]):
        y[:, n] = e[:, n] * 1.5
    return y


MANY: dict[str, Way] = {
    "views": each_column(lambda e, n: e[:, n].mul_(1.5)),
    "items": each_column(lambda e, n: e.__setitem__((ALL, n), e[:, n] * 1.5)),
    "views written back": each_column(lambda e, n: e.__setitem__((ALL, n), e[:, n].mul_(1.5))),
    "another tensor": moved_to_another,
}


@pytest.mark.parametrize("name", MANY)
def test_a_softmax_whose_exponentials_are_written_one_by_one(name: str) -> None:
    """Each step is made once: of 400 columns, a step that went back to the start for each would never end."""
    wide = drawn(4, 400)

    def model(change: Way) -> Way:
        return lambda x: (lambda e: e / total(e))(change((x @ wide).exp()))

    for composite in ("attnlrp", "zero"):
        wanted, got = (
            relprop.attribute(model(way), X, 0, composite=composite).values for way in (lambda e: e * 1.5, MANY[name])
        )
        close(got, wanted)
