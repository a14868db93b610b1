"""Damaged runs and hostile samples: each gets one message that says what to do."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import relprop
from relprop.errors import FormatError, InputError

pytest.importorskip("zarr")

from killed_runs import network, samples, shards
from relprop import data
from relprop.data import preparing
from test_data import small

X = samples()[:22]
SETTINGS: dict[str, Any] = {"batch_size": 4, "unit": 8, "progress": False}


def explain(source: Any, folder: Path, **settings: Any) -> data.DatasetRun:
    return relprop.explain_dataset(source, network(), folder, **{**SETTINGS, **settings})


# ------------------------------------------------------------------------------------------------ damaged runs


def missing(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def changed(path: Path) -> None:
    path.write_bytes(bytes(255 - byte for byte in path.read_bytes()))


READS: list[Callable[[Path], Any]] = [
    lambda folder: relprop.open_run(folder)["9"],
    lambda folder: relprop.open_run(folder).export("npz", folder.with_name("npz")),
]


@pytest.mark.parametrize("read", READS, ids=["one sample", "export"])
@pytest.mark.parametrize("damage", [missing, cut, changed])
def test_a_shard_that_is_not_as_it_was_written(
    tmp_path: Path, damage: Callable[[Path], None], read: Callable[[Path], Any]
) -> None:
    run = explain(X, tmp_path / "maps")
    before = shards(run.folder)
    damage(run.folder / "maps.zarr/maps/c/1/0/0")
    said = {
        missing: r"is missing. Delete .*000001\.json",
        cut: r"bytes, and \d+ were written. Delete",
        changed: "--verify",
    }
    with pytest.raises(FormatError, match=said[damage]):
        read(tmp_path / "maps")
    run.store.record_path(1).unlink()
    explain(X, tmp_path / "maps")
    read(tmp_path / "maps")
    assert shards(run.folder) == before


def test_a_record_without_its_files(tmp_path: Path) -> None:
    run = explain(X, tmp_path / "maps")
    for path in (run.folder / "maps.zarr").rglob("c"):
        for one in path.glob("2*"):
            for file in [one] if one.is_file() else [p for p in one.rglob("*") if p.is_file()]:
                file.unlink()
    assert all("is missing" in line for line in run.verify()) and len(run.verify()) == len(run.store.specs)
    for read in (lambda: relprop.open_run(run.folder).table, lambda: relprop.open_run(run.folder).keys()):
        with pytest.raises(FormatError, match=r"is missing. Delete .*000002\.json"):
            read()


def test_a_unit_that_is_done_again_meanwhile_is_no_damage(tmp_path: Path) -> None:
    run = explain(X, tmp_path / "maps")
    record = run.store.record(1)
    assert record is not None
    missing(run.folder / "maps.zarr/maps/c/1/0/0")
    run.store.record_path(1).unlink()
    assert not run.store.whole(record)


def test_a_vocabulary_is_asked_for_where_there_is_one(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"tokens\.json' is missing or damaged"):
        explain(X, tmp_path / "maps").store.vocabulary()


# ------------------------------------------------------------------------------------------------ hostile samples


def bomb(path: Path) -> None:
    """A small PNG that says that it has 3.6 thousand million pixels."""

    def part(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = part(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 1, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + part(b"IDAT", zlib.compress(b"\0" * 1000)) + part(b"IEND", b""))


def photograph(path: Path) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path.read_bytes()


def test_pictures_that_cannot_be_decoded_are_put_aside(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    content = photograph(folder / "a.jpg")
    (folder / "b.jpg").write_bytes(content[: len(content) // 2])
    bomb(folder / "c.png")
    (folder / "d.png").write_bytes(b"")
    (tmp_path / "text").write_text("not a picture")
    (folder / "e.png").symlink_to(tmp_path / "text")
    (folder / "f.png").symlink_to("nowhere")
    (folder / "g.jpg").symlink_to(folder / "a.jpg")
    (folder / "h").symlink_to(folder)  # a folder that holds itself
    run = explain(folder, tmp_path / "maps")
    assert run.keys() == ["a.jpg", "b.jpg", "c.png", "d.png", "e.png", "f.png", "g.jpg"]
    for key, said in {"b.jpg": "broken", "c.png": "pixels", "d.png": "not a picture", "e.png": "not a picture"}.items():
        assert said in run.quarantined[key]
    assert set(run.quarantined) == {"b.jpg", "c.png", "d.png", "e.png", "f.png"}
    assert (run["a.jpg"].map == run["g.jpg"].map).all()
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "maps", "text"}


def test_names_and_keys_are_never_paths_of_the_run(tmp_path: Path) -> None:
    photograph(tmp_path / "a.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "table.csv").write_text("file,id\n../a.png,../../b\n../nothing.png,/etc/passwd\n")
    run = explain(tmp_path / "in" / "table.csv", tmp_path / "maps", key="id", column="file", transform=small, max_bad=1)
    assert run.keys() == ["../../b", "/etc/passwd"] and list(run.quarantined) == ["/etc/passwd"]
    run.export("npz", tmp_path / "npz")
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "in", "maps", "npz"}
    wanted = {"maps.zarr", "units", "run.json"}
    assert {path.name for path in run.folder.iterdir()} == wanted


# ------------------------------------------------------------------------------------------------ folders


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"maps' cannot be written: .*Choose another folder"):
        explain(X, tmp_path / "file" / "maps")
    with pytest.raises(InputError, match="exists and is not a run"):
        explain(X, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(InputError, match="cannot be written"):
        explain(X, tmp_path / "closed" / "maps")


def test_a_unit_that_no_memory_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"1,000,000,000,000 samples of \d+ bytes are more than .*unit=4096") as found:
        explain(X, tmp_path / "maps", unit=10**12)
    assert not (tmp_path / "maps").exists()
    advised = str(found.value).rpartition("unit=")[2].rstrip(".")
    run = explain(X, tmp_path / "maps", unit=int(advised) // 128)
    monkeypatch.setattr(preparing, "memory_of_machine", lambda: 1000)
    with pytest.raises(InputError, match="are more than the 1,000 of this machine"):
        explain(X, run.folder, unit=32)
    monkeypatch.setattr(preparing, "memory_of_machine", lambda: None)
    assert explain(X, run.folder, unit=32).status()["done"] == 22


@pytest.mark.parametrize("settings", [{"gpus": 0.5}, {"gpus": -1, "engine": "ray"}, {"gpus": "all", "engine": "ray"}])
def test_gpus_are_those_of_actors_of_ray(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"gpus= is the part of a GPU for each actor of engine='ray', such as 0\.5"):
        explain(X, tmp_path / "maps", **settings)


def test_no_reason_ends_twice(tmp_path: Path) -> None:
    broken = X.clone()
    broken[3] = float("nan")
    with pytest.raises(InputError, match=r"'3' has no map: it has entries that are NaN or infinite\.$"):
        explain(broken, tmp_path / "maps")["3"].relevance()
    np.save(tmp_path / "one.npy", np.zeros(5))
    with pytest.raises(InputError, match=r"got the shape \(5,\)\.$"):
        explain(tmp_path / "one.npy", tmp_path / "one")


def test_float16_without_a_scale_is_not_offered(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="float16 and int8 have a scale for each map"):
        explain(X, tmp_path / "maps", number_format="half")
