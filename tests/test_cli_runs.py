"""A run of the command as it goes on: pages that grow, weights, folders of results, and output anywhere."""

from __future__ import annotations

import functools
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import relprop
from relprop.attribution.labels import near_labels
from relprop.cli import writing
from relprop.cli.explaining import find_class
from relprop.cli.output_encoding import spelled
from relprop.cli.printing import folded
from relprop.errors import InputError, TargetError
from relprop.loading.weights import load_weights
from test_cli import ENVIRONMENT, MINE, SOURCE, good, here, run  # noqa: F401


@pytest.fixture
def many(here: Path) -> Path:  # noqa: F811
    (here / "many").mkdir()
    for n in range(6):
        pixels = np.random.default_rng(n).integers(0, 255, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(here / "many" / f"{n}.png")
    return here


# ----------------------------------------------------------------------------------------------------------- pages


def test_the_page_grows_and_an_interruption_leaves_what_was_done(many: Path) -> None:
    (many / "slow.py").write_text(
        "import mine, time, pathlib\n"
        "class Slow(mine.Small):\n"
        "  runs = 0\n"
        "  def forward(self, x):\n"
        "    Slow.runs += 1\n"
        "    if Slow.runs > 3:\n"
        "      pathlib.Path('started').touch(); time.sleep(60)\n"
        "    return super().forward(x)\n"
        "def slow():\n  return Slow(*mine.small())\n"
    )
    program = [sys.executable, "-m", "relprop.cli", "explain", "many", "-m", "slow:slow", "--out", "out", "--keep"]
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, preexec_fn=heed
    )
    for _ in range(600):
        if (many / "started").exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    assert process.poll() is None
    assert (many / "out" / "index.html").exists()  # before the end, and after kill -9, too
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and errors == "relprop: interrupted.\n"
    page = (many / "out" / "index.html").read_text(encoding="utf-8")
    done = sorted(path.name for path in (many / "out").glob("*.png"))
    assert done and all(f">{name[0]}.png</h2>" in page for name in done)
    assert f">{len(done)}.png</h2>" not in page
    good("show", "out")


