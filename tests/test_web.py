"""What the page knows, without a browser: settings and links, answers, rectangles, files, code, sessions, time."""

from __future__ import annotations

import ast
import base64
import io
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import relprop
import web_pages
from relprop import web
from relprop.errors import CompositeError, InputError, RelpropError, TargetError
from relprop.web import downloads, drawn, limits, pictures, source
from relprop.web.limits import Limits
from relprop.web.page_subject import columns, subject_of
from relprop.web.sessions import Sessions
from relprop.web.settings import PageSettings, settings_of
from relprop.web.work_queue import WorkQueue

SETTINGS = [
    PageSettings(),
    PageSettings(target=3, against=1, composites=("epsilon_plus", "gamma_flat"), gamma=0.5, first="zbox", example=2),
    PageSettings(strength=0.25, smooth=4, percentile=97.5, first="wsquare"),
    PageSettings(form="steps", row=3, without=()),
    PageSettings(example=0, without=("a,b", '"c"&d=e', "é <i>")),
]


# ---------------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_link_restores_the_settings(settings: PageSettings) -> None:
    assert PageSettings.of_link(settings.link()) == settings


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?target=two", "target is 'two'; it must be a whole number"),
        ("?target=-1", "target is -1; classes are numbered from 0"),
        ("?gamma=nan", "gamma is nan; it lies from 0 to 100"),
        ("?gamma=1e999", "gamma is inf"),
        ("?smooth=65", "smooth is 65; it is a side in pixels, from 1 to 64"),
        ("?percentile=0", "percentile is 0.0; it lies from 50 to 100"),
        ("?composites=epsilon_plsu", "Did you mean|epsilon_plus"),
        ("?composites=zero,zero", "one to 4 different composites"),
        ("?form=../../etc/passwd", "there is no form '../../etc/passwd'"),
        ("?without=age", "must be a list of the names"),
        ("?without=" + "[" * 3000, "must be a list of the names"),
        ("?without=[1]", "must be a list of the names"),
        ("?" + "a=1&" * 60, "more than 50 settings"),
        ("?first=../../etc/passwd", "there is no rule '../../etc/passwd'"),
        ("?target=2&against=2", "cannot be set against itself"),
        ("?target=" + "9" * 41, "must be a whole number"),
        ("?" + "a" * 5000, "settings have 4,000 at most"),
    ],
)
def test_a_link_that_says_nothing_valid(query: str, message: str) -> None:
    with pytest.raises((InputError, CompositeError), match=message):
        PageSettings.of_link(query)


def test_names_of_columns_that_are_too_long_for_a_link_are_not_in_it() -> None:
    settings = PageSettings(row=2, without=tuple(f"column {n}" for n in range(900)))
    assert PageSettings.of_link(settings.link()) == PageSettings(row=2)


def test_what_others_add_to_a_link_is_passed_over() -> None:
    assert PageSettings.of_link("?utm_source=mail&target=2") == PageSettings(target=2)


def test_the_values_of_controls() -> None:
    assert settings_of({"target": 2.0, "composites": ["zero"], "gamma": None}) == PageSettings(2, composites=("zero",))
    for value in (1.5, "x", [], {}, float("nan"), float("inf"), True):
        with pytest.raises(InputError, match="target is"):
            settings_of({"target": value})


# ---------------------------------------------------------------------------------------------------------- answers


@pytest.fixture(scope="module")
def answer() -> pictures.PictureAnswer:
    settings = PageSettings(composites=("epsilon_plus", "gamma_flat"), against=1, gamma=0.5, first="zbox")
    return pictures.ask(web_pages.subject(), [("A <i>cat</i>.png", web_pages.photograph())], settings)


