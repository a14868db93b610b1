"""The two tables of `captum.attr` that users extend: the default rule of each module type.

A type is looked up with its bases, so that subclasses, parametrised and pruned layers count as the layers that they are.
A type in neither table is propagated by the engine's default.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, broadcast_tensors, nn, stack

from relprop.captum.rules import EpsilonRule, PropagationRule


class Addition_Module(nn.Module):
    """The sum of two or more tensors. relprop does not need a module for it: `a + b` gives the same relevance."""

    def forward(self, *tensors: Tensor) -> Tensor:
        """The sum, by broadcasting.

        Raises:
            TypeError: fewer than two tensors.
        """
        if len(tensors) < 2:
            raise TypeError(f"Addition_Module adds two or more tensors; got {len(tensors)}.")
        if len(tensors) == 2:
            return tensors[0] + tensors[1]
        return stack(broadcast_tensors(*tensors)).sum(0)


SUPPORTED_LAYERS_WITH_RULES: dict[type[nn.Module], Callable[[], PropagationRule]] = {
    nn.MaxPool1d: EpsilonRule,
    nn.MaxPool2d: EpsilonRule,
    nn.MaxPool3d: EpsilonRule,
    nn.Conv2d: EpsilonRule,
    nn.AvgPool2d: EpsilonRule,
    nn.AdaptiveAvgPool2d: EpsilonRule,
    nn.Linear: EpsilonRule,
    nn.BatchNorm2d: EpsilonRule,
    Addition_Module: EpsilonRule,
}
"""The rule that a module of each type gets if it carries none."""

SUPPORTED_NON_LINEAR_LAYERS: list[type[nn.Module]] = [nn.ReLU, nn.Dropout, nn.Tanh]
"""Module types that pass relevance on unchanged. Types added here do so whatever they compute."""

PASSING_ANYWAY = frozenset(SUPPORTED_NON_LINEAR_LAYERS)
"""The types that pass relevance on by the engine's default and need no rule."""