def test_the_page_is_written_seldom_where_that_takes_long(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    report = relprop.report

    def slow(*args: object, **options: object) -> None:
        calls.append(time.monotonic())
        time.sleep(2)
        report(*args, **options)

    monkeypatch.setattr(writing.relprop, "report", slow)
    good("explain", "many", "-m", "mine:small", "--out", "out")
    assert len(calls) == 2  # after the first input, and at the end
    assert "6.png" not in (page := (many / "out" / "index.html").read_text(encoding="utf-8"))
    assert all(f">{n}.png</h2>" in page for n in range(6)) and "0.png and 5 more" in page


def test_a_broken_file_is_on_the_page(many: Path) -> None:
    (many / "many" / "5.png").write_bytes(b"broken")
    done = run("explain", "many", "-m", "mine:small", "--out", "out")
    assert done.exit_code == 1 and "5.png was left out" in done.stderr
    assert "5.png was left out" in (many / "out" / "index.html").read_text(encoding="utf-8")


# ----------------------------------------------------------------------------------------- folders of results


def test_show_and_report_take_the_folder_of_a_run(many: Path) -> None:
    good("explain", "many/0.png", "many/1.png", "-m", "mine:small", "--out", "out", "--keep")
    shown = good("show", "out")
    assert "0-" in shown and "1-" in shown
    good("show", "out", "--out", "all.html")
    page = (many / "all.html").read_text(encoding="utf-8")
    assert len(re.findall("<h2[^>]*>0-", page)) == 1 and len(re.findall("<h2[^>]*>1-", page)) == 1
    good("report", "out", "--out", "report.html")
    done = run("show", "out", "--out", "all.png")
    assert done.exit_code == 2 and "'out' holds 2 results, which go into one page" in done.stderr
    (one,) = [path for path in (many / "out").iterdir() if path.is_dir() and path.name.startswith("0-")]
    good("show", one, "--out", "one.jpg")
    (one / "manifest.json").write_text("{}")
    done = run("show", "out")
    assert done.exit_code == 1 and "was left out" in done.stderr and "1-" not in done.stderr


@pytest.mark.parametrize("command", ["show", "report"])
def test_no_folder(command: str, many: Path) -> None:
    for given, says in (
        ("nowhere", "there is no folder 'nowhere'"),
        ("mine.py", "'mine.py' is a file, and results are folders"),
        ("many", "'many' is not a saved result"),
    ):
        done = run(command, given)
        assert done.exit_code == 2 and says in done.stderr and done.stderr.count("\n") == 1
    good("explain", "many/0.png", "-m", "mine:small", "--out", "out")
    done = run(command, "out")
    assert done.exit_code == 2 and "holds a page and no results: run `relprop explain` with --keep" in done.stderr


def test_where_nothing_can_be_written(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good("explain", "many/0.png", "-m", "mine:small", "--out", "out", "--keep")
    (many / "file").write_text("in the way")
    for arguments in (("show", "out", "--out", "file/x.html"), ("report", "out", "--out", "file/x.html")):
        done = run(*arguments)
        assert done.exit_code == 1, done.output
        assert "cannot write to 'file/x.html': " in done.stderr and done.stderr.count("\n") == 1

    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing.relprop, "report", full)
    done = run("explain", "many/0.png", "-m", "mine:small", "--out", "new")
    assert done.exit_code == 1 and "cannot write to 'new/index.html': No space left on device." in done.stderr


# --------------------------------------------------------------------------------------------------------- classes


def test_few_classes_are_listed_and_whole_words_come_first(many: Path) -> None:
    done = run("explain", "many/0.png", "-m", "mine:small", "-t", "bird")
    assert done.exit_code == 2 and "there is no class 'bird'; there are: 'cat', 'dog', '=cow <b>'" in done.stderr
    labels = ["caterpillar", "category", "tiger cat", "Egyptian cat", "delicate", *map(str, range(20))]
    assert near_labels("cat", labels)[:2] == ["tiger cat", "Egyptian cat"]
    with pytest.raises(TargetError, match="near it: 'tiger cat', 'Egyptian cat'"):
        find_class("cat", labels)
    with pytest.raises(TargetError, match=r"among the 3 labels\. There are: 'a', 'b', 'c'\."):
        relprop.attribute(nn.Linear(2, 3).eval(), torch.ones(1, 2), "d", labels=["a", "b", "c"])
    with pytest.raises(TargetError, match="Did you mean 'tiger cat' or 'Egyptian cat'"):
        relprop.attribute(nn.Linear(2, 25).eval(), torch.ones(1, 2), "cat", labels=labels)
    assert near_labels("zzz", labels) == [] and near_labels(" ", labels) == []


# --------------------------------------------------------------------------------------------------------- weights


class Runs:
    def __reduce__(self) -> tuple:
        return (os.system, ("touch ran",))


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3, "optimizer": {"lr": 0.1}},
        lambda s: {"model": {f"module.{name}": one for name, one in s.items()}},
        lambda s: {f"_orig_mod.{name}": one for name, one in s.items()},
    ],
    ids=["plain", "checkpoint", "parallel", "compiled"],
)
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt"])
def test_weights_of_torch_save(wrap: object, suffix: str, tmp_path: Path) -> None:
    state = {name: torch.randn_like(one) for name, one in small().state_dict().items()}
    torch.save(wrap(state), tmp_path / f"w{suffix}")  # type: ignore[operator]
    model = small()
    load_weights(model, tmp_path / f"w{suffix}")
    assert all(torch.equal(one, state[name]) for name, one in model.state_dict().items())


