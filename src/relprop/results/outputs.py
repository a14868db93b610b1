"""The methods that turn any result into pictures, pages and files.

Each method imports the code that draws or writes when it is called, so that `import relprop` needs no drawing library.
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
    """The methods that draw and write results, and defaults for some methods of `Result`.

    Those that draw take the keyword arguments of `relprop.rendering.Options`: `kind`, `names`, `tokens`, `pictures`,
    `rate`, `percentile`, `limit`, `shared`, `palette`, `most`, `beside`, `merge`, `room`, `smooth`.
    """

    @property
    def samples(self) -> int:
        """The number of samples; 1 unless a kind says otherwise. Each is drawn by itself."""
        return 1

    def alone(self, sample: int) -> Any:
        """The result of one sample. A kind with several samples defines its own.

        Raises:
            NotImplementedError: it has several samples, and does not say how one of them is taken.
        """
        if self.samples != 1:
            raise NotImplementedError(
                f"{type(self).__name__} has {self.samples} samples: it needs a method alone(sample) that returns the "
                f"{type(self).__name__} of one of them."
            )
        return self

    def heading(self) -> str:
        """What the whole result explains, in a few words, for file names."""
        return self._result.subject(0)

    def facts(self, n: int) -> dict[str, Any]:
        """Plain data about the n-th score, for programs, in addition to its numbers."""
        return {}

    def given(self) -> Any:
        """The model's input, or None if it is unknown. A report shows the input that several results share once."""
        return None

    def exported(self) -> Exported:
        """The content of the files for other programs."""
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
            InputError: `where` is another, or the options do not fit this result.
        """
        from relprop.results.show import show

        self._check(options, "where")
        show(self._result, where, **options)

    @public(".save")
    def save(self, path: str | PathLike[str], **options: Any) -> None:
        """Writes it to a file, or to a folder that `relprop.load` reads.

        An interruption leaves no partial file: it is written whole or not at all.

        Args:
            path: its suffix is the format. `.png`, `.jpg`, `.svg`, `.pdf` and `.html` are drawings, and `.gif`
                is the animation of one volume or video, with `rate=` frames per second; `.json`, `.npz`, `.csv`
                and `.parquet` (tables and texts; needs pandas and pyarrow) hold the numbers,
                and `.nii` and `.nii.gz` those of one volume (needs nibabel). A path without a suffix, or one that ends in a slash, is a folder with tensors
                (safetensors) and a manifest (JSON).
            **options: see `relprop.rendering.Options`; also `scale` for `.png`, `title` for `.html`, and `inputs` for a
                folder, where False leaves the inputs out. `width` makes a `.png`, `.svg` or `.pdf` so wide: pixels, or a
                length such as "170mm", with `dpi` pixels per inch (300 on paper).

        Raises:
            InputError: the suffix is unknown, or the options do not fit.
        """
        from relprop.results.files.save import save

        self._check(options, "path", "scale", "title", "inputs", "width", "dpi")
        if not isinstance(path, (str, PathLike)):
            raise InputError(f"path is where the result goes, as in 'map.png' or 'folder/'; got {path!r}.")
        _check_scale(options.get("scale", 1.0))
        save(self._result, path, **options)

    @public(".to_image")
    def to_image(self, *, scale: float = 1.0, **options: Any) -> Image.Image:
        """Draws it as a Pillow image, with `scale` pixels per unit of the drawing."""
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
        """Writes it as one HTML page that is self-contained: it runs no script and loads nothing."""
        from relprop.rendering.view import Options
        from relprop.results.report import report_page

        self._check(options, "title")
        return report_page([self._result], title=title, options=Options(**options))

    @public(".plot")
    def plot(self, ax: Any = None, sample: int = 0, **options: Any) -> Any:
        """Draws one sample on matplotlib axes, and returns the axes. Needs matplotlib.

        Args:
            ax: the axes; None takes the current ones.
            sample: the index of the sample.
            **options: see `relprop.rendering.Options`.

        Raises:
            InputError: `ax` is not a matplotlib axes, there is no such sample, or the options do not fit.
        """
        from relprop.results.plot import plot

        self._check(options, "ax", "sample")
        if ax is not None and not hasattr(ax, "barh"):
            raise InputError(f"ax must be an axes of matplotlib, or None for the current ones; got {ax!r}.")
        return plot(self._result, ax, sample, **options)

    def _repr_html_(self) -> str | None:
        """The HTML that a notebook shows; None without Pillow, so that it shows the text."""
        try:
            from relprop.results.show import fragment_of
        except ModuleNotFoundError:
            return None
        return fragment_of(self._result, most=4)

    @staticmethod
    def _check(options: dict[str, Any], *own: str) -> None:
        """Refuses options that drawings do not have."""
        from relprop.rendering.view import ELSEWHERE, Options

        check_options(options, [*own, *parameters(Options)], ELSEWHERE)

    @property
    def _result(self) -> Result:
        return cast(Result, self)
