"""Exports for ViRelAy, a browser of explanations (Anders et al. 2021, "Software for dataset-wide XAI").

It reads a project file, the labels, and three HDF5 files: the pictures, their attributions, and the analysis.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from relprop.data.chunks import Chunk, chunks
from relprop.data.explained_pictures import pictures_of
from relprop.data.exports.export_folder import ExportedUnits
from relprop.data.exports.hdf5 import growing, mark
from relprop.data.spray import Spray
from relprop.data.store import Store
from relprop.errors import InputError
from relprop.optional import library
from relprop.results.files import atomic

NO_CLASS = -1


def virelay(
    store: Store, out: Path, *, source: Any = None, model: Any = None, transform: Any = None, spray: Spray | None = None
) -> Path:
    """A folder whose `project.yaml` ViRelAy opens. It has the samples that were explained.

    Its colour maps need maps of several channels, so a map that was summed has a third of its relevance in each of three.

    Args:
        store: the run.
        out: the folder.
        source: the run's source, for the pictures.
        model: the run's network by name, for pictures in files.
        transform: as it was given to the run.
        spray: the clusters to show.

    Raises:
        InputError: the run keeps no maps of pictures, or no source is given.
    """
    shape = next((spec.shape for spec in store.specs if spec.name == "maps"), ())
    if len(shape) not in (2, 3) or len(store.about["input_shape"]) != 3:
        raise InputError(
            "exports to ViRelAy need maps of pictures, and this run keeps none: see keep= of explain_dataset."
        )
    if "targets" in store.about:
        raise InputError("exports to ViRelAy are for one target per sample, and this run has several.")
    if source is None:
        raise InputError("exports to ViRelAy need the pictures as well: pass source=, the source of the run.")
    picture = pictures_of(store, source, model, transform)
    ExportedUnits(store, out, "virelay")
    atomic.write(out / "label_map.json", json.dumps(_labels(store), indent=1).encode())
    _samples(store, out, shape, picture)
    if spray is not None:
        _analysis(store, out, spray)
    atomic.write(out / "project.yaml", _project(store, spray is not None).encode())
    return out


def _samples(store: Store, out: Path, shape: tuple[int, ...], picture: Any) -> None:
    """The pictures and the attributions. Rows that were quarantined are black, and no analysis names them."""
    height, width = store.about["input_shape"][1:]
    classes = max(label["index"] for label in _labels(store)) + 1
    kinds = {"data": ((3, height, width), "u1", 0), "label": ((), "i8", 0)}
    with growing(store, out / "data.h5", kinds, names=False) as (file, missing):
        for number, (record, at) in missing:
            for chunk in chunks(store, record, ()):
                for n, key in enumerate(chunk.keys):
                    seen = None if chunk.bad[n] else np.asarray(picture(key).resize((width, height)).convert("RGB"))
                    place = at + chunk.row - record["rows"][0] + n
                    file["data"][place] = 0 if seen is None else seen.transpose(2, 0, 1)
                    file["label"][place] = chunk.arrays["target"][n]
            mark(file, number)
    channels = (3, *shape) if len(shape) == 2 else shape
    kinds = {
        "attribution": (channels, "f4", 0), "prediction": ((classes,), "f4", 0), "label": ((), "i8", 0),
        "index": ((), "i8", 0),
    }  # fmt: skip
    with growing(store, out / "attribution.h5", kinds, names=False) as (file, missing):
        for number, (record, at) in missing:
            for chunk in chunks(store, record):
                start = at + chunk.row - record["rows"][0]
                rows = slice(start, start + len(chunk))
                values = np.where(chunk.bad.reshape(-1, *[1] * len(shape)), 0, chunk.arrays["maps"])
                file["attribution"][rows] = values if len(shape) == 3 else np.stack([values / 3] * 3, 1)
                file["prediction"][rows] = _outputs(chunk, classes)
                file["label"][rows] = chunk.arrays["target"]
                file["index"][rows] = np.arange(rows.start, rows.stop)
            mark(file, number)


def _outputs(chunk: Chunk, classes: int) -> np.ndarray:
    """The outputs as far as the run keeps them: those beyond the five largest are written as the smallest of these."""
    found = np.zeros((len(chunk), classes), np.float32)
    if "top.index" in chunk.arrays:
        values = np.nan_to_num(chunk.arrays["top.value"])
        found[:] = values[:, -1:]
        np.put_along_axis(found, np.clip(chunk.arrays["top.index"], 0, classes - 1), values, 1)
    return found


def _labels(store: Store) -> list[dict[str, Any]]:
    """The labels of all classes that occur. ViRelAy finds a label by its number, and by a name of its own."""
    names = store.about.get("labels")
    most = NO_CLASS
    for record in store.records():
        for chunk in chunks(store, record, ("top.index",)):
            most = max([most, int(chunk.arrays["target"].max(initial=NO_CLASS))])
            most = max(most, int(chunk.arrays.get("top.index", np.array([NO_CLASS])).max(initial=NO_CLASS)))
    said = {n: names[n] if names and n < len(names) else f"class {n}" for n in range(most + 1)} | {NO_CLASS: "no class"}
    return [{"index": n, "word_net_id": _category(n), "name": name} for n, name in said.items()]


def _category(target: Any) -> str:
    return f"class-{target}"


def _analysis(store: Store, out: Path, spray: Spray) -> None:
    h5py = library("h5py", "exports to HDF5 need h5py", "hdf5")
    places = np.full(len(store.units()) * store.size, -1)
    at = 0
    for record in store.records():
        first, end = record["rows"]
        places[first:end] = np.arange(at, at + end - first)
        at += end - first
    with atomic.file(out / "analysis.h5") as path, h5py.File(path, "w") as file:
        for one in spray:
            group = file.create_group(_category(one.target))
            group["index"] = places[one.rows]
            embedding = group.create_group("embedding")
            embedding["spectral"] = one.embedding.astype(np.float32)
            embedding["spectral"].attrs["eigenvalue"] = one.eigenvalues[1 : one.embedding.shape[1] + 1]
            if one.view is not None:
                shown = np.nan_to_num(one.view).astype(np.float32)
                embedding["view"] = shown
                embedding["view"].attrs["embedding"] = "spectral"
            clusters = group.create_group("cluster")
            clusters["spray"] = one.clusters
            clusters["spray"].attrs["embedding"] = "spectral"
            clusters["spray"].attrs["k"] = len(one.sizes)


def _project(store: Store, analysed: bool) -> str:
    """The project file. A string of JSON is one of YAML, too."""
    about = store.about["fingerprint"]
    composite = about["composite"] if isinstance(about["composite"], str) else about["composite"][0]
    lines = [
        "project:",
        f"  name: {json.dumps(store.place.name)}",
        f"  model: {json.dumps(str(about['model']))}",
        "  label_map: label_map.json",
        "  dataset:",
        f"    name: {json.dumps(str(about['source']))}",
        "    type: hdf5",
        "    path: data.h5",
        f"    input_width: {store.about['input_shape'][2]}",
        f"    input_height: {store.about['input_shape'][1]}",
        "    down_sampling_method: none",
        "    up_sampling_method: none",
        "  attributions:",
        f"    attribution_method: {json.dumps(f'LRP ({composite})')}",
        f"    attribution_strategy: {'predicted_label' if about['target'] is None else 'true_label'}",
        "    sources:",
        "    - attribution.h5",
        "  analyses:",
    ]
    if analysed:
        lines += ["  - analysis_method: SpRAy", "    sources:", "    - analysis.h5"]
    else:
        lines[-1] += " []"
    return "\n".join(lines) + "\n"
