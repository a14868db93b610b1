"""What every kind of result answers. Whoever shows, writes, reads or reports results asks for nothing else.

A new kind is a class in one file, such as

    @loadable
    @dataclass(kw_only=True)
    class Saliency(Made):
        kind: ClassVar[str] = "saliency"
        values: Tensor

with the methods of `Result`; `Outputs`, from which `Made` inherits, has defaults for some of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, runtime_checkable

from torch import Tensor

from relprop.composites import Composite, Place
from relprop.results.identity import Identity
from relprop.results.ledger import Ledger
from relprop.rules import Rule

if TYPE_CHECKING:
    from PIL import Image

    from relprop.rendering.view import Options, Row, View


@dataclass(frozen=True)
class Exported:
    """What a result gives to files that others read.

    Attributes:
        data: what a `.json` file holds.
        arrays: the arrays of an `.npz` file.
        about: what is said beside them there.
    """

    data: dict[str, Any]
    arrays: dict[str, Tensor]
    about: dict[str, Any]


@runtime_checkable
class Result(Protocol):
    """A result of any kind.

    Attributes:
        kind: its name in files.
        composite: the composite that acted.
        rules: each place a rule was asked for, and the rule that acted.
        unknown: operations whose native gradient was used, with their number of calls.
        model: what was explained, by name.
        ledger: what absorbed the residual.
        notices: what should be known of it.
    """

    kind: ClassVar[str]
    composite: Composite
    rules: list[tuple[Place, Rule | None]]
    unknown: dict[str, int]
    model: Identity | None
    ledger: Ledger
    notices: list[str]

    @property
    def samples(self) -> int:
        """How many samples it has, each of which is drawn by itself."""

    def alone(self, sample: int) -> Result:
        """The result of one sample."""

    def views(self, options: Options) -> list[View]:
        """What is drawn of it, at most `options.most` samples.

        Raises:
            InputError: the options do not fit it.
        """

    def rows(self) -> list[Row]:
        """The numbers of each score that it explains."""

    def subject(self, n: int) -> str:
        """What its n-th score is, in words."""

    def heading(self) -> str:
        """What all of it explains, in few words: files are named so."""

    def facts(self, n: int) -> dict[str, Any]:
        """What a program is told of the n-th score beside its numbers, as plain data."""

    def given(self) -> Any:
        """What the model was given: results of one input are reported together. None where it is not known."""

    def kept(self) -> dict[str, Any]:
        """What a folder keeps of it beside how it was made: tensors and plain data under names.

        What stands under the name `inputs` may be left out: None is kept in its place.
        """

    def exported(self) -> Exported:
        """What files that others read hold of it."""

    def save(self, path: str | PathLike[str], **options: Any) -> None:
        """Writes it to a file or a folder; this and the next three are those of `Outputs`."""

    def to_image(self, *, scale: float = 1.0, **options: Any) -> Image.Image:
        """A picture of it."""

    def to_svg(self, **options: Any) -> str:
        """A drawing of it."""

    def to_html(self, title: str = "Relevance", **options: Any) -> str:
        """A page about it."""

    @classmethod
    def restored(cls, content: dict[str, Any], made: dict[str, Any], ledger: Callable[[int], Ledger]) -> Result:
        """The result again, from what a folder held.

        Args:
            content: what `kept` gave, and perhaps more; nobody vouches for it.
            made: how it was made: composite, rules, unknown, model and notices.
            ledger: makes its ledger, given for how many scores.

        Raises:
            ValueError: the content is not that of such a result.
        """


R = TypeVar("R", bound=Result)
KINDS: dict[str, type[Result]] = {}
"""The kinds of results by their names in files."""


def loadable(made: type[R]) -> type[R]:
    """Decorates the class of a kind of result: folders that hold one are loaded.

    Raises:
        ValueError: there is another class of that kind. The same one may be made anew, as a notebook does.
    """
    known = KINDS.get(made.kind, made)
    if (known.__module__, known.__qualname__) != (made.__module__, made.__qualname__):
        raise ValueError(f"two kinds of results are called {made.kind!r}")
    KINDS[made.kind] = made
    return made