def test_weights_run_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Runs()}, "a.pt")
    torch.save(small(), "b.pth")
    with Path("c.pt").open("wb") as file:
        pickle.dump({"a": Runs()}, file)
    Path("d.pt").write_bytes(b"nonsense")
    torch.save(small().state_dict(), "whole.pt")
    Path("e.pt").write_bytes(Path("whole.pt").read_bytes()[:200])
    torch.save({"epoch": 3}, "f.pt")
    for name, says in (
        ("a.pt", "posix.system, which may run code"),
        ("b.pth", "torch.nn.modules.container.Sequential, which may run code"),
        ("c.pt", "holds more than tensors, or is broken"),
        ("d.pt", "holds more than tensors, or is broken"),
        ("e.pt", "is broken"),
        ("f.pt", "holds no weights by name: it holds epoch"),
        ("none.pt", "there is no file 'none.pt'"),
    ):
        with pytest.raises(InputError, match=says) as caught:
            load_weights(small(), Path(name))
        assert "weights_only" not in str(caught.value)
    assert not Path("ran").exists()


# ------------------------------------------------------------------------------------------------------ composites


def test_the_box_rule_has_the_bounds_of_pictures(many: Path) -> None:
    done = json.loads(
        good(
            "explain",
            "many/0.png",
            "-m",
            "mine:small",
            "-t",
            "cat",
            "-c",
            "epsilon_gamma_box",
            "--json",
            "--keep",
            "--out",
            "out",
        )
    )
    assert done["results"][0]["composite"] == "epsilon_gamma_box"
    import mine  # type: ignore[import-not-found]

    x = relprop.read_image("many/0.png", size=16)
    low, high = (
        (torch.tensor([c, c, c]) - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
        for c in (0.0, 1.0)
    )
    box = relprop.composites.epsilon_gamma_box(low=low.reshape(1, 3, 1, 1), high=high.reshape(1, 3, 1, 1))
    (kept,) = [path for path in (many / "out").iterdir() if path.is_dir()]
    torch.testing.assert_close(
        relprop.load(kept).values, relprop.attribute(mine.small().eval(), x, 0, composite=box).values
    )
    assert "ZBox" in good("check", "-m", "mine:small", "-c", "epsilon_gamma_box")
    done = run("explain", "signal.npy", "-m", "mine:table", "-c", "epsilon_gamma_box")
    assert done.exit_code == 2 and "needs the bounds of the input, which are known of pictures alone" in done.stderr


# --------------------------------------------------------------------------------------------------------- compare


def test_compare_is_what_the_library_gives(many: Path) -> None:
    from mine import small as network  # type: ignore[import-not-found]

    arguments = (
        "compare",
        "many/0.png",
        "-m",
        "mine:small",
        "-t",
        "cat",
        "-t",
        "dog",
        "-c",
        "epsilon",
        "-c",
        "epsilon_gamma_box",
    )
    found = json.loads(good(*arguments, "--json", "--out", "figure.png"))
    x = relprop.read_image("many/0.png", size=16)
    for n, one in enumerate(found["results"][:3:2]):
        wanted = relprop.attribute(network().eval(), x, n, composite="epsilon")
        assert one["explained"] == f"{'cat' if n == 0 else 'dog'} ({n}) by epsilon"
        assert one["score"] == pytest.approx(float(wanted.score)) and one["residual"] == pytest.approx(
            float(wanted.residual), abs=1e-5
        )
    assert len(found["results"]) == 4 and found["files"] == ["figure.png"]
    with Image.open("figure.png") as figure:
        wide = figure.width
    good(*arguments, "--out", "figure.png", "--width", wide * 2, "--shared")
    with Image.open("figure.png") as figure:
        assert figure.width == wide * 2
    assert "by epsilon_gamma_box" in good(*arguments, "--out", "figure.svg")


def test_compare_several_inputs(many: Path) -> None:
    printed = good("compare", "many", "-m", "mine:small", "--out", "c.png")
    assert len(list(many.glob("c-*.png"))) == 6 and "c-0-0.png" in printed
    (many / "many" / "3.png").write_bytes(b"broken")
    done = run("compare", "many", "-m", "mine:small", "--out", "c.html")
    assert done.exit_code == 1 and "3.png was left out" in done.stderr
    page = (many / "c.html").read_text(encoding="utf-8")
    assert "3.png was left out" in page and page.count("<h2") >= 5
    good("compare", "signal.npy", "-m", "mine:table", "--out", "table.pdf")
    for arguments, says in (
        (["--out", "c.txt"], "a figure is a .png"),
        (["-c", "nothing"], "there is no composite"),
        (["-t", "bird"], "there are: 'cat'"),
        (["--out", "c.html", "--width", "170mm"], "--width is for a figure"),
    ):
        done = run("compare", "many/0.png", "many/1.png", "-m", "mine:small", *arguments)
        assert done.exit_code == 2 and says in done.stderr and done.stderr.count("\n") == 1, done.stderr


# ---------------------------------------------------------------------------------------------------------- output


def test_check_fits_eighty_columns(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = good("check").splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.split()[:5] == ["operation", "family", "rule", "calls", "modules"] for line in lines)


def test_long_words_are_broken_after_signs() -> None:
    assert folded("blocks.0.depthwise.conv ... head.conv", 20) == "blocks.0.depthwise.\nconv ... head.conv"
    assert folded("short words", 20) == "short words"
    assert folded("abcdefghijklmnop", 6) == "abcdef\nghijkl\nmnop"
    for text in ("a.b.c" * 9, "Epsilon(epsilon=1e-06, relative=False)"):
        assert folded(text, 12).replace("\n", "") == text


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_any_encoding(encoding: str, many: Path) -> None:
    good("explain", "many/0.png", "-m", "mine:small", "-t", "cat", "--out", "out", "--keep")
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": encoding, "COLUMNS": "80", "NO_COLOR": "1"}
    for arguments in (
        ["show", "out"],
        ["check", "-m", "mine:small"],
        ["explain", "many/0.png", "-m", "mine:small", "--json", "--out", "again"],
        ["explain", "many/ünïcode ☃.png", "-m", "mine:small", "--out", "again"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "relprop.cli", *arguments], capture_output=True, env=environment, timeout=120
        )
        assert b"Traceback" not in done.stderr and b"UnicodeEncodeError" not in done.stderr, (
            arguments,
            done.stderr[-500:],
        )
        done.stdout.decode(encoding), done.stderr.decode(encoding)
        if "--json" in arguments:
            json.loads(done.stdout.decode(encoding))


def test_what_cannot_be_encoded_is_spelled() -> None:
    assert spelled("█▀│−…±é") == "##|-...+/-e"
    assert spelled("☃") == "\\u2603"


def test_paths_are_printed_as_they_were_typed(many: Path) -> None:
    typed = "C:\\Users\\me\\my pictures\\cat.png"
    done = run("explain", typed, "-m", "mine:small")
    assert done.exit_code == 2 and f"there is no file '{typed}'." in done.stderr
    done = run("explain", "many/0.png", "-m", "mine:small", "--weights", "C:\\w\\x.pt")
    assert "there is no file 'C:\\w\\x.pt'." in done.stderr


START = """
import os, signal, sys, threading
sys.path.insert(0, {source!r})
import relprop_start
threading.Timer({after}, os.kill, (os.getpid(), signal.SIGINT)).start()
sys.argv = ["relprop", "check"]
relprop_start.main()
"""


@pytest.mark.parametrize("after", [0.1, 0.4, 1.0])
def test_an_interruption_in_the_first_second_shows_no_traceback(after: float, tmp_path: Path) -> None:
    program = START.format(source=SOURCE, after=after)
    heed = functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=ENVIRONMENT, timeout=120, cwd=tmp_path,
        preexec_fn=heed,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert done.returncode in (-signal.SIGINT, 130, 1)


def test_the_command_starts_where_the_package_says(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv = ['relprop', '--version']; import relprop_start; relprop_start.main()"],
        capture_output=True, text=True, env=ENVIRONMENT, timeout=120, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout.strip() == relprop.__version__ and MINE
