"""Exports of a run: each format holds what the run holds, continues where it was stopped, and is never another thing's end."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import relprop
from relprop.errors import InputError

pytest.importorskip("zarr")

from killed_runs import network
from relprop import data

X = torch.randn(22, 3, 12, 12, generator=torch.Generator().manual_seed(1))
X[9] = float("nan")


def explained(folder: Path, **settings: Any) -> data.DatasetRun:
    keep = {"input": "sum", "0": "channels", "1": "top:3"}
    settings = {"batch_size": 4, "unit": 8, "progress": False, "keep": keep, **settings}
    return relprop.explain_dataset(X, network(), folder, **settings)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> data.DatasetRun:
    return explained(tmp_path_factory.mktemp("run") / "maps")


def same(run: data.DatasetRun, key: str, found: dict[str, Any]) -> None:
    """Whether a row of an export is that sample."""
    one = run[key]
    if one.status == "quarantined":
        assert found["reason"] == one.reason
        return
    assert found["target"] == one.target
    assert (np.asarray(found["maps"], np.float32).reshape(12, 12) == one.map).all()
    assert found["score"] == one.score and found["residual"] == one.residual
    for name, values in one.layers.items():
        assert (np.asarray(found[name]).reshape(values.shape) == values).all()


def test_parquet(run: data.DatasetRun, tmp_path: Path) -> None:
    dataset = pytest.importorskip("pyarrow.dataset")
    out = run.export("parquet", tmp_path / "out")
    rows = dataset.dataset(out).to_table().to_pylist()
    assert [row["key"] for row in rows] == run.keys()
    for row in rows:
        same(run, row["key"], row)
    assert rows[9]["maps"] is None and rows[9]["status"] == "quarantined"
    field = dataset.dataset(out).schema.field("maps")
    assert json.loads(field.metadata[b"shape"]) == [12, 12]
    pandas = pytest.importorskip("pandas")
    assert len(pandas.read_parquet(out)) == 22


def test_hdf5(run: data.DatasetRun, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    out = run.export("hdf5", tmp_path / "maps.h5")
    with h5py.File(out) as file:
        assert [key.decode() for key in file["key"][:]] == run.keys()
        for n, key in enumerate(run.keys()):
            row = {name: file[name][n] for name in file if name not in ("key", "reason")}
            same(run, key, row | {"reason": file["reason"][n].decode()})
        assert np.isnan(file["score"][9]) and file["status"][9] == 2
    before = out.stat().st_mtime_ns
    run.export("hdf5", out)
    assert out.stat().st_mtime_ns == before


def test_npz(run: data.DatasetRun, tmp_path: Path) -> None:
    out = run.export("npz", tmp_path / "out")
    found = []
    for path in sorted(out.glob("*.npz")):
        with np.load(path) as file:
            for n, key in enumerate(file["key"]):
                found.append(str(key))
                same(run, str(key), {name: file[name][n] for name in file.files})
    assert found == run.keys()


def test_csv(run: data.DatasetRun, tmp_path: Path) -> None:
    out = run.export("csv", tmp_path / "table.csv")
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows] == run.keys()
    for row in rows:
        one = run[row["key"]]
        assert row["status"] == one.status and row["reason"] == (one.reason or "")
        if one.status == "explained":
            assert float(row["score"]) == one.score and int(row["target"]) == one.target


def test_hugging_face(run: data.DatasetRun, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    out = run.export("hf", tmp_path / "out")
    found = datasets.load_from_disk(str(out))
    assert found["key"][:] == run.keys()
    assert found.features["maps"].shape == (12, 12)
    for row in found:
        same(run, row["key"], row)


def test_xarray(run: data.DatasetRun) -> None:
    pytest.importorskip("xarray")
    pytest.importorskip("dask.array")
    found = run.to_xarray()
    assert found.maps.dims == ("sample", "height", "width")
    assert found["layers.0"].sizes["layers.0: axis 0"] == 4
    one = found.sel(sample="7")
    assert (one.maps.values == run["7"].map).all() and float(one.score) == run["7"].score
    assert float(found.maps.sel(sample=["0", "3"]).sum()) == pytest.approx(
        sum(float(run[key].map.sum()) for key in "03"), rel=1e-5
    )


@pytest.mark.parametrize("form", ["int8", "float32"])
def test_every_number_format_is_decoded(tmp_path: Path, form: str) -> None:
    run = explained(tmp_path / "maps", number_format=form)
    out = run.export("npz", tmp_path / "out")
    with np.load(out / "unit-000002.npz") as file:
        assert file["maps"].dtype == np.float32
        same(run, "17", {name: file[name][1] for name in file.files})
    pytest.importorskip("xarray")
    pytest.importorskip("dask.array")
    assert np.allclose(run.to_xarray().maps.sel(sample="17").values, run["17"].map, rtol=1e-6, atol=0)


@pytest.mark.parametrize("to", ["parquet", "npz", "hf"])
def test_a_folder_gets_the_units_that_are_missing_and_those_that_were_done_again(tmp_path: Path, to: str) -> None:
    pytest.importorskip({"parquet": "pyarrow", "hf": "datasets"}.get(to, "numpy"))
    explained(tmp_path / "maps", part="1/2")
    run = relprop.open_run(tmp_path / "maps")
    out = run.export(to, tmp_path / "out")
    marks = {path.name: path.stat().st_mtime_ns for path in (out / ".relprop").iterdir()}
    assert sorted(marks) == ["000000", "000002", "export.json"]
    explained(tmp_path / "maps")
    (out / ".relprop" / "000002").write_text("another content")
    run.export(to, out)
    now = {path.name: path.stat().st_mtime_ns for path in (out / ".relprop").iterdir()}
    assert {name for name in now if now[name] != marks.get(name)} == {"000001", "000002"}
    with pytest.raises(InputError, match="another export"):
        explained(tmp_path / "other", target=0).export(to, out)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers of CPU time")
def test_an_export_that_is_killed_goes_on(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    run = explained(tmp_path / "maps", unit=1, batch_size=1, keep={"input": "sum"})
    program = """
