"""What colours, maps, strips and pages promise."""

from __future__ import annotations

import base64
import hashlib
import io
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from relprop.rendering import Entry, Heatmap, Panel, Section, colour_bar, colours, overlay, page, strip

STEPS = np.linspace(0.0, 1.0, 101)
# Half a step of eight bits near white, where steps are largest, in each of two colours that are compared.
ROUNDING = 0.009


def test_zero_is_exactly_white() -> None:
    assert colours.diverging(np.array([0.0, -0.0])).tolist() == [[255, 255, 255]] * 2


def test_positive_is_red_and_negative_blue() -> None:
    red, blue = colours.diverging(np.array([0.5, -0.5])).astype(int)
    assert red[0] > red[2] + 60 and blue[2] > blue[0] + 60


def test_luminance_falls_with_the_size_alike_on_both_sides() -> None:
    red, blue = (colours.luminance(colours.diverging(sign * STEPS)) for sign in (1, -1))
    assert (np.diff(red) < 0).all() and (np.diff(blue) < 0).all()
    assert np.abs(red - blue).max() < ROUNDING


# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
@pytest.mark.parametrize(
    "matrix",
    [
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ],
    ids=["protanopia", "deuteranopia", "tritanopia"],
)
def test_colour_blind_people_tell_the_sides_apart(matrix: list[list[float]]) -> None:
    luminance = colours.luminance_of_lightness(100.0 - 68.0 * np.array([0.3, 0.6, 1.0]))
    seen = [colours.to_bytes(colours.pure(np.full(3, sign), luminance) @ np.array(matrix).T) for sign in (1.0, -1.0)]
    assert np.abs(seen[0].astype(int) - seen[1]).max(axis=1).min() > 50


def test_values_beyond_the_scale_take_the_last_colour_and_nan_its_own() -> None:
    shown = colours.diverging(np.array([1.0, 7.0, -1.0, -np.inf, np.nan])).tolist()
    assert shown[0] == shown[1] and shown[2] == shown[3]
    assert shown[4] not in colours.diverging(np.concatenate([-STEPS, STEPS])).tolist()


def test_a_map_sums_channels() -> None:
    relevance = torch.randn(1, 3, 5, 7)
    expected = relevance.double().sum(dim=(0, 1))
    for given in (relevance, relevance[0], relevance.numpy(), expected, relevance.requires_grad_()):
        heatmap = Heatmap.of(given)
        torch.testing.assert_close(torch.from_numpy(heatmap.values), expected)
    assert heatmap.limit == float(expected.abs().max())
    assert heatmap.image().size == (7, 5)
    assert heatmap.note == ""


@pytest.mark.parametrize("shape", [(4,), (2, 3, 5, 7), (0, 4), (1, 1, 1, 1, 1)])
def test_what_is_no_map_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a map is drawn of"):
        Heatmap.of(torch.zeros(shape))


def test_half_precision_is_drawn() -> None:
    relevance = torch.ones(3, 2, 2, dtype=torch.bfloat16)
    assert Heatmap.of(relevance).limit == 3.0


def test_nothing_is_clipped_unless_asked() -> None:
    relevance = torch.zeros(10, 10)
    relevance[0, :2] = torch.tensor([1.0, 100.0])
    assert (Heatmap.of(relevance).limit, Heatmap.of(relevance).clipped) == (100.0, 0)
    clipped = Heatmap.of(relevance, percentile=99.0)
    assert clipped.limit < 100.0
    assert clipped.note == "1 pixel beyond the scale"
    for wrong in (0.0, -1.0, 101.0):
        with pytest.raises(ValueError, match="percentile"):
            Heatmap.of(relevance, percentile=wrong)


@pytest.mark.parametrize(
    ("values", "note"),
    [
        (torch.zeros(4, 4), "all zero"),
        (torch.full((4, 4), 0.25), "constant, 0.25 everywhere"),
        (torch.full((4, 4), torch.nan), "16 of 16 values are not finite"),
        (torch.tensor([[torch.nan, 1.0], [torch.inf, -2.0]]), "2 of 4 values are not finite"),
        (torch.tensor([[torch.nan, 0.0]]), "1 of 2 values are not finite; all zero"),
        (torch.tensor([[5e-324, 0.0]], dtype=torch.float64), ""),
    ],
)
def test_odd_maps_say_what_they_are(values: torch.Tensor, note: str) -> None:
    heatmap = Heatmap.of(values)
    assert heatmap.note == note
    # Any warning is an error here.
    heatmap.image()
    overlay(heatmap, Image.new("RGB", (4, 4)))
    strip([Panel(heatmap.image(), heatmap.note, heatmap.limit)])


