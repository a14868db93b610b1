"""What any result can be turned into: pictures, pages, files.

What draws and writes is imported when a method is called: `import relprop` stays free of what drawing needs.
"""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor

from relprop.errors import InputError
from relprop.results.protocol import Exported, Result
from relprop.signatures import check_options, parameters, public
from relprop.trees import leaves

if TYPE_CHECKING:
    from PIL import Image


def _check_scale(scale: Any) -> None:
    if not isinstance(scale, (int, float)) or isinstance(scale, bool) or not 0 < scale < float("inf"):
        raise InputError(f"scale must be a number above 0, such as 2 for twice as many pixels; got {scale!r}.")


class Outputs:
    """The methods of results that draw and write them, and what most kinds of results answer alike (see `Result`).

    The former all take the keyword arguments of `relprop.rendering.Options`: `kind`, `names`, `tokens`, `pictures`, `rate`,
    `percentile`, `limit`, `shared`, `palette`, `most`, `beside`, `merge`, `room`.
    """

    @property
    def samples(self) -> int:
        """How many samples it has, each of which is drawn by itself."""
        return 1

    def alone(self, sample: int) -> Any:
        """The result of one sample."""
        return self

    def heading(self) -> str:
        """What all of it explains, in few words: files are named so."""
        return self._result.subject(0)

    def facts(self, n: int) -> dict[str, Any]:
        """What a program is told of the n-th score beside its numbers, as plain data."""
        return {}

    def given(self) -> Any:
        """What the model was given: results of one input are reported together. None where it is not known."""
        return None

    def exported(self) -> Exported:
        """What files that others read hold of it."""
        kept = self._result.kept()
        found = [leaf for name, part in kept.items() for leaf in leaves(part, name)]
        arrays = {path: part for path, part in found if isinstance(part, Tensor)}
        named = {path.partition("[")[0] for path in arrays}
        return Exported(kept, arrays, {name: part for name, part in kept.items() if name not in named})

    @public(".show")
    def show(self, where: str | None = None, **options: Any) -> None:
        """Shows it in the notebook, in the terminal, or in the browser.

        Args:
            where: "notebook", "terminal" or "browser"; None takes the notebook if this is one, else the terminal.
            **options: see `relprop.rendering.Options`.

        Raises:
            InputError: the options do not fit this result.
        """
        from relprop.results.show import show

        self._check(options, "where")
        show(self._result, where, **options)

    @public(".save")
    def save(self, path: str | PathLike[str], **options: Any) -> None:
        """Writes it to a file, or into a folder that `relprop.load` reads.

        Written whole or not at all: an interruption leaves no half file.

        Args:
            path: `.png`, `.svg`, `.pdf` or `.html` draw it; `.json`, `.npz` and `.csv` hold the numbers; a path without
                a suffix, or one that ends in a slash, is a folder with tensors (safetensors) and a manifest (JSON).
            **options: see `relprop.rendering.Options`.

        Raises:
            InputError: there is no format of that suffix, or the options do not fit.
        """
        from relprop.results.files.save import save

        self._check(options, "path", "scale", "title", "inputs")
        if not isinstance(path, (str, PathLike)):
            raise InputError(f"path is where the result goes, as in 'map.png' or 'folder/'; got {path!r}.")
        _check_scale(options.get("scale", 1.0))
        save(self._result, path, **options)

    @public(".to_image")
    def to_image(self, *, scale: float = 1.0, **options: Any) -> Image.Image:
        """Draws it as a Pillow image, `scale` pixels for each pixel of the drawing."""
        from relprop.rendering.view import Options
        from relprop.results.picture import drawing

        self._check(options, "scale")
        _check_scale(scale)
        return drawing(self._result, Options(**options)).to_image(scale)

    @public(".to_svg")
    def to_svg(self, **options: Any) -> str:
        """Draws it as SVG."""
        from relprop.rendering.view import Options
        from relprop.results.picture import drawing

        return drawing(self._result, Options(**options)).to_svg()

    @public(".to_html")
    def to_html(self, title: str = "Relevance", **options: Any) -> str:
        """Writes it as one page of HTML that holds all it shows; no script, nothing loaded."""
        from relprop.rendering.view import Options
        from relprop.results.report import report_page

        self._check(options, "title")
        return report_page([self._result], title=title, options=Options(**options))

    @public(".plot")
    def plot(self, ax: Any = None, sample: int = 0, **options: Any) -> Any:
        """Draws one sample on an axes of matplotlib, and returns the axes (needs matplotlib).

        Args:
            ax: the axes; None takes the current ones.
            sample: which sample.
            **options: see `relprop.rendering.Options`.
        """
        from relprop.results.plot import plot

        self._check(options, "ax", "sample")
        if ax is not None and not hasattr(ax, "barh"):
            raise InputError(f"ax must be an axes of matplotlib, or None for the current ones; got {ax!r}.")
        return plot(self._result, ax, sample, **options)

    def _repr_html_(self) -> str | None:
        """What a notebook shows of it; without Pillow, its text."""
        try:
            from relprop.results.show import fragment_of
        except ModuleNotFoundError:
            return None
        return fragment_of(self._result, most=4)

    @staticmethod
    def _check(options: dict[str, Any], *own: str) -> None:
        """Refuses options that no drawing has."""
        from relprop.rendering.view import ELSEWHERE, Options

        check_options(options, [*own, *parameters(Options)], ELSEWHERE)

    @property
    def _result(self) -> Result:
        return cast(Result, self)
