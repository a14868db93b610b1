"""Runs over data sets: each sample once, whatever happens, in a folder that other programs read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import relprop
from relprop.errors import CompositeError, FormatError, InputError, ModelStateError, UnsupportedOperationError

pytest.importorskip("zarr")

from relprop import data
from relprop.data import sample_job
from relprop.data.keep import decode, encode, of_input
from relprop.data.store import NO_SAMPLE, NOT_YET


def network(outputs: int = 3) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, outputs)
    return nn.Sequential(*layers).eval()


def factory() -> nn.Module:
    return network()


X = torch.randn(22, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def explain(source: Any, folder: Path, model: Any = None, **settings: Any) -> data.DatasetRun:
    return relprop.explain_dataset(
        source, model or network(), folder, **{"batch_size": 4, "unit": 8, "progress": False, **settings}
    )


def shards(folder: Path) -> dict[str, bytes]:
    found = (path for path in (folder / "maps.zarr").rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


# ------------------------------------------------------------------------------------------------ what is stored


def test_a_number_is_no_key(tmp_path: Path) -> None:
    run = explain(X[:4], tmp_path / "maps")
    with pytest.raises(InputError, match=r"write run\['3'\]") as caught:
        run[3]
    assert eval(str(caught.value).rpartition("write ")[2].removesuffix("."), {"run": run}).key == "3"


@pytest.mark.parametrize("target", [None, 1, list(range(3)) * 7 + [0], relprop.Contrast(0, 1)])
def test_a_run_holds_what_attribute_gives(tmp_path: Path, target: Any) -> None:
    run = explain(X, tmp_path / "maps", target=target, number_format="float32", keep={"input": "full", "0": "channels"})
    expected = relprop.attribute(network(), X, target, layers=["0"])
    scale = float(expected.values.abs().max())
    for n in range(len(X)):
        one = run[str(n)]
        assert one.status == "explained" and one.reason is None
        assert np.abs(one.map - expected.values[n].numpy()).max() < 1e-5 * scale
        assert np.abs(one.layers["layers.0"] - expected.layers["0"][n].sum((1, 2)).numpy()).max() < 1e-4 * scale
        assert one.score == pytest.approx(float(expected.score[n]), abs=1e-6)
        assert one.residual == pytest.approx(float(expected.residual[n]), abs=1e-5)
    if target is None:
        assert run.table["target"].tolist() == list(expected.target)
    assert list(run.table["key"]) == [str(n) for n in range(22)]


@pytest.mark.parametrize(("form", "error"), [("float16", 3e-4), ("float32", 0.0), ("int8", 2e-2)])
def test_the_error_of_what_is_stored(form: str, error: float) -> None:
    maps = (np.random.default_rng(0).laplace(size=(5, 64, 64)) * 1e-9).astype(np.float32)
    stored, scale = encode(maps, form)
    found = decode(stored, scale, form)
    size = np.linalg.norm(maps.reshape(5, -1), axis=1)
    assert (np.linalg.norm((found - maps).reshape(5, -1), axis=1) <= error * size).all()
    if form == "float16":
        flushed = np.abs(maps[found == 0])
        assert not flushed.size or flushed.max() <= 1e-7 * np.abs(maps).max()


def test_a_map_of_zeros_is_stored() -> None:
    for form in ("float16", "int8"):
        assert not decode(*encode(np.zeros((2, 3, 3), np.float32), form), form).any()


@pytest.mark.parametrize("size", [28, 30, 7])
def test_sums_of_blocks_keep_the_total(size: int) -> None:
    values = torch.randn(2, 3, size, size, dtype=torch.float64)
    blocks = of_input(values, "sum:7")
    assert blocks.shape == (2, 7, 7)
    assert torch.allclose(blocks.sum((1, 2)), values.sum((1, 2, 3)))
    edges = [n * size // 7 for n in range(8)]
    naive = values[1, :, edges[2] : edges[3], edges[5] : edges[6]].sum()
    assert blocks[1, 2, 5] == pytest.approx(float(naive))


def test_layers_by_their_largest_units_and_by_a_function(tmp_path: Path) -> None:
    run = explain(X[:5], tmp_path / "top", keep={"input": "none", "0": "top:3"}, number_format="float32")
    relevance = relprop.attribute(network(), X[:5], layers=["0"]).layers["0"].flatten(1)
    for n in range(5):
        index, value = run[str(n)].layers["layers.0.index"], run[str(n)].layers["layers.0.value"]
        assert set(index) == set(relevance[n].abs().topk(3).indices.tolist())
        assert np.allclose(value, relevance[n][torch.from_numpy(index)], rtol=1e-4)
    assert run["0"].map is None
    run = explain(X[:5], tmp_path / "function", keep={"0": spread}, number_format="float32")
    assert run["2"].layers["layers.0"].shape == (4,)


def spread(relevance: Tensor) -> Tensor:
    return relevance.flatten(2).abs().sum(2)


def test_status_alone_tells_rows_apart(tmp_path: Path) -> None:
    broken = X.clone()
    broken[9, 0, 0, 0] = float("nan")
    run = explain(broken, tmp_path / "maps", part="2/3")
    assert run.keys() == [str(n) for n in range(8, 16)]
    status = run.store.array("status")[:].tolist()
    assert status == [NOT_YET] * 8 + [1, 2] + [1] * 6 + [NOT_YET] * 8
    explain(broken, tmp_path / "maps")
    assert run.store.array("status")[:].tolist() == [1] * 9 + [2] + [1] * 12 + [NO_SAMPLE] * 2
    assert run.status()["done"] == 22 and len(run) == 22


def test_a_sample_can_be_drawn(tmp_path: Path) -> None:
    run = explain(X[:3], tmp_path / "maps")
    run["1"].relevance().save(tmp_path / "one.png")
    with Image.open(tmp_path / "one.png") as drawn:
        assert drawn.size[0] > 0


# ------------------------------------------------------------------------------------------------ sources


def photographs(folder: Path) -> Path:
    for n, name in enumerate(["b.png", "a.png", "inside/c.png"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 30, 3), 60 * n, np.uint8)).save(folder / name)
    return folder


def test_a_folder_is_read_recursively_in_order(tmp_path: Path) -> None:
    run = explain(photographs(tmp_path / "photos"), tmp_path / "maps", loaders=2)
    assert run.keys() == ["a.png", "b.png", "inside/c.png"]
    assert run["inside/c.png"].map.shape == (224, 224)


def test_a_truncated_picture_is_put_aside_and_its_mates_are_not_changed(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "photos")
    good = explain(folder, tmp_path / "good")
    content = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(content[: len(content) // 2])
    (folder / "inside" / "c.png").write_bytes(b"")
    run = explain(folder, tmp_path / "maps")
    assert set(run.quarantined) == {"b.png", "inside/c.png"}
    assert run["b.png"].status == "quarantined" and run["b.png"].reason
    assert (run["a.png"].map == good["a.png"].map).all()
    with pytest.raises(InputError, match="has no map"):
        run["b.png"].relevance()


def test_transform_replaces_the_preprocessing(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "photos")
    run = explain(folder, tmp_path / "maps", transform=small)
    assert run["a.png"].map.shape == (10, 8)
    with pytest.raises(InputError, match="whose transform is"):
        explain(folder, tmp_path / "maps")


def small(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image.resize((8, 10)), np.float32)).permute(2, 0, 1) / 255


class Labelled(Dataset):
    def __len__(self) -> int:
        return 9

    def __getitem__(self, n: int) -> tuple[Tensor, int]:
        return X[n], 7 if n == 4 else n % 3


def test_labels_of_the_source_are_targets_and_one_out_of_range_is_put_aside(tmp_path: Path) -> None:
    run = explain(Labelled(), tmp_path / "maps", target="label", key=lambda n: f"sample {n}")
    assert run.table["target"].tolist() == [0, 1, 2, 0, -1, 2, 0, 1, 2]
    assert list(run.quarantined) == ["sample 4"]
    assert "out of range" in run.quarantined["sample 4"]


def test_a_loader_stands_for_its_data_set(tmp_path: Path) -> None:
    labels = torch.arange(22) % 3
    run = explain(DataLoader(TensorDataset(X, labels), batch_size=5), tmp_path / "maps", target="label")
    assert run.table["target"].tolist() == labels.tolist()
    with pytest.raises(InputError, match="RandomSampler"):
        explain(DataLoader(TensorDataset(X, labels), shuffle=True), tmp_path / "other")


def test_an_array_on_disk(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X.numpy())
    assert (
        explain(tmp_path / "x.npy", tmp_path / "a").table["score"].tolist()
        == explain(X, tmp_path / "b").table["score"].tolist()
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"source": []}, "the source list is empty"),
        ({"source": torch.zeros(0, 3, 4, 4)}, "is empty"),
        ({"source": 7}, "a source is a folder"),
        ({"source": "nowhere/"}, "no file or folder"),
        ({"key": ["same"] * 22}, "keys must differ, and these stand for several samples: 'same'"),
        ({"key": ["one"]}, "1 keys, and the source 22"),
        ({"target": [0]}, "1 targets, and the source 22"),
        ({"number_format": "half"}, "number_format is float16, float32, int8"),
        ({"unit": 0}, "unit must be a positive int"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"batch_size": 2.5}, "batch_size must be"),
        ({"part": "17/16"}, "counted from 1 to 16"),
        ({"part": "x"}, "part is"),
        ({"max_bad": 1.5}, "at most 1.0"),
        ({"keep": {"input": "mean"}}, r"keep\['input'\] is"),
        ({"keep": {"0": "some"}}, "channels, top:K or a function"),
        ({"keep": "sum"}, "keep= is a dict"),
        ({"keep": {"input": "sum:13"}}, "more blocks than the 12 positions"),
        ({"model": torch.relu}, "model is a torch.nn.Module"),
    ],
)
def test_bad_arguments_are_refused_at_the_door(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        explain(settings.pop("source", X), tmp_path / "maps", **settings)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------ failures


class Odd(nn.Module):
    """A network that breaks on some inputs, or on large batches."""

    def __init__(self, most: int = 10**6) -> None:
        super().__init__()
        self.inner, self.most, self.seen = network(), most, []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("too large")
        return self.inner(x) / (x.amax((1, 2, 3), keepdim=False)[:, None] < 90)


def test_nan_that_the_network_makes_is_one_samples_fault(tmp_path: Path) -> None:
    broken = X.clone()
    broken[5, 0, 0, 0] = 100.0
    run = explain(broken, tmp_path / "maps", Odd().eval())
    good = explain(X, tmp_path / "good", Odd().eval())
    assert list(run.quarantined) == ["5"]
    assert all((run[key].map == good[key].map).all() for key in map(str, range(22)) if key != "5")


def test_a_wrong_shape_and_an_error_of_the_data_set_are_put_aside(tmp_path: Path) -> None:
    class Uneven(Labelled):
        def __getitem__(self, n: int) -> tuple[Tensor, int]:
            if n == 2:
                raise KeyError("lost")
            return X[n][:, : 5 if n == 3 else 12], 0

    run = explain(Uneven(), tmp_path / "maps")
    assert set(run.quarantined) == {"2", "3"}
    assert "lost" in run.quarantined["2"] and "(3, 5, 12)" in run.quarantined["3"]


def test_out_of_memory_halves_the_batch_of_the_unit(tmp_path: Path) -> None:
    model = Odd(most=2).eval()
    run = explain(X[:8], tmp_path / "maps", model)
    assert run.status()["done"] == 8 and not run.quarantined
    assert run.store.record(0)["batch"] == 2
    good = explain(X[:8], tmp_path / "good", Odd().eval())
    assert np.allclose(run.table["score"], good.table["score"], atol=1e-6)


def test_too_many_bad_samples_stop_the_run_and_what_is_done_stays(tmp_path: Path) -> None:
    broken = X.clone()
    broken[[1, 9, 10], 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match="3 samples are quarantined, more than max_bad allows"):
        explain(broken, tmp_path / "maps", max_bad=2)
    assert relprop.open_run(tmp_path / "maps").status()["done"] == 16
    assert explain(broken, tmp_path / "maps", max_bad=3).status()["done"] == 22


def test_a_first_unit_that_is_bad_as_a_whole_stops_at_once(tmp_path: Path) -> None:
    bad = X.clone()
    bad[:8] = float("nan")
    with pytest.raises(InputError, match="no sample of the first unit"):
        explain(bad, tmp_path / "maps")
    assert relprop.open_run(tmp_path / "maps").status()["done"] == 0
    with pytest.raises(InputError, match="NaN"):
        explain(torch.full((3, 3, 12, 12), float("nan")), tmp_path / "none")


def test_what_is_no_samples_fault_stops_at_once(tmp_path: Path) -> None:
    with pytest.raises(ModelStateError):
        explain(X, tmp_path / "a", nn.Sequential(nn.Dropout(), network()).train())
    with pytest.raises(CompositeError):
        explain(X, tmp_path / "b", composite="nonsense")
    with pytest.raises(UnsupportedOperationError):
        explain(X, tmp_path / "c", Solving().eval())
    assert not list(tmp_path.iterdir())


class Solving(nn.Module):
    """No propagation is known through the matrix of a linear system."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.solve(x + 9 * torch.eye(12), torch.ones(12, 1)).sum((1, 3))[:, :3]


