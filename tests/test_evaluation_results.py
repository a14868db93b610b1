"""The result of an evaluation: comparisons, tables, drawings, folders and reports."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import relprop
from networks import convolutional
from relprop.errors import FormatError, InputError
from relprop.evaluation import Evaluation
from relprop.evaluation.paired_statistics import best_of, differences, holm, interval, wilcoxon


@pytest.fixture(scope="module")
def found() -> Evaluation:
    torch.manual_seed(0)
    x = torch.rand(24, 3, 8, 8)
    methods = {"auto": "auto", "zero": "zero", "again": relprop.composites.zero()}
    return relprop.evaluate(convolutional(), x, 0, methods, metrics=["flipping", "complexity"], units=("patches", 2))


def test_two_methods_that_are_equal(found: Evaluation) -> None:
    pytest.importorskip("scipy")
    (first, second) = (each for each in found.compare("zero") if each.method == "again")
    for each in (first, second):
        assert (each.mean, each.error, each.low, each.high, each.p, each.beyond) == (0, 0, 0, 0, 1, 0)
    assert ("zero" in found.best()) == ("again" in found.best())
    values = torch.randn(1, 30).double().expand(2, 30)
    assert best_of(values, ["a", "b"], 1) == ["a", "b"]


def test_differences_are_paired() -> None:
    stats = pytest.importorskip("scipy.stats")
    base = 100 * torch.randn(30).double()
    gap = 0.5 + 0.1 * torch.randn(30).double()
    for better in (1, -1):
        (one,) = differences(torch.stack([base, base + better * gap]), ["a", "b"], "a", "s", better)
        assert abs(one.mean - float(gap.mean())) < 1e-10
        assert abs(one.error - float(gap.std()) / 30**0.5) < 1e-10
        assert one.low < one.mean < one.high
        assert abs(one.high - one.low - 4 * one.error) < one.error
        assert abs(one.p - float(stats.wilcoxon(gap.numpy()).pvalue)) < 1e-6
        assert one.beyond > 10


def test_what_is_not_there_counts_for_nothing() -> None:
    pytest.importorskip("scipy")
    a = torch.tensor([1.0, 2, 3, float("nan")])
    (one,) = differences(torch.stack([a, a + 1]), ["a", "b"], "a", "s", 1)
    assert (one.samples, one.mean) == (3, 1.0)
    (none,) = differences(torch.full((2, 3), float("nan")), ["a", "b"], "a", "s", 1)
    assert none.samples == 0 and none.mean != none.mean and none.p != none.p
    assert best_of(torch.full((2, 3), float("nan")), ["a", "b"], 1) == []


def test_p_values_are_corrected() -> None:
    assert holm([0.01, 0.04, 0.03]) == [0.03, 0.06, 0.06]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
    assert wilcoxon(torch.zeros(5)) == 1.0
    low, high = interval(torch.ones(1))
    assert low != low and high != high  # NaN


def test_the_best_are_those_within_error() -> None:
    base = torch.randn(50).double()
    noise = torch.randn(50).double()
    values = torch.stack([base, base - 0.01 * noise - 0.001, base - 1 - 0.1 * noise])
    assert best_of(values, ["a", "b", "c"], 1) == ["a", "b"]
    assert best_of(values, ["a", "b", "c"], -1) == ["c"]
    assert best_of(values, ["a", "b", "c"], 0) == []


def test_an_interval_covers_the_mean_as_often_as_it_says() -> None:
    chance = torch.Generator().manual_seed(1)
    hits = 0
    for _ in range(200):
        low, high = interval(torch.randn(40, generator=chance).double())
        hits += low <= 0 <= high
    assert 0.88 < hits / 200 < 0.99


def test_numbers_are_found_by_name(found: Evaluation) -> None:
    blur = next(each for each in found.columns if each.name == "abpc [Blur()]")
    assert torch.equal(found["abpc [Blur()]"], blur.values)
    both = torch.stack([each.values for each in found.find("abpc")])
    torch.testing.assert_close(found["abpc"], both.mean(0))
    with pytest.raises(InputError, match="there is no score 'abp'; there are: abpc"):
        found["abp"]
    with pytest.raises(InputError, match="no method 'ig'"):
        found.compare("ig")
    with pytest.raises(InputError, match="ranks nothing"):
        found.compare("auto", "entropy")


def test_quality_against_cost(found: Evaluation) -> None:
    front = found.pareto()
    assert front and set(front) <= {"auto", "zero", "again"}
    assert not {"zero", "again"} <= set(front)  # equal in both


def test_agreement_of_replacements(found: Evaluation) -> None:
    ((pair, value),) = found.agreement().items()
    assert pair == ("SampleMean()", "Blur()")
    assert -1 <= value <= 1


def test_warnings_say_what_is_doubtful() -> None:
    few = relprop.evaluate(convolutional(), torch.rand(3, 3, 8, 8), 0, {"noise": torch.randn(3, 3, 8, 8)})
    said = "\n".join(few.warnings())
    assert "3 samples are few" in said
    assert "'noise' is not two standard errors better than" in said


def test_tables_in_every_form(found: Evaluation) -> None:
    text = found.table()
    assert "auto" in text and "(random)" in text and "±" in text and "24 samples" in text and "*" in text
    assert repr(found) == text
    latex = found.table("latex")
    assert latex.startswith(r"\begin{tabular}{l") and r"abpc\_normalised" in latex and r"$\pm$" in latex
    rows = list(csv.DictReader(io.StringIO(found.table("csv"))))
    assert len(rows) == len(found.methods) * len(found.columns)
    first = next(row for row in rows if row["method"] == "zero" and row["score"] == "abpc")
    assert abs(float(first["mean"]) - float(found.find("abpc")[0].values[1].mean())) < 1e-12
    with pytest.raises(InputError, match="no form 'html'"):
        found.table("html")


def test_a_data_frame(found: Evaluation) -> None:
    pytest.importorskip("pandas")
    frame = found.table("pandas")
    assert len(frame) == len(found.methods) * len(found.columns) * 24
    values = frame[(frame.method == "zero") & (frame.score == "abpc") & (frame.replacement == "Blur()")].value
    assert values.tolist() == found["abpc [Blur()]"][1].tolist()


def test_a_rich_table(found: Evaluation) -> None:
    console = pytest.importorskip("rich.console")
    page = console.Console(file=io.StringIO(), width=300, record=True)
    page.print(found.table("rich"))
    assert "zero" in page.export_text()


def test_samples_where_methods_disagree(found: Evaluation) -> None:
    order = found.disagreements(24)
    assert sorted(order) == list(range(24))
    assert found.disagreements(2) == order[:2]


def test_folders_hold_it_all(found: Evaluation, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    found.save(tmp_path / "kept")
    again = relprop.load(tmp_path / "kept")
    assert isinstance(again, Evaluation)
    assert again.table() == found.table()
    assert again.cost == found.cost
    for a, b in zip(found.columns, again.columns, strict=True):
        torch.testing.assert_close(a.values, b.values, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(again.relevance, found.relevance)
    assert torch.equal(again.layout, found.layout)


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c.update(methods=[["dict", []]]),
        lambda c: c.update(columns=[]),
        lambda c: c.update(cost={"dict": []}),
        lambda c: c.pop("units"),
        lambda c: c.update(of=3),
        lambda c: c.update(layout=c["score"]),
    ],
)
def test_a_damaged_folder_is_refused(found: Evaluation, tmp_path: Path, damage: Any) -> None:
    pytest.importorskip("safetensors")
    found.save(tmp_path / "kept")
    path = tmp_path / "kept" / "manifest.json"
    manifest = json.loads(path.read_text())
    damage(manifest["content"])
    path.write_text(json.dumps(manifest))
    with pytest.raises(FormatError):
        relprop.load(tmp_path / "kept")


def test_drawings_and_reports(found: Evaluation, tmp_path: Path) -> None:
    for name in ("e.png", "e.svg", "e.pdf", "e.html", "e.json", "e.npz"):
        found.save(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 500
    R = relprop.attribute(convolutional(), torch.rand(1, 3, 8, 8), 0)
    relprop.report({"Map": [R], "How far it can be trusted": [found]}, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "How far it can be trusted" in page and "most relevant first" in page


def test_maps_are_drawn_where_methods_disagree(found: Evaluation) -> None:
    from relprop.rendering import Options

    titles = [view.title for view in found.views(Options())]
    assert titles[-1] == "Where the methods disagree most"
    lone = relprop.evaluate(convolutional(), torch.rand(3, 3, 8, 8), 0, ["zero"])
    assert len(lone.views(Options())) == 2


def test_matplotlib(found: Evaluation) -> None:
    pytest.importorskip("matplotlib").use("agg")
    from matplotlib import pyplot

    figure, ax = pyplot.subplots()
    assert found.plot(ax, score="lerf") is ax
    assert len(ax.lines) == len(found.methods)
    pyplot.close(figure)
    with pytest.raises(InputError, match="no curve"):
        found.plot(score="entropy")


def test_one_sample_has_no_error() -> None:
    one = relprop.evaluate(convolutional(), torch.rand(1, 3, 8, 8), 0, ["zero"])
    assert "?" in one.table()
    assert one.to_svg()
