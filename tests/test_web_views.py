"""Every view of the page, at 1400 and 420 pixels: axe-core finds nothing serious, and the keyboard alone is enough."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import test_web_rows
import test_web_runs
import web_pages
from relprop.web.page_subject import subject_of

for needed in ("gradio", "zarr", "sklearn", "transformers"):
    pytest.importorskip(needed)
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core judges the page")
# Warnings of Gradio about pandas, in threads of its own.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
folder = test_web_runs.folder
_AT_REST = """() => {
    const faint = each => each.checkVisibility() && [...(function* () {
        for (let at = each; at; at = at.parentElement) yield getComputedStyle(at).opacity;
    })()].some(opacity => Number(opacity) < 1);
    const busy = [...document.querySelectorAll('.pending')].some(each => each.checkVisibility())
        || document.getAnimations().some(each => each.playState === 'running' && each.effect.getTiming().iterations === 1)
        || [...document.querySelectorAll('h2, h3, p, td, span.token, summary')].some(faint);
    if (busy) window.restedSince = undefined;
    else window.restedSince ??= performance.now();
    return !busy && performance.now() - window.restedSince > 500;
}"""
"""Whether nothing has been awaited, moved or faded in for half a second: axe-core judges what it sees."""
TABS = ("small", "people", "writer", "maps")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[str]:
    """One page with a network of pictures, one of rows, one of texts, and a run."""
    table = tmp_path_factory.mktemp("views") / "people.csv"
    test_web_rows.table(table)
    loads = [
        ("small", web_pages.subject), ("people", lambda: test_web_rows.subject("tabular")),
        ("writer", lambda: subject_of("test_web_text:writer")),
    ]  # fmt: skip
    with web_pages.served(loads, runs=[("maps", lambda: test_web_runs.BrowsedRun(folder))], examples=[table]) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with web_pages.browsers() as opened:
        yield opened


def press(page: Any, place: str, key: str = "Enter") -> None:
    """Focuses a part as the Tab key does, which it must be able to, and presses a key."""
    found = page.locator(place).first
    found.wait_for(state="visible")
    found.focus()
    assert page.evaluate("document.activeElement.tabIndex") >= 0
    page.keyboard.press(key)


def ask(page: Any, view: str) -> None:
    """Goes to a view by the keyboard, and asks something there."""
    press(page, f"role=tab[name='{'maps' if view in ('clusters', 'units') else view}']")
    if view == "small":
        press(page, ".examples button >> nth=1 >> visible=true")
        page.wait_for_selector("#maps .stage svg")
        page.wait_for_function("window.location.search.includes('target')")
        before = page.inner_text("#maps h3 >> nth=0")
        press(page, "#classes input >> nth=1", "Space")
        page.wait_for_function("before => document.querySelector('#maps h3').innerText !== before", arg=before)
    elif view == "people":
        press(page, "text=people.csv >> visible=true")
        press(page, "#rows-1 [data-n='2']")
        page.wait_for_function("document.querySelector('#maps-1 h3')?.innerText.includes('row 2')")
    elif view == "writer":
        page.locator("#text-2 textarea").focus()
        page.keyboard.type("The capital of France is")
        press(page, "#ask-2")
        page.wait_for_selector("#maps-2 .tokens")
    elif view == "maps":
        press(page, "#samples-3 [data-n='1']")
        page.wait_for_selector("#maps-3 svg")
    elif view == "clusters":
        press(page, "role=tab[name='Clusters']")
        press(page, "#find-3")
        page.wait_for_selector("#clusters-3 svg")
    else:
        press(page, "role=tab[name='Units']")
        press(page, "#show-unit-3")
        page.wait_for_selector("#units-3 [data-n]")


@pytest.mark.parametrize("width", [1400, 420])
@pytest.mark.parametrize("view", [*TABS, "clusters", "units"])
def test_a_view_by_keyboard_and_axe(browser: Any, address: str, view: str, width: int) -> None:
    seen = web_pages.Page(browser, address, width)
    page = seen.page
    page.set_default_timeout(60_000)
    ask(page, view)
    page.wait_for_function(_AT_REST)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = [
        f"{each['id']}: {node['html'][:200]}"
        for each in axe.Axe().run(page).response["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]
    assert not found, "\n".join(found)
    assert not seen.errors and not seen.foreign()
    page.close()


def test_a_link_leads_to_its_tab(browser: Any, address: str) -> None:
    seen = web_pages.Page(browser, address, path="?example=0&row=3&target=1&tab=1")
    page = seen.page
    page.wait_for_function("document.querySelector('#maps-1 h3')?.innerText.includes('row 3')")
    assert page.locator("#maps-1 h3").first.is_visible()
    assert page.locator("#maps .stage").count() == 0  # the other tabs' settings are theirs
    press(page, "#rows-1 [data-n='4']")
    page.wait_for_function("window.location.search.includes('row=4') && window.location.search.includes('tab=1')")
    page.close()
