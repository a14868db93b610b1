"""Many results as one: tables with names, texts as one list, summaries, groups, data frames, CSV and Parquet."""

from __future__ import annotations

import csv
import json
import pickle
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import relprop
from golden import same_picture
from relprop.errors import FormatError, InputError, TargetError
from relprop.rendering.summaries import beeswarm, importance, sample_map
from relprop.results.many import TextResults
from relprop.results.summary import Summary
from text_models import Plain, words

pandas = pytest.importorskip("pandas")
NAMES = ["age", "income", "target", "year"]
TEXTS = [
    "the film was good",
    "a film was not very good",
    "bad film bad film",
    "opec cut crude output",
    "paris is the capital",
]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval()


@pytest.fixture
def frame() -> Any:
    return pandas.DataFrame(np.random.default_rng(0).normal(size=(40, 4)), columns=NAMES, index=range(100, 140))


# ---------------------------------------------------------------------------------------------------------- tables


def test_a_data_frame_and_a_dict_of_columns_are_tables(model: nn.Module, frame: Any) -> None:
    wanted = relprop.attribute(model, torch.tensor(frame.to_numpy()))
    for table in (frame, {name: frame[name] for name in NAMES}, {name: frame[name].tolist() for name in NAMES}):
        found = relprop.attribute(model, table)
        torch.testing.assert_close(found.values, wanted.values)
        assert found.names == NAMES
    assert [name for name, _ in found.views(_options())[0].entries] == NAMES
    assert found[:3].names == NAMES


def _options() -> Any:
    from relprop.rendering import Options

    return Options()


