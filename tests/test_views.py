"""Series, tables, sound, volumes and layers; and which of them a result is drawn as."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import relprop
from golden import same_picture
from relprop.errors import InputError
from relprop.rendering import (
    Drawing,
    Options,
    TokenMap,
    audio,
    bar_ends,
    bars,
    channel_bars,
    html,
    layer_bars,
    series,
    volume,
    waterfall,
)
from relprop.rendering.audio import spectrogram
from relprop.rendering.fonts import width
from relprop.rendering.marks import FAINT, Line, Rect, Text
from relprop.rendering.series import binned
from relprop.results.numbers import absorbed

TIME = np.linspace(0, 1, 50)


def texts(drawing: Drawing) -> list[str]:
    return [mark.text for mark in drawing.marks if isinstance(mark, Text)]


def test_a_series_shows_each_channel_on_one_scale() -> None:
    drawing = series(np.stack([TIME, -10 * TIME]), np.stack([np.sin(9 * TIME), TIME]), names=["x", "y"], rate=50)
    assert {"x", "y", "-10", "+10"} <= set(texts(drawing))
    assert sum(len(mark.points) == 50 for mark in drawing.marks if isinstance(mark, Line)) == 2
    plain = series(np.stack([TIME - 0.5, -TIME]), np.stack([np.sin(9 * TIME), TIME]), names=["", ""], wide=200, high=40)
    same_picture(plain, "series")


def test_many_channels_leave_out_the_least_and_say_so() -> None:
    values = np.ones((40, 8)) * np.arange(40)[:, None]
    drawing = series(values)
    assert "channel 39" in texts(drawing) and "channel 0" not in texts(drawing)
    assert any("24 of 40 channels" in text for text in texts(series(values, wide=1200)))


@pytest.mark.parametrize(
    "signal", [np.zeros((1, 50)), np.full((1, 50), np.nan), np.where(TIME > 0.5, np.nan, TIME)[None]]
)
def test_odd_signals_are_drawn(signal: np.ndarray) -> None:
    series(np.zeros((1, 50)), signal).to_image()
    series([1.0], [2.0]).to_image()


def test_a_series_must_match_its_signal() -> None:
    with pytest.raises(InputError, match="must be the same"):
        series(np.zeros(5), np.zeros(6))
    with pytest.raises(InputError, match="3 names"):
        series(np.zeros((2, 5)), names=["a", "b", "c"])


def test_bars_are_sorted_and_the_rest_is_summed() -> None:
    values = np.array([0.1, -3.0, 2.0, 0.2, 0.3, 0.4])
    drawing = bars(values, list("abcdef"), [1, 2.5, "red", 4, 5, 6], most=2)
    assert texts(drawing) == ["b = 2.5", "-3", "c = red", "2", "(sum of 4 others)", "1"]
    widths = [mark.width for mark in drawing.marks if isinstance(mark, Rect)]
    assert widths[0] / widths[1] == pytest.approx(1.5) and widths[2] / widths[1] == pytest.approx(0.5)
    bars([np.nan, np.inf, 0.0]).to_image()


def test_a_waterfall_ends_at_the_score() -> None:
    drawing = waterfall([1.0, -0.5, 0.25], 1.0, {"bias of conv1": 0.2, "stabiliser": 0.05}, ["a", "b", "c"])
    boxes = [mark for mark in drawing.marks if isinstance(mark, Rect)]
    score, last = boxes[-1], boxes[-2]
    assert score.x + score.width == pytest.approx(last.x + last.width)  # the last step's end
    zero = boxes[0].x
    assert score.x == pytest.approx(zero)
    for before, after in pairwise(boxes[:-1]):
        ends = {round(before.x, 3), round(before.x + before.width, 3)}
        assert ends & {round(after.x, 3), round(after.x + after.width, 3)}
    assert "score" in texts(drawing) and "stabiliser" in texts(drawing)


def test_a_waterfall_that_would_not_end_there_is_refused() -> None:
    with pytest.raises(InputError, match="do not add up"):
        waterfall([1.0, 2.0], 10.0, 1.0)
    with pytest.raises(InputError, match="NaN"):
        waterfall([1.0, np.nan], 1.0)


def test_sound_keeps_its_sum_in_bands() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    sums, each = binned(values, 320)
    assert each == 4 and sums.sum() == pytest.approx(values.sum())
    wave = np.sin(np.arange(1000) * 0.3)
    drawing = audio(values, wave, 8000)
    titles = [mark.title for mark in drawing.marks if isinstance(mark, Rect) and mark.title]
    assert len(titles) == len(sums)
    same_picture(drawing, "audio")
    for odd in (np.zeros(1000), np.full(1000, np.nan)):
        audio(odd, odd, 8000).to_image()
    audio([1.0], [1.0], 8000).to_image()
    with pytest.raises(InputError, match="the same"):
        audio(values, wave[:-1], 8000)
    with pytest.raises(InputError, match="samples per second"):
        audio(values, wave, 0)


def test_a_spectrogram_finds_the_pitch() -> None:
    rate = 8000
    decibels, highest = spectrogram(np.sin(2 * np.pi * 1000 * np.arange(rate) / rate), rate)
    row = decibels[:, decibels.shape[1] // 2].argmax()
    assert highest == 4000 and (1 - row / (len(decibels) - 1)) * highest == pytest.approx(1000, abs=40)


@pytest.mark.parametrize("length", [8000, 300, 90])
def test_a_spectrogram_hears_no_click_where_a_tone_begins_and_ends(length: int) -> None:
    decibels, _ = spectrogram(np.sin(2 * np.pi * 1000 * np.arange(length) / 8000 + 1), 8000)
    far = decibels[: len(decibels) // 2]  # an octave above the tone and higher
    assert far.max() < -40 and decibels.max() == 0


def test_a_spectrogram_of_hardly_any_sound() -> None:
    for length in (1, 2, 3, 5):
        decibels, _ = spectrogram(np.ones(length), 8000)
        assert np.isfinite(decibels).all() and decibels.shape[1] == length


def test_a_volume_shows_its_strongest_slices() -> None:
    values = np.zeros((9, 6, 7))
    values[4, 2, 3], values[6, 1, 1] = 2.0, -1.0
    drawing = volume(values, np.random.default_rng(0).random((9, 6, 7)), slices=2)
    assert {"slice 4: 2", "slice 6: -1", "-2", "+2"} <= set(texts(drawing))
    assert any("100% of the relevance" in text for text in texts(volume(values, slices=6)))
    same_picture(volume(values, slices=3, size=42), "volume")
    volume(np.zeros((2, 1, 1, 1))).to_image()
    with pytest.raises(InputError, match="axis"):
        volume(values, axis=3)


def test_layers_show_what_they_hold() -> None:
    held = {"conv1": np.array([1.0, -0.25]), "conv2": np.array([0.5])}
    drawing = layer_bars(held, 1.0)
    assert {"conv1", "conv2", "score 1"} <= set(texts(drawing))
    assert any("positive 1, negative -0.25, sum 0.75" in mark.title for mark in drawing.marks if isinstance(mark, Rect))
    assert texts(channel_bars(torch.tensor([[1.0, 2.0], [0.0, -1.0]])))[:2] == ["channel 0", "3"]
    with pytest.raises(InputError, match="layers="):
        layer_bars({})


def result(*shape: int, seed: int = 0) -> relprop.Relevance:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 3))
    return relprop.attribute(model, x, [0, 2], labels=["cat", "dog", "a<b>"])


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((2, 5), "table"), ((2, 3, 20), "series"), ((2, 3, 8, 8), "image"), ((2, 1, 4, 4, 4), "volume")],
)
def test_the_kind_follows_from_the_shape(shape: tuple[int, ...], kind: str) -> None:
    found = result(*shape).views(Options())
    assert [view.kind for view in found] == [kind] * 2
    assert [view.title for view in found] == ["sample 0: cat (0)", "sample 1: a<b> (2)"]
    for view in found:
        assert view.draw().to_image().size[0] > 50
        assert re.search(r"score .*, relevance .*, residual ", view.lines[0])


def test_options_choose_the_kind() -> None:
    tokens = ["a", "b", "c", "d", "e"]
    assert result(2, 5).views(Options(tokens=tokens))[0].kind == "text"
    assert result(2, 5, 4).views(Options(tokens=[tokens, tokens]))[1].kind == "text"
    assert result(2, 900).views(Options(rate=8000))[0].kind == "audio"
    assert result(2, 3, 4).views(Options(kind="table"))[0].kind == "table"
    with pytest.raises(InputError, match="kind 'picture'"):
        Options(kind="picture")
    with pytest.raises(InputError, match="tokens"):
        result(2, 5).views(Options(kind="text"))


def test_a_shared_scale_is_the_same_for_all_samples() -> None:
    found = result(2, 3, 8, 8).views(Options(shared=True))
    assert found[0].data.scale == found[1].data.scale and found[0].data.scale.how == "shared by 2 maps"
    own = result(2, 3, 8, 8).views(Options())
    assert own[0].data.scale.limit != own[1].data.scale.limit
    assert found[0].data.scale.limit == max(view.data.scale.limit for view in own)


def test_what_is_left_out_is_said() -> None:
    R = result(2, 5)
    assert len(R.views(Options(most=1))) == 1
    assert "1 more samples are not drawn" in R.to_svg(most=1)


def test_several_inputs_have_a_view_each() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(1, 4), torch.randn(1, 3, 6, 6)
    R = relprop.attribute(lambda p, q: p.sum(1) + (q**2).sum((1, 2, 3)), (a, b))
    assert [(view.kind, view.title) for view in R.views(Options())] == [
        ("table", "the output, input [0]"),
        ("image", "the output, input [1]"),
    ]
    R.to_image()


def test_a_ledger_says_what_absorbed() -> None:
    R = result(2, 5)
    rest = float(R.residual[0])
    assert absorbed(R, 0) == {"kept inside the network": pytest.approx(rest)}
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(5, 3))
    told = relprop.attribute(model, R.inputs, [0, 2], ledger=True)
    assert sum(absorbed(told, 0).values()) == pytest.approx(float(told.residual[0]), rel=1e-12)
    assert absorbed(told, 0)["biases and stabilisers"] == pytest.approx(rest, rel=1e-4)
    assert set(absorbed(told, 0)) <= {"biases and stabilisers", "rounding"}
    assert "biases and stabilisers" in told.to_html() and "biases and stabilisers" in told.to_svg()
    told.residual = 2 * told.residual  # as if half of it were of unknown cause
    assert absorbed(told, 0)["other constants"] == pytest.approx(rest, rel=1e-4)


def test_a_long_series_is_drawn_by_its_outline() -> None:
    drawing = series(np.ones(50_000), np.sin(np.arange(50_000)))
    lines = [mark.points for mark in drawing.marks if isinstance(mark, Line) and len(mark.points) > 2]
    assert [len(points) for points in lines] == [320, 320]
    assert all(high[1] <= low[1] for high, low in zip(*lines, strict=True))
    series(np.ones(50_000), np.full(50_000, np.nan)).to_image()


def test_a_page_lists_the_strongest_of_many_features() -> None:
    R = relprop.attribute(lambda x: x.sum(1), torch.linspace(-1, 1, 5000)[None])
    page = R.to_html()
    assert "The 1000 strongest of 5000 features" in page and len(page) < 200_000


def test_a_result_may_bring_its_tokens() -> None:
    R = result(2, 5)
    R.tokens = [["a", "b", "c", "d", "e"]] * 2
    assert [view.kind for view in R.views(Options())] == ["text", "text"]


def test_ids_of_tokens_have_relevance_each() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2)).eval()
    R = relprop.attribute(model, torch.tensor([[1, 5, 8]]), 0)
    assert "feature 1 = 5" in texts(R.views(Options())[0].draw())
    assert R.views(Options(tokens=["a", "b", "c"]))[0].entries[1][0] == " b"


def test_the_repr_names_classes_and_functions() -> None:
    model, x = nn.Linear(3, 4), torch.randn(2, 3)
    names = ["cat", "dog\x1b[31m", "cow", "hen"]
    assert "sample 0: cat (0), score" in repr(relprop.attribute(model, x, 0, labels=names))
    found = repr(relprop.attribute(model, x, [1, 2], labels=names))
    assert "dog?[31m (1)" in found and "cow (2)" in found
    of_contrast = relprop.attribute(model, x, relprop.Contrast(3, 0), labels=names)
    assert "hen (3) rather than cat (0)" in repr(of_contrast)

    def margin(output: torch.Tensor) -> torch.Tensor:
        return output[:, 0] - output[:, 1]

    called = relprop.attribute(model, x, margin)
    assert f"sample 1: target {margin.__qualname__}" in repr(called) and "0x" not in repr(called)
    assert called.subject(0) == f"target {margin.__qualname__}"


def test_the_bars_of_one_table_share_a_scale() -> None:
    torch.manual_seed(0)
    R = relprop.attribute(nn.Linear(3, 2), torch.tensor([[9.0, -9.0, 3.0], [0.1, 0.2, -0.1]]), 0)
    lengths = []
    for view in R.views(Options()):
        bars_of = [mark for mark in view.draw().marks if isinstance(mark, Rect)]
        lengths.append({mark.title.rpartition(": ")[0]: mark.width for mark in bars_of})
    for sample, drawn in enumerate(lengths):
        for n in range(3):
            ratio = drawn[f"feature {n} = {R.inputs[sample, n]:.4g}"] / abs(float(R.values[sample, n]))
            expected = lengths[0][f"feature 0 = {R.inputs[0, 0]:.4g}"] / abs(float(R.values[0, 0]))
            assert (
                ratio == pytest.approx(expected, rel=0.05) or drawn[f"feature {n} = {R.inputs[sample, n]:.4g}"] == 0.5
            )
    low, high = bar_ends(R.values[0])
    assert low == pytest.approx(min(0.0, float(R.values[0].min()))) and high == pytest.approx(
        max(0.0, float(R.values[0].max()))
    )
    assert bar_ends([3.0, -1.0], 1.5, {"softmax": -0.5}) == (0.0, 3.0)


def test_the_sum_of_others_is_an_outline() -> None:
    drawn = waterfall(np.array([3.0, -2.0, 0.5, 0.25]), 1.75, {}, list("abcd"), most=2)
    outlined = [mark for mark in drawn.marks if isinstance(mark, Rect) and mark.edge]
    assert [mark.title for mark in outlined] == ["(sum of 2 others): 0.75"]
    (label,) = [mark for mark in drawn.marks if isinstance(mark, Text) and "others" in mark.text]
    assert label.colour == FAINT


def test_the_colour_of_a_word_ends_with_it() -> None:
    shown = TokenMap.of(["good", " film", "  ", "end "], [1.0, -1.0, 0.5, 0.5], style="plain")
    page = html.tokens_html(shown)
    assert "</b> <b" in page and ">film</b>" in page and ">  </b>" in page and ">end</b> </p>" in page
    rects = [mark for mark in shown.drawing().marks if isinstance(mark, Rect) and mark.title]
    space = width(" ", 15)
    assert rects[1].x == pytest.approx(rects[0].x + rects[0].width + space, abs=1.5)
