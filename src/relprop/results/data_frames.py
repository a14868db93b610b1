"""Results as tables: data frames of pandas, and Parquet."""

from __future__ import annotations

import io
from typing import Any

from relprop.errors import InputError
from relprop.optional import library


def pandas_library() -> Any:
    """The library pandas."""
    return library("pandas", "data frames and Parquet need pandas and pyarrow", "tables")


def parquet(result: Any) -> bytes:
    """A result's data frame as a Parquet file."""
    frame = getattr(result, "to_pandas", None)
    if frame is None:
        raise InputError("Parquet holds tables and texts; save this result as .npz or .json.")
    pandas_library()
    library("pyarrow", "Parquet needs pyarrow", "tables")
    buffer = io.BytesIO()
    made = frame()
    made.columns = [str(column) for column in made.columns]
    made.to_parquet(buffer, index=False)
    return buffer.getvalue()