def test_the_dict_of_a_models_own_arguments_is_no_table() -> None:
    class Two(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return a * 2 + b

    found = relprop.attribute(Two().eval(), {"a": torch.ones(3, 2), "b": torch.ones(3, 2)}, 1)
    assert set(found.values) == {"a", "b"} and found.names is None
    with pytest.raises(InputError, match="inputs must be tensors"):
        relprop.attribute(Two().eval(), {"a": [1.0, 2.0], "b": [1.0, 2.0]}, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.assign(city="Paris"), "column 'city' holds"),
        (lambda f: f.assign(age=float("nan")), "column 'age' holds NaN"),
        (lambda f: f.iloc[:0], "the table is empty"),
        (lambda f: pandas.concat([f, f[["age"]]], axis=1), "two columns of the same name"),
        (lambda f: {"age": [1.0, 2.0], "year": [1.0]}, "differ in length: age 2, year 1"),
    ],
)
def test_bad_tables(model: nn.Module, frame: Any, change: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        relprop.attribute(model, change(frame))


def test_names_are_saved(model: nn.Module, frame: Any, tmp_path: Path) -> None:
    found = relprop.attribute(model, frame)
    found.save(tmp_path / "kept")
    assert relprop.load(tmp_path / "kept").names == NAMES
    manifest = json.loads((tmp_path / "kept" / "manifest.json").read_text())
    manifest["content"]["names"] = [1, 2]
    (tmp_path / "kept" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(FormatError, match="names of its features"):
        relprop.load(tmp_path / "kept")


def test_the_data_frame_holds_what_the_result_holds(model: nn.Module, frame: Any, tmp_path: Path) -> None:
    found = relprop.attribute(model, frame, labels=["low", "middle", "high"])
    wide = found.to_pandas()
    assert list(wide.columns) == ["explained", "score", "residual", *NAMES]
    np.testing.assert_array_equal(wide[NAMES].to_numpy(), found.values.numpy())
    np.testing.assert_allclose(wide[NAMES].sum(axis=1) + wide["residual"], wide["score"])
    assert wide["explained"][0] == found.subject(0)
    found.save(tmp_path / "r.parquet")
    pandas.testing.assert_frame_equal(pandas.read_parquet(tmp_path / "r.parquet"), wide)
    clash = relprop.attribute(model, frame.rename(columns={"target": "score"})).to_pandas()
    assert list(clash.columns) == ["explained", "relprop score", "residual", "age", "income", "score", "year"]
    with pytest.raises(InputError, match="3 names for 4 features"):
        found.to_pandas(names=["a", "b", "c"])
    pictures = relprop.attribute(nn.Conv2d(3, 2, 3).eval(), torch.rand(2, 3, 5, 5), relprop.Over(1))
    with pytest.raises(InputError, match=r"not a table: pass groups="):
        pictures.to_pandas()
    with pytest.raises(InputError, match=r"not a table: pass groups="):
        pictures.save(tmp_path / "p.parquet")


def test_the_csv_of_a_table_is_what_its_drawing_lists(model: nn.Module, frame: Any, tmp_path: Path) -> None:
    found = relprop.attribute(model, frame)
    found.save(tmp_path / "fast.csv")
    found.save(tmp_path / "drawn.csv", kind="table")
    assert (tmp_path / "fast.csv").read_text() == (tmp_path / "drawn.csv").read_text()


def test_ten_thousand_rows(model: nn.Module, tmp_path: Path) -> None:
    many = pandas.DataFrame(np.random.default_rng(0).normal(size=(10_000, 4)), columns=NAMES)
    begin = time.perf_counter()
    found = relprop.attribute(model, many)
    found.save(tmp_path / "r.csv")
    summary = found.summary()
    for drawn in (summary, summary.by_class(), summary.beeswarm(), summary.heatmap()):
        drawn.save(tmp_path / "s.svg")
    assert time.perf_counter() - begin < 60
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 40_001
    assert (tmp_path / "s.svg").stat().st_size < 2_000_000


# ---------------------------------------------------------------------------------------------------------- groups


def test_groups_of_features(model: nn.Module, frame: Any) -> None:
    found = relprop.attribute(model, frame)
    grouped = found.grouped({"person": ["age", "income"], "time": 3})
    assert grouped.names == ["person", "time", "in no group"]
    np.testing.assert_allclose(
        grouped.values, np.stack([found.values[:, :2].sum(1), found.values[:, 3], found.values[:, 2]], 1)
    )
    torch.testing.assert_close(found.grouped(["a", "b", "a", "b"]).values[:, 0], found.values[:, [0, 2]].sum(1))
    assert list(found.to_pandas(groups=["a", "b", "a", "b"]).columns[-2:]) == ["a", "b"]
    for groups, message in (
        ({"a": ["age"], "b": ["age"]}, "shares a feature"),
        ({"a": ["height"]}, "there is no feature 'height'; there are: age"),
        ({"a": [9]}, "by index below 4"),
        ({}, "groups is empty"),
        ([0, 1], "groups has the shape"),
        (torch.rand(4), "integers with the group"),
        (torch.tensor([0, 1, -1, 0]), "negative"),
    ):
        with pytest.raises(InputError, match=message):
            found.grouped(groups)


def test_superpixels() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()
    pictures = torch.rand(4, 3, 6, 6)
    found = relprop.attribute(model, pictures)
    shared = torch.arange(4).reshape(2, 2).repeat_interleave(3, 0).repeat_interleave(3, 1)
    each = torch.stack([shared.roll(n, 0) for n in range(4)])
    for groups in (shared, each, each.numpy()):
        grouped = found.grouped(groups)
        labels = torch.as_tensor(groups).expand(4, 6, 6)
        for n in range(4):
            for g in range(4):
                torch.testing.assert_close(grouped.values[n, g], found.values[n].sum(0)[labels[n] == g].sum())
    half = torch.zeros(6, 6, dtype=torch.bool)
    half[:3] = True
    torch.testing.assert_close(found.grouped({"sky": half}).values[:, 0], found.values[:, :, :3].sum((1, 2, 3)))
    assert found.to_pandas(groups=shared).shape == (4, 7)
    summary = found.summary()
    assert summary.style == "maps"
    for k, name in enumerate(summary.classes):
        mine = [n for n in range(4) if found.subject(n) == name]
        torch.testing.assert_close(summary.maps[k], found.values[mine].sum(1).mean(0).double())
    assert len(summary.views(_options())) == len(summary.classes)


def test_groups_as_an_argument_are_columns_of_the_answer(model: nn.Module, frame: Any, tmp_path: Path) -> None:
    groups = {"person": ["age", "income"], "time": 3}
    alone = relprop.attribute(model, frame, 1)
    found = relprop.attribute(model, frame, 1, groups=groups)
    assert found.names == ["person", "time", "in no group"] and found.inputs is None
    assert torch.equal(found.values, alone.grouped(groups).values)
    torch.testing.assert_close(found.score, found.values.sum(1) + found.residual)
    first, second = relprop.attribute_each(model, frame, [0, 1], groups=groups, batch_size=3)
    torch.testing.assert_close(second.values, found.values)
    assert first.values.shape == found.values.shape
    found.save(tmp_path / "r")
    assert relprop.load(tmp_path / "r").names == found.names
    assert "person" in found[0].to_svg()

    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()
    pictures = torch.rand(4, 3, 6, 6)
    superpixels = torch.arange(4).reshape(2, 2).repeat_interleave(3, 0).repeat_interleave(3, 1)
    tiles = relprop.attribute(network, pictures, groups=superpixels)
    torch.testing.assert_close(
        tiles.values[:, 0], relprop.attribute(network, pictures).values[:, :, :3, :3].sum((1, 2, 3))
    )
    each = relprop.attribute(network, pictures, groups=superpixels.expand(4, 6, 6))
    assert torch.equal(each.values, tiles.values)


def test_groups_that_do_not_fit_are_refused_before_the_model_runs(model: nn.Module, frame: Any) -> None:
    def untouched(*inputs: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the model ran")

    for groups, message in (
        ({"a": [9]}, "by index below 4"),
        ({}, "groups is empty"),
        (torch.zeros(5).long(), "the shape"),
    ):
        with pytest.raises(InputError, match=message):
            relprop.attribute(untouched, torch.rand(2, 4), groups=groups)
    with pytest.raises(InputError, match="there is no feature 'height'"):
        relprop.attribute(model, frame, groups={"a": ["height"]})
    with pytest.raises(InputError, match="models with one input, and this one has 2"):
        relprop.attribute(untouched, (torch.rand(2, 4), torch.rand(2, 4)), groups={"a": [0]})


# ------------------------------------------------------------------------------------------------------- summaries


def test_the_summary_of_a_table_against_its_definition(model: nn.Module, frame: Any) -> None:
    found = relprop.attribute(model, frame)
    summary = found.summary()
    values = found.values.numpy()
    np.testing.assert_allclose(summary.mean, values.mean(0))
    np.testing.assert_allclose(summary.mean_abs, np.abs(values).mean(0))
    subjects = np.array([found.subject(n) for n in range(len(found))])
    for k, name in enumerate(summary.classes):
        np.testing.assert_allclose(summary.per_class[k], values[subjects == name].mean(0))
        assert int(summary.sizes[k]) == int((subjects == name).sum())
    listed = summary.to_pandas()
    row = listed[(listed["class"] == summary.classes[0]) & (listed["feature"] == "year")].iloc[0]
    assert row["mean"] == pytest.approx(values[subjects == summary.classes[0]][:, 3].mean())
    np.testing.assert_array_equal(summary.features, frame.to_numpy())


def test_summaries_are_drawn_saved_and_loaded(model: nn.Module, frame: Any, tmp_path: Path) -> None:
    summary = relprop.attribute(model, frame).summary()
    for drawn in (summary, summary.by_class(), summary.beeswarm(), summary.heatmap()):
        drawn.save(tmp_path / "kept")
        back = relprop.load(tmp_path / "kept")
        assert isinstance(back, Summary) and back.style == drawn.style
        assert back.to_svg() == drawn.to_svg()
        for suffix in (".html", ".json", ".npz", ".csv", ".parquet", ".pdf"):
            drawn.save(tmp_path / f"s{suffix}")
    rows = list(csv.reader((tmp_path / "s.csv").read_text().splitlines()))
    assert rows[0] == ["class", "feature", "count", "mean", "mean_abs"] and len(rows) == 1 + 4 * len(summary.classes)
    assert "mean |R|" in repr(summary)
    with pytest.raises(InputError, match="takes no options"):
        summary.save(tmp_path / "s.csv", most=3)


def test_a_damaged_summary_is_refused(model: nn.Module, frame: Any, tmp_path: Path) -> None:
    relprop.attribute(model, frame).summary().save(tmp_path / "kept")
    path = tmp_path / "kept" / "manifest.json"
    good = json.loads(path.read_text())
    for change in ({"names": ["a"]}, {"style": "pie"}, {"classes": [1]}, {"sizes": None}, {"label": None}, {"unit": 3}):
        path.write_text(json.dumps({**good, "content": {**good["content"], **change}}))
        with pytest.raises(FormatError):
            relprop.load(tmp_path / "kept")


def test_drawings_of_summaries() -> None:
    values = np.linspace(-1, 2, 120).reshape(40, 3) * np.array([1.0, 0.5, 0.2])
    same_picture(importance(list("abc"), np.abs(values).mean(0), values.mean(0), most=2), "importance")
    same_picture(beeswarm(values, values, list("abc")), "beeswarm")
    same_picture(sample_map(values, list("abc")), "sample-map")
    with pytest.raises(InputError):
        importance(list("ab"), [1.0], [1.0])
    with pytest.raises(InputError):
        beeswarm(values, values[:3], list("abc"))
    with pytest.raises(InputError):
        sample_map(values[0], list("abc"))


def test_a_beeswarm_of_one_point_and_of_constants() -> None:
    for values in (np.zeros((5, 2)), np.ones((1, 2)), np.full((3, 2), np.nan)):
        assert beeswarm(values, values, ["a", "b"]).to_image().width > 100


# ----------------------------------------------------------------------------------------------------------- texts


@pytest.fixture
def results() -> TextResults:
    tokenizer = words()
    return relprop.explain_text(
        Plain(len(tokenizer)).double().eval(), tokenizer, TEXTS, labels=["no", "yes", "maybe"], batch_size=1
    )


def test_texts_are_a_list_as_before(results: TextResults) -> None:
    assert isinstance(results, list) and len(results) == 5
    assert [type(one).__name__ for one in results] == ["TextRelevance"] * 5
    assert results[0] is next(iter(results)) and results[-1].tokens == list(results)[-1].tokens
    assert isinstance(results[1:3], TextResults) and len(results[1:3]) == 2
    assert results == list(results)
    again = pickle.loads(pickle.dumps(results))
    assert isinstance(again, TextResults) and len(again) == 5
    assert "5 results of texts" in repr(results)


def test_arrays_and_columns_of_texts() -> None:
    tokenizer = words()
    model = Plain(len(tokenizer)).double().eval()
    wanted = relprop.explain_text(model, tokenizer, TEXTS, batch_size=1)
    for texts in (np.array(TEXTS), pandas.Series(TEXTS, index=range(5, 10))):
        found = relprop.explain_text(model, tokenizer, texts, batch_size=1)
        assert all(torch.equal(a.relevance, b.relevance) for a, b in zip(found, wanted, strict=True))
    with pytest.raises(InputError):
        relprop.explain_text(model, tokenizer, pandas.Series([1.0, 2.0]))


def test_columns_of_targets_and_errors_that_name_the_text() -> None:
    tokenizer = words()
    model = Plain(len(tokenizer)).double().eval()
    table = pandas.DataFrame({"text": ["oil", "a good film", "paris"], "label": [0, 2, 1]})
    for targets in (table["label"], table["label"].to_numpy(), [0, 2, 1]):
        assert [one.index for one in relprop.explain_text(model, tokenizer, table["text"], targets, batch_size=1)] == [
            0,
            2,
            1,
        ]
    with pytest.raises(InputError, match=r"text is a DataFrame: pass one of its columns, such as table\['text'\]"):
        relprop.explain_text(model, tokenizer, table)
    with pytest.raises(InputError, match="text 1 of the list, counted from 0: the text is empty"):
        relprop.explain_text(model, tokenizer, ["oil", " "])
    with pytest.raises(TargetError, match=r"target=relprop\.Contrast\(answer, 'grain'\)"):
        relprop.explain_text(model, tokenizer, "oil", against="grain")


def test_several_targets_nest() -> None:
    tokenizer = words()
    model = Plain(len(tokenizer)).double().eval()
    found = relprop.explain_text(model, tokenizer, TEXTS, top=2, batch_size=1)
    assert [len(each) for each in found] == [2] * 5
    assert found.samples == 10 and len(found.to_pandas()["sample"].unique()) == 10
    alone = relprop.explain_text(model, tokenizer, TEXTS[0], top=2)
    assert isinstance(alone, TextResults) and len(alone) == 2


def test_texts_as_tables_and_files(results: TextResults, tmp_path: Path) -> None:
    frame = results.to_pandas()
    assert list(frame.columns) == ["sample", "target", "score", "residual", "position", "name", "special", "relevance"]
    for n, one in enumerate(results):
        mine = frame[frame["sample"] == n]
        assert mine["relevance"].sum() == pytest.approx(float(one.relevance.sum()))
        assert mine["name"].tolist() == [word.text for word in one.words]
    assert len(results.to_pandas(merge=False)) == sum(len(one) for one in results)
    for suffix in (".csv", ".parquet", ".json", ".npz", ".html", ".png", ".svg", ".pdf"):
        results.save(tmp_path / f"t{suffix}")
    assert len(list(csv.reader((tmp_path / "t.csv").read_text().splitlines()))) == len(frame) + 1
    assert len(pandas.read_parquet(tmp_path / "t.parquet")) == len(frame)
    results.save(tmp_path / "kept")
    back = relprop.load(tmp_path / "kept")
    assert isinstance(back, TextResults)
    assert all(
        torch.equal(a.relevance, b.relevance) and a.target == b.target for a, b in zip(back, results, strict=True)
    )
    relprop.report(results, tmp_path / "report.html")
    results.show("terminal", most=2)


def test_a_damaged_list_is_refused(results: TextResults, tmp_path: Path) -> None:
    results.save(tmp_path / "kept")
    path = tmp_path / "kept" / "manifest.json"
    good = json.loads(path.read_text())
    for change in ({"lengths": [1]}, {"lengths": "x"}, {"results": []}, {"results": [3]}):
        path.write_text(json.dumps({**good, "content": {**good["content"], **change}}))
        with pytest.raises(FormatError):
            relprop.load(tmp_path / "kept")


def test_words_over_a_data_set_against_their_definition(results: TextResults) -> None:
    summary = results.summary()
    total: dict[str, float] = defaultdict(float)
    size: dict[str, float] = defaultdict(float)
    texts: dict[str, int] = defaultdict(int)
    for one in results:
        mine: dict[str, float] = defaultdict(float)
        for word in one.words:
            if not word.special:
                mine[word.text.lower()] += word.relevance
        for name, value in mine.items():
            total[name] += value
            size[name] += abs(value)
            texts[name] += 1
    assert set(summary.names) == set(total)
    for f, name in enumerate(summary.names):
        assert float(summary.mean[f]) == pytest.approx(total[name] / 5)
        assert float(summary.mean_abs[f]) == pytest.approx(size[name] / 5)
        assert int(summary.count[:, f].sum()) == texts[name]
    assert texts["film"] == 3
    often = results.summary(least=3)
    assert set(often.names) == {name for name, n in texts.items() if n >= 3}
    stems = results.summary(groups=lambda word: "judgement" if word in ("good", "bad") else None)
    assert stems.names == ["judgement"]
    with pytest.raises(InputError, match="no word occurs in 99 texts"):
        results.summary(least=99)
    with pytest.raises(InputError, match="draw bars"):
        summary.beeswarm()
    with pytest.raises(InputError, match="there is no text"):
        TextResults([]).summary()
    assert summary.to_svg() and summary.by_class().to_svg()


def test_spans_of_a_text(results: TextResults) -> None:
    one = results[1]
    found = one.grouped({"begin": (0, 3), "middle": (3, 5)})
    assert list(found) == ["begin", "middle", "in no group"]
    assert found["begin"] == pytest.approx(float(one.relevance[:3].sum()))
    assert sum(found.values()) == pytest.approx(float(one.relevance.sum()))
    assert list(one.grouped({"all": (0, len(one))})) == ["all"]
    for spans, message in (
        ({"a": (0, 99)}, "within the"),
        ({"a": (0, 2), "b": (1, 3)}, "shares a token"),
        ({"a": 3}, "within the"),
        ({"a": ("x", "y")}, "within the"),
        ({"a": "no such words"}, "'no such words' occurs 0 times"),
        ({"a": ""}, "0 times"),
        ({}, "a dict from names to spans"),
        ("question", "a dict from names to spans"),
    ):
        with pytest.raises(InputError, match=message):
            one.grouped(spans)


def test_spans_by_their_words(results: TextResults) -> None:
    one = results[1]
    words = [word for word in one.words if not word.special]
    first, second = words[0], words[1]
    said = f"{first.text.upper()}  {second.text}"  # spaces and capitals do not count
    found = one.grouped({"begin": said})
    assert found["begin"] == pytest.approx(first.relevance + second.relevance)
    both = one.grouped({"some": [first.text, (second.tokens.start, second.tokens.stop)]})
    assert both["some"] == pytest.approx(found["begin"])


def test_spans_are_columns_of_many_texts(results: TextResults) -> None:
    pytest.importorskip("pandas")
    table = results.to_pandas(groups={"begin": (0, 2)})
    assert list(table.columns) == ["explained", "score", "residual", "begin", "in no group"]
    assert len(table) == len(results.flat)
    for n, one in enumerate(results.flat):
        assert table["begin"][n] == pytest.approx(float(one.relevance[:2].sum()))
        assert table["begin"][n] + table["in no group"][n] == pytest.approx(float(one.relevance.sum()))
    each = results.to_pandas(
        groups=[{"a": (0, 1)} if n else {"b": (0, len(one))} for n, one in enumerate(results.flat)]
    )
    assert list(each.columns[3:]) == ["b", "a", "in no group"] and np.isnan(each["a"][0])
    with pytest.raises(InputError, match="1 groups for"):
        results.to_pandas(groups=[{"a": (0, 1)}])


def test_a_thousand_texts(tmp_path: Path) -> None:
    tokenizer = words()
    found = relprop.explain_text(Plain(len(tokenizer)).eval(), tokenizer, TEXTS[:1] * 1000, batch_size=100)
    begin = time.perf_counter()
    found.save(tmp_path / "kept")
    assert len(relprop.load(tmp_path / "kept")) == 1000
    found.save(tmp_path / "t.html")
    found.summary()
    assert time.perf_counter() - begin < 60
