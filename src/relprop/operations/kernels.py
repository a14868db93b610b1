"""Operations for which torch chooses the kernel by which operand requires a gradient, and whether it does so in a call.

In the model, parameters require one; while it is explained, live tensors do. Such an operation is registered with
`other_kernel`, so that its result has the numbers of the model's own call. Only norms need the result in their backward
pass, and there the replaced numbers serve as well.
"""

from __future__ import annotations

import torch
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.tensors import in_line


def folds(call: Call) -> bool:
    """Whether torch flattens a tensor times a matrix into a product of matrices only here, or only in the model.

    It does so if the matrix requires a gradient, or if the tensor's rows lie in line.
    """
    first = None
    for a in (*call.args, *call.kwargs.values()) if call.kwargs else call.args:
        if not isinstance(a, Tensor):
            continue
        if first is None:
            first = a
            continue
        if first.ndim == a.ndim or (first.ndim > a.ndim and in_line(first)):
            return False
        smaller = first if first.ndim < a.ndim else a
        return smaller.requires_grad != call.own(smaller).requires_grad
    return False


def nuclear(call: Call) -> bool:
    """Whether the call is a nuclear norm. Torch computes no singular vectors if no gradient is required."""
    named = (a for a in (*call.args, *call.kwargs.values()) if isinstance(a, str))
    return call.entry.function is torch.nuclear_norm or "nuc" in named


def unordered(call: Call) -> bool:
    """Whether the operand of a pooling over one axis lies in another order in memory, as a transpose.

    On a CPU, torch's kernel for what needs no gradient returns its result in order.
    """
    x = call.args[0] if call.args else None
    return isinstance(x, Tensor) and x.device.type == "cpu" and not x.is_contiguous()
