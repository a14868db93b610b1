"""The protocol of every kind of result. The code that shows, writes, reads or reports results uses nothing else.

A new kind is a class in one file, such as

    @loadable
    @dataclass(kw_only=True)
    class Saliency(Made):
        kind: ClassVar[str] = "saliency"
        values: Tensor

with the methods of `Result`. `Made` inherits defaults for some of them from `Outputs`.
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
    """The content of a result's files for other programs.

    Attributes:
        data: the content of a `.json` file.
        arrays: the arrays of an `.npz` file.
        about: plain data that an `.npz` file holds beside the arrays.
    """

    data: dict[str, Any]
    arrays: dict[str, Tensor]
    about: dict[str, Any]


@runtime_checkable
class Result(Protocol):
    """A result of any kind.

    Attributes:
        kind: the name of its kind in files.
        composite: the composite that acted.
        rules: each place for which a rule was looked up, and the rule that acted.
        unknown: operations whose native gradient was used, with their number of calls.
        model: the name of the model that was explained.
        ledger: what absorbed the residual.
        notices: what its reader should know.
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
        """The number of samples. Each is drawn by itself."""

    def alone(self, sample: int) -> Result:
        """The result of one sample."""

    def views(self, options: Options) -> list[View]:
        """Its drawings, of at most `options.most` samples.

        Raises:
            InputError: the options do not fit this result.
        """

    def rows(self) -> list[Row]:
        """The numbers of each score that it explains."""

    def subject(self, n: int) -> str:
        """What the n-th score is, in words."""

    def heading(self) -> str:
        """What the whole result explains, in a few words, for file names."""

    def facts(self, n: int) -> dict[str, Any]:
        """Plain data about the n-th score, for programs, in addition to its numbers."""

    def given(self) -> Any:
        """The model's input, or None if it is unknown. A report shows the input that several results share once."""

    def kept(self) -> dict[str, Any]:
        """The tensors and plain data, by name, that a folder stores in addition to how the result was made.

        `save` may leave out the entry `inputs`; it then stores None in its place.
        """

    def exported(self) -> Exported:
        """The content of the files for other programs."""

    def save(self, path: str | PathLike[str], **options: Any) -> None:
        """Writes it to a file or a folder. `Outputs` defines this method and the next three."""

    def to_image(self, *, scale: float = 1.0, **options: Any) -> Image.Image:
        """A picture of it."""

    def to_svg(self, **options: Any) -> str:
        """A drawing of it."""

    def to_html(self, title: str = "Relevance", **options: Any) -> str:
        """A page about it."""

    @classmethod
    def restored(cls, content: dict[str, Any], made: dict[str, Any], ledger: Callable[[int], Ledger]) -> Result:
        """Rebuilds the result from the content of a folder.

        Args:
            content: what `kept` returned, and perhaps more. It may come from anyone, so it must be checked.
            made: how it was made: composite, rules, unknown, model and notices.
            ledger: makes the ledger for a given number of scores.

        Raises:
            ValueError: the content is not that of such a result.
        """


R = TypeVar("R", bound=Result)
KINDS: dict[str, type[Result]] = {}
"""The classes of results by the names of their kinds in files."""


def loadable(made: type[R]) -> type[R]:
    """Decorates the class of a kind of result, so that `relprop.load` reads folders of that kind.

    Raises:
        ValueError: another class has that kind. The same class may be defined again, as in a notebook.
    """
    known = KINDS.get(made.kind, made)
    if (known.__module__, known.__qualname__) != (made.__module__, made.__qualname__):
        raise ValueError(f"two kinds of results are called {made.kind!r}.")
    KINDS[made.kind] = made
    return made
