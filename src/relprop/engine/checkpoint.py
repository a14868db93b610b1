"""Blocks that keep only their inputs: the backward pass recomputes what autograd would save.

The idea is that of `torch.utils.checkpoint` (Chen et al. 2016), without a change to the model. Hooks around each block,
for the duration of the forward pass, set torch's hooks on saved tensors. The recomputation runs under the same rules.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from relprop.engine.chance import moved, put, state, undisturbed
from relprop.engine.mode import Propagation
from relprop.engine.run import Run
from relprop.engine.undo import Undo
from relprop.errors import UnsupportedOperationError
from relprop.torch_private.state import function_modes, needs_saved_elsewhere

Open = list[tuple[nn.Module, saved_tensors_hooks]]


class Segment:
    """One run of one block: its arguments, its precision, and the shapes and dtypes of the tensors autograd saved."""

    def __init__(self, run: Run, name: str, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self.run, self.name, self.module, self.args, self.kwargs = run, name, module, args, kwargs
        self.casting: list[dict[str, Any]] = [
            {"device_type": kind, "dtype": torch.get_autocast_dtype(kind), "enabled": torch.is_autocast_enabled(kind)}
            for kind in {"cpu", *(a.device.type for a in (*args, *kwargs.values()) if isinstance(a, Tensor))}
            if torch.amp.is_autocast_available(kind)
        ]
        self.devices = {a.device for a in (*args, *kwargs.values()) if isinstance(a, Tensor)}
        now = state(self.devices)
        if len(now) != len(run.chance.random) or moved(run.chance.random, now):
            run.chance.block(now)
        self.random = run.chance.random  # shared by all blocks of a model that draws no random numbers
        self.kept: list[tuple[torch.Size, torch.dtype]] = []
        self.again: dict[int, Tensor] = {}

    def pack(self, tensor: Tensor) -> int:
        self.kept.append((tensor.shape, tensor.dtype))
        return len(self.kept) - 1

    def unpack(self, number: int) -> Tensor:
        if number not in self.again:
            self._recompute()
        return self.again.pop(number)

    def _recompute(self) -> None:
        tensors: list[Tensor] = []

        def keep(tensor: Tensor) -> int:
            tensors.append(tensor.detach())
            return len(tensors) - 1

        mode = nullcontext() if _active(self.run) else Propagation(self.run)  # another thread starts without the mode
        with ExitStack() as stack:
            stack.enter_context(undisturbed(self.devices))
            put(self.random)  # the same random numbers again
            for casting in self.casting:
                stack.enter_context(torch.autocast(**casting))
            for context in (torch.enable_grad(), mode, saved_tensors_hooks(keep, tensors.__getitem__)):
                stack.enter_context(context)
            try:
                self.module(*self.args, **self.kwargs)
            except RuntimeError as error:
                raise self._changed() from error
        if [(t.shape, t.dtype) for t in tensors] != self.kept:
            raise self._changed()
        self.again = dict(enumerate(tensors))

    def _changed(self) -> UnsupportedOperationError:
        return UnsupportedOperationError(
            f"module '{self.name}' computed something else the second time: a block that is checkpointed must depend on "
            "its arguments alone. Does it write to a cache? For language models: forward_kwargs={'use_cache': False}."
        )


def _active(run: Run) -> bool:
    return any(isinstance(mode, Propagation) and mode.run is run for mode in function_modes())


def blocks(model: nn.Module) -> dict[str, nn.Module]:
    """The outermost repeated parts: members of a ModuleList or Sequential that consist of several modules."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and not any(name.startswith(f"{b}.") for b in found):
            members = {
                f"{name}.{key}".lstrip("."): m for key, m in module.named_children() if any(True for _ in m.children())
            }
            if len(members) > 1:
                found.update(members)
    return found


@contextmanager
def checkpointing(modules: dict[str, nn.Module], run: Run) -> Iterator[None]:
    """A context in which these modules keep only their inputs, in this thread."""
    needs_saved_elsewhere()
    thread = threading.get_ident()
    opened: Open = []
    with Undo() as undo:
        undo.later(lambda: _leave(opened, None))
        for name, module in modules.items():
            # in another thread kwargs may be missing, while this thread removes its hook
            def enter(m: nn.Module, args: tuple, kwargs: dict | None = None, name: str = name) -> None:
                if threading.get_ident() == thread and kwargs is not None:
                    segment = Segment(run, name, m, args, kwargs)
                    hooks = saved_tensors_hooks(segment.pack, segment.unpack)
                    hooks.__enter__()
                    opened.append((m, hooks))

            def leave(m: nn.Module, args: tuple, out: Any) -> None:
                if threading.get_ident() == thread and any(module is m for module, _ in opened):
                    _leave(opened, m)

            undo.later(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
            undo.later(module.register_forward_hook(leave, always_call=True).remove)
        yield


def _leave(opened: Open, module: nn.Module | None) -> None:
    """Leaves a block and those open inside it, or all blocks. An interrupt may keep a block's own hook from running."""
    while opened:
        inner, hooks = opened.pop()
        hooks.__exit__(None, None, None)
        if inner is module:
            break


@contextmanager
def recomputing(run: Run) -> Iterator[None]:
    """The backward pass. If a block was checkpointed, it runs in the mode, and in one thread on all devices."""
    if not run.sites.journal.active:
        yield
        return
    with torch.autograd.set_multithreading_enabled(False), Propagation(run):
        yield
