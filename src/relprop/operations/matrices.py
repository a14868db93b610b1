"""Matrix products and their like. With a constant they are weighted layers; of two live operands, products.

A product of several live operands gives equal shares to each (`products`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.functions import Share, grafted, scaled
from relprop.engine.registry import register
from relprop.engine.roles import moves
from relprop.engine.spelling import named
from relprop.engine.tensors import is_live
from relprop.operations.biases import positioned, scored
from relprop.operations.contractions import (
    Terms,
    as_layer,
    by_letters,
    contracted,
    is_dense,
    is_sparse,
    of_einsum,
    of_inner,
    of_matmul,
    of_tensordot,
    of_vecdot,
    sizes_of,
    weighs_positively,
)
from relprop.operations.kernels import folds
from relprop.operations.linear import weighted
from relprop.operations.maps import Bilinear, Dense
from relprop.operations.products import mul, shares, weighed
from relprop.operations.sample_axes import by_einsum, matrix_product, of_layer_with_bias_first, with_axes
from relprop.operations.scan import multiplied, scaled_by_model
from relprop.operations.steps import by_steps


def matmul(call: Call, input: Any, other: Any, **kwargs: Any) -> Tensor:
    """`x @ w` with a constant matrix is a weighted layer; with two live operands it is a product."""
    if is_live(input) and is_live(other):
        lone = 1 in (input.shape[-1], input.ndim)  # the sum is over one entry, or there is no other row
        found = _by_entries(call, of_matmul(input, other), input, other) if lone else None
        if found is not None:
            return found
        call.trait("matrix product")
        a, b = shares(call, [input, other])
        if is_sparse(input) or is_sparse(other):
            return weighed(call, _of_sparse(call, input, other, a, b))
        return weighed(call, scored(call, call(scaled(input, a), scaled(other, b))))
    if is_live(input) and other.ndim == 2 and is_dense(other) and not is_sparse(input) and call.is_weight(other):
        return weighted(call, input, Dense(), other.transpose(0, 1), None)
    return contracted(call, input, other, of_matmul(input, other))


def _of_sparse(call: Call, input: Tensor, other: Tensor, a: Share, b: Share) -> Tensor:
    """A product of a sparse and a dense tensor. The gradient of a sparse one cannot be scaled; that of the result can."""
    value: Tensor = call(input.detach(), other.detach(), *call.args[2:], **call.kwargs)
    if is_sparse(value):
        raise call.error(
            "a product of two sparse tensors that carry relevance: make one of them dense, with to_dense()."
        )
    rest, options = call.args[2:], call.kwargs
    parts = call(input, other.detach(), *rest, **options), call(input.detach(), other, *rest, **options)
    call.keeps_zeros()
    return grafted(value, scaled(parts[0], a) + scaled(parts[1], b))


def sparse_product(call: Call, input: Any, other: Any, *args: Any, **kwargs: Any) -> Tensor:
    """A product with a sparse matrix: linear in one live operand, a product of two."""
    if not (is_live(input) and is_live(other)):
        return call()
    call.relocate("product")
    a, b = shares(call, [input, other])
    call.trait("matrix product")
    return weighed(call, _of_sparse(call, input, other, a, b))


def sum_with_product(call: Call, input: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """`beta input + alpha a b`, with a constant `a` or `b`: a layer and its bias, where the input is one."""
    letters = LETTERS[call.entry.function](a, b)
    found = None if is_live(input) else as_layer(call, a, b, letters)
    bias = None if found is None else found[1].vector(input, sizes_of(letters, a, b))
    if found is not None and bias is not None:
        scale = None if alpha == 1 else torch.full_like(bias, alpha)
        return weighted(call, *found, bias if beta == 1 else beta * bias, scale)
    call.relocate("product")
    call.keeps_zeros()

    def steps(*args: Any, **kwargs: Any) -> Tensor:
        product = torch.einsum(f"{letters[0]},{letters[1]}->{letters[2]}", a, b)
        product = product if alpha == 1 else alpha * product
        return product + (input if beta == 1 else beta * input) if beta else product

    result: Tensor = by_steps(steps)(call, *call.args, **call.kwargs)
    return result


def factors(first: int) -> Callable[..., Tensor]:
    """A product of the operands from position `first` on, with equal shares; those before it are summands."""

    def product(call: Call, *args: Any, **kwargs: Any) -> Tensor:
        args, kwargs = _positional(args, kwargs)
        live = [i for i, a in enumerate(args) if i >= first and is_live(a)]
        if len(live) < 2:
            letters = LETTERS.get(call.entry.function)
            pair = args[first : first + 2]
            if letters is None or len(live) == 0 or not all(isinstance(a, Tensor) for a in pair) or len(pair) < 2:
                call.relocate("product")
                return call()
            if first:
                return sum_with_product(call, *args, **kwargs)
            return contracted(call, args[0], args[1], letters(*args, **kwargs))
        if not first and len(args) > 1 and (letters := LETTERS.get(call.entry.function)) is not None:
            found = _by_entries(call, letters(*args, **kwargs), args[0], args[1])
            if found is not None:
                return found
        call.trait("matrix product")
        given = dict(zip(live, shares(call, [args[i] for i in live]), strict=True))
        shared = tuple(scaled(a, given[i]) if i in live else a for i, a in enumerate(args))
        if first and call.entry.function is torch.baddbmm and not is_live(args[0]):
            shape = torch.Size([*args[1].shape[:-1], args[2].shape[-1]])
            shared = positioned(call, args[0], shape), *shared[1:]
        y = scored(call, call(*shared, **kwargs))
        return y if first else weighed(call, y)

    return product


_OPERANDS = (
    "input",
    "a",
    "mat",
    "mat1",
    "batch1",
    "vec1",
    "tensor1",
    "other",
    "b",
    "mat2",
    "batch2",
    "vec2",
    "vec",
    "tensor2",
)
"""The names of operands, in the order of their positions."""


def _positional(args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Moves operands given by name to their positions."""
    named = tuple(kwargs[name] for name in _OPERANDS if isinstance(kwargs.get(name), Tensor))
    return args + named, {k: v for k, v in kwargs.items() if not (k in _OPERANDS and isinstance(v, Tensor))}


