"""The recipe for Spark, on a Spark of this machine: the bytes of one process, also where a worker is killed."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import relprop

pytest.importorskip("zarr")
pytest.importorskip("pyspark", reason="Spark is not installed")

from killed_runs import samples, shards
from relprop import data

TESTS = Path(__file__).parent
DEATHS = 2
SETTINGS: dict[str, Any] = {"batch_size": 4, "unit": 8, "progress": False}


@pytest.fixture
def spark(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from pyspark.sql import SparkSession

    if shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    path = [str(TESTS), str(Path(relprop.__file__).parent.parent), *sys.path]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    builder = SparkSession.builder.master(f"local[2,{DEATHS + 1}]").config("spark.ui.enabled", "false")
    session = builder.config("spark.driver.host", "127.0.0.1").getOrCreate()
    yield session
    session.stop()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of Spark itself
def test_the_recipe(spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = tmp_path / "x.npy"
    np.save(x, samples()[:22].numpy())
    one = relprop.explain_dataset(x, "killed_runs:network", tmp_path / "one", **SETTINGS)
    relprop.explain_dataset(x, "killed_runs:network", tmp_path / "maps", units=[], **SETTINGS)
    page = (TESTS.parent / "docs" / "data.md").read_text()
    found = re.search(r"numbers = spark\..*\n.*foreachPartition.*\n", page)
    assert found is not None
    lines = found[0].replace('"timm:resnet50"', '"killed_runs:network", batch_size=4, unit=8')
    monkeypatch.chdir(tmp_path)
    exec(lines.replace('"maps/"', repr(str(tmp_path / "maps"))).replace('"photos/"', repr(str(x))))
    assert data.pending(tmp_path / "maps") == [] and shards(tmp_path / "maps") == shards(one.folder)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of Spark itself
def test_workers_that_are_killed(spark: Any, tmp_path: Path) -> None:
    """Spark does their partitions again, and a unit that was done is not done twice."""
    x = tmp_path / "x.npy"
    np.save(x, samples()[:22].numpy())
    one = relprop.explain_dataset(x, "killed_runs:network", tmp_path / "one", **SETTINGS)
    relprop.explain_dataset(x, "killed_runs:network", tmp_path / "maps", units=[], **SETTINGS)
    folder, home, settings = str(tmp_path / "maps"), str(tmp_path), SETTINGS

    def work(units: Iterator[int]) -> None:
        import os
        import signal
        from pathlib import Path

        import relprop.data

        for unit in units:
            relprop.data.work(folder, [unit], f"{home}/x.npy", "killed_runs:network", **settings)
            deaths = len(list(Path(home).glob("death *")))
            if deaths < 2:
                (Path(home) / f"death {deaths}").touch()
                os.kill(os.getpid(), signal.SIGKILL)

    spark.sparkContext.parallelize(data.pending(folder), 1).foreachPartition(work)
    assert len(list(tmp_path.glob("death *"))) == DEATHS
    assert data.pending(folder) == [] and shards(tmp_path / "maps") == shards(one.folder)
