"""Exports to a data set of Hugging Face's library `datasets`, which `datasets.load_from_disk` opens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from relprop.data.chunks import chunks, content, plain
from relprop.data.exports.export_folder import ExportedUnits
from relprop.data.shards import Spec
from relprop.data.store import STATUS, Store
from relprop.optional import library
from relprop.results.files import atomic

_UNITS = ".units"


def hugging_face(store: Store, out: Path) -> Path:
    """A folder that `datasets.load_from_disk` opens: key, status, reason, and a feature for each array.

    Each unit becomes a data set of its own; they are joined at the end, from disk to disk. Numbers of rows that were
    quarantined are NaN, or 0 where they are ints.
    """
    datasets = library("datasets", "exports to Hugging Face data sets need datasets", "hf")
    parts = ExportedUnits(store, out, "hf")
    specs = [spec for spec in content(store) if spec.name != "status"]
    names = ("key", "status", "reason")
    features = datasets.Features(
        {name: datasets.Value("string") for name in names}
        | {spec.name: _feature(datasets, store, spec) for spec in specs}
    )
    datasets.disable_progress_bars()
    for record in parts.missing():
        place = out / _UNITS / f"{record['unit']:06d}"
        shutil.rmtree(place, ignore_errors=True)

        def rows(record: dict[str, Any] = record) -> Any:
            for chunk in chunks(store, record):
                for n, key in enumerate(plain(chunk.keys)):
                    words = {"key": key, "status": STATUS[int(chunk.arrays["status"][n])], "reason": chunk.reasons[n]}
                    yield words | {spec.name: chunk.arrays[spec.name][n] for spec in specs}

        cache = out / _UNITS / f"{record['unit']:06d}.cache"
        shutil.rmtree(cache, ignore_errors=True)
        made = datasets.Dataset.from_generator(rows, features=features, cache_dir=str(cache), keep_in_memory=False)
        made.save_to_disk(str(place))
        shutil.rmtree(cache, ignore_errors=True)
        parts.done(record)
    _join(datasets, store, out)
    return out


def _join(datasets: Any, store: Store, out: Path) -> None:
    """One data set of all units. The files of units stay where they are, and the whole one refers to them."""
    files, first = [], None
    for record in store.records():
        place = f"{_UNITS}/{record['unit']:06d}"
        state = json.loads((out / place / "state.json").read_text(encoding="utf-8"))
        files += [{"filename": f"{place}/{file['filename']}"} for file in state["_data_files"]]
        first = first or (place, state)
    assert first is not None
    place, state = first
    atomic.write(out / "dataset_info.json", (out / place / "dataset_info.json").read_bytes())
    atomic.write(out / "state.json", json.dumps(state | {"_data_files": files}, indent=1).encode())


def _feature(datasets: Any, store: Store, spec: Spec) -> Any:
    scaled = f"{spec.name}.scale" in {one.name for one in store.specs}
    name = "float32" if scaled else str(np.dtype(spec.dtype))
    arrays = {2: datasets.Array2D, 3: datasets.Array3D, 4: datasets.Array4D, 5: datasets.Array5D}
    if len(spec.shape) in arrays:
        return arrays[len(spec.shape)](shape=spec.shape, dtype=name)
    if spec.shape:
        return datasets.Sequence(datasets.Value(name), length=spec.shape[0])
    return datasets.Value(name)
