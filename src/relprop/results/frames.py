"""Results as tables: data frames of pandas, and Parquet."""

from __future__ import annotations

import io
from typing import Any

from relprop.errors import InputError


def library() -> Any:
    """Pandas.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "data frames and Parquet need pandas and pyarrow: pip install 'relprop[tables]'", name=error.name
        ) from error
    return pandas


def parquet(result: Any) -> bytes:
    """A result's data frame as a Parquet file."""
    frame = getattr(result, "to_pandas", None)
    if frame is None:
        raise InputError("Parquet holds tables and texts; save this result as .npz or .json.")
    library()
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("Parquet needs pyarrow: pip install 'relprop[tables]'", name=error.name) from error
    buffer = io.BytesIO()
    made = frame()
    made.columns = [str(column) for column in made.columns]
    made.to_parquet(buffer, index=False)
    return buffer.getvalue()
