"""Errors name the public function that was called. A call that does not fit it gets an error that says what fits."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from relprop.errors import ArgumentError, RelpropError

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C")


def public(name: str, hints: Mapping[str, str] | None = None) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorates a public function, whose errors then name it. A call that succeeds costs one more Python call.

    Args:
        name: the name as users write it. One that starts with a dot is a method's: the class name goes before it.
        hints: advice on arguments that other functions have, by name; under "", on too many positional arguments.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return function(*args, **kwargs)
            except RelpropError as error:
                error.called_as(_called(name, args))
                raise
            except TypeError:
                unfit = _unfit(function, args, kwargs, hints or {})
                if unfit is None:
                    raise  # the call fits: the error came from inside the function
                unfit.called_as(_called(name, args))
                raise unfit from None

        vars(call)["called"] = name
        return call

    return decorate


def public_class(name: str, hints: Mapping[str, str] | None = None) -> Callable[[type[C]], type[C]]:
    """Decorates a public class, so that errors of its constructor name it, as `public` does for a function."""

    def decorate(cls: type[C]) -> type[C]:
        cls.__init__ = public(name, hints)(cls.__init__)  # type: ignore[method-assign]
        return cls

    return decorate


def public_name(function: Callable[..., Any]) -> str:
    """The name that errors call a function by; its own name if it is not decorated."""
    name: str = vars(function).get("called", function.__name__)
    return name


def check_options(given: Iterable[str], known: Iterable[str], hints: Mapping[str, str] | None = None) -> None:
    """Refuses keyword arguments that the function they are passed on to does not have.

    Raises:
        ArgumentError: a name is not among the known ones.
    """
    known = list(dict.fromkeys(known))
    for name in given:
        if name not in known:
            raise ArgumentError(unknown(name, known, hints or {}))


def unknown(name: str, known: Iterable[str], hints: Mapping[str, str]) -> str:
    """The message about an argument that does not exist."""
    known = list(known)
    near = difflib.get_close_matches(name, known, 2)
    meant = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    hint = f" {hints[name]}" if name in hints else ""
    return f"there is no argument {name!r}.{meant}{hint} There are: {', '.join(known)}."


def parameters(function: Callable[..., Any]) -> list[str]:
    """The names of a function's arguments, without `*args` and `**kwargs`."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [name for name, p in inspect.signature(function).parameters.items() if p.kind not in kinds]


def _called(name: str, args: tuple[Any, ...]) -> str:
    return f"{type(args[0]).__name__}{name}" if name.startswith(".") and args else name


def _unfit(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], hints: Mapping[str, str]
) -> ArgumentError | None:
    """The error for a call that does not fit a function; None if it fits."""
    signature = inspect.signature(function)
    own = [p for p in signature.parameters.values() if p.name != "self"]
    names = [p.name for p in own]
    open_ended = any(p.kind is p.VAR_KEYWORD for p in own)
    strange = [] if open_ended else [name for name in kwargs if name not in names]
    if strange:
        return ArgumentError(unknown(strange[0], names, hints))
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        why = str(error)
    else:
        return None
    usual = ", ".join(_written(p) for p in own if p.kind is p.POSITIONAL_OR_KEYWORD or p.kind is p.POSITIONAL_ONLY)
    if "too many positional" in why:
        count, more = (
            len(args) - (len(signature.parameters) - len(own)),
            [p.name for p in own if p.kind is p.KEYWORD_ONLY],
        )
        named = f" Name the others, as in {more[0]}=..." if more else ""
        hint = f" {hints['']}" if "" in hints else ""
        return ArgumentError(
            f"{count} arguments were given without a name; these go without one: {usual}.{named}{hint}"
        )
    rest = [_written(p) for p in own if p.kind is p.KEYWORD_ONLY]
    needed = [name for name in rest if "=" not in name]
    shown = ", ".join(
        [*([usual] if usual else []), *(f"{name}=..." for name in needed), *(["..."] if rest[len(needed) :] else [])]
    )
    return ArgumentError(f"{why}. It is called with ({shown}).")


def _written(parameter: inspect.Parameter) -> str:
    default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
    return f"{parameter.name}{default}"
