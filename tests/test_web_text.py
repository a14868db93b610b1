"""Texts on the page: what is explained, the token that is chosen, the code, hostile texts, and the part in a browser."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import relprop
import web_pages
from relprop.errors import CompositeError, InputError, RelpropError, TargetError
from relprop.rendering.scale import number
from relprop.web import downloads, texts
from relprop.web.limits import Limits
from relprop.web.page_subject import PageSubject, subject_of
from relprop.web.text_links import LinkedText, target_of

pytest.importorskip("transformers")

import text_models

TEXT = "the capital of france is paris"


def classifier() -> tuple[Any, Any]:
    """`test_web_text:classifier` is its name for `--model`."""
    torch.manual_seed(0)
    tokenizer = text_models.words()
    return text_models.build("bert", tokenizer, num_labels=3), tokenizer


def writer() -> tuple[Any, Any]:
    torch.manual_seed(0)
    tokenizer = text_models.letters()
    return text_models.build("gpt2", tokenizer), tokenizer


@pytest.fixture(scope="module")
def classes() -> PageSubject:
    model, tokenizer = classifier()
    return subject_of(model.eval(), tokenizer=tokenizer)


@pytest.fixture(scope="module")
def language() -> PageSubject:
    return subject_of("test_web_text:writer")


def test_an_answer_is_what_explain_text_says(classes: PageSubject) -> None:
    assert classes.reads == "text" and classes.loaded.classes
    answer = texts.ask(classes, TEXT, texts.TextRequest(1, 2, ("epsilon",)), Limits())
    wanted = relprop.explain_text(
        classes.loaded.model, classes.loaded.tokenizer, TEXT, relprop.Contrast(1, 2), composite="epsilon"
    )
    assert torch.equal(answer.results[2].relevance, wanted.relevance)  # type: ignore[attr-defined]
    assert len(answer.results) == 3 and len(answer.likely) == 3
    shown = texts.maps_html(answer, words=True)
    assert "paris" in shown and "<script" not in shown


def test_the_token_that_is_chosen_is_explained_from_what_comes_before_it(language: PageSubject) -> None:
    assert language.reads == "text" and not language.loaded.classes
    text = "The capital of France is Paris"
    answer = texts.ask(language, text, texts.TextRequest(), Limits())
    place = len(answer.pieces) - 1
    start, token = texts.before(language, text, place)
    assert text == start + token
    found = texts.ask(language, start, texts.TextRequest(token), Limits()).results[0]
    wanted = relprop.explain_text(language.loaded.model, language.loaded.tokenizer, start, token)
    assert torch.equal(found.relevance, wanted.relevance)  # type: ignore[attr-defined]
    for wrong in (-1, 0, len(answer.pieces)):
        with pytest.raises(InputError):
            texts.before(language, text, wrong)


@pytest.mark.parametrize("name", ["auto", "gamma_flat", "attnlrp_gamma"])
def test_gamma_and_the_first_layer_are_those_of_the_composite(classes: PageSubject, name: str) -> None:
    answer = texts.ask(classes, TEXT, texts.TextRequest(1, None, (name,), gamma=1.5, first="zplus"), Limits())
    model, tokenizer = classes.loaded.model, classes.loaded.tokenizer
    own = relprop.explain_text(model, tokenizer, TEXT).composite.name if name == "auto" else name
    made = relprop.composites.NAMES[own]
    given = {"attnlrp": {}, "attnlrp_gamma": {"linear": 1.5}}.get(own, {"gamma": 1.5})
    rules = relprop.Composite({relprop.first: relprop.ZPlus()}) | made(**given)
    wanted = relprop.explain_text(model, tokenizer, TEXT, 1, composite=rules)
    torch.testing.assert_close(answer.results[0].relevance, wanted.relevance)  # type: ignore[attr-defined]
    plain = texts.ask(classes, TEXT, texts.TextRequest(1, None, (name,)), Limits()).results[0]
    assert not torch.allclose(plain.relevance, wanted.relevance, rtol=1e-7, atol=0)  # type: ignore[attr-defined]
    assert "first zplus" in answer.names[0] and "first zplus" in texts.maps_html(answer, False)


def test_blocks_and_heads_are_those_of_explain_text(language: PageSubject) -> None:
    answer = texts.ask(language, TEXT, texts.TextRequest(parts=True), Limits())
    (result,) = answer.results
    wanted = relprop.explain_text(language.loaded.model, language.loaded.tokenizer, TEXT, parts=True)
    torch.testing.assert_close(result.blocks, wanted.blocks)  # type: ignore[attr-defined]
    shown = texts.maps_html(answer, False)
    blocks, heads = wanted.blocks, wanted.heads.sum(-1)
    assert f'title="{number(float(blocks[0, 2]))}' in shown or number(float(blocks[0, 2])) in shown
    assert number(float(heads[1, 0])) in shown and "Each attention head" in shown and "Generated" not in shown


@pytest.mark.parametrize(("target", "against"), [(None, None), (1, 2)])
def test_several_texts_are_each_explained_as_alone(
    classes: PageSubject, target: int | None, against: int | None
) -> None:  # fmt: skip
    given = [TEXT, "paris is the capital", "the <b>"]
    wish = texts.TextRequest(target, against, ("epsilon",), lines=True)
    answer = texts.ask(classes, "\n\n".join([f"  {each} " for each in given]), wish, Limits())
    for n, each in enumerate(given):
        alone = texts.ask(classes, each, replace(wish, lines=False), Limits())
        for many, one in zip(answer.results, alone.results, strict=True):
            torch.testing.assert_close(many[n].relevance, one.relevance)  # type: ignore[index,attr-defined]
    shown = texts.maps_html(answer, False)
    assert shown.count('class="tokens"') == len(given) * len(answer.results)
    assert answer.likely == () and answer.pieces == ()
    one = texts.ask(classes, TEXT, replace(wish, parts=True), Limits())
    assert texts.maps_html(one, False).count("Each attention head") == len(one.results)
    for kind in downloads.OF_NUMBERS:
        assert len(downloads.made(answer.results[-1], kind, "relevance", {})["data"]) > 100
    with pytest.raises(InputError, match="2 texts are explained at once; got 3 lines"):
        texts.ask(classes, "a\nb\nc", wish, Limits(texts=2))


@pytest.mark.parametrize(
    "wish",
    [
        texts.TextRequest(" is", " Rome", ("epsilon", "auto")), texts.TextRequest(generate=3), texts.TextRequest(),
        texts.TextRequest(composites=("gamma_flat",), gamma=0.5, first="wsquare", parts=True),
        texts.TextRequest(" is", " Rome", ("epsilon",), lines=True, parts=True),
    ],
)  # fmt: skip
def test_the_code_runs_and_gives_the_same_numbers(
    language: PageSubject, wish: texts.TextRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "The capital of France" + ("\nParis is" if wish.lines else "")
    answer = texts.ask(language, text, wish, Limits())
    space: dict[str, Any] = {}
    exec(answer.code, space)
    assert [str(each) for each in space["results"]] == [str(each) for each in answer.results]
    assert Path("texts.html").exists()


@pytest.mark.parametrize(
    "text",
    [
        '"""\nimport os',
        "\\",
        "'); raise SystemExit(('",
        "\u202e<b>x</b>",
        "{{ 7 * 7 }}",
        "\x00\x1b[31m",
        "\ud800",
        "=1+1",
    ],
)
def test_a_text_is_a_literal_in_the_code_and_escaped_in_html(language: PageSubject, text: str) -> None:
    code = texts.code_of(language, text, texts.TextRequest(), ())
    line = next(line for line in code.splitlines() if line.startswith("text = "))
    space: dict[str, Any] = {}
    exec(line, space)
    assert space["text"] == text and code.isascii()
    if text.isprintable():
        shown = texts.tokens_html([(text, False)])
        assert "<b>" not in shown