def test_a_retry_does_again_the_units_with_quarantined_samples_alone(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "photos")
    content = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(b"broken")
    run = explain(folder, tmp_path / "maps", unit=1, batch_size=1, max_bad=5)
    before = run.store.record_path(0).stat().st_mtime_ns
    (folder / "b.png").write_bytes(content)
    assert explain(folder, tmp_path / "maps", unit=1, batch_size=1).quarantined
    again = explain(folder, tmp_path / "maps", unit=1, batch_size=1, retry_bad=True)
    assert not again.quarantined and again["b.png"].status == "explained"
    assert run.store.record_path(0).stat().st_mtime_ns == before


def test_a_full_disk_is_refused_before_the_first_batch_and_stops_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 1000})())
        with pytest.raises(InputError, match="keep less"):
            explain(X, tmp_path / "maps", said=said.append)
    assert "bytes per sample" in said[0] and "1,000 are free" in said[0]
    from relprop.results.files import atomic

    real, count = atomic.write, iter(range(10**6))

    def full(path: Path, content: bytes) -> None:
        if "/c/" in str(path) and next(count) > 10:
            raise OSError(28, "No space left on device")
        real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "write", full)
        with pytest.raises(OSError, match="No space left"):
            explain(X, tmp_path / "maps")
    assert relprop.open_run(tmp_path / "maps").status()["done"] == 8
    explain(X, tmp_path / "maps")
    explain(X, tmp_path / "undisturbed")
    assert shards(tmp_path / "maps") == shards(tmp_path / "undisturbed")


