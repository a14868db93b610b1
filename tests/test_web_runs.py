"""A run on the page: samples, clusters and units, the code of each, hostile values, and a browser by keyboard."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import relprop
import web_pages
from relprop.errors import FormatError, InputError

pytest.importorskip("zarr")
pytest.importorskip("sklearn")

from relprop.web import run_part, runs
from relprop.web.run_settings import RunSettings, run_settings_of
from relprop.web.runs import BrowsedRun
from test_spray import MARKED, Patterns, samples

CLASSES = (3, MARKED, 5)
EACH = 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 90 samples of three classes, some of one with a mark, an index beside it, and a sample that is put aside."""
    place = tmp_path_factory.mktemp("runs") / "maps"
    x, _ = samples(0.3, EACH, CLASSES)
    x[7] = float("nan")
    model = Patterns(True).eval()
    relprop.explain_dataset(x, model, place, batch_size=32, unit=64, progress=False)
    clean = x.clone()
    clean[7] = 0
    relprop.index(model, list(clean), layers=["layer"], keep=4, batch_size=32).save(place / "index")
    return place


@pytest.fixture(scope="module")
def browsed(folder: Path) -> BrowsedRun:
    x, _ = samples(0.3, EACH, CLASSES)
    return BrowsedRun(folder, source=x, labels=[f"pattern {n} <b>" for n in range(10)])


def test_samples_are_listed_by_class_score_and_residual(browsed: BrowsedRun) -> None:
    table = browsed.table()
    asked = RunSettings(target=MARKED, order="high")
    found = browsed.chosen(asked)
    assert set(table["target"][found]) == {MARKED}
    assert (np.diff(table["score"][found]) <= 0).all()
    share = np.abs(table["residual"] / table["score"])[browsed.chosen(RunSettings(order="residual"))]
    assert (np.diff(share) <= 0).all()
    assert browsed.chosen(RunSettings(status="quarantined")).tolist() == [7]
    shown = runs.samples_html(browsed, asked)
    assert shown.count("data-n") == min(len(found), runs.LISTED) and "pattern 4 <b>" not in shown
    assert runs.samples_html(browsed, asked.changed(start=10**6)).count("data-n") > 0


def test_a_sample_is_the_runs(browsed: BrowsedRun, folder: Path) -> None:
    shown = runs.sample_html(browsed, 40)
    assert browsed.key(40) in shown and "<b>" not in shown.replace("<b class", "") and "relevance on it" in shown
    wanted = relprop.open_run(folder)[browsed.key(40)].relevance()
    assert torch.equal(browsed.result(40).values, wanted.values)
    assert "put aside" in runs.sample_html(browsed, 7)
    for wrong in (-1, 90, 10**12):
        with pytest.raises(InputError, match=f"no sample {wrong}"):
            runs.sample_html(browsed, wrong)


def test_clusters_are_those_of_spray(browsed: BrowsedRun, folder: Path) -> None:
    asked = RunSettings(by="target", neighbours=4, cluster_class=MARKED)
    found = browsed.spray(asked)
    wanted = relprop.open_run(folder).spray(by="target", neighbours=4)
    assert found.rows() == wanted.rows() and browsed.spray(asked) is found
    shown = runs.clusters_html(browsed, found, asked)
    one = next(one for one in wanted if one.target == MARKED)
    assert shown.count("data-n") == len(one.keys) and "average map" in shown
    with pytest.raises(InputError, match="class 9 has too few samples"):
        runs.clusters_html(browsed, found, asked.changed(cluster_class=9))


def test_a_units_references_are_the_indexs(browsed: BrowsedRun, folder: Path) -> None:
    asked = RunSettings(view="units", unit=MARKED, measure="activation")
    wanted = relprop.load_index(folder / "index")["layer", MARKED].references("activation")
    assert [row[0] for row in runs.unit_rows(browsed, asked)] == [each.sample for each in wanted]
    shown = runs.units_html(browsed, asked)
    assert all(f'data-n="{each.sample}"' in shown for each in wanted)
    with pytest.raises(InputError, match="no unit 10"):
        runs.units_html(browsed, asked.changed(unit=10))
    with pytest.raises(InputError, match="no layer"):
        runs.units_html(browsed, asked.changed(layer="../index"))


def test_an_index_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    x, _ = samples(0.3, EACH, CLASSES)
    other = Patterns(False).eval()
    relprop.index(other, list(x[:8].nan_to_num()), layers=["layer"], keep=2).save(tmp_path / "other")
    mixed = BrowsedRun(folder, index=tmp_path / "other")
    with pytest.raises(InputError, match="of another model"):
        runs.units_html(mixed, RunSettings())
    with pytest.raises(FormatError):
        BrowsedRun(tmp_path)


