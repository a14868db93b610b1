"""The page in a browser: a picture is dropped, a class chosen, a rectangle drawn, a file saved, a link opened."""

from __future__ import annotations

import gc
import json
import threading
import time
import urllib.error
import urllib.request
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import relprop
import web_pages
from relprop.cli.app import app
from relprop.web import server
from relprop.web.page_subject import subject_of

pytest.importorskip("gradio", reason="the page needs Gradio")
# Warnings of Gradio about pandas, in threads of its own.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with web_pages.served() as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with web_pages.browsers() as opened:
        yield opened


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    web_pages.photograph().save(path)
    return path


def test_a_picture_is_explained_and_nothing_leaves_the_machine(
    browser: Any, address: str, cat: Path, tmp_path: Path
) -> None:
    seen = web_pages.Page(browser, address)
    page = seen.page
    seen.drop(cat)
    page.wait_for_selector(".stage svg")
    model, loaded = web_pages.small(), web_pages.subject().loaded
    x = loaded.tensor(web_pages.photograph())
    R = relprop.attribute(model, x, labels=web_pages.LABELS)
    assert R.subject(0) in page.inner_text("#maps h3 >> nth=0")
    assert page.locator("#classes input").count() == 5

    # Another class, by its button; then its map in a rectangle that is drawn.
    second = model(x)[0].topk(2).indices[1].item()
    page.locator("#classes input >> nth=1").click()
    page.wait_for_function("n => document.querySelector('#maps h3').innerText.includes(n)", arg=f"({second})")
    box = page.locator(".stage svg >> nth=0").bounding_box()
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=3)
    page.mouse.up()
    page.wait_for_selector("#inside td")
    corners = [int(page.input_value(f"#corner-{name} input")) for name in ("left", "top", "right", "bottom")]
    R = relprop.attribute(model, x, second)
    part = float(R.values[0].double().sum(0)[corners[1] : corners[3], corners[0] : corners[2]].sum())
    assert float(page.inner_text("#inside td >> nth=1")) == pytest.approx(part, rel=5e-3)

    # A file, the code and the link.
    with page.expect_download() as download:
        page.click("#download-json-picture")
    download.value.save_as(tmp_path / "relevance.json")
    saved = json.loads((tmp_path / "relevance.json").read_text())
    torch.testing.assert_close(torch.tensor(saved["values"][0]), R.values, rtol=1e-4, atol=1e-6)
    assert page.input_value("#link-picture textarea, #link-picture input") == f"{seen.address}?target={second}"
    assert page.url == f"{seen.address}?target={second}"
    assert not seen.errors and not seen.foreign()
    page.close()


def test_a_narrow_page_by_keyboard_and_a_file_that_is_none(browser: Any, address: str, tmp_path: Path) -> None:
    seen = web_pages.Page(browser, address, 420)
    page = seen.page
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    page.focus(".examples button >> nth=1")
    page.keyboard.press("Enter")
    page.wait_for_selector(".stage svg")
    page.focus("#classes input >> nth=1")
    before = page.inner_text("#maps h3 >> nth=0")
    page.keyboard.press("Space")
    page.wait_for_function("before => document.querySelector('#maps h3').innerText !== before", arg=before)
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    for number, corner in enumerate(("left", "top", "right", "bottom")):
        page.focus(f"#corner-{corner} input")
        page.keyboard.press("ControlOrMeta+a")
        page.keyboard.type(str([4, 4, 20, 20][number]))
    page.wait_for_function(
        "document.querySelector('#inside').innerText.includes('Columns 4 to 19, rows 4 to 19: 25.0%')"
    )

    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n<script>alert(1)</script>")
    page.click("[aria-label='Clear'], [aria-label='Remove Image'], button[title='Clear']")
    seen.drop(bad)
    page.wait_for_selector("text=bad.png")
    assert "Traceback" not in page.content()
    assert not seen.errors and not seen.foreign()
    page.close()


_PICTURE = """async () => {
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [40, 32];
    const drawing = canvas.getContext('2d');
    drawing.fillStyle = '#c33';
    drawing.fillRect(0, 0, 20, 32);
    return new Promise(done => canvas.toBlob(done, 'image/png'));
}"""
"""A picture that a visitor's browser has."""


def dropped(page: Any) -> None:
    """A file that is let fall on the page."""
    carried = page.evaluate_handle(f"""async () => {{
        const carried = new DataTransfer();
        carried.items.add(new File([await ({_PICTURE})()], 'dropped.png', {{type: 'image/png'}}));
        return carried;
    }}""")
    page.dispatch_event(".relprop-picture button >> nth=0", "drop", {"dataTransfer": carried})


def pasted(page: Any) -> None:
    """A picture from the clipboard."""
    page.evaluate(f"async () => navigator.clipboard.write([new ClipboardItem({{'image/png': await ({_PICTURE})()}})])")
    page.click("button[aria-label='Paste from clipboard']")


