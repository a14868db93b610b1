"""A drawing is the same in every format, and holds what it shows."""

from __future__ import annotations

import re
import zlib
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from golden import same_picture
from relprop.errors import InputError
from relprop.rendering import Drawing, column, row
from relprop.rendering.drawing import framed, titled, wrapped
from relprop.rendering.fonts import fit, width
from relprop.rendering.marks import Line, Picture, Rect, Text

SVG = "{http://www.w3.org/2000/svg}"


def example() -> Drawing:
    checks = Image.fromarray(np.array([[[255, 0, 0], [255, 255, 255]], [[255, 255, 255], [0, 0, 255]]], dtype=np.uint8))
    marks = (
        Rect(0, 0, 60, 40, "#eeeeee", "#141414", "a <title>"),
        Picture(5, 5, 20, 20, checks),
        Line(((30.0, 5.0), (55.0, 25.0)), "#148014", 2),
        Line(((30.0, 30.0), (55.0, 30.0)), dashed=True),
        Text(2, 42, "under & over", 11),
        Text(60, 60, "中 → \x1b", 11, anchor="end"),
        Text(64, 60, "up", 11, upwards=True),
    )
    return Drawing(80, 76, marks, "An example.")


def test_pixels_stay_pixels() -> None:
    image = example().to_image(3)
    assert image.size == (240, 228)
    assert image.getpixel((20, 20)) == (255, 0, 0) and image.getpixel((70, 20)) == (255, 255, 255)
    same_picture(example(), "drawing")


def test_svg_is_well_formed_and_refers_to_nothing_outside() -> None:
    root = ElementTree.fromstring(example().to_svg())
    assert root.find(f"{SVG}title").text == "An example."
    assert [e.text for e in root.iter(f"{SVG}text")] == ["under & over", "中 → ␛", "up"]
    assert next(root.iter(f"{SVG}rect")).attrib["fill"] == "#ffffff"
    assert all(e.attrib["href"].startswith("data:image/png;base64,") for e in root.iter(f"{SVG}image"))
    assert {e.tag.removeprefix(SVG) for e in root.iter()} <= {"svg", "title", "rect", "image", "polyline", "text"}
    assert not any(name.startswith("on") or name == "style" for e in root.iter() for name in e.attrib)


def test_pdf_is_whole_and_its_pictures_lose_nothing() -> None:
    data = example().to_pdf()
    assert data.startswith(b"%PDF-1.7") and data.endswith(b"%%EOF\n")
    places = [int(found) for found in re.findall(rb"(\d{10}) 00000 n", data)]
    assert all(data[place:].startswith(b"%d 0 obj" % number) for number, place in enumerate(places, 1))
    assert data[int(re.search(rb"startxref\n(\d+)", data)[1]) :].startswith(b"xref")
    streams = [zlib.decompress(found) for found in re.findall(rb"stream\n(.*?)\nendstream", data, re.DOTALL)]
    assert b"(under & over) Tj" in streams[0]
    assert bytes([255, 0, 0] * 8) in streams[1]  # the picture's first pixel, enlarged eight times


def test_brackets_cannot_leave_their_text_in_a_pdf() -> None:
    data = Drawing(50, 20, (Text(0, 0, ") Tj ET (\\"),)).to_pdf()
    content = zlib.decompress(re.search(rb"stream\n(.*?)\nendstream", data, re.DOTALL)[1])
    assert rb"(\) Tj ET \(\\) Tj" in content


def test_drawings_are_put_together() -> None:
    one = example()
    assert (row([one, one], 10).width, row([one, one], 10).height) == (170, 76)
    assert (column([one, one], 10).width, column([one, one], 10).height) == (80, 162)
    assert framed(one, 4).width == 88
    assert titled(one, "Title " * 50, lines=["more"]).height > one.height


def test_numbers_over_a_narrow_drawing_are_wrapped_not_cut() -> None:
    numbers = "score 11.4, relevance 0.166, residual 11.2; epsilon_alpha2_beta1_flat, scale clipped"
    shown = titled(example(), "espresso (967)", lines=[numbers])
    written = [mark for mark in shown.marks if isinstance(mark, Text)]
    assert " ".join(mark.text for mark in written).startswith(f"espresso (967) {numbers}")
    assert all(width(mark.text, mark.size) <= shown.width for mark in written)


def test_text_is_cut_and_wrapped_to_its_room() -> None:
    assert width(fit("x" * 1000, 100, 13), 13) <= 100
    lines = wrapped("one two three four five " + "x" * 100, 60)
    assert all(width(line, 13) <= 60 for line in lines) and len(lines) > 2
    assert fit("short", 100, 13) == "short"


def test_long_names_are_broken_rather_than_cut() -> None:
    room = width("epsilon_alpha2_", 12) + 2
    assert wrapped("epsilon_alpha2_beta1_flat", room, 12) == ["epsilon_alpha2_", "beta1_flat"]
    assert wrapped("by epsilon_alpha2_beta1_flat", room, 12) == ["by", "epsilon_alpha2_", "beta1_flat"]
    (cut,) = wrapped("W" * 60, 100, 12)
    assert cut.endswith("…") and width(cut, 12) <= 100
    assert len(wrapped("ab_" * 5000, 60, 12)) == 4
    assert wrapped("module.path/file-name", 1000, 12) == ["module.path/file-name"]


def test_letters_no_font_has_are_spelled_out() -> None:
    from relprop.rendering.fonts import drawable

    assert drawable("abc äöü") == "abc äöü"
    assert drawable("\U0001f9ff") in ("\U0001f9ff", "[U+1F9FF]")
    assert drawable("\ue000") in ("⟨U+E000⟩", "[U+E000]")


def test_a_picture_larger_than_memory_is_refused() -> None:
    with pytest.raises(InputError, match="40 million"):
        Drawing(100_000, 1000).to_image()
