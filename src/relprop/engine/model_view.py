"""The model of a run: the paths of its modules, the module now running, and the tensors that are its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from relprop.engine.members import Members, Standing, members
from relprop.engine.tensors import WeakTensors, tensors_in
from relprop.torch_private.calls import running_module

_FIXED = frozenset({
    torch.zeros, torch.ones, torch.eye, torch.empty, torch.zeros_like, torch.ones_like, torch.empty_like, Tensor.new_zeros,
    Tensor.new_ones, Tensor.new_empty,
})  # fmt: skip
"""These make constants whose numbers are the same whatever the inputs are: they take a shape at most."""
_FILLED = frozenset({
    torch.full, torch.full_like, Tensor.new_full, torch.arange, torch.linspace, torch.tensor, torch.as_tensor, torch.asarray,
    torch.scalar_tensor, Tensor.new_tensor, torch.from_numpy,
})  # fmt: skip
"""These make constants of numbers that Python gives."""
_NUMBERS = frozenset({
    Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.__float__, Tensor.__int__, Tensor.__index__,
    Tensor.__complex__, Tensor.__bool__, Tensor.is_nonzero, torch.is_nonzero, Tensor.equal, torch.equal, Tensor.allclose,
    torch.allclose, Tensor.__dlpack__, Tensor.data_ptr, Tensor.untyped_storage, Tensor.storage,
})  # fmt: skip
"""These hand numbers to Python, where nobody sees what becomes of them."""
_BUFFERS, _ATTRIBUTES = "buffers", "attributes"
NOWHERE: Standing = ((), "")
"""The place of a module that is not part of the model."""


class ModelView:
    """The model of a run, or a plain function.

    Attributes:
        standing: the paths and the class's name of each module, by its identity.
        constants: tensors made of parameters and buffers alone; weak, so offloaded weights can be freed.
        of_data: masks, indices and other constants that depend on the inputs.
        any_signs: whether a live tensor was compared with 0, which may make a mask by sign.
        returned: whether the model has returned its output, of which a target now computes the score.
        chosen: tensors that consist of entries of model constants, chosen by the inputs.
        made: constants, other than those of the model, that an operation of this run returned or wrote into.
        told: whether Python was told numbers that may depend on the inputs.
    """

    def __init__(self, model: Any, found: Members | None = None) -> None:
        self._model = model
        self.constants = WeakTensors()
        self.of_data = WeakTensors()
        self.any_signs = False
        self.returned = self.told = False
        self.chosen, self.made = WeakTensors(), WeakTensors()
        self._held: dict[str, dict[int, Tensor]] = {}
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

    @property
    def any_of_data(self) -> bool:
        """Whether there was a constant that depends on the inputs."""
        return bool(self.of_data)

    def owns(self, constant: Tensor) -> bool:
        """Whether a constant is a model constant: a parameter, a buffer, or made of these alone."""
        return (
            isinstance(constant, nn.Parameter) or constant in self.constants or id(constant) in self._tensors(_BUFFERS)
        )

    def belongs(self, constant: Tensor) -> bool:
        """Whether a constant is the model's own: a model constant, or a tensor that was there before and is no argument.

        That may be an attribute of a module that is no buffer, or one that a function closes over.
        """
        if self.owns(constant):
            return True
        if constant.requires_grad or constant in self.of_data or constant in self.made:
            return False
        return not self.told or self._tensors(_ATTRIBUTES).get(id(constant)) is constant

    def _tensors(self, kind: str) -> dict[int, Tensor]:
        """The buffers of the model, or the tensors that modules hold as plain attributes, by identity. Looked for once."""
        if kind not in self._held:
            model = self._model if isinstance(self._model, nn.Module) else nn.Module()
            if kind == _BUFFERS:
                self._held[kind] = {id(t): t for t in model.buffers()}
            else:
                plain = [value for module in model.modules() for name, value in vars(module).items() if name[:1] != "_"]
                self._held[kind] = {id(t): t for t in tensors_in(plain)}
        return self._held[kind]

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

    def note_answer(self, function: Any, args: tuple, kwargs: dict, result: Any, inputs: set[int]) -> None:
        """Notes of what an operation without relevance returned whether it depends on the inputs, known by identity."""
        if self.note_fixed(function, args, kwargs, result):
            return
        if function in _NUMBERS and args:
            self.told = self.told or any(not self.belongs(a) for a in args if isinstance(a, Tensor))
        given = [a for a in args if isinstance(a, Tensor)]
        for a in given:
            live = a.requires_grad and result is not a and (id(a) in inputs or not isinstance(a, nn.Parameter))
            if live or (self.any_of_data and self.depends(a)):
                self.note_data(result)
                return
        if not all(map(self.belongs, given)):
            self._note_made(result)

    def _note_made(self, *results: Any) -> None:
        for t in tensors_in(results):
            self.made.add(t)

    def note_fixed(self, function: Any, args: tuple, kwargs: dict, result: Any) -> bool:
        """Notes a new constant whose numbers are the same whatever the inputs are; False if they may not be."""
        if function not in _FIXED and (function not in _FILLED or self.told):
            return False
        given = tensors_in((args[1:], list(kwargs.values())))
        if not isinstance(result, Tensor) or result.requires_grad or not all(map(self.belongs, given)):
            return False
        self.note_constant(result)
        self.made.discard(result)
        return True

    def note_broadcast(self, operands: Iterable[Any], results: Any) -> None:
        """Notes the constants among tensors that were broadcast with a live one."""
        for operand, result in zip(operands, results, strict=False):
            if isinstance(result, Tensor) and not result.requires_grad:
                self.derive(result, (operand,), None)

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
        if not given or not all(map(self.belongs, given)) or (self.told and written is not None):
            self._note_made(result, written, getattr(written, "_base", None))
        owned = bool(given) and all(self.owns(t) for t in given) and not (self.told and written is not None)
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