@pytest.mark.parametrize("view", ["sample", "clusters", "units"])
def test_the_code_runs(
    browsed: BrowsedRun, folder: Path, view: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "maps").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    asked = RunSettings(by="target", neighbours=4, unit=MARKED)
    make = {
        "sample": lambda: runs.sample_code(browsed, 40), "clusters": lambda: runs.clusters_code(browsed, asked),
        "units": lambda: runs.units_code(browsed, asked),
    }[view]  # fmt: skip
    code = make()
    assert str(folder.parent) not in code and code.isascii()
    space: dict[str, Any] = {}
    exec(code, space)
    if view == "sample":
        assert torch.equal(space["R"].values, browsed.result(40).values) and Path("relevance.html").exists()
    elif view == "clusters":
        assert space["found"].rows() == browsed.spray(asked).rows() and Path("strategies.html").exists()
    else:
        printed = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in printed] == [row[1] for row in runs.unit_rows(browsed, asked)]


SETTINGS = [
    RunSettings(), RunSettings("clusters", by="target", neighbours=4, size=7, cluster_class=3),
    RunSettings("samples", 4, "quarantined", "low", 24, 7), RunSettings("units", layer="a&b=c", unit=3, measure="activation"),
]  # fmt: skip


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_link_restores_the_settings(settings: RunSettings) -> None:
    assert RunSettings.of_link(settings.link()) == settings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"view": "../../x"}, "view is"), ({"order": "score; drop table"}, "order is"), ({"status": 3}, "status is"),
        ({"by": "__class__"}, "by is"), ({"measure": "x"}, "measure is"), ({"neighbours": 1}, "from 2 to 100"),
        ({"neighbours": 10**9}, "from 2 to 100"), ({"size": 65}, "from 2 to 64"), ({"start": -1}, "numbered from 0"),
        ({"sample": "1e9"}, "whole number"), ({"sample": float("nan")}, "whole number"), ({"unit": [1]}, "whole number"),
        ({"unit": True}, "whole number"), ({"target": "9" * 30}, "whole number"), ({"sample": float("inf")}, "whole number"),
    ],
)  # fmt: skip
def test_values_that_are_none(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run_settings_of(values)


def test_a_table_holds_no_formulas() -> None:
    file = run_part._csv("x", ("a", "b"), [("=cmd|' /c calc'!A1", -3.5), ("@x", "plain"), ("-2+3", 1)])
    lines = base64.b64decode(file["data"]).decode().splitlines()
    assert lines[1:] == ["'=cmd|' /c calc'!A1,-3.5", "'@x,plain", "'-2+3,1"]


@pytest.fixture(scope="module")
def address(folder: Path, browsed: BrowsedRun) -> Iterator[str]:
    pytest.importorskip("gradio", reason="the page needs Gradio")
    with web_pages.served([], runs=[("maps", lambda: browsed)]) as found:
        yield found


@pytest.mark.filterwarnings("ignore")
def test_a_run_in_a_browser_by_keyboard(address: str, browsed: BrowsedRun) -> None:
    with web_pages.browsed(address, 420) as seen:
        page = seen.page
        page.wait_for_selector("#samples [data-n]")
        page.focus("#later")
        page.keyboard.press("Enter")
        page.wait_for_selector("#samples [data-n='30']")
        page.focus("#samples [data-n='30']")
        page.keyboard.press("Enter")
        page.wait_for_selector("#maps svg")
        assert page.evaluate("document.documentElement.scrollWidth") <= 420
        page.wait_for_function("window.location.search.includes('sample=30')")
        with page.expect_download() as download:
            page.click("#download-svg-run-samples")
        assert "<svg" in Path(download.value.path()).read_text()
        page.focus("role=tab[name='Clusters']")
        page.keyboard.press("Enter")
        page.focus("#find")
        page.keyboard.press("Enter")
        page.wait_for_selector("#clusters svg")
        page.click("#clusters summary >> nth=0")
        page.focus("#clusters [data-n] >> nth=1")
        page.keyboard.press("Enter")
        page.wait_for_function("document.querySelector('#maps h3')?.checkVisibility()")
        page.goto(f"{address}?view=units&unit={MARKED}")
        page.wait_for_selector("#units [data-n]")
        assert page.evaluate("document.documentElement.scrollWidth") <= 420
        assert not seen.errors and not seen.foreign()
