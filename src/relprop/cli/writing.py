"""Writes the files of a run while it goes on: a picture of each result at once, and a page that grows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import relprop
from relprop.cli.explaining import ExplainedInput, check_folder, slug
from relprop.cli.printing import writing
from relprop.results.protocol import Result

_SHARE = 4.0
"""The page is written anew when this many times as long has passed as writing it takes: it then costs a fifth of a run."""


class Writer:
    """The files of a run. An interruption leaves the pictures of what was explained, and the page about them.

    Args:
        folder: where they go.
        title: the title of the page, for some results.
        keep: whether each result is kept as a folder.
        paragraphs: the text under the title, as it is now.
        **options: drawing options; None stands for the default.
    """

    def __init__(
        self, folder: Path, title: Callable[[Sequence[ExplainedInput]], str], *, keep: bool,
        paragraphs: Callable[[], Sequence[str]], **options: Any,
    ) -> None:  # fmt: skip
        self.folder, self.title, self.keep, self.paragraphs = folder, title, keep, paragraphs
        self.options = {name: value for name, value in options.items() if value is not None}
        self.explained: list[ExplainedInput] = []
        self.paths: list[Path] = []
        self._groups: dict[str, list[Result]] = {}
        self._cost, self._written, self._shown = 0.0, 0.0, 0

    @property
    def page(self) -> Path:
        """The page."""
        return self.folder / "index.html"

    def each(self, found: Iterable[ExplainedInput]) -> Iterator[ExplainedInput]:
        """Writes each input's files as it comes, and passes it on. When the run ends, however it does, the page is whole."""
        check_folder(self.folder)
        try:
            for one in found:
                self.add(one)
                yield one
        finally:
            self.finish()

    def add(self, each: ExplainedInput) -> None:
        """Writes the files of an input, and now and then the page."""
        own = {**self.options, **each.drawing}
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            for result, composite in zip(each.results, each.asked, strict=True):
                stem = "-".join(slug(part) for part in (each.stem, result.heading(), composite))
                path = _free(self.folder / f"{stem}.png", self.paths)
                result.save(path, **own)
                self.paths.append(path)
                if self.keep:
                    result.save(path.with_suffix(""))
                    self.paths.append(path.with_suffix(""))
        self.explained.append(each)
        self._groups.setdefault(each.name, []).extend(each.results)
        if time.monotonic() - self._written > _SHARE * self._cost:
            self._write()

    def finish(self) -> None:
        """Writes the page, unless it is about everything already or there is nothing."""
        if self.explained and (self._shown < len(self.explained) or self.paragraphs() != self._said):
            self._write()

    def _write(self) -> None:
        start = time.monotonic()
        # All rows of a table have the same column names. Pictures differ, so the page draws them from the inputs.
        first = {name: value for name, value in self.explained[0].drawing.items() if name != "pictures"}
        self._said = self.paragraphs()
        with writing(self.page):
            relprop.report(
                self._groups, self.page, title=self.title(self.explained), paragraphs=self._said, **self.options, **first
            )  # fmt: skip
        self._shown, self._written = len(self.explained), time.monotonic()
        self._cost = self._written - start


def _free(path: Path, taken: Sequence[Path]) -> Path:
    """The path, with a number if this run has written it already: inputs from two folders may have the same name."""
    number, found = 2, path
    while found in taken:
        found, number = path.with_stem(f"{path.stem}-{number}"), number + 1
    return found
