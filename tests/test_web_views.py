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
        || [...document.querySelectorAll('h2, h3, p, td, span.token, summary, .relprop button')].some(faint);
    if (busy) window.restedSince = undefined;
    else window.restedSince ??= performance.now();
    return !busy && performance.now() - window.restedSince > 500;
}"""
"""Whether nothing has been awaited, moved or faded in for half a second: axe-core judges what it sees."""
FILES: list[Path] = []
"""Pictures to upload."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[str]:
    """One page with a network of pictures, one of rows, one of texts, and a run."""
    table = tmp_path_factory.mktemp("views") / "people.csv"
    test_web_rows.table(table)
    for name in ("a.png", "b.png"):
        FILES.append(table.parent / name)
        web_pages.photograph(seed=ord(name[0])).save(FILES[-1])
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
    assert found.evaluate("each => each === document.activeElement && each.tabIndex >= 0"), place
    page.keyboard.press(key)


def choose(page: Any, place: str, text: str) -> None:
    """Chooses in a list of choices by typing. The Tab key selects what a field holds.

    The list takes the choice in a later step, and none if Escape comes before, faster than a person could press it.
    """
    press(page, f"{place} input", "ControlOrMeta+a")
    page.keyboard.type(text)
    page.keyboard.press("Enter")
    page.wait_for_function(
        """([place, text]) => {
            const field = document.querySelector(`${place} input`);
            return field.value !== text || field.getAttribute('aria-expanded') === 'false';
        }""",
        arg=[place, text],
    )
    page.keyboard.press("Escape")


def address_says(page: Any, text: str) -> None:
    """Waits until the page's address holds a setting, which it does when the answer is there."""
    page.wait_for_function("text => decodeURIComponent(window.location.search).includes(text)", arg=text)


def saved(page: Any, place: str, start: bytes) -> None:
    """Saves a file by its button."""
    with page.expect_download() as download:
        press(page, place)
    assert Path(download.value.path()).read_bytes().startswith(start)


def picture(page: Any) -> None:
    """Every field of the part for pictures."""
    press(page, ".examples button >> nth=1 >> visible=true")
    address_says(page, "example=1")
    before = page.inner_text("#maps h3 >> nth=0")
    press(page, "#classes input >> nth=1", "Space")
    page.wait_for_function("before => document.querySelector('#maps h3').innerText !== before", arg=before)
    other = next(name for name in ("cup", "lynx") if name not in page.inner_text("#maps h3 >> nth=0"))
    choose(page, "#against", other)
    page.wait_for_function("document.querySelectorAll('#maps h3').length === 3")
    choose(page, "#composites", "epsilon_plus")
    address_says(page, "composites=auto,epsilon_plus")
    press(page, "#gamma input[type=range]", "ArrowRight")
    address_says(page, "gamma=0.16")  # the usual one is 0.15
    press(page, "#first input >> nth=1", "Space")
    address_says(page, "first=flat")
    press(page, "button:has-text('Drawing') >> visible=true")
    press(page, "input[aria-label*='Smoothing'][type=range]", "ArrowRight")
    address_says(page, "smooth=2")
    for corner, place in (("left", 4), ("top", 4), ("right", 20), ("bottom", 20)):
        press(page, f"#corner-{corner} input", "ControlOrMeta+a")
        page.keyboard.type(str(place))
    page.wait_for_function("document.querySelector('#inside').innerText.includes('rows 4 to 19: 25.0%')")
    press(page, "button:has-text('The code that made this') >> visible=true")
    page.wait_for_function("document.querySelector('#code-picture')?.innerText.includes('relprop.Flat()')")
    press(page, "#copy-picture")
    saved(page, "#download-png-picture", b"\x89PNG")
    press(page, "button:has-text('Several pictures at once')")
    with page.expect_file_chooser() as chooser:
        press(page, "#pictures button")
    chooser.value.set_files(FILES)
    page.wait_for_function("document.querySelectorAll('#maps h2').length === 2")


def rows(page: Any) -> None:
    """Every field of the part for tables, series and sounds."""
    press(page, ".examples button:has-text('people.csv') >> visible=true")
    press(page, "#rows-1 [data-n='2']")
    address_says(page, "row=2")
    press(page, "#classes-1 input >> nth=1", "Space")
    address_says(page, "target=")
    choose(page, "#form-1", "each row")
    address_says(page, "form=rows")
    press(page, "#start-1 input", "ControlOrMeta+a")
    page.keyboard.type("27")
    page.keyboard.press("Enter")
    page.wait_for_selector("#rows-1 [data-n='29']")
    press(page, "#every-1")
    page.wait_for_selector("#summed-1 svg")
    saved(page, "#download-csv-all-1", b"class,feature")
    choose(page, "#without-1", "children")  # the network takes four columns
    page.wait_for_function("document.body.innerText.includes('cannot take')")
    choose(page, "#without-1", "children")
    page.wait_for_function("document.querySelector('#maps-1 .note')?.checkVisibility()")
    address_says(page, 'without=["who",+"label"]')


