"""Places in a network, and the matchers that name them: by family, position, module type, path, or predicate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from relprop.errors import CompositeError
from relprop.rules.base import EVERYTHING, WEIGHTED
from relprop.signatures import public


@dataclass
class Place:
    """One call of one operation.

    Attributes:
        family: the family of the operation ("conv", "activation", ...).
        function: the torch function, in its main spelling.
        module: the innermost module whose forward made the call, or None. Matchers and predicates see it. Places in a
            result have None, so that a result does not keep the network alive.
        kind: that module's class by name, such as "torch.nn.modules.conv.Conv2d"; "" where there is no module.
        paths: all paths under which that module is known ("" is the model itself).
        index: how many weighted layers ran before this one; None if this is not a weighted layer.
        last: whether no weighted layer follows; None while the forward pass runs.
        order: how many operations with a place ran before this one.
        merged: whether the operation and the weighted layer before it form one linear map, under that layer's rule.
        first: whether this is the first weighted layer.
        name: the name of the function.
    """

    family: str
    function: Callable[..., Any]
    module: nn.Module | None = None
    paths: tuple[str, ...] = ()
    index: int | None = None
    last: bool | None = None
    order: int = 0
    merged: bool = False
    kind: str = ""

    def merge(self) -> None:
        """Notes that the operation and the weighted layer before it form one linear map."""
        self.merged = True

    def settle(self, layers: int) -> None:
        """Notes whether this is the last of so many weighted layers, when the forward pass has ended."""
        if self.last is None:
            self.last = self.index == layers - 1

    def release(self) -> Place:
        """Lets go of the module, which the paths and the class still name."""
        self.module = None
        return self

    @property
    def first(self) -> bool:
        return self.index == 0

    @property
    def name(self) -> str:
        return getattr(self.function, "__name__", str(self.function))

    def __str__(self) -> str:
        where_ = f"module '{self.paths[0]}'" if self.paths and self.paths[0] else "the model's own forward"
        return f"{self.name} ({self.family}) in {where_}"


def kind_of(module: nn.Module) -> str:
    """A module's class by name."""
    kind = type(module)
    return f"{kind.__module__}.{kind.__qualname__}"


def acting(place: Place, rule: Any) -> str:
    """The text for what acts at a place, in tables: its rule, "merged" (with the layer before it), or "default"."""
    if rule is not None:
        return repr(rule)
    return "merged" if place.merged else "default"


class Matcher:
    """Names places. `match` returns True or False, or None if only the end of the forward pass can tell."""

    def match(self, place: Place) -> bool | None:
        raise NotImplementedError

    def __and__(self, other: Any) -> Matcher:
        return Both(self, matcher(other))

    def __rand__(self, other: Any) -> Matcher:
        return Both(matcher(other), self)


@dataclass(frozen=True)
class FamilyMatcher(Matcher):
    family: str

    def match(self, place: Place) -> bool | None:
        return place.family == self.family

    def __str__(self) -> str:
        return f"every {self.family}"


@dataclass(frozen=True)
class First(Matcher):
    def match(self, place: Place) -> bool | None:
        return place.first

    def __str__(self) -> str:
        return "first weighted layer"


@dataclass(frozen=True)
class Last(Matcher):
    def match(self, place: Place) -> bool | None:
        return False if place.index is None else place.last

    def __str__(self) -> str:
        return "last weighted layer"


@dataclass(frozen=True)
class Path(Matcher):
    glob: str

    def match(self, place: Place) -> bool | None:
        return any(fnmatchcase(name, self.glob) for name in place.paths)

    def __str__(self) -> str:
        return f"module path {self.glob!r}"


@dataclass(frozen=True)
class Type(Matcher):
    type: type[nn.Module]

    def match(self, place: Place) -> bool | None:
        return isinstance(place.module, self.type)

    def __str__(self) -> str:
        return f"module type {self.type.__name__}"


@dataclass(frozen=True)
class Operation(Matcher):
    function: Callable[..., Any]

    def match(self, place: Place) -> bool | None:
        return place.function is self.function or _spelled_alike(place.function, self.function)

    def __str__(self) -> str:
        return f"operation {getattr(self.function, '__name__', self.function)}"


@dataclass(frozen=True)
class Where(Matcher):
    predicate: Callable[[Place], bool]

    def match(self, place: Place) -> bool | None:
        return bool(self.predicate(place))

    def __str__(self) -> str:
        return f"where {getattr(self.predicate, '__name__', self.predicate)}"


@dataclass(frozen=True)
class Both(Matcher):
    a: Matcher
    b: Matcher

    def match(self, place: Place) -> bool | None:
        answers = self.a.match(place), self.b.match(place)
        return False if False in answers else (None if None in answers else True)

    def __str__(self) -> str:
        return f"{self.a} and {self.b}"


first = First()
"""The first weighted layer in execution order."""
last = Last()
"""The last weighted layer in execution order."""


@public("relprop.path")
def path(glob: str) -> Path:
    """Modules whose path matches a glob, such as `path("features.*")`; `*` matches dots too.

    A call belongs to the innermost module whose forward makes it, under each of the module's paths.
    """
    if not isinstance(glob, str):
        raise CompositeError(f"glob must be a glob of module paths, as in path('features.*'); got {glob!r}.")
    return Path(glob)


@public("relprop.operation")
def operation(function: Callable[..., Any]) -> Operation:
    """One torch function, in all its spellings: `operation(torch.relu)` also names `F.relu` and `Tensor.relu_`."""
    if not callable(function):
        raise CompositeError(
            f"function must be a torch function, as in operation(torch.nn.functional.relu); got {function!r}."
        )
    return Operation(function)


def _spelled_alike(a: Callable[..., Any], b: Callable[..., Any]) -> bool:
    """Whether two functions are torch's own spellings of one operation, as `F.relu` and `Tensor.relu_` are."""
    return all((getattr(f, "__module__", None) or "torch").startswith("torch") for f in (a, b)) and _stem(a) == _stem(b)


def _stem(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", str(function)).strip("_")


@public("relprop.where")
def where(predicate: Callable[[Place], bool]) -> Where:
    """Places for which `predicate(place)` is true: `where(lambda place: place.index == 1)`.

    The predicate is called during the forward pass, when `place.last` is not known yet.
    """
    if not callable(predicate):
        raise CompositeError(
            f"predicate must be a function of a place, as in where(lambda place: place.family == 'conv'); got {predicate!r}."
        )
    return Where(predicate)


def matcher(key: Any) -> Matcher:
    """The matcher for a key as users write it: a matcher, a family's name, or a module type."""
    if isinstance(key, Matcher):
        return key
    if isinstance(key, type) and issubclass(key, nn.Module):
        return Type(key)
    if isinstance(key, str):
        if key in EVERYTHING:
            return FamilyMatcher(key)
        raise CompositeError(
            f"{key!r} is not a family of operations. Families: {', '.join(sorted(EVERYTHING))}. "
            f"For a module path write path({key!r})."
        )
    raise CompositeError(
        f"a composite's key is a family's name, first, last, path(glob), operation(function), where(predicate) or a "
        f"module type; got {key!r}."
    )


def families(place: Matcher) -> frozenset[str] | None:
    """The families that a matcher can name; None if that is not known beforehand."""
    if isinstance(place, FamilyMatcher):
        return frozenset({place.family})
    if isinstance(place, (First, Last)):
        return WEIGHTED
    return None


def parts(place: Matcher) -> list[Matcher]:
    """The simple matchers that a matcher is made of."""
    return parts(place.a) + parts(place.b) if isinstance(place, Both) else [place]
