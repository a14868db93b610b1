"""A kind of result is one file: what answers the protocol is shown, drawn, saved, loaded and reported as any other."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import relprop
from relprop.composites import Composite
from relprop.errors import FormatError
from relprop.rendering import Options, bars
from relprop.rendering.view import Row, View
from relprop.results.files.checks import real, require
from relprop.results.ledger import Ledger
from relprop.results.made import Made, how_made
from relprop.results.outputs import Outputs
from relprop.results.protocol import KINDS, Result, loadable
from relprop.results.show import in_terminal
from test_damaged_files import images
from test_text_outputs import a_generation, a_text, a_translation


@loadable
@dataclass(kw_only=True)
class Topics(Made):
    """A kind of result that the library does not know: how much each of some topics contributed to a score."""

    kind: ClassVar[str] = "themes"

    names: list[str]
    values: Tensor
    score: float

    def views(self, options: Options) -> list[View]:
        (row,) = self.rows()
        entries = list(zip(self.names, self.values.tolist(), strict=True))
        lines = (f"score {self.score}",)
        draw = lambda: bars(self.values, self.names, palette=options.palette)  # noqa: E731
        return [View("table", 0, self.subject(0), lines, draw, entries, rows=[row])]

    def rows(self) -> list[Row]:
        total = float(self.values.sum())
        return [Row(self.subject(0), self.score, total, self.score - total, {"absorbed": self.score - total})]

    def subject(self, n: int) -> str:
        return "the topics"

    def kept(self) -> dict[str, Any]:
        return {"names": self.names, "values": self.values, "score": self.score}

    @classmethod
    def restored(cls, content: dict[str, Any], made: dict[str, Any], ledger: Callable[[int], Ledger]) -> Topics:
        require(content, ("names", "values", "score"))
        if not real(content["values"], (len(content["names"]),)):
            raise ValueError("values are not those of the topics")
        own = {name: content[name] for name in ("names", "values", "score")}
        return cls(**own, **made, ledger=ledger(1))


def topics(**changes: Any) -> Topics:
    made: dict[str, Any] = {
        "names": ["sport", "=law <b>", "art\x1b[2J"], "values": torch.tensor([0.5, -0.25, 1.0]), "score": 1.5,
        "composite": Composite(name="epsilon"), "notices": ["one topic was left out"],
    }  # fmt: skip
    return Topics(**made | changes)


EVERY: dict[str, Callable[[], Any]] = {
    "tensors": images,
    "table": lambda: relprop.attribute(nn.Linear(3, 2), torch.randn(2, 3), 0),
    "text": a_text,
    "translation": a_translation,
    "generation": a_generation,
    "topics": topics,
}
every = pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)


@every
def test_each_kind_answers_the_protocol(make: Callable[[], Any]) -> None:
    R = make()
    assert isinstance(R, Result) and isinstance(R, Outputs) and KINDS[R.kind] is type(R)
    assert [view.sample for view in R.views(Options())] == sorted(view.sample for view in R.views(Options()))
    assert {view.sample for view in R.views(Options())} == set(range(R.samples))
    rows = R.rows()
    assert rows and all(isinstance(row, Row) and R.subject(n) in row.explained for n, row in enumerate(rows))
    assert all(sum(row.absorbed.values()) == pytest.approx(row.residual, abs=1e-5) for row in rows)
    assert R.heading() and all(json.dumps(R.facts(n)) for n in range(len(rows)))
    for n in range(R.samples):
        assert R.alone(n).samples == 1 and R.alone(n).subject(0)
    assert json.dumps(sorted(R.kept())) and set(R.exported().arrays)


@every
def test_a_folder_gives_each_kind_back(make: Callable[[], Any], tmp_path: Path) -> None:
    R = make()
    R.save(tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text("utf-8"))
    assert manifest["kind"] == R.kind
    loaded = relprop.load(tmp_path / "run")
    assert type(loaded) is type(R) and loaded.notices == R.notices and loaded.to_html() == R.to_html()
    assert loaded.kept().keys() == R.kept().keys()


def test_a_kind_of_ones_own_is_shown(capsys: pytest.CaptureFixture) -> None:
    R = topics()
    R.show("terminal")
    shown = capsys.readouterr().out
    assert "the topics" in shown and "sport" in shown and "\x1b[2J" not in shown
    assert "sport" in in_terminal(R, Options(), colour=False)
    assert "=law &lt;b&gt;" in R.to_html() and "=law &lt;b&gt;" in R._repr_html_() and R.to_svg().startswith("<svg")
    assert R.to_image().width > 100


def test_a_kind_of_ones_own_is_plotted() -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    figure = pyplot.figure()
    assert topics().plot(figure.gca()).get_title() == "the topics"
    pyplot.close(figure)


def test_a_kind_of_ones_own_is_written_in_every_format(tmp_path: Path) -> None:
    R = topics()
    for suffix in (".png", ".svg", ".pdf", ".html", ".json", ".npz", ".csv"):
        R.save(tmp_path / f"r{suffix}")
        assert (tmp_path / f"r{suffix}").stat().st_size
    told = json.loads((tmp_path / "r.json").read_text())
    assert told["values"] == [0.5, -0.25, 1.0] and told["composite"]["name"] == "epsilon"
    with np.load(tmp_path / "r.npz") as arrays:
        assert arrays["values"].tolist() == [0.5, -0.25, 1.0]
        assert json.loads(str(arrays["about"]))["names"][0] == "sport"
    assert "0,the topics,'=law <b>,-0.25" in (tmp_path / "r.csv").read_text()


def test_a_kind_of_ones_own_is_a_table_of_pandas(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    topics().save(tmp_path / "r.parquet")
    rows = pandas.read_parquet(tmp_path / "r.parquet")
    assert list(rows.columns) == ["sample", "target", "name", "relevance"]
    assert rows["relevance"].tolist() == [0.5, -0.25, 1.0] and rows["target"].tolist() == 3 * ["the topics"]


def test_a_kind_of_several_samples_says_what_one_is() -> None:
    class Several(Topics):
        samples = property(lambda self: 2)  # type: ignore[assignment]

    R = Several(**vars(topics()))
    with pytest.raises(NotImplementedError, match=r"Several has 2 samples: it needs a method alone\(sample\)"):
        R.plot(sample=1)


def test_a_kind_that_is_computed_from_another_is_made_as_that() -> None:
    R = images()
    own = Topics(names=["all"], values=torch.ones(1), score=1.0, **how_made(R))
    assert own.composite is R.composite and own.rules is R.rules and own.ledger is R.ledger
    assert "Place(" not in repr(own) and "names=['all']" in repr(own)


def test_an_installed_package_declares_its_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    topics().save(tmp_path / "run")
    known = KINDS.pop("themes")
    try:
        with pytest.raises(FormatError, match=r"its kind is 'themes', .* import the module that defines it first"):
            relprop.load(tmp_path / "run")
        (tmp_path / "themes-1.dist-info").mkdir()
        (tmp_path / "themes-1.dist-info" / "METADATA").write_text("Name: themes\nVersion: 1\n")
        (tmp_path / "themes-1.dist-info" / "entry_points.txt").write_text(
            "[relprop.results]\nthemes = declared_themes:add\n"
        )
        (tmp_path / "declared_themes.py").write_text(
            "from test_results import Topics, loadable\nadd = loadable(Topics)\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        assert relprop.load(tmp_path / "run").names == topics().names
    finally:
        KINDS["themes"] = known
        sys.modules.pop("declared_themes", None)


def test_a_kind_of_ones_own_is_reported_beside_others(tmp_path: Path) -> None:
    relprop.report({"Topics": topics(), "Text": [a_text()], "Pictures": [images()]}, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "the topics" in page and "positive" in page and "conv2d" in page


def test_the_command_shows_and_reports_a_kind_of_ones_own(tmp_path: Path) -> None:
    from relprop.cli.app import app

    topics().save(tmp_path / "run")
    shown = CliRunner().invoke(app, ["show", str(tmp_path / "run")])
    assert shown.exit_code == 0 and "sport" in shown.output
    page = tmp_path / "page.html"
    assert CliRunner().invoke(app, ["report", str(tmp_path / "run"), "--out", str(page)]).exit_code == 0
    assert "the topics" in page.read_text()


def test_content_that_is_none_of_its_kind_is_refused(tmp_path: Path) -> None:
    topics(values=torch.tensor([1.0])).save(tmp_path / "run")
    with pytest.raises(FormatError, match="values are not those of the topics"):
        relprop.load(tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest | {"kind": "unheard of"}))
    with pytest.raises(FormatError, match="its kind is 'unheard of'"):
        relprop.load(tmp_path / "run")


def test_two_kinds_of_one_name_are_refused_but_one_may_be_made_anew() -> None:
    with pytest.raises(ValueError, match="two kinds of results are called 'themes'"):
        loadable(type("Other", (Topics,), {}))
    again = type("Topics", (Topics,), {"__module__": Topics.__module__, "__qualname__": Topics.__qualname__})
    assert loadable(again) is KINDS["themes"]
    assert loadable(Topics) is KINDS["themes"] is Topics


def test_results_that_do_not_say_what_the_model_was_given_are_each_reported_in_full(tmp_path: Path) -> None:
    relprop.report([topics(), topics()], tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text().count("<section class=view>") == 2
