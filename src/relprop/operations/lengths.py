"""Lengths that are written out: a root of squares is a modulus, a norm or a deviation, in any spelling.

`sqrt(a ** 2 + b ** 2)` is `complex(a, b).abs()` and `hypot(a, b)`. So its root is a statistic, as that of a norm: an
activation behind it starts at the length, and the length is no gate. The root of one square is an absolute value.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.moves import chained
from relprop.engine.notes import note_of, role_of
from relprop.engine.origins import SOURCE, ChainStep, Origin, chain
from relprop.engine.registry import lookup, register
from relprop.engine.roles import role
from relprop.engine.traits import ADDS, MOVES, REDUCES, SAME, SCALES
from relprop.operations.activations import as_length, elementwise, kept_on
from relprop.operations.gates import gated
from relprop.torch_private.recorded import recording


def _all(known: list[Any]) -> Any:
    return True if all(known) else None


def _by_a_positive(run: Any, known: Any, args: tuple) -> Any:
    """What a factor leaves of it: the factor must be known to be positive."""
    factor = next((a for a in args if isinstance(a, (int, float))), 0)
    return known if factor > 0 else None


SQUARES = role(
    "squares", MOVES, SAME, SCALES, REDUCES,
    given_by="squares, products of complex numbers with their conjugates, and variances",
    asked_by="roots, which make lengths of sums of squares",
    join=_all, joined_by=(MOVES, ADDS), scaled=_by_a_positive,
)  # fmt: skip


def squared(call: Call, y: Any) -> Any:
    """Notes that a result is a square. A rule may have made it a constant."""
    if isinstance(y, Tensor) and y.requires_grad:
        call.give(y, SQUARES, True)
    return y


def square(call: Call, *args: Any, **kwargs: Any) -> Tensor:
    """An activation."""
    y: Tensor = squared(call, elementwise(call, *args, **kwargs))
    return y


def of_conjugates(a: Tensor, b: Tensor) -> bool:
    """Whether one of two complex tensors is a view of the other that conjugates it."""
    return a.is_complex() and a.is_conj() != b.is_conj() and _one_memory(a, b)


def same_numbers(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are the same view of one tensor, as two readings of `z.real` are."""
    plain = a.is_conj() == b.is_conj() and a.is_neg() == b.is_neg() and type(a.grad_fn) is type(b.grad_fn)
    return plain and _one_memory(a, b)


def _one_memory(a: Tensor, b: Tensor) -> bool:
    alike = a.dtype == b.dtype and a.shape == b.shape and a.stride() == b.stride() and not recording()
    return alike and a.device.type in ("cpu", "cuda") and a.numel() > 0 and a.data_ptr() == b.data_ptr()


def root(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """A square root: an activation; of squares, a length."""
    y = elementwise(call, input, *args, **kwargs)
    if call.formula is not None or not role_of(input, SQUARES) or not y.requires_grad:
        return y
    found = chain(call.function, (input, *args), kwargs)
    if found is None:
        return y
    if found.source is input and found.step.args[0] is SOURCE:
        call.note(y).starts()
        before, _ = chained(note_of(input))
        of_one = before is not None and before.chain is not None and not before.chain.step.affine
        return gated(y, input, found.step) if of_one else as_length(call, y)  # of one: a square that was moved
    inner = _root_of_square(found)
    if inner is not None:
        call.note(y).starts()
        return kept_on(call, found._replace(step=inner), y, found.source, ChainStep(torch.abs, (SOURCE,), {}))
    return y


def _root_of_square(found: Origin) -> Any:
    """What is squared in a chain that ends in the root of a square; None if it ends otherwise."""
    step = found.step.args[0]
    entry = lookup(step.function) if isinstance(step, ChainStep) else None
    function = None if entry is None else entry.function
    if function is torch.square or (function is torch.pow and step.args[1:] == (2,)):
        return step.args[0]
    return step.args[0] if function is torch.mul and step.args[0] is step.args[1] else None


register(torch.sqrt, family="activation", handler=root)
register(torch.square, family="activation", handler=square)
