"""Descriptions that are damaged or hostile: run.json, records, and those of arrays. Each gets one message, and nothing hangs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import relprop
from relprop.errors import FormatError, InputError

pytest.importorskip("zarr")

from killed_runs import network, samples, shards
from relprop import data

X = samples()[:22]
SETTINGS: dict[str, Any] = {"batch_size": 4, "unit": 8, "progress": False}
DEEP = "[" * 100_000


def explain(folder: Path, **settings: Any) -> data.DatasetRun:
    return relprop.explain_dataset(X, network(), folder, **{**SETTINGS, **settings})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(explain(tmp_path_factory.mktemp("whole") / "maps").folder)


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "maps"))


def array(about: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return {"arrays": [{**about["arrays"][0], **changed}, *about["arrays"][1:]]}


CHANGES: list[tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = [
    (lambda about: {"unit": -1}, "its unit is -1"),
    (lambda about: {"unit": 0}, "its unit is 0"),
    (lambda about: {"unit": True}, "its unit is True"),
    (lambda about: {"unit": "8"}, "its unit is '8'"),
    (lambda about: {"lengths": 22}, "its lengths are 22"),
    (lambda about: {"lengths": [-22]}, "its lengths are"),
    (lambda about: {"lengths": [10**18]}, "its lengths are"),
    (lambda about: {"arrays": {}}, "its arrays are no list"),
    (lambda about: {"arrays": []}, "it has no array 'target'"),
    (lambda about: {"arrays": [1, *about["arrays"]]}, "one of its arrays is 1"),
    (lambda about: {"arrays": about["arrays"] * 2}, "one of its arrays is"),
    (lambda about: array(about, name="../../x"), "one of its arrays is"),
    (lambda about: array(about, name=".."), "one of its arrays is"),
    (lambda about: array(about, shape=[-1, 2]), "one of its arrays is"),
    (lambda about: array(about, shape=[10**9]), "one of its arrays is"),
    (lambda about: array(about, dtype="object"), "one of its arrays is"),
    (lambda about: array(about, axes=[1, 2]), "one of its arrays is"),
    (lambda about: {"fingerprint": []}, "its fingerprint is no object"),
]


@pytest.mark.parametrize(("change", "said"), CHANGES)
def test_a_description_that_cannot_be(
    folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]], said: str
) -> None:
    about = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**about, **change(about)}))
    for read in (relprop.open_run, data.pending, explain):
        with pytest.raises(FormatError, match=rf"run\.json' is damaged: {said}"):
            read(folder)


def test_a_description_that_is_no_file_or_nested_too_deeply(folder: Path) -> None:
    (folder / "run.json").write_text(DEEP)
    with pytest.raises(FormatError, match=r"run\.json' is damaged: maximum recursion"):
        relprop.open_run(folder)
    (folder / "run.json").unlink()
    (folder / "run.json").mkdir()
    with pytest.raises(FormatError, match=r"run\.json' is damaged"):
        relprop.open_run(folder)


RECORDS: list[tuple[dict[str, Any], str]] = [
    ({"rows": [8]}, r"its rows are \[8\]"),
    ({"rows": [0, 8]}, r"it has the rows \[0, 8\], and its unit \[8, 16\]"),
    ({"keys": "abcdefgh"}, "its keys are no list of texts"),
    ({"keys": [1] * 8}, "its keys are no list of texts"),
    ({"keys": ["8", "9", "10"]}, "it has 3 different keys for 8 rows"),
    ({"keys": ["9"] * 8}, "it has 1 different keys for 8 rows"),
    ({"quarantined": ["9"]}, "its quarantined samples are no reasons by key"),
    ({"quarantined": {"9": 1}}, "its quarantined samples are no reasons by key"),
    ({"files": []}, "its files are no sizes by name"),
    ({"files": {"maps.zarr/maps/c/1/0/0": 5}}, "its files are no sizes by name"),
    ({"files": {"../../x.npy": {"bytes": 9, "sha256": ""}}}, r"'../../x.npy' is not a path inside the run"),
    ({"files": {"/etc/passwd": {"bytes": 9, "sha256": ""}}}, "'/etc/passwd' is not a path inside the run"),
]


@pytest.mark.parametrize(("change", "said"), [*RECORDS, (None, "maximum recursion")])
def test_a_record_that_cannot_be(folder: Path, change: dict[str, Any] | None, said: str, whole: Path) -> None:
    path = folder / "units" / "000001.json"
    path.write_text(DEEP if change is None else json.dumps({**json.loads(path.read_text()), **change}))
    for read in (lambda run: run["9"], lambda run: run.status(), lambda run: run.quarantined, lambda run: run.keys()):
        with pytest.raises(
            FormatError, match=rf"000001\.json' is damaged: {said}.*Delete it, and the unit is done again"
        ):
            read(relprop.open_run(folder))
    assert relprop.open_run(folder).verify() == ["units/000001.json: is damaged"]
    path.unlink()
    assert not explain(folder).verify() and shards(folder) == shards(whole)


def test_a_record_that_is_a_folder(folder: Path) -> None:
    (folder / "units" / "000001.json").unlink()
    (folder / "units" / "000001.json").mkdir()
    with pytest.raises(FormatError, match=r"000001\.json' is damaged"):
        relprop.open_run(folder).status()


def changed(path: Path) -> None:
    about = json.loads(path.read_text())
    about["shape"] = [24, 5, 5]
    path.write_text(json.dumps(about))


@pytest.mark.parametrize(
    "damage",
    [lambda path: path.unlink(), lambda path: path.write_text("{}"), lambda path: path.write_text(DEEP), changed],
    ids=["missing", "empty", "deep", "another shape"],
)
def test_the_description_of_an_array(folder: Path, damage: Callable[[Path], Any], whole: Path, tmp_path: Path) -> None:
    path = folder / "maps.zarr" / "maps" / "zarr.json"
    damage(path)
    assert relprop.open_run(folder).verify() == ["maps.zarr/maps/zarr.json: is missing or damaged"]
    for read in (lambda run: run["9"], lambda run: run.export("npz", tmp_path / "npz"), lambda run: run.maps):
        with pytest.raises(FormatError, match=r"maps/zarr\.json' is missing or damaged .*Delete it, and the same call"):
            read(relprop.open_run(folder))
    path.unlink(missing_ok=True)
    run = explain(folder)
    assert not run.verify() and shards(folder) == shards(whole) and run["9"].map is not None


def test_all_arrays_are_deleted(folder: Path, whole: Path) -> None:
    shutil.rmtree(folder / "maps.zarr")
    run = relprop.open_run(folder)
    with pytest.raises(FormatError, match="is missing"):
        run.keys()
    for path in (folder / "units").iterdir():
        path.unlink()
    assert not explain(folder).verify() and shards(folder) == shards(whole)


@pytest.mark.parametrize(("name", "said"), [("a" * 300, "File name too long"), ("a\0b", "embedded null")])
def test_a_name_that_no_folder_has(tmp_path: Path, name: str, said: str) -> None:
    for use in (explain, relprop.open_run, data.pending):
        with pytest.raises(InputError, match=f"cannot be a folder: .*{said}"):
            use(Path(f"{tmp_path}/{name}"))


def test_a_link_to_itself(tmp_path: Path) -> None:
    os.symlink(tmp_path / "loop", tmp_path / "loop")
    with pytest.raises(InputError, match="cannot be a folder: Too many levels of symbolic links"):
        explain(tmp_path / "loop")
