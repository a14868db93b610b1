"""Every example in the documentation runs, prints what the page says, and the picture is what its script draws."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

import pages
import relprop
from relprop.composites import NAMES
from relprop.engine.registry import TABLE
from relprop.operations.refused import REASONS
from relprop.rendering.scale import number
from relprop.rules.base import EVERYTHING

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", [page for page in PAGES if pages.examples(DOCS / page)])
def test_the_examples_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # for the files that examples write
    for library in ("accelerate", "transformers"):
        if f"from {library} import" in (DOCS / page).read_text(encoding="utf-8"):
            pytest.importorskip(library)
    if "explain_dataset" in (DOCS / page).read_text(encoding="utf-8"):
        pytest.importorskip("zarr")
    pages.run(DOCS / page)


def test_a_wrong_example_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nx = 1\n```\n\n```pycon\n>>> x + 1\n2\n>>> y = 3\n```\n\n```python\nassert y == 3\n```\n"
    )
    assert pages.run(page)["y"] == 3
    page.write_text("```pycon\n>>> 1 + 1\n3\n```\n")
    with pytest.raises(AssertionError, match="Expected"):
        pages.run(page)
    page.write_text("```python\n1 / 0\n```\n")
    with pytest.raises(ZeroDivisionError):
        pages.run(page)


@pytest.mark.parametrize(
    ("wanted", "page"),
    [
        ("segmentation", "targets.md"), ("detection", "targets.md"), ("gradcam", "coming_from_gradcam.md"),
        ("bias", "limits.md"), ("limits", "limits.md"), ("changelog", "changelog.md"), ("cite", "cite.md"),
        ("zennit", "coming_from_zennit.md"), ("lxt", "coming_from_lxt.md"), ("shap", "coming_from_shap.md"),
        ("innvestigate", "coming_from_innvestigate.md"), ("captum", "captum.md"), ("gallery", "gallery.md"),
    ],
)  # fmt: skip
def test_a_search_finds_what_people_look_for(wanted: str, page: str) -> None:
    """The search of the site puts headings first."""
    text = (DOCS / page).read_text(encoding="utf-8")
    if page == "changelog.md":
        text = (DOCS.parent / "CHANGELOG.md").read_text(encoding="utf-8")
    assert any(wanted in line.lower() for line in text.splitlines() if line.startswith("#"))


def test_the_tutorials_are_notebooks() -> None:
    """They run when the pages are built; here, that they are complete, are listed, and hold valid code."""
    names = {page.stem for page in (DOCS / "tutorials").glob("*.md")} - {"index"}
    assert names == {"resnet", "vit", "text", "language_model", "table", "series", "graph"}
    listed = (DOCS / "tutorials" / "index.md").read_text(encoding="utf-8")
    for name in names:
        text = (DOCS / "tutorials" / f"{name}.md").read_text(encoding="utf-8")
        cells = re.findall(r"^```{code-cell} ipython3\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
        assert text.startswith("---\nfile_format: mystnb\n") and len(cells) >= 4
        ast.parse("\n".join(cells))
        assert "relprop." in "\n".join(cells) and "## What to remember" in text
        assert f"({name}.md)" in listed and f"\n{name}\n" in listed
    conf = (DOCS / "conf.py").read_text(encoding="utf-8")
    assert 'nb_execution_mode = "force"' in conf and "nb_execution_raise_on_error = True" in conf


def test_no_block_is_fenced_so_that_it_would_be_passed_over() -> None:
    """A block written as ```py, ```Python or indented would look like an example and never run."""
    wrong = [
        f"{page}:{number}: {line}"
        for page in PAGES
        for number, line in enumerate((DOCS / page).read_text(encoding="utf-8").splitlines(), 1)
        if line.strip().lower().removeprefix("```").split("{")[0] in ("py", "python3", "ipython")
        or (line.strip().startswith("```") and line.strip().lower() == "```python" and line != "```python")
    ]
    assert not wrong, "\n".join(wrong)


# --------------------------------------------------------------------------------------------- generated tables


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    return load("tables")


def load(name: str) -> ModuleType:
    """A script of the docs folder, which is not a package."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_marker_names_a_table(tables: ModuleType) -> None:
    used = set()
    for page in PAGES:
        text = (DOCS / page).read_text(encoding="utf-8")
        assert "<!-- table:" not in tables.fill(text)
        used |= {name for name in tables.TABLES if f"<!-- table: {name} -->" in text}
    assert used == set(tables.TABLES)
    with pytest.raises(KeyError, match="weather"):
        tables.fill("<!-- table: weather -->")


