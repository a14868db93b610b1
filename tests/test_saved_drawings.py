"""Drawings that are no results of their own are all written by one function."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from relprop.errors import InputError
from relprop.rendering.drawing import Drawing
from relprop.rendering.marks import Rect
from relprop.results.files.drawings import save_drawing

DRAWING = Drawing(20, 10, (Rect(2, 2, 5, 5, "#ff0000"),))


@pytest.mark.parametrize(("name", "starts"), [("a.svg", b"<svg"), ("a.PNG", b"\x89PNG"), ("a.pdf", b"%PDF")])
def test_the_suffix_chooses_and_folders_are_made(name: str, starts: bytes, tmp_path: Path) -> None:
    save_drawing(DRAWING, tmp_path / "not there yet" / name, "it is")
    assert (tmp_path / "not there yet" / name).read_bytes().startswith(starts)
    assert [path.name for path in (tmp_path / "not there yet").iterdir()] == [name]


def test_what_was_there_stays_if_the_drawing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_drawing(DRAWING, tmp_path / "a.png", "it is")
    before = (tmp_path / "a.png").read_bytes()

    def fails(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", fails)
    with pytest.raises(KeyboardInterrupt):
        save_drawing(DRAWING, tmp_path / "a.png", "it is")
    assert (tmp_path / "a.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_any_other_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"an atlas is saved as \.svg, \.png or \.pdf; got .*a\.gif"):
        save_drawing(DRAWING, tmp_path / "a.gif", "an atlas is")