def taken(page: Any) -> None:
    """A picture of the camera."""
    page.click("button[aria-label='Capture from camera']")
    page.click("text=Click to Access Webcam")
    page.wait_for_function("document.querySelector('video')?.videoWidth > 0")
    page.click("button[aria-label='capture photo']")


@pytest.mark.parametrize("give", [dropped, pasted, taken])
def test_a_picture_is_dropped_pasted_or_taken(browser: Any, address: str, give: Any) -> None:
    seen = web_pages.Page(browser, address)
    page = seen.page
    page.context.grant_permissions(["camera", "clipboard-read", "clipboard-write"], origin=address)
    page.wait_for_selector("#maps .hint")
    give(page)
    page.wait_for_selector("#maps .stage svg")
    assert page.locator("#classes input").count() == 5
    assert not seen.errors and not seen.foreign()
    page.close()


@pytest.mark.parametrize("width", [1400, 420])
def test_a_question_that_is_refused_can_be_asked_again(browser: Any, address: str, width: int) -> None:
    """A page that is full answers so before a function of ours is called."""
    seen = web_pages.Page(browser, address, width)
    page = seen.page
    page.click(".examples button >> nth=0")
    page.wait_for_selector("#maps .stage svg")
    page.route("**/queue/join*", lambda route: route.fulfill(status=503, json={"detail": "Queue is full."}))
    page.click(".examples button >> nth=1")
    page.wait_for_selector("text=currently busy")
    said = page.locator("[data-testid=status-tracker] .error")
    assert said.count() == 1  # and not on each field
    assert "ask again" in said.evaluate("each => getComputedStyle(each, '::after').content")
    assert said.evaluate("each => getComputedStyle(each).fontSize") == "0px"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.unroute("**/queue/join*")
    page.click(".examples button >> nth=1")
    page.wait_for_function("!document.querySelector('[data-testid=status-tracker] .error')")
    page.wait_for_function("window.location.search.includes('example=1')")
    page.close()


def test_a_link_restores_what_was_asked(browser: Any, address: str) -> None:
    seen = web_pages.Page(browser, address, path="?example=0&target=1&against=5&composites=epsilon,zero&smooth=2")
    page = seen.page
    page.wait_for_selector(".stage svg")
    assert page.locator("#maps h3").count() == 3  # the class, the other, one against the other
    assert page.locator(".stage").count() == 6
    assert page.input_value("#against input") == "cup (5)"
    link = page.input_value("#link-picture textarea, #link-picture input")
    assert link.startswith(f"{address}?") and "example=0" in link and "composites=epsilon" in link
    assert page.evaluate("window.location.href").startswith(f"{address}?example=0&target=1&against=5")
    page.close()


def test_nothing_follows_the_opening_of_a_page() -> None:
    """What came after it could undo what a visitor asked meanwhile."""
    import test_web_rows

    loads = [
        ("small", web_pages.subject), ("people", lambda: test_web_rows.subject("tabular")),
        ("writer", lambda: subject_of("test_web_text:writer")),
    ]  # fmt: skip
    events = server.made(loads).config["dependencies"]
    opening = {event["id"] for event in events if any(name == "load" for _, name in event["targets"])}
    assert len(opening) == 4  # the tab, and each of the three parts
    assert not [event for event in events if event["trigger_after"] in opening]
    assert [event for event in events if event["trigger_after"] is not None]


def test_the_opening_of_a_page_without_settings_changes_no_field(monkeypatch: pytest.MonkeyPatch) -> None:
    """A visitor may have begun to ask."""
    import gradio

    import test_web_rows
    from relprop.web import controls
    from relprop.web.gradio_here import gradio as here

    opened: list[Any] = []
    real = controls.opened

    def seen(restored: Any, outputs: Any, links: Any) -> Any:
        act = real(restored, outputs, links)
        opened.append(act)
        return act

    monkeypatch.setattr(controls, "opened", seen)
    assert here() is gradio
    loads = [
        ("small", web_pages.subject), ("people", lambda: test_web_rows.subject("tabular")),
        ("writer", lambda: subject_of("test_web_text:writer")),
    ]  # fmt: skip
    server.made(loads)
    assert len(opened) == 3
    for act in opened:
        values = act("http://127.0.0.1:7860/", request=SimpleNamespace(session_hash="a"))
        assert all(value == gradio.skip() for value in values)


def test_a_network_without_names_of_classes(browser: Any) -> None:
    """An empty field of numbers would send 0, and 0 is a class."""
    model = web_pages.small()
    model.labels = None  # type: ignore[assignment]
    with web_pages.served([("plain", lambda: subject_of(model))]) as plain:
        seen = web_pages.Page(browser, plain)
        page = seen.page
        page.click(".examples button >> nth=0")
        page.wait_for_selector(".stage svg")
        best = page.input_value("#target textarea, #target input")
        assert best == page.inner_text("#classes label >> nth=0").split(" ")[1]
        assert page.input_value("#against textarea, #against input") == ""
        page.fill("#against textarea, #against input", "0" if best != "0" else "1")
        page.keyboard.press("Enter")
        page.wait_for_function("document.querySelectorAll('#maps h3').length === 3")
        page.close()


