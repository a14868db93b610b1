"""What maps and drawings of pictures promise."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from golden import same_picture
from relprop.errors import InputError
from relprop.rendering import (
    Heatmap,
    Panel,
    Scale,
    channels,
    colour_bar,
    colours,
    contour,
    grid,
    overlay,
    strip,
    titled,
)
from relprop.rendering.image import picture_of
from relprop.rendering.marks import Rect, Text

# Half a step of eight bits near white, where steps are largest, in each of two colours that are compared.
ROUNDING = 0.009


def ramp() -> Heatmap:
    """All of the palette, with a hill of each sign."""
    y, x = np.mgrid[-1:1:24j, -1:1:32j]
    return Heatmap.of(x * np.exp(-4 * y**2) - 0.2 * np.exp(-30 * ((x - 0.5) ** 2 + y**2)))


def photograph(width: int = 64, height: int = 48) -> Image.Image:
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    pixels = np.stack([255 * x, 255 * y, 127 + 127 * np.sin(9 * x * y)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


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
    with pytest.raises(InputError, match="a map is drawn of"):
        Heatmap.of(torch.zeros(shape))


def test_half_precision_is_drawn() -> None:
    assert Heatmap.of(torch.ones(3, 2, 2, dtype=torch.bfloat16)).limit == 3.0


@pytest.mark.parametrize(
    "values",
    [
        torch.zeros(4, 4),
        torch.full((4, 4), -2.0),
        torch.full((4, 4), torch.nan),
        torch.tensor([[1.0]]),
        torch.tensor([[torch.inf, -torch.inf], [0.0, 1.0]]),
        torch.full((3, 2, 2), 1e308, dtype=torch.float64),
    ],
)
def test_odd_maps_are_drawn_without_warnings(values: torch.Tensor) -> None:
    heatmap = Heatmap.of(values)
    drawn = strip([Panel(heatmap, "h"), Panel(overlay(heatmap, photograph()), "o")])
    assert drawn.to_image().size[0] > 100 and drawn.to_svg().startswith("<svg") and drawn.to_pdf().startswith(b"%PDF")
    contour(heatmap, photograph())


def test_what_is_no_number_is_refused() -> None:
    for values in ("a text", [["a"]], torch.zeros(2, 2, dtype=torch.complex64), np.zeros((2, 2), dtype=complex)):
        with pytest.raises(InputError, match="drawn of real numbers"):
            Heatmap.of(values)


def test_labels_must_fit_their_maps() -> None:
    heatmap = Heatmap.of(torch.ones(2, 2))
    with pytest.raises(InputError, match="2 and 0 labels for 1 rows"):
        grid([[heatmap]], rows=["a", "b"])
    with pytest.raises(InputError, match="1 names for 3 channels"):
        channels(torch.zeros(3, 4, 4), ["a"])


@pytest.mark.parametrize("wrong", [{"size": 0}, {"level": 0.0}, {"smooth": -1.0}])
def test_contours_that_cannot_be_drawn_are_refused(wrong: dict) -> None:
    with pytest.raises(InputError, match="contours need"):
        contour(Heatmap.of(torch.ones(3, 3)), Image.new("RGB", (3, 3)), **wrong)


def test_infinite_channels_that_cancel_are_not_a_number() -> None:
    assert Heatmap.of(torch.tensor([[[torch.inf]], [[-torch.inf]]])).note == "1 of 1 values are not finite"


def test_an_all_zero_map_is_white() -> None:
    assert np.asarray(Heatmap.of(torch.zeros(3, 4)).image()).min() == 255


def test_an_overlay_is_as_strong_as_the_map_and_keeps_the_contrasts_of_the_picture() -> None:
    picture, heatmap = photograph(), Heatmap.of(torch.randn(48, 64))
    plain = np.asarray(overlay(Heatmap.of(torch.zeros(48, 64)), picture))
    printed, alone = np.asarray(overlay(heatmap, picture)), np.asarray(heatmap.image())
    assert (plain == plain[..., :1]).all() and (printed != printed[..., :1]).any()
    expected = colours.luminance(plain) * colours.luminance(alone)
    assert np.abs(colours.luminance(printed) - expected).max() < ROUNDING
    white = np.asarray(overlay(heatmap, Image.new("RGB", (64, 48), "white"))).astype(int)
    assert np.abs(white - alone).max() < 8  # on white paper it is the map


def test_the_usual_scale_of_a_picture_keeps_its_tail_visible() -> None:
    values = torch.cat([torch.zeros(5000), torch.linspace(1.0, 2.0, 996), torch.full((4,), 100.0)]).view(60, 100)
    heatmap = Heatmap.of(values)
    assert 1.99 < heatmap.limit <= 2.0 and heatmap.note == "scale clipped at percentile 99.5; 4 pixels beyond"
    assert Heatmap.of(values, percentile=100).limit == 100.0 and not Heatmap.of(values, percentile=100).note
    few = torch.tensor([[1.0, 0.0], [0.0, 50.0]])
    assert Heatmap.of(few).limit == 50.0 and not Heatmap.of(few).note
    assert Scale.usual(values, 3 * values).how == "clipped at percentile 99.5, shared by 2 maps"
    assert Scale.usual(torch.zeros(3)).limit == 0.0


def test_no_pixel_of_a_map_is_left_out_on_a_small_screen() -> None:
    dots = torch.zeros(30, 30)
    dots[::2, ::2] = 1.0
    drawn = strip([Panel(Heatmap.of(dots))], height=100).to_svg()
    assert "pixelated" not in drawn
    data = base64.b64decode(re.search(r"base64,([^\"]+)", drawn)[1])
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (120, 120) and (np.asarray(image)[::4, ::4] == np.asarray(Heatmap.of(dots).image())).all()


def test_an_overlay_fits_the_picture_to_the_map() -> None:
    assert overlay(Heatmap.of(torch.randn(5, 7)), Image.new("L", (70, 50))).size == (7, 5)


def test_parts_share_a_scale_and_add_up() -> None:
    heatmap = ramp()
    positive, negative = heatmap.part(1), heatmap.part(-1)
    assert positive.scale == negative.scale == heatmap.scale
    assert (positive.values + negative.values == heatmap.values).all()
    assert positive.values.min() == 0.0 == negative.values.max()


def test_what_was_clipped_is_written_under_the_map() -> None:
    clipped = Heatmap.of(torch.arange(100.0).reshape(10, 10), percentile=90)
    on_picture = Panel(overlay(clipped, photograph()), "", clipped)
    for drawn in (strip([Panel(clipped, "a")]), grid([[clipped]]), strip([on_picture])):
        said = " ".join(mark.text for mark in drawn.marks if isinstance(mark, Text))
        assert "scale clipped at percentile 90; 10 pixels beyond" in said
    assert Heatmap.of(torch.ones(2, 2), palette="grey").note.endswith("signs are not shown")


def test_channels_share_a_scale() -> None:
    maps = channels(torch.tensor([[[1.0]], [[-4.0]]]), ["red", "green"])
    assert [(name, heatmap.limit) for name, heatmap in maps] == [("red", 4.0), ("green", 4.0)]
    with pytest.raises(InputError, match="C, H, W"):
        channels(torch.ones(2, 2))


def test_a_contour_is_drawn_around_the_strongest_part_only() -> None:
    values = torch.zeros(40, 40)
    values[10:20, 10:20] = 1.0
    drawn = np.asarray(contour(Heatmap.of(values), Image.new("RGB", (40, 40), "gray"), size=40)).astype(int)
    changed = (drawn != 128).any(-1)
    assert changed[8:23, 8:23].any() and not changed[25:].any() and not changed[:, 25:].any()
    assert not changed[14:16, 14:16].any()  # inside, the picture is as it was


def test_a_strip_holds_its_panels() -> None:
    image = Image.new("RGB", (30, 20))
    alone = strip([Panel(image)], height=100)
    three = strip([Panel(image, "a\nb"), Panel(image, "x" * 500), Panel(ramp(), "ä ± …")], height=100)
    assert alone.width < three.width and alone.height < three.height
    with pytest.raises(InputError, match="at least one"):
        strip([])


def test_what_is_written_stays_inside() -> None:
    from relprop.rendering.fonts import width

    drawn = strip([Panel(ramp(), "long " * 50 + "\n" + "note " * 50)], height=60)
    for mark in drawn.marks:
        if isinstance(mark, Text) and mark.anchor == "start":
            assert mark.x + width(mark.text, mark.size) <= drawn.width + 1


def test_parts_of_a_map_tell_their_sum() -> None:
    heatmap = ramp()
    titles = [m.title for m in strip([Panel(heatmap)]).marks if isinstance(m, Rect) and m.title]
    sums = [float(title.rpartition(": ")[2]) for title in titles]
    assert len(sums) == 24 * 32 and titles[33].startswith("row 1, column 1: ")  # of a small map, each pixel
    assert sum(sums) == pytest.approx(heatmap.values.sum(), abs=0.1)
    large = Heatmap.of(np.arange(100 * 90.0).reshape(100, 90))
    titles = [m.title for m in strip([Panel(large)]).marks if isinstance(m, Rect) and m.title]
    assert len(titles) == 144 and titles[0].startswith("rows 0-8, columns 0-7: ")
    assert sum(float(title.rpartition(": ")[2]) for title in titles) == pytest.approx(large.values.sum(), rel=1e-2)


def test_a_grid_has_one_scale_or_many() -> None:
    small, large = Heatmap.of(0.001 * torch.rand(4, 4)), Heatmap.of(torch.rand(4, 4))
    own = grid([[small, large]], columns=["a", "b"])
    shared = grid([[small, large]], columns=["a", "b"], shared=True, size=300)
    texts = [mark.text for mark in shared.marks if isinstance(mark, Text)]
    assert any("looks white" in text for text in texts) and "scale shared by 2 maps" in texts
    assert sum(mark.text == "0" for mark in own.marks if isinstance(mark, Text)) == 2
    assert texts.count("0") == 1
    with pytest.raises(InputError, match="at least one map"):
        grid([])


def test_a_colour_bar_is_white_in_the_middle() -> None:
    bar = colour_bar(101, Scale.fixed(0.25)).to_image()
    assert bar.getpixel((50, 5)) == (255, 255, 255)
    left, right = bar.getpixel((2, 5)), bar.getpixel((98, 5))
    assert left[2] > left[0] and right[0] > right[2]


def test_a_picture_of_an_input_says_what_was_done() -> None:
    assert picture_of(torch.rand(3, 4, 5))[1] == ""
    picture, said = picture_of(torch.randn(3, 4, 5) * 3)
    assert picture.size == (5, 4) and "stretched" in said
    assert "mean of 7 channels" in picture_of(torch.rand(7, 4, 5))[1]
    assert picture_of(torch.full((1, 2, 2), torch.nan))[0].size == (2, 2)


def test_layouts_are_what_they_were() -> None:
    heatmap, picture = ramp(), photograph()
    same_picture(heatmap.image(), "map")
    same_picture(overlay(heatmap, picture), "overlay")
    same_picture(contour(heatmap, picture, size=96), "contour")
    same_picture(strip([Panel(picture, "p", smooth=True), Panel(heatmap, "h")], height=60), "strip")
    same_picture(grid([[heatmap, heatmap.part(1)], [heatmap.part(-1), heatmap]], shared=True, size=40), "grid")
    purple = Heatmap(heatmap.values, heatmap.scale, colours.palette("orange_purple"))
    same_picture(strip([Panel(purple)], height=48), "strip-orange-purple")


def test_what_is_said_of_every_map_of_a_strip_is_said_once() -> None:
    first, second = (Heatmap.of(torch.arange(400.0).reshape(20, 20) + n, percentile=90) for n in range(2))
    assert first.note == second.note
    texts = [m.text for m in strip([Panel(first, "a"), Panel(second, "b")]).marks if isinstance(m, Text)]
    assert " ".join(texts).count("clipped at percentile 90") == 1 and "Each map: " in " ".join(texts)
    other = Heatmap.of(torch.arange(400.0).reshape(20, 20), percentile=80)
    apart = [m.text for m in strip([Panel(first, "a"), Panel(other, "b")]).marks if isinstance(m, Text)]
    assert " ".join(apart).count("clipped at percentile") == 2


def test_no_caption_is_cut() -> None:
    long = "a tabby cat, which is a domestic cat with stripes, seen from the front, on a red carpet"
    drawn = titled(strip([Panel(ramp(), long + "\nand its numbers")], height=80), long + " at night", lines=[long])
    words = " ".join(mark.text for mark in drawn.marks if isinstance(mark, Text))
    assert words.count("on a red carpet") == 3 and "…" not in words and "at night" in words
