"""Runs of models that lie on several devices, or over several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import relprop
from relprop.errors import InputError

pytest.importorskip("zarr")
pytest.importorskip("torch.distributed.fsdp", reason="this torch has no fully_shard")

from killed_runs import network, samples
from relprop.data import sharded_models


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_a_sharded_model_in_two_processes_of_which_one_writes(tmp_path: Path) -> None:
    import sharded
    import sharded_runs

    script = Path(__file__).with_name("sharded_runs.py")
    both = [
        subprocess.Popen(
            [sys.executable, script, str(rank), "2", tmp_path / "store", tmp_path], text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]  # fmt: skip
    for one in both:
        out, err = one.communicate(timeout=200)
        assert one.returncode == 0 and "the runs agree" in out, err[-3000:]
    found = relprop.open_run(tmp_path / "maps")
    right = sharded_runs.explained(sharded.decoders(), tmp_path / "whole")
    assert found.keys() == right.keys() == [str(n) for n in range(11)]
    assert np.allclose(found.table["score"], right.table["score"], atol=1e-6)
    for key in found.keys():  # noqa: SIM118
        assert np.abs(found[key].map - right[key].map).max() < 1e-3 * np.abs(right[key].map).max()


def test_a_model_on_several_devices_is_one_process(tmp_path: Path) -> None:
    model = network()
    model.hf_device_map = {"": "cpu"}
    assert sharded_models.is_dispatched(model) and not sharded_models.is_sharded(model)
    with pytest.raises(InputError, match="several devices is one process"):
        relprop.explain_dataset(samples(), model, tmp_path / "maps", processes=2, progress=False)
    run = relprop.explain_dataset(samples()[:4], model, tmp_path / "maps", progress=False)
    assert run.status()["done"] == 4


def test_a_source_that_is_an_address_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"got 'https://host/x\.tar'\. Mount it, or pass an iterable"):
        relprop.explain_dataset("https://host/x.tar", network(), tmp_path / "maps", progress=False)
    assert not list(tmp_path.iterdir())