def test_a_network_that_cannot_be_loaded_says_so_on_the_page() -> None:
    def broken() -> Any:
        raise relprop.errors.InputError("there is no model 'x <b>'.")

    said: list[str] = []
    blocks = server.made([("x <b>", broken), ("small", web_pages.subject)], failed=said.append)
    assert said == ["x <b> could not be loaded: there is no model 'x <b>'."]
    shown = json.dumps(blocks.get_config_file())
    assert "could not be loaded" in shown and "there is no model" in shown and "x &lt;b&gt;" in shown
    assert "'x <b>'." not in shown


def test_a_page_without_any_network_is_not_started() -> None:
    with pytest.raises(relprop.errors.InputError, match="resnet_50 could not be loaded: ") as caught:
        server.made([("resnet_50", partial(subject_of, "resnet_50"))])
    assert "there is no" in str(caught.value)
    result = CliRunner().invoke(app, ["serve", "--model", "resnet_50", "--port", "0"])
    assert result.exit_code != 0 and "resnet_50 could not be loaded" in " ".join(result.output.split())


def test_the_server_behind_its_guard(address: str) -> None:
    status, body = web_pages.asked(address)
    assert status == 200 and b"gradio" in body
    assert web_pages.asked(address, headers={"Host": "evil.example"})[0] == 421
    assert web_pages.asked(address, "/monitoring")[0] == 404
    assert web_pages.asked(address, "/gradio_api/file=/etc/passwd")[0] == 404
    message = {
        "data": [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}],
        "fn_index": 0,
        "session_hash": "abcdefgh",
    }
    assert web_pages.asked(address, "/gradio_api/queue/join", data=message)[0] == 400
    assert b"root:" not in web_pages.asked(address, "/config")[1]


def test_a_program_asks_and_gets_numbers(address: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    web_pages.photograph().save(path)
    x = web_pages.subject().loaded.tensor(web_pages.photograph())
    answer = web_pages.question(address, path, target=2, against=3, composites="zero,epsilon_plus", values=True)
    with pytest.raises(Exception, match="there is no class 9"):
        web_pages.question(address, path, target=9)
    (tmp_path / "b.png").write_bytes(b"GIF89a")
    with pytest.raises(Exception, match=r"(is broken|cannot be opened|not a picture)"):
        web_pages.question(address, tmp_path / "b.png")
    R = relprop.attribute(web_pages.small(), x, relprop.Contrast(2, 3), composite="epsilon_plus")
    torch.testing.assert_close(torch.tensor(answer["values"][2][1]), R.values[0].sum(0), rtol=1e-4, atol=1e-6)
    assert answer["scores"][-1]["score"] == pytest.approx(float(R.score), rel=1e-4)


def test_a_block_in_a_page_of_ones_own() -> None:
    import gradio

    import relprop.web

    with gradio.Blocks() as demo:
        gradio.Markdown("mine")
        assert relprop.web.explain_block(web_pages.small(), examples=[web_pages.photograph()]) is demo
    assert "explain" in {fn.api_name for fn in demo.fns.values()}
    alone = relprop.web.explain_block(web_pages.small(), examples=[])
    assert isinstance(alone, gradio.Blocks) and alone is not demo
    with pytest.raises(
        relprop.errors.ModelStateError, match=r"relprop\.web\.explain_block: the model is in training mode"
    ):
        relprop.web.explain_block(torch.nn.Linear(3, 2))


def test_a_widget_shows_a_frame_of_a_page_that_is_served() -> None:
    frame = relprop.widget(web_pages.small(), height=300)
    assert frame.src.startswith("http://127.0.0.1:") and frame.height == 300
    shown = frame._repr_html_()  # as IPython asks for it
    assert shown.startswith(f'<iframe src="{frame.src}"') and "height: 300px" in shown
    answer = urllib.request.urlopen(frame.src, timeout=20)
    assert "http://localhost:*" in answer.headers["Content-Security-Policy"]
    answer.close()
    frame.server.close()


def test_a_widget_that_is_closed_keeps_neither_its_network_nor_a_thread(tmp_path: Path) -> None:
    model, path = web_pages.small(), tmp_path / "a.png"
    web_pages.photograph().save(path)
    before = explaining()
    frame = relprop.widget(model)
    (thread,) = explaining() - before
    assert web_pages.question(frame.src, path, target=2)["scores"]
    page = frame.src
    frame.server.close()
    alive, frame = weakref.ref(model), None  # type: ignore[assignment]
    del model
    for _ in range(50):  # the client and the thread of the explanations end in threads of their own
        gc.collect()
        if alive() is None and not thread.is_alive():
            break
        time.sleep(0.1)
    assert alive() is None and not thread.is_alive()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(page, timeout=5)


def explaining() -> set[threading.Thread]:
    """The threads that explain."""
    return {each for each in threading.enumerate() if each.name == "relprop-explains"}