def test_infinite_channels_that_cancel_are_not_a_number() -> None:
    assert Heatmap.of(torch.tensor([[[torch.inf]], [[-torch.inf]]])).note == "1 of 1 values are not finite"


def test_an_overlay_keeps_the_luminance_of_the_picture() -> None:
    picture = Image.effect_noise((32, 32), 80).convert("RGB")
    plain = np.asarray(overlay(Heatmap.of(torch.zeros(32, 32)), picture))
    assert (plain == plain[..., :1]).all(), "grey where there is no relevance"
    tinted = np.asarray(overlay(Heatmap.of(torch.randn(32, 32)), picture))
    assert (tinted != tinted[..., :1]).any()
    assert np.abs(colours.luminance(tinted) - colours.luminance(plain)).max() < ROUNDING


def test_an_overlay_fits_the_picture_to_the_map() -> None:
    assert overlay(Heatmap.of(torch.randn(5, 7)), Image.new("L", (70, 50))).size == (7, 5)


def test_a_strip_holds_its_panels() -> None:
    image = Image.new("RGB", (30, 20))
    alone = strip([Panel(image)], height=100)
    three = strip(
        [Panel(image, "a\nb", 0.5), Panel(image, "x" * 500), Panel(image, "ä ± …")],
        title="Title " * 99,
        height=100,
    )
    assert alone.width < three.width and alone.height < three.height
    with pytest.raises(ValueError, match="at least one"):
        strip([])


def test_a_colour_bar_is_white_in_the_middle() -> None:
    bar = colour_bar(101, 0.25)
    assert bar.getpixel((50, 5)) == (255, 255, 255)
    left, right = bar.getpixel((1, 5)), bar.getpixel((99, 5))
    assert left[2] > left[0] and right[0] > right[2]


class Seen(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture
def seen() -> Seen:
    evil = "<script>alert('1')</script>\"><img src=x onerror=y>&amp;"
    heatmap = Heatmap.of(torch.randn(8, 8))
    entry = Entry(evil, heatmap, evil, score=1.5, total=1.25, residual=0.25, seconds=0.0123)
    other = Entry("NaN", Heatmap.of(torch.full((8, 8), torch.nan)), "zero", float("nan"), 0.0, 0.0, 0.0)
    return Seen(page(evil, [Section(evil, Image.new("RGB", (8, 8)), [entry, other], evil)], text=[evil]))


def test_a_page_shows_all_text_as_text(seen: Seen) -> None:
    assert not {"script", "iframe", "object", "link", "base", "form"} & {tag for tag, _ in seen.tags}
    allowed = {"class", "width", "height", "alt", "src"}
    assert all(set(attributes) <= allowed for tag, attributes in seen.tags if tag == "img")
    assert "<script>alert('1')</script>\"><img src=x onerror=y>&amp;" in seen.text


def test_a_page_holds_everything_it_shows(seen: Seen) -> None:
    sources = [attributes["src"] for tag, attributes in seen.tags if tag == "img"]
    assert len(sources) == 2 + 2 * 3  # the picture once for each composite; overlay, map and bar of each entry
    for source in sources:
        kind, _, data = source.partition(",")
        assert kind == "data:image/png;base64"
        Image.open(io.BytesIO(base64.b64decode(data, validate=True))).verify()


def test_a_page_allows_its_own_style_and_nothing_else(seen: Seen) -> None:
    policy = next(attributes["content"] for _, attributes in seen.tags if "http-equiv" in attributes)
    style = next(text for text in seen.text if ".maps" in text)
    allowed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.split("; ") == [
        "default-src 'none'",
        "img-src data:",
        f"style-src 'sha256-{allowed}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]


def test_a_page_gives_the_numbers(seen: Seen) -> None:
    assert {"1.5000", "1.2500", "0.2500", "12 ms", "64 of 64 values are not finite"} <= set(seen.text)
