"""The arguments of custom autograd functions, as they are read off the stack: every shape that a forward may have."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.amp import custom_fwd
from torch.autograd import Function

import relprop
from relprop.errors import UnsupportedOperationError
from relprop.torch_private import custom

HERE = ["forward"] if custom.APPLY is None else ["apply", "forward"]


@pytest.fixture(params=HERE, autouse=True)
def stack(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where arguments are read: up to torch 2.13 from the frame of `apply`, since 2.14 from that of the forward."""
    if request.param == "forward":
        monkeypatch.setattr(custom, "APPLY", None)
    return request.param


def unwanted(ctx: Any, *g: Any) -> Any:
    raise AssertionError("this function's own backward pass is not wanted")


class Plain(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float = 2.0, power: int = 3) -> Tensor:
        return factor * x**power

    backward = staticmethod(unwanted)


class Rebound(Function):
    """Its names for arguments stand for other things after the first operations."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float | None) -> Tensor:
        x = x.contiguous()
        factor = (1.0 if factor is None else factor) * x.shape[-1]
        x = x**3
        del ctx
        return factor * x

    backward = staticmethod(unwanted)


class Several(Function):
    @staticmethod
    def forward(ctx: Any, *factors: Any) -> Tensor:
        first, *rest = factors
        y = first**3
        for factor in rest:
            y = y * factor
        return y

    backward = staticmethod(unwanted)


class Enclosed(Function):
    """Its argument is a variable of an inner function."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        def scaled(t: Tensor) -> Tensor:
            return factor * t * x

        return scaled(x * x)

    backward = staticmethod(unwanted)


class Cast(Function):
    """A decorator's frame comes first, and its code serves many functions."""

    @staticmethod
    @custom_fwd(device_type="cpu")
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        return factor * x**3

    backward = staticmethod(unwanted)


class Apart(Function):
    @staticmethod
    def forward(x: Tensor, factor: float = 2.0) -> Tensor:
        return factor * x**3

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
        ctx.factor = inputs[1]

    backward = staticmethod(unwanted)


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        return function(*args)

    return call


class ApartDecorated(Apart):
    @staticmethod
    @decorated
    def forward(x: Tensor, factor: float = 2.0) -> Tensor:
        return factor * x**3


class Inherited(Apart):
    """The same code as its base class has."""


def made(factor: float) -> type[Function]:
    """Two such classes share the code of their forward, and close over other numbers."""

    class Made(Function):
        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return factor * x**3

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
            pass

        backward = staticmethod(unwanted)

    return Made


TWO, FIVE = made(2.0), made(5.0)


