"""Some inputs of many are broken: the others are explained, and at the end there is a line for each that was left out."""

from __future__ import annotations

import io
import json
import os
import struct
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from test_cli import MINE, run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "mine.py").write_text(MINE)
    dice = np.random.default_rng(0)
    (tmp_path / "five").mkdir()
    for name in "ace":
        Image.fromarray(dice.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(tmp_path / "five" / f"{name}.png")
    return tmp_path


def bomb() -> bytes:
    """A picture of 60,000 x 60,000 points in a few bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def cut(path: Path) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((60, 60), 50).save(buffer, format="PNG")
    path.write_bytes(buffer.getvalue()[:-300])


BROKEN = {
    "empty": (lambda p: p.write_bytes(b""), "is not a picture we open"),
    "no picture": (lambda p: p.write_text("words"), "is not a picture we open"),
    "cut": (cut, "is broken"),
    "bomb": (lambda p: p.write_bytes(bomb()), "more than the 50 million pixels"),
    "folder": (lambda p: p.mkdir(), "is a folder"),
    "pipe": (lambda p: os.mkfifo(p), "is not an ordinary file"),
    "device": (lambda p: p.symlink_to("/dev/zero"), "is not an ordinary file"),
    "broken link": (lambda p: p.symlink_to("nowhere"), "there is no file"),
    "huge": (lambda p: os.truncate(os.open(p, os.O_CREAT | os.O_RDWR), 2**40), "MiB"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_three_of_five(kind: str, here: Path) -> None:
    make, says = BROKEN[kind]
    make(here / "five" / "b.png")
    (here / "five" / "d.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    start = time.perf_counter()
    done = run("explain", "five", "-m", "mine:small", "-t", "cat", "--out", "out", "--batch-size", 2)
    assert time.perf_counter() - start < 30
    assert done.exit_code == 1
    assert len(list((here / "out").glob("*.png"))) == 3 and (here / "out" / "index.html").exists()
    first, second = done.stderr.splitlines()
    assert first.startswith("relprop: b.png was left out: ") and says in first
    assert second.startswith("relprop: d.png was left out: ")
    assert "d.png was left out" in (here / "out" / "index.html").read_text(encoding="utf-8")
    data = json.loads(run("explain", "five", "-m", "mine:small", "-t", "0", "--out", "out", "--json").stdout)
    assert [each["input"] for each in data["results"]] == ["a.png", "c.png", "e.png"]
    assert [each["input"] for each in data["left_out"]] == ["b.png", "d.png"]


def test_one_that_may_not_be_read(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from relprop.loading import samples as reading

    load = reading.load_image

    def refuse(path: Path) -> Image.Image:
        if path.name == "c.png":
            raise PermissionError(13, "Permission denied", str(path))
        return load(path)

    monkeypatch.setattr(reading, "load_image", refuse)
    done = run("explain", "five", "-m", "mine:small", "-t", "cat", "--out", "out")
    assert done.exit_code == 1 and "c.png was left out: [Errno 13] Permission denied" in done.stderr


def test_an_input_that_the_network_cannot_take_is_one_of_them(here: Path) -> None:
    np.save(here / "good.npy", np.random.default_rng(0).normal(size=(1, 3)))
    np.save(here / "long.npy", np.ones((1, 7)))
    np.save(here / "nan.npy", np.full((1, 3), np.nan))
    for batch_size in (1, 8):
        done = run(
            "explain", "long.npy", "good.npy", "nan.npy", "-m", "mine:table", "--batch-size", batch_size, "--out", "o"
        )
        assert done.exit_code == 1
        assert {line.partition(" was left out: ")[0] for line in done.stderr.splitlines()} == {
            "relprop: long.npy", "relprop: nan.npy",
        }  # fmt: skip
    (here / "rows.csv").write_text("a,b,c\n1,2,3\nnan,1,2\n4,5,6\n")
    done = run("explain", "rows.csv", "-m", "mine:table", "--out", "o")
    assert done.exit_code == 1 and done.stderr.startswith("relprop: rows.csv, row 1 was left out: ")


def test_where_all_are_broken_nothing_is_written(here: Path) -> None:
    (here / "all").mkdir()
    (here / "all" / "a.png").write_bytes(b"")
    (here / "all" / "b.png").mkdir()
    done = run("explain", "all", "-m", "mine:small", "--out", "out")
    assert done.exit_code == 1 and done.stdout == "" and not (here / "out").exists()
    assert done.stderr.splitlines() == [
        "relprop: a.png was left out: 'a.png' is not a picture we open (PNG, JPEG, WEBP, BMP, GIF, TIFF).",
        "relprop: b.png was left out: 'b.png' is a folder.",
    ]


def test_what_is_asked_for_and_missing_stops_at_once(here: Path) -> None:
    done = run("explain", "five", "nowhere.png", "-m", "mine:small", "--out", "out")
    assert (done.exit_code, done.stderr) == (2, "relprop: there is no file 'nowhere.png'.\n")
    assert not (here / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.npy", b"", "not an array of numbers"),
        (
            "a.npy",
            b"\x93NUMPY\x01\x00\x46\x00{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999,), }\n",
            "not an array",
        ),
        (
            "a.npy",
            b"\x93NUMPY\x01\x00\x46\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(80),
            "not an array",
        ),
        ("a.csv", b"\xff\xfe\x00", "not a table we read"),
        ("a.csv", b"a,b\n" + b"1" * 200_000 + b",2\n", "not a table we read"),
        ("labels.txt", b"\xff\xfe", "not text in UTF-8"),
    ],
)
def test_broken_arrays_tables_and_labels(name: str, content: bytes, says: str, here: Path) -> None:
    (here / name).write_bytes(content)
    arguments = (
        ("five/a.png", "-m", "mine:small", "--labels", name) if name == "labels.txt" else (name, "-m", "mine:table")
    )
    done = run("explain", *arguments, "--out", "out")
    assert done.exit_code == 2 and says in done.stderr and done.stderr.count("\n") == 1


def test_an_archive_that_is_called_an_array(here: Path) -> None:
    np.savez(here / "a.npz", x=np.ones((1, 3)))
    (here / "a.npz").rename(here / "a.npy")
    done = run("explain", "a.npy", "-m", "mine:table", "--out", "out")
    assert done.exit_code == 2 and "is an archive of arrays" in done.stderr


def test_a_report_without_the_damaged_ones(here: Path) -> None:
    run("explain", "five", "-m", "mine:small", "-t", "cat", "--out", "out", "--keep")
    kept = sorted(path for path in (here / "out").iterdir() if path.is_dir())
    (kept[1] / "manifest.json").write_text("{")
    done = run("report", "out", "--out", "report.html")
    assert done.exit_code == 1 and done.stdout == "report.html\n"
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"relprop: out/{kept[1].name} was left out: ") and "cannot be loaded" in line
    page = (here / "report.html").read_text(encoding="utf-8")
    assert f">{kept[0].name}</h2>" in page and f">{kept[1].name}</h2>" not in page and "was left out" in page


def test_texts(here: Path) -> None:
    pytest.importorskip("transformers")
    import text_models as tiny

    tiny.build("bert", tiny.words()).save_pretrained(here / "news")
    tiny.words().save_pretrained(here / "news")
    (here / "texts").mkdir()
    contents = {"a": b"a film was good", "b": b"\xff\xfe\x00", "c": b"a film was bad", "d": b"", "e": b"opec cut oil"}
    for name, content in contents.items():
        (here / "texts" / f"{name}.txt").write_bytes(content)
    (here / "texts" / "f.txt").mkdir()
    (here / "texts" / "g.txt").write_bytes(b"film " * 400)  # more than the model reads
    for batch_size in (1, 8):
        done = run("explain", "texts", "-m", "hf:news", "--out", "out", "--batch-size", batch_size, "--json")
        assert done.exit_code == 1
        assert [each["input"] for each in json.loads(done.stdout)["results"]] == ["a.txt", "c.txt", "e.txt"]
        left = [line.partition(" was left out: ")[0].removeprefix("relprop: ") for line in done.stderr.splitlines()]
        assert left == ["b.txt", "d.txt", "f.txt", "g.txt"]


def test_what_is_piped_in_without_an_end(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from relprop.loading import samples as reading

    class Endless(io.StringIO):
        def read(self, count: int | None = -1, /) -> str:
            assert count is not None and count > 0
            return "y\n" * (count // 2)

    monkeypatch.setattr(reading, "_LARGEST_TEXT", 1001)
    with pytest.raises(reading.InputError, match="piped in has more than"):
        reading.piped(Endless())
