"""Runs in object stores: the bytes of a run in a folder, whatever is killed, and one run whoever begins it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import relprop
from relprop.errors import FormatError, InputError

pytest.importorskip("zarr")
pytest.importorskip("fsspec")

import fsspec

import buckets
from killed_runs import ARGUMENTS, network, samples, shards
from relprop import data
from relprop.data.leases import Leases
from relprop.data.run_addresses import place_of
from relprop.data.run_places import LocalPlace

TESTS = Path(__file__).parent
X = samples()[:22]
SETTINGS: dict[str, Any] = {"batch_size": 4, "unit": 8, "progress": False}


def explain(address: object, x: torch.Tensor = X, **settings: Any) -> data.DatasetRun:
    return relprop.explain_dataset(x, "buckets:network", str(address), **{**SETTINGS, **settings})


def objects(address: str) -> dict[str, bytes]:
    """The shards and descriptions of the arrays of a run, as `shards` gives those in a folder."""
    place = place_of(address)
    return {name: place.read(name) for name in place.names("maps.zarr")}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> data.DatasetRun:
    return explain(tmp_path_factory.mktemp("local") / "maps")


@pytest.fixture(params=["bucket", "plain", "memory"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.param}://{tmp_path.as_posix().lstrip('/')}/maps"


# ------------------------------------------------------------------------------------------------ one process


def test_a_run_at_an_address_is_that_in_a_folder(address: str, local: data.DatasetRun) -> None:
    run = explain(address)
    assert run.folder == address and run.keys() == local.keys() and not run.verify()
    assert objects(address) == shards(local.folder)
    again = relprop.open_run(address)
    assert (again["9"].map == local["9"].map).all() and (again.maps[:] == local.maps[:]).all()
    for name in local.table.dtype.names or ():
        assert (again.table[name] == local.table[name]).all()
    assert again.status()["done"] == 22 and data.pending(address) == []
    names = place_of(address).names()
    assert "run.json" in names and not [name for name in names if "lease" in name or "part" in name]


def test_it_goes_on_and_grows(address: str, local: data.DatasetRun) -> None:
    explain(address, X[:13], units=[1])
    assert data.pending(address) == [0]
    run = explain(address, X, part="1/2")
    assert run.store.about["lengths"] == [13, 9] and data.pending(address) == [3]
    run = explain(address, X)
    assert run.keys() == local.keys() and not run.verify()
    for key in ("0", "12", "13", "21"):
        np.testing.assert_allclose(run[key].map, local[key].map, rtol=2e-3, atol=1e-6)  # batches of other sizes
    with pytest.raises(InputError, match="holds another run, whose batch_size is 4"):
        explain(address, batch_size=2)


def test_what_is_damaged_is_named_and_done_again(address: str, local: data.DatasetRun) -> None:
    place = explain(address).store.place
    place.write("maps.zarr/score/c/1", b"")
    assert relprop.open_run(address).verify() == ["maps.zarr/score/c/1: differs from what was written"]
    with pytest.raises(FormatError, match=r"score/c/1' has 0 bytes, and .*Delete '.*://.*000001\.json'"):
        relprop.open_run(address).keys()
    place.delete("maps.zarr/score/c/1")
    with pytest.raises(FormatError, match="is missing"):
        relprop.open_run(address).table  # noqa: B018
    place.delete("units/000001.json")
    assert not explain(address).verify() and objects(address) == shards(local.folder)


def test_a_retry_does_again_what_was_put_aside(address: str, local: data.DatasetRun) -> None:
    broken = X.clone()
    broken[9, 0, 0, 0] = float("nan")
    assert list(explain(address, broken).quarantined) == ["9"]
    assert not explain(address, retry_bad=True).quarantined and objects(address) == shards(local.folder)


def test_exports_and_strategies(address: str, tmp_path: Path, local: data.DatasetRun) -> None:
    explain(address).export("npz", tmp_path / "here")
    local.export("npz", tmp_path / "there")
    for path in sorted((tmp_path / "there").glob("*.npz")):
        a, b = np.load(path), np.load(tmp_path / "here" / path.name)
        assert all((a[name] == b[name]).all() or a[name].dtype.kind == "f" for name in a.files)
    with pytest.raises(InputError, match="an export is written to this machine's file systems"):
        relprop.open_run(address).export("npz", "s3://bucket/npz")
    pytest.importorskip("sklearn")
    settings: dict[str, Any] = {"by": dict.fromkeys(local.keys(), 0), "size": 6, "neighbours": 4}
    found, expected = relprop.open_run(address).spray(**settings), local.spray(**settings)
    assert found[0].silhouette == expected[0].silhouette
    found.save(tmp_path / "spray.html")
    pytest.importorskip("xarray")
    pytest.importorskip("dask.array")
    assert (relprop.open_run(address).to_xarray()["maps"].values == local.to_xarray()["maps"].values).all()


def test_the_commands(address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    pytest.importorskip("typer")
    from relprop.cli.app import app

    monkeypatch.chdir(tmp_path)

    def said(code: int, *arguments: object) -> str:
        with pytest.raises(SystemExit) as left:
            app([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert left.value.code == code, printed.err
        return printed.out + printed.err

    np.save(tmp_path / "x.npy", X.numpy())
    line = ("run", "x.npy", "--model", "buckets:network", "--out", address, "--batch-size", 4, "--unit", 8)
    assert "22 of 22 samples done" in said(0, *line) and "does not tell how many are free" in said(0, *line, "--fresh")
    assert "remaining: 0" in said(0, "run", "--status", address)
    assert "as it was written" in said(0, "run", "--verify", address)
    assert "name a sample with --key" in said(2, "show", address)
    said(0, "show", address, "--key", 9, "--out", "nine.png")
    said(0, "export", address, "--to", "csv", "--out", "table.csv")
    assert len(Path("table.csv").read_text().splitlines()) == 23
    place_of(address).write("notes.txt", b"mine")
    assert "notes.txt' was not written by a run, so nothing is deleted" in said(2, *line, "--fresh")
    with Leases(address) as other:
        place_of(address).delete("notes.txt")
        assert other.take("000009") and "another process writes" in said(2, *line, "--fresh")
    assert relprop.open_run(address).status()["done"] == 22
    pytest.importorskip("sklearn")
    assert "spray.html" in said(0, "spray", address, "--neighbours", 4, "--size", 6, "--by", "target")
    assert Path("spray.html").is_file()


def test_texts_bring_their_vocabulary(address: str) -> None:
    pytest.importorskip("transformers")
    import text_models as tiny

    words = tiny.words()
    model = tiny.build("bert", words, id2label={0: "grain", 1: "crude"}, label2id={}).float()
    texts = [" ".join(tiny.WORDS[n : n + 3]) for n in range(6)]
    settings: dict[str, Any] = {"tokenizer": words, "batch_size": 2, "unit": 4, "progress": False}
    run = relprop.explain_dataset(texts, model, address, **settings)
    run.store.place.delete("tokens.json")
    with pytest.raises(FormatError, match=r"tokens\.json' is missing"):
        relprop.open_run(address)["0"]
    relprop.explain_dataset(texts, model, address, **settings)  # puts what the maker of the run did not
    assert relprop.open_run(address)["0"].tokens is not None


# ------------------------------------------------------------------------------------------------ who makes it


def test_ten_that_start_together_make_one_run(address: str, local: data.DatasetRun) -> None:
    failed: list[BaseException] = []

    def one(model: torch.nn.Module) -> None:
        try:
            relprop.explain_dataset(X, model, address, **SETTINGS)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=one, args=(network(),)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and objects(address) == shards(local.folder)


def test_where_two_can_make_it_the_loser_notices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an exclusive request, another process may put its description over ours at any time."""
    address = f"plain://{tmp_path.as_posix().lstrip('/')}/maps"
    real = buckets.PlainBucket._put

    def late(self: Any, part: Path, place: Path, mode: str) -> None:
        real(self, part, place, mode)
        if place.name == "run.json" and mode == "create":
            other = json.loads(place.read_text()) | {"unit": 4}
            place.write_text(json.dumps(other))

    monkeypatch.setattr(buckets.PlainBucket, "_put", late)
    with pytest.raises(InputError, match="holds a run with 4 samples per unit; this one has 8"):
        explain(address)
    run = relprop.explain_dataset(X, "buckets:network", address, batch_size=4, progress=False)
    assert run.store.size == 4 and run.status()["done"] == 22
    monkeypatch.undo()

    def over(line: str) -> None:
        if "samples/s" in line:
            place.write("run.json", json.dumps(json.loads(place.read("run.json")) | {"unit": 11}).encode())

    place = place_of(f"{address}2")
    with pytest.raises(InputError, match="holds another run by now"):
        explain(f"{address}2", said=over)
    with pytest.raises(
        FormatError, match=r"000000\.json' is damaged: it has the rows \[0, 8\], and .* \[0, 11\]: it is of another run"
    ):
        relprop.open_run(f"{address}2").keys()