@pytest.mark.parametrize(
    "linked",
    [
        LinkedText(), LinkedText("a & b?=c #d\n+%20 é", " Paris", "id:464", ("epsilon", "auto"), True),
        LinkedText("x", "2", "1"),
        LinkedText("a\nb", gamma=0.5, first="flat", parts=True, lines=True),
    ],
)  # fmt: skip
def test_a_link_restores_a_text(linked: LinkedText) -> None:
    assert LinkedText.of_link(linked.link()) == linked


def test_links_that_hold_no_text() -> None:
    assert "text=" not in LinkedText("a" * 1001).link()
    assert LinkedText("\ud800x").link() == "?text=%3Fx"
    for query in ("?composites=nothing", "?target=" + "a" * 101, "?text=" + "a" * 20_000, "?gamma=x", "?first=zzz"):
        with pytest.raises(RelpropError):
            LinkedText.of_link(query)


def test_questions_that_cannot_be_answered(classes: PageSubject, language: PageSubject) -> None:
    def refused(
        subject: PageSubject, text: str, wish: texts.TextRequest, kind: type[RelpropError], message: str
    ) -> None:
        with pytest.raises(kind, match=message):
            texts.ask(subject, text, wish, Limits(letters=300, tokens=40, generated=5))

    refused(classes, "  ", texts.TextRequest(), InputError, "there is no text yet")
    refused(classes, "a" * 301, texts.TextRequest(), InputError, "301 letters, more than the 300")
    refused(classes, "is " * 60, texts.TextRequest(), InputError, "62 tokens, more than the 40")
    refused(classes, TEXT, texts.TextRequest(generate=2), InputError, "answers with classes")
    refused(language, TEXT, texts.TextRequest(generate=2, lines=True), InputError, "goes on from one text")
    refused(classes, TEXT, texts.TextRequest(first="zbox"), CompositeError, "bounds of the input")
    refused(language, TEXT, texts.TextRequest(generate=6), InputError, "writes 1 to 5 tokens")
    refused(classes, TEXT, texts.TextRequest(against=1), TargetError, "is named, too")
    refused(classes, TEXT, texts.TextRequest(1, 1), TargetError, "cannot be set against itself")
    refused(classes, TEXT, texts.TextRequest(7), TargetError, "7")
    with pytest.raises(InputError, match="at most 100 letters"):
        target_of("a" * 101)
    assert target_of("id:12") == 12 and target_of(" ") is None


