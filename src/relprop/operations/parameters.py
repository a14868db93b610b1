"""Relevance of parameters: the part of a layer's relevance that went through each weight.

`R(w_ij) = sum over samples and positions of R_(i<-j)` (Yeom et al. 2021). Every rule sends relevance back by
`layer.transpose`, which is linear in the weight that it is given. So with a factor `a = 1` on each entry of those weights,
the derivative of the relevance that the layer hands down by `a` is the relevance of that entry, for any rule.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from relprop.engine.tensor_attributes import PARAMETER
from relprop.errors import UnsupportedOperationError
from relprop.numerics import nonzero
from relprop.operations.layer_view import LayerView
from relprop.operations.saved_output import Output


class Parameters:
    """Collects the relevance of parameters in a backward pass.

    Attributes:
        active: whether a backward pass that counts runs now.
        found: the relevance of each parameter, by its identity.
    """

    def __init__(self) -> None:
        self.active = False
        self.found: dict[int, Tensor] = {}

    def begin(self) -> None:
        """Starts to collect anew."""
        self.found, self.active = {}, True

    def end(self) -> None:
        """Collects no more."""
        self.active = False

    def add(self, site: Any, weight: Tensor, relevance: Tensor) -> None:
        """Adds the relevance of a layer's weight, an entry for each of its entries."""
        parameter = PARAMETER.of(weight)
        if parameter is None and weight._base is not None:
            parameter = PARAMETER.of(weight._base)
        if parameter is None or parameter.untyped_storage().data_ptr() != weight.untyped_storage().data_ptr():
            if not site.run.model.owns(weight):
                return  # a matrix of the inputs, or one that the model draws
            raise UnsupportedOperationError(
                f"{site.place}: its weight is computed from parameters, so that none of them has relevance of its own. Fold "
                "what computes it (parametrizations, recurrent cells), or explain without weights=True."
            )
        total = self.found.get(id(parameter))
        if total is None:
            total = self.found[id(parameter)] = torch.zeros(parameter.shape, dtype=torch.float64, device=weight.device)
        repeated = [d for d in range(weight.ndim) if weight.stride(d) == 0 and weight.shape[d] > 1]
        for axis in reversed(repeated):  # one entry of the parameter in several places
            weight, relevance = weight.select(axis, 0), relevance.sum(axis)
        strides = weight.stride()
        if not parameter.is_contiguous():
            raise UnsupportedOperationError(
                f"{site.place}: its parameter is not contiguous, so weights=True cannot tell its entries."
            )
        total.as_strided(weight.shape, strides, weight.storage_offset() - parameter.storage_offset()).add_(
            relevance.double()
        )


class Factored(LayerView):
    """A layer in whose transposed maps each entry of the weight has a factor."""

    def __init__(self, site: Any, weighted: Any, x: Tensor, output: Output, factor: Tensor) -> None:
        super().__init__(weighted, site, x, output, {})
        self._factor = factor

    def transpose(self, s: Tensor, weight: Tensor | None = None) -> Tensor:
        weight = self.weight if weight is None else weight
        moved: Tensor = _Transposed.apply(s.to(self.x.dtype), weight, self._factor, self._weighted.linear, self.x)
        return moved


class _Transposed(torch.autograd.Function):
    """The transposed map with the weight times a factor of 1, with the derivative by the factor alone.

    `<u, A(w)^T s> = <A(w) u, s>`, so that derivative is the weight's usual gradient, for the input u and the gradient s.
    """

    @staticmethod
    def forward(ctx: Any, s: Tensor, weight: Tensor, factor: Tensor, linear: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(s, weight)
        ctx.linear = linear
        moved: Tensor = linear.transpose(s, weight, x)
        return moved

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> Any:
        s, weight = ctx.saved_tensors
        return None, None, ctx.linear.weight_gradient(u, s, weight) * weight, None, None


def weigh(parameters: Parameters, site: Any, weighted: Any, x: Tensor, g: Tensor, view: Any, rule: Any) -> Tensor:
    """`G` at the input by `rule`, None for LRP-0; the relevance of the weights is added to `parameters`."""
    x, g = x.detach(), g.detach()
    if rule is None:
        weight = view.weight.detach()
        carrying = nonzero(x) if site.nz else x
        found = weighted.linear.weight_gradient(carrying, g.to(x.dtype), weight) * weight
        parameters.add(site, weighted.source, weighted.per_entry(found))
        plain: Tensor = weighted.linear.transpose(g.to(x.dtype), weight, x)
        return plain.detach()
    factor = torch.ones(weighted.weight.shape, dtype=x.dtype, device=x.device, requires_grad=True)
    with torch.enable_grad():
        seen = Factored(site, weighted, x, view.as_output(), factor)
        found = rule.propagate(seen, g)
        handed = (found * (nonzero(x) if site.nz or not rule.proportional else x)).sum()
    if handed.requires_grad:
        parameters.add(site, weighted.source, weighted.per_entry(torch.autograd.grad(handed, factor)[0]))
    result: Tensor = found.detach()
    return result
