"""What a result can be turned into: pictures, pages, files.

This is the one place where an inner package asks outer ones, `rendering` and `storage`: inside the methods, when
they are called. A result one cannot show is of no use, and `import relprop` stays free of what drawing needs.
tests/test_imports.py knows this exception and holds it to these methods.
"""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

from relprop.errors import InputError
from relprop.signatures import check_options, parameters, public

if TYPE_CHECKING:
    from PIL import Image


def _check_scale(scale: Any) -> None:
    if not isinstance(scale, (int, float)) or isinstance(scale, bool) or not 0 < scale < float("inf"):
        raise InputError(f"scale must be a number above 0, such as 2 for twice as many pixels; got {scale!r}.")


class Outputs:
    """The methods of results that draw and write them.

    All take the keyword arguments of `relprop.rendering.Options`: `kind`, `names`, `tokens`, `pictures`, `rate`,
    `percentile`, `limit`, `shared`, `palette`, `most`, `beside`, `merge`, `room`.
    """

    @public(".show")
    def show(self, where: str | None = None, **options: Any) -> None:
        """Shows it in the notebook, in the terminal, or in the browser.

        Args:
            where: "notebook", "terminal" or "browser"; None takes the notebook if this is one, else the terminal.
            **options: see `relprop.rendering.Options`.

        Raises:
            InputError: the options do not fit this result.
        """
        from relprop.rendering.show import show

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
        from relprop.storage import save

        self._check(options, "path", "scale", "title", "inputs")
        if not isinstance(path, (str, PathLike)):
            raise InputError(f"path is where the result goes, as in 'map.png' or 'folder/'; got {path!r}.")
        _check_scale(options.get("scale", 1.0))
        save(self._result, path, **options)

    @public(".to_image")
    def to_image(self, *, scale: float = 1.0, **options: Any) -> Image.Image:
        """Draws it as a Pillow image, `scale` pixels for each pixel of the drawing."""
        from relprop.rendering import Options, views

        self._check(options, "scale")
        _check_scale(scale)
        return views.drawing(self._result, Options(**options)).to_image(scale)

    @public(".to_svg")
    def to_svg(self, **options: Any) -> str:
        """Draws it as SVG."""
        from relprop.rendering import Options, views

        return views.drawing(self._result, Options(**options)).to_svg()

    @public(".to_html")
    def to_html(self, title: str = "Relevance", **options: Any) -> str:
        """Writes it as one page of HTML that holds all it shows; no script, nothing loaded."""
        from relprop.rendering import Options
        from relprop.rendering.report import report_page

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
        from relprop.rendering.matplotlib import plot

        self._check(options, "ax", "sample")
        if ax is not None and not hasattr(ax, "barh"):
            raise InputError(f"ax must be an axes of matplotlib, or None for the current ones; got {ax!r}.")
        return plot(self._result, ax, sample, **options)

    def _repr_html_(self) -> str | None:
        """What a notebook shows of it; without Pillow, its text."""
        try:
            from relprop.rendering.show import fragment_of
        except ModuleNotFoundError:
            return None
        return fragment_of(self._result, most=4)

    @staticmethod
    def _check(options: dict[str, Any], *own: str) -> None:
        """Refuses options that no drawing has."""
        from relprop.rendering.views import ELSEWHERE, Options

        check_options(options, [*own, *parameters(Options)], ELSEWHERE)

    @property
    def _result(self) -> Any:
        return self  # one of the results that the functions which draw and write know
