"""Tensors that autograd saved, kept as they were when the model overwrites them.

`torch.autograd.graph.allow_mutation_on_saved_tensors` does the same, but tells tensors apart by identity, address and
version. A tensor that was copied may be freed, and a later one that gets all three of it is taken for it: the backward
pass then reads the wrong numbers. Here a saved tensor holds its memory until it is copied, so that an address means
one tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

_OVERWRITTEN = ("modified by an inplace operation", "has been modified inplace")
_ONE_OF_SEVERAL = "is the output of a function that returns multiple views"


def says_overwritten(error: BaseException | None) -> bool:
    """Whether autograd says that a tensor was overwritten that a gradient needs. Judged by its text; seen on 2.9 to 2.14."""
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OVERWRITTEN)


def says_one_of_several(error: BaseException | None) -> bool:
    """Whether torch refuses a write into one of several views that one operation returned, as `chunk` does.

    Without gradients it allows such a write. Judged by its text; seen on 2.13.
    """
    return isinstance(error, RuntimeError) and _ONE_OF_SEVERAL in str(error)


def let_go_of_saved(nodes: Iterable[Any]) -> None:
    """Empties what these nodes of the graph, and all before them, have saved. No gradient can be taken there any more.

    A backward pass that fails at an overwritten view has looked up the view's history, which is that of its base by now.
    So the node holds a tensor that holds the node. Torch cannot see this cycle.

    It needs the nodes' `_raw_saved_...` attributes. Seen on 2.13; without them, such a failure leaves tensors behind.
    """
    stack, seen, names = list(nodes), set(), dict[type, list[str]]()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        stack += [before for before, _ in node.next_functions]
        kind = type(node)
        if kind not in names:
            names[kind] = [name for name in dir(node) if name.startswith("_raw_saved_")]
        for name in names[kind]:
            with suppress(RuntimeError):  # nothing was saved here, or it is gone already
                saved = getattr(node, name)
                for one in saved if isinstance(saved, tuple) else (saved,):
                    with suppress(RuntimeError):
                        one.register_hooks(_nothing, _nothing)


def _nothing(_: Any) -> None:
    return None


class _Saved:
    """One saved tensor, as it was when it was saved."""

    __slots__ = ("__weakref__", "tensor")

    def __init__(self, tensor: Tensor) -> None:
        self.tensor: Tensor | None = tensor


class _CopyBeforeWrites(TorchDispatchMode):
    """Copies the saved tensors in the memory that an operation is about to overwrite."""

    def __init__(self) -> None:
        super().__init__()
        self.by_memory: dict[int, WeakSet[_Saved]] = {}
        self.all: WeakSet[_Saved] = WeakSet()

    def pack(self, tensor: Tensor) -> _Saved:
        saved = _Saved(tensor)
        self.all.add(saved)
        self.by_memory.setdefault(_memory(tensor), WeakSet()).add(saved)
        return saved

    def unpack(self, saved: _Saved) -> Tensor:
        assert saved.tensor is not None, "a backward pass outside of the context in which its graph was recorded"
        return saved.tensor

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        for n, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                written = args[n] if n < len(args) else kwargs.get(argument.name)
                for t in written if isinstance(written, (list, tuple)) else (written,):
                    if isinstance(t, Tensor):
                        self._copy(t)
        return func(*args, **kwargs)

    def _copy(self, written: Tensor) -> None:
        copies: dict[Any, Tensor] = {}
        for saved in self.by_memory.pop(_memory(written), ()):
            t = saved.tensor
            if t is not None:
                known = t.storage_offset(), t.shape, t.stride(), t.dtype
                if known not in copies:
                    copies[known] = t.clone()
                saved.tensor = copies[known]

    def release(self) -> None:
        for saved in self.all:
            saved.tensor = None  # a node that saved its own result would never be freed
        self.by_memory.clear()


def _memory(tensor: Tensor) -> int:
    """The address of a tensor's storage; tensors without one, as of a graph being recorded, count as one."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return 0


@contextmanager
def copied_before_writes() -> Iterator[None]:
    """A context in which a model may overwrite what autograd saved. The backward pass belongs into it, too.

    It needs `TorchDispatchMode` and the schemas of operators. Seen on 2.9 to 2.14.
    """
    copying = _CopyBeforeWrites()
    try:
        with saved_tensors_hooks(copying.pack, copying.unpack), copying:
            yield
    finally:
        with torch.no_grad():
            copying.release()
