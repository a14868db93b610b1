"""The rules of `captum.attr` under their names. Users set them as `module.rule`, and may change and share them.

Index letters: i in, j out; `z_j = sum_i x_i w_ij + b_j`, and 0 / 0 = 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch


class PropagationRule(ABC):
    """Base of the rules that a module can carry as `module.rule`.

    A rule of your own changes the weight and bias of the module that it receives, which is a copy; the model's do not
    change. With the changed weight `w'` and bias `b'`, and `STABILITY_FACTOR` for `eps`,
    `R_i = sum_j x_i w'_ij R_j / (z'_j + eps sgn z'_j)`, `z'_j = sum_i x_i w'_ij + b'_j`. A BatchNorm that follows is
    part of the weight and the bias.
    """

    STABILITY_FACTOR = 1e-9

    @abstractmethod
    def _manipulate_weights(self, module: Any, inputs: Any, outputs: Any) -> None:
        """Changes `module.weight.data` and `module.bias.data`. `inputs` is a tuple with `x`, `outputs` is `z`."""

    def __repr__(self) -> str:
        parameters = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({parameters})"


class EpsilonRule(PropagationRule):
    """`R_i = sum_j x_i w_ij R_j / (z_j + eps sgn z_j)`. Bach et al. 2015. The default of every layer with weights.

    Args:
        epsilon: the stabiliser, in units of the layer's output, >= 0; with 0 this is LRP-0.
    """

    def __init__(self, epsilon: float = 1e-9) -> None:
        self.STABILITY_FACTOR = epsilon

    def _manipulate_weights(self, module: Any, inputs: Any, outputs: Any) -> None:
        """Does not change the weights."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(epsilon={self.STABILITY_FACTOR!r})"


class GammaRule(PropagationRule):
    """Contributions with the sign of `z_j` count `1 + gamma` times, and so does the bias.

    For `z_j > 0`, `R_i = sum_j c_ij R_j / (sum_i c_ij + b_j + gamma b_j+)` with `c_ij = x_i w_ij + gamma (x_i w_ij)+`;
    for `z_j < 0`, the same with negative parts. If no input is negative this is `w + gamma w+`. Montavon et al. 2019,
    in which the bias is a neuron like the others (their index 0); Andéol et al. 2021 for both signs.

    captum adds no `gamma b+`, and uses `x w+` in place of `(x w)+`. One unit, `gamma = 1`, `R = 1`, inputs (1, 1):

    - w (2, -1), b 1: contributions (4, -1), bias 2, together 5, so R = (0.8, -0.2), and the bias keeps 0.4.
      captum: (4, -1), bias 1, together 4, so R = (1, -0.25), and the bias keeps 0.25.
    - w (2, -1), b -0.5, or no bias: the same in both.

    Args:
        gamma: the extra weight of contributions with the output's sign, >= 0.
        set_bias_to_zero: whether the bias gets no share: `b = 0` in the denominator.
    """

    def __init__(self, gamma: float = 0.25, set_bias_to_zero: bool = False) -> None:
        self.gamma = gamma
        self.set_bias_to_zero = set_bias_to_zero

    def _manipulate_weights(self, module: Any, inputs: Any, outputs: Any) -> None:
        """As for inputs that are not negative, for rules that build on this one."""
        for parameter in _parameters(module, self.set_bias_to_zero):
            parameter.add_(self.gamma * parameter.clamp(min=0))


class Alpha1_Beta0_Rule(PropagationRule):
    """`R_i = sum_j (x_i w_ij)+ / (sum_i (x_i w_ij)+ + b_j+) R_j`. Bach et al. 2015, alpha 1, beta 0; also z+.

    captum uses `x w+` in place of `(x w)+`, and keeps a negative bias in the denominator. One unit, `R = 1`, `b = -2`:

    - x (1, 1), w (2, 1): contributions (2, 1), together 3, so R = (2/3, 1/3).
      captum: together 3 - 2 = 1, so R = (2, 1), three times the relevance that arrived.
    - x (-1, 1), w (-2, 1): contributions (2, 1), so R = (2/3, 1/3). captum: (0, 1), together -1, so R = (0, -1).

    If no input and no bias is negative, both are the same.

    Args:
        set_bias_to_zero: whether the bias gets no share: `b = 0` in the denominator.
    """

    def __init__(self, set_bias_to_zero: bool = False) -> None:
        self.set_bias_to_zero = set_bias_to_zero

    def _manipulate_weights(self, module: Any, inputs: Any, outputs: Any) -> None:
        """As for inputs that are not negative, for rules that build on this one."""
        for parameter in _parameters(module, self.set_bias_to_zero):
            parameter.clamp_(min=0)


class IdentityRule(EpsilonRule):
    """`R_i = R_j`: relevance goes straight through, if input and output have the same shape."""


def _parameters(module: Any, set_bias_to_zero: bool) -> list[torch.Tensor]:
    """The data of a module's weight and bias; sets the bias to 0 first if requested."""
    found = [getattr(module, name, None) for name in ("weight", "bias")]
    if set_bias_to_zero and found[1] is not None:
        found[1].data.zero_()
    return [parameter.data for parameter in found if parameter is not None]
