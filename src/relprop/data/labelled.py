"""A run as an xarray data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from relprop.data.chunks import content
from relprop.data.shards import ARRAYS
from relprop.data.store import Store
from relprop.optional import library


def to_xarray(store: Store, keys: Sequence[str], rows: Sequence[int]) -> Any:
    """The samples that are done, read lazily and decoded.

    Raises:
        ModuleNotFoundError: xarray or dask is not installed.
    """
    xarray = library("xarray", "data sets of xarray need xarray and dask", "xarray")
    library("dask.array", "data sets of xarray need xarray and dask", "xarray")
    stored = xarray.open_zarr(store.place.zarr(ARRAYS), consolidated=False, chunks={}, mask_and_scale=False)
    stored = stored.isel(sample=np.asarray(rows, np.int64))
    found = {}
    for spec in content(store):
        values = stored[spec.name]
        if f"{spec.name}.scale" in stored:
            values = values.astype("float32")
            if store.about["number_format"] == "int8":
                values = abs(values) * values / np.float32(127**2)
            values = values * stored[f"{spec.name}.scale"]
        found[spec.name] = values
    return xarray.Dataset(
        found, coords={"sample": list(keys)}, attrs={"composite": str(store.about["fingerprint"]["composite"])}
    )
