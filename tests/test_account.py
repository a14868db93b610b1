"""What became of a score, in words and as a bar; box sums, and the note on a grid of dots."""

from __future__ import annotations

import math
from html import escape

import numpy as np
import pytest
import torch
from torch import nn

import relprop
from golden import same_picture
from relprop.errors import CompositeError, InputError
from relprop.rendering import Drawing, Heatmap, Options, account_bar, sentence
from relprop.rendering.marks import Line, Rect, Text
from relprop.rendering.smoothing import dotted, smoothed
from relprop.rendering.view import Row
from test_text_outputs import a_text

BIASES, SOFTMAX = "biases and stabilisers", "softmax"


def row(score: float, relevance: float, **absorbed: float) -> Row:
    named = {name.replace("_", " "): value for name, value in absorbed.items()}
    return Row("cat (3)", score, relevance, score - relevance, named)


def texts(drawn: Drawing) -> list[str]:
    return [mark.text for mark in drawn.marks if isinstance(mark, Text)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (row(9.21, 0.12, **{BIASES: 9.09}), "98.7 % of the score stayed in the network's biases and stabilisers; the map ranks the pixels."),
        (row(-4.0, -3.0, **{BIASES: -1.0}), "25 % of the score stayed in the network's biases and stabilisers; the pixels hold the other 75 %."),
        (row(2.0, 2.0), "The whole score arrived at the pixels, which add up to it."),
        (row(2.1, 3.5, **{BIASES: -1.4}), "The pixels hold 167 % of the score: the network's biases and stabilisers speak against it, with 66.7 %."),
        (row(2.0, -0.2, softmax=2.2), "Softmax holds 110 % of the score; the pixels speak against it, with 10 %."),
        (row(1.0, 0.00001, kept_inside_the_network=0.99999), ">99.9 % of the score stayed in the network itself; the map ranks the pixels."),
        (row(4.0, 1.0, softmax=2.0, **{BIASES: 1.0}), "75 % of the score stayed in softmax and the network's biases and stabilisers; the map ranks the pixels."),
        (row(0.0, 0.0), ""),
        (row(math.nan, 0.0), ""),
        (row(5.0, 1.0, softmax=1.0), ""),
    ],
)  # fmt: skip
def test_what_became_of_a_score_in_words(given: Row, said: str) -> None:
    assert sentence(given, "pixels") == said


def test_the_bar_is_as_long_as_its_parts() -> None:
    drawn = account_bar(row(8.0, 2.0, **{BIASES: 5.0}, softmax=1.0), unit="pixels", wide=240)
    bars = [mark for mark in drawn.marks if isinstance(mark, Rect) and mark.title]
    assert [bar.width for bar in bars] == pytest.approx([60, 150, 30])
    assert [bar.x for bar in bars] == pytest.approx([0, 60, 210])
    assert "arrived at the pixels 2" in texts(drawn) and "62.5 %" in texts(drawn)
    assert bars[1].title == "biases and stabilisers: 5 (62.5 % of the score)"


def test_what_speaks_against_leads_back_to_the_score() -> None:
    drawn = account_bar(row(-2.0, -3.0, **{BIASES: 1.0}), wide=300)
    ahead, back = (mark for mark in drawn.marks if isinstance(mark, Rect) and mark.title)
    (score,) = (mark for mark in drawn.marks if isinstance(mark, Line))
    assert (ahead.width, ahead.y) == (300, 0) and (back.x, back.width) == pytest.approx((200, 100)) and back.y > 0
    assert score.points[0][0] == pytest.approx(200, abs=1)
    same_picture(drawn, "account")


def test_many_causes_are_three_and_the_others() -> None:
    kept = {f"cause {n}": float(n) for n in range(1, 7)}
    drawn = account_bar(Row("x", 22.0, 1.0, 21.0, kept))
    assert [text for text in texts(drawn) if text.startswith(("cause", "others"))] == [
        "cause 6 6", "cause 5 5", "cause 4 4", "others 6"
    ]  # fmt: skip