def test_an_answer_is_what_attribute_says(answer: pictures.PictureAnswer) -> None:
    loaded = web_pages.subject().loaded
    x = loaded.tensor(web_pages.photograph())
    output = loaded.model(x)
    best = int(output.argmax())
    assert answer.settings.target == best and torch.equal(answer.inputs, x)
    low, high = loaded.bounds()
    first = relprop.Composite({relprop.first: relprop.ZBox(low, high)})
    wanted = first | relprop.composites.gamma_flat(gamma=0.5)
    for row, target in enumerate((best, 1, relprop.Contrast(best, 1))):
        R = relprop.attribute(loaded.model, x, target, composite=wanted)
        torch.testing.assert_close(answer.result[row, 1].values, R.values)
    numbers = [number for number, *_ in answer.classes]
    assert numbers == output[0].topk(5).indices.tolist()
    assert [chance for *_, chance in answer.classes] == pytest.approx(output.softmax(1)[0].topk(5).values.tolist())


def test_a_rectangle_holds_the_sum_of_its_pixels(answer: pictures.PictureAnswer) -> None:
    found = pictures.measure(answer, (3, 5, 20, 31))
    for place, part in enumerate(found):
        values = answer.result[2, place].values[0].double().sum(0)
        inside = [float(values[y, x]) for y in range(5, 31) for x in range(3, 20)]
        assert part.inside == pytest.approx(sum(inside))
        assert part.positive == pytest.approx(sum(max(v, 0) for v in inside))
        assert part.whole == pytest.approx(float(values.sum()))
        assert part.area == pytest.approx(26 * 17 / 32**2)
    for box in ((3, 5, 3, 31), (0, 0, 33, 1), (-1, 0, 2, 2), (5, 5, 4, 9)):
        with pytest.raises(InputError, match="must lie in the picture, 32 x 32 pixels"):
            pictures.measure(answer, box)


