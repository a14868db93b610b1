"""One text by several composites: its numbers, its figure, its page, its folder, and the command."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import relprop
from relprop.errors import CompositeError, InputError
from relprop.rendering import Options
from relprop.rendering.marks import Text
from relprop.results.text_comparison import TextComparison

pytest.importorskip("transformers")

import text_models as tiny
from golden import same_picture
from test_cli import good, run

NAMES = ["grain", "crude", "ship <b>"]
NEWS = "OPEC cut crude oil output."
TARGETS = ["crude", relprop.Contrast("crude", "grain")]
COMPOSITES = ["auto", "epsilon", "cp_lrp"]


@pytest.fixture(scope="module")
def model() -> Any:
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
    return tiny.build("bert", tiny.words(), **labels)


@pytest.fixture(scope="module")
def compared(model: Any) -> TextComparison:
    return relprop.compare_text(model, tiny.words(), NEWS, TARGETS, COMPOSITES)


def test_its_parts_are_those_of_explain_text(model: Any, compared: TextComparison) -> None:
    assert compared.columns == ["auto (attnlrp)", "epsilon", "cp_lrp"]
    for row, target in enumerate(TARGETS):
        for column, composite in enumerate(COMPOSITES):
            alone = relprop.explain_text(model, tiny.words(), NEWS, target, composite=composite, ledger=True)
            part = compared[row, column]
            assert torch.equal(part.relevance, alone.relevance) and part.residual == alone.residual
            assert dict(part.ledger) == dict(alone.ledger)
    assert compared.subject(4) == "crude rather than grain by epsilon" and len(compared.rows()) == 6
    assert "cp_lrp: " in repr(compared) and compared.heading() == "crude compared"


def test_one_target_and_one_composite_need_no_list(model: Any) -> None:
    C = relprop.compare_text(
        model, tiny.words(), ("who cut oil ?", NEWS), composites={"mine": "epsilon"}, max_length=32
    )
    assert C.columns == ["mine"] and len(C.results) == 1


def test_the_text_stands_below_itself(compared: TextComparison) -> None:
    (view,) = compared.views(Options(room=500))
    said = [mark for mark in view.draw().marks if isinstance(mark, Text)]
    places = [mark.x for mark in said if mark.text == " crude"]
    assert len(places) == 6 and len(set(places)) == 1  # the same word at the same place
    assert sum("arrived" in mark.text for mark in said) == 6
    assert sum(mark.text == "0" for mark in said) == 6  # a colour bar each
    (shared,) = compared.views(Options(shared=True))
    assert sum(mark.text == "0" for mark in shared.draw().marks if isinstance(mark, Text)) == 1
    limits = {cell.data.scale.limit for cell in shared.cells.values()}
    largest = max(float(one.relevance.abs().max()) for line in compared.results for one in line)
    assert list(limits) == [pytest.approx(largest)]


def test_the_figure_is_what_it_was(compared: TextComparison) -> None:
    (view,) = compared.views(Options(room=360))
    same_picture(view.draw(), "comparison-texts")


def test_a_page_has_the_numbers_once(compared: TextComparison, tmp_path: Path) -> None:
    for page in (compared.to_html(), compared._repr_html_()):
        assert page.count('class="tokens"') == 6 and page.count("The numbers of") == 2
        assert "ship <b>" not in page and "<script" not in page
    relprop.report([compared], tmp_path / "r.html")
    assert "crude rather than grain" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_files(compared: TextComparison, tmp_path: Path) -> None:
    for suffix in ("png", "svg", "pdf", "json", "npz"):
        compared.save(tmp_path / f"c.{suffix}")
        assert (tmp_path / f"c.{suffix}").stat().st_size > 500
    compared.save(tmp_path / "c.csv")
    with (tmp_path / "c.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 * len(compared[0, 0])
    assert rows[-1]["target"] == "crude rather than grain by cp_lrp"
    assert float(rows[-1]["relevance"]) == float(compared[1, 2].relevance[-1])


def test_a_folder_gives_it_back(compared: TextComparison, tmp_path: Path) -> None:
    compared.save(tmp_path / "run")
    loaded = relprop.load(tmp_path / "run")
    assert isinstance(loaded, TextComparison) and loaded.columns == compared.columns
    for row in range(2):
        for column in range(3):
            one, other = compared[row, column], loaded[row, column]
            assert torch.equal(one.relevance, other.relevance) and one.target == other.target
            assert str(one.composite) == str(other.composite) and len(one.rules) == len(other.rules)
    without = lambda page: re.sub(", weights sha256 [0-9a-f]+", "", page)  # noqa: E731
    assert without(loaded.to_html()) == without(compared.to_html())


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("columns", []), ("columns", ["a"]), ("columns", [1, 2, 3]), ("results", []), ("results", [[1, 2, 3]]),
        ("results", [[{}] * 3]), ("tables", None), ("rules_each", [1, 1, 1]),
    ],
)  # fmt: skip
def test_a_folder_that_does_not_fit_is_refused(compared: TextComparison, name: str, wrong: object) -> None:
    content = compared.kept() | {name: wrong}
    made = {"composite": compared.composite, "rules": compared.rules, "model": None, "unknown": {}, "notices": []}
    with pytest.raises(ValueError, match=r"do not fit|not described|no rows|lacks|has no|is missing"):
        TextComparison.restored(content, made, lambda count: compared.ledger)


def test_what_cannot_be_compared_is_refused(model: Any, compared: TextComparison) -> None:
    with pytest.raises(CompositeError, match="nothing to compare"):
        relprop.compare_text(model, tiny.words(), NEWS, "crude")
    with pytest.raises(InputError, match="compare several in a loop"):
        relprop.compare_text(model, tiny.words(), [NEWS, NEWS], "crude", ["epsilon"])
    with pytest.raises(InputError, match=r"C\[row, column\]"):
        compared["crude"]
    with pytest.raises(IndexError):
        compared[0, 7]


def test_the_command(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model.save_pretrained("news")
    tiny.words().save_pretrained("news")
    said = good("compare", NEWS, "-m", "hf:news", "-t", "crude", "-t", "grain", "-c", "auto", "-c", "cp_lrp")
    assert "crude by cp_lrp" in said and said.endswith("comparison.png\n") and Path("comparison.png").exists()
    said = good("compare", NEWS, "-m", "hf:news", "-t", "crude", "--against", "grain", "-c", "auto", "--out", "d.svg")
    assert "crude rather than" in said and "grain by" in said
    for wrong in (["--against", "grain"], ["-t", "grain", "--against", "grain"]):
        done = run("compare", NEWS, "-m", "hf:news", *wrong)
        assert done.exit_code == 2 and "--against grain needs --target" in done.stderr
    Path("a.txt").write_text(NEWS)
    good("compare", NEWS, "a.txt", "-m", "hf:news", "--out", "c.html")
    page = Path("c.html").read_text(encoding="utf-8")
    assert page.count('class="tokens"') == 6 and "a.txt" in page
    done = run("compare", NEWS, "-m", "hf:news", "-t", "oil")
    assert done.exit_code == 2 and "'oil'" in done.stderr
