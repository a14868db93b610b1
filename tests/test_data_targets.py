"""Several targets for each sample, the largest outputs, and the causes of residuals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import relprop
from relprop.errors import InputError, TargetError

pytest.importorskip("zarr")

from killed_runs import network, samples
from relprop import data

X = samples()[:11]
LABELS = torch.arange(11) % 3


def explain(folder: Path, model: Any = None, source: Any = X, **settings: Any) -> data.DatasetRun:
    settings = {"batch_size": 4, "unit": 8, "progress": False, **settings}
    return relprop.explain_dataset(source, model or network(), folder, **settings)


@pytest.mark.parametrize("form", ["float16", "float32", "int8"])
def test_an_axis_of_targets(tmp_path: Path, form: str) -> None:
    asked = [None, 2, relprop.Contrast(0, 1), LABELS.tolist()]
    keep = {"input": "sum", "0": "channels", "2": "top:2"}
    run = explain(tmp_path / "maps", targets=asked, keep=keep, number_format=form)
    right = [relprop.attribute(network(), X, target, layers=["0"]) for target in asked]
    error = {"float16": 1e-3, "float32": 1e-5, "int8": 2e-2}[form]
    assert run.targets == 4 and run.maps.shape[1:] == (4, 12, 12) and run.table["score"].shape == (11, 4)
    assert json.loads((run.folder / "run.json").read_text())["version"] == 2
    for n in range(11):
        one = run[str(n)]
        for k, expected in enumerate(right):
            values = expected.values[n].sum(0).numpy()
            assert np.linalg.norm(one.map[k] - values) <= error * np.linalg.norm(values)
            channels = expected.layers["0"][n].sum((1, 2)).numpy()
            assert np.linalg.norm(one.layers["layers.0"][k] - channels) <= 2 * error * np.linalg.norm(channels)
            assert one.score[k] == pytest.approx(float(expected.score[n]), abs=1e-6)
        assert one.target.tolist() == [int(right[0].target[n]), 2, -1, n % 3]
        assert one.layers["layers.2.index"].shape == (4, 2)
    drawn = run["3"].relevance(which=3)
    assert drawn.target == [0] and float(drawn.score) == pytest.approx(float(right[3].score[3]), abs=1e-6)
    with pytest.raises(InputError, match="number of a target, 0 to 3"):
        run["3"].relevance(which=4)


def test_top(tmp_path: Path) -> None:
    run = explain(tmp_path / "maps", target="top:2", number_format="float32", keep={"input": "full"})
    output = network()(X)
    order = output.argsort(dim=1, descending=True)[:, :2]
    right = [relprop.attribute(network(), X, order[:, k]) for k in range(2)]
    assert run.table["target"].tolist() == order.tolist()
    for n in range(11):
        for k in range(2):
            assert np.allclose(run[str(n)].map[k], right[k].values[n], atol=1e-6)
    with pytest.raises(InputError, match="whose target is 'top:2'; this one has 'top:3'"):
        explain(tmp_path / "maps", target="top:3", number_format="float32", keep={"input": "full"})


def test_targets_by_columns(tmp_path: Path) -> None:
    run = explain(tmp_path / "maps", source=TensorDataset(X, LABELS), targets=["label", 0])
    assert run.table["target"].tolist() == [[n % 3, 0] for n in range(11)]
    parts = explain(tmp_path / "parts", source=TensorDataset(X, LABELS), targets=["label", 0], part="2/2", loaders=2)
    explain(tmp_path / "parts", source=TensorDataset(X, LABELS), targets=["label", 0])
    assert (parts.maps[:] == run.maps[:]).all() and (parts.scales[:] == run.scales[:]).all()


@pytest.mark.parametrize(
    ("settings", "kind", "said"),
    [
        ({"target": 0, "targets": [1]}, InputError, "pass one of them"),
        ({"targets": 1}, InputError, "targets= is a list"),
        ({"targets": []}, InputError, "targets= is a list"),
        ({"targets": [0, [1, 2]]}, InputError, "has 2 targets, and the source 11"),
        ({"target": "top:0"}, InputError, "positive number K"),
        ({"target": "top:4"}, TargetError, "has 3 outputs"),
        ({"target": "top:2", "model": nn.Sequential(nn.Conv2d(3, 2, 3))}, TargetError, "the model's output has shape"),
    ],
)
def test_targets_that_do_not_fit(tmp_path: Path, settings: dict[str, Any], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        explain(tmp_path / "maps", **settings)
    assert not list(tmp_path.iterdir())


def test_what_absorbed_the_residual(tmp_path: Path) -> None:
    run = explain(tmp_path / "maps", ledger=True, composite="epsilon")
    right = relprop.attribute(network(), X, composite="epsilon", ledger=True)
    for n in range(11):
        causes = run[str(n)].ledger
        assert causes == pytest.approx({name: float(part[n]) for name, part in right.ledger.items()}, abs=1e-5)
        assert sum(causes.values()) == pytest.approx(run[str(n)].residual, abs=1e-5)
    several = explain(tmp_path / "several", ledger=True, composite="epsilon", targets=[0, 1])
    for causes, residual in [(several["4"].ledger, several["4"].residual)]:
        assert np.allclose(sum(causes.values()), residual, atol=1e-5)
    assert explain(tmp_path / "without")["0"].ledger is None
    with pytest.raises(InputError, match="whose ledger is True"):
        explain(tmp_path / "maps", composite="epsilon")


def test_the_page_says_that_it_shows_one_target(tmp_path: Path) -> None:
    from relprop.web.runs import BrowsedRun

    explain(tmp_path / "maps", targets=[0, 1])
    with pytest.raises(InputError, match="with one target per sample"):
        BrowsedRun(tmp_path / "maps")


def test_the_command_takes_several_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("typer")
    from relprop.cli.app import app

    np.save(tmp_path / "x.npy", X.numpy())
    line = ["run", str(tmp_path / "x.npy"), "--model", "killed_runs:network", "--batch-size", "4", "--ledger"]
    for folder, targets, expected in (("a", ["1", "0"], [1, 0]), ("b", ["top:3"], None)):
        asked = [word for target in targets for word in ("--target", target)]
        with pytest.raises(SystemExit) as left:
            app([*line, *asked, "--out", str(tmp_path / folder)])
        assert left.value.code == 0, capsys.readouterr().err
        run = relprop.open_run(tmp_path / folder)
        assert run.targets == len(expected or range(3)) and run["3"].ledger
        assert expected is None or run.table["target"][0].tolist() == expected


def test_exports_and_strategies_of_several_targets(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    pandas = pytest.importorskip("pandas")
    run = explain(tmp_path / "maps", targets=[0, 2], source=samples(), keep={"input": "sum", "0": "channels"})
    one = explain(tmp_path / "one", target=2, source=samples(), keep={"input": "sum", "0": "channels"})
    for on in (None, "0"):
        found, right = run.spray(by="target", which=1, neighbours=4, on=on), one.spray(by="target", neighbours=4, on=on)
        assert found[0].target == 2 and found[0].sizes == right[0].sizes
        assert (found[0].clusters == right[0].clusters).all()
    found.save(tmp_path / "spray.html")
    right.save(tmp_path / "other.html")
    assert (tmp_path / "spray.html").read_text() == (tmp_path / "other.html").read_text()
    run.export("csv", tmp_path / "table.csv")
    table = pandas.read_csv(tmp_path / "table.csv", dtype={"key": str})
    assert table["which"].tolist() == [0, 1] * 60 and table["target"].tolist() == [0, 2] * 60
    frame = run.to_pandas()
    assert np.allclose(frame["score"], table["score"]) and frame["which"].tolist() == [0, 1] * 60
    run.export("npz", tmp_path / "npz")
    with np.load(tmp_path / "npz" / "unit-000000.npz") as unit:
        assert unit["maps"].shape == (8, 2, 12, 12)
        assert np.allclose(unit["maps"][3], run["3"].map)
    with pytest.raises(InputError, match="one target per sample"):
        run.export("virelay", tmp_path / "virelay", source=samples())
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("dask")
    assert isinstance(labelled := run.to_xarray(), xarray.Dataset)
    assert np.allclose(labelled["maps"].sel(sample="3"), run["3"].map)
    if pytest.importorskip("pyarrow"):
        run.export("parquet", tmp_path / "parquet")