def test_it_is_said_and_drawn_with_every_picture() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2)).eval()
    x = torch.rand(1, 1, 8, 8)
    R = relprop.attribute(model, x, 0, ledger=True)
    page, drawn = R.to_html(), R.to_svg()
    said = sentence(R.rows()[0], "pixels")
    assert said and escape(said) in page and "arrived at the pixels" in page and "arrived at the pixels" in drawn
    plain = relprop.attribute(model, x, 0, composite="gradient")
    assert "arrived" not in plain.to_html() and "stayed" not in plain.to_html()
    (of_table,) = relprop.attribute(nn.Linear(3, 2), torch.randn(1, 3), 0).views(Options())
    assert of_table.account is None and any("features" in line for line in of_table.lines)  # its bars end at the score


@pytest.mark.parametrize("side", [1, 2, 3, 5])
def test_box_sums_are_what_their_definition_says(side: int) -> None:
    values = np.random.default_rng(0).normal(size=(7, 6))
    expected = np.zeros_like(values)
    before, after = (side - 1) // 2, side // 2
    for y in range(7):
        for x in range(6):
            rows = [r for r in range(y - before, y + after + 1) if 0 <= r < 7]
            columns = [c for c in range(x - before, x + after + 1) if 0 <= c < 6]
            expected[np.ix_(rows, columns)] += values[y, x] / (len(rows) * len(columns))
    np.testing.assert_allclose(smoothed(values, side), expected, atol=1e-15)
    assert smoothed(values, side).sum() == pytest.approx(values.sum(), abs=1e-12)


def test_a_value_that_is_no_number_stays_where_it_is() -> None:
    values = np.ones((5, 5))
    values[2, 2] = np.nan
    spread = smoothed(values, 3)
    assert np.isnan(spread[2, 2]) and np.isfinite(np.delete(spread.ravel(), 12)).all()


@pytest.mark.parametrize("side", [0, -1, 1.5, True, 9])
def test_what_is_no_box_is_refused(side: object) -> None:
    with pytest.raises(InputError, match="smooth is"):
        Heatmap.of(torch.ones(4, 4), smooth=side)


def test_smooth_is_for_pictures() -> None:
    R = relprop.attribute(nn.Linear(3, 2), torch.randn(1, 3), 0)
    with pytest.raises(InputError, match="smooth=2 is for pictures; this is a table"):
        R.to_svg(smooth=2)
    with pytest.raises(InputError, match="smooth is 0"):
        R.to_svg(smooth=0)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (7, 2), (3, 1), (5, 1)])
def test_the_grid_of_a_first_layer_with_a_stride_is_noted(kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, kernel, stride, kernel // 2), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
                          nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)).eval()  # fmt: skip
    R = relprop.attribute(model, torch.rand(1, 3, 64, 64), 0, composite="gamma_flat")
    heatmap = Heatmap.of(R.values[0])
    assert dotted(heatmap.values) == (stride == 2) == ("stride of the network's first layer" in heatmap.note)
    even = Heatmap.of(R.values[0], smooth=2)
    assert not dotted(even.values) and "each pixel spread over 2 x 2" in even.note
    assert even.values.sum() == pytest.approx(heatmap.values.sum())


def test_without_shares_of_biases_the_score_of_a_residual_network_arrives() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norm = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)
            self.conv, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.norm(self.stem(x)).relu()
            return self.head((x + self.conv(x).relu()).mean((2, 3)))

    torch.manual_seed(1)
    model = Residual().double()
    model.norm.running_mean.uniform_(-1, 1)
    model.eval()
    x = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    auto, without = (relprop.attribute(model, x, 1, composite=name) for name in ("auto", "zero_bias"))
    assert auto.residual.abs().min() > 1e-2 and without.residual.abs().max() < 1e-4 * without.score.abs().max()
    torch.testing.assert_close(without.values.sum((1, 2, 3)), without.score, rtol=1e-4, atol=1e-6)
    z_plus = relprop.composites.zero_bias("epsilon_plus")
    assert z_plus.name == "zero_bias(epsilon_plus)" and "ZeroBias(rule=ZPlus())" in str(z_plus)
    with pytest.raises(CompositeError, match="'auto'"):
        relprop.composites.zero_bias("auto")


def test_what_ended_in_positions_is_part_of_the_account() -> None:
    ended = a_text(score=torch.tensor([1.0]), residual=torch.tensor([0.44]), positions={"rotary": torch.tensor([0.5])})
    (view,) = ended.views(Options())
    assert "stayed in position encodings and the network itself" in " ".join(view.lines) and view.account is not None
    assert "position encodings 0.5" in texts(view.account)
