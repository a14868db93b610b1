"""A user's own `PropagationRule` as a rule of the engine. It changes the weights of a copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from relprop.captum.rules import PropagationRule
from relprop.errors import RuleError
from relprop.numerics import signed, wide
from relprop.rules import Layer, WeightedRule
from relprop.torch_private.modules import copied


@dataclass(frozen=True, eq=False)
class Manipulated(WeightedRule):
    """`R_i = sum_j x_i w'_ij R_j / (z'_j + eps sgn z'_j)`, `z' = A(w') x + b'`; `rule` makes w' and b' from w and b."""

    rule: PropagationRule
    module: nn.Module
    path: str
    whole_output: ClassVar[bool] = True

    def propagate(self, layer: Layer, g: Tensor) -> Tensor:
        """From `G` at the output to `G` at the input."""
        weight, bias = self._manipulated(layer)
        z = wide(layer.forward(layer.x, weight) + bias)
        return layer.transpose(layer.share(g, signed(z, self.rule.STABILITY_FACTOR)), weight)

    def _manipulated(self, layer: Layer) -> tuple[Tensor, Tensor | float]:
        bias = layer.bias if isinstance(layer.bias, Tensor) else None
        copy = stand_in(self.module, self._shaped(layer.weight), None if bias is None else bias.flatten())
        with torch.no_grad():
            self.rule._manipulate_weights(copy, (layer.x.detach(),), layer.z.detach())
        weight, changed = copy.weight, copy.bias
        if not isinstance(weight, Tensor) or weight.numel() != layer.weight.numel():
            raise RuleError(
                f"{self.rule!r} of module '{self.path}' left a weight of another shape; a rule changes the values of "
                "module.weight and module.bias."
            )
        if not isinstance(changed, Tensor):
            return weight.detach().reshape(layer.weight.shape), 0.0
        return weight.detach().reshape(
            layer.weight.shape
        ), changed.detach() if bias is None else changed.detach().reshape(bias.shape)

    def _shaped(self, weight: Tensor) -> Tensor:
        """A weight in the module's own shape: that of a BatchNorm is a vector."""
        own = getattr(self.module, "weight", None)
        if isinstance(own, Tensor) and own.numel() == weight.numel():
            return weight.reshape(own.shape)
        return weight


def stand_in(module: nn.Module, weight: Tensor, bias: Tensor | None) -> Any:
    """A copy of a module that shares no tensor with it. Its weight and bias are plain, even if parametrised before."""
    kind: Any = type(module).__bases__[0] if parametrize.is_parametrized(module) else type(module)
    return copied(module, kind, {"weight": weight, "bias": bias})
