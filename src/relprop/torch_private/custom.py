"""The custom autograd function whose forward runs in this thread, and its arguments, read from the stack.

Up to torch 2.13 `Function.apply` is written in Python, and its frame holds the class and the arguments. Since 2.14 it
is not. The frame of the function's own forward holds them under the names of its parameters, until it rebinds these.
"""

from __future__ import annotations

import dis
import gc
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from operator import is_
from types import CellType, CodeType, FrameType
from typing import Any
from weakref import WeakSet, ref

import torch

from relprop.torch_private.autograd_graph import function_of
from relprop.torch_private.calls import applied, code_of
from relprop.torch_private.finding import part

Function = type[torch.autograd.Function]

APPLY: CodeType | None = code_of(torch.autograd.Function.apply)
"""The code of `Function.apply`. On 2.9 to 2.13; None since 2.14, where `_by_forward` reads the stack instead."""

_CONTEXTS: Any = part("autograd.function.BackwardCFunction")
"""The base class of contexts; each custom function has its own subclass. Seen on 2.9 to 2.14; else `_all_functions`."""

_OUTER = {applied.__code__}
"""The search of the stack stops at a call of one of our own functions, whose forward may call modules."""

_SEEN = "relprop: noted"
"""A local variable that marks a frame as seen. No program can have a variable of this name."""


@dataclass
class Running:
    """A custom function whose forward runs now.

    Attributes:
        functions: the class, or several if only the result can tell which of them runs.
        args: its arguments; None if an earlier call has reported them, or if they can no longer be found.
        context: a reference to its context, which is its node in the graph; None if the stack does not hold it.
    """

    functions: tuple[Function, ...]
    args: tuple | None
    context: ref[Any] | None = None


def running_functions() -> Iterator[Running]:
    """The custom functions whose forward runs in this thread, the innermost first.

    Only the first call that finds a function reports its arguments. Seen on 2.9 to 2.14. Since 2.14, the arguments of a
    forward that is not written in Python are unknown, and the function is refused.
    """
    frame: FrameType | None = sys._getframe(2)  # past this function's frame and its caller's
    return _by_apply(frame) if APPLY is not None else _by_forward(frame)


def _by_apply(frame: FrameType | None) -> Iterator[Running]:
    inner = None
    while frame is not None and frame.f_code not in _OUTER:
        if frame.f_code is APPLY:
            given = frame.f_locals
            function, args = given["cls"], None if given["kwargs"] else given["args"]
            context = None if inner is None else next(iter(_arguments(inner) or ()), None)
            yield _told(frame, (function,), args, context if function_of(context) is function else None)
        frame, inner = frame.f_back, frame


def _by_forward(frame: FrameType | None) -> Iterator[Running]:
    known = _forwards()
    while frame is not None and frame.f_code not in _OUTER:
        if frame.f_code in known and (found := _forward(frame, known[frame.f_code])) is not None:
            if frame.f_back is not None and frame.f_back.f_code is applied.__code__:
                return
            yield found
        frame = frame.f_back


def _forward(frame: FrameType, candidates: WeakSet[Any]) -> Running | None:
    """The custom function that a frame belongs to, if any: a decorator's code may also wrap other functions."""
    functions = tuple(f for f in candidates if _encloses(f.forward, frame))
    if not functions:
        return None
    args = _arguments(frame)
    if any(f.setup_context is not torch.autograd.Function.setup_context for f in functions):
        return _told(frame, functions, args)
    if args is None:
        return _told(frame, functions, None)
    context: Any = args[0] if args else None
    function = function_of(context)
    if function is None or function not in functions:
        return None
    return _told(frame, (function,), args[1 : 1 + len(context.needs_input_grad)], context)  # without defaults


def _told(frame: FrameType, functions: tuple[Function, ...], args: tuple | None, context: Any = None) -> Running:
    given = frame.f_locals
    if _SEEN in given:
        args = None
    elif args is not None:
        given[_SEEN] = True
    return Running(functions, args, None if context is None else ref(context))


