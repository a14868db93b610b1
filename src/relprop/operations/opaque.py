"""Weighted layers that hide their weight: quantised matrix products, extensions, `autograd.Function`s.

Such a layer is linear in its one live operand. Its transpose is its own backward pass, and its output `z` is known.
LRP-0 and LRP-epsilon need no more: `R_i = x_i sum_j w_ij R_j / (z_j + eps sgn z_j)`. Rules that change the weight get
it from `register(..., weight=)`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from relprop.engine.call import Call
from relprop.errors import RuleError
from relprop.operations.layer_view import LayerView
from relprop.operations.maps import Dense
from relprop.operations.matrices import factors
from relprop.operations.weighted import Weighted
from relprop.rules import Rule
from relprop.rules.base import UNDECIDED, Way

_NO_WEIGHT = torch.empty(0, 0)


class OpaqueView(LayerView):
    """An opaque layer during one backward pass, as rules see it."""

    _layer: Opaque

    @property
    def output(self) -> Tensor:
        if self._output is None:
            self._output = self._layer.again(self.x)
        return self._output

    @property
    def bias(self) -> Tensor | float:
        if self._bias is None:
            self._bias = self._layer.whole_bias(self.x.dtype)
        return self._bias

    def transpose(self, s: Tensor, weight: Tensor | None = None) -> Tensor:
        return super().transpose(s, weight) if weight is not None else self._layer.back(s).to(self.x.dtype)


class Opaque(Weighted):
    """A weighted layer known by its output and its backward pass. `scale` and `bias` come from folded operations."""

    def __init__(self, call: Call, x: Tensor, y: Tensor) -> None:
        super().__init__(call, x, Dense(), _NO_WEIGHT, None)
        self._there, self._here, self._dtype = get_gradient_edge(y), get_gradient_edge(x), y.dtype
        self._function, self._name, self._dequantise = (
            call.function,
            call.entry.function.__name__,
            call.entry.handlers.weight,
        )
        self._args = [None if a is x else a for a in call.args]
        self._kwargs = {key: None if a is x else a for key, a in call.kwargs.items()}
        self._at = next((n for n, a in enumerate(call.args) if a is x), None)
        self._key = next((key for key, a in call.kwargs.items() if a is x), "")

    def back(self, s: Tensor) -> Tensor:
        """The layer's own backward pass."""
        s = s if self.scale is None else s * self.scale
        return torch.autograd.grad(
            self._there, self._here, s.to(self._dtype), retain_graph=True, create_graph=torch.is_grad_enabled()
        )[0]

    def again(self, x: Tensor) -> Tensor:
        """Computes the output again."""
        z: Tensor = self._with(x, self._function)
        z = z if self.scale is None else z * self.scale
        return z if self.bias is None else z + self.bias

    def _with(self, x: Tensor, function: Any) -> Any:
        args, kwargs = list(self._args), dict(self._kwargs)
        if self._at is None:
            kwargs[self._key] = x
        else:
            args[self._at] = x
        return function(*args, **kwargs)

    def _parts(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias, as `register(weight=)` gives them."""
        if self._dequantise is None:
            raise RuleError(
                f"{self.place}: the rule needs the weight, and {self._name} keeps it to itself. Tell how to read it: "
                f'relprop.register({self._name}, family="linear", weight=lambda x, ...: <weight, (out, in)>, replace=True), '
                "a function of the same arguments; or use a rule that needs none: Zero(), Epsilon(), Native()."
            )
        x = self._x()
        with torch.no_grad():
            found = self._with(_NO_WEIGHT if x is None else x, self._dequantise)
        weight, bias = found if isinstance(found, tuple) else (found, None)
        if not isinstance(weight, Tensor) or weight.ndim != 2 or len(weight) != self.shape[-1]:
            shape = tuple(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
            raise RuleError(f"{self.place}: weight= must return a tensor of shape ({self.shape[-1]}, in); got {shape}.")
        return weight, bias

    @property
    def weight(self) -> Tensor:
        weight = self._parts()[0]
        return weight if self.scale is None else weight * self.linear.along_output(self.scale, weight)

    def whole_bias(self, dtype: torch.dtype) -> Tensor | float:
        own = self._parts()[1]
        own = own if own is None or self.scale is None else own * self.scale
        both = [b for b in (own, self.bias) if b is not None]
        return sum(both[1:], both[0]).to(dtype) if both else 0.0

    def propagate(self, x: Tensor, g: Tensor) -> Tensor:
        rule: Rule | None = self.run.sites.decide(self.place) if self.rule is UNDECIDED else self.rule
        way = Way.DEFAULT if rule is None else rule.way
        if way is Way.BLOCKED:
            return torch.zeros_like(x)
        native = way in (Way.DEFAULT, Way.NATIVE)
        view = OpaqueView(self, x, self._kept(g, True if native else getattr(rule, "whole_output", False)), {})
        self._report(view, g)
        if native:
            return view.transpose(g * (view.z != 0) if self.nz and way is not Way.NATIVE else g)
        return self.weighted_rule(rule).propagate(view, g)


def opaque(call: Call, *args: Any, **kwargs: Any) -> Tensor:
    """The default of family "linear": native for LRP-0, else the rule on top of the layer's own backward pass."""
    if len(call.live) > 1:
        return factors(0)(call, *args, **kwargs)
    y: Tensor = call()
    if not call.zeros_carry_hidden and call.way is Way.DEFAULT:
        return y
    value = y.detach().clone()
    return Opaque(call, call.live[0], y).apply(lambda: value)