def text(page: Any) -> None:
    """Every field of the part for texts."""
    press(page, "#text-2 textarea", "ControlOrMeta+a")
    page.keyboard.type("The capital of France is")
    press(page, "#ask-2")
    address_says(page, "text=The+capital")
    for field, said in (("words", "words=1"), ("parts", "parts=1")):
        press(page, f"#{field}-2 input", "Space")
        address_says(page, said)
    page.wait_for_selector("#maps-2 .matrix")
    press(page, "#gamma-2 input[type=range]", "ArrowRight")
    address_says(page, "gamma=0.16")  # the usual one is 0.15
    press(page, "#target-2 textarea, #target-2 input", "ControlOrMeta+a")
    page.keyboard.type(" Paris")
    page.keyboard.press("Enter")
    address_says(page, "target=+Paris")
    press(page, "#tokens-2 button >> nth=2")
    page.wait_for_function("document.querySelector('#target-2 textarea, #target-2 input').value !== ' Paris'")
    press(page, "#text-2 textarea", "ControlOrMeta+End")
    page.keyboard.press("Enter")
    page.keyboard.type("Paris is")
    press(page, "#lines-2 input", "Space")
    page.wait_for_function("document.querySelectorAll('#maps-2 p.tokens').length === 2")
    press(page, "#lines-2 input", "Space")
    address_says(page, "text=")
    press(page, "#write-2")
    page.wait_for_function("document.querySelector('#maps-2')?.innerText.includes('Drew most on')")
    saved(page, "#download-csv-text-2", b"")


def listed(page: Any, said: str) -> None:
    """Waits until those samples of a run are listed."""
    page.wait_for_function("said => document.querySelector('#samples-3').innerText.includes(said)", arg=said)


def buttons(page: Any, holds: str) -> None:
    """Waits until a condition of JavaScript holds for the buttons of a run's samples."""
    page.wait_for_function(
        """holds => {
            const all = [...document.querySelectorAll('#samples-3 [data-n]')];
            const score = each => Number(each.innerText.match(/class \\d+, (.*)$/m)[1]);
            return eval(holds);
        }""",
        arg=holds,
    )


def samples(page: Any) -> None:
    """The samples of a run: their lists by class, order and status, pages of the list, and one of them."""
    listed(page, "1 to 24 of")
    choose(page, "#class-3", "class 5")
    buttons(page, "all.length > 9 && all.every(each => each.innerText.includes('class 5, '))")
    choose(page, "#order-3", "smallest score")
    buttons(page, "all.length > 9 && all.map(score).every((each, n, of) => n === 0 || of[n - 1] <= each)")
    choose(page, "#order-3", "largest score")
    buttons(page, "all.length > 9 && all.map(score).every((each, n, of) => n === 0 || of[n - 1] >= each)")
    choose(page, "#class-3", "all classes")
    buttons(page, "all.some(each => !each.innerText.includes('class 5, '))")
    choose(page, "#status-3", "put aside")
    buttons(page, "all.length === 1 && all[0].dataset.n === '7'")
    choose(page, "#status-3", "explained")
    choose(page, "#order-3", "order of the source")
    listed(page, "1 to 24 of")
    press(page, "#later-3")
    listed(page, "25 to 48 of")
    press(page, "#earlier-3")
    listed(page, "1 to 24 of")
    press(page, "#samples-3 [data-n='1']")
    page.wait_for_selector("#maps-3 svg")
    address_says(page, "sample=1")
    saved(page, "#download-json-run-samples-3", b"{")


def clusters(page: Any) -> None:
    """Every field of the clusters of a run."""
    press(page, "role=tab[name='Clusters']")
    choose(page, "#by-3", "class that was explained")
    press(page, "input[aria-label*='Neighbours'][type=range]", "ArrowLeft")
    press(page, "#find-3")
    page.wait_for_selector("#clusters-3 svg")
    address_says(page, "neighbours=9")
    saved(page, "#download-csv-run-clusters-3", b"")


def units(page: Any) -> None:
    """Every field of the units of a run."""
    press(page, "role=tab[name='Units']")
    press(page, "#unit-3 input", "ControlOrMeta+a")
    page.keyboard.type("4")
    press(page, "input[value='activation']", "Space")
    press(page, "#show-unit-3")
    page.wait_for_selector("#units-3 [data-n]")
    address_says(page, "unit=4")
    saved(page, "#download-csv-run-units-3", b"sample")