def bilinear(call: Call, input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if is_live(weight) or (is_live(input1) and is_live(input2)):
        call.relocate("product")
        call.keeps_zeros()
        result: Tensor = by_steps(_bilinear)(call, input1, input2, weight, bias)
        return result
    if is_live(input1):
        return weighted(call, input1, Bilinear(), torch.einsum("kij,...j->...ki", weight, input2), bias)
    return weighted(call, input2, Bilinear(), torch.einsum("kij,...i->...kj", weight, input1), bias)


def _bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    y = torch.einsum("...i,kij,...j->...k", input1, weight, input2)
    return y if bias is None else y + bias


def einsum(call: Call, equation: Any, *operands: Any) -> Tensor:
    inner = operands[0] if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else operands
    if isinstance(equation, Tensor):
        equation, inner = by_letters((equation, *operands))
    live = [t for t in inner if is_live(t)]
    if len(live) == 1 == len(inner):
        call.relocate("product")
        return _rearranged(call, equation, inner[0])
    if len(live) == 1:
        return _with_constants(call, equation, list(inner))
    if len(inner) == 2 and isinstance(equation, str):
        found = _by_entries(call, of_einsum(equation, inner), *inner)
        if found is not None:
            return found
    multiplied(call, inner)
    if len(live) == len(inner):
        call.trait("matrix product")
    given = iter(shares(call, live))
    return weighed(call, scored(call, call(equation, *(scaled(t, next(given)) if is_live(t) else t for t in inner))))


def _with_constants(call: Call, equation: str, operands: list[Tensor]) -> Tensor:
    """An einsum of one live tensor and constants, which together are its weight."""
    terms = of_einsum(equation, operands)
    at = next(n for n, t in enumerate(operands) if is_live(t))
    x, constants = operands.pop(at), operands
    if len(constants) == 1:
        y = contracted(call, x, constants[0], terms) if at == 0 else contracted(call, constants[0], x, terms)
        scaled_by_model(call, y, x, constants[0])
        return y
    if terms is None or not all(map(call.is_weight, constants)):
        call.relocate("product")
        return call()
    others = [term for n, term in enumerate(terms[:-1]) if n != at]
    kept = "".join(label for label in dict.fromkeys("".join(others)) if label in terms[at] + terms[-1])
    weight = torch.einsum(f"{','.join(others)}->{kept}", *constants)
    return contracted(call, x, weight, (terms[at], kept, terms[-1]))


def _by_entries(call: Call, terms: Terms | None, a: Tensor, b: Tensor) -> Tensor | None:
    """A product of two live tensors entry by entry, of which a sum may be taken: an outer, inner or entrywise product.

    It is the one that `*` and `sum` write. None for a product of matrices, in which each entry of one meets several
    of the other's, summed over.
    """
    if terms is None or not all(map(_distinct, terms)) or is_sparse(a) or is_sparse(b):
        return None
    sizes = dict(zip(terms[0] + terms[1], (*a.shape, *b.shape), strict=True))
    summed = [label for label in terms[0] if label not in terms[2]]
    if set(summed) != {label for label in terms[1] if label not in terms[2]}:
        return None  # one is summed alone
    if set(terms[0]) != set(terms[1]) and any(sizes[label] != 1 for label in summed):
        return None
    if not summed and terms[0] == terms[1] == terms[2]:
        call.becomes(torch.mul, a, b)
        return mul(call, a, b)
    if a.is_complex() or b.is_complex():
        return None  # of which some products take the conjugate
    order = terms[0] if set(terms[0]) == set(terms[1]) else "".join(summed) + terms[2]
    over = [n for n, label in enumerate(order) if label in summed]
    left = [label for label in order if label not in summed]

    def steps(*_: Any, **__: Any) -> Tensor:
        product = _aligned(a, terms[0], order) * _aligned(b, terms[1], order)
        product = product.sum(over) if over else product
        return product if left == list(terms[2]) else product.permute([left.index(label) for label in terms[2]])

    call.relocate("product")
    call.keeps_zeros()
    if over and order != terms[0]:
        call.trait("matrix product")  # of matrices with one column: what a network is does not hang on its sizes
    result: Tensor = by_steps(steps)(call, *call.args, **call.kwargs)
    return scored(call, result) if over else result


def _aligned(t: Tensor, term: str, order: str) -> Tensor:
    """A tensor with an axis for each letter of an order, of length 1 where it has none."""
    kept = [term.index(label) for label in order if label in term]
    t = t if kept == list(range(t.ndim)) else t.permute(kept)
    return t if len(term) == len(order) else t[tuple(slice(None) if label in term else None for label in order)]


def _rearranged(call: Call, equation: Any, x: Tensor) -> Tensor:
    """An einsum of one operand: axes moved, or summed."""
    y = call()
    left, _, right = equation.replace(" ", "").partition("->") if isinstance(equation, str) else ("", "", "")
    if right and _distinct(left) and sorted(left.replace("...", "")) == sorted(right.replace("...", "")):
        moves(call, lambda t: call.function(equation, t), x, y)
    return y


def _distinct(labels: str) -> bool:
    named = labels.replace("...", "")
    return len(set(named)) == len(named)


def multi_dot(call: Call, tensors: Any, *rest: Any, **kwargs: Any) -> Tensor:
    listed = isinstance(tensors, (list, tuple))
    inner = list(tensors) if listed else [tensors, *rest]
    live = [t for t in inner if is_live(t)]
    if len(live) == 1:
        call.relocate("product")
        call.keeps_zeros()
        return by_steps(lambda *args, **kwargs: reduce(torch.matmul, inner))(call, *call.args, **kwargs)
    multiplied(call, inner)
    call.trait("matrix product")
    given = iter(shares(call, live))
    inner = [scaled(t, next(given)) if is_live(t) else t for t in inner]
    return weighed(call, scored(call, call(inner, **kwargs) if listed else call(*inner, **kwargs)))


LETTERS: dict[Callable[..., Any], Callable[..., Terms]] = {
    torch.bmm: of_matmul,
    torch.mv: of_matmul,
    torch.dot: of_matmul,
    torch.vdot: of_matmul,
    torch.inner: of_inner,
    torch.linalg.vecdot: of_vecdot,
    torch.tensordot: of_tensordot,
    torch.addmm: of_matmul,
    torch.addmv: of_matmul,
    torch.baddbmm: of_matmul,
    torch.addbmm: lambda a, b: ("bti", "bio", "to"),
}
"""The letters of the axes of each product; of those that add something, without that summand."""

register(
    torch.matmul,
    torch.linalg.matmul,
    family="linear",
    handler=matmul,
    apart=matrix_product,
    other_kernel=folds,
    sums=weighs_positively,
)
register(torch.mm, family="linear", handler=matmul, apart=matrix_product, sums=weighs_positively)
register(torch.bmm, family="linear", handler=factors(0), apart=with_axes(3), sums=weighs_positively)
register(
    torch.mv, torch.dot, torch.vdot, torch.inner, torch.linalg.vecdot, torch.tensordot,
    family="linear", handler=factors(0), sums=weighs_positively,
)  # fmt: skip
register(torch.addmm, family="linear", handler=factors(1), apart=of_layer_with_bias_first)
register(torch.addmv, torch.baddbmm, torch.addbmm, family="linear", handler=factors(1))
register(torch.addr, family="product", handler=factors(1))
register(*named("smm hspmm"), torch.sparse.mm, family="structure", handler=sparse_product, sums=weighs_positively)
register(F.bilinear, family="bilinear", handler=bilinear)
register(torch.einsum, family="linear", handler=einsum, apart=by_einsum, sums=weighs_positively)
register(torch.chain_matmul, torch.linalg.multi_dot, family="linear", handler=multi_dot)