import os, signal, sys
import relprop.data.exports, h5py, torch.fx.experimental.symbolic_shapes, zarr
run = relprop.open_run(sys.argv[1])
for seconds in (0.02, 0.05, 0):
    for to in ("hdf5", "npz"):
        child = os.fork()
        if child == 0:
            signal.setitimer(signal.ITIMER_PROF, seconds)
            run.export(to, f"{sys.argv[2]}.{to}")
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, run.folder, tmp_path / "out"], capture_output=True, text=True, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    codes = [int(line) for line in done.stdout.split()]
    assert codes[0] == codes[1] == -signal.SIGPROF and codes[-2:] == [0, 0]
    with h5py.File(tmp_path / "out.hdf5") as a, h5py.File(run.export("hdf5", tmp_path / "whole.h5")) as b:
        assert set(a) == set(b)
        assert all((a[name][:] == b[name][:]).all() for name in ("maps", "key", "status", "top.index"))
    for path in run.export("npz", tmp_path / "whole").glob("*.npz"):
        with np.load(path) as a, np.load(tmp_path / "out.npz" / path.name) as b:
            assert all((a[name] == b[name])[a["status"] == 1].all() for name in a.files)


@pytest.mark.parametrize(
    ("to", "settings", "said"),
    [
        ("xml", {}, "an export is to parquet"),
        ("npz", {"source": X}, "source= is for exports to virelay"),
        ("virelay", {}, "pass source="),
    ],
)
def test_what_does_not_fit_is_said(
    run: data.DatasetRun, tmp_path: Path, to: str, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        run.export(to, tmp_path / "out", **settings)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("to", ["parquet", "npz", "hdf5", "csv", "hf"])
def test_what_is_there_already_stays(run: data.DatasetRun, tmp_path: Path, to: str) -> None:
    pytest.importorskip({"hdf5": "h5py", "parquet": "pyarrow", "hf": "datasets"}.get(to, "numpy"))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for place in ("notes", "file"):
        with pytest.raises(InputError, match=r"choose another (name|folder)"):
            run.export(to, tmp_path / place)
    assert (tmp_path / "notes" / "diary.txt").read_text() == (tmp_path / "file").read_text() == "mine"


def test_a_run_without_a_unit_has_nothing_to_export(tmp_path: Path) -> None:
    run = explained(tmp_path / "maps", units=[])
    with pytest.raises(InputError, match="nothing to export"):
        run.export("csv", tmp_path / "x.csv")


# ------------------------------------------------------------------------------------------------ ViRelAy


def test_virelay_opens_its_project(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    pytest.importorskip("sklearn")
    virelay = pytest.importorskip("virelay.model", reason="virelay is not installed: pip install --no-deps virelay")
    server = pytest.importorskip("virelay.server")
    run = explained(tmp_path / "maps", target=[n % 2 for n in range(22)])
    spray = run.spray(by="target", neighbours=2, size=4, view="tsne")
    out = run.export("virelay", tmp_path / "out", source=X, spray=spray)
    workspace = virelay.Workspace()
    workspace.add_project(str(out / "project.yaml"))
    project = workspace.get_project("maps")
    assert len(project.dataset) == 22
    for n in (0, 5, 21):
        shown = project.get_attribution(n)
        assert np.allclose(shown.data.sum(2), run[str(n)].map, atol=1e-6)
        assert [label.name for label in shown.labels] == [f"class {n % 2}"]
        pixels = project.get_sample(n).data
        assert pixels.shape == (12, 12, 3) and pixels.dtype == np.uint8
        stretched = (X[n] - X[n].min()) / (X[n].max() - X[n].min()) * 255
        assert np.abs(pixels - stretched.permute(1, 2, 0).numpy()).max() <= 0.51
    assert project.get_analysis_methods() == ["SpRAy"]
    names = [category.name for category in project.get_analysis_categories("SpRAy")]
    assert sorted(names) == ["class-0", "class-1"]
    for one in spray:
        name = f"class-{one.target}"
        assert set(project.get_analysis_embedding_names("SpRAy")) == {"spectral", "view"}
        shown = project.get_analysis("SpRAy", name, "spray", "view")
        assert (shown.clustering == one.clusters).all() and [str(n) for n in shown.attribution_indices] == one.keys
    client = server.Server(workspace).app.test_client()
    assert client.get("/api/projects/0").json["name"] == "maps"
    for colours in ("blue-white-red", "gray-red", "black-fire-red"):
        for over in ("True", "False"):
            page = client.get(f"/api/projects/0/attributions/3/heatmap?colorMap={colours}&superimpose={over}")
            assert page.status_code == 200 and page.content_type.startswith("image/")
    shown = client.get("/api/projects/0/analyses/SpRAy?category=class-0&clustering=spray&embedding=spectral")
    assert shown.status_code == 200 and len(json.loads(shown.data)["embedding"]) == 11
    workspace.close()


@pytest.mark.slow
def test_virelay_shows_it_in_a_browser(run: data.DatasetRun, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    pytest.importorskip("sklearn")
    model = pytest.importorskip("virelay.model", reason="virelay is not installed: pip install --no-deps virelay")
    serving = pytest.importorskip("werkzeug.serving")
    from virelay.server import Server

    from chromium import PROGRAM, Chromium

    if PROGRAM is None:
        pytest.skip("no Chromium is installed")
    out = run.export("virelay", tmp_path / "out", source=X, spray=run.spray(by=["a"] * 22, neighbours=2, size=4))
    workspace = model.Workspace()
    workspace.add_project(str(out / "project.yaml"))
    server = serving.make_server("127.0.0.1", 0, Server(workspace).app)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with Chromium() as browser:
            seen, _ = browser.visit(
                f"http://127.0.0.1:{server.server_port}/", "document.body.innerText.includes('CLUSTER 2')"
            )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        workspace.close()
    assert "CLUSTER 2" in seen.text and "class-a" in seen.text and "spectral" in seen.text
