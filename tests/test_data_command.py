"""The command `relprop run`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("zarr")
pytest.importorskip("typer")

import killed_runs
import relprop

TESTS = Path(__file__).parent


def start(*arguments: object, **settings: object) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(TESTS), str(Path(relprop.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", "relprop.cli", "run", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}, **settings,
    )  # type: ignore[call-overload, no-any-return]  # fmt: skip


def command(*arguments: object) -> tuple[int, str, str]:
    process = start(*arguments)
    out, err = process.communicate(timeout=200)
    return process.returncode, out, err


def source(folder: Path, count: int = 22) -> Path:
    array = torch.randn(count, 3, 12, 12, generator=torch.Generator().manual_seed(1)).numpy()
    array[3, 0, 0, 0] = np.nan
    np.save(folder / "x.npy", array)
    return folder / "x.npy"


def test_a_run_its_status_and_its_check(tmp_path: Path) -> None:
    out = tmp_path / "maps"
    line = (source(tmp_path), "--model", "killed_runs:network", "--out", out, "--batch-size", 4, "--unit", 8)
    code, said, progress = command(*line, "--keep", "0=channels")
    assert code == 3 and "22 of 22 samples done, 1 quarantined" in said
    assert "samples/s" in progress and "bytes per sample" in progress
    code, said, _ = command("--out", out, "--status")
    assert code == 0 and "remaining: 0" in said and "quarantined: 3: it has entries that are NaN" in said
    code, said, _ = command("--out", out, "--verify")
    assert code == 0 and "as it was written" in said
    (out / "maps.zarr/score/c/1").write_bytes(b"")
    code, said, _ = command("--out", out, "--verify", "--json")
    assert code == 1 and json.loads(said)["wrong"] == ["maps.zarr/score/c/1: differs from what was written"]


def test_spray_and_exports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("h5py")
    from killed_runs import network
    from relprop.cli.app import app

    def said(*arguments: object) -> str:
        with pytest.raises(SystemExit) as left:
            app([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert left.value.code == 0, printed.err
        return printed.out

    x = torch.randn(40, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    np.save(tmp_path / "x.npy", x.numpy())
    maps = tmp_path / "maps"
    run = relprop.explain_dataset(x, network(), maps, target=1, batch_size=20, progress=False)
    table = said("spray", maps, "--neighbours", 4, "--size", 6, "--by", "target")
    assert "With fewer than 5 classes" in table
    assert "silhouette" in table and "spray.html" in table and (maps / "spray.html").is_file()
    found = json.loads(
        said("spray", maps, "--neighbours", 4, "--by", "target", "--json", "--out", tmp_path / "page.html", "--source",
             tmp_path / "x.npy")
    )  # fmt: skip
    assert found[0]["samples"] == 40 and found[0]["distance"] is None and (tmp_path / "page.html").is_file()
    said("export", maps, "--to", "csv", "--out", tmp_path / "table.csv")
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 41
    out = tmp_path / "virelay"
    assert str(out) in said(
        "export", maps, "--to", "virelay", "--out", out, "--source", tmp_path / "x.npy", "--neighbours", 4
    )
    assert {path.name for path in out.iterdir()} == {
        ".relprop", "analysis.h5", "attribution.h5", "data.h5", "label_map.json", "project.yaml",
    }  # fmt: skip
    assert not run.verify()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name a source"),
        (("nowhere",), "no file or folder"),
        (("x.npy", "--keep", "sum"), "--keep is NAME=HOW"),
        (("x.npy", "--max-bad", "few"), "--max-bad is a share"),
        (("x.npy", "--engine", "spark"), "engine is None or 'ray'"),
        (("--status", "--out", "nowhere"), "is not a run"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    from relprop.cli.app import app

    with pytest.raises(SystemExit) as left:
        app(["run", *arguments])
    error = capsys.readouterr().err
    assert left.value.code == 2 and said in error and len(error.strip().splitlines()) == 1


def test_two_processes_write_the_same_bytes_as_one_and_survive_a_kill(tmp_path: Path) -> None:
    line = (source(tmp_path, 200), "--model", "killed_runs:network", "--batch-size", 2, "--unit", 4)
    process = start(*line, "--out", tmp_path / "two", "--processes", 2)
    while not (done := list((tmp_path / "two" / "units").glob("*.json"))) and process.poll() is None:
        time.sleep(0.05)
    assert done
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if children.is_file():
        os.kill(int(children.read_text().split()[-1]), signal.SIGKILL)  # the first may be the one that tracks resources
    _, progress = process.communicate(timeout=200)
    assert process.returncode == 3, progress
    if children.is_file():
        assert "is started again" in progress
    one = relprop.explain_dataset(
        tmp_path / "x.npy", "killed_runs:network", tmp_path / "one", batch_size=2, unit=4, progress=False
    )
    two = relprop.open_run(tmp_path / "two")
    assert two.keys() == one.keys() and not two.verify()
    for path in (one.folder / "maps.zarr").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (two.folder / path.relative_to(one.folder)).read_bytes()


def units_at_hand(maps: Path) -> set[int]:
    return {int(path.name) for path in (maps / "leases").glob("[0-9]*")}


SIGNALS = [
    (signal.SIGINT, ()), (signal.SIGTERM, ()), (signal.SIGINT, ("--processes", 2)), (signal.SIGTERM, ("--processes", 2)),
]  # fmt: skip


@pytest.mark.parametrize(("number", "more"), SIGNALS)
def test_a_signal_lets_units_at_hand_end_and_says_how_to_go_on(
    tmp_path: Path, number: signal.Signals, more: tuple[object, ...]
) -> None:
    """All processes of the group get it, as from a terminal or a job scheduler."""
    maps = tmp_path / "maps"
    line = (source(tmp_path, 60), "--model", "test_data_command:lazy", "--out", maps, "--batch-size", 1, "--unit", 4)
    process = start(*line, *more, start_new_session=True)
    held: set[int] = set()
    while process.poll() is None and not (list((maps / "units").glob("*.json")) and (held := units_at_hand(maps))):
        time.sleep(0.02)
    os.killpg(process.pid, number)
    _, progress = process.communicate(timeout=100)
    assert process.returncode == 130, progress
    assert progress.count("To continue: relprop run ") == 2 and "--unit 4" in progress
    run = relprop.open_run(maps)
    done = run.store.done()
    assert held <= done and len(done) < 15 and not run.verify() and not units_at_hand(maps)
    assert run.status()["done"] == 4 * len(done)


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    line = (source(tmp_path, 60), "--model", "test_data_command:lazy", "--out", maps, "--batch-size", 1, "--unit", 60)
    process = start(*line)
    while process.poll() is None and not units_at_hand(maps):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    while "once more stops at once" not in process.stderr.readline():
        assert process.poll() is None
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, progress = process.communicate(timeout=100)
    assert process.returncode == 130 and "Stopped. To continue: relprop run" in progress
    assert time.monotonic() - began < 5 and not list((maps / "units").glob("*")) and not units_at_hand(maps)


def test_a_run_that_is_asked_to_stop_ends_between_units(tmp_path: Path) -> None:
    said: list[str] = []
    x = torch.randn(20, 3, 12, 12)
    settings: dict[str, Any] = {"batch_size": 2, "unit": 4, "said": said.append}
    for source in (x, (row for row in x)):
        place = tmp_path / str(len(said))
        stop = lambda: sum("samples/s" in line for line in said) >= 2  # noqa: E731
        said.clear()
        run = relprop.explain_dataset(source, killed_runs.network(), place, stop=stop, **settings)
        assert run.store.done() == {0, 1} and not list(place.glob("leases/*"))


def lazy() -> torch.nn.Module:
    """A network that takes a while, so that a signal meets it at work."""
    torch.set_num_threads(1)
    inner = killed_runs.network()
    inner.register_forward_pre_hook(lambda module, given: time.sleep(0.05))
    return inner


# ------------------------------------------------------------------------------------------------ in this process


def asked(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    from relprop.cli.app import app

    with pytest.raises(SystemExit) as left:
        app([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    assert isinstance(left.value.code, int)
    return left.value.code, printed.out, printed.err


@pytest.fixture
def line(tmp_path: Path) -> list[object]:
    model = ("--model", "killed_runs:network", "--out", tmp_path / "maps", "--unit", 8)
    return ["run", source(tmp_path), *model]


def test_fresh_begins_anew_and_deletes_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: list[object]
) -> None:
    maps = tmp_path / "maps"
    assert asked(capsys, *line, "--batch-size", 4)[0] == 3
    (maps / "units" / ".000001.json.x.part").write_text("left by a writer that was killed")
    assert "holds another run" in asked(capsys, *line, "--batch-size", 2)[2]
    (maps / "notes.txt").write_text("mine")
    code, _, said = asked(capsys, *line, "--batch-size", 2, "--fresh")
    assert code == 2 and "notes.txt' was not written by a run, so nothing is deleted" in said
    assert relprop.open_run(maps).status()["done"] == 22
    (maps / "notes.txt").unlink()
    (maps / "units" / "link").symlink_to(tmp_path)
    assert "was not written by a run" in asked(capsys, *line, "--batch-size", 2, "--fresh")[2]
    (maps / "units" / "link").unlink()
    code, _, said = asked(
        capsys, *line, "--batch-size", 2, "--composite", "epsilon", "--keep", "input=sum:99", "--fresh"
    )
    assert code == 2 and "more blocks" in said and relprop.open_run(maps).status()["done"] == 22
    assert asked(capsys, *line, "--batch-size", 2, "--fresh")[0] == 3
    assert relprop.open_run(maps).store.about["fingerprint"]["batch_size"] == 2
    assert {path.name for path in tmp_path.iterdir()} == {"x.npy", "maps"}
    other = tmp_path / "other"
    other.mkdir()
    (other / "diary.txt").write_text("mine")
    code, _, said = asked(capsys, *line[:4], "--out", other, "--fresh")
    assert code == 2 and "is not a run, so nothing in it is deleted" in said and (other / "diary.txt").exists()


def test_fresh_leaves_a_run_alone_that_another_process_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: list[object]
) -> None:
    from relprop.data.leases import Leases

    asked(capsys, *line)
    with Leases(tmp_path / "maps") as other:
        assert other.take("000001")
        code, _, said = asked(capsys, *line, "--fresh")
    assert code == 2 and "another process writes" in said
    assert relprop.open_run(tmp_path / "maps").status()["done"] == 22


def test_a_batch_size_that_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str], line: list[object]) -> None:
    assert asked(capsys, *line, "--batch-size", "auto")[0] == 3
    found = relprop.open_run(tmp_path / "maps").store.about["fingerprint"]["batch_size"]
    assert found in (1, 2, 4, 8, 16)
    code, said, progress = asked(capsys, *line, "--batch-size", "auto")
    assert code == 3 and "22 of 22 samples" in said and "batches of" not in progress
    assert "is a number, or auto" in asked(capsys, *line, "--batch-size", "many")[2]
    with pytest.raises(relprop.errors.InputError, match="or 'auto'; got 'many'"):
        relprop.explain_dataset(torch.zeros(2, 3, 12, 12), torch.nn.Flatten(), tmp_path / "x", batch_size="many")
    with pytest.raises(relprop.errors.InputError, match="gives each once"):
        iterable = iter(torch.zeros(2, 3, 12, 12))
        relprop.explain_dataset(iterable, "killed_runs:network", tmp_path / "x", batch_size="auto")


class Slow(torch.nn.Module):
    """Takes long for large batches, or has no memory for them."""

    def __init__(self, most: int, seconds: float) -> None:
        super().__init__()
        self.inner, self.most, self.seconds = torch.nn.Linear(4, 2), most, seconds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError("too large")
        time.sleep(0.02 + self.seconds * max(len(x) - 4, 0))
        return self.inner(x)


@pytest.mark.parametrize(("most", "seconds", "expected"), [(8, 0.0, 8), (64, 0.05, 4)])
def test_the_batch_that_is_found_is_quick_and_fits(tmp_path: Path, most: int, seconds: float, expected: int) -> None:
    model = Slow(most, seconds).eval()
    run = relprop.explain_dataset(torch.randn(32, 4), model, tmp_path / "maps", batch_size="auto", progress=False)
    assert run.store.about["fingerprint"]["batch_size"] == expected and run.status()["done"] == 32


def test_one_sample_of_a_run_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str], line: list[object]) -> None:
    asked(capsys, *line, "--target", 0, "--target", 1)
    maps = tmp_path / "maps"
    code, _, said = asked(capsys, "show", maps)
    assert code == 2 and "is a run: name a sample with --key. It has '0', '1', '2'" in said
    assert asked(capsys, "show", maps, "--key", 4, "--which", 1, "--out", tmp_path / "four.png")[0] == 0
    relprop.open_run(maps)["4"].relevance(which=1).save(tmp_path / "same.png")
    assert (tmp_path / "four.png").read_bytes() == (tmp_path / "same.png").read_bytes()
    assert "NaN" in asked(capsys, "show", maps, "--key", 3)[2]
    assert "no sample that is done has the key" in asked(capsys, "show", maps, "--key", "x")[2]
    assert "number of a target, 0 to 1" in asked(capsys, "show", maps, "--key", 4, "--which", 2)[2]
    assert "score" in asked(capsys, "show", maps, "--key", 4)[1]
    assert "remaining: 0" in asked(capsys, "run", "--status", maps)[1]


def test_a_bar_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    from rich.console import Console

    from relprop.cli import run_progress
    from relprop.data.processing import ProgressLine

    shown = io.StringIO()
    monkeypatch.setattr(run_progress, "Console", lambda **settings: Console(file=shown, force_terminal=True, width=120))
    told = {
        "done": 16, "left": 6, "bad": 1, "samples_per_second": 2.0, "seconds_left": 3.0, "bytes": 5 * 2**20,
        "most_time_in": "explaining",
    }  # fmt: skip
    with run_progress.shown_progress(False) as said:
        said("22 of 22 [bold]are to do")
        said(ProgressLine("a line", told))
    text = shown.getvalue()
    assert "22 of 22 [bold]are to do" in text and "16/22" in text
    assert "2.0 samples/s, 0:00:03 to go, 1 bad, 5 MiB, most time in explaining" in text