def test_the_tables_are_complete(tables: ModuleType) -> None:
    assert all(f"`{name}`" in tables.composites() for name in NAMES)
    assert all(f"`{family}`" in tables.families() for family in EVERYTHING)
    met = {entry.reason for entry in TABLE.values()}  # some are of operations that only older versions of torch have
    assert len(met & set(REASONS)) >= len(REASONS) - 1
    assert all(reason in tables.refused() for reason in REASONS if reason in met)
    rules = [name for name in relprop.rules.__all__ if issubclass(getattr(relprop.rules, name), relprop.rules.Rule)]
    assert all(f"`{name}(" in tables.rules() for name in rules if name not in ("Rule", "WeightedRule"))


def test_the_costs_are_counted(tables: ModuleType) -> None:
    """The plain gradient is one convolution; LRP-0 adds nothing to it."""
    assert tables.convolutions(relprop.Native(), mixed=False) == (0, 1)
    assert tables.convolutions(relprop.Zero(), mixed=True) == (0, 1)
    assert tables.convolutions(relprop.ZPlus(), mixed=True) > (1, 1)


def test_the_figure_that_compares_libraries_says_what_the_text_says() -> None:
    sums = load("sums")
    numbers = json.loads((DOCS / "images" / "sums.json").read_text(encoding="utf-8"))
    text = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    said = text[text.index("Here is a small residual network") : text.index("`make sums`")]
    words = " ".join(said.split())
    assert f"The score of the *{sums.DIGIT}* is {number(numbers['score'])}:" in words
    assert f"captum's map adds up to {number(numbers['captum']['sum'])}" in words
    assert f"zennit's to {number(numbers['zennit']['sum'])}," in words
    assert f"off by {sums.off(numbers['autolrp']['distance'])} of the map" in words
    assert f"relprop's adds up to {number(numbers['relprop']['sum'])}" in words
    assert numbers["relprop"]["distance"] < 1e-3 > abs(numbers["relprop"]["sum"] / numbers["score"] - 1)


def test_the_network_of_that_figure_hands_its_whole_score_to_the_pixels() -> None:
    sums = load("sums")
    sums.EPSILON = 1e-12  # in float64; the scores of a network that is not trained are small
    torch.manual_seed(0)
    model, x = sums.Network().double().eval(), torch.rand(1, 1, 28, 28, dtype=torch.float64)
    expected, found = sums.definition(model, x, 3), sums.by_relprop(model, x, 3)
    assert (found - expected).norm() < 1e-3 * expected.norm()
    assert float(found.sum()) == pytest.approx(model(x)[0, 3].item(), rel=1e-3)


@pytest.mark.slow
def test_the_picture_is_what_its_script_draws() -> None:
    drawn = np.asarray(load("picture").draw(), dtype=np.float64)
    kept = np.asarray(Image.open(DOCS / "images" / "demo.png").convert("RGB"), dtype=np.float64)
    assert kept.shape == drawn.shape, "run: make picture"
    # Another torch or Pillow may move a grey level here and there; another rule or photograph moves many.
    assert np.abs(kept - drawn).mean() < 0.5, "run: make picture"


@pytest.mark.slow
def test_what_the_pages_say_stays_in_the_biases_of_the_cat_does() -> None:
    from relprop.loading.photographs import PHOTOGRAPHS
    from relprop.rendering import sentence
    from relprop.zoo import efficientnet_lite0
    from relprop.zoo.images import preprocess

    model, x = efficientnet_lite0(), preprocess(PHOTOGRAPHS[0].open())
    auto, without = (sentence(relprop.attribute(model, x, composite=c).rows()[0]) for c in ("auto", "zero_bias"))
    assert auto.startswith("97.3 %") and without.startswith("62.8 %")
    pages_of = [DOCS.parent / "README.md", DOCS / "composites.md", DOCS / "pictures.md"]
    texts = [" ".join(page.read_text(encoding="utf-8").split()) for page in pages_of]
    assert all("97.3 %" in text for text in texts) and "62.8 %" in texts[1]
