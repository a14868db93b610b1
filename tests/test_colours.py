"""What palettes and scales promise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from relprop.errors import InputError
from relprop.rendering import Scale, colours
from relprop.rendering.scale import note, scale_for

STEPS = np.linspace(0.0, 1.0, 101)
# Half a step of eight bits near white, where steps are largest, in each of two colours that are compared.
ROUNDING = 0.009
HUED = [name for name in colours.PALETTES if name != "grey"]


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        (
            "red_blue",
            [
                [16, 70, 160],
                [49, 110, 232],
                [139, 161, 237],
                [255, 255, 255],
                [221, 143, 146],
                [209, 63, 74],
                [151, 18, 33],
            ],
        ),
        (
            "orange_purple",
            [
                [94, 40, 177],
                [132, 94, 211],
                [172, 154, 223],
                [255, 255, 255],
                [226, 143, 122],
                [197, 80, 0],
                [130, 50, 0],
            ],
        ),
        (
            "grey",
            [
                [75, 75, 75],
                [116, 116, 116],
                [164, 164, 164],
                [255, 255, 255],
                [164, 164, 164],
                [116, 116, 116],
                [75, 75, 75],
            ],
        ),
    ],
)
def test_palettes_are_what_they_were(name: str, pixels: list[list[int]]) -> None:
    found = colours.diverging(np.array([-1.0, -0.75, -0.48, 0.0, 0.48, 0.75, 1.0]), name)
    assert np.abs(found.astype(int) - pixels).max() <= 1, found.tolist()


@pytest.mark.parametrize("name", colours.PALETTES)
def test_zero_is_exactly_white(name: str) -> None:
    assert colours.diverging(np.array([0.0, -0.0]), name).tolist() == [[255, 255, 255]] * 2


def test_positive_is_red_and_negative_blue() -> None:
    red, blue = colours.diverging(np.array([0.5, -0.5])).astype(int)
    assert red[0] > red[2] + 60 and blue[2] > blue[0] + 60


@pytest.mark.parametrize("name", colours.PALETTES)
def test_luminance_falls_with_the_size_alike_on_both_sides(name: str) -> None:
    positive, negative = (colours.luminance(colours.diverging(sign * STEPS, name)) for sign in (1, -1))
    assert (np.diff(positive) < 0).all() and (np.diff(negative) < 0).all()
    assert np.abs(positive - negative).max() < ROUNDING


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
@pytest.mark.parametrize("name", HUED)
def test_colour_blind_people_tell_the_sides_apart(matrix: list[list[float]], name: str) -> None:
    luminance = colours.luminance_of_lightness(100.0 - 68.0 * np.array([0.3, 0.6, 1.0]))
    seen = [
        colours.to_bytes(colours.pure(np.full(3, sign), luminance, name) @ np.array(matrix).T) for sign in (1.0, -1.0)
    ]
    assert np.abs(seen[0].astype(int) - seen[1]).max(axis=1).min() > 50


def test_values_beyond_the_scale_take_the_last_colour_and_nan_its_own() -> None:
    shown = colours.diverging(np.array([1.0, 7.0, -1.0, -np.inf, np.nan])).tolist()
    assert shown[0] == shown[1] and shown[2] == shown[3]
    assert shown[4] not in colours.diverging(np.concatenate([-STEPS, STEPS])).tolist()


def test_ink_is_readable_on_every_colour() -> None:
    for value in np.concatenate([-STEPS, STEPS]):
        ground = float(colours.luminance(colours.diverging(np.array([value])))[0])
        ink = 1.0 if colours.ink_on(value) == "#ffffff" else 0.007
        light, dark = max(ground, ink), min(ground, ink)
        assert (light + 0.05) / (dark + 0.05) >= 4.0  # WCAG 2 asks 4.5 of small text, 3 of large text


def test_there_is_no_other_palette() -> None:
    with pytest.raises(InputError, match="red_blue, orange_purple, grey"):
        colours.palette("jet")


def test_a_scale_is_symmetric_and_clips_nothing_unless_asked() -> None:
    values = torch.tensor([-4.0, 0.0, 1.0, 2.0])
    scale = Scale.of(values)
    assert (scale.limit, scale.how, scale.beyond(values)) == (4.0, "", 0)
    assert scale(values).tolist() == [-1.0, 0.0, 0.25, 0.5]
    clipped = Scale.of(values, percentile=50)
    assert clipped.limit == 1.5 and clipped.beyond(values) == 2
    assert note(values, clipped) == "scale clipped at percentile 50; 2 values beyond"
    fixed = Scale.fixed(8.0)
    assert note(values, fixed) == "scale fixed"
    assert Scale.of(values, 10 * values).how == "shared by 2 maps"


@pytest.mark.parametrize("percentile", [0.0, -1.0, 101.0])
def test_a_percentile_is_one(percentile: float) -> None:
    with pytest.raises(InputError, match="percentile"):
        Scale.of(torch.ones(3), percentile=percentile)


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_a_fixed_scale_needs_a_size(limit: float) -> None:
    with pytest.raises(InputError, match="positive number"):
        Scale.fixed(limit)
    with pytest.raises(InputError, match="not both"):
        scale_for([torch.ones(2)], percentile=50, limit=1.0)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (torch.zeros(4, 4), "all zero"),
        (torch.full((2, 2), 0.5), "constant, 0.5 everywhere"),
        (torch.tensor([[3.0]]), "a single value, 3"),
        (torch.tensor([1.0, torch.nan, torch.inf]), "2 of 3 values are not finite; a single value, 1"),
        (torch.full((3,), torch.nan), "3 of 3 values are not finite"),
        (torch.tensor([1.0, 2.0]), ""),
    ],
)
def test_odd_maps_say_what_they_are(values: torch.Tensor, said: str) -> None:
    assert note(values) == said
    scaled = Scale.of(values)(values)
    assert np.isnan(scaled).tolist() == (~torch.isfinite(values)).tolist()


def test_a_map_that_looks_white_on_a_shared_scale_says_so() -> None:
    assert "looks white" in note(torch.tensor([1.0, 2.0]), Scale.fixed(1000.0))


def test_the_smallest_and_largest_numbers_have_a_scale() -> None:
    for size in (5e-324, 1e-310, 1e308):
        assert Scale.of([size, -size])([size, -size]).tolist() == [1.0, -1.0]
