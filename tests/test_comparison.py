"""Targets by composites: one figure, one file, and the numbers of its parts."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import relprop
from golden import same_picture
from relprop.errors import CompositeError, InputError, TargetError
from relprop.rendering import Drawing, Options
from relprop.rendering.bars_side_by_side import bars_side_by_side
from relprop.rendering.marks import Picture, Rect, Text
from relprop.rendering.scale import number
from relprop.rendering.view import Row, View
from relprop.results.comparison import Comparison
from relprop.results.files.size import Size

NAMES = ["cat", "dog", "cow"]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()


@pytest.fixture(scope="module")
def compared(model: nn.Module) -> Comparison:
    torch.manual_seed(1)
    targets = [0, 1, relprop.Contrast(0, 1)]
    return relprop.compare(model, torch.rand(1, 3, 8, 8), targets, ["auto", "epsilon", "zero_bias"], labels=NAMES)


def drawing(result: Comparison, **options: object) -> Drawing:
    (view,) = result.views(Options(**options))
    return view.draw()


def test_its_parts_are_those_of_attribute(model: nn.Module, compared: Comparison) -> None:
    assert compared.columns == ["auto (gamma_box)", "epsilon", "zero_bias"] and len(compared.results) == 3
    x = compared.given()
    for row, target in enumerate([0, 1, relprop.Contrast(0, 1)]):
        for column, composite in enumerate(["auto", "epsilon", "zero_bias"]):
            alone = relprop.attribute(model, x, target, composite=composite, ledger=True)
            part = compared[row, column]
            torch.testing.assert_close(part.values, alone.values, rtol=0, atol=0)
            assert part.residual == alone.residual and dict(part.ledger) == dict(alone.ledger)
    assert compared.subject(4) == "dog (1) by epsilon" and compared.rows()[4].score == float(compared[1, 1].score)
    assert "cat (0) rather than dog (1)" in repr(compared)


def test_one_target_and_one_composite_need_no_list(model: nn.Module) -> None:
    C = relprop.compare(model, torch.rand(2, 3, 8, 8), 2, "epsilon")
    assert len(C) == 2 and C.columns == ["epsilon"] and len(C.results) == 1
    assert [view.sample for view in C.views(Options())] == [0, 1] and len(C.alone(1)) == 1
    per_sample = relprop.compare(model, torch.rand(2, 3, 8, 8), [[0, 2]], {"mine": relprop.composites.epsilon(0.1)})
    assert per_sample.columns == ["mine"] and per_sample[0, 0].target == [0, 2]
    assert per_sample.subject(1) == "target 2 by mine"


def test_maps_are_aligned_of_one_size_and_as_wide_as_asked(compared: Comparison) -> None:
    for room in (360, 700):
        drawn = drawing(compared, room=room)
        assert drawn.width == pytest.approx(room, abs=0.01)
        maps = [m for m in drawn.marks if isinstance(m, Picture) and m.height > 20]
        assert len(maps) == 10 and len({(round(m.width, 3), round(m.height, 3)) for m in maps}) == 1
        lefts = sorted({round(m.x, 3) for m in maps})
        assert len(lefts) == 4 and np.ptp(np.diff(lefts)) < 0.01
        assert len({round(m.y, 3) for m in maps}) == 3
        assert max(m.x + m.width for m in maps) <= room


def test_the_input_is_drawn_once_and_all_is_said(compared: Comparison) -> None:
    said = [mark.text for mark in drawing(compared).marks if isinstance(mark, Text)]
    assert said.count("input") == 1 and sum(text.endswith("arrived") for text in said) == 9
    assert "dog (1), score " in " ".join(said) and {"epsilon", "zero_bias"} <= set(said)


def test_one_scale_has_one_bar(compared: Comparison) -> None:
    own = [m.text for m in drawing(compared).marks if isinstance(m, Text)]
    shared = [m.text for m in drawing(compared, shared=True).marks if isinstance(m, Text)]
    assert own.count("0") == 9 and shared.count("0") == 1
    assert "shared by 9 maps" in " ".join(shared)


def test_the_figure_is_what_it_was(compared: Comparison) -> None:
    same_picture(drawing(compared, room=320), "comparison")
    same_picture(drawing(compared, room=320, shared=True), "comparison-shared")


def test_a_folder_gives_it_back(compared: Comparison, tmp_path: Path) -> None:
    compared.save(tmp_path / "run")
    loaded = relprop.load(tmp_path / "run")
    assert isinstance(loaded, Comparison) and loaded.columns == compared.columns
    for row in range(3):
        for column in range(3):
            one, other = compared[row, column], loaded[row, column]
            assert torch.equal(one.values, other.values) and torch.equal(one.residual, other.residual)
            assert one.target == other.target and str(one.composite) == str(other.composite)
            assert [str(place) for place, _ in one.rules] == [str(place) for place, _ in other.rules]
            for cause, amount in one.ledger.items():
                torch.testing.assert_close(other.ledger[cause], amount)
    without = lambda page: re.sub(", weights sha256 [0-9a-f]+", "", page)  # noqa: E731
    assert without(loaded.to_html()) == without(compared.to_html())
    for suffix in ("json", "npz"):
        compared.save(tmp_path / f"r.{suffix}")
    with np.load(tmp_path / "r.npz") as arrays:
        assert sum(name.startswith("values") for name in arrays) == 9


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("columns", []), ("columns", ["a"]), ("values", [torch.ones(1, 3, 8, 8)]), ("tables", [["a", "b", 1]] * 3),
        ("tables", None), ("rules_each", [1, 1, 1]), ("rules_each", [-1, 1, 1]), ("score", torch.ones(4)), ("residual", None),
    ],
)  # fmt: skip
def test_a_folder_that_does_not_fit_is_refused(compared: Comparison, name: str, wrong: object) -> None:
    content = compared.kept() | {name: wrong}
    made = {"composite": compared.composite, "rules": compared.rules, "model": None, "unknown": {}, "notices": []}
    with pytest.raises(ValueError, match=r"do not fit|not described|no rows|not rows of numbers"):
        Comparison.restored(content, made, lambda count: compared.ledger)


def test_files_are_as_wide_as_asked(compared: Comparison, tmp_path: Path) -> None:
    compared.save(tmp_path / "a.png", width="85mm", dpi=300)
    with Image.open(tmp_path / "a.png") as image:
        assert image.width == 1004 and image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    compared.save(tmp_path / "a.jpg", width="85mm")
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.width == 1004 and image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    compared.save(tmp_path / "b.png", width=700)
    with Image.open(tmp_path / "b.png") as image:
        assert image.width == 700
    compared.save(tmp_path / "c.svg", width="17cm")
    width = float(re.search(r'width="([\d.]+)"', (tmp_path / "c.svg").read_text(encoding="utf-8"))[1])
    assert width == pytest.approx(17 / 2.54 * 96, abs=0.1)
    compared.save(tmp_path / "d.pdf", width="170mm")
    box = re.search(rb"MediaBox \[0 0 ([\d.]+)", (tmp_path / "d.pdf").read_bytes())[1]
    assert float(box) == pytest.approx(170 / 25.4 * 72, abs=0.1)
    # Any result has a width.
    compared[0, 0].save(tmp_path / "e.png", width="3in", dpi=100)
    with Image.open(tmp_path / "e.png") as image:
        assert image.width == 300


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"width": "wide"}, "width is 'wide'"), ({"width": -1}, "width is -1"), ({"width": True}, "width is True"),
        ({"width": 5}, "at least 48"), ({"width": "170mm", "dpi": 0}, "dpi is 0"), ({"dpi": 300}, "dpi needs width="),
        ({"width": 500, "scale": 2}, "scale or width"),
    ],
)  # fmt: skip
def test_what_is_no_size_is_refused(
    compared: Comparison, tmp_path: Path, options: dict[str, object], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        compared.save(tmp_path / "a.png", **options)
    with pytest.raises(InputError, match="as wide as its window"):
        compared.save(tmp_path / "a.html", width=500)
    assert not list(tmp_path.iterdir())


def test_sizes_in_all_units() -> None:
    assert Size.of(960) == Size(960.0, 96.0, 960) and Size.of("1in") == Size(96.0, 300.0, 300)
    assert Size.of("25.4 mm") == Size.of("2.54cm") == Size.of("1in") and Size.of("300px", 300).drawn == 96.0


def test_pages_show_a_grid_and_terminals_each_map(
    compared: Comparison, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    relprop.report([compared], tmp_path / "r.html")
    for page in ((tmp_path / "r.html").read_text(encoding="utf-8"), compared._repr_html_()):
        assert page.count("figures c4") == 3 and page.count(">input</strong>") == 1
    compared.show("terminal")
    said = capsys.readouterr().out
    assert said.count("means of blocks") == 9 and "cat (0): epsilon" in said
    with pytest.raises(InputError, match=r"C\[0, 1\]\.plot"):
        pytest.importorskip("matplotlib") and compared.plot()


def test_series_are_drawn_one_below_the_other(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    C = relprop.compare(network, torch.randn(1, 2, 6), [0, 1], ["epsilon", "zero"])
    said = [mark.text for mark in drawing(C).marks if isinstance(mark, Text)]
    assert "target 1: zero" in said and "target 0: epsilon" in said
    C.save(tmp_path / "a.pdf")
    assert C.to_html().count("<h4>") == 4


# ---------------------------------------------------------------------------------------------------------- tables


@pytest.fixture(scope="module")
def tables() -> Comparison:
    torch.manual_seed(2)
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    columns = {"age": [1.5], "income": [-2.0], "number of children": [0.5], "distance": [-1.0]}
    return relprop.compare(network, columns, [0, 1], ["zero", "epsilon_plus"], labels=["stays", "leaves"])


def test_tables_have_a_line_per_feature_and_bars_per_composite(tables: Comparison) -> None:
    drawn = drawing(tables, room=500)
    said = [mark for mark in drawn.marks if isinstance(mark, Text)]
    assert drawn.width == pytest.approx(500)
    for row in range(2):
        relative = torch.stack([r.values[0].abs() / r.values.abs().max() for r in tables.results[row]]).amax(0)
        expected = [tables[row, 0].names[i] for i in relative.argsort(descending=True)]
        assert [mark.text for mark in said if mark.text in expected][4 * row : 4 * row + 4] == expected
    bars = [mark for mark in drawn.marks if isinstance(mark, Rect)]
    assert len(bars) == 16
    for row in range(2):
        for column in range(2):
            values = dict(zip(tables[row, column].names, tables[row, column].values[0].tolist(), strict=True))
            mine = bars[8 * row + 4 * column : 8 * row + 4 * column + 4]
            assert {bar.title for bar in mine} == {f"{name}: {number(value)}" for name, value in values.items()}
            longest = max(values.values(), key=abs)
            scale = max(bar.width for bar in mine) / abs(longest)
            for bar in mine:
                assert bar.width == pytest.approx(max(abs(values[bar.title.split(":")[0]]) * scale, 0.5), abs=0.01)
    assert sum(mark.text.endswith("arrived") for mark in said) == 4 and said[-1].text.startswith("Each column")


def test_columns_of_bars_may_share_a_scale(tables: Comparison) -> None:
    bars = [mark for mark in drawing(tables, shared=True).marks if isinstance(mark, Rect)]
    values = [abs(float(bar.title.split(": ")[1])) for bar in bars]
    scales = [bar.width / value for bar, value in zip(bars, values, strict=True) if bar.width > 5]
    assert max(scales) / min(scales) < 1.02  # the titles are rounded


def test_many_features_are_the_strongest_and_the_sum_of_others() -> None:
    C = relprop.compare(nn.Linear(40, 1), torch.randn(1, 40), 0, ["zero"])
    said = [mark.text for mark in drawing(C).marks if isinstance(mark, Text)]
    assert sum(text.startswith("feature") for text in said) == 15 and "(sum of 25 others)" in said
    values = np.array([[1.0, np.nan, -2.0], [0.0, 0.0, 0.0]])
    cells = {
        ("a", name): View(
            "table",
            0,
            "a",
            (),
            Drawing,
            list(zip("xyz", row.tolist(), strict=True)),
            rows=[Row("a", 1.0, 1.0, 0.0, {})],
        )
        for name, row in zip(("first", "second"), values, strict=True)
    }
    odd = bars_side_by_side(cells, ["first", "second"])
    assert [mark.text for mark in odd.marks if isinstance(mark, Text)].count("not finite") == 1


def test_the_figure_of_tables_is_what_it_was(tables: Comparison) -> None:
    same_picture(drawing(tables, room=420), "comparison-tables")


def test_pages_and_files_hold_all_numbers_of_tables(tables: Comparison, tmp_path: Path) -> None:
    page = tables.to_html()
    assert page.count("<details class=screen><summary>The numbers of") == 2
    tables.save(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16
    last = rows[-1]
    assert last["target"] == "leaves (1) by epsilon_plus" and last["name"] == "distance"
    assert float(last["relevance"]) == tables[1, 1].values[0, 3].item()


def test_what_cannot_be_compared_is_refused(model: nn.Module, compared: Comparison) -> None:
    x = torch.rand(1, 3, 8, 8)
    with pytest.raises(CompositeError, match="nothing to compare"):
        relprop.compare(model, x, 0)
    with pytest.raises(CompositeError, match="two columns are called 'epsilon'"):
        relprop.compare(model, x, 0, ["epsilon", relprop.composites.epsilon(0.1)])
    with pytest.raises(CompositeError, match="composites is a list"):
        relprop.compare(model, x, 0, 3)
    with pytest.raises(TargetError):
        relprop.compare(model, x, [9], ["epsilon"])
    with pytest.raises(InputError, match=r"compare_text\(model, tokenizer, text"):
        relprop.compare(model, "a text", 0, ["epsilon"])
    with pytest.raises(InputError, match=r"C\[row, column\]"):
        compared[0]
    with pytest.raises(IndexError):
        compared[0, 7]