def test_what_is_no_run_stays(address: str) -> None:
    place = place_of(address)
    place.write("notes.txt", b"mine")
    with pytest.raises(InputError, match="exists and is not a run"):
        explain(address)
    with pytest.raises(FormatError, match=r"is not a run: it has no run\.json"):
        relprop.open_run(address)
    assert place.names() == ["notes.txt"]


@pytest.mark.parametrize(
    ("folder", "settings", "said"),
    [
        (
            "nostore://bucket/maps",
            {},
            r"fsspec cannot open 'nostore://bucket/maps'.*: write an address such as s3://bucket/maps",
        ),
        ("memory://here/maps", {"processes": 2}, "no other process sees 'memory://here/maps': leave out processes="),
        (Path("s3:/bucket/maps"), {}, "give the address as text"),
    ],
)
def test_addresses_that_do_not_fit(folder: Any, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        relprop.explain_dataset(X, network(), folder, progress=False, **settings)


@pytest.mark.parametrize(
    ("miswritten", "address"),
    [
        ("s3//bucket/maps", "s3://bucket/maps"),
        ("s3:/bucket/maps", "s3://bucket/maps"),
        ("gs//bucket/maps", "gs://bucket/maps"),
        ("az:container/maps", "az://container/maps"),
        ("S3:/bucket/maps", "s3://bucket/maps"),
        ("memory:/maps", "memory://maps"),
    ],
)
def test_an_address_without_its_colon_or_a_slash_is_no_folder(
    miswritten: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = f"./{miswritten.partition('/')[0].partition(':')[0]}/{address.partition('://')[2]}"
    with pytest.raises(InputError) as found:
        explain(miswritten)
    assert f"write '{address}' for an address, or '{path}' for a folder" in str(found.value)
    for refused in (
        lambda: relprop.open_run(miswritten),
        lambda: data.pending(miswritten),
        lambda: explain(tmp_path / "maps").export("csv", miswritten),
    ):
        with pytest.raises(InputError, match="neither an address nor a usual path"):
            refused()
    shutil.rmtree(tmp_path / "maps")
    assert not any(tmp_path.iterdir())
    assert explain(path).folder == Path(path)
    pytest.importorskip("typer")
    from relprop.cli.app import app

    np.save("x.npy", X.numpy())
    with pytest.raises(SystemExit) as left:
        app(["run", "x.npy", "--model", "buckets:network", "--out", miswritten])
    assert left.value.code == 2 and f"write '{address}'" in " ".join(capsys.readouterr().err.split())


def test_an_address_of_this_machine_keeps_its_root(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"write 'file://{tmp_path}/maps' for an address"):
        explain(f"file:{tmp_path}/maps")
    assert place_of(f"file://{tmp_path}/maps").folder == tmp_path / "maps"
    with pytest.raises(
        InputError, match="'other:/bucket' is neither an address nor a usual path: an address has '://'"
    ):
        place_of("other:/bucket")


def test_a_store_that_refuses_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, part: Path, place: Path, mode: str) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(buckets.Bucket, "_put", refuse)
    with pytest.raises(
        InputError, match=r"the store of 'bucket://.*run\.json' refuses: PermissionError: Access Denied"
    ):
        explain(f"bucket://{tmp_path.as_posix().lstrip('/')}/maps")


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    known = fsspec.available_protocols.__globals__["known_implementations"]  # the package hides its module of that name
    monkeypatch.setitem(known, "lacking", {"class": "no_such_package.Files", "err": "Install no_such_package"})
    with pytest.raises(InputError, match=r"'lacking://bucket/maps' cannot be opened: Install no_such_package"):
        relprop.open_run("lacking://bucket/maps")


def test_an_address_of_this_machine_is_a_folder(tmp_path: Path) -> None:
    place = place_of(f"file://{tmp_path}/maps")
    assert isinstance(place, LocalPlace) and place.folder == tmp_path / "maps"


def test_leases_are_objects(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = place_of(address)
    with Leases(address) as mine, Leases(address) as other:
        assert mine.take("000001") and not other.take("000001") and other.living() == "000001"
        mine.release("000001")
        assert other.take("000001")
        told = {"host": "elsewhere", "pid": 1, "began": "1"}
        place.write("leases/000002", json.dumps(told).encode())
        assert not mine.take("000002")
        place.write("leases/000002", json.dumps({**told, "host": socket.gethostname()}).encode())
        assert mine.take("000002")  # a process of this machine that is gone
        place.write("leases/000003", json.dumps(told).encode())
        monkeypatch.setattr(type(place), "age", lambda self, name: 61.0)
        assert mine.take("000003")


# ------------------------------------------------------------------------------------------------ several processes


def run_there(address: str, processes: int, place: str = "", **environment: str) -> int:
    path = os.pathsep.join([str(TESTS), str(Path(relprop.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(TESTS / "buckets.py"), address, str(processes), place], check=False, capture_output=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment}, timeout=300,
    )  # fmt: skip
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()[-2000:]
    return done.returncode


@pytest.fixture(scope="module")
def sixty(tmp_path_factory: pytest.TempPathFactory) -> data.DatasetRun:
    arguments: Any = ARGUMENTS
    return relprop.explain_dataset(samples(), "buckets:network", tmp_path_factory.mktemp("sixty") / "maps", **arguments)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bucket", "plain"])
def test_kills_at_every_place(kind: str, tmp_path: Path, sixty: data.DatasetRun) -> None:
    address = f"{kind}://{tmp_path.as_posix().lstrip('/')}/maps"
    for place in ("made", "shard", "record"):
        assert run_there(address, 1, place) == -signal.SIGKILL
        relprop.open_run(address)  # readable at any moment
    assert run_there(address, 2) == 0
    run = relprop.open_run(address)
    assert run.keys() == sixty.keys() and not run.verify() and objects(address) == shards(sixty.folder)


# ------------------------------------------------------------------------------------------------ a server of S3


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """A server of S3's requests on this machine; its environment."""
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    pytest.importorskip("moto.server", reason="moto is not installed: pip install 'moto[s3,server]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with suppress(OSError):
                urllib.request.urlopen(f"{address}/moto-api/", timeout=5).close()
                break
            time.sleep(0.1)
        else:
            pytest.skip("the server of S3 does not start")
        yield {
            "AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
        }  # fmt: skip
    finally:
        server.kill()
        server.wait()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of the client's libraries
def test_a_server_of_s3(s3: dict[str, str], sixty: data.DatasetRun, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir("kept")
    address = f"s3://kept/{uuid.uuid4().hex}"
    place = place_of(address)
    assert place.create("once", b"a") and not place.create("once", b"b") and place.read("once") == b"a"
    place.delete("once")
    for at in ("made", "shard", "record"):
        assert run_there(address, 1, at) == -signal.SIGKILL
        relprop.open_run(address)
    assert run_there(address, 2) == 0
    run = relprop.open_run(address)
    assert run.keys() == sixty.keys() and not run.verify() and objects(address) == shards(sixty.folder)
    assert (run["42"].map == sixty["42"].map).all() and run.status()["done"] == 60
    arguments: Any = ARGUMENTS
    relprop.explain_dataset(samples(), "buckets:network", address, **{**arguments, "fresh": True, "limit": 4})
    assert relprop.open_run(address).keys() == ["0", "1", "2", "3"]
