"""What a visitor may send, and how long an answer may take. Everything is checked before it is decoded."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from relprop.errors import InputError
from relprop.rendering.visible import visible
from relprop.zoo.images import FORMATS, load_image


@dataclass(frozen=True)
class Limits:
    """What a visitor may send, and how long an answer may take.

    Attributes:
        file_bytes: the bytes of a file.
        stored_bytes: the bytes of all visitors' files together.
        pixels: the pixels of a picture.
        pictures: the pictures that are explained together.
        texts: the texts that are explained together.
        letters: the letters of a text.
        tokens: the tokens of a text.
        generated: the tokens that a language model writes.
        rows: the rows of a table.
        steps: the steps of a series or a sound.
        columns: the columns of a table.
        cells: the numbers of a table or an array in all.
        waiting: the questions that wait for an answer; more are refused.
        seconds: the time of one explanation.
        idle: the seconds after which an answer that nobody asks about is deleted.
        sessions: the visitors whose answers are kept; the oldest goes first.
    """

    file_bytes: int = 32 * 2**20
    stored_bytes: int = 2**30
    pixels: int = 30_000_000
    pictures: int = 16
    texts: int = 16
    letters: int = 20_000
    tokens: int = 512
    generated: int = 40
    rows: int = 10_000
    steps: int = 50_000
    columns: int = 1000
    cells: int = 1_000_000
    waiting: int = 40
    seconds: float = 60.0
    idle: float = 1800.0
    sessions: int = 100


def picture(path: Path, limits: Limits) -> tuple[str, Image.Image]:
    """The name of an uploaded picture, safe to print, and the picture. The header is judged before anything is decoded.

    Raises:
        InputError: the file is too large, of another format, or broken.
    """
    name = visible(path.name, longest=80)
    check_size(path, name, limits)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as header:
                wide, high = header.size
    except Exception:  # load_image says what is wrong with it
        wide = high = 0
    if wide * high > limits.pixels:
        raise InputError(
            f"{name!r} has {wide} x {high} pixels, more than the {limits.pixels // 10**6} million we decode; make it smaller first."
        )
    return name, load_image(path)


def several(paths: Sequence[Path], limits: Limits) -> list[tuple[str, Image.Image]]:
    """The names of uploaded pictures, and the pictures.

    Raises:
        InputError: there are too many, or one is too large, of another format, or broken.
    """
    if len(paths) > limits.pictures:
        raise InputError(f"{limits.pictures} pictures are explained at once; got {len(paths)}: leave some out.")
    return [picture(path, limits) for path in paths]


def check_size(path: Path, name: str, limits: Limits) -> None:
    """Refuses a file that is missing, empty or too large.

    Raises:
        InputError: it is one of these.
    """
    if not path.is_file():
        raise InputError("the file that was uploaded is no longer there: drop it again.")
    size = path.stat().st_size
    if not size:
        raise InputError(f"{name!r} is empty.")
    if size > limits.file_bytes:
        raise InputError(
            f"{name!r} has {size / 2**20:.0f} MiB, more than the {limits.file_bytes / 2**20:g} MiB we take."
        )


def text(given: str, limits: Limits) -> str:
    """A text that is not empty and not too long.

    Raises:
        InputError: it is.
    """
    if not given.strip():
        raise InputError("there is no text yet: write one, or choose an example.")
    if len(given) > limits.letters:
        raise InputError(f"the text has {len(given):,} letters, more than the {limits.letters:,} we take.")
    return given
