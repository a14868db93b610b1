"""Files of numbers that visitors upload: tables, arrays and sounds, judged before they are decoded. Nothing here knows Gradio."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from relprop.data.tabular import NOT_NUMBERS
from relprop.errors import InputError
from relprop.loading import samples
from relprop.loading.sounds import read_sound
from relprop.rendering.visible import visible
from relprop.web import limits
from relprop.web.limits import Limits
from relprop.web.page_subject import PageSubject

ENDINGS = (".csv", ".npy", ".wav")
_SOURCES = {"rows": "inputs", "channels": "inputs.T[None]", "steps": "inputs[None]", "flat": "inputs.T"}


@dataclass(frozen=True, eq=False)
class NumbersFile:
    """A file of numbers.

    Attributes:
        name: its name, safe to print.
        ending: ".csv", ".npy" or ".wav".
        values: (N, F), a row for each sample or step; arrays of more axes have samples first.
        columns: the names of a table's columns that are used.
        without: the names of those that are left out.
        rate: samples per second of a sound.
    """

    name: str
    ending: str
    values: Tensor
    columns: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    rate: int | None = None

    def inputs(self, form: str) -> Tensor:
        """All samples in one of the `FORMS`.

        Raises:
            InputError: the file has no such form.
        """
        if form not in self.forms:
            raise InputError(f"{self.name!r} cannot be read as {form!r}; it can be read as: {', '.join(self.forms)}.")
        values = self.values
        return {"rows": values, "channels": values.T[None], "steps": values[None], "flat": values.T}[form]

    @property
    def forms(self) -> tuple[str, ...]:
        """The forms in which it can be read, the usual one first."""
        if self.values.ndim != 2:
            return ("rows",)
        if self.rate is not None:
            return ("channels", "flat", "steps") if self.values.shape[1] == 1 else ("channels", "steps")
        one = self.values.shape[1] == 1
        return ("rows", "channels", "steps", "flat") if one else ("rows", "channels", "steps")

    def source(self, file: str) -> list[str]:
        """The lines of Python that read it from a file of that name, as `inputs` with samples or steps first."""
        if self.ending == ".wav":
            return [f'inputs = read_sound(Path("{file}")).values.T']
        if self.ending == ".npy":
            one = ".reshape(-1, 1)" if self.values.ndim == 2 and self.values.shape[1] == 1 else ""
            return [f'inputs = samples.read(Path("{file}"), loaded)[0].inputs{one}']
        left = f", without={list(self.without)!a}" if self.without else ""
        return [
            f'rows = samples.read(Path("{file}"), loaded{left})', "inputs = torch.cat([row.inputs for row in rows])"
        ]  # fmt: skip


def in_form(form: str) -> str:
    """The Python expression that gives `inputs` a form."""
    return _SOURCES[form]


def read(path: Path, subject: PageSubject, bounds: Limits, without: Sequence[str] | None = None) -> NumbersFile:
    """The numbers in a file. Its size and its content are judged before it is decoded.

    Args:
        path: the file.
        subject: the network that it is for.
        bounds: what is taken.
        without: the columns of a table that are left out; None leaves out those whose first cell is no number, and those
            that are called `label`, `target` or the like.

    Raises:
        InputError: the file is too large, of another kind, broken, or holds something else than numbers.
    """
    name, ending = visible(path.name, longest=80), path.suffix.lower()
    limits.check_size(path, name, bounds)
    _check_content(path, name, ending)
    if ending == ".wav":
        sound = read_sound(path, bounds.cells)
        known = getattr(subject.loaded.model, "sample_rate", None)
        if isinstance(known, int) and known != sound.rate:
            raise InputError(f"{name!r} has {sound.rate} samples per second, and the network takes {known}.")
        found = NumbersFile(name, ending, sound.values.T.contiguous(), rate=sound.rate)
    elif ending == ".npy":
        _check_array(path, name, bounds)
        (sample,) = samples.read(path, subject.loaded)
        values = sample.inputs
        found = NumbersFile(name, ending, values.reshape(-1, 1) if values.ndim == 1 else values)
    else:
        found = _table(path, name, subject, bounds, without)
    if not bool(torch.isfinite(found.values).all()):
        raise InputError(f"{name!r} holds NaN or infinite values: fill them as in training.")
    return found


def _check_content(path: Path, name: str, ending: str) -> None:
    if ending not in ENDINGS:
        raise InputError(f"{name!r} is none of the files we read: {', '.join(ENDINGS)}.")
    with open(path, "rb") as file:
        start = file.read(4096)
    kind = ".npy" if start.startswith(b"\x93NUMPY") else ".wav" if start[:4] == b"RIFF" else ".csv"
    if kind != ending or (kind == ".csv" and b"\x00" in start):
        what = {".csv": "a table", ".npy": "an array of NumPy", ".wav": "a WAV sound"}[ending]
        raise InputError(f"{name!r} is not {what}, by its content.")


def _check_array(path: Path, name: str, bounds: Limits) -> None:
    """Judges the header of an array, which is mapped and not read."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception:  # samples.read says what is wrong with it
        return
    if isinstance(array, np.ndarray) and array.size > bounds.cells:
        raise InputError(f"{name!r} has {array.size:,} numbers, more than the {bounds.cells:,} we take.")