VIEWS = {"small": picture, "people": rows, "writer": text, "maps": samples, "clusters": clusters, "units": units}
_UNREACHED = """() => [...document.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex]')]
    .filter(each => each.checkVisibility() && each.tabIndex >= 0 && !each.disabled && !window.reached.has(each))
    .filter(each => each.type !== 'radio' || ![...document.getElementsByName(each.name)].some(one => window.reached.has(one)))
    .map(each => each.outerHTML.slice(0, 200))"""


def unreached(page: Any) -> list[str]:
    """What can be focused and is not reached by the Tab key from the page's start. Of radio buttons, one of a group is."""
    page.evaluate("""() => {
        window.reached = new Set();
        document.addEventListener('focusin', event => window.reached.add(event.target));
        document.activeElement.blur();
        window.getSelection().collapse(document.body, 0);
    }""")
    for _ in range(6):
        for _ in range(60):
            page.keyboard.press("Tab")
        if not page.evaluate(_UNREACHED):
            break
    found: list[str] = page.evaluate(_UNREACHED)
    return found


@pytest.mark.parametrize("width", [1400, 420])
@pytest.mark.parametrize("view", VIEWS)
def test_a_view_by_keyboard_and_axe(browser: Any, address: str, view: str, width: int) -> None:
    seen = web_pages.Page(browser, address, width)
    page = seen.page
    page.set_default_timeout(90_000)
    press(page, f"role=tab[name='{'maps' if view in ('clusters', 'units') else view}']")
    VIEWS[view](page)
    page.wait_for_function(_AT_REST)
    assert not unreached(page)
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


@pytest.mark.parametrize("width", [1400, 420])
def test_an_error_is_one_line_in_every_view(browser: Any, address: str, width: int, tmp_path: Path) -> None:
    seen = web_pages.Page(browser, address, width)
    page = seen.page
    page.set_default_timeout(20_000)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n<script>alert(1)</script>")
    page.click(".examples button >> nth=0 >> visible=true")
    page.wait_for_selector("#maps .stage svg")
    address_says(page, "example=0")
    press(page, "button:has-text('Several pictures at once')")
    page.set_input_files("#pictures input[type=file]", bad)
    told(page, "#maps", "bad.png")
    press(page, "button:has-text('The code that made this') >> visible=true")
    assert page.locator("#maps svg").count() == 0 and page.inner_text("#code-picture pre").strip() == ""
    page.wait_for_function("window.location.search === ''")
    press(page, "button:has-text('Drawing') >> visible=true")
    press(page, "input[aria-label*='Smoothing'][type=range]", "ArrowRight")  # draws the old answer never again
    press(page, "#download-png-picture")
    page.wait_for_selector("text=the last question has no answer")
    assert page.locator("#maps svg").count() == 0
    page.click(".examples button >> nth=1 >> visible=true")
    page.wait_for_selector("#maps .stage svg")
    saved(page, "#download-png-picture", b"\x89PNG")

    press(page, "role=tab[name='people']")
    table = tmp_path / "people.csv"
    table.write_text("age,who\n1,2\n", encoding="utf-8")
    page.set_input_files("#file-1 input[type=file]", table)
    told(page, "#maps-1", "in no form")

    press(page, "role=tab[name='writer']")
    page.fill("#target-2 textarea, #target-2 input", "id:99999999")
    page.fill("#text-2 textarea", "The capital of France is")
    press(page, "#ask-2")
    told(page, "#maps-2", "99999999")

    press(page, "role=tab[name='maps']")
    press(page, "role=tab[name='Units']")
    page.fill("#unit-3 input", "999")
    press(page, "#show-unit-3")
    told(page, "#units-3", "no unit 999")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert not seen.errors and not seen.foreign()
    page.close()


def told(page: Any, place: str, line: str) -> None:
    """Waits until a view says why there is no answer, there and nowhere else."""
    page.wait_for_function(
        "([place, line]) => document.querySelector(`${place} .failed`)?.innerText.includes(line)", arg=[place, line]
    )
    page.wait_for_function(_AT_REST)
    assert page.locator(f"{place} .failed").count() == 1
    shown = page.evaluate("document.body.innerText.split('\\n').map(each => each.trim())")
    assert "Error" not in shown and "Traceback" not in page.content()


def test_a_link_leads_to_its_tab(browser: Any, address: str) -> None:
    seen = web_pages.Page(browser, address, path="?example=0&row=3&target=1&tab=1")
    page = seen.page
    page.wait_for_function("document.querySelector('#maps-1 h3')?.innerText.includes('row 3')")
    assert page.locator("#maps-1 h3").first.is_visible()
    assert page.locator("#maps .stage").count() == 0  # the other tabs' settings are theirs
    press(page, "#rows-1 [data-n='4']")
    page.wait_for_function("window.location.search.includes('row=4') && window.location.search.includes('tab=1')")
    page.close()
