"""Products of a live tensor and a constant that sum over an axis, in any layout: weighted layers.

`x @ w`, `w @ x`, `torch.bmm`, `tensordot`, `einsum` and their like are one map, written here as an einsum of two
operands: each axis has a letter. An axis that both operands and the result have is a stack of matrices, one for each
head or expert.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_letters
from typing import Any

import torch
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.tensors import is_live, tensors_in
from relprop.operations.linear import weighted
from relprop.operations.maps import Contraction, Dense, Map

Terms = tuple[str, ...]
"""The letters of the axes of each operand, and last those of the result."""


Layer = tuple[Tensor, Map, Tensor]
"""A layer's input, its linear map, and its weight."""


def is_sparse(t: Tensor) -> bool:
    return t.layout not in (torch.strided, torch.jagged)


def is_dense(t: Tensor) -> bool:
    """Whether a tensor has an entry for each place: it is neither sparse nor nested."""
    return not is_sparse(t) and not t.is_nested


def weighs_positively(args: tuple, kwargs: dict) -> bool:
    """Whether a product with constants sums the entries of one live operand, with weights that are not negative."""
    operands = list(tensors_in((args, kwargs)))
    constants = [t for t in operands if not t.requires_grad]
    if len(operands) - len(constants) != 1:
        return False
    return not any(bool(((t.coalesce().values() if t.is_sparse else t) < 0).any()) for t in map(_strided, constants))


def _strided(t: Tensor) -> Tensor:
    """A sparse or dense tensor, with sparse ones in coordinates."""
    return t.to_sparse() if is_sparse(t) and not t.is_sparse else t


def as_layer(call: Call, a: Tensor, b: Tensor, terms: Terms | None) -> Layer | None:
    """A product of one live and one constant tensor as a weighted layer; None if it sums nothing, or does not weigh.

    Args:
        call: the call of the operation.
        a: the first operand.
        b: the second operand.
        terms: the letters of both and of the result; None if the product has no such form.
    """
    x, constant = (a, b) if is_live(a) else (b, a)
    if terms is None or not (is_dense(x) and is_dense(constant) and call.is_weight(constant)):
        return None
    one, two = (terms[0], terms[1]) if x is a else (terms[1], terms[0])
    return _normal(one, two, terms[2], x, constant)


def contracted(call: Call, a: Tensor, b: Tensor, terms: Terms | None) -> Tensor:
    """A product of one live and one constant tensor. Arguments as for `as_layer`."""
    layer = as_layer(call, a, b, terms)
    if layer is None:
        call.relocate("product")
        return call()
    return weighted(call, *layer, None)


def _normal(live: str, constant: str, output: str, x: Tensor, w: Tensor) -> Layer | None:
    """The layer of these letters, without axes along which an operand repeats; None if nothing is summed, or it is not a map."""
    if any(len(set(term)) < len(term) for term in (live, constant, output)):
        return None
    sizes = dict(zip(live, x.shape, strict=True))
    for axis in range(w.ndim - 1, -1, -1):  # one matrix for a whole stack, by size or by stride
        label = constant[axis]
        repeats = w.shape[axis] == 1 != sizes.get(label, 1) or (
            label in live and label in output and w.stride(axis) == 0 and w.shape[axis] == sizes[label]
        )
        if repeats:
            w, constant = w.select(axis, 0), constant[:axis] + constant[axis + 1 :]
    lengths = dict(zip(constant, w.shape, strict=True))
    for axis in range(x.ndim - 1, -1, -1):
        label = live[axis]
        if x.shape[axis] == 1 != lengths.get(label, 1):
            if label not in output:
                return None
            x, live = x.squeeze(axis), live[:axis] + live[axis + 1 :]
    if not set(live) & set(constant) - set(output):
        return None
    for axis in range(w.ndim - 1, -1, -1):
        if constant[axis] not in live + output:
            w, constant = w.sum(axis), constant[:axis] + constant[axis + 1 :]
    for label in live:  # summed by itself: the same weight at each of its places
        if label not in constant + output:
            w, constant = w.unsqueeze(0).expand(sizes[label], *w.shape), label + constant
    if len(constant) == 2 and live[-1] in constant:  # the usual one
        i, o = (constant[0], constant[1]) if constant[0] == live[-1] else (constant[1], constant[0])
        if output == live[:-1] + o:
            return x, Dense(), w if i == constant[1] else w.transpose(0, 1)
    return x, Contraction(live, constant, output), w