def _table(path: Path, name: str, subject: PageSubject, bounds: Limits, without: Sequence[str] | None) -> NumbersFile:
    text = samples.text_of(path)
    cells, rows = text.count(",") + text.count("\n") + 1, text.count("\n") + text.count("\r")
    if cells > 2 * bounds.cells or rows > 2 * bounds.rows:
        raise InputError(f"{name!r} has more than the {bounds.cells:,} numbers or {bounds.rows:,} rows we take.")
    header, first = _start(text, name)
    if len(header) > bounds.columns:
        raise InputError(f"{name!r} has {len(header):,} columns, more than the {bounds.columns:,} we take.")
    if len(set(header)) < len(header):
        raise InputError(f"{name!r} has two columns of the same name: rename one.")
    left = [n for n, cell in zip(header, first, strict=False) if not _is_number(cell) or n.lower() in NOT_NUMBERS]
    if without is not None:
        shown = {visible(n, longest=80): n for n in header}  # as the page lists them
        left = [shown.get(n, n) for n in without]
        if unknown := [n for n in left if n not in header]:
            raise InputError(f"{name!r} has no column {visible(unknown[0], longest=80)!r} that could be left out.")
    kept = tuple(n for n in header if n not in left)
    if not kept:
        raise InputError(f"no column of {name!r} holds numbers.")
    try:
        found = samples.read(path, subject.loaded, without=left)
    except InputError as error:  # the command leaves columns out by an option
        raise InputError(error.message.replace(" with --without.", ".")) from None
    if len(found) > bounds.rows:
        raise InputError(f"{name!r} has {len(found):,} rows, more than the {bounds.rows:,} we take.")
    values = torch.cat([row.inputs for row in found])
    return NumbersFile(name, ".csv", values, tuple(visible(n, longest=80) for n in kept), tuple(left))


def _start(text: str, name: str) -> tuple[list[str], list[str]]:
    """The names of the columns, and the first row."""
    found: list[list[str]] = []
    try:
        for line in csv.reader(text.splitlines()):
            if line:
                found.append(line)
            if any(len(cell) > samples.LONGEST_CELL for cell in line):
                raise InputError(f"{name!r} has a cell of more than the {samples.LONGEST_CELL:,} characters we take.")
            if len(found) == 2:
                return found[0], found[1]
    except csv.Error as error:
        raise InputError(f"{name!r} is not a table we read, UTF-8 text with commas: {error}.") from error
    raise InputError(f"{name!r} needs a line of names and at least one row of numbers.")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def form_of(subject: PageSubject, file: NumbersFile, bounds: Limits) -> tuple[str, tuple[str, ...]]:
    """The form in which a network takes a file, and the further ones that it takes as well, found by trying.

    Raises:
        InputError: it takes none.
    """
    taken: list[str] = []
    said: Any = None
    for form in file.forms:
        inputs = file.inputs(form)[:1]
        if form != "rows" and len(file.values) > bounds.steps:
            said = said or f"a series has at most {bounds.steps:,} steps here, and this has {len(file.values):,}"
            continue
        try:
            with torch.no_grad():
                subject.loaded.model(inputs)
        except Exception as error:  # whatever it raises, it does not take this form
            said = said or f"of shape {tuple(inputs.shape)}: {error}"
        else:
            taken.append(form)
    if not taken:
        first = " ".join(str(said).split())[:300]
        raise InputError(f"{visible(subject.name)} takes {file.name!r} in no form; {first}.")
    return taken[0], tuple(taken[1:])