def test_the_code_runs_and_gives_the_same_numbers(
    answer: pictures.PictureAnswer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = source.of_pictures(web_pages.subject(), answer.names, answer.settings, answer.columns, answer.settings)
    web_pages.photograph().save(source.file_name(answer.names[0]))
    assert "<" not in code  # the name of an uploaded file becomes letters and digits
    space: dict[str, Any] = {}
    exec(code, space)
    assert Path("maps.png").exists()
    for row in range(3):
        for column in range(2):
            torch.testing.assert_close(space["maps"][row, column].values, answer.result[row, column].values)


@pytest.mark.parametrize("against", [None, 1])
def test_several_pictures_and_their_code(against: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = [("a.png", web_pages.photograph(seed=2)), ("b.png", web_pages.photograph(seed=3))]
    settings = PageSettings(against=against, composites=("epsilon",))
    answer = pictures.ask(web_pages.subject(), given, settings)
    for name, picture in given:
        picture.save(name)
    space: dict[str, Any] = {}
    exec(source.of_pictures(web_pages.subject(), answer.names, settings, answer.columns, answer.settings), space)
    torch.testing.assert_close(space["maps"][0, 0].values, answer.result[0, 0].values)
    for n, one in enumerate(given):
        alone = pictures.ask(web_pages.subject(), [one], settings)
        torch.testing.assert_close(answer.result[0, 0].values[n : n + 1], alone.result[0, 0].values)
        part = pictures.measure(answer, (3, 5, 20, 31))[n]
        assert part.picture == one[0]
        assert part.inside == pytest.approx(pictures.measure(alone, (3, 5, 20, 31))[0].inside, rel=1e-5)
    shown = drawn.maps_html(answer, settings)
    assert shown.count('class="stage"') == 2 * (1 if against is None else 3)
    assert "<h2>a.png</h2>" in shown and "<h2>b.png</h2>" in shown
    assert answer.classes == ()  # each picture has its own
    for kind in downloads.OF_PICTURES if against is None else ():
        assert len(downloads.made(answer.result, kind, "relevance", answer.options(settings))["data"]) > 100
    table = drawn.parts_html(pictures.measure(answer, (0, 0, 32, 32)), (0, 0, 32, 32))
    assert "a.png" in table and "b.png" in table


def test_html_shows_text_and_runs_none(answer: pictures.PictureAnswer) -> None:
    shown = drawn.maps_html(answer, answer.settings)
    assert "sea <b>" not in shown and "<script" not in shown
    assert shown.count('class="stage"') == 6  # three targets, two composites
    assert shown.count('class="figures c3"') == 3  # all maps are of one size
    assert "100.0%" in drawn.parts_html(pictures.measure(answer, (0, 0, 32, 32)), (0, 0, 32, 32))


def test_strength_mixes_the_photograph_and_the_map(answer: pictures.PictureAnswer) -> None:
    heatmap, picture = answer.maps(answer.settings)[0][0], answer.pictures[0]
    bare = np.asarray(drawn.on_picture(heatmap, picture, 0.0))
    assert np.array_equal(bare, np.asarray(picture.convert("RGB")))
    full = np.asarray(drawn.on_picture(heatmap, picture, 1.0), dtype=float)
    half = np.asarray(drawn.on_picture(heatmap, picture, 0.5), dtype=float)
    assert np.abs(half - (bare + full) / 2).max() <= 1


def test_questions_that_cannot_be_answered() -> None:
    subject, given = web_pages.subject(), [("a.png", web_pages.photograph())]
    with pytest.raises(InputError, match="no picture yet"):
        pictures.ask(subject, [], PageSettings())
    with pytest.raises(TargetError, match="there is no class 6: they are numbered from 0 to 5"):
        pictures.ask(subject, given, PageSettings(target=6))
    best = pictures.ask(subject, given, PageSettings()).settings.target
    with pytest.raises(TargetError, match="cannot be set against itself"):
        pictures.ask(subject, given, PageSettings(against=best))


def test_auto_with_a_gamma_is_the_composite_that_auto_stands_for() -> None:
    subject = web_pages.subject()
    x = subject.loaded.tensor(web_pages.photograph())
    (column,) = columns(PageSettings(gamma=2.0), subject, x)
    assert column.composite == relprop.composites.gamma_box(gamma=2.0)
    assert column.name == "auto, gamma 2"


def test_what_a_page_can_be_made_of() -> None:
    assert subject_of("web_pages:small").reads == "picture"
    assert subject_of(torch.nn.Sequential(torch.nn.Linear(3, 2)).eval()).reads == "rows"
    with pytest.raises(RelpropError, match=r"call model\.eval\(\) first"):
        subject_of(torch.nn.Linear(3, 2))
    with pytest.raises(InputError, match="got int"):
        subject_of(3)
    with pytest.raises(InputError, match="reads one of: picture, text, rows"):
        subject_of(web_pages.small(), reads="smell")


# ---------------------------------------------------------------------------------------------------------- files


def test_files_of_an_answer(answer: pictures.PictureAnswer, tmp_path: Path) -> None:
    starts = {
        "PNG": b"\x89PNG",
        "SVG": b"<svg",
        "PDF": b"%PDF",
        "HTML": b"<!DOCTYPE html>",
        "JSON": b"{",
        "Folder": b"PK",
    }
    for kind in downloads.OF_PICTURES:
        file = downloads.made(answer.result, kind, "relevance", answer.options(answer.settings))
        content = base64.b64decode(file["data"])
        assert content.startswith(starts[kind]) and file["name"].startswith("relevance.")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        archive.extractall(tmp_path)
    torch.testing.assert_close(relprop.load(tmp_path / "relevance")[0, 0].values, answer.result[0, 0].values)
    with pytest.raises(InputError, match="there is no format"):
        downloads.made(answer.result, "../x", "relevance", {})


def test_pictures_are_judged_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = Limits(file_bytes=100_000, pixels=10_000)
    path = tmp_path / "a.png"
    web_pages.photograph().save(path)
    assert limits.picture(path, few)[0] == "a.png"
    Image.new("1", (200, 200)).save(path)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(InputError, match="200 x 200 pixels, more than"):
        limits.picture(path, few)
    path.write_bytes(b"x" * 100_001)
    with pytest.raises(InputError, match=r"more than the 0\.0953674 MiB we take"):
        limits.picture(path, few)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="is empty"):
        limits.picture(path, few)
    path.unlink()
    with pytest.raises(InputError, match="no longer there"):
        limits.picture(path, few)


def test_several_pictures_are_counted_before_they_are_opened(tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.png" for n in range(3)]
    with pytest.raises(InputError, match="2 pictures are explained at once; got 3"):
        limits.several(paths, Limits(pictures=2))
    for path in paths:
        web_pages.photograph().save(path)
    assert [name for name, _ in limits.several(paths, Limits())] == ["0.png", "1.png", "2.png"]


# ---------------------------------------------------------------------------------------------------------- sessions


def test_a_session_is_deleted_when_it_is_left_idle_or_too_old(tmp_path: Path) -> None:
    now = [0.0]
    sessions = Sessions(Limits(idle=10, sessions=2), clock=lambda: now[0])
    files = [tmp_path / f"own-{name}" / name for name in "abc"]
    for file in files:
        file.parent.mkdir()
        file.write_text("x")
        sessions.of(file.name).files.add(file)
        sessions.of(file.name).answers["picture"] = file.name
    assert [file.exists() for file in files] == [False, True, True]  # two are kept
    assert sessions.answer("b", "picture") == "b"
    sessions.forget("b")
    assert not files[1].exists() and len(sessions) == 1
    with pytest.raises(InputError, match="ask again"):
        sessions.answer("b", "picture")
    now[0] = 20.0
    sessions.of("d")
    assert not files[2].exists()


def test_an_explanation_that_takes_too_long_is_stopped_and_the_next_one_runs() -> None:
    work = WorkQueue(0.2)

    def endless() -> None:
        while True:
            time.sleep(0.005)

    start = time.monotonic()
    with pytest.raises(InputError, match=r"longer than the 0\.2 seconds"):
        work.do("a", endless)
    assert time.monotonic() - start < 5
    assert work.do("b", lambda: 3) == 3


def test_who_leaves_stops_only_the_own_explanation() -> None:
    work, begun, ended = WorkQueue(60.0), threading.Event(), []

    def endless() -> None:
        begun.set()
        while True:
            time.sleep(0.005)

    def run() -> None:
        with pytest.raises(InputError, match="the page was left"):
            work.do("a", endless)
        ended.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    begun.wait(5)
    work.leave("b")
    thread.join(0.1)
    assert not ended
    work.leave("a")
    thread.join(5)
    assert ended and work.do("b", lambda: 1) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a destructor may swallow a first stop
def test_stopping_a_real_explanation_leaves_nothing_behind() -> None:
    subject, given = web_pages.subject(), [("a.png", web_pages.photograph())]
    expected = pictures.ask(subject, given, PageSettings()).result[0, 0].values

    def again() -> None:
        while True:
            pictures.ask(subject, given, PageSettings())

    for seconds in (0.05, 0.11, 0.17):
        with pytest.raises(InputError, match="longer than"):
            WorkQueue(seconds).do("a", again)
        assert torch.equal(pictures.ask(subject, given, PageSettings()).result[0, 0].values, expected)


def test_gradio_is_imported_where_a_page_is_made_alone() -> None:
    root = Path(web.__file__).parent
    named = {
        (path.name, alias.name.partition(".")[0])
        for path in root.glob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in (node.names if isinstance(node, ast.Import) else [ast.alias(node.module or "")])
    }
    assert not {name for _, name in named} & {"gradio", "fastapi", "starlette", "uvicorn"}


def test_gradio_is_imported_without_its_type_stubs() -> None:
    """Gradio parses the file of each of its classes, and writes another beside it: a third of the time of a start."""
    pytest.importorskip("gradio", reason="the page needs Gradio")
    program = """
import ast, sys
from relprop.web.gradio_here import gradio
def parsed(*given): raise AssertionError("the file of a class is parsed")
ast.get_source_segment = parsed
finders = list(sys.meta_path)
gr = gradio()
assert sys.meta_path == finders
with gr.Blocks() as blocks:
    field = gr.Image(type="filepath")
    field.upload(lambda path: None, field)
assert len(blocks.fns) == 1
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=120)
