"""The custom autograd function whose forward runs in this thread, and its arguments: read off the stack.

Up to torch 2.13 `Function.apply` is written in Python: its frame holds the class and the arguments. Since 2.14 it is not,
and the frame of the function's own forward holds them under the names of its parameters, until it gives these names to
something else.
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

from relprop.torch_private.calls import applied, code_of
from relprop.torch_private.graph import function_of
from relprop.torch_private.parts import part

Function = type[torch.autograd.Function]

APPLY: CodeType | None = code_of(torch.autograd.Function.apply)
"""The code of `Function.apply`. On 2.9 to 2.13; None since, where `_by_forward` reads the stack instead."""

_CONTEXTS: Any = part("autograd.function.BackwardCFunction")
"""The base of all contexts, one class for each custom function. Seen on 2.9 to 2.14; `_all_functions` does without."""

_OUTER = {applied.__code__}
"""Beyond the call of a function of our own no forward of a custom function is meant; one may call modules."""

_SEEN = "relprop: noted"
"""Marks a frame as seen before, among its locals: a name that no program can have."""


@dataclass
class Running:
    """A custom function whose forward runs now.

    Attributes:
        functions: the class, or several where only the result can tell.
        args: what it was given; None where that was noted before, or is not to be known any more.
        context: the function's context, which is its node in the graph, where the stack holds it.
    """

    functions: tuple[Function, ...]
    args: tuple | None
    context: ref[Any] | None = None


def running_functions() -> Iterator[Running]:
    """The custom functions whose forward runs in this thread, the innermost first.

    Their arguments are told once, at the first call that finds them. Seen on 2.9 to 2.14. Where a forward is not written
    in Python, its arguments are not known since 2.14, and the function is refused.
    """
    frame: FrameType | None = sys._getframe(2)  # less the generator's own and its caller's
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
    """What a frame tells, if it is that of a forward: a decorator's code may serve other functions, too."""
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
    return _told(frame, (function,), args[1 : 1 + len(context.needs_input_grad)], context)  # less the defaults


def _told(frame: FrameType, functions: tuple[Function, ...], args: tuple | None, context: Any = None) -> Running:
    given = frame.f_locals
    if _SEEN in given:
        args = None
    elif args is not None:
        given[_SEEN] = True
    return Running(functions, args, None if context is None else ref(context))


def _encloses(function: Any, frame: FrameType) -> bool:
    """Whether a frame may be a call of this very function: another with its code closes over other objects."""
    function = getattr(function, "__func__", function)
    if code_of(function) is not frame.f_code:
        return False
    names = frame.f_code.co_freevars
    inside = [frame.f_locals.get(name) for name in names]
    return all(a is b for a, b in zip(inside, map(_held, function.__closure__ or ()), strict=True))


def _held(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that is not bound yet
        return None


def _arguments(frame: FrameType) -> tuple | None:
    """The arguments of a running function; None where they are not to be known."""
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
    """Arguments whose names stand for something else by now, by those that do not: torch keeps the tuple it was given.

    The garbage collector finds it. That takes a while, and is needed where a forward begins with `x = x or ...` alone.
    Where another tuple holds the same, none is chosen.
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
    """Which local names a function's code binds or deletes, and where."""
    if code not in _stored:
        _stored[code] = [
            (name, step.offset)
            for step in dis.get_instructions(code)
            if step.opname.startswith(("STORE_FAST", "STORE_DEREF", "DELETE_FAST", "DELETE_DEREF"))
            for name in _bound(step)
        ]
    return _stored[code]


def _bound(step: dis.Instruction) -> tuple[str, ...]:
    names = step.argval if isinstance(step.argval, tuple) else (step.argval,)  # two steps in one, since Python 3.13
    return names[:1] if step.opname == "STORE_FAST_LOAD_FAST" else names


_stored: dict[CodeType, list[tuple[str, int]]] = {}
_known: dict[CodeType, WeakSet[Any]] = {}
_state: tuple[int, Any] = (-1, None)


def _forwards() -> dict[CodeType, WeakSet[Any]]:
    """The custom functions there are, by the code of their forward."""
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
