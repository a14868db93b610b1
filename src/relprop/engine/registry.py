"""The register: torch function -> family and handler. `register` fills it, for relprop and for users.

A family is declared once, with its default handler. The order of registrations does not matter: a function registered
by its own name is never overwritten by a spelling of another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from relprop.engine.spelling import Function, Spelling, spellings, writes
from relprop.engine.traits import EVERY_TRAIT, ROLE_NAMES
from relprop.errors import InputError
from relprop.rules.base import EVERYTHING
from relprop.signatures import public
from relprop.torch_private.names import SPACES, aten_name

SILENT = "silent"
REFUSED = "refused"
CUSTOM = "custom function"
"""The family of autograd functions that nobody registered."""
Handler = Callable[..., Any]
Apart = Callable[[tuple, dict, list[Any], Any], bool]
"""A test of whether a call keeps samples apart, from its arguments, its live operands and a result (`engine.rows`)."""


MAIN = Spelling()


NO_TRAITS: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Family:
    """A kind of operation: its default handler, and what relevance does there by default."""

    name: str
    handler: Handler | None
    says: str


class Handlers(NamedTuple):
    """What answers a call. Each is None where the operation has none of its own.

    Attributes:
        own: propagates relevance; None for the handler of the family.
        in_place: writes into the first operand.
        answer: answers in place of torch's function, for operations that carry no relevance.
        weight: gives the weight of an opaque layer.
    """

    own: Handler | None = None
    in_place: Handler | None = None
    answer: Handler | None = None
    weight: Handler | None = None


NO_HANDLERS = Handlers()


class CallTests(NamedTuple):
    """Tests of a call of the operation. Each is None where the answer is always no, or unknown; see `register`.

    `query` is no test: whether each call asks for the shape, type or device of its operands, never for their numbers.
    """

    apart: Apart | None = None
    overwrites: Callable[[tuple], bool] | None = None
    other_kernel: Callable[[Any], bool] | None = None
    sums: Callable[[tuple, dict], bool] | None = None
    query: bool = False


NO_TESTS = CallTests()


@dataclass(frozen=True)
class Entry:
    """What the register knows of one spelling of one operation; see `register`."""

    function: Function
    family: str
    handlers: Handlers = NO_HANDLERS
    spelling: Spelling = MAIN
    reason: str = ""
    traits: frozenset[str] = NO_TRAITS
    gives: tuple[tuple[str, Any], ...] = ()
    on_constants: bool = False
    decomposes: bool = False
    tests: CallTests = NO_TESTS

    @cached_property
    def handler(self) -> Handler:
        found = self.handlers.own or FAMILIES[self.family].handler
        if found is None:
            raise InputError(
                f"family {self.family!r} has no default handler, and {self.function!r} has none of its own."
            )
        return found


TABLE: dict[Function, Entry] = {}
FAMILIES: dict[str, Family] = {}
_NAMEABLE = EVERYTHING | {SILENT, REFUSED}


def declare(name: str, handler: Handler | None, says: str) -> None:
    """Declares a family.

    Args:
        name: the name by which composites give it rules.
        handler: the default handler of its operations; None if each must have its own.
        says: what relevance does there without a rule, for the documentation.
    """
    if name in FAMILIES:
        raise InputError(f"the family {name!r} is declared already.")
    FAMILIES[name] = Family(name, handler, says)


def native(call: Any, *args: Any, **kwargs: Any) -> Any:
    """Runs the operation unchanged: its own gradient is the rule."""
    return call()


@public("relprop.register")
def register(
    *functions: Function,
    family: str,
    handler: Handler | None = None,
    only: bool = False,
    replace: bool = False,
    reason: str = "",
    weight: Callable[..., Any] | None = None,
    traits: Iterable[str] = (),
    gives: Mapping[str, Any] | None = None,
    in_place: Handler | None = None,
    on_constants: bool = False,
    decomposes: bool = False,
    answer: Handler | None = None,
    apart: Apart | None = None,
    overwrites: Callable[[tuple], bool] | None = None,
    other_kernel: Callable[[Any], bool] | None = None,
    sums: Callable[[tuple, dict], bool] | None = None,
) -> None:
    """Tells the engine how relevance passes an operation.

    Args:
        *functions: torch functions, custom operators (`torch.ops.mine.op`), or `torch.autograd.Function` classes (or
            their `apply`).
        family: what kind of operation it is: "structure" (linear in its live operands: the native gradient is exact),
            "activation" (elementwise), "linear" (a weighted layer, linear in the one operand that carries relevance),
            "product", "selection", "silent" (carries no relevance), or another family that composites name.
        handler: a function `(call, *args, **kwargs) -> output`, if the family's default does not fit. It returns the
            operation's own value, whose gradient is `G`; `call()` runs the operation itself. `norm`, `division`, `conv`,
            `bilinear`, `batch_norm` and `recurrent` have no default, so their operations need a handler.
        only: register this function alone, not its other spellings (method, operator, in-place).
        replace: overwrite an existing registration. Without it a second registration is refused.
        reason: for family "refused": why, and what to do instead.
        weight: for family "linear": a function of the operation's arguments that returns its weight (out, in), or
            weight and bias. Only rules that need the weight call it, in the backward pass; without it they are refused.
        traits: what the operation does to the entries of its operand, such as "scales" (Extending lists them). They
            decide which roles of the operand its result keeps. Where several operands carry relevance, roles pass only
            by "moves entries", if all operands have them, or if "of the first operand" is among the traits.
        gives: the roles that its results get, with their values: `{"statistic": True}`, or `{"gate": 2}` for a gate
            like a sigmoid and `{"gate": 1}` for one like another activation.
        in_place: a handler for the spellings that write into the first operand. It returns `NotImplemented` if the
            result must be computed as a new tensor and copied back.
        on_constants: whether the handler is also called when no operand carries relevance.
        decomposes: whether the handler runs the visible steps that the operation stands for. Rules act on these alone.
        answer: for family "silent": a function that answers in the operation's place.
        apart: a function `(args, kwargs, live, result) -> bool` that tells by the arguments whether the operation keeps
            samples apart, each in its own rows along the first axis. Where nothing tells, the backward pass is measured.
            It is not needed for activations, nor for operations whose traits say that each entry stands by itself.
        overwrites: a function `(args) -> bool` that tells by the arguments of a write whether it gives every entry of
            the first operand the value of the last one.
        other_kernel: a function `(call) -> bool` that tells whether torch computes this call by another kernel in the
            model itself, where parameters require a gradient. The result then gets the numbers of the model's own call.
        sums: a function `(args, kwargs) -> bool` that tells whether this call "reduces", for operations of which only some
            do, as a scatter with `reduce="sum"`.

    Raises:
        InputError: the family is unknown or lacks a default handler, a trait or role does not exist, or a function is
            registered already.
    """
    if family not in _NAMEABLE:
        raise InputError(f"unknown family {family!r}; one of: {', '.join(sorted(EVERYTHING | {SILENT}))}.")
    if handler is None and family in FAMILIES and FAMILIES[family].handler is None:
        raise InputError(f"family {family!r} has no default handler: pass handler=(call, *args, **kwargs) -> output.")
    if handler is not None and not callable(handler):
        raise InputError(f"handler is a function (call, *args, **kwargs) -> output; got {handler!r}.")
    if family == REFUSED and not reason:
        raise InputError('family "refused" needs reason=, which says why, and what to do instead.')
    if weight is not None and family != "linear":
        raise InputError(f'weight= is for family "linear"; got family {family!r}.')
    _check_facts(traits, gives)
    given_roles = tuple((gives or {}).items())
    for given in functions:
        if not callable(given):
            raise InputError(
                f"register takes functions, such as torch.ops.mine.op or a torch.autograd.Function; got {given!r}."
            )
        function = owner(given)
        if not replace and function in TABLE and TABLE[function].function is function:
            raise InputError(
                f"{function!r} is registered already, in family {TABLE[function].family!r}; pass replace=True."
            )
        names: list[tuple[Function, Spelling]] = (
            [(function, Spelling(inplace=writes(function)))]
            if only or isinstance(function, type)
            else list(spellings(function))
        )
        for name, spelling in names:
            if replace or name not in TABLE or name is function:
                TABLE[name] = Entry(
                    function, family, Handlers(handler, in_place, answer, weight), spelling, reason,
                    frozenset(traits), given_roles, on_constants, decomposes,
                    CallTests(apart, overwrites, other_kernel, sums),
                )  # fmt: skip


def _check_facts(traits: Any, gives: Any) -> None:
    """Refuses traits and roles that do not exist."""
    if isinstance(traits, str):
        raise InputError(f"traits is a set of names: write traits={{{traits!r}}}.")
    if unknown := set(traits) - EVERY_TRAIT.keys():
        raise InputError(f"there is no trait {sorted(unknown)[0]!r}; there are: {', '.join(EVERY_TRAIT)}.")
    if gives is None:
        return
    if not isinstance(gives, Mapping):
        raise InputError(f"gives maps names of roles to values, as in {{'statistic': True}}; got {gives!r}.")
    if strangers := set(gives) - ROLE_NAMES:
        raise InputError(f"there is no role {sorted(strangers)[0]!r}; there are: {', '.join(sorted(ROLE_NAMES))}.")


def queries(*functions: Function) -> None:
    """Notes that these silent operations ask for the shape, type or device of their operands, never for their numbers."""
    for function in functions:
        TABLE[function] = dataclasses.replace(TABLE[function], tests=CallTests(query=True))


def owner(function: Function) -> Function:
    """The class whose `apply` is given; else the function itself."""
    holder = getattr(function, "__self__", None)
    bound = isinstance(holder, type) and getattr(function, "__name__", "") == "apply"
    return holder if bound else function  # type: ignore[return-value]


def lookup(function: Function) -> Entry | None:
    """The entry of a function under any of its names; None if there is none."""
    try:
        entry = TABLE.get(function)
    except TypeError:
        return None
    if entry is None and (name := aten_name(function)) is not None:
        import torch

        for space in (torch, torch.nn.functional, torch.Tensor, *SPACES):
            found = getattr(space, name, None)
            if found is not None and found in TABLE:
                return TABLE[found]
    return entry
