"""Reads a network's inputs from paths: pictures, rows of tables, arrays. Files are not trusted."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from relprop.errors import InputError
from relprop.loading.network import Loaded
from relprop.rendering.visible import quoted, visible
from relprop.zoo.images import load_image

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
SUFFIXES = (*PICTURES, ".npy", ".csv")
_LARGEST = 512 * 2**20
# A smaller limit for text: a cell of a table or a token takes many times its size in memory.
_LARGEST_TEXT = 64 * 2**20
# The parser's own limit is a setting of the whole process, which other packages raise.
LONGEST_CELL = 10_000  # characters


@dataclass(frozen=True, eq=False)
class Sample:
    """One input.

    Attributes:
        name: its name, safe to print.
        stem: the start of the names of its files.
        inputs: the model's input, a batch (of one, except for arrays that hold more).
        picture: the part of a picture that the network sees.
        names: the names of the features of a table's row.
    """

    name: str
    stem: str
    inputs: Tensor
    picture: Image.Image | None = None
    names: tuple[str, ...] = ()


def files(paths: Sequence[str]) -> list[Path]:
    """The files of paths. A folder stands for the readable files in it, in the order of their names.

    Raises:
        InputError: a folder holds no such file, or a file is missing.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
            if not inside:
                raise InputError(f"{quoted(path)} holds no file we read ({', '.join(SUFFIXES)}).")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            hint = " To explain a text, name a network that reads it: --model hf:FOLDER." if not path.suffix else ""
            raise InputError(f"there is no file {quoted(path)}.{hint}")
    return found


def read(path: Path, loaded: Loaded, *, rows: Sequence[int] = (), without: Sequence[str] = ()) -> list[Sample]:
    """The samples in a file.

    Raises:
        InputError: the file is missing, too large, broken, or of a kind we do not read.
        OSError: there is no permission to read it.
    """
    check_file(path)
    name, suffix = visible(path.name), path.suffix.lower()
    if suffix == ".npy":
        return [Sample(name, path.stem, _array(path))]
    if suffix == ".csv":
        return _table(path, name, rows, without)
    if suffix in (".txt", ".md"):
        raise InputError(
            f"{name!r} is text, and {visible(loaded.name)} reads none: name a network of texts, such as --model hf:FOLDER."
        )
    picture = load_image(path)
    return [Sample(name, path.stem, loaded.tensor(picture), loaded.seen(picture))]


def _array(path: Path) -> Tensor:
    try:
        # Mapped: a header that promises more than the file holds then costs no memory. "c": torch wants it writable.
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except PermissionError:
        raise
    except Exception as error:  # whatever NumPy raises, the file is at fault
        raise InputError(f"{quoted(path.name)} is not an array of numbers we open: {error}") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise InputError(f"{quoted(path.name)} is an archive of arrays: save the one that is meant with numpy.save.")
    if not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array) or array.ndim == 0:
        raise InputError(
            f"{quoted(path.name)} holds {array.dtype} of shape {array.shape}; it must hold real numbers, samples first."
        )
    return torch.from_numpy(np.array(array, np.float32, order="C"))  # a copy: the file may change


def _table(path: Path, name: str, rows: Sequence[int], without: Sequence[str]) -> list[Sample]:
    check_file(path, _LARGEST_TEXT)
    try:
        lines = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{quoted(name)} is not a table we read, UTF-8 text with commas: {error}") from error
    lines = [line for line in lines if line]
    if (widest := max((len(cell) for line in lines for cell in line), default=0)) > LONGEST_CELL:
        raise InputError(f"{quoted(name)} has a cell of {widest:,} characters, more than the {LONGEST_CELL:,} we take.")
    if len(lines) < 2:
        raise InputError(f"{quoted(name)} needs a line of names and at least one row of numbers.")
    header, body = lines[0], lines[1:]
    if lost := [column for column in without if column not in header]:
        raise InputError(f"{quoted(name)} has no column {lost[0]!r}; it has: {', '.join(map(visible, header))}.")
    kept = [i for i, column in enumerate(header) if column not in without]
    samples = []
    for row in rows or range(len(body)):
        if not 0 <= row < len(body):
            raise InputError(f"{quoted(name)} has no row {row}: they are numbered from 0 to {len(body) - 1}.")
        line = body[row]
        if len(line) != len(header):
            raise InputError(f"{quoted(name)}, row {row}: {len(line)} cells for {len(header)} columns.")
        try:
            numbers = [float(line[i]) for i in kept]
        except ValueError:
            bad = next(i for i in kept if not _is_number(line[i]))
            raise InputError(
                f"{quoted(name)}, row {row}: {visible(line[bad], longest=40)!r} in column {visible(header[bad])!r} is not a number; "
                "leave a column out with --without."
            ) from None
        title = f"{name}, row {row}"
        samples.append(
            Sample(title, f"{path.stem}-{row}", torch.tensor([numbers]), None, tuple(header[i] for i in kept))
        )
    return samples


def check_file(path: Path, most: int = _LARGEST) -> None:
    """Refuses a path that is not a regular file, such as a pipe or a device, and a file that is too large."""
    if not path.exists():
        raise InputError(f"there is no file {quoted(path)}.")
    if not path.is_file():
        what = "a folder" if path.is_dir() else "not an ordinary file"
        raise InputError(f"{quoted(path.name)} is {what}.")
    if path.stat().st_size > most:
        raise InputError(f"{quoted(path.name)} has more than the {most // 2**20} MiB we open.")


def text_of(path: Path) -> str:
    """The content of a text file.

    Raises:
        InputError: the file is missing, too large, or not text in UTF-8.
        OSError: there is no permission to read it.
    """
    check_file(path, _LARGEST_TEXT)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{quoted(path.name)} is not text in UTF-8: {error}.") from error


def piped(stream: TextIO) -> str:
    """The whole piped input.

    Raises:
        InputError: it is too long, perhaps endless, or not text in UTF-8.
    """
    try:
        text = stream.read(_LARGEST_TEXT + 1)
    except UnicodeDecodeError as error:
        raise InputError(f"what is piped in is not text in UTF-8: {error}.") from error
    if len(text) > _LARGEST_TEXT:
        raise InputError(f"what is piped in has more than the {_LARGEST_TEXT // 2**20} million letters we read.")
    return text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
