"""Parts of torch without a public name: each is there, or what is done without it is known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from relprop.engine import torch_private_ops as private


def test_the_function_of_full_backward_hooks() -> None:
    module = nn.Linear(2, 2)
    module.register_full_backward_hook(lambda *a: None)
    node = module(torch.ones(1, 2, requires_grad=True)).grad_fn
    assert node is not None
    assert getattr(type(node), "_forward_cls", None) is private.hook_function()


@pytest.mark.parametrize("part", [private.gradient_switch, private.parse_to, private.nested_to_padded])
def test_each_part_is_there(part: object) -> None:
    assert callable(part) and callable(part())


def test_no_grad_goes_through_the_switch() -> None:
    switch = private.gradient_switch()
    assert switch is not None
    seen = []

    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            seen.append(func)
            return func(*args, **(kwargs or {}))

    with Mode(), torch.no_grad():
        pass
    assert switch in seen