# ------------------------------------------------------------------------------------------------ going on


def test_a_finished_run_does_nothing_again(tmp_path: Path) -> None:
    explain(X, tmp_path / "maps")
    model = Odd().eval()
    model.inner = network()
    first = explain(X, tmp_path / "other", model)
    calls = len(model.seen)
    again = explain(X, tmp_path / "other", model)
    assert len(model.seen) == calls and again.keys() == first.keys()


def test_parts_loaders_and_chosen_units_give_the_same_bytes(tmp_path: Path) -> None:
    whole = explain(X, tmp_path / "whole")
    for part in ("3/3", (1, 3), "2/3"):
        explain(X, tmp_path / "parts", part=part, loaders=3)
    assert shards(tmp_path / "parts") == shards(whole.folder)
    explain(X, tmp_path / "units", units=[])
    assert data.pending(tmp_path / "units") == [0, 1, 2]
    data.work(tmp_path / "units", [2], X, network(), batch_size=4, unit=8)
    assert data.pending(tmp_path / "units") == [0, 1]
    data.work(tmp_path / "units", data.pending(tmp_path / "units"), X, network(), batch_size=4, unit=8)
    assert shards(tmp_path / "units") == shards(whole.folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"target": 1}, "whose target is None; this one has 1"),
        ({"composite": "epsilon"}, "whose composite is 'auto'"),
        ({"keep": {"input": "full"}}, "whose keep is"),
        ({"batch_size": 2}, "whose batch_size is 4"),
        ({"number_format": "float32"}, "whose number_format is"),
        ({"model": network(5)}, "whose weights_sha256 is"),
        ({"model": network().double(), "source": X.double()}, "whose weights_sha256 is"),
        ({"unit": 4}, "8 samples per unit; this one has 4"),
        ({"source": X[:7]}, "the source changed"),
        ({"key": [str(n) for n in reversed(range(22))]}, "keys of the source are not those"),
    ],
)
def test_another_run_in_the_same_folder_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    explain(X, tmp_path / "maps")
    before = shards(tmp_path / "maps")
    with pytest.raises(InputError, match=said):
        explain(change.pop("source", X), tmp_path / "maps", **change)
    assert shards(tmp_path / "maps") == before


