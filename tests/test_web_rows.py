"""Tables, series and sounds on the page: how a file is read, what is explained, the code, files that are none, a browser."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import relprop
import web_pages
from relprop.errors import InputError, TargetError
from relprop.loading.sounds import read_sound
from relprop.web import rows_answers, rows_files
from relprop.web.limits import Limits
from relprop.web.page_subject import PageSubject, subject_of
from relprop.web.settings import FORMS, PageSettings

COLUMNS = ("age", "income", "distance, km", "children")


def tabular() -> nn.Module:
    """`test_web_rows:tabular` is its name for `--model`."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    model.labels = ["stays", "leaves <b>", "unsure"]  # type: ignore[assignment]
    return model


class Steps(nn.Module):
    """A recurrent network of (N, T, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(2, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][:, -1])


def recurrent() -> nn.Module:
    torch.manual_seed(0)
    return Steps().eval()


def waves() -> nn.Module:
    """A network of sounds, (N, 1, T)."""
    torch.manual_seed(0)
    layers = nn.Conv1d(1, 4, 9, stride=4), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3)
    return nn.Sequential(*layers).eval()


def subject(name: str) -> PageSubject:
    return subject_of(f"test_web_rows:{name}", reads="rows")


def table(path: Path, count: int = 30, width: int = 4) -> torch.Tensor:
    """A table of numbers, with a column of names and one of labels, which are left out."""
    values = torch.randn(count, width, generator=torch.Generator().manual_seed(1))
    names = [f'"{name}"' for name in COLUMNS[:width]]
    lines = [",".join([*names, "who", "label"])]
    lines += [",".join([*(f"{v:.6f}" for v in row), f"p{n}", "1"]) for n, row in enumerate(values.tolist())]
    path.write_text("\n".join(lines))
    return torch.tensor([[float(f"{v:.6f}") for v in row] for row in values.tolist()])


def wav(values: np.ndarray, rate: int = 8000, *, form: int = 1, bits: int = 16) -> bytes:
    """The bytes of a WAV file."""
    data = values.tobytes()
    channels = 1 if values.ndim == 1 else values.shape[1]
    head = struct.pack("<HHIIHH", form, channels, rate, rate * channels * bits // 8, channels * bits // 8, bits)
    body = b"WAVE" + b"fmt " + struct.pack("<I", 16) + head + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


# ---------------------------------------------------------------------------------------------------------- answers


def test_a_row_of_a_table_is_explained_as_attribute_says(tmp_path: Path) -> None:
    values, asked = table(tmp_path / "people.csv"), subject("tabular")
    file = rows_files.read(tmp_path / "people.csv", asked, Limits())
    assert file.columns == COLUMNS and file.without == ("who", "label")
    torch.testing.assert_close(file.values, values)
    answer = rows_answers.ask(asked, file, PageSettings(composites=("epsilon",), row=3), Limits())
    wanted = relprop.attribute(tabular(), values[3:4], composite="epsilon")
    torch.testing.assert_close(answer.result.values, wanted.values)  # type: ignore[attr-defined]
    assert answer.form == "rows" and answer.settings.target == int(tabular()(values[3:4]).argmax())
    shown = rows_answers.answer_html(answer)
    assert "distance, km" in shown and "leaves <b>" not in shown and "Columns left out: who, label" in shown
    listed = rows_answers.list_html(asked, file, "rows", 20)
    assert listed.count("data-n") == 10 and "leaves <b>" not in listed and 'data-n="29"' in listed


def test_all_rows_are_summed_up(tmp_path: Path) -> None:
    values, asked = table(tmp_path / "people.csv"), subject("tabular")
    file = rows_files.read(tmp_path / "people.csv", asked, Limits())
    found = rows_answers.ask_all(asked, file, PageSettings(target=1, composites=("epsilon",)), Limits())
    wanted = relprop.attribute(tabular(), values, 1, composite="epsilon").values.double().mean(0)
    torch.testing.assert_close(found.results[0].mean, wanted)  # type: ignore[attr-defined]
    assert "distance, km" in rows_answers.all_rows_html(found)


def test_a_series_is_read_as_the_network_takes_it(tmp_path: Path) -> None:
    path = tmp_path / "walk.csv"
    values = table(path, 12, 2)
    asked = subject("recurrent")
    file = rows_files.read(path, asked, Limits())
    answer = rows_answers.ask(asked, file, PageSettings(composites=("epsilon",), target=1), Limits())
    assert answer.form == "steps"  # (1, T, C)
    wanted = relprop.attribute(recurrent(), values[None], 1, composite="epsilon")
    torch.testing.assert_close(answer.result.values, wanted.values)  # type: ignore[attr-defined]
    assert answer.drawn.values.shape == (1, 2, 12)  # type: ignore[attr-defined]
    assert "one series, steps first" in " ".join(answer.notes)
    with pytest.raises(InputError, match="no row 1"):
        rows_answers.ask(asked, file, PageSettings(row=1), Limits())


def test_a_sound_is_drawn_as_one(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    whole = (np.sin(np.arange(2000) / 5) * 20000).astype(np.int16)
    path.write_bytes(wav(whole))
    asked = subject("waves")
    file = rows_files.read(path, asked, Limits())
    assert file.rate == 8000
    answer = rows_answers.ask(asked, file, PageSettings(target=2), Limits())
    x = torch.tensor(whole.astype(np.float64) / 2**15, dtype=torch.float32)[None, None]
    torch.testing.assert_close(answer.result.values, relprop.attribute(waves(), x, 2).values)  # type: ignore[attr-defined]
    assert answer.form == "channels" and "Hz" in rows_answers.answer_html(answer)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("tabular", "csv"), ("tabular", "npy"), ("recurrent", "csv"), ("waves", "wav"), ("waves", "npy"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("against", [None, 1])
def test_the_code_runs_and_gives_the_same_numbers(
    name: str, make: str, against: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"some-data.{make}"
    if make == "csv":
        table(path, 9, 4 if name == "tabular" else 2)
    elif make == "npy":
        np.save(path, np.random.default_rng(0).normal(size=(7, 4) if name == "tabular" else 900))
    else:
        path.write_bytes(wav((np.arange(900) % 50 * 300).astype(np.int16)))
    asked = subject(name)
    file = rows_files.read(path, asked, Limits())
    settings = PageSettings(
        target=0, against=against, composites=("epsilon",) if against is None else ("epsilon", "zero"),
        row=2 if name == "tabular" else None,
    )  # fmt: skip
    answer = rows_answers.ask(asked, file, settings, Limits())
    space: dict[str, Any] = {}
    exec(answer.code, space)
    assert Path("relevance.html").exists() and answer.code.isascii()
    first = answer.result if against is None else answer.result[0, 0]  # type: ignore[index]
    found = space["maps"][0, 0].values
    torch.testing.assert_close(found.mT if answer.form == "steps" else found, first.values)  # type: ignore[attr-defined]


def test_the_code_of_all_rows_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "people.csv")
    asked = subject("tabular")
    found = rows_answers.ask_all(
        asked, rows_files.read(tmp_path / "people.csv", asked, Limits()), PageSettings(form="rows"), Limits()
    )
    space: dict[str, Any] = {}
    exec(found.code, space)
    torch.testing.assert_close(space["S"].mean, found.results[0].mean)  # type: ignore[attr-defined]
    assert Path("features.html").exists()


# ------------------------------------------------------------------------------------------------------------ sounds


@pytest.mark.parametrize(
    ("values", "form", "bits", "wanted"),
    [
        (np.array([0, 128, 255], np.uint8), 1, 8, [-1.0, 0.0, 127 / 128]),
        (np.array([[-32768, 16384]], "<i2"), 1, 16, [-1.0, 0.5]),
        (np.frombuffer(b"\x00\x00\x80\x00\x00\x40", np.uint8), 1, 24, [-1.0, 0.5]),
        (np.array([-(2**31), 2**30], "<i4"), 1, 32, [-1.0, 0.5]),
        (np.array([0.25, -3.0], "<f4"), 3, 32, [0.25, -3.0]),
        (np.array([0.25, -3.0], "<f8"), 3, 64, [0.25, -3.0]),
    ],
)
def test_wav_files(values: np.ndarray, form: int, bits: int, wanted: list[float], tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(values, form=form, bits=bits))
    sound = read_sound(path)
    assert sound.values.flatten().tolist() == pytest.approx(wanted) and sound.rate == 8000


# ------------------------------------------------------------------------------------------- files that are refused


def npy(array: Any, **given: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **given)
    return buffer.getvalue()


HEAD = b"RIFF\x00\x00\x00\x00WAVE"
TONE = wav(np.zeros(100, np.int16))
LIMITS = Limits(file_bytes=200_000, rows=50, columns=20, cells=5000)
BAD: dict[str, tuple[str, bytes, str]] = {
    "nothing": ("a.csv", b"", "is empty"),
    "another ending": ("a.xlsx", b"PK\x03\x04", "is none of the files we read"),
    "pickled": ("a.pkl", b"\x80\x04", "is none of the files we read"),
    "without an ending": ("a", b"1,2", "is none of the files we read"),
    "two endings": ("a.csv.exe", b"MZ", "is none of the files we read"),
    "a picture by another name": ("a.npy", b"\x89PNG\r\n\x1a\n", "is not an array of NumPy, by its content"),
    "a table called a sound": ("a.wav", b"a,b\n1,2\n", "is not a WAV sound, by its content"),
    "a sound called a table": ("a.csv", TONE, "is not a table, by its content"),
    "an array called a table": ("a.csv", npy(np.zeros(3)), "is not a table, by its content"),
    "zeros": ("a.csv", b"a,b\n1,\x002\n", "is not a table, by its content"),
    "another encoding": ("a.csv", b"a,\xff\xfe\n1,2\n", "not text in UTF-8"),
    "a header alone": ("a.csv", b"a,b\n", "at least one row"),
    "no number anywhere": ("a.csv", b"a,b\nx,y\n", "no column of"),
    "a lame row": ("a.csv", b"a,b\n1,2\n1\n", "1 cells for 2 columns"),
    "a formula": ("a.csv", b"a,b\n1,2\n1,=cmd|'/c calc'!A1\n", "is not a number"),
    "not a number later": ("a.csv", b"a,b\n1,2\n1,x\n", "is not a number; leave a column out."),
    "two columns of one name": ("a.csv", b"a,a\n1,2\n", "two columns of the same name"),
    "not finite": ("a.csv", b"a,b\n1,nan\n", "NaN or infinite"),
    "infinite": ("a.csv", b"a,b\n1,1e999\n", "NaN or infinite"),
    "too many rows": ("a.csv", b"a\n" + b"1\n" * 60, "60 rows, more than the 50"),
    "far too many rows": ("a.csv", b"a\n" + b"1\n" * 9000, "more than the 5,000 numbers or 50 rows"),
    "too many columns": ("a.csv", (",".join(f"c{n}" for n in range(30)) + "\n" + ",".join("1" * 30)).encode(), "30 columns"),
    "too many cells": ("a.csv", b"1," * 20_000, "more than the 5,000 numbers"),
    "too many bytes": ("a.csv", b"x" * 200_001, "MiB we take"),
    "one endless cell": ("a.csv", b'a\n"' + b"1" * 90_000 + b'"\n', "cell of more than"),
    "a cell beyond the parser's limit": ("a.csv", b'a\n"' + b"1" * 190_000 + b'"\n', "cell of more than|field larger than"),
    "an open quote": ("a.csv", b'a,b\n"1,2\n', "cells for|needs a line|is not a number|no column"),
    "objects": ("a.npy", npy(np.array([{}], object), allow_pickle=True), "is not an array of numbers"),
    "texts": ("a.npy", npy(np.array(["a"])), "must hold real numbers"),
    "complex numbers": ("a.npy", npy(np.zeros(3, complex)), "must hold real numbers"),
    "a single number": ("a.npy", npy(np.float64(3)), "must hold real numbers"),
    "a large array": ("a.npy", npy(np.zeros(6000, np.int8)), "6,000 numbers, more than the 5,000"),
    "a header that promises more": ("a.npy", npy(np.zeros(3)).replace(b"(3,)", b"(9,)"), "is not an array of numbers"),
    "a header that promises much more": (
        "a.npy", npy(np.zeros(3)).replace(b"(3,), }      ", b"(3000000000,)}")[:128], "is not an array of numbers"
    ),
    "a header with code": ("a.npy", npy(np.zeros(3)).replace(b"(3,)", b"f(9)"), "is not an array of numbers"),
    "a header of nothing": ("a.npy", b"\x93NUMPY\x01\x00\xff\xff", "is not an array of numbers"),
    "an array that is not finite": ("a.npy", npy(np.array([1.0, np.inf])), "NaN or infinite"),
    "a sound without a format": ("a.wav", HEAD + b"data\x04\x00\x00\x00abcd", "is broken"),
    "a sound without sound": ("a.wav", wav(np.zeros(0, np.int16)), "holds no sound"),
    "a short format": ("a.wav", HEAD + b"fmt \x02\x00\x00\x00ab" + b"data\x04\x00\x00\x00abcd", "is broken"),
    "a compressed sound": ("a.wav", wav(np.zeros(8, np.int16), form=85), "is compressed"),
    "no channels": ("a.wav", TONE.replace(b"\x01\x00\x01\x00", b"\x01\x00\x00\x00", 1), "is broken"),
    "no rate": ("a.wav", wav(np.zeros(8, np.int16), rate=0), "is broken"),
    "a long sound": ("a.wav", wav(np.zeros(6000, np.int16)), "6,000 numbers, more than the 5,000"),
    "a chunk without an end": ("a.wav", HEAD + b"fmt \xff\xff\xff\xff", "is broken"),
    "another container": ("a.wav", b"RIFF\x00\x00\x00\x00AVI LIST", "is not a WAV file"),
    "a sound that is not finite": ("a.wav", wav(np.array([np.nan], "<f4"), form=3, bits=32), "NaN or infinite"),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(BAD))
def test_a_file_that_is_refused(name: str, tmp_path: Path) -> None:
    file, content, message = BAD[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        rows_files.read(tmp_path / file, subject_of(tabular(), reads="rows"), LIMITS)
    assert str(tmp_path) not in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_the_network_does_not_take(tmp_path: Path) -> None:
    asked = subject("tabular")
    np.save(tmp_path / "a.npy", np.zeros((2, 3), np.float32))
    file = rows_files.read(tmp_path / "a.npy", asked, Limits())
    with pytest.raises(InputError, match=r"takes 'a\.npy' in no form; of shape"):
        rows_answers.ask(asked, file, PageSettings(), Limits())
    with pytest.raises(InputError, match="cannot take an input of shape"):
        rows_answers.ask(asked, file, PageSettings(form="rows"), Limits())
    with pytest.raises(InputError, match="there is no form 'x'"):
        PageSettings(form="x")
    table(tmp_path / "b.csv")
    file = rows_files.read(tmp_path / "b.csv", asked, Limits())
    with pytest.raises(TargetError, match="there is no class 3"):
        rows_answers.ask(asked, file, PageSettings(target=3), Limits())
    with pytest.raises(InputError, match="at most 10 steps"):
        rows_answers.ask(asked, file, PageSettings(form="channels"), Limits(steps=10))
    with pytest.raises(InputError, match="no row 30"):
        rows_answers.ask(asked, file, PageSettings(row=30, form="rows"), Limits())
    with pytest.raises(InputError, match="row is -1"):
        PageSettings(row=-1)


def test_a_sound_of_another_rate_than_the_networks(tmp_path: Path) -> None:
    model = waves()
    model.sample_rate = 16000  # type: ignore[assignment]
    (tmp_path / "a.wav").write_bytes(TONE)
    with pytest.raises(InputError, match="8000 samples per second, and the network takes 16000"):
        rows_files.read(tmp_path / "a.wav", subject_of(model, reads="rows"), Limits())


# ----------------------------------------------------------------------------------------------------------- browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: Any) -> Iterator[str]:
    pytest.importorskip("gradio", reason="the page needs Gradio")
    path = tmp_path_factory.mktemp("rows") / "people.csv"
    table(path)
    with web_pages.served([("tabular", lambda: subject("tabular"))], examples=[path]) as found:
        yield found


@pytest.mark.filterwarnings("ignore")
def test_a_program_asks_about_a_row(address: str, tmp_path: Path) -> None:
    values = table(tmp_path / "a.csv")
    answer = web_pages.question(address, tmp_path / "a.csv", target=1, composites="epsilon", values=True, row=4)
    wanted = relprop.attribute(tabular(), values[4:5], 1, composite="epsilon")
    torch.testing.assert_close(torch.tensor(answer["values"][0][0]), wanted.values[0], rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_a_table_in_a_browser(address: str, tmp_path: Path) -> None:
    with web_pages.browsed(address, 420) as seen:
        page = seen.page
        page.click("text=people.csv")
        page.wait_for_selector("#maps svg")
        page.wait_for_selector("#rows button")
        page.focus("#rows [data-n='4']")
        page.keyboard.press("Enter")
        page.wait_for_function("document.querySelector('#maps h3').innerText.includes('row 4')")
        page.wait_for_function("window.location.search.includes('row=4')")
        link = page.url
        page.fill("#start input", "27")
        page.keyboard.press("Enter")
        page.wait_for_selector("#rows [data-n='29']")
        page.click("#every")
        page.wait_for_selector("#summed svg")
        with page.expect_download() as download:
            page.click("#download-csv-rows")
        assert "distance, km" in Path(download.value.path()).read_text()
        table(tmp_path / "other.csv", 5)
        seen.drop(tmp_path / "other.csv")
        page.wait_for_function("document.querySelector('#maps h3').innerText.includes('other.csv')")
        (tmp_path / "bad.csv").write_bytes(b"a,b\n1,x\n<script>,2\n")
        assert page.evaluate("document.documentElement.scrollWidth") <= 420
        assert not seen.errors and not seen.foreign()
        page.goto(link)
        page.wait_for_function("document.querySelector('#maps h3')?.innerText.includes('row 4')")
        page.goto(f'{address}?example=0&row=2&form=rows&without=["who","label"]')
        page.wait_for_function("document.querySelector('#maps h3')?.innerText.includes('row 2')")
        assert page.input_value("#form input") == FORMS["rows"]
        chosen = [" ".join(each.split()) for each in page.locator("#without .token").all_inner_texts()]
        assert chosen == ["who", "label"] and "form=rows" in page.url and "who" in page.url
        # What was uploaded is not in the link: the columns are left out of the first table that has them.
        page.goto(f'{address}?without=["income","who","label"]')
        page.wait_for_selector("#rows .hint")
        four = tmp_path / "five.csv"
        values = table(four, 6)
        lines = four.read_text().splitlines()
        four.write_text("\n".join(["extra," + lines[0], *(f"{n}," + line for n, line in enumerate(lines[1:]))]))
        seen.drop(four)
        page.wait_for_function("document.querySelector('#maps h3')?.innerText.includes('five.csv')")
        assert "Columns left out: income, who, label" in page.inner_text("#maps")
        assert values.shape == (6, 4)
        page.wait_for_function("window.location.search.includes('income')")
