"""Pages: what is on them, how wide it is on a desk, on a phone and on paper, and that no caption is cut."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import relprop
from chromium import PROGRAM, Chromium
from relprop.rendering import Options
from relprop.rendering.figures import grid_html
from relprop.results.text_comparison import TextComparison
from test_text_outputs import a_text

in_a_browser = pytest.mark.skipif(PROGRAM is None, reason="needs Chromium")
NAMES = ["tabby, tabby cat, a domestic cat with stripes", "dog", "cow"]
WIDTHS = (
    "[...document.querySelectorAll('.figures')].map(f => [...f.children].map(c => c.getBoundingClientRect().toJSON()))"
)
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
CUT = "[...document.querySelectorAll('figcaption *, h1, h2, h3, p')].filter(e => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline').length"


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 5, 2, 2), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
                         nn.Flatten(), nn.Linear(32, 3)).eval()  # fmt: skip


def by_composite(inputs: torch.Tensor, *composites: str) -> list[relprop.Relevance]:
    targets = [0, 1, relprop.Contrast(0, 1)]
    return [
        R
        for composite in composites
        for R in relprop.attribute_each(network(), inputs, targets, composite=composite, labels=NAMES, ledger=True)
    ]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures, each explained for three targets by two composites."""
    found = {
        f"Picture {n}": by_composite(torch.rand(1, 3, 64, 64), "gamma_flat", "epsilon_plus_flat") for n in range(3)
    }
    path = tmp_path_factory.mktemp("page") / "r.html"
    relprop.report(found, path, title="Which pixels spoke for the class?")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as found:
        yield found


