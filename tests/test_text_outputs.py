"""Results of texts are shown, drawn, saved, loaded and reported as any other result is."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import relprop
from chromium import PROGRAM, Chromium
from golden import same_text
from hostile import CORPUS
from relprop.composites import Composite
from relprop.errors import CompositeError, InputError
from relprop.rendering import Options, TokenMap, TokenMatrix
from relprop.rendering.html import values_table
from relprop.rendering.visible import visible
from relprop.results.picture import drawing
from relprop.results.show import in_terminal
from relprop.text import GenerationRelevance, TextRelevance
from test_hostile import ALLOWED_TAGS, STEERING, Read

FORMATS = (".png", ".svg", ".pdf", ".html", ".json", ".npz", ".csv")


def a_text(**changes: Any) -> TextRelevance:
    """A result that no model made, so that what is shown of it is known."""
    made: dict[str, Any] = {
        "tokens": ["[CLS]", "not", "a", "very", "go", "##od", "film", "[SEP]"],
        "pieces": ["[CLS]", "not", " a", " very", " go", "od", " film\n", "[SEP]"],
        "special": [True, *[False] * 6, True],
        "relevance": torch.tensor([0.0, -1.0, 0.01, 0.4, 0.5, 0.25, 0.1, -0.2]),
        "target": "positive", "index": 1, "probability": 0.75, "score": 1.0, "residual": 0.94,
        "spans": [(0, 1), (1, 2), (2, 3), (3, 4), (4, 6), (6, 7), (7, 8)],
        "predictions": [("positive", 0.75), ("negative", 0.25)], "composite": Composite(name="attnlrp"),
    }  # fmt: skip
    return TextRelevance(**made | changes)


def a_generation(**changes: Any) -> GenerationRelevance:
    """Two tokens written after three."""
    made: dict[str, Any] = {
        "prompt": ["The", " capital", " is"], "generated": [" Paris", "."], "names": ["The", "Ġcapital", "Ġis", "ĠParis", "."],
        "special": [False] * 5, "relevance": torch.tensor([[0.5, 1.0, -0.2, 0.0, 0.0], [0.1, 0.0, 0.3, 0.9, 0.0]]),
        "probabilities": torch.tensor([0.75, 0.5]), "scores": torch.tensor([1.5, 1.25]), "residual": torch.tensor([0.2, -0.05]),
        "composite": Composite(name="attnlrp"),
    }  # fmt: skip
    return GenerationRelevance(**made | changes)


def a_translation() -> TextRelevance:
    """A text, and what had been written."""
    written = a_text(
        tokens=["<s>", "le"], pieces=["<s>", " le"], special=[True, False], relevance=torch.tensor([2.0, -0.5]),
        spans=[(0, 1), (1, 2)], predictions=[],
    )  # fmt: skip
    return a_text(decoder=written, target=" film", residual=-0.56)


RESULTS: dict[str, Callable[[], Any]] = {"text": a_text, "generation": a_generation, "translation": a_translation}
every_result = pytest.mark.parametrize("kind", RESULTS)


# ---------------------------------------------------------------------------------------------------------- shown


@every_result
@pytest.mark.parametrize("colour", [True, False])
def test_in_a_terminal(kind: str, colour: bool) -> None:
    said = in_terminal(RESULTS[kind](), Options(), colour=colour)
    same_text(said, f"{kind}.{'ansi' if colour else 'txt'}")


@every_result
def test_in_a_page(kind: str) -> None:
    body = RESULTS[kind]().to_html("A <title>").partition("<main>")[2].partition("<h2>Made with")[0]
    same_text(body, f"{kind}.html")


@every_result
def test_show(kind: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    R = RESULTS[kind]()
    R.show()
    assert capsys.readouterr().out == in_terminal(R, Options(), colour=False) + "\n"
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    R.show("browser")
    path = Path(opened[0].removeprefix("file://"))
    assert "Content-Security-Policy" in path.read_text(encoding="utf-8")
    path.unlink()
    assert R._repr_html_().startswith('<div class="relprop">')
    with pytest.raises(InputError, match="'notebook', 'terminal' or 'browser'"):
        R.show("paper")


def test_words_are_joined_on_request() -> None:
    (view,) = a_text().views(Options(merge=True))
    assert isinstance(view.data, TokenMap)
    assert [(t.text, t.special) for t in view.data.tokens][4:] == [
        (" good", False),
        (" film\n", False),
        ("[SEP]", True),
    ]
    assert view.entries[4] == (" good", 0.75)


def test_both_texts_of_an_encoder_and_a_decoder_share_a_scale() -> None:
    source, written = a_translation().views(Options())
    assert source.data.scale == written.data.scale and source.data.scale.limit == 2.0
    assert "shared by 2 maps" in source.data.note
    assert (source.title, written.title) == ("film, probability 0.75", "film, probability 0.75: written so far")
    assert len(a_translation().rows()) == 1 and not written.rows


def test_options_of_drawing() -> None:
    drawn = drawing(a_text(), Options(room=300))
    assert drawn.width == 324
    assert a_text().to_image(scale=2, room=300).width == 648
    for R in (a_text(), a_generation()):
        assert "percentile 50" in R.to_html(percentile=50) and "scale fixed" in R.to_svg(limit=3.0)
        assert R.to_svg(palette="orange_purple") != R.to_svg()
        with pytest.raises(InputError, match="not both"):
            R.to_svg(limit=3.0, percentile=50)


def test_a_good_probability_is_no_certainty() -> None:
    (view,) = a_text(probability=0.99999, predictions=[("positive", 0.99999), ("negative", 1e-5)]).views(Options())
    assert view.title == "positive, probability >0.999"
    assert view.said == "Likeliest, with probabilities: positive >0.999, negative 1e-05."


def test_a_matrix_keeps_zero_and_not_read_apart() -> None:
    (view,) = a_generation().views(Options())
    assert isinstance(view.data, TokenMatrix) and view.kind == "matrix"
    assert view.data.read.tolist() == [[True] * 3 + [False], [True] * 4]
    assert view.title == "Paris." and view.entries[0] == ("Paris from capital", 1.0)


@pytest.mark.parametrize(
    "values", [torch.zeros(8), torch.full((8,), 0.5), torch.tensor([torch.nan, torch.inf, *[0.5] * 6])],
    ids=["zero", "constant", "not finite"],
)  # fmt: skip
def test_odd_relevance_says_what_it_is(values: torch.Tensor) -> None:
    R = a_text(relevance=values)
    said = "all zero" if not values.nan_to_num().any() else "constant" if values.isfinite().all() else "2 of 8 values"
    assert said in R.to_html() and said in in_terminal(R, Options(), colour=False)
    R.to_image()


def test_on_axes_of_matplotlib() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2)
    assert a_text(pieces=["[CLS]", "$x$", *[" a"] * 5, "[SEP]"]).plot(left) is left
    names = [tick.get_text() for tick in left.get_yticklabels()]
    assert names[:2] == ["[CLS]", r"\$x\$"] and len(left.patches) == 8
    a_generation().plot(right)
    shown = right.images[0]
    assert shown.get_array().mask.sum() == 1 and shown.norm.vmax == -shown.norm.vmin == 1.0
    assert [tick.get_text() for tick in right.get_yticklabels()] == ["Paris", "."]
    figure.canvas.draw()
    pyplot.close(figure)
    with pytest.raises(InputError, match="sample 1 of 1"):
        a_text().plot(sample=1)


# ------------------------------------------------------------------------------------------------------------ saved


@every_result
@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format(kind: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"r{suffix}"
    RESULTS[kind]().save(path)
    start = {".png": b"\x89PNG", ".svg": b"<svg", ".pdf": b"%PDF", ".html": b"<!DOCTYPE", ".npz": b"PK", ".json": b"{"}
    assert path.read_bytes().startswith(start.get(suffix, b"sample,target,name,relevance"))
    with pytest.raises(InputError, match="there is no format"):
        RESULTS[kind]().save(tmp_path / "r.docx")


@every_result
def test_a_folder_gives_the_result_back(kind: str, tmp_path: Path) -> None:
    R = RESULTS[kind]()
    R.save(tmp_path / "run")
    loaded = relprop.load(tmp_path / "run")
    assert type(loaded) is type(R) and str(loaded) == str(R)
    assert loaded.to_html() == R.to_html() and loaded.to_svg() == R.to_svg()
    loaded.save(tmp_path / "again")  # what was loaded is saved as it was
    assert str(relprop.load(tmp_path / "again")) == str(R)
    with pytest.raises(CompositeError, match="build it anew"):
        relprop.attribute(nn.Linear(2, 2), torch.ones(1, 2), 0, composite=loaded.composite)


def test_all_of_a_text_survives_a_folder(tmp_path: Path) -> None:
    R = a_text(
        index=relprop.Contrast(1, (2, 3)), probability=None, positions={"rotary": torch.ones(8)}, blocks=torch.randn(2, 8),
        heads=torch.randn(2, 4, 8), neurons=[torch.randn(8, 3), torch.randn(8, 5)], layers={"a.b": torch.randn(8)},
        unknown={"odd": 3}, notices=["it draws"],
    )  # fmt: skip
    R.save(tmp_path / "run")
    loaded = relprop.load(tmp_path / "run")
    assert (loaded.index, loaded.probability, loaded.unknown) == (R.index, None, {"odd": 3})
    assert loaded.notices == ["it draws"] and "it draws" in str(loaded)
    for name in ("relevance", "blocks", "heads"):
        assert torch.equal(getattr(loaded, name), getattr(R, name))
    assert torch.equal(loaded.neurons[1], R.neurons[1]) and torch.equal(loaded.layers["a.b"], R.layers["a.b"])
    assert torch.equal(loaded.positions["rotary"], torch.ones(8)) and loaded.predictions == R.predictions
    assert loaded.words == R.words
    for suffix in (".json", ".npz"):
        R.save(tmp_path / f"r{suffix}")
    data = json.loads((tmp_path / "r.json").read_text())
    assert torch.equal(torch.tensor(data["neurons"][1]), R.neurons[1]) and data["index"] == {
        "positive": 1,
        "negative": [2, 3],
    }
    with np.load(tmp_path / "r.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["heads"], R.heads) and np.array_equal(arrays["neurons[1]"], R.neurons[1])
        about = json.loads(str(arrays["about"]))
    assert about["tokens"] == R.tokens and about["target"] == "positive" and about["composite"] == "attnlrp"


def damaged(folder: Path, change: Callable[[dict], None]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("text", lambda m: m.update(kind="generation")),
        ("text", lambda m: m.update(kind="speech")),
        ("text", lambda m: m.pop("kind")),
        ("text", lambda m: m["content"].update(tokens=["a"])),
        ("text", lambda m: m["content"].update(tokens=[], pieces=[], special=[])),
        ("text", lambda m: m["content"].update(pieces=[3] * 8)),
        ("text", lambda m: m["content"].update(relevance=1.0)),
        ("text", lambda m: m["content"].update(score="1")),
        ("text", lambda m: m["content"].update(spans=[{"tuple": [0, 99]}])),
        ("text", lambda m: m["content"].update(spans=[3])),
        ("text", lambda m: m["content"].pop("words", m["content"].pop("spans"))),
        ("generation", lambda m: m["content"].update(prompt=["a"])),
        ("generation", lambda m: m["content"].update(scores=None)),
        ("generation", lambda m: m.update(kind="relevance")),
        ("translation", lambda m: m["content"].update(decoder=3)),
        ("translation", lambda m: m["content"]["decoder"]["dict"].pop()),
    ],
)
def test_a_damaged_folder_is_refused(kind: str, change: Callable[[dict], None], tmp_path: Path) -> None:
    RESULTS[kind]().save(tmp_path / "run")
    damaged(tmp_path / "run", change)
    with pytest.raises(InputError, match="run'"):
        relprop.load(tmp_path / "run")


def test_tables(tmp_path: Path) -> None:
    a_generation(prompt=["=1+1", " capital", " is"]).save(tmp_path / "r.csv")
    found = list(csv.reader((tmp_path / "r.csv").read_text(encoding="utf-8").splitlines()))
    assert found[1] == ["0", " Paris", "'=1+1", "0.5"] and len(found) == 1 + 3 + 4
    a_translation().save(tmp_path / "t.csv")
    found = list(csv.reader((tmp_path / "t.csv").read_text(encoding="utf-8").splitlines()))
    assert [row[2].strip() for row in found[1:]][-3:] == ["[SEP]", "<s>", "le"] and found[1][1] == "film"


def test_in_a_report(tmp_path: Path) -> None:
    image = relprop.attribute(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), torch.randn(1, 3, 4, 4), 0)
    relprop.report(
        {"News": [a_text(), a_text(target="negative")], "A sentence": [a_generation()], "A picture": [image]},
        tmp_path / "r.html",
    )
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert page.count("Likeliest, with probabilities: positive 0.75, negative 0.25.") == 1  # of one text, once
    assert page.count("class=matrix>") == 1 and "<image" in page and page.count("attnlrp</h3>") == 1
    assert re.search(r"<td>Paris, probability 0.75</td><td>attnlrp</td><td class=\"number\">1.5</td>", page)
    relprop.report(a_text(), tmp_path / "one.html")


# ---------------------------------------------------------------------------------------------------------- hostile


def hostile() -> list[Any]:
    """Results in which every text that others choose is hostile."""
    texts = [text for text in CORPUS if text]
    count = len(texts)
    text = a_text(
        tokens=texts, pieces=texts, special=[n % 5 == 0 for n in range(count)], relevance=torch.linspace(-1, 1, count),
        target=texts[0], spans=[(n, n + 1) for n in range(count)], predictions=[(one, 0.5) for one in texts[:60]],
        positions={texts[1]: torch.ones(count)},
    )  # fmt: skip
    size = 4
    matrix = a_generation(
        prompt=texts[size:], generated=texts[:size], names=[*texts[size:], *texts[:size]], special=[False] * count,
        relevance=torch.randn(size, count), probabilities=torch.ones(size), scores=torch.ones(size), residual=torch.ones(size),
    )  # fmt: skip
    return [text, replace(text, decoder=replace(text, pieces=texts[::-1]), target=texts[3]), matrix]


def test_hostile_pages_hold_no_tag_but_ours(tmp_path: Path) -> None:
    relprop.report(hostile(), tmp_path / "r.html")
    read = Read((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert {tag for tag, _ in read.tags} <= ALLOWED_TAGS | {"span"}
    for tag, attributes in read.tags:
        assert set(attributes) <= {
            "class", "title", "scope", "open", "dir", "name", "content", "http-equiv", "charset", "lang", "rel", "href", "id",
        }, (tag, attributes)  # fmt: skip
    assert not STEERING.search("".join(read.text))
    assert not STEERING.search("".join(filter(None, (a.get("title") for _, a in read.tags))))


@pytest.mark.parametrize("colour", [True, False])
def test_hostile_text_steers_no_terminal(colour: bool) -> None:
    for R in hostile():
        said = in_terminal(R, Options(), colour=colour)
        assert not STEERING.search(re.sub("\x1b\\[(0|[34]8;2;\\d+;\\d+;\\d+)m", "", said))
        assert "\x1b" not in str(R)


def test_hostile_text_survives_every_file(tmp_path: Path) -> None:
    """Half letters too, which UTF-8 cannot hold."""
    for number, R in enumerate(hostile()):
        for suffix in FORMATS:
            R.save(tmp_path / f"{number}{suffix}")
        R.save(tmp_path / str(number))
        loaded = relprop.load(tmp_path / str(number))
        assert loaded.tokens == R.tokens
        data = json.loads((tmp_path / f"{number}.json").read_text(encoding="utf-8"))
        assert data["names" if "names" in data else "tokens"] == (R.names if "names" in data else R.tokens)


def four_thousand() -> TextRelevance:
    generator = torch.Generator().manual_seed(0)
    pieces = [f" word{n % 997}" for n in range(4000)]
    return a_text(
        tokens=pieces, pieces=pieces, special=[False] * 4000, relevance=torch.randn(4000, generator=generator),
        spans=[(n, n + 1) for n in range(4000)],
    )  # fmt: skip


def test_a_page_of_four_thousand_tokens_is_small(tmp_path: Path) -> None:
    four_thousand().save(tmp_path / "r.html")
    page = (tmp_path / "r.html").read_bytes()
    assert len(page) < 400_000 and page.count(b" title=") == 4000
    assert values_table([("a", 1.0)], "t") and page.count(b"<tr><td>") >= 4000


@pytest.mark.slow
@pytest.mark.skipif(PROGRAM is None, reason="no Chromium on this machine")
def test_in_a_browser(tmp_path: Path) -> None:
    """No console message, no request; every text is shown."""
    relprop.report(hostile(), tmp_path / "hostile.html")
    four_thousand().save(tmp_path / "long.html")
    with Chromium() as browser:
        seen = browser.open(tmp_path / "hostile.html")
        assert seen.console == [] and seen.requests == [] and seen.title == "Report"
        for text in filter(None, CORPUS):
            assert visible(text.replace("\n", "↵\n"), lines=True) in seen.text
        seen = browser.open(tmp_path / "long.html")
        assert seen.console == [] and seen.requests == [] and seen.text.count("word") >= 8000
        print(f"4,000 tokens opened in {seen.loaded:.2f} s")


def test_a_target_without_letters_stands_between_quotes() -> None:
    from relprop.results.text_views import called

    assert [called(each) for each in (" Paris", ".", " ", "\n", " −1", "héllo")] == [
        "Paris", "'.'", "' '", r"'\n'", "−1", "héllo"
    ]  # fmt: skip
