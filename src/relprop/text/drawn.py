"""Results of texts as pictures; drawing is imported when it is asked for (`pip install relprop[images]`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relprop.errors import InputError

if TYPE_CHECKING:
    from relprop.rendering import Drawing


class Drawn(ABC):
    """What can be drawn can be saved."""

    @abstractmethod
    def drawing(self, **options: Any) -> Drawing:
        """A drawing of it."""

    def save(self, path: str | PathLike[str], **options: Any) -> None:
        """Draws it into a file, `.png`, `.svg` or `.pdf`.

        Args:
            path: its suffix says how.
            **options: see `drawing`.

        Raises:
            InputError: there is no such format.
        """
        file = Path(path)
        form = file.suffix.lower()
        if form not in (".png", ".svg", ".pdf"):
            raise InputError(f"texts are saved as .png, .svg or .pdf; got {file.name!r}.")
        made = self.drawing(**options)
        if form == ".png":
            made.to_image(2.0).save(file)
        elif form == ".svg":
            file.write_text(made.to_svg(), encoding="utf-8")
        else:
            file.write_bytes(made.to_pdf())