def test_results_of_one_input_are_a_grid(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count('<div class="figures c3">') == 9 and text.count(">input</strong>") == 3
    assert text.count("gamma_flat, on the input</strong>") == 6  # in the other rows, where the first has the input
    titles = re.findall(r"<h3>(.*?), score ", text)
    assert titles[:3] == [f"{NAMES[0]} (0)", "dog (1)", f"{NAMES[0]} (0) rather than dog (1)"]
    assert text.count("of the score") >= 18 and 'class="p40"' in text and "<script" not in text


def test_what_is_said_of_every_map_is_said_once() -> None:
    first, second = (
        R.views(Options(percentile=99))[0] for R in by_composite(torch.rand(1, 3, 64, 64), "gamma_flat")[:2]
    )
    assert first.data.note == second.data.note
    both = grid_html({("a", "x"): first, ("a", "y"): second})
    assert both.count("clipped at percentile 99") == 1 and "Each map: scale clipped" in both
    other = by_composite(torch.rand(1, 3, 64, 64), "gamma_flat")[0].views(Options(percentile=90))[0]
    apart = grid_html({("a", "x"): first, ("a", "y"): other})
    assert "Each map" not in apart and apart.count("clipped at percentile 9") == 2


def test_two_results_of_one_name_are_no_grid(tmp_path: Path) -> None:
    x = torch.rand(1, 3, 32, 32)
    twice = by_composite(x, "gamma_flat")[:1] + by_composite(x, "gamma_flat")[:1]
    relprop.report({"Twice": twice}, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert text.count("relevance on it</strong>") == 2


def test_a_long_report_begins_with_its_contents(tmp_path: Path) -> None:
    texts = [a_text(target=f"class {n}") for n in range(5)]
    relprop.report(texts, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    links = re.findall(r'<a href="#(part\d)">(.*?)</a>', text)
    assert len(links) == 5 and all(f'<h2 id="{link}">{name}</h2>' in text for link, name in links)
    assert links[2][1].startswith("Result 3: not a very good film")
    assert text.index("Contents") < text.index('id="part0"') and "class 4" in text[: text.index('id="part0"')]
    assert "<details open" not in text and text.count("<details class=screen>") == 5
    relprop.report(texts[:2], tmp_path / "short.html")
    short = (tmp_path / "short.html").read_text(encoding="utf-8")
    assert "Contents" not in short and "<details open" in short


@in_a_browser
@pytest.mark.parametrize("dark", [False, True])
def test_on_a_desk_the_grid_is_as_wide_as_the_page_and_aligned(page: Path, browser: Chromium, dark: bool) -> None:
    rows = browser.measured(page, 1400, WIDTHS, dark=dark)
    assert len(rows) == 9
    for row in rows:
        assert [round(cell["x"]) for cell in row] == [round(cell["x"]) for cell in rows[0]]
        assert len({round(cell["y"]) for cell in row}) == 1 and all(cell["width"] > 350 for cell in row)
    assert browser.measured(page, 1400, OVERFLOW) <= 0 and browser.measured(page, 1400, CUT) == 0
    ground = "getComputedStyle(document.body).backgroundColor"
    assert browser.measured(page, 1400, ground, dark=dark) == "rgb(255, 255, 255)"  # maps end in white


@in_a_browser
def test_on_a_phone_pictures_are_as_wide_as_the_screen(page: Path, browser: Chromium) -> None:
    rows = browser.measured(page, 420, WIDTHS)
    assert all(cell["width"] > 380 for row in rows for cell in row)
    assert browser.measured(page, 420, OVERFLOW) <= 0 and browser.measured(page, 420, CUT) == 0


@in_a_browser
def test_a_page_like_the_demonstration_takes_six_sheets(page: Path, browser: Chromium) -> None:
    printed = browser.printed(page)
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) <= 6


# ------------------------------------------------------------------------------- summaries, comparisons, many texts

SHRUNK = "[...document.querySelectorAll('.scroll > svg')].map(s => s.getBoundingClientRect().width / s.viewBox.baseVal.width)"
SHEETS = {
    "summary": 4,
    "classes of pictures": 2,
    "table": 2,
    "compared tables": 2,
    "compared texts": 3,
    "many texts": 4,
}
"""The most sheets of paper that each page may take."""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    torch.manual_seed(0)
    names = ["age", "income", "number of children in the household", "distance to the next large city in kilometres"]
    columns = dict(zip(names, torch.randn(4, 200).tolist(), strict=True))
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    R = relprop.attribute(model, columns, labels=NAMES)
    S = R.summary()
    drawn = {"Bars": [S], "Classes": [S.by_class()], "Beeswarm": [S.beeswarm()], "Samples": [S.heatmap()]}
    relprop.report(drawn, folder / "summary.html")
    pictures = relprop.attribute(network(), torch.rand(12, 3, 64, 64), labels=NAMES)
    pictures.summary().save(folder / "classes of pictures.html")
    R[:3].save(folder / "table.html")
    first = {name: [values[0]] for name, values in columns.items()}
    targets = [0, relprop.Contrast(0, 1)]
    composites = ["zero", "epsilon", "epsilon_plus", "zero_bias"]
    relprop.compare(model, first, targets, composites, labels=NAMES).save(folder / "compared tables.html")
    texts = [[a_text(target=name) for _ in range(3)] for name in NAMES]
    TextComparison.of(texts, ["attnlrp", "cp_lrp", "a composite with a rather long name of its own"]).save(
        folder / "compared texts.html"
    )
    relprop.report([a_text(target=f"class {n}") for n in range(12)], folder / "many texts.html")
    return {path.stem: path for path in folder.glob("*.html")}


@in_a_browser
@pytest.mark.parametrize("name", SHEETS)
def test_every_kind_of_page_fits_a_desk_a_phone_a_dark_room_and_paper(
    pages: dict[str, Path], browser: Chromium, name: str
) -> None:
    page = pages[name]
    for width in (1400, 420):
        assert browser.measured(page, width, OVERFLOW) <= 0 and browser.measured(page, width, CUT) == 0
        assert all(ratio >= 0.6 for ratio in browser.measured(page, width, SHRUNK))  # letters that can be read
    seen = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    assert browser.measured(page, 420, seen, dark=True) == ["rgb(255, 255, 255)", "rgb(20, 20, 20)"]
    assert len(re.findall(rb"/Type\s*/Page\b", browser.printed(page))) <= SHEETS[name]


def test_names_of_features_and_notes_are_whole(pages: dict[str, Path]) -> None:
    text = pages["summary"].read_text(encoding="utf-8")
    assert set(pages) == set(SHEETS) and "…" not in text.replace("city in kilomet…", "")  # beside bars and in the swarm
    assert "Relevance of 4 features" in text and "10 features" not in text
