"""Text of others is text: shown as itself in pages, drawings, terminals, tables and files."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

import relprop
from chromium import PROGRAM, Chromium
from hostile import CORPUS
from relprop.rendering import Drawing, TokenMap, TokenMatrix, bars, html, terminal
from relprop.rendering.marks import Text
from relprop.rendering.visible import LONGEST, visible

ALLOWED_TAGS = {
    "html", "head", "meta", "link", "title", "style", "body", "main", "h1", "h2", "h3", "p", "section", "div", "b", "i",
    "strong", "svg", "rect", "text", "image", "polyline", "table", "thead", "tbody", "tr", "th", "td", "pre", "details",
    "summary",
}  # fmt: skip
# Letters that reorder, hide or steer, and must not reach a screen: controls but the line break, and the format letters
# except for the joiners that scripts and emoji need.
STEERING = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufffe\uffff\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)


class Read(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def hostile_report() -> str:
    """A report in which every text that others choose is hostile."""
    torch.manual_seed(0)
    texts = CORPUS
    model = nn.Linear(len(texts), len(texts))
    R = relprop.attribute(model, torch.randn(1, len(texts)), 3, labels=texts)
    groups = {text: [R] for text in texts[:4]}
    from relprop.rendering import Options
    from relprop.results.report import report_page

    table = report_page(groups, title=texts[0], paragraphs=texts, options=Options(names=texts, most=1))
    tokens = report_page([R], title=texts[1], options=Options(tokens=texts))
    return html.page(texts[0], table.partition("<main>")[2] + tokens.partition("<main>")[2])


def test_the_corpus_is_large() -> None:
    assert len(CORPUS) >= 60 and len(set(CORPUS)) == len(CORPUS)


@pytest.mark.parametrize("text", CORPUS, ids=range(len(CORPUS)))
def test_visible_text_steers_nothing_and_loses_nothing(text: str) -> None:
    shown = visible(text)
    assert not STEERING.search(shown) and "\n" not in shown
    assert len(shown) <= LONGEST * 8 + 40
    if text.isprintable() and len(text) <= LONGEST:
        assert shown == text
    if len(text) > LONGEST:
        assert shown.endswith(f"({len(text):,} characters)")


def test_joiners_stay_where_scripts_need_them() -> None:
    assert visible("👩‍👩‍👧") == "👩‍👩‍👧" and visible("می‌خواهم") == "می‌خواهم"
    assert visible("ig‍nore") == "ig⟨U+200D⟩nore"


def test_pages_hold_no_tag_but_ours() -> None:
    read = Read(hostile_report())
    assert {tag for tag, _ in read.tags} <= ALLOWED_TAGS | {"a"}  # links to the parts of the page
    for tag, attributes in read.tags:
        assert not any(name.startswith("on") or name == "style" for name in attributes), (tag, attributes)
        for name in ("src", "href", "action"):
            address = attributes.get(name) or "data:"
            assert address.startswith("data:") or (tag == "a" and re.fullmatch(r"#part\d+", address))
    assert not STEERING.search("".join(read.text))


@pytest.mark.parametrize("text", CORPUS, ids=range(len(CORPUS)))
def test_every_text_is_in_the_page_as_itself(text: str) -> None:
    shown = TokenMap.of([text, "end"], [1.0, -0.5], style="plain", special=[False, False])
    read = Read(html.page("t", html.tokens_html(shown)))
    expected = visible(text.replace("\n", "↵\n"), lines=True)
    # In the table as it is, and in the line without the spaces around it, which have no colour.
    word = expected.strip(" ") or expected
    assert read.text.count(expected) == 1 + (word == expected) or not text
    assert word in read.text or not text


@pytest.mark.parametrize("text", CORPUS, ids=range(len(CORPUS)))
def test_drawings_are_well_formed(text: str) -> None:
    drawing = Drawing(200, 40, (Text(0, 0, text),), text)
    root = ElementTree.fromstring(drawing.to_svg())
    assert {element.tag.rpartition("}")[2] for element in root.iter()} <= {"svg", "title", "rect", "text"}
    assert drawing.to_image().size == (200, 40)
    assert drawing.to_pdf().endswith(b"%%EOF\n")


def test_views_of_hostile_names_are_well_formed() -> None:
    values = torch.linspace(-1, 1, len(CORPUS))
    for drawing in (
        bars(values, CORPUS, most=len(CORPUS)),
        TokenMap.of(CORPUS, values).drawing(),
        TokenMatrix.of(CORPUS[:5], CORPUS, torch.randn(5, len(CORPUS))).drawing(),
    ):
        ElementTree.fromstring(drawing.to_svg())
        drawing.to_image()


@pytest.mark.parametrize("colour", [True, False])
def test_a_terminal_is_steered_by_nobody_else(colour: bool) -> None:
    said = terminal.tokens(TokenMap.of(CORPUS, torch.zeros(len(CORPUS))), colour=colour)
    said += terminal.bars([(text, 1.0) for text in CORPUS], colour=colour)
    own = re.sub("\x1b\\[(0|[34]8;2;\\d+;\\d+;\\d+)m", "", said)
    assert not STEERING.search(own)
    assert colour or "\x1b" not in said


def test_no_cell_of_a_table_starts_a_formula(tmp_path: Path) -> None:
    R = relprop.attribute(nn.Linear(len(CORPUS), 2), torch.randn(1, len(CORPUS)), 0)
    R.save(tmp_path / "r.csv", names=CORPUS)
    before = csv.field_size_limit(2**21)
    try:
        rows = list(csv.reader(io.StringIO((tmp_path / "r.csv").read_text(encoding="utf-8"), newline="")))
    finally:
        csv.field_size_limit(before)
    assert len(rows) == len(CORPUS) + 1
    assert not any(cell.lstrip()[:1] in tuple("=+-@|%") and cell.strip() for row in rows[1:] for cell in row[1:3])


def test_results_with_hostile_labels_survive_a_folder(tmp_path: Path) -> None:
    labels = [text for text in CORPUS if "\ud800" not in text]  # JSON in UTF-8 has no surrogates
    R = relprop.attribute(nn.Linear(2, len(labels)), torch.randn(1, 2), 0, labels=labels)
    R.save(tmp_path / "run")
    assert relprop.load(tmp_path / "run").labels == labels


def test_a_page_allows_its_own_style_and_nothing_else() -> None:
    page = html.page("t", "")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.split("; ") == [
        "default-src 'none'", "img-src data:", f"style-src 'sha256-{digest}'", "base-uri 'none'", "form-action 'none'",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(PROGRAM is None, reason="no Chromium on this machine")
def test_in_a_browser(tmp_path: Path) -> None:
    """No console message, no request, no script; every text is shown; 4,000 tokens open in under a second."""
    hostile, long, proof = tmp_path / "hostile.html", tmp_path / "long.html", tmp_path / "proof.html"
    hostile.write_text(hostile_report(), encoding="utf-8")
    tokens = TokenMap.of([f" word{i % 97}" for i in range(4000)], torch.randn(4000))
    long.write_text(html.page("Long", html.tokens_html(tokens)), encoding="utf-8")
    # A page that does all of it, so that a browser that reports nothing does not pass.
    proof.write_text("<script>document.title='owned';console.log(1)</script><img src=http://127.0.0.1:9/x.png>")
    with Chromium() as browser:
        seen = browser.open(proof)
        assert seen.console and seen.requests and seen.title == "owned"
        seen = browser.open(hostile)
        assert seen.console == [] and seen.requests == []
        assert seen.title == visible(CORPUS[0])
        for text in CORPUS:
            assert visible(text.replace("\n", "↵\n"), lines=True) in seen.text
        browser.open(long)  # the first one warms the browser up
        seen = browser.open(long)
        assert seen.console == [] and seen.requests == [] and seen.text.count("word") == 8000
        print(f"4,000 tokens opened in {seen.loaded:.2f} s")