def test_a_source_that_grew_goes_to_new_units(tmp_path: Path) -> None:
    explain(X[:13], tmp_path / "maps")
    before = shards(tmp_path / "maps")
    run = explain(X, tmp_path / "maps")
    after = shards(tmp_path / "maps")
    assert all(after[name] == content for name, content in before.items() if "/c/" in name)
    assert run.keys() == [str(n) for n in range(22)] and not run.verify()
    whole = explain(X, tmp_path / "whole")
    assert np.allclose(run.table["score"], whole.table["score"], atol=1e-6)
    assert run.store.array("status")[:].tolist() == [1] * 13 + [3] * 3 + [1] * 9 + [3] * 7


def test_shards_without_a_record_do_not_count_whatever_is_in_them(tmp_path: Path) -> None:
    explain(X, tmp_path / "whole")
    run = explain(X, tmp_path / "maps", part="1/3")
    names = [name.replace("/c/0", "/c/1") for name in shards(tmp_path / "maps") if "/c/0" in name]
    for n, name in enumerate(names):
        (run.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (run.folder / name).write_bytes(b"damaged"[: n % 8])
    explain(X, tmp_path / "maps")
    assert shards(tmp_path / "maps") == shards(tmp_path / "whole")


def test_temporary_files_of_killed_writers_are_deleted_when_they_are_old(tmp_path: Path) -> None:
    run = explain(X, tmp_path / "maps")
    old, new = run.folder / "units" / ".000001.json.x.part", run.folder / "maps.zarr" / ".0.y.part"
    for path in (old, new):
        path.write_text("half")
    os.utime(old, (0, 0))
    explain(X, tmp_path / "maps")
    assert not old.exists() and new.exists()


def test_verify_finds_what_changed(tmp_path: Path) -> None:
    run = explain(X, tmp_path / "maps")
    assert run.verify() == []
    shard = run.folder / "maps.zarr/maps/c/1/0/0"
    shard.write_bytes(shard.read_bytes()[:-3])
    (run.folder / "maps.zarr/score/c/2").unlink()
    assert run.verify() == ["maps.zarr/maps/c/1/0/0: differs from what was written", "maps.zarr/score/c/2: is missing"]


def test_a_folder_of_something_else_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and is not a run"):
        explain(X, tmp_path / "notes")
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["diary.txt"]
    with pytest.raises(FormatError, match="is not a run"):
        relprop.open_run(tmp_path / "notes")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is damaged"),
        ("[]", "does not describe a run"),
        ('{"format": "relprop run", "version": 3}', "install a newer one"),
        ('{"format": "relprop run", "version": 1}', "it has no arrays"),
    ],
)
def test_a_damaged_or_newer_description_is_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(FormatError, match=said):
        relprop.open_run(tmp_path)


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    run = explain(X, tmp_path / "maps")
    run.store.record_path(1).write_text('{"rows": ')
    with pytest.raises(FormatError, match=r"000001.json.* is damaged"):
        relprop.open_run(tmp_path / "maps").keys()
    run.store.record_path(1).unlink()
    assert len(explain(X, tmp_path / "maps").keys()) == 22


