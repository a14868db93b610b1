"""The two tables of `captum.attr` that users extend: which module types get which rule by default.

A type is looked up with its bases, so that a subclass, a parametrised or a pruned layer counts as what it is.
What is in neither table is propagated as the engine knows how.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, broadcast_tensors, nn, stack

from relprop.captum.rules import EpsilonRule, PropagationRule


class Addition_Module(nn.Module):
    """The sum of two or more tensors. relprop needs no module for it: `a + b` gives the same relevance."""

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
"""Module types and the rule each gets where a module carries none."""

SUPPORTED_NON_LINEAR_LAYERS: list[type[nn.Module]] = [nn.ReLU, nn.Dropout, nn.Tanh]
"""Module types whose relevance passes unchanged. Types added here pass it unchanged whatever they compute."""

PASSING_ANYWAY = frozenset(SUPPORTED_NON_LINEAR_LAYERS)
"""Those of them that need no rule for it."""
