"""Drawings as one-page PDF (ISO 32000-1): pictures without loss, lines as vectors, Latin text as text.

Pillow's own PDF would store maps as JPEG, in which zero is not exactly white.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from PIL import Image, ImageColor, ImageDraw

from relprop.rendering.fonts import drawable, font_for
from relprop.rendering.fonts import width as width_of
from relprop.rendering.marks import Line, Mark, Picture, Text

# From the top of the letters to the baseline, as a part of the size, in Helvetica, a font that every reader has.
_BASELINE = 0.95
# A point is 1/72 inch, a pixel of a drawing 1/96 inch.
_POINT = 0.75
# Text with letters that Helvetica lacks is a picture, drawn this many times larger than it is shown.
_DETAIL = 4


def pdf(width: float, height: float, marks: Sequence[Mark], scale: float = 1.0) -> bytes:
    """Marks on white paper as the bytes of a PDF file."""
    pictures: list[Image.Image] = []
    unit = _POINT * scale
    page_width, page_height = width * unit, height * unit
    commands = [f"{unit:.6g} 0 0 -{unit:.6g} 0 {page_height:.3f} cm"]
    for mark in marks:
        commands += _mark(mark, pictures)
    content = zlib.compress("\n".join(commands).encode("latin-1"))
    names = " ".join(f"/I{i} {i + 6} 0 R" for i in range(len(pictures)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        (
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {page_width:.3f} {page_height:.3f}] /Contents 4 0 R "
            f"/Resources << /Font << /F 5 0 R >> /XObject << {names} >> >> >>"
        ).encode(),
        _stream(content, "/Filter /FlateDecode"),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        *map(_picture, pictures),
    ]
    return _file(objects)


def _file(objects: list[bytes]) -> bytes:
    out = bytearray(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    start = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += b"".join(f"{place:010d} 00000 n \n".encode() for place in places)
    out += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n".encode()
    return bytes(out)


def _stream(data: bytes, entries: str) -> bytes:
    return f"<< {entries} /Length {len(data)} >>\nstream\n".encode() + data + b"\nendstream"


def _picture(image: Image.Image) -> bytes:
    space = "/DeviceGray" if image.mode == "L" else "/DeviceRGB"
    entries = (
        f"/Type /XObject /Subtype /Image /Width {image.width} /Height {image.height} /ColorSpace {space} "
        "/BitsPerComponent 8 /Filter /FlateDecode"
    )
    return _stream(zlib.compress(image.tobytes()), entries)


def _mark(mark: Mark, pictures: list[Image.Image]) -> list[str]:
    if isinstance(mark, Line):
        path = " ".join(f"{x:.2f} {y:.2f} {'l' if i else 'm'}" for i, (x, y) in enumerate(mark.points))
        dash = "[2 2] 0 d" if mark.dashed else "[] 0 d"
        return [f"{_rgb(mark.colour)} RG {mark.width:.2f} w {dash} 1 j {path} S"]
    if isinstance(mark, Text):
        return _write(mark, pictures)
    if isinstance(mark, Picture):
        image = mark.image.convert("RGB")
        if not mark.smooth and max(image.size) < 64:
            # Readers smooth pictures that they enlarge, so a map of few pixels is enlarged here without smoothing.
            image = image.resize((image.width * 8, image.height * 8), Image.Resampling.NEAREST)
        return _place(image, mark.x, mark.y, mark.width, mark.height, pictures)
    box = f"{mark.x:.2f} {mark.y:.2f} {mark.width:.2f} {mark.height:.2f} re"
    fill = [f"{_rgb(mark.fill)} rg {box} f"] if mark.fill else []
    return fill + ([f"{_rgb(mark.edge)} RG 1 w [] 0 d {box} S"] if mark.edge else [])


def _place(image: Image.Image, x: float, y: float, w: float, h: float, pictures: list[Image.Image]) -> list[str]:
    pictures.append(image)
    return [f"q {w:.2f} 0 0 -{h:.2f} {x:.2f} {y + h:.2f} cm /I{len(pictures) - 1} Do Q"]


def _write(mark: Text, pictures: list[Image.Image]) -> list[str]:
    if not mark.text:
        return []
    try:
        letters = mark.text.encode("cp1252")
    except UnicodeEncodeError:
        return _drawn(mark, pictures)
    escaped = letters.replace(b"\\", rb"\\").replace(b"(", rb"\(").replace(b")", rb"\)").decode("latin-1")
    if mark.upwards:
        turn = f"0 -1 -1 0 {mark.x + _BASELINE * mark.size:.2f} {mark.y:.2f}"
    else:
        shift = {"start": 0.0, "middle": 0.5, "end": 1.0}[mark.anchor] * width_of(mark.text, mark.size)
        turn = f"1 0 0 -1 {mark.x - shift:.2f} {mark.y + _BASELINE * mark.size:.2f}"
    return [f"BT {_rgb(mark.colour)} rg /F {mark.size} Tf {turn} Tm ({escaped}) Tj ET"]


def _drawn(mark: Text, pictures: list[Image.Image]) -> list[str]:
    """A text with letters that Helvetica lacks, as a picture."""
    size = mark.size * _DETAIL
    text = drawable(mark.text)
    font = font_for(text, size)
    long, high = max(1, round(font.getlength(text)) + 2), round(size * 1.3)
    image = Image.new("RGB", (long, high), "white")
    ImageDraw.Draw(image).text((0, 0), text, fill=mark.colour, font=font, anchor="la")
    w, h = long / _DETAIL, high / _DETAIL
    if mark.upwards:
        return _place(image.transpose(Image.Transpose.ROTATE_90), mark.x, mark.y - w, h, w, pictures)
    return _place(image, mark.x - {"start": 0.0, "middle": 0.5, "end": 1.0}[mark.anchor] * w, mark.y, w, h, pictures)


def _rgb(colour: str) -> str:
    return " ".join(f"{value / 255:.3f}" for value in ImageColor.getrgb(colour)[:3])