@pytest.mark.filterwarnings("ignore")
def test_a_text_in_a_browser(language: PageSubject, classes: PageSubject) -> None:
    pytest.importorskip("gradio", reason="the page needs Gradio")
    playwright = pytest.importorskip("playwright.sync_api", reason="a browser is driven by Playwright")
    from chromium import PROGRAM

    if PROGRAM is None:
        pytest.skip("no Chromium is installed")
    with web_pages.served([("writer", lambda: language)]) as address, playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 420, "height": 900})
        page.set_default_timeout(60_000)
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address)
        page.fill("#text textarea", "The capital of France is Paris")
        page.click("#ask")
        page.wait_for_selector("#maps .tokens")
        page.wait_for_function("window.location.search.includes('text=The+capital')")
        link = page.url
        page.goto("about:blank")
        page.goto(link)
        page.wait_for_selector("#maps .tokens")
        assert page.input_value("#text textarea") == "The capital of France is Paris"
        page.locator("#tokens button").last.click()
        page.wait_for_function("document.querySelector('#target textarea, #target input').value !== ''")
        page.wait_for_selector("#maps .tokens")
        page.click("#write")
        page.wait_for_selector("#maps .matrix")
        with page.expect_download() as download:
            page.click("#download-csv-text")
        assert "relevance" in Path(download.value.path()).read_text()
        assert page.evaluate("document.documentElement.scrollWidth") <= 420
        assert not [url for url in requests if not url.startswith((address, "data:", "blob:", "about:"))]
        browser.close()
