"""`relprop evaluate` on pictures, tables and texts, as a new user tries it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from test_cli import MINE, good, run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine_too.py").write_text(MINE)
    (tmp_path / "pictures").mkdir()
    for n in range(3):
        noise = np.random.default_rng(n).integers(0, 255, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "pictures" / f"{n}.png")
    rows = torch.rand(14, 3).tolist()
    (tmp_path / "rows.csv").write_text("a,b,c\n" + "\n".join(",".join(f"{v:.4f}" for v in row) for row in rows) + "\n")
    return tmp_path


def test_pictures(here: Path) -> None:
    said = good("evaluate", "pictures", "--model", "mine_too:small", "-c", "auto", "-c", "zero", "--units", "4")
    assert "patches of 4 x 4 pixels" in said and "(random)" in said and "3 samples are few" in said
    page = (here / "relprop-evaluate.html").read_text(encoding="utf-8")
    assert "How far can the explanations be trusted?" in page and "most relevant first" in page


def test_tables_as_data_and_resumed(here: Path) -> None:
    options = (
        "evaluate",
        "rows.csv",
        "--model",
        "mine_too:table",
        "--metric",
        "infidelity",
        "--keep",
        "work",
        "--json",
    )
    first = json.loads(good(*options))
    assert "infidelity" in first["table"] and first["best"]
    assert (here / "work" / "journal.jsonl").exists()
    assert json.loads(good(*options)) == first


def test_reliability_of_replacements(here: Path) -> None:
    options = ("evaluate", "pictures", "--model", "mine_too:small", "--metric", "reliability", "--units", "4")
    assert "r_oms" in good(*options, "--of", "probability")
    assert "pass of='probability'" in run(*options).output.replace("\n", " ")
    assert "of must be one of" in run(*options, "--of", "odds").output.replace("\n", " ")


def test_search(here: Path) -> None:
    said = good("evaluate", "rows.csv", "--model", "mine_too:table", "--search")
    assert "held-out" in said and ("relprop.Composite(" in said or "'auto'" in said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pictures", "-c", "nonsense"], "no composite"),
        (["pictures", "--metric", "beauty"], "no metric 'beauty'"),
        (["pictures", "--units", "words"], "needs texts"),
        (["rows.csv", "pictures"], "one shape"),
        (["rows.csv", "--search", "--metric", "flipping", "--metric", "erasure"], "one --metric"),
    ],
)
def test_mistakes_are_one_line(here: Path, arguments: list[str], said: str) -> None:
    model = "mine_too:table" if arguments[0] == "rows.csv" and "pictures" not in arguments else "mine_too:small"
    answer = run("evaluate", *arguments, "--model", model)
    assert answer.exit_code != 0
    assert said in answer.output


def test_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    import text_models as tiny

    monkeypatch.chdir(tmp_path)
    tokenizer = tiny.words()
    tiny.build("bert", tokenizer).save_pretrained(tmp_path / "news")
    tokenizer.save_pretrained(tmp_path / "news")
    said = good("evaluate", "OPEC ministers cut crude oil output.", "Oil.", "--model", "hf:news", "--units", "words")
    assert "Units: words" in said and "Delete(" in said
