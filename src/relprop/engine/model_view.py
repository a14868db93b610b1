"""The model of a run: the paths of its modules, the module now running, and the tensors that are its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from relprop.engine.members import Members, Standing, members
from relprop.engine.tensors import WeakTensors
from relprop.torch_private.calls import running_module

NOWHERE: Standing = ((), "")
"""The place of a module that is not part of the model."""


class ModelView:
    """The model of a run, or a plain function.

    Attributes:
        standing: the paths and the class's name of each module, by its identity.
        constants: tensors made of parameters and buffers alone; weak, so offloaded weights can be freed.
        of_data: masks, indices and other constants that depend on the inputs.
        any_of_data: whether there was one.
        any_signs: whether a live tensor was compared with 0, which may make a mask by sign.
        returned: whether the model has returned its output, of which a target now computes the score.
        chosen: tensors that consist of entries of model constants, chosen by the inputs.
    """

    def __init__(self, model: Any, found: Members | None = None) -> None:
        self._model = model
        self.constants = WeakTensors()
        self.of_data = WeakTensors()
        self.any_of_data = self.any_signs = False
        self.returned = False
        self.chosen = WeakTensors()
        self._buffers: set[int] | None = None
        self.standing = (members(model) if found is None else found).standing

    def note_constant(self, constant: Tensor) -> None:
        """Notes a tensor made of parameters and buffers alone."""
        self.constants.add(constant)

    def here(self) -> tuple[nn.Module | None, tuple[str, ...]]:
        module = running_module()
        return module, self.standing.get(id(module), NOWHERE)[0]

    def path(self) -> str:
        """The path of the module now running; "" for the model itself, or if no module of the model runs."""
        return next(iter(self.here()[1]), "")

    def where(self) -> str:
        """The module now running, for messages."""
        _, paths = self.here()
        if paths and paths[0]:
            return f"module '{paths[0]}'"
        return "the model's own forward"

    def owns(self, constant: Tensor) -> bool:
        """Whether a constant is a model constant: a parameter, a buffer, or made of these alone."""
        if self._buffers is None:
            self._buffers = {id(t) for t in self._model.buffers()} if isinstance(self._model, nn.Module) else set()
        return isinstance(constant, nn.Parameter) or constant in self.constants or id(constant) in self._buffers

    def depends(self, constant: Tensor) -> bool:
        """Whether a constant is known to depend on the inputs."""
        return constant in self.of_data

    @property
    def ended(self) -> bool:
        """Whether the code that runs now is not the model's."""
        return self.returned or (isinstance(self._model, nn.Module) and running_module() is None)

    def end(self) -> None:
        """Notes that the model has returned its output."""
        self.returned = True

    def weighs(self, constant: Tensor) -> bool:
        """Whether a constant may be the weight of a layer: its numbers are the model's, and inputs at most choose among them."""
        return not self.any_of_data or not self.depends(constant) or constant in self.chosen

    def note_data(self, result: Any) -> None:
        """Notes that a constant depends on the inputs: it was computed from a live tensor."""
        if type(result) is torch.Size:
            return
        for t in result if isinstance(result, (list, tuple)) else (result,):
            if isinstance(t, Tensor):
                self.of_data.add(t)
                self.any_of_data = True

    def note_sign(self) -> None:
        """Notes that a live tensor was compared with 0."""
        self.any_signs = True

    def derive(self, result: Any, operands: Iterable[Any], written: Any) -> None:
        """Notes that a result is a model constant if all its operands are. A target of a write may cease to be one."""
        given: list[Tensor] = []
        for a in operands:
            for t in a if isinstance(a, (list, tuple)) else (a,):
                if isinstance(t, Tensor):
                    given.append(t)
        owned = bool(given) and all(self.owns(t) for t in given)
        if owned and isinstance(result, Tensor):
            self.note_constant(result)
        if self.any_of_data and any(self.depends(t) for t in given):
            self.note_data(result)
            if isinstance(written, Tensor):
                self.note_data((written, written._base))
            numbers = [t for t in given if t.is_floating_point()]
            if isinstance(result, Tensor) and numbers and all(self.owns(t) or self.weighs(t) for t in numbers):
                self.chosen.add(result)
        if not owned and isinstance(written, Tensor):
            self.constants.discard(written)
            self.constants.discard(written._base)
