"""What is reduced along the axis of a stack is what the operands make of each other: one function, one map."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import relprop
from helpers import D, close

W, V = (torch.randn(5, 5, dtype=D, generator=torch.Generator().manual_seed(n)) for n in (1, 2))
C = torch.randn(5, dtype=D, generator=torch.Generator().manual_seed(3))
X = 2 * torch.randn(3, 5, dtype=D, generator=torch.Generator().manual_seed(4))
COMPOSITES = ["zero", "cp_lrp", "gamma_flat"]

Of = Callable[..., Tensor]
Pair = Callable[[Tensor], tuple[Tensor, ...]]


def joined(t: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([a[:, None] for a in t], 1)


REDUCED: dict[str, tuple[Of, dict[str, Of]]] = {
    "sum": (
        lambda a, b: a + b,
        {
            "stack first": lambda *t: torch.stack(t).sum(0),
            "stack last": lambda *t: torch.stack(t, -1).sum(-1),
            "a tuple of axes": lambda *t: torch.stack(t, 1).sum(dim=(1,)),
            "concatenated": lambda *t: joined(t).sum(1),
            "with its axis": lambda *t: torch.stack(t, 1).sum(1, keepdim=True)[:, 0],
            "a copy": lambda *t: torch.stack(t, 2).clone().sum(2),
            "a mean": lambda *t: torch.stack(t).mean(0) * 2,
            "sum": lambda *t: sum(t),  # type: ignore[return-value]
        },
    ),
    "product": (
        lambda a, b: a * b,
        {
            "stack first": lambda *t: torch.stack(t).prod(0),
            "stack last": lambda *t: torch.prod(torch.stack(t, -1), -1),
            "concatenated": lambda *t: joined(t).prod(dim=1),
            "with its axis": lambda *t: torch.stack(t, 1).prod(1, True).squeeze(1),
            "a copy": lambda *t: torch.stack(t, 1).contiguous().clone().prod(1),
        },
    ),
    "largest": (
        torch.maximum,
        {
            "max": lambda *t: torch.stack(t).max(0).values,
            "amax": lambda *t: torch.stack(t, 1).amax(1),
            "concatenated": lambda *t: torch.max(joined(t), 1)[0],
            "smallest": lambda *t: -torch.stack([-a for a in t], 2).min(2).values,
            "amin": lambda *t: -torch.stack([-a for a in t], 2).amin(dim=2),
        },
    ),
}  # fmt: skip
PAIRS: dict[str, Pair] = {
    "twice the same": lambda h: (h, h),
    "a gate": lambda h: (h @ V, torch.sigmoid(h)),
    "a gate first": lambda h: (torch.tanh(h), h @ V),
    "its own gate": lambda h: (h, torch.sigmoid(h)),
    "multiples": lambda h: (h, 0.1 * h),
    "two layers": lambda h: (h @ V, h),
    "a constant": lambda h: (h, C.expand_as(h)),
    "a constant first": lambda h: (C.expand_as(h), torch.sigmoid(h)),
    "a copy of it": lambda h: (h.clone(), torch.sigmoid(h)),
    "shifted": lambda h: (h + 0.3, h - 0.2),
}
AFTER: dict[str, Of] = {"": lambda y: y, "before an activation": F.silu}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("name", REDUCED)
def test_a_stack_is_its_operands(name: str, pair: str) -> None:
    plain, spellings = REDUCED[name]
    for after, then in AFTER.items():
        for composite in COMPOSITES:
            if name == "largest" and composite == "gamma_flat":
                continue  # equals among what carries relevance at zeros

            def explained(of: Of) -> relprop.Relevance:
                model = lambda x: then(of(*PAIRS[pair](F.gelu(x @ W)))).flatten(1) @ C  # noqa: E731, B023
                return relprop.attribute(model, X, composite=composite, ledger=True)  # noqa: B023

            wanted = explained(plain)
            for spelling, of in spellings.items():
                got = explained(of)
                close(got.values, wanted.values, msg=lambda m: f"{spelling} {after}, {composite}: {m}")  # noqa: B023
                close(got.residual, wanted.residual)
                close(torch.stack(list(got.ledger.values())).sum(0), got.residual)


@pytest.mark.parametrize("composite", ["zero", "cp_lrp"])
def test_three_factors_get_equal_shares_and_constants_none(composite: str) -> None:
    """As by an einsum; a constant among them takes no share."""

    def maps(of: Of) -> Tensor:
        return relprop.attribute(lambda x: of(x @ W, x @ V, (x - 1) @ W) @ C, X, composite=composite).values

    close(
        maps(lambda a, b, c: torch.stack([a, b, c]).prod(0)),
        maps(lambda a, b, c: torch.einsum("nf,nf,nf->nf", a, b, c)),
    )
    with_constant = maps(lambda a, b, c: torch.stack([a, C.expand_as(a), b]).prod(0))
    close(with_constant, maps(lambda a, b, c: C * (a * b)))


def test_three_of_one_tensor_are_a_cube() -> None:
    cube, written = (
        relprop.attribute(lambda x, f=f: f(x @ W) @ C, X, composite="zero").values  # type: ignore[misc]
        for f in (lambda h: h**3, lambda h: torch.stack([h, h, h], 1).prod(1))
    )
    close(written, cube)


@pytest.mark.parametrize("name", REDUCED)
def test_a_stack_that_is_written_into_has_other_operands(name: str) -> None:
    """What a stack was made of says nothing about what stands there now."""

    def written(x: Tensor, buffer: bool) -> Tensor:
        h = F.gelu(x @ W)
        parts = (h @ V, torch.sigmoid(h))
        if buffer:
            s = torch.stack([h, h])
            s[0], s[1] = parts
            return {"sum": s.sum(0), "product": s.prod(0), "largest": s.amax(0)}[name] @ C
        a, b = parts
        return {"sum": a + b, "product": a * b, "largest": torch.maximum(a, b)}[name] @ C

    got, wanted = (relprop.attribute(lambda x, b=b: written(x, b), X, composite="zero").values for b in (True, False))  # type: ignore[misc]
    close(got, wanted)


def test_an_operand_that_is_overwritten_afterwards() -> None:
    def model(x: Tensor, of: Of) -> Tensor:
        h = F.gelu(x @ W)
        s = of(h, torch.sigmoid(h))
        h.mul_(2.0)
        return (F.silu(s) + h) @ C

    got, wanted = (
        relprop.attribute(lambda x, of=of: model(x, of), X, composite="zero").values  # type: ignore[misc]
        for of in (lambda *t: torch.stack(t).prod(0), torch.mul)
    )
    close(got, wanted)


def test_another_axis_reduces_each_operand() -> None:
    """Only the axis of the stack stands for the operands."""

    def model(x: Tensor) -> Tensor:
        h = x @ W
        s = torch.stack([h, torch.sigmoid(h)], 1)
        return s.prod(-1) @ C[:2] + s.sum(2) @ C[2:4]

    wanted = relprop.attribute(
        lambda x: (
            torch.stack([(x @ W).prod(-1), (x @ W).sigmoid().prod(-1)], 1) @ C[:2]
            + torch.stack([(x @ W).sum(-1), (x @ W).sigmoid().sum(-1)], 1) @ C[2:4]
        ),
        X,
        composite="zero",
    )
    close(relprop.attribute(model, X, composite="zero").values, wanted.values)