# ------------------------------------------------------------------------------------------ the letters


def sizes_of(terms: Terms, *operands: Tensor) -> torch.Size:
    """The shape of a product's result."""
    sizes: dict[str, int] = {}
    for term, t in zip(terms, operands, strict=False):
        for label, size in zip(term, t.shape, strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
    return torch.Size([sizes[label] for label in terms[-1]])


def of_matmul(a: Tensor, b: Tensor) -> Terms:
    """The letters of `a @ b`: (..., t, i) @ (..., i, o)."""
    stacks = ascii_letters[: max(a.ndim, b.ndim, 2) - 2]
    i, t, o = "XYZ"
    one = i if a.ndim == 1 else stacks[len(stacks) + 2 - a.ndim :] + t + i
    two = i if b.ndim == 1 else stacks[len(stacks) + 2 - b.ndim :] + i + o
    return one, two, stacks + t * (a.ndim > 1) + o * (b.ndim > 1)


def of_inner(a: Tensor, b: Tensor) -> Terms:
    """The letters of `torch.inner`, which sums over the last axes."""
    one = ascii_letters[: a.ndim - 1]
    two = ascii_letters[a.ndim - 1 : a.ndim + b.ndim - 2]
    return one + "Z", two + "Z", one + two


def of_vecdot(a: Tensor, b: Tensor, dim: int = -1, **_: Any) -> Terms:
    """The letters of `torch.linalg.vecdot`, a sum over one axis of a product by entry."""
    ndim = max(a.ndim, b.ndim)
    letters = ascii_letters[:ndim]
    summed = letters[dim % ndim if dim >= 0 else dim]
    return letters[ndim - a.ndim :], letters[ndim - b.ndim :], letters.replace(summed, "")


def of_tensordot(a: Tensor, b: Tensor, dims: Any = 2, **_: Any) -> Terms:
    """The letters of `torch.tensordot`."""
    if isinstance(dims, Tensor):
        dims = dims.tolist()
    if isinstance(dims, int):
        dims = range(a.ndim - dims, a.ndim), range(dims)
    over = [
        [d % t.ndim for d in ([given] if isinstance(given, int) else given)]
        for given, t in zip(dims, (a, b), strict=True)
    ]
    one = ascii_letters[: a.ndim]
    two = list(ascii_letters[a.ndim : a.ndim + b.ndim])
    for i, j in zip(*over, strict=True):
        two[j] = one[i]
    summed = {one[i] for i in over[0]}
    return one, "".join(two), "".join(label for label in [*one, *two] if label not in summed)


def of_einsum(equation: str, operands: Sequence[Tensor]) -> Terms | None:
    """The letters of an einsum, with one for each axis of its ellipsis, and the result's if it is implied."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(operands):
        return None
    free = [letter for letter in ascii_letters if letter not in equation]
    most = max((t.ndim - len(term) + 3 for term, t in zip(terms, operands, strict=False) if "..." in term), default=0)
    if most > len(free):
        return None
    dots = "".join(free[:most])
    if not arrow:
        named = sorted(label for label in set(left) - set(",.") if left.count(label) == 1)
        right = "..." * ("..." in left) + "".join(named)
    spread = [
        term.replace("...", dots[most - (t.ndim - len(term) + 3) :] if "..." in term else "")
        for term, t in zip(terms, operands, strict=False)
    ]
    fits = all(len(term) == t.ndim for term, t in zip(spread, operands, strict=True))
    return (*spread, right.replace("...", dots)) if fits else None


def by_letters(operands: Sequence[Any]) -> tuple[str, list[Tensor]]:
    """The equation and the operands of an einsum that is given by lists of numbers: `einsum(x, [0, 1], w, [1, 2], [0, 2])`."""
    tensors, lists = list(operands[::2]), list(operands[1::2])
    if len(operands) % 2:
        lists.append(tensors.pop())
    terms = ["".join("..." if n is Ellipsis else ascii_letters[n] for n in one) for one in lists]
    result = "->" + terms.pop() if len(operands) % 2 else ""
    return ",".join(terms) + result, tensors
