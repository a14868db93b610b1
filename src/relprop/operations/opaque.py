"""Weighted layers that hide their weight: quantised matrix products, extensions, `autograd.Function`s.

Such a layer is linear in its one live operand. Its transpose is its own backward pass, and its output `z` is known.
LRP-0 and LRP-epsilon need no more: `R_i = x_i sum_j w_ij R_j / (z_j + eps sgn z_j)`. Rules that change the weight get
it from `register(..., weight=)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from relprop.composites.places import Place
from relprop.engine.call import Call
from relprop.errors import RuleError
from relprop.operations.layer_view import LayerView
from relprop.operations.linear import layer
from relprop.operations.maps import Dense
from relprop.operations.matrices import factors
from relprop.operations.saved_output import Output
from relprop.operations.weighted import combined
from relprop.rules.base import Way


class OpaqueView(LayerView):
    """An opaque layer during one backward pass, as rules see it."""

    _weighted: Opaque

    @property
    def output(self) -> Tensor:
        if self._output is None:
            self._output = self._weighted.forward(self.x)
        return self._output

    @property
    def bias(self) -> Tensor | float:
        if self._bias is None:
            self._bias = self._weighted.whole_bias(self.x)
        return self._bias

    @property
    def weight(self) -> Tensor:
        return self.once("weight itself", lambda: self._weighted.weight(self.x).to(self.x.dtype))

    def transpose(self, s: Tensor, weight: Tensor | None = None) -> Tensor:
        return super().transpose(s, weight) if weight is not None else self._weighted.transpose(s).to(self.x.dtype)

    def of_weight(self, name: str, change: Callable[[Tensor], Tensor], within: Callable[[Tensor], Tensor]) -> Tensor:
        return self.once(name, lambda: change(self.weight))


class Opaque:
    """An affine map that is known by its operation and its own backward pass alone.

    Attributes:
        linear: the map of the weight that `register(weight=)` tells how to read, (out, in).
        scale: factors for each output channel, of operations that were folded into it; None for ones.
        bias: the bias of these operations; None for zeros.
    """

    __slots__ = ("_operation", "bias", "scale")
    linear: ClassVar[Dense] = Dense()
    opaque: ClassVar[bool] = True
    overwritten: ClassVar[bool] = False

    def __init__(self, operation: OpaqueOperation, scale: Tensor | None = None, bias: Tensor | None = None) -> None:
        self._operation, self.scale, self.bias = operation, scale, bias

    def large(self, x: Tensor, g: Tensor) -> bool:
        """Whether the layer may be processed in portions: its operation cannot."""
        return False

    def folded(self, scale: Tensor | None, shift: Tensor | None) -> Opaque:
        """This map followed by a factor and a summand for each output channel."""
        return Opaque(self._operation, *combined(self, scale, shift))

    def view(self, site: Any, x: Tensor, output: Output, memo: dict[str, Tensor]) -> LayerView:
        """The layer as rules see it. Arguments as of `LayerView`."""
        return OpaqueView(self, site, x, output, memo)

    def forward(self, x: Tensor) -> Tensor:
        """Computes the output again."""
        z: Tensor = self._operation.on(x)
        z = z if self.scale is None else z * self.scale
        return z if self.bias is None else z + self.bias

    def transpose(self, s: Tensor) -> Tensor:
        """From the shape of the output to that of the input, by the operation's own backward pass."""
        return self._operation.back(s if self.scale is None else s * self.scale)

    def weight(self, x: Tensor) -> Tensor:
        """The weight with the factors."""
        weight = self._operation.parts(x)[0]
        return weight if self.scale is None else weight * self.linear.along_output(self.scale, weight)

    def whole_bias(self, x: Tensor) -> Tensor | float:
        """The operation's own bias, and that of what was folded into it."""
        own = self._operation.parts(x)[1]
        own = own if own is None or self.scale is None else own * self.scale
        both = [b for b in (own, self.bias) if b is not None]
        return sum(both[1:], both[0]).to(x.dtype) if both else 0.0


class OpaqueOperation:
    """One call of an opaque operation: it can be computed again, asked for its gradient, and for its weight."""

    __slots__ = ("_args", "_at", "_dequantise", "_dtype", "_function", "_here", "_kwargs", "_name", "_place", "_shape", "_there")  # fmt: skip

    def __init__(self, call: Call, x: Tensor, y: Tensor) -> None:
        assert call.place is not None  # weighted families always have a place
        self._place: Place = call.place
        self._there, self._here = get_gradient_edge(y), get_gradient_edge(x)
        self._dtype, self._shape = y.dtype, y.shape
        self._function, self._name = call.function, call.entry.function.__name__
        self._dequantise = call.entry.handlers.weight
        self._args = [None if a is x else a for a in call.args]
        self._kwargs = {key: None if a is x else a for key, a in call.kwargs.items()}
        every: list[tuple[int | str, Any]] = [*enumerate(call.args), *call.kwargs.items()]
        self._at = next((at for at, a in every if a is x), "")

    def on(self, x: Tensor, function: Callable[..., Any] | None = None) -> Any:
        """The operation on another input; or another function of the same arguments."""
        args, kwargs = list(self._args), dict(self._kwargs)
        if isinstance(self._at, str):
            kwargs[self._at] = x
        else:
            args[self._at] = x
        return (self._function if function is None else function)(*args, **kwargs)

    def back(self, s: Tensor) -> Tensor:
        """The operation's own backward pass."""
        return torch.autograd.grad(
            self._there, self._here, s.to(self._dtype), retain_graph=True, create_graph=torch.is_grad_enabled()
        )[0]

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weight and bias, as `register(weight=)` gives them.

        Raises:
            RuleError: nobody told how to read the weight, or it has another shape than (out, in).
        """
        if self._dequantise is None:
            raise RuleError(
                f"{self._place}: the rule needs the weight, and {self._name} keeps it to itself. Tell how to read it: "
                f'relprop.register({self._name}, family="linear", weight=lambda x, ...: <weight, (out, in)>, replace=True), '
                "a function of the same arguments; or use a rule that needs none: Zero(), Epsilon(), Native()."
            )
        with torch.no_grad():
            found = self.on(x, self._dequantise)
        weight, bias = found if isinstance(found, tuple) else (found, None)
        if not isinstance(weight, Tensor) or weight.ndim != 2 or len(weight) != self._shape[-1]:
            shape = tuple(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
            raise RuleError(
                f"{self._place}: weight= must return a tensor of shape ({self._shape[-1]}, in); got {shape}."
            )
        return weight, bias


def opaque(call: Call, *args: Any, **kwargs: Any) -> Tensor:
    """The default of family "linear": native for LRP-0, else the rule on top of the layer's own backward pass."""
    if len(call.live) > 1:
        return factors(0)(call, *args, **kwargs)
    y: Tensor = call()
    if not call.zeros_carry_hidden and call.way is Way.DEFAULT:
        return y
    x, value = call.live[0], y.detach().clone()
    return layer(call, x, Opaque(OpaqueOperation(call, x, y)), lambda: value)