class Nested(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        return Plain.apply(x, 1.0) * factor

    backward = staticmethod(unwanted)


class Early(Function):
    """An argument's name is bound anew before any operation could be seen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float | None = None, power: int = 3) -> Tensor:
        factor = factor or 2.0
        return factor * x.clone() ** power

    backward = staticmethod(unwanted)


class EarlyApart(Function):
    @staticmethod
    def forward(x: Tensor, factor: float) -> Tensor:
        factor = factor + 1
        return factor * x.clone() ** 3

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
        pass

    backward = staticmethod(unwanted)


class EarlyMany(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *rest: Any) -> Tensor:
        rest = rest[0] + 1
        return rest * x.clone() ** 3

    backward = staticmethod(unwanted)


CASES: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "plain": (lambda x: Plain.apply(x, 2.0, 3), 2),
    "defaults": (lambda x: Plain.apply(x), 2),
    "rebound": (lambda x: Rebound.apply(x, None), 4),
    "bound anew at once": (lambda x: Early.apply(x) + Early.apply(x, 3.0) + Early.apply(x, 4.0, 3), 9),
    "bound anew at once, apart": (lambda x: EarlyApart.apply(x, 1.0) + EarlyApart.apply(x, 2.0), 5),
    "bound anew at once, of many": (lambda x: EarlyMany.apply(x, 1.0, 7) + EarlyMany.apply(x, 2.0), 5),
    "several": (lambda x: Several.apply(x, 2.0, 3.0), 6),
    "enclosed": (lambda x: Enclosed.apply(x, 2.0), 2),
    "cast": (lambda x: Cast.apply(x, 3.0), 3),
    "apart": (lambda x: Apart.apply(x, 3.0), 3),
    "apart, default": (lambda x: Apart.apply(x), 2),
    "apart, decorated": (lambda x: ApartDecorated.apply(x, 3.0), 3),
    "inherited": (lambda x: Inherited.apply(x, 3.0) + Apart.apply(x), 5),
    "made in a function": (lambda x: TWO.apply(x) + FIVE.apply(x), 7),
    "nested": (lambda x: Nested.apply(x, 2.0), 2),
    "one after another": (lambda x: Plain.apply(Plain.apply(x, 1.0, 1), 2.0), 2),
    "together": (lambda x: sum(Plain.apply(x, float(n)) for n in range(1, 5)), 10),
    "met in another order": (lambda x: (lambda a, b, c: c * 1 + b * 10 + a * 100)(*(Plain.apply(x, n) for n in (1, 2, 3))), 123),
    "the same again": (lambda x: Apart.apply(x) + Apart.apply(x) + Apart.apply(x, 3.0), 7),
    "without gradients, too": (lambda x: Plain.apply(x, quietly(3.0)), 3),
}  # fmt: skip


def quietly(factor: float) -> float:
    with torch.no_grad():
        return float(Plain.apply(torch.tensor([factor]), 1.0, 1))


@pytest.mark.parametrize("name", CASES)
def test_the_arguments_are_those_that_were_given(name: str) -> None:
    """The steps are followed, which needs the arguments: of `f x³` all relevance arrives, as of a secant."""
    function, factor = CASES[name]
    x = torch.randn(2, 4).double()
    found = relprop.attribute(lambda x: function(x).sum(1), x, composite="zero")
    torch.testing.assert_close(found.values, factor * x**3)
    assert not found.unknown


class Doubtful(Function):
    """At its first operation two tuples begin with x: what torch was given, and what the operation is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        factor = factor + 1
        return factor * x**3

    backward = staticmethod(unwanted)


class Lost(Function):
    """All names of its arguments stand for something else before any operation could be seen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx, factor, x = x, ctx, factor + 1
        return x * ctx**3

    backward = staticmethod(unwanted)


@pytest.mark.parametrize("function", [Doubtful, Lost])
def test_arguments_that_cannot_be_known_are_never_guessed(function: type[Function], stack: str) -> None:
    x = torch.randn(2, 4).double()
    model = lambda x: function.apply(x, 1.0).sum(1)  # noqa: E731
    if stack == "apply":
        torch.testing.assert_close(relprop.attribute(model, x, composite="zero").values, 2 * x**3)
    else:
        with pytest.raises(
            UnsupportedOperationError, match=r"autograd\.Function, and its arguments are not known.*in one line"
        ):
            relprop.attribute(model, x, composite="zero")


def test_a_decorated_function_of_the_model_is_no_custom_function() -> None:
    """A decorator wraps many functions in one code; a custom function among them does not change what others are."""

    @decorated
    @torch.no_grad()
    def table(x: Tensor) -> Tensor:
        return x * 0 + 2

    x = torch.randn(2, 4).double()
    found = relprop.attribute(lambda x: (ApartDecorated.apply(x, 2.0) * table(x)).sum(1), x, composite="zero")
    torch.testing.assert_close(found.values, 4 * x**3)


def test_a_class_that_comes_later() -> None:
    x = torch.randn(2, 4).double()
    for factor in (2.0, 3.0):
        late = made(factor)
        found = relprop.attribute(lambda x, late=late: late.apply(x).sum(1), x, composite="zero")
        torch.testing.assert_close(found.values, factor * x**3)


def test_classes_are_not_kept() -> None:
    late = made(4.0)
    kept = weakref.ref(late)
    assert any(late in functions for functions in custom._forwards().values())
    del late
    made(1.0)
    custom._forwards()
    gc.collect()
    assert kept() is None


def test_without_the_base_of_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the classes are found by going through them."""
    monkeypatch.setattr(custom, "_CONTEXTS", None)
    x = torch.randn(2, 4).double()
    found = relprop.attribute(lambda x: Apart.apply(x).sum(1), x, composite="zero")
    torch.testing.assert_close(found.values, 2 * x**3)
    assert {Plain, Apart, Inherited} <= set(custom._all_functions())