def _encloses(function: Any, frame: FrameType) -> bool:
    """Whether a frame may be a call of this very function. Others with the same code close over other objects."""
    function = getattr(function, "__func__", function)
    if code_of(function) is not frame.f_code:
        return False
    names = frame.f_code.co_freevars
    inside = [frame.f_locals.get(name) for name in names]
    return all(a is b for a, b in zip(inside, map(_held, function.__closure__ or ()), strict=True))


def _held(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # the name is not bound yet
        return None


def _arguments(frame: FrameType) -> tuple | None:
    """The arguments of a running function; None if they cannot be found."""
    code, given = frame.f_code, frame.f_locals
    names = code.co_varnames[: code.co_argcount]
    rest = code.co_argcount + code.co_kwonlyargcount
    more = code.co_varnames[rest : rest + 1] if code.co_flags & inspect.CO_VARARGS else ()
    anew = {name for name, offset in _stores(code) if offset < frame.f_lasti}
    if not anew.intersection((*names, *more)):
        return (*(given[name] for name in names), *(a for name in more for a in given[name]))
    kept = {n: given[name] for n, name in enumerate(names) if name not in anew}
    context: Any = kept.pop(0, None) if function_of(kept.get(0)) is not None else None
    if context is None:
        return _handed(kept, len(names), len(names) if not more else sys.maxsize)
    count = len(context.needs_input_grad)
    args = _handed({n - 1: value for n, value in kept.items()}, count, count)
    return None if args is None else (context, *args)


def _handed(kept: dict[int, Any], least: int, most: int) -> tuple | None:
    """All arguments, found from those whose names are not rebound: torch holds the tuple that it was given.

    The garbage collector finds that tuple. This is slow, and needed only where a forward rebinds an argument, as
    `x = x or ...` does. If other tuples fit and differ, the answer is None.
    """
    known = next((value for value in kept.values() if gc.is_tracked(value)), None)
    found = [
        t
        for t in (gc.get_referrers(known) if known is not None else ())
        if type(t) is tuple and least <= len(t) <= most and all(t[n] is a for n, a in kept.items() if n < len(t))
    ]
    same = found and all(len(t) == len(found[0]) and all(map(is_, t, found[0])) for t in found)
    return found[0] if same else None


def _stores(code: CodeType) -> list[tuple[str, int]]:
    """The local names that a function's code binds or deletes, and the offsets at which it does."""
    if code not in _stored:
        _stored[code] = [
            (name, step.offset)
            for step in dis.get_instructions(code)
            if step.opname.startswith(("STORE_FAST", "STORE_DEREF", "DELETE_FAST", "DELETE_DEREF"))
            for name in _bound(step)
        ]
    return _stored[code]


def _bound(step: dis.Instruction) -> tuple[str, ...]:
    names = step.argval if isinstance(step.argval, tuple) else (step.argval,)  # two in one since Python 3.13
    return names[:1] if step.opname == "STORE_FAST_LOAD_FAST" else names


_stored: dict[CodeType, list[tuple[str, int]]] = {}
_known: dict[CodeType, WeakSet[Any]] = {}
_state: tuple[int, Any] = (-1, None)


def _forwards() -> dict[CodeType, WeakSet[Any]]:
    """All custom functions, by the code of their forward."""
    global _state
    contexts = [] if _CONTEXTS is None else _CONTEXTS.__subclasses__()
    state = (len(contexts), contexts[-1] if contexts else None)
    if state != _state or not contexts:
        _known.clear()
        for function in (
            (f for c in contexts if (f := getattr(c, "_forward_cls", None))) if contexts else _all_functions()
        ):
            code = code_of(function.forward)
            if code is not None:
                _known.setdefault(code, WeakSet()).add(function)
        _state = state
    return _known


def _all_functions(base: Any = torch.autograd.Function) -> Iterator[Any]:
    for function in base.__subclasses__():
        yield function
        yield from _all_functions(function)
