"""The matrix of a generation: a row for each generated token, a column for each token that was read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image

from relprop.errors import InputError
from relprop.rendering import colours
from relprop.rendering.colours import RED_BLUE, Bools, Floats, Palette
from relprop.rendering.drawing import Drawing
from relprop.rendering.fonts import fit, width
from relprop.rendering.legend import colour_bar
from relprop.rendering.marks import FAINT, INK, LINE, SMALL, Line, Mark, Picture, Rect, Text
from relprop.rendering.scale import Scale, note, number, scale_for, to_array
from relprop.rendering.text import guess_style, read
from relprop.rendering.visible import visible

# The most cells that can be hovered over in a drawing; more would make it large.
HOVERED = 4000
# The colour of "not read yet". It is not in the palette, and differs from white, which is zero relevance.
UNREAD = "#ececec"
# Relevance below this fraction of the scale gets no sign in its cell: signs show at a glance what matters.
SIGNED = 0.2
_LONGEST_LABEL = 140.0


@dataclass(frozen=True, eq=False)
class TokenMatrix:
    """Relevance of the tokens read, for each generated token, and its scale. Build one with `TokenMatrix.of`.

    Attributes:
        rows: the generated tokens, as they read.
        columns: the tokens that were read.
        values: the relevance, `(rows, columns)`.
        read: which tokens had been read when each was generated, `(rows, columns)`.
        scale: the scale of the colours.
        prompt: the number of columns that belong to the prompt; None if unknown.
        palette: the colours.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: Floats
    read: Bools
    scale: Scale
    prompt: int | None = None
    palette: Palette = RED_BLUE

    @classmethod
    def of(
        cls,
        rows: Sequence[str],
        columns: Sequence[str],
        relevance: torch.Tensor | ArrayLike,
        *,
        style: str | None = None,
        unread: torch.Tensor | ArrayLike | None = None,
        prompt: int | None = None,
        percentile: float | None = None,
        limit: float | Scale | None = None,
        palette: Palette | str = RED_BLUE,
    ) -> TokenMatrix:
        """Builds a matrix from tokens and their relevance.

        Args:
            rows: the generated tokens.
            columns: all tokens that were read: the prompt and the generated ones.
            relevance: the relevance, `(rows, columns)`.
            style: how tokens are spelled, see `TokenMap.of`; None guesses from the tokens.
            unread: what had not been read when a token was generated, `(rows, columns)`; None takes NaN as unread.
            prompt: the number of columns that belong to the prompt; a line is drawn after them.
            percentile: end of the scale, as a percentile of absolute relevance.
            limit: end of the scale.
            palette: the colours, or their name.

        Raises:
            InputError: the shapes do not match, or there is no such style, palette or scale.
        """
        values = to_array(relevance)
        shape = (len(rows), len(columns))
        if values.shape != shape or not values.size:
            raise InputError(f"relevance has the shape {values.shape} for {len(rows)} rows and {len(columns)} columns.")
        later = np.isnan(values) if unread is None else to_array(unread).astype(bool)
        if later.shape != shape:
            raise InputError(f"unread has the shape {later.shape} for {len(rows)} rows and {len(columns)} columns.")
        chosen = style or guess_style([*columns, *rows])
        down, across = (
            tuple(token.text for token in read(some, np.zeros(len(some)), style=chosen)) for some in (rows, columns)
        )
        scale = scale_for([values[~later]], percentile=percentile, limit=limit)
        return cls(down, across, values, ~later, scale, prompt, colours.palette(palette))

    @property
    def scaled(self) -> Floats:
        """The values as fractions of the limit, -1 to 1; NaN where they are not finite."""
        return self.scale(self.values)

    @property
    def note(self) -> str:
        """What a reader should know before trusting the colours; empty for an ordinary matrix."""
        return note(self.values[self.read], self.scale, "cell")

    def strongest(self, row: int, count: int = 4) -> list[tuple[int, float]]:
        """The columns with the largest relevance in a row, by size, with that relevance. Exact zeros are left out."""
        sizes = np.where(self.read[row], np.abs(np.nan_to_num(self.values[row])), 0.0)
        order = [int(c) for c in np.argsort(-sizes, kind="stable")[:count] if sizes[c] > 0]
        return [(c, float(self.values[row, c])) for c in order]

    def drawing(self) -> Drawing:
        """The matrix, with its tokens as labels if the cells are large enough."""
        scaled, count = self.scaled, len(self.columns)
        cell = float(np.clip(1100 / count, 4, 22))
        named = cell >= 10
        tall = (
            cell if named or len(self.rows) > 60 else 14.0
        )  # rows are labelled where they fit, whether columns are or not
        left = min(max(width(label(text), SMALL) for text in self.rows), _LONGEST_LABEL) + 8 if tall >= 10 else 4.0
        top = min(max(width(label(text), SMALL) for text in self.columns), _LONGEST_LABEL) + 8 if named else 4.0
        wide, high = cell * count, tall * len(self.rows)
        pixels = colours.diverging(scaled, self.palette)
        pixels[~self.read] = tuple(bytes.fromhex(UNREAD[1:]))
        marks: list[Mark] = [
            Picture(left, top, wide, high, Image.fromarray(pixels)),
            Rect(left, top, wide, high, None, LINE),
        ]
        if self.prompt is not None and 0 < self.prompt < count:
            x = left + cell * self.prompt
            marks.append(Line(((x, top - 4), (x, top + high + 4)), INK))
        if named:
            for place, text in enumerate(self.columns):
                x = left + cell * place + (cell - SMALL) / 2 - 1
                marks.append(Text(x, top - 4, fit(label(text), _LONGEST_LABEL, SMALL), SMALL, upwards=True))
            marks += self._signs(left, top, cell)
        if tall >= 10:
            for place, text in enumerate(self.rows):
                y = top + tall * place + (tall - SMALL) / 2 - 1
                marks.append(Text(left - 5, y, fit(label(text), _LONGEST_LABEL, SMALL), SMALL, INK, "end"))
        if self.values.size <= HOVERED:
            for r, c in np.argwhere(self.read):
                marks.append(Rect(left + cell * c, top + tall * r, cell, tall, title=self.said(int(r), int(c))))
        bar = colour_bar(min(max(wide, 120), 280), self.scale, self.palette)
        marks += bar.at(left, top + high + 10)
        below = top + high + 10 + bar.height
        legend = "; ".join(filter(None, ("+ for, - against" * named, "grey: not read yet" * (not self.read.all()))))
        for line in filter(None, (legend, self.note)):
            marks.append(Text(left, below + 4, line, SMALL, FAINT))
            below += SMALL + 5
        about = f"Matrix of relevance: {len(self.rows)} generated tokens by {count} tokens read."
        return Drawing(max(left + wide, left + bar.width) + 2, below, tuple(marks), about)

    def said(self, row: int, column: int) -> str:
        """A cell in words."""
        return f"{label(self.rows[row])} from {label(self.columns[column])}: {number(self.values[row, column])}"

    @property
    def signs(self) -> list[list[str]]:
        """For readers who cannot see colours: "+" or "-" in the cells that matter, "" in others."""
        scaled = np.where(self.read, np.nan_to_num(self.scaled), 0.0)
        return [["" if abs(value) < SIGNED else "+" if value > 0 else "-" for value in row] for row in scaled]

    def _signs(self, left: float, top: float, cell: float) -> list[Mark]:
        """The signs as lines, which look the same with every font."""
        marks: list[Mark] = []
        for r, row in enumerate(self.signs):
            for c, sign in enumerate(row):
                if sign:
                    x, y = left + cell * (c + 0.5), top + cell * (r + 0.5)
                    ink = colours.ink_on(float(self.scaled[r, c]))
                    marks.append(Line(((x - 3, y), (x + 3, y)), ink))
                    if sign == "+":
                        marks.append(Line(((x, y - 3), (x, y + 3)), ink))
        return marks


def label(text: str) -> str:
    """A token as the name of a row or column: one line, never empty."""
    return visible(text.replace("\n", "↵"), longest=40).strip() or "␣"
