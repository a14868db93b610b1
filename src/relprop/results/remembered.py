"""A tensor that was read from a file, and remembers what people see: the pictures, or the place of a volume in space.

It behaves like the plain tensor. It keeps its memory when it is moved, cast, sliced or joined along its samples; what a
model computes of it is a plain tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from relprop.torch_private.state import without_torch_function
from relprop.trees import leaves, map_tree

_SAME = {"to", "cuda", "cpu", "float", "double", "half", "bfloat16", "type", "clone", "detach", "contiguous", "requires_grad_", "pin_memory"}  # fmt: skip
"""Methods after which the samples are the same."""


class ReadTensor(Tensor):
    """A network's input that was read from a file.

    Attributes:
        pictures: what people see, (N, 3, H, W) in bytes, of pictures.
        affine: the map from voxels to space, (4, 4), of a volume.
    """

    pictures: Tensor | None = None
    affine: Tensor | None = None

    @classmethod
    def of(cls, values: Tensor, pictures: Tensor | None = None, affine: Tensor | None = None) -> ReadTensor:
        """The tensor with its memory."""
        made: ReadTensor = values.as_subclass(cls)
        made.pictures, made.affine = pictures, affine
        return made

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs the function on plain tensors, and passes the memory on where the samples are known."""
        with without_torch_function():
            result = func(*args, **(kwargs or {}))
            if not isinstance(result, Tensor):
                return result
            first = args[0] if args else None
            name = getattr(func, "__name__", "")
            if isinstance(first, ReadTensor) and result is first:
                return result
            result = _plain(result)
            if isinstance(first, ReadTensor) and name in _SAME and result.shape == first.shape:
                return _remembering(result, first.pictures, first.affine)
            if isinstance(first, ReadTensor) and name == "__getitem__" and first.pictures is not None:
                index = args[1]
                if isinstance(index, (slice, list)) or (isinstance(index, Tensor) and index.ndim == 1):
                    return _remembering(result, first.pictures[index], None)
            if func in (torch.cat, torch.concat) and isinstance(first, (list, tuple)):
                return _joined(result, first, args, kwargs or {})
            return result

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _remembering, (_plain(self), self.pictures, self.affine)

    def __deepcopy__(self, memo: Any) -> ReadTensor:
        return _remembering(_plain(self).clone(), self.pictures, self.affine)


def _remembering(values: Tensor, pictures: Tensor | None, affine: Tensor | None) -> ReadTensor:
    with without_torch_function():
        return ReadTensor.of(values, pictures, affine)


def _plain(t: Tensor) -> Tensor:
    with without_torch_function():
        return t.as_subclass(Tensor) if isinstance(t, ReadTensor) else t


def _joined(result: Tensor, parts: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Joined samples remember their pictures, if all have some of one size."""
    axis = args[1] if len(args) > 1 else kwargs.get("dim", 0)
    found = [part.pictures if isinstance(part, ReadTensor) else None for part in parts]
    if axis != 0 or any(one is None for one in found) or len({one.shape[1:] for one in found if one is not None}) != 1:
        return result
    return _remembering(result, torch.cat([one for one in found if one is not None]), None)


def recalled(inputs: Any) -> tuple[Any, Tensor | None, Tensor | None]:
    """The inputs as plain tensors, and the pictures and the affine map that one of them remembers."""
    read = [leaf for _, leaf in leaves(inputs) if isinstance(leaf, ReadTensor)]
    if not read:
        return inputs, None, None
    pictures = next((one.pictures for one in read if one.pictures is not None and len(one.pictures) == len(one)), None)
    affine = next((one.affine for one in read if one.affine is not None), None)
    return map_tree(_plain, inputs), pictures, affine
