"""Several processes on one run: the same bytes as one, whatever dies."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn
from torch.utils.data import Dataset

import relprop
from relprop.errors import InputError, ModelStateError

pytest.importorskip("zarr")

from killed_runs import network, samples, shards
from relprop import data

SETTINGS: dict[str, Any] = {"batch_size": 4, "unit": 8, "progress": False}


class Deadly(Dataset):
    """Samples, of which some kill the process that reads them; or only the first process that does."""

    def __init__(self, numbers: tuple[int, ...], once: Path | None = None) -> None:
        self.x, self.numbers, self.once, self.home = samples(), numbers, once, os.getpid()

    def __len__(self) -> int:
        return 22

    def __getitem__(self, n: int) -> Tensor:
        if n in self.numbers and os.getpid() != self.home and (self.once is None or not self.once.exists()):
            if self.once is not None:
                self.once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.x[n]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> data.DatasetRun:
    folder = tmp_path_factory.mktemp("one") / "maps"
    return relprop.explain_dataset(samples()[:22], "killed_runs:network", folder, **SETTINGS)


def test_two_processes_of_which_one_dies_give_the_bytes_of_one(one: data.DatasetRun, tmp_path: Path) -> None:
    relprop.explain_dataset(samples()[:22], network(), tmp_path / "two", part="2/3", **SETTINGS)
    said: list[str] = []
    settings = {"processes": 2, "said": said.append, "source": Deadly((3,), tmp_path / "once"), **SETTINGS}
    with pytest.raises(InputError, match="whose source is 'array'"):
        relprop.explain_dataset(model=network(), folder=tmp_path / "two", **settings)
    run = relprop.explain_dataset(model=network(), folder=tmp_path / "maps", **settings)
    assert sum("died by signal 9" in line for line in said) == 1
    assert shards(run.folder) == shards(one.folder) and run.keys() == one.keys()
    last = said[-1]
    assert last.data["done"] == 22 and last.data["left"] == 0 and last.data["bytes"] > 1000  # type: ignore[attr-defined]
    assert last.data["most_time_in"] in ("reading", "explaining", "writing")  # type: ignore[attr-defined]
    assert "samples/s" in last and "s to go" in last


@pytest.mark.slow
def test_a_sample_that_kills_is_put_aside_and_its_mates_are_not_changed(one: data.DatasetRun, tmp_path: Path) -> None:
    run = relprop.explain_dataset(Deadly((13,)), network(), tmp_path / "maps", processes=2, **SETTINGS)
    assert run.quarantined == {"13": "it killed each process that explained it."}
    assert all((run[key].map == one[key].map).all() for key in set(one.keys()) - {"13"})


@pytest.mark.slow
def test_errors_of_processes_are_those_of_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="max_bad allows"):
        broken = samples()[:22].clone()
        broken[[1, 9, 10, 20]] = float("nan")
        relprop.explain_dataset(broken, network(), tmp_path / "maps", processes=2, max_bad=1, **SETTINGS)
    assert not relprop.open_run(tmp_path / "maps").verify()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": nn.Sequential(network(), nn.ReLU())}, None),
        ({"key": lambda n: str(n)}, "key= cannot be sent to another process"),
        ({"processes": 0}, "processes must be a positive int"),
        ({"engine": "spark"}, "engine is None or 'ray'"),
    ],
)
def test_what_cannot_be_sent_is_said_at_the_door(tmp_path: Path, settings: dict[str, Any], said: str | None) -> None:
    model = settings.pop("model", network())
    if said is None:
        model.register_forward_hook(lambda module, inputs, output: output)
        said = "model= cannot be sent to another process.*'module.path:factory'"
    with pytest.raises(InputError, match=said):
        relprop.explain_dataset(samples(), model, tmp_path / "maps", **{"processes": 2, **SETTINGS, **settings})
    assert not list(tmp_path.iterdir())


def test_a_lambda_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model"):
        relprop.explain_dataset(samples(), lambda: network(), tmp_path / "maps", processes=2, **SETTINGS)


def test_a_model_in_training_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelStateError):
        model = nn.Sequential(nn.Dropout(), network()).train()
        relprop.explain_dataset(samples(), model, tmp_path / "maps", processes=2, **SETTINGS)


@pytest.mark.slow
def test_work_and_another_number_of_processes_go_on(one: data.DatasetRun, tmp_path: Path) -> None:
    x = samples()[:22]
    relprop.explain_dataset(x, "killed_runs:network", tmp_path / "maps", part="2/3", **SETTINGS)
    run = relprop.explain_dataset(x, "killed_runs:network", tmp_path / "maps", processes=2, **SETTINGS)
    assert shards(run.folder) == shards(one.folder)
    before = run.store.record_path(0).stat().st_mtime_ns
    relprop.explain_dataset(x, "killed_runs:network", tmp_path / "maps", **SETTINGS)
    assert run.store.record_path(0).stat().st_mtime_ns == before


# ------------------------------------------------------------------------------------------------ other engines


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="the line is for a shell")
def test_the_line_for_slurm(one: data.DatasetRun, tmp_path: Path) -> None:
    """The line of docs/data.md, as a shell runs it in each job of an array."""
    page = (Path(__file__).parent.parent / "docs" / "data.md").read_text()
    line = next(line for line in page.splitlines() if "SLURM_ARRAY_TASK_ID" in line)
    np.save(tmp_path / "x.npy", samples()[:22].numpy())
    named = {
        "relprop": f"{shlex.quote(sys.executable)} -m relprop.cli",
        "photos/": "x.npy",
        "timm:resnet50": "killed_runs:network",
    }
    words = " ".join(named.get(word, word) for word in line.split()) + " --batch-size 4 --unit 8"
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(relprop.__file__).parent.parent)])
    for job in (3, 1, 2):
        job_array = {"SLURM_ARRAY_TASK_ID": str(job), "SLURM_ARRAY_TASK_COUNT": "3", "PYTHONPATH": path}
        subprocess.run(
            ["sh", "-c", words], check=True, cwd=tmp_path, env={**os.environ, **job_array}, capture_output=True
        )
    assert shards(tmp_path / "maps") == shards(one.folder)


def test_a_partition_of_spark_is_an_iterator(one: data.DatasetRun, tmp_path: Path) -> None:
    x = samples()[:22]
    relprop.explain_dataset(x, "killed_runs:network", tmp_path / "maps", units=[], **SETTINGS)
    numbers = data.pending(tmp_path / "maps")
    for partition in (numbers[::2], numbers[1::2], []):
        data.work(tmp_path / "maps", iter(partition), x, "killed_runs:network", **SETTINGS)
    assert shards(tmp_path / "maps") == shards(one.folder)


@pytest.mark.slow
def test_dask(one: data.DatasetRun, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed")
    x, folder = samples()[:22], tmp_path / "maps"
    relprop.explain_dataset(x, "killed_runs:network", folder, units=[], **SETTINGS)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        tasks = [
            client.submit(data.work, folder, [unit], x, "killed_runs:network", **SETTINGS)
            for unit in data.pending(folder)
        ]
        client.gather(tasks)
    assert data.pending(folder) == [] and shards(folder) == shards(one.folder)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of Ray itself
def test_ray(one: data.DatasetRun, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'relprop[ray]'")
    pytest.importorskip("ray.data")
    try:
        run = relprop.explain_dataset(
            samples()[:22], "killed_runs:network", tmp_path / "maps", engine="ray", processes=2, **SETTINGS
        )
    finally:
        ray.shutdown()
    assert shards(run.folder) == shards(one.folder) and run.keys() == one.keys()