def test_keys_are_never_paths(tmp_path: Path) -> None:
    run = explain(X[:2], tmp_path / "maps", key=["../../outside", "/etc/passwd"])
    assert run.keys() == ["../../outside", "/etc/passwd"]
    assert {path.name for path in tmp_path.iterdir()} == {"maps"}


def test_a_run_that_version_1_wrote_is_read() -> None:
    """Never write this folder anew: later versions must read what this one wrote."""
    folder = Path(__file__).parent / "saved" / "run"
    expected = json.loads((folder / "expected.json").read_text())
    run = relprop.open_run(folder)
    assert run.keys() == list(expected) and not run.verify()
    assert run.quarantined == {"sample/3": "it has entries that are NaN or infinite."}
    for key, told in expected.items():
        one = run[key]
        assert (one.status, one.target) == (told["status"], told["target"])
        if one.status == "explained":
            assert one.score == told["score"] and (one.map == np.array(told["map"], np.float32)).all()
            assert (one.layers["layers.0"] == np.array(told["channels"], np.float32)).all()
            assert one.layers["layers.1.index"].tolist() == told["index"]
    assert run.store.array("status")[:].tolist() == [1, 1, 1, 2, 1, 1, 3, 3, 1, 1, 1, 1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_runs_lose_nothing_and_do_nothing_twice(tmp_path: Path) -> None:
    script = Path(__file__).with_name("killed_runs.py")
    done = subprocess.run([sys.executable, script, tmp_path, "15"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[0]) >= 15


# ------------------------------------------------------------------------------------------------ what is stored


def test_the_largest_outputs(tmp_path: Path) -> None:
    run = explain(X, tmp_path / "maps", network(9))
    output = relprop.attribute(network(9), X).output
    top = output.topk(sample_job.LARGEST)
    assert run.store.array("top.index")[:22].tolist() == top.indices.tolist()
    assert np.allclose(run.store.array("top.value")[:22], top.values.numpy(), atol=1e-6)


def test_the_record_says_what_a_reader_needs(tmp_path: Path) -> None:
    run = explain(X, tmp_path / "maps")
    record = json.loads((run.folder / "units" / "000001.json").read_text())
    assert record["rows"] == [8, 16] and record["keys"] == [str(n) for n in range(8, 16)]
    assert record["composite"] == "gamma_box" and record["batch"] == 4
    assert all((run.folder / name).stat().st_size == said["bytes"] for name, said in record["files"].items())
